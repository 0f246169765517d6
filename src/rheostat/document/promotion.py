"""From what one environment holds to the document that brings another one there. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from rheostat.document.document import (
    CLEARABLE_FIELDS,
    DEFINITION_FIELDS,
    ENVIRONMENT_FIELDS,
    Document,
    EnvironmentEntry,
    RuleEntry,
    SettingEntry,
    WrittenDistribution,
)
from rheostat.document.export import equal_fields
from rheostat.errors import InvalidDocumentError, NotFoundError, SettingNotFoundError
from rheostat.language import WrittenCondition
from rheostat.model.rule import Distribution, Rule
from rheostat.model.setting import Setting
from rheostat.model.state import ProjectState
from rheostat.model.type import BOOL
from rheostat.model.value import ABSENT

__all__ = ["PARTS", "promotion"]

PARTS: Final = ("definitions", "values", "rules")
"""What may be promoted of a setting."""

_RULE_FIELDS: Final = ("order",)
"""What a list of rules means nothing without."""

_BLANK: Final = Setting("", "", BOOL, default=False)


def promotion(
    state: ProjectState,
    source: str,
    target: str,
    *,
    names: Collection[str] = (),
    parts: Collection[str] = PARTS,
) -> Document:
    """Return the document after whose application *target* has what *source* has.

    Rules keep their ids, salts and algorithms, so that units stay in their buckets. A setting is the same one under
    whatever name each environment has for it; one that *target* does not have comes with its whole definition.
    Aliases are added and never taken away.

    Args:
        state: The project, with both environments; *target* may be missing, which is as if it were empty.
        source: Slug.
        target: Slug.
        names: Only these settings, by name or alias in *source*; all when empty.
        parts: Of `PARTS`.

    Raises:
        NotFoundError: There is no *source*, or it has no setting of one of the *names*.
        InvalidDocumentError: A rule came from a newer version and cannot be written by this one.
    """
    if source not in state.environments:
        raise NotFoundError(f"the project {state.project.slug!r} has no environment {source!r}")
    settings = state.environments[source].settings
    there = state.environments[target].settings if target in state.environments else {}
    chosen = list(settings.values())
    if names:
        by_name = {name: setting for setting in settings.values() for name in setting.names}
        for name in names:
            if name not in by_name:
                raise SettingNotFoundError(
                    f"the environment {source!r} has no setting {name!r}",
                    metadata={"setting": name, "environment": source},
                )
        chosen = list({by_name[name].name: by_name[name] for name in names}.values())
    entries = {}
    for setting in chosen:
        counterpart = _counterpart(setting, there)
        name, entry = _entry(setting, counterpart, target, parts)
        entries[name] = entry
    return Document(
        project=state.project.slug,
        environments=(target,),
        settings=entries,
        source=f"promotion of {source} to {target}",
    )


def _counterpart(setting: Setting, there: Mapping[str, Setting]) -> Setting | None:
    """Return the same setting of another environment: by identity, else by name."""
    found = next((other for other in there.values() if other.id == setting.id), None)
    return found or there.get(setting.name)


def _entry(
    setting: Setting, counterpart: Setting | None, target: str, parts: Collection[str]
) -> tuple[str, SettingEntry]:
    wanted = set[str]()
    if counterpart is None or "definitions" in parts:
        wanted.update(DEFINITION_FIELDS)
    if "values" in parts:
        wanted.update(ENVIRONMENT_FIELDS)
    if "rules" in parts:
        wanted.update(_RULE_FIELDS)
    name = setting.name
    # A new name goes along with the definition, and only where it is known to be one of the same setting.
    if counterpart is not None and (
        "definitions" not in parts or counterpart.name not in (setting.name, *setting.aliases)
    ):
        name = counterpart.name
    fields = {
        field: getattr(setting, field)
        for field in (*DEFINITION_FIELDS, *ENVIRONMENT_FIELDS)
        if field in wanted
    }
    if "aliases" in fields:
        others = () if counterpart is None else counterpart.names
        fields["aliases"] = _distinct(others, setting.names, but=name)
    unset = frozenset(
        field
        for field, content in fields.items()
        if field in CLEARABLE_FIELDS
        and (content is ABSENT or (content is None or equal_fields(field, content, getattr(_BLANK, field))))
    )
    section = EnvironmentEntry(
        {field: content for field, content in fields.items() if field not in unset},
        unset,
        tuple(_rule(rule, setting) for rule in setting.rules) if "rules" in parts else None,
    )
    return name, SettingEntry(environments={target: section})


def _distinct(*groups: Iterable[str], but: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for group in groups for name in group if name != but))


def _rule(rule: Rule, setting: Setting) -> RuleEntry:
    if rule.outcome is None:
        raise InvalidDocumentError(
            f"the rule {rule.id!r} of {setting.name!r} comes from a newer version, which can promote it"
        )
    outcome = (
        WrittenDistribution(rule.outcome, has_algorithm=True)
        if isinstance(rule.outcome, Distribution)
        else rule.outcome
    )
    return RuleEntry(
        rule.id,
        None if rule.condition is None else WrittenCondition.of(rule.condition),
        outcome,
        rule.enabled,
        rule.description,
        rule.metadata,
        frozenset({"where"} if rule.condition is None else ()),
    )
