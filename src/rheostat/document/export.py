"""From what a project holds to the document that says it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from rheostat.document.document import (
    DEFINITION_FIELDS,
    Document,
    EnvironmentEntry,
    RuleEntry,
    SegmentEntry,
    SettingEntry,
    WrittenDistribution,
)
from rheostat.errors import InvalidDocumentError, NotFoundError
from rheostat.language import WrittenCondition
from rheostat.model.condition import BucketAlgorithm, Condition, Percentage, walk
from rheostat.model.rule import Distribution, Rule, ValueOutcome
from rheostat.model.setting import Setting
from rheostat.model.state import ProjectState
from rheostat.model.type import BOOL
from rheostat.model.value import ABSENT, freeze, same

__all__ = ["equal_fields", "export_document"]

_BLANK = Setting("", "", BOOL, default=False)


def export_document(state: ProjectState, *, environments: Collection[str] | None = None) -> Document:
    """Return the document that makes *state* of nothing: the same state gives the same document.

    What is equal in all exported environments stands once, the rest under each of them. What every new
    setting has anyway is left out. Titles, protection, revisions and declarations are no part of a document.

    Args:
        state: The project.
        environments: The slugs to export; all when None.

    Raises:
        NotFoundError: The project has no such environment.
        InvalidDocumentError: A rule came from a newer version and cannot be written by this one.
    """
    slugs = sorted(state.environments if environments is None else set(environments))
    for slug in slugs:
        if slug not in state.environments:
            raise NotFoundError(f"the project {state.project.slug!r} has no environment {slug!r}")
    names = sorted({name for slug in slugs for name in state.environments[slug].settings})
    settings = {
        name: _entry(
            {
                slug: setting
                for slug in slugs
                if (setting := state.environments[slug].settings.get(name)) is not None
            },
            everywhere=all(name in state.environments[slug].settings for slug in slugs),
        )
        for name in names
    }
    segments = {
        name: SegmentEntry(written(segment.condition), segment.description or None)
        for name, segment in sorted(state.segments.items(), key=lambda item: item[0])
    }
    return Document(
        project=state.project.slug,
        environments=tuple(slugs) if slugs else None,
        features=state.project.features or None,
        segments=segments or None,
        settings=settings or None,
        source=f"export of {state.project.slug}",
    )


def equal_fields(name: str, left: object, right: object) -> bool:
    """Tell whether two contents of a setting's field are equal as configuration."""
    if left is ABSENT or right is ABSENT:
        return left is right
    if name in ("default", "value", "off", "metadata"):
        return same(freeze(left), freeze(right))
    if name == "type":
        # Dataclass equality takes Enum[1] for Enum[true].
        return str(left) == str(right)
    return left == right


def _entry(by_slug: Mapping[str, Setting], *, everywhere: bool) -> SettingEntry:
    settings = list(by_slug.values())
    common = [
        name
        for name in DEFINITION_FIELDS
        if everywhere
        and all(equal_fields(name, getattr(settings[0], name), getattr(s, name)) for s in settings)
    ]
    sections = {}
    for slug, setting in by_slug.items():
        own = [name for name in DEFINITION_FIELDS if name not in common]
        fields = _told(setting, (*own, "enabled", "value", "off"))
        rules = tuple(_rule(rule, setting, slug) for rule in setting.rules)
        if fields or rules:
            sections[slug] = EnvironmentEntry(fields, rules=rules or None)
    return SettingEntry(_told(settings[0], common), environments=sections)


def _told(setting: Setting, names: Sequence[str]) -> dict[str, object]:
    """Return the fields that a new setting would not have of itself."""
    return {
        name: getattr(setting, name)
        for name in names
        if name in ("type", "default")
        or not equal_fields(name, getattr(setting, name), getattr(_BLANK, name))
    }


def _rule(rule: Rule, setting: Setting, slug: str) -> RuleEntry:
    outcome: ValueOutcome | WrittenDistribution
    match rule.outcome:
        case None:
            raise InvalidDocumentError(
                f"the rule {rule.id!r} of {setting.name!r} in {slug!r} comes from a newer version"
            )
        case Distribution():
            outcome = WrittenDistribution(rule.outcome, rule.outcome.algorithm is not BucketAlgorithm.MURMUR3)
        case ValueOutcome():
            outcome = rule.outcome
    return RuleEntry(
        rule.id,
        None if rule.condition is None else written(rule.condition),
        outcome,
        None if rule.enabled else False,
        rule.description or None,
        rule.metadata or None,
    )


def written(condition: Condition) -> WrittenCondition:
    """Return *condition* as its canonical text is read: MURMUR3 is not written."""
    return WrittenCondition(
        condition,
        tuple(
            part.algorithm is not BucketAlgorithm.MURMUR3
            for part in walk(condition)
            if isinstance(part, Percentage)
        ),
    )
