"""From a document and what there is to the mutations between them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal, cast

from rheostat.document.document import (
    Document,
    EnvironmentEntry,
    RuleEntry,
    SettingEntry,
    WrittenDistribution,
)
from rheostat.document.export import equal_fields
from rheostat.document.rule_match import (
    completed_rule,
    in_order,
    match_rules,
    normalised_outcome,
    renamed_rule,
)
from rheostat.errors import TypeMismatchError
from rheostat.model.change import (
    DeleteRule,
    DeleteSegment,
    DeleteSetting,
    MoveRule,
    Mutation,
    PutEnvironment,
    PutProject,
    PutRule,
    PutSegment,
    PutSetting,
    RenameSetting,
    SetFeatures,
)
from rheostat.model.encoding import condition_key, outcome_key
from rheostat.model.rule import Distribution, Rule, ValueOutcome
from rheostat.model.setting import Order, Segment, Setting
from rheostat.model.state import EnvironmentState, ProjectState
from rheostat.model.type import SettingType, normalise
from rheostat.model.value import ABSENT, Value, same

__all__ = ["plan_apply"]

_NOTHING = EnvironmentEntry()


def plan_apply(
    document: Document,
    state: ProjectState | None,
    *,
    environments: Collection[str] | None = None,
    prune: bool | Literal["declared"] = False,
    is_recent: Callable[[str, Setting], bool] | None = None,
    paths: list[str] | None = None,
) -> Sequence[Mutation]:
    """Return the mutations after which *state* is as *document* says; none when it already is.

    They are to be committed together: on their way they may pass through states that are not legal.

    Args:
        document: What is wanted. What it does not mention is left alone.
        state: The project, or None when it does not exist yet.
        environments: Touch these alone; all of the document's when None.
        prune: Delete the settings, segments and features that the sections of the document leave out.
            Settings that code declared are kept unless it is ``"declared"``.
        is_recent: Whether the declaration of a setting, in the environment of that slug, is recent enough to
            keep it from pruning; None keeps all that code has declared.
        paths: Filled with the part of the document behind each mutation, for `Document.place`.

    Raises:
        InvalidDocumentError: The document does not fit the state: another project, an unknown environment, a
            new setting without type or default, a value that its setting's type refuses.
    """
    application = _Application(document, state, environments, prune, is_recent)
    mutations = []
    for mutation in application.mutations():
        mutations.append(mutation)
        if paths is not None:
            paths.append(application.path)
    return mutations


class _Application:
    def __init__(
        self,
        document: Document,
        state: ProjectState | None,
        environments: Collection[str] | None,
        prune: bool | Literal["declared"],
        is_recent: Callable[[str, Setting], bool] | None,
    ) -> None:
        self.path = ""
        """The part of the document behind the last mutation."""
        self._document = document
        self._state = state
        self._prune = prune
        self._is_recent = is_recent or (lambda _, setting: setting.declared)
        known: Mapping[str, EnvironmentState] = {} if state is None else state.environments
        if state is not None and document.project not in ("", state.project.slug):
            raise document.error(
                "project", f"the document is about {document.project!r}, not {state.project.slug!r}"
            )
        if state is None and not document.project:
            raise document.error("project", "the document does not name a project")
        listed = tuple(known) if document.environments is None else document.environments
        for slug in environments or ():
            if slug not in listed:
                raise document.error(
                    "environments",
                    f"the environment {slug!r} is not among the document's: {', '.join(listed) or 'none'}",
                )
        self._slugs = [slug for slug in listed if environments is None or slug in environments]
        self._known = known
        for name, entry in (document.settings or {}).items():
            for slug in entry.environments:
                if slug not in listed:
                    raise document.error(
                        f"settings.{name}.environments.{slug}",
                        f"the environment {slug!r} is unknown; known are {', '.join(listed) or 'none'}",
                    )
            if not listed:
                raise document.error(
                    "settings", "there is no environment to apply this to; list them under environments"
                )

    def mutations(self) -> Iterator[Mutation]:
        if self._state is None:
            self.path = "project"
            yield PutProject(self._document.project)
        for slug in self._slugs:
            if slug not in self._known:
                self.path = "environments"
                yield PutEnvironment(slug)
        stored = () if self._state is None else self._state.project.features
        merged = _merged(self._document.features or (), stored)
        if merged != stored:
            self.path = "features"
            yield SetFeatures(merged)
        yield from self._segments()
        for slug in self._slugs:
            yield from self._settings(slug)
        yield from self._pruned_segments()
        if self._prune and self._document.features not in (None, merged):
            # Last, when the settings that had them are gone or changed.
            self.path = "features"
            yield SetFeatures(self._document.features or ())

    def _segments(self) -> Iterator[Mutation]:
        stored = {} if self._state is None else self._state.segments
        for name, entry in (self._document.segments or {}).items():
            old = stored.get(name)
            if entry.where is not None:
                condition = entry.where.completed(None if old is None else old.condition)
            elif old is not None:
                condition = old.condition
            else:
                raise self._document.error(f"segments.{name}", "the segment is new and needs `where`")
            description = "" if old is None else old.description
            if entry.description is not None:
                description = entry.description
            if (
                old is None
                or old.description != description
                or condition_key(old.condition) != condition_key(condition)
            ):
                self.path = f"segments.{name}"
                yield PutSegment(Segment(name, condition, description), keep_description=False)

    def _pruned_segments(self) -> Iterator[Mutation]:
        if self._prune and self._state is not None and self._document.segments is not None:
            for name in self._state.segments:
                if name not in self._document.segments:
                    self.path = "segments"
                    yield DeleteSegment(name)

    def _settings(self, slug: str) -> Iterator[Mutation]:
        if self._document.settings is None:
            return
        environment = self._known.get(slug)
        stored = {} if environment is None else environment.settings
        aliases = {alias: setting for setting in stored.values() for alias in setting.aliases}
        targets: dict[str, str] = {}
        plans: list[_SettingPlan] = []
        for name, entry in self._document.settings.items():
            section = entry.environments.get(slug)
            old = self._found(name, entry, section, stored, aliases, slug)
            if old is not None:
                if old.name in targets:
                    raise self._document.error(
                        f"settings.{name}", f"in {slug!r} this is the setting of {targets[old.name]!r} too"
                    )
                targets[old.name] = name
            if entry.fields or entry.unset or section is not None:
                plans.append(_SettingPlan(self._document, name, slug, entry, section or _NOTHING, old))
        pruned = [
            setting
            for setting in stored.values()
            if self._prune
            and setting.name not in targets
            and (self._prune == "declared" or not self._is_recent(slug, setting))
        ]
        wanted_names = {name for plan in plans for name in plan.names}
        renames = {plan.renames[0]: plan.renames[1] for plan in plans if plan.renames is not None}
        # A name has to be free before another setting takes it; what is referred to goes when nothing does.
        self.path = "settings"
        for setting in pruned:
            if wanted_names.intersection(setting.names):
                yield DeleteSetting(setting.name, slug)
        # A renaming rewrites the references in all rules, so the rules are looked at behind it.
        for old_name, new_name in renames.items():
            yield RenameSetting(old_name, new_name, slug)
        for plan in plans:
            for mutation in plan.mutations(renames):
                self.path = plan.path
                yield mutation
        self.path = "settings"
        for setting in pruned:
            if not wanted_names.intersection(setting.names):
                yield DeleteSetting(setting.name, slug)

    def _found(
        self,
        name: str,
        entry: SettingEntry,
        section: EnvironmentEntry | None,
        stored: Mapping[str, Setting],
        aliases: Mapping[str, Setting],
        slug: str,
    ) -> Setting | None:
        """Return the setting that *entry* is about: by name, by alias, or by a former name of its own."""
        found = stored.get(name) or aliases.get(name)
        if found is not None:
            return found
        former = {
            stored[alias].name for alias in _aliases(entry, section or _NOTHING) or () if alias in stored
        }
        if len(former) > 1:
            raise self._document.error(
                f"settings.{name}.aliases",
                f"in {slug!r} these are the names of several settings: {', '.join(sorted(former))}",
            )
        return stored[former.pop()] if former else None


def _aliases(entry: SettingEntry, section: EnvironmentEntry) -> tuple[str, ...] | None:
    merged = _merged_fields(entry, section)
    aliases = merged.get("aliases")
    return None if aliases is None or aliases is ABSENT else cast("tuple[str, ...]", aliases)


def _merged_fields(entry: SettingEntry, section: EnvironmentEntry) -> dict[str, object]:
    """Return what the document says of the fields in one environment; ABSENT clears one."""
    merged = dict(entry.fields)
    merged.update((name, ABSENT) for name in entry.unset)
    merged.update(section.fields)
    merged.update((name, ABSENT) for name in section.unset)
    return merged


class _SettingPlan:
    """What is to be done about one setting in one environment."""

    def __init__(
        self,
        document: Document,
        name: str,
        slug: str,
        entry: SettingEntry,
        section: EnvironmentEntry,
        old: Setting | None,
    ) -> None:
        self._document = document
        self.path = self._path = f"settings.{name}"
        self._section_path = f"settings.{name}.environments.{slug}"
        self._slug = slug
        self._section = section
        self._old = old
        self._fields = _merged_fields(entry, section)
        aliases = _aliases(entry, section)
        self._renames = old is not None and old.name != name and old.name in (aliases or ())
        # Found by a former name that the document does not call one, a setting keeps its present name.
        self._name = name if old is None or self._renames else old.name
        self._type = self._its_type()
        for field in ("default", "value", "off"):
            if self._fields.get(field, ABSENT) is not ABSENT:
                self._fields[field] = self._normalised(field)

    @property
    def names(self) -> set[str]:
        """The names that the setting will have and may not have yet."""
        aliases = self._fields.get("aliases", ())
        return {self._name, *(() if aliases is ABSENT else cast("tuple[str, ...]", aliases))}

    def _its_type(self) -> SettingType:
        if self._old is None:
            for needed in ("type", "default"):
                if needed not in self._fields:
                    raise self._document.error(
                        self._section_path if self._section is not _NOTHING else self._path,
                        f"the setting does not exist in {self._slug!r}; to create it, give its {needed}",
                    )
        if "type" in self._fields:
            return cast("SettingType", self._fields["type"])
        return cast("Setting", self._old).type

    def _normalised(self, field: str) -> Value:
        try:
            return normalise(self._type, cast("Value", self._fields[field]))
        except TypeMismatchError as exc:
            path = self._section_path if field in self._section.fields else self._path
            raise self._document.error(f"{path}.{field}", exc.message) from None

    @property
    def renames(self) -> tuple[str, str] | None:
        """The old and the new name, where the setting gets a new one."""
        return (self._old.name, self._name) if self._old is not None and self._renames else None

    def mutations(self, renames: Mapping[str, str]) -> Iterator[Mutation]:
        """Yield what is to be done after *renames* were."""
        old = self._old
        stored_rules = [renamed_rule(rule, renames) for rule in (() if old is None else old.rules)]
        if self._section.rules is not None and "type" in self._fields:
            # What the new type refuses goes first; the document's rules then come anew.
            fitting = [rule for rule in stored_rules if self._fits(rule)]
            for rule in stored_rules:
                if rule not in fitting:
                    self.path = f"{self._section_path}.rules"
                    yield DeleteRule(self._name, rule.id, self._slug)
            stored_rules = fitting
        changed = self._changed_fields()
        if changed:
            of_section = changed.keys() <= self._section.fields.keys() | self._section.unset
            self.path = self._section_path if of_section else self._path
            yield PutSetting(self._name, changed, self._slug)
        if self._section.rules is not None:
            yield from self._rule_mutations(self._section.rules, stored_rules)

    def _changed_fields(self) -> dict[str, object]:
        old = self._old
        changed: dict[str, object] = {}
        for name, content in self._fields.items():
            if old is None:
                is_changed = content is not ABSENT
            elif content is ABSENT:
                blank = Setting(old.id, old.name, old.type, old.default)
                is_changed = not equal_fields(name, getattr(old, name), getattr(blank, name))
            else:
                before = getattr(old, name)
                if name == "aliases" and self._renames:
                    # What the renaming leaves behind.
                    before = (*(alias for alias in before if alias != self._name), old.name)
                is_changed = not equal_fields(name, before, content)
            if is_changed:
                changed[name] = str(content) if name == "type" else content
        return changed

    def _fits(self, rule: Rule) -> bool:
        try:
            if rule.outcome is not None:
                normalised_outcome(rule.outcome, self._type)
        except TypeMismatchError:
            return False
        return True

    def _rule_mutations(self, entries: Sequence[RuleEntry], stored: Sequence[Rule]) -> Iterator[Mutation]:
        entries = [self._normalised_entry(i, entry) for i, entry in enumerate(entries)]
        if "type" in self._fields:
            stored = [self._retyped(rule) for rule in stored]
        matches = match_rules(entries, stored)
        rules = [completed_rule(entry, match) for entry, match in zip(entries, matches, strict=True)]
        for i, rule in enumerate(rules):
            if rule.outcome is None:
                raise self._document.error(
                    f"{self._section_path}.rules[{i}]",
                    f"the rule {rule.id!r} is new: it needs value or split",
                )
        kept = {match.id for match in matches if match is not None}
        self.path = f"{self._section_path}.rules"
        for old in stored:
            if old.id not in kept:
                yield DeleteRule(self._name, old.id, self._slug)
        for i, (entry, rule, match) in enumerate(zip(entries, rules, matches, strict=True)):
            if match is not None and not _same_rule(rule, match):
                self.path = self._rule_path(i)
                yield PutRule(self._name, rule, keep_enabled=entry.enabled is None, environment=self._slug)
        if self._order is Order.SPECIFICITY:
            for i, (rule, match) in enumerate(zip(rules, matches, strict=True)):
                if match is None:
                    self.path = self._rule_path(i)
                    yield PutRule(self._name, rule, environment=self._slug)
            return
        present = [old.id for old in stored if old.id in kept]
        self.path = f"{self._section_path}.rules"
        for move in in_order(present, [match.id for match in matches if match is not None]):
            yield MoveRule(
                self._name, move.id, before_id=move.before, after_id=move.after, environment=self._slug
            )
        yield from self._new_rules(rules, matches)

    def _new_rules(self, rules: Sequence[Rule], matches: Sequence[Rule | None]) -> Iterator[Mutation]:
        """Insert the new rules, each before the next one whose id is known, or at the end."""
        # Those with an id from the back, so that the next one is there already; then those that the server
        # will name, which nothing can refer to.
        following: list[str] = []
        next_id = ""
        for rule in reversed(rules):
            following.append(next_id)
            next_id = rule.id or next_id
        following.reverse()
        new = [i for i, match in enumerate(matches) if match is None]
        for i in reversed(new):
            if rules[i].id:
                self.path = self._rule_path(i)
                yield PutRule(self._name, rules[i], before_id=following[i], environment=self._slug)
        for i in new:
            if not rules[i].id:
                self.path = self._rule_path(i)
                yield PutRule(self._name, rules[i], before_id=following[i], environment=self._slug)

    def _rule_path(self, i: int) -> str:
        return f"{self._section_path}.rules[{i}]"

    @property
    def _order(self) -> Order:
        order = self._fields.get("order")
        if order is ABSENT:
            return Order.STORED
        if order is not None:
            return cast("Order", order)
        return Order.STORED if self._old is None else self._old.order

    def _normalised_entry(self, i: int, entry: RuleEntry) -> RuleEntry:
        try:
            return _normalised_entry(entry, self._type)
        except TypeMismatchError as exc:
            raise self._document.error(f"{self._section_path}.rules[{i}]", exc.message) from None

    def _retyped(self, rule: Rule) -> Rule:
        if rule.outcome is None:
            return rule
        return replace(rule, outcome=normalised_outcome(rule.outcome, self._type))


def _normalised_entry(entry: RuleEntry, type_: SettingType) -> RuleEntry:
    match entry.outcome:
        case None:
            return entry
        case WrittenDistribution(distribution):
            split = cast("Distribution", normalised_outcome(distribution, type_))
            return replace(entry, outcome=replace(entry.outcome, distribution=split))
        case ValueOutcome():
            return replace(entry, outcome=cast("ValueOutcome", normalised_outcome(entry.outcome, type_)))


def _same_rule(left: Rule, right: Rule) -> bool:
    return (
        condition_key(left.condition) == condition_key(right.condition)
        and outcome_key(left.outcome) == outcome_key(right.outcome)
        and left.enabled == right.enabled
        and left.description == right.description
        and same(left.metadata, right.metadata)
    )


def _merged(wanted: Sequence[str], stored: Sequence[str]) -> tuple[str, ...]:
    """Return *wanted*, and what of *stored* it leaves out, each behind the one that it stood behind."""
    merged = list(wanted)
    for at, feature in enumerate(stored):
        if feature not in merged:
            merged.insert(merged.index(stored[at - 1]) + 1 if at else 0, feature)
    return tuple(merged)
