"""Whatever the state and the document: applying reaches the document, and exporting loses nothing."""

from __future__ import annotations

import re
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rheostat.document import (
    Document,
    EnvironmentEntry,
    RuleEntry,
    SegmentEntry,
    SettingEntry,
    WrittenDistribution,
    export_document,
    format_document,
    parse_document,
    plan_apply,
)
from rheostat.errors import RheostatError
from rheostat.language import WrittenCondition, format_condition
from rheostat.model.condition import Percentage, walk
from rheostat.model.encoding import encode_item
from rheostat.model.rule import Distribution, ValueOutcome
from rheostat.model.setting import Order, Setting
from rheostat.model.state import ProjectState
from rheostat.model.value import ABSENT
from tests import strategies
from tests.document.applied import Shop, project_state
from tests.thorough import examples

SLOW = settings(deadline=None, max_examples=examples(15), suppress_health_check=list(HealthCheck))
FEATURES = ("region", "user.id", "plan")
NAMES = ("a", "b.c", "1.5", "on")


@st.composite
def states(draw: st.DrawFn) -> ProjectState:
    segments = draw(st.lists(strategies.segments(), unique_by=lambda s: s.name, max_size=2))
    slugs = draw(st.lists(st.sampled_from(["production", "staging", "dev"]), min_size=1, unique=True))
    of = strategies.settings(
        st.sampled_from(NAMES), segment_names=[s.name for s in segments], features=FEATURES[:2]
    )
    environments: dict[str, list[Setting]] = {}
    for slug in slugs:
        environments[slug] = draw(st.lists(of, unique_by=lambda s: s.name, max_size=3))
        earlier = next(iter(environments.values()))
        is_similar: bool = draw(st.booleans())
        if earlier and is_similar:
            # Environments mostly hold the same, with a difference here and there.
            environments[slug] = [
                replace(s, value=draw(st.sampled_from([s.value, s.default])), enabled=draw(st.booleans()))
                for s in earlier
            ]
    return project_state(environments, segments=segments, features=FEATURES)


def contents(state: ProjectState) -> object:
    """What is in a state, without ids, numbers and revisions."""

    def plain(setting: Setting) -> str:
        rules = tuple(replace(rule, number=0) for rule in setting.rules)
        return encode_item(replace(setting, id="", revision=0, rules=rules))

    return (
        state.project.features,
        {name: encode_item(replace(s, revision=0)) for name, s in state.segments.items()},
        {
            slug: {name: plain(setting) for name, setting in entry.settings.items()}
            for slug, entry in state.environments.items()
        },
    )


@SLOW
@given(states(), st.sampled_from(["yaml", "json"]))
def test_an_export_applied_to_an_empty_store_gives_the_same_state_and_bytes(
    state: ProjectState, form: str
) -> None:
    text = format_document(export_document(state), form)  # type: ignore[arg-type]
    document = parse_document(text)
    assert format_document(document, form) == text  # type: ignore[arg-type]
    shop = Shop()
    shop.apply(document)
    assert shop.project is not None
    assert contents(shop.project) == contents(state)
    assert format_document(export_document(shop.project), form) == text  # type: ignore[arg-type]
    assert list(shop.planned(document)) == []


@SLOW
@given(states())
def test_an_export_applied_where_it_came_from_changes_nothing(state: ProjectState) -> None:
    assert list(plan_apply(parse_document(format_document(export_document(state))), state)) == []
    assert list(plan_apply(export_document(state), state, prune="declared")) == []


@st.composite
def loosened(draw: st.DrawFn, document: Document) -> Document:
    """Leave out some of what a document says: fields, ids, salts, algorithms, whole parts."""

    def some(mapping: dict[str, object], keep: tuple[str, ...] = ()) -> dict[str, object]:
        return {key: v for key, v in mapping.items() if key in keep or draw(st.booleans())}

    def condition(written: WrittenCondition | None) -> WrittenCondition | None:
        if written is None:
            return None
        if not draw(st.booleans()) or not any(isinstance(p, Percentage) for p in walk(written.condition)):
            return written
        text = format_condition(written.condition)
        return WrittenCondition.parse(re.sub(r', salt="(?:[^"\\]|\\.)*"', "", text))

    def rule(entry: RuleEntry) -> RuleEntry:
        outcome = entry.outcome
        if isinstance(outcome, WrittenDistribution) and draw(st.booleans()):
            outcome = WrittenDistribution(replace(outcome.distribution, salt=""), outcome.has_algorithm)
        return replace(
            entry,
            id=draw(st.sampled_from([entry.id, ""])),
            where=condition(entry.where),
            outcome=outcome,
            enabled=draw(st.sampled_from([entry.enabled, None, True])),
            description=draw(st.sampled_from([entry.description, None])),
        )

    def environment(entry: EnvironmentEntry) -> EnvironmentEntry:
        rules = entry.rules
        if rules is not None:
            rules = tuple(rule(r) for r in draw(st.permutations(rules)))
            if draw(st.booleans()):
                rules = (*rules, *rules[: draw(st.integers(0, 2))])
            seen: set[str] = set()
            unique = []
            for r in rules:
                unique.append(replace(r, id="") if r.id in seen else r)
                seen.add(r.id)
            rules = tuple(unique)
        return replace(entry, fields=some(dict(entry.fields), ("type", "default")), rules=rules)

    def setting(entry: SettingEntry) -> SettingEntry:
        return SettingEntry(
            some(dict(entry.fields), ("type", "default")),
            environments={slug: environment(e) for slug, e in entry.environments.items()},
        )

    return Document(
        document.project,
        document.environments,
        draw(st.sampled_from([document.features, None])),
        {name: SegmentEntry(condition(e.where), None) for name, e in (document.segments or {}).items()},
        {name: setting(e) for name, e in (document.settings or {}).items()},
    )


@SLOW
@given(states(), states(), st.sampled_from([False, True, "declared"]), st.data())
def test_applying_twice_is_an_empty_plan(
    before: ProjectState, wanted: ProjectState, prune: bool, data: st.DataObject
) -> None:
    document = data.draw(loosened(export_document(wanted)))
    shop = Shop(before)
    try:
        shop.apply(document, prune=prune)
    except RheostatError:
        # A stored value or rule that the document leaves alone may not fit its type, and so on.
        return
    assert list(shop.planned(document, prune=prune)) == []


@SLOW
@given(states(), states(), st.data())
def test_what_a_document_says_is_so_afterwards(
    before: ProjectState, wanted: ProjectState, data: st.DataObject
) -> None:
    document = data.draw(loosened(export_document(wanted)))
    shop = Shop(before)
    try:
        shop.apply(document)
    except RheostatError:
        return
    for name, entry in (document.settings or {}).items():
        for slug in document.environments or ():
            section = entry.environments.get(slug)
            if section is None and not entry.fields:
                continue
            stored = shop.setting(name, slug)
            said = {**entry.fields, **(section.fields if section else {})}
            for field, content in said.items():
                assert str(getattr(stored, field)) == str(content), field
            if section is not None and section.rules is not None:
                assert len(stored.rules) == len(section.rules)
                for written, rule in zip(section.rules, stored.rules, strict=True):
                    assert written.id in ("", rule.id)
                    assert written.enabled in (None, rule.enabled)
                    assert (written.where is None) == (rule.condition is None) or written.id
                    if written.where is not None:
                        assert written.where.equals(rule.condition)
                    match written.outcome:
                        case ValueOutcome(value):
                            assert str(rule.outcome) == str(ValueOutcome(value))
                        case WrittenDistribution(split):
                            assert isinstance(rule.outcome, Distribution)
                            assert str(rule.outcome.variants) == str(split.variants)
                            assert split.salt in ("", rule.outcome.salt)


@st.composite
def specific(draw: st.DrawFn) -> ProjectState:
    """Settings ordered by specificity, with rules in any order."""
    setting = draw(strategies.settings(st.just("a")))
    equalities = draw(
        st.lists(
            st.dictionaries(st.sampled_from(FEATURES), st.sampled_from(["x", "y"]), max_size=2),
            unique_by=lambda d: tuple(sorted(d.items())),
            max_size=4,
        )
    )
    rules = []
    for i, equality in enumerate(equalities):
        text = " and ".join(f'{feature} == "{value}"' for feature, value in equality.items())
        rules.append(
            replace(
                draw(strategies.rules(st.just(setting.default))),
                id=f"r{i}",
                condition=WrittenCondition.parse(text).condition if text else None,
            )
        )
    setting = replace(setting, order=Order.SPECIFICITY, features=None, off=ABSENT, rules=tuple(rules))
    return project_state({"production": [setting]}, features=FEATURES)


@SLOW
@given(specific(), st.data())
def test_order_by_specificity_is_kept_whatever_the_order_of_the_document(
    wanted: ProjectState, data: st.DataObject
) -> None:
    document = data.draw(loosened(export_document(wanted)))
    shop = Shop()
    try:
        shop.apply(document)
    except RheostatError:
        return
    assert list(shop.planned(document)) == []
