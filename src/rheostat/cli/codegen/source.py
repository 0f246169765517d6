"""The settings of one environment, from a server or from a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from rheostat.document import Document, SettingEntry
from rheostat.errors import InvalidTypeError, TypeMismatchError
from rheostat.model.setting import Lifecycle, Setting
from rheostat.model.type import BOOL, normalise

__all__ = ["Source", "document_source", "listed"]

_BLANK: Final = Setting("", "", BOOL, default=False)


@dataclass(frozen=True, slots=True)
class Source:
    """What code is generated from.

    Attributes:
        project: Slug; empty when a document does not name it.
        environment: Slug; empty when a document is about every environment.
        settings: Sorted by name, without archived ones.
    """

    project: str
    environment: str
    settings: Sequence[Setting]


def listed(settings: Sequence[Setting]) -> Sequence[Setting]:
    """Return *settings* by name, without those that are archived."""
    return sorted(
        (setting for setting in settings if setting.lifecycle is not Lifecycle.ARCHIVED),
        key=lambda setting: setting.name,
    )


def document_source(document: Document, environment: str) -> Source:
    """Return what a document says of an environment.

    Args:
        document: As `rheostat export` writes it. It may leave out what a server would know, but not types and
            defaults.
        environment: Slug; empty means the only one that the document is about.

    Raises:
        InvalidDocumentError: The document is not about that environment, or about several while none is named;
            a setting has no type or default, or a default that its type refuses.
    """
    settings = document.settings or {}
    named = sorted({slug for entry in settings.values() for slug in entry.environments})
    slugs = named if document.environments is None else sorted(document.environments)
    if not environment and len(slugs) > 1:
        raise document.error(
            "environments",
            f"the document is about several environments, name one with --environment: {', '.join(slugs)}",
        )
    # Without a list the definitions are about all environments, also those that the document never names.
    if environment and document.environments is not None and environment not in slugs:
        raise document.error(
            "environments",
            f"the environment {environment!r} is not among the document's: {', '.join(slugs) or 'none'}",
        )
    slug = environment or (slugs[0] if slugs else "")
    found = [
        setting
        for name, entry in settings.items()
        if (setting := _setting(document, name, entry, slug)) is not None
    ]
    return Source(document.project, slug, listed(found))


def _setting(document: Document, name: str, entry: SettingEntry, slug: str) -> Setting | None:
    own = entry.environments.get(slug)
    if not entry.fields and not entry.unset and own is None:
        # It is about the environments that it names alone.
        return None
    fields: dict[str, Any] = _without(entry.fields, entry.unset)
    if own is not None:
        fields = _without({**fields, **own.fields}, own.unset)
    if fields.get("lifecycle") is Lifecycle.ARCHIVED:
        return None
    where = f" in {slug!r}" if slug else ""
    for field in ("type", "default"):
        if field not in fields:
            raise document.error(f"settings.{name}", f"the setting has no {field}{where}")
    try:
        fields["default"] = normalise(fields["type"], fields["default"])
    except (TypeMismatchError, InvalidTypeError) as exc:
        raise document.error(f"settings.{name}.default", exc.message) from None
    return replace(_BLANK, name=name, **fields)


def _without(fields: Mapping[str, object], unset: frozenset[str]) -> dict[str, Any]:
    return {name: content for name, content in fields.items() if name not in unset}
