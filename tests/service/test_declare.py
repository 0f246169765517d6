"""Declarations: the language-neutral cases of tests/spec, and what they do to a project and its history."""

from __future__ import annotations

import importlib.util
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from rheo.v1 import declaration_pb2, segment_pb2, setting_pb2
from rheostat.errors import AlreadyExistsError, FailedPreconditionError, InvalidArgumentError
from rheostat.evaluation import Context
from rheostat.model.change import (
    DeleteSetting,
    Environment,
    Project,
    PutEnvironment,
    PutSetting,
    SetFeatures,
    SetValue,
    UnsetValue,
)
from rheostat.model.condition import settings_of
from rheostat.model.declaration import (
    Declaration,
    DeclarationOutcome,
    DeclarationResult,
    Difference,
    DifferenceLevel,
)
from rheostat.model.key import Key, KeyKind, Role
from rheostat.model.rule import outcome_values
from rheostat.model.setting import Order, Setting, Version
from rheostat.model.state import EnvironmentState, ProjectState, State
from rheostat.model.type import normalise, parse_type
from rheostat.model.value import ABSENT, FrozenMapping, freeze, same
from rheostat.service import Limits, Writer
from rheostat.service.access import OPEN, Principal
from rheostat.service.declare import answer_declarations
from rheostat.service.plan import plan_declarations
from rheostat.service.schema import validate_schema
from rheostat.service.service import DeclarationsOutcome
from rheostat.wire.declaration import declaration_from_proto
from rheostat.wire.setting import segment_from_proto, setting_from_proto, setting_to_proto
from rheostat.wire.value import value_to_proto
from tests.service.book import equals, in_segment, on, put, put_rule, put_segment, rule, split
from tests.service.node import PROJECT, Node, World

SPEC = Path(__file__).parent.parent / "spec"
CASES = json.loads((SPEC / "declarations.json").read_text())["cases"]
Outcome = DeclarationOutcome
Level = DifferenceLevel


# The cases.


def state_of(case: dict[str, Any]) -> State:
    settings: dict[str, Setting] = {}
    number = 0
    for raw in case["settings"]:
        message = json_format.ParseDict(raw, setting_pb2.Setting())
        made = setting_from_proto(message)
        rules = []
        for each in made.rules:
            number += 1
            rules.append(replace(each, number=number))
        # Stored values are in the form of their type, which JSON does not always tell.
        settings[made.name] = replace(
            made,
            id=f"id-{made.name}",
            default=normalise(made.type, made.default),
            rules=tuple(rules),
        )
    segments = [
        segment_from_proto(json_format.ParseDict(raw, segment_pb2.Segment()))
        for raw in case.get("segments", [])
    ]
    project = ProjectState(
        Project("shop", features=tuple(case["features"])),
        {"production": EnvironmentState(Environment("production"), settings)},
        {segment.name: segment for segment in segments},
    )
    return State({"shop": project}, revision=1, rule_number=number)


def declaration_of(raw: dict[str, Any]) -> Declaration | DeclarationResult:
    message = json_format.ParseDict(raw, declaration_pb2.Declaration())
    try:
        return declaration_from_proto(message)
    except InvalidArgumentError as exc:
        return DeclarationResult(message.name, Outcome.INVALID, message=exc.message)


def reported(result: DeclarationResult) -> dict[str, Any]:
    return {
        "outcome": result.outcome.value,
        "storedVersion": "" if result.stored_version is None else str(result.stored_version),
        "differences": [
            {"attribute": difference.attribute, "level": difference.level.value}
            for difference in result.differences
        ],
    }


def shown(setting: Setting, fields: list[str]) -> dict[str, Any]:
    message = setting_to_proto(setting)
    everything = json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
    everything["ruleValues"] = {
        each.id: json_format.MessageToDict(value_to_proto(list(outcome_values(each.outcome))[-1]))
        for each in setting.rules
        if each.id == "r"
    }
    everything["refersTo"] = sorted(
        name for each in setting.rules if each.condition is not None for name in settings_of(each.condition)
    )
    return {field: everything.get(field) for field in fields}


def assert_values_fit(setting: Setting) -> None:
    values = [setting.default, *(v for v in (setting.value, setting.off) if v is not ABSENT)]
    values += [value for each in setting.rules for value in outcome_values(each.outcome)]
    for value in values:
        assert same(normalise(setting.type, value), value), (setting.name, value, str(setting.type))
        validate_schema(setting.type, value)


def test_there_are_many_cases_with_names_of_their_own() -> None:
    assert len(CASES) >= 150
    names = [case["name"] for case in CASES]
    assert len(set(names)) == len(names)
    outcomes = {answer["outcome"] for case in CASES for answer in case["expected"]}
    assert outcomes == {outcome.value for outcome in Outcome if outcome is not Outcome.UNSPECIFIED}


TRAPS = {
    "default: true to false of bool, minor version": "UPGRADED",
    'metadata: {"k": 1} to {}, minor version': "UPGRADED",
    "invalid: a feature twice": "INVALID",
    "version: 1.00 on 1.0": "UP_TO_DATE",
    "version: 01.0 on 1.0": "UP_TO_DATE",
    "default: 1 to true of Json, minor version": "UPGRADED",
    'metadata: {"k": 1} to {"k": true}, same version': "MISMATCH",
    "type: Enum[1] to Enum[true], same version": "MISMATCH",
}


@pytest.mark.parametrize("name", TRAPS)
def test_each_trap_known_from_elsewhere_has_a_case_of_its_own(name: str) -> None:
    (case,) = (case for case in CASES if case["name"] == name)
    assert case["expected"][0]["outcome"] == Outcome[TRAPS[name]].value


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_declarations_are_answered_as_the_cases_say(case: dict[str, Any]) -> None:
    state = state_of(case)
    declarations = [declaration_of(raw) for raw in case["declarations"]]
    answers = answer_declarations(
        state.projects["shop"], "production", declarations, permitted=case.get("permitted", True)
    )

    assert [reported(result) for result in answers.results] == case["expected"]
    assert [result.name for result in answers.results] == [
        raw.get("name", "") for raw in case["declarations"]
    ]
    for result in answers.results:
        told = result.outcome in (Outcome.INVALID, Outcome.DENIED, Outcome.REJECTED)
        assert bool(result.message) == told
        assert all(difference.message for difference in result.differences)

    changing = {Outcome.CREATED, Outcome.UPGRADED}
    if not any(result.outcome in changing for result in answers.results):
        made_by_hand = any(not each.get("declared") for each in case["settings"])
        assert not answers.mutations or made_by_hand
    made = plan_declarations(
        state, "shop", "production", answers.mutations, revision=2, new_id=iter("ghijklmnop").__next__
    )
    after = state.apply(made.changes, 2, made.rule_number)
    settings = after.projects["shop"].environments["production"].settings
    for setting in settings.values():
        assert_values_fit(setting)
    for wanted in case.get("after", []):
        assert shown(settings[wanted["name"]], list(wanted)) == wanted
    for raw in case["settings"]:
        # Whoever asked by one of its names still finds it.
        for name in (raw["name"], *raw.get("aliases", [])):
            found = after.projects["shop"].environments["production"].setting(name)
            assert found is not None
            assert found.id == f"id-{raw['name']}"
    # What was accepted is up to date from then on, and needs no permission to be so.
    again = answer_declarations(after.projects["shop"], "production", declarations, permitted=False)
    for before, now in zip(answers.results, again.results, strict=True):
        if before.outcome in changing:
            assert (now.outcome, now.differences) == (Outcome.UP_TO_DATE, ())


def test_the_file_is_what_its_script_makes() -> None:
    source = importlib.util.spec_from_file_location("build_declarations", SPEC / "build_declarations.py")
    assert source is not None
    assert source.loader is not None
    script = importlib.util.module_from_spec(source)
    source.loader.exec_module(script)

    assert script.document() == (SPEC / "declarations.json").read_text()


# A node that takes declarations.


@pytest.fixture
def node(world: World) -> Node:
    return world.node()


def declared(name: str, type_: str, default: object, version: str = "1.0", **fields: Any) -> Declaration:
    return Declaration(name, parse_type(type_), freeze(default), Version.parse(version), **fields)


def declare(
    node: Node,
    *declarations: Declaration | DeclarationResult,
    principal: Principal = OPEN,
    environment: str = "production",
    **writer: Any,
) -> DeclarationsOutcome:
    return node.service.declare(Writer(principal, **writer), PROJECT, environment, declarations)


def outcomes(outcome: DeclarationsOutcome) -> list[DeclarationOutcome]:
    return [result.outcome for result in outcome.results]


def setting(node: Node, name: str, environment: str = "production") -> Setting:
    found = node.service.view(PROJECT, environment).snapshot.setting(name)
    assert found is not None
    return found


def test_a_batch_is_one_change_set_with_an_audit_row(node: Node) -> None:
    before = node.revision
    outcome = declare(
        node,
        declared("a", "int", 1),
        declared("bad name", "int", 1),
        declared("b", "int", 1),
        author="checkout",
        message="Declared by checkout",
    )
    assert outcomes(outcome) == [Outcome.CREATED, Outcome.INVALID, Outcome.CREATED]
    assert outcome.revision == node.revision == before + 1
    row = node.service.change_set(PROJECT, outcome.revision)
    assert (row.author, row.message) == ("checkout", "Declared by checkout")
    assert [(change.key, change.before) for change in row.changes] == [("a", None), ("b", None)]
    assert setting(node, "a").declared


def test_what_changes_nothing_takes_no_revision(node: Node) -> None:
    declare(node, declared("a", "int", 1))
    revision = node.revision
    outcome = declare(node, declared("a", "int", 1), declared("a2", "int", "x"))
    assert outcomes(outcome) == [Outcome.UP_TO_DATE, Outcome.INVALID]
    assert outcome.revision == node.revision == revision
    assert declare(node).results == ()


def test_the_features_of_the_project_are_answered(node: Node) -> None:
    node.commit(SetFeatures(("region", "user.id")))
    assert declare(node).features == ("region", "user.id")


@pytest.mark.parametrize(
    ("type_", "default", "falsy"),
    [
        ("int", 1, 0),
        ("float", 1.5, 0.0),
        ("bool", True, False),
        ("str", "x", ""),
        ("Sequence<int>", [1], []),
        ("Json", 1, None),
    ],
)
def test_an_upgrade_to_a_falsy_default_takes_effect(
    node: Node, type_: str, default: object, falsy: object
) -> None:
    declare(node, declared("a", type_, default, metadata=FrozenMapping({"k": 1})))
    outcome = declare(node, declared("a", type_, falsy, "1.1"))
    assert outcomes(outcome) == [Outcome.UPGRADED]
    assert same(setting(node, "a").default, freeze(falsy))
    assert setting(node, "a").metadata == {}
    assert same(node.service.evaluate(PROJECT, "production", "a", Context({})).value, freeze(falsy))


def test_a_deleted_name_is_created_anew(node: Node) -> None:
    declare(node, declared("a", "int", 1, "3.0"))
    node.commit(DeleteSetting("a"))
    outcome = declare(node, declared("b", "int", 1), declared("a", "str", "", "1.0"))
    assert outcomes(outcome) == [Outcome.CREATED, Outcome.CREATED]
    assert setting(node, "a").version == Version(1, 0)


def test_one_unknown_or_deleted_setting_never_fails_the_others(node: Node) -> None:
    declare(node, declared("a", "int", 1), declared("b", "int", 1))
    node.commit(DeleteSetting("a"))
    unread = DeclarationResult("c", Outcome.INVALID, message="unreadable")
    outcome = declare(node, unread, declared("a", "int", 2, "1.1"), declared("b", "int", 2, "1.1"))
    assert outcomes(outcome) == [Outcome.INVALID, Outcome.CREATED, Outcome.UPGRADED]
    assert outcome.results[0] is unread


def test_a_rename_keeps_the_former_name_working_for_reads_rules_and_declarations(node: Node) -> None:
    node.commit(SetFeatures(("region",)))
    declare(node, declared("old", "int", 1), declared("user", "int", 0))
    node.commit(
        SetValue("old", 5),
        put_segment("beta", on("old", 5)),
        put_rule("user", rule("r", 7, on("old", 5))),
        put_rule("user", rule("s", 8, in_segment("beta"))),
    )
    outcome = declare(node, declared("new", "int", 1, "1.1", aliases=("old",)))
    assert outcomes(outcome) == [Outcome.UPGRADED]
    assert setting(node, "old").name == "new"
    for name in ("old", "new"):
        assert node.service.evaluate(PROJECT, "production", name, Context({})).value == 5
    # The rule says the new name, and the segment, which other environments share, still the former one.
    condition = setting(node, "user").rules[0].condition
    assert condition is not None
    assert settings_of(condition) == {"new"}
    assert settings_of(node.service.head.state.projects[PROJECT].segments["beta"].condition) == {"old"}
    found = node.service.evaluate(PROJECT, "production", "user", Context({}))
    assert (found.value, found.rule_id) == (7, "r")
    node.commit(SetValue("old", 5), put_rule("old", rule("t", 6, equals("region", "eu"))))
    assert [each.id for each in setting(node, "new").rules] == ["t"]
    # Old code is outdated, and changes nothing.
    old = declare(node, declared("old", "int", 1))
    assert outcomes(old) == [Outcome.OUTDATED]
    assert old.results[0].differences == (
        Difference(Level.MINOR, "name", "old", "new", "the setting is called 'new', and declared as 'old'"),
    )


def test_a_rename_changes_its_own_environment_alone(node: Node) -> None:
    node.add_environment("staging")
    for environment in ("production", "staging"):
        declare(node, declared("old", "int", 1), environment=environment)
    declare(node, declared("new", "int", 1, "1.1", aliases=("old",)))
    assert setting(node, "new").id == setting(node, "old", "staging").id
    assert setting(node, "old", "staging").name == "old"
    # One that never knew the former name gets the same identity.
    node.add_environment("test")
    declare(node, declared("new", "int", 1, "1.1", aliases=("old",)), environment="test")
    assert setting(node, "new", "test").id == setting(node, "new").id


def test_a_renamed_setting_has_one_identity_where_only_its_former_name_is_known(node: Node) -> None:
    node.add_environment("staging")
    declare(node, declared("old", "int", 1), environment="staging")
    declare(node, declared("new", "int", 1, "1.1", aliases=("old",)))
    assert setting(node, "new").id == setting(node, "old", "staging").id


def test_every_stored_value_is_brought_into_the_form_of_the_new_type(node: Node) -> None:
    node.commit(put("a", "int", 1, value=5, off=6), put_rule("a", rule("r", 7)))
    node.commit(put_rule("a", replace(rule("s"), outcome=split(50_000, 50_000, values=(8, 9)))))
    assert outcomes(declare(node, declared("a", "float", 1, "2.0"))) == [Outcome.UPGRADED]
    held = setting(node, "a")
    values = [held.value, held.off, *(v for each in held.rules for v in outcome_values(each.outcome))]
    assert all(type(value) is float for value in values)
    assert values == [5.0, 6.0, 7.0, 8.0, 9.0]


def test_a_refused_value_is_named_and_the_upgrade_is_accepted_once_it_is_gone(node: Node) -> None:
    declare(node, declared("a", 'Enum["a","b"]', "a"))
    node.commit(SetValue("a", "b"))
    narrower = declared("a", 'Enum["a"]', "a", "1.1")
    (result,) = declare(node, narrower).results
    assert result.outcome is Outcome.REJECTED
    (difference,) = result.differences
    assert (difference.level, difference.attribute) == (Level.MISMATCH, "type")
    assert (difference.declared, difference.stored) == ('Enum["a"]', 'Enum["a","b"]')
    assert "the environment's value" in result.message
    assert '"b"' in result.message
    node.commit(UnsetValue("a"))
    assert outcomes(declare(node, narrower)) == [Outcome.UPGRADED]


def test_a_message_lists_few_of_many_refused_values(node: Node) -> None:
    node.commit(put("a", "str", "a"), *(put_rule("a", rule(f"r{i}", "x" * 300)) for i in range(50)))
    (result,) = declare(node, declared("a", 'Enum["a"]', "a", "2.0")).results
    assert result.message.count("rule 'r") == 3
    assert result.message.endswith("; and more")
    assert len(result.message) < 1_000


def test_a_batch_of_large_parts_is_answered_soon_and_shortly(node: Node) -> None:
    options = ",".join(map(str, range(20_000)))
    node.commit(
        SetFeatures(tuple(f"feature-{i}-{'x' * 50}" for i in range(100))),
        put("a", f"Flags[{options}]", list(range(20_000))),
        put("b", "str", "x"),
        *(put_rule("b", rule(f"r{i}", "x")) for i in range(500)),
    )
    names = tuple(f"n{i}" for i in range(20_000))
    outcome = declare(
        node,
        declared("a", f"Flags[{options},-1]", list(range(20_000)), "2.0"),
        declared("b", f"Enum[{options}]", 1, "2.0"),
        declared("c", "int", 1, aliases=names),
        declared("x" * 100_000, "int", 1),
        *(declared(f"d{i}", "int", 1, features=("unknown",)) for i in range(100)),
    )
    assert outcomes(outcome)[:4] == [
        Outcome.UPGRADED,
        Outcome.REJECTED,
        Outcome.CREATED,
        Outcome.INVALID,
    ]
    assert all(len(result.message) < 1_000 for result in outcome.results)


def test_rules_are_ordered_anew_when_features_join_the_order(node: Node) -> None:
    node.commit(SetFeatures(("region", "tenant")))
    declare(node, declared("a", "int", 0, features=("region",)))
    node.commit(PutSetting("a", {"order": Order.SPECIFICITY}))
    node.commit(put_rule("a", rule("r", 1, equals("region", "eu"))), put_rule("a", rule("any", 2)))
    outcome = declare(node, declared("a", "int", 0, "2.0", features=("region", "tenant")))
    assert outcomes(outcome) == [Outcome.UPGRADED]
    node.commit(put_rule("a", rule("t", 3, equals("tenant", "x"))))
    assert [each.id for each in setting(node, "a").rules] == ["t", "r", "any"]


def test_operators_change_values_and_rules_of_declared_settings_and_nothing_that_code_says(
    node: Node,
) -> None:
    declare(node, declared("a", "int", 1, "1.2"))
    node.commit(SetValue("a", 2), put_rule("a", rule("r", 3)), PutSetting("a", {"description": "d"}))
    for fields in ({"default": 2}, {"type": "float"}, {"version": Version(1, 1)}, {"aliases": ("b",)}):
        with pytest.raises(FailedPreconditionError) as caught:
            node.commit(PutSetting("a", fields))
        assert caught.value.reason == "DECLARED_BY_CODE"
    node.commit(PutSetting("a", {"default": 2, "version": Version(1, 3)}))
    # Code that has not followed is outdated, and told what it lacks.
    (result,) = declare(node, declared("a", "int", 1, "1.2")).results
    assert (result.outcome, result.stored_version) == (Outcome.OUTDATED, Version(1, 3))
    assert [difference.attribute for difference in result.differences] == ["default"]


def test_a_setting_made_by_hand_is_protected_once_code_declares_the_same(node: Node) -> None:
    node.commit(put("a", "int", 1))
    outcome = declare(node, declared("a", "int", 1, description="d"))
    assert outcomes(outcome) == [Outcome.UP_TO_DATE]
    assert outcome.revision == node.revision
    assert (setting(node, "a").declared, setting(node, "a").description) == (True, "d")
    with pytest.raises(FailedPreconditionError):
        node.commit(PutSetting("a", {"default": 2}))


def test_an_old_revert_brings_back_what_a_declaration_replaced(node: Node) -> None:
    declare(node, declared("a", "int", 1))
    upgrade = declare(node, declared("b", "int", 2, "1.1", aliases=("a",)))
    node.service.revert(Writer(OPEN), PROJECT, revision=upgrade.revision)
    assert (setting(node, "a").name, setting(node, "a").version) == ("a", Version(1, 0))


# Repeats.


def test_a_repeated_request_gets_the_first_answer(node: Node) -> None:
    node.commit(put("mine", "int", 1), put("theirs", "int", 1))
    batch = (
        declared("new", "int", 1),
        declared("mine", "int", 2, "1.1"),
        declared("theirs", "int", 2),
        declared("bad", "int", "x"),
    )
    first = declare(node, *batch, request_id="r", payload=b"p")
    assert outcomes(first) == [Outcome.CREATED, Outcome.UPGRADED, Outcome.MISMATCH, Outcome.INVALID]
    # Whatever has happened since.
    node.commit(
        DeleteSetting("new"),
        DeleteSetting("theirs"),
        PutEnvironment("staging"),
        SetFeatures(("region",)),
        put("later"),
    )
    revision = node.revision
    again = declare(node, *batch, request_id="r", payload=b"p")
    assert again == replace(first, replayed=True)
    assert node.revision == revision
    assert node.service.view(PROJECT, "production").snapshot.setting("new") is None


def test_a_repeated_request_with_other_declarations_is_refused(node: Node) -> None:
    declare(node, declared("a", "int", 1), request_id="r", payload=b"p")
    with pytest.raises(AlreadyExistsError) as caught:
        declare(node, declared("b", "int", 1), request_id="r", payload=b"q")
    assert caught.value.reason == "REQUEST_ID_REUSED"


def test_nodes_of_one_store_create_a_setting_once(world: World) -> None:
    first, second = world.node(), world.node()
    declare(first, declared("a", "int", 1))
    # The second node has not read that yet.
    outcome = declare(second, declared("a", "int", 1))
    assert outcomes(outcome) == [Outcome.UP_TO_DATE]
    assert outcome.revision == first.revision == second.revision


def test_programs_that_start_together_create_each_setting_once(node: Node) -> None:
    batch = tuple(declared(f"s{i}", "int", 1) for i in range(20))
    newer = tuple(declared(f"s{i}", "int", 0, "1.1") for i in range(20))
    before = node.revision
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda at: declare(node, *(newer if at % 2 else batch)), range(32)))
    for i in range(20):
        found = [outcomes(answer)[i] for answer in answers]
        assert found.count(Outcome.CREATED) == 1
        # Unless the newer one came first.
        assert found.count(Outcome.UPGRADED) <= 1
        assert setting(node, f"s{i}").default == 0
    assert node.revision - before <= 2


# Who may.


def key(**options: Any) -> Principal:
    return Principal(Key("0123456789abcdef", verifier=bytes(32), project=PROJECT, **options))


SERVER = key(kind=KeyKind.SERVER, declare=True)
EXPRESS = key(kind=KeyKind.SERVER, declare=True, declare_protected=True)
SILENT = key(kind=KeyKind.SERVER, declare=False)
RELAY = key(kind=KeyKind.RELAY)
VIEWER = key(kind=KeyKind.USER, role=Role.VIEWER)
EDITOR = key(kind=KeyKind.USER, role=Role.EDITOR)
ADMIN = key(kind=KeyKind.USER, role=Role.ADMIN)
EXPRESS_ADMIN = key(kind=KeyKind.USER, role=Role.ADMIN, declare_protected=True)
EXPRESS_EDITOR = key(kind=KeyKind.USER, role=Role.EDITOR, declare_protected=True)


@pytest.mark.parametrize(
    ("principal", "plain", "protected"),
    [
        (OPEN, True, True),
        (SERVER, True, False),
        (EXPRESS, True, True),
        (SILENT, False, False),
        (RELAY, False, False),
        (VIEWER, False, False),
        (EDITOR, False, False),
        (ADMIN, True, False),
        (EXPRESS_ADMIN, True, True),
        (EXPRESS_EDITOR, False, False),
    ],
    ids=[
        "open",
        "server",
        "express",
        "silent",
        "relay",
        "viewer",
        "editor",
        "admin",
        "express-admin",
        "express-editor",
    ],
)
def test_a_declaration_takes_effect_where_the_key_may_declare(
    node: Node, principal: Principal, plain: bool, protected: bool
) -> None:
    node.commit(PutEnvironment("live", protected=True))
    for environment, allowed in (("production", plain), ("live", protected)):
        before = node.revision
        outcome = declare(node, declared("a", "int", 1), principal=principal, environment=environment)
        assert outcomes(outcome) == [Outcome.CREATED if allowed else Outcome.DENIED]
        assert node.revision == before + allowed
        if not allowed:
            assert environment in outcome.results[0].message


def test_a_declaration_that_holds_a_credential_is_refused_without_repeating_it(node: Node) -> None:
    key_ = "-----BEGIN RSA PRIVATE KEY-----"
    answers = declare(
        node,
        declared("a", "int", 0, description=f"log in with {key_}"),
        declared("b", "int", 0, owner=key_),
        declared("c", "int", 0, tags=("x", key_)),
        declared("d", f'Enum["{key_}", "y"]', "y"),
        declared("e", "int", key_),
        declared("f", "int", 0, metadata=freeze({"token": key_})),
        declared("g", "int", 0),
    ).results
    assert [answer.outcome for answer in answers] == [Outcome.INVALID] * 6 + [Outcome.CREATED]
    for answer in answers[:-1]:
        assert "looks like a private key" in answer.message
        assert key_ not in answer.message


def test_a_key_that_may_not_declare_learns_what_would_differ(node: Node) -> None:
    declare(node, declared("a", "int", 1))
    (result,) = declare(node, declared("a", "int", 2, "1.1"), principal=SILENT).results
    assert (result.outcome, result.stored_version) == (Outcome.DENIED, Version(1, 0))
    assert [difference.attribute for difference in result.differences] == ["default"]
    assert setting(node, "a").default == 1


def test_a_new_key_declares_by_default_only_where_nothing_is_protected(node: Node) -> None:
    node.commit(PutEnvironment("live", protected=True))
    for declare_, expected in ((None, (True, False)), (True, (True, True)), (False, (False, False))):
        made, _, _ = node.service.create_key(
            Writer(OPEN), kind=KeyKind.SERVER, project=PROJECT, declare=declare_
        )
        principal = Principal(node.service.head.state.keys[made.selector])
        found = tuple(
            principal.may_declare(entry.environment)
            for entry in node.service.head.state.projects[PROJECT].environments.values()
        )
        assert found == expected
    # One that is protected later is protected from keys that were there before.
    plain, _, _ = node.service.create_key(Writer(OPEN), kind=KeyKind.SERVER, project=PROJECT)
    node.commit(PutEnvironment("production", protected=True))
    outcome = declare(node, declared("a", "int", 1), principal=Principal(plain))
    assert outcomes(outcome) == [Outcome.DENIED]


# Limits, for each entry.


def test_settings_beyond_the_limit_are_refused_one_by_one(world: World) -> None:
    node = world.node(limits=Limits(max_settings=2))
    outcome = declare(node, *(declared(name, "int", 1) for name in "abc"))
    assert outcomes(outcome) == [Outcome.CREATED, Outcome.CREATED, Outcome.INVALID]
    assert "2 settings" in outcome.results[2].message
    outcome = declare(node, declared("a", "int", 2, "1.1"))
    assert outcomes(outcome) == [Outcome.UPGRADED]


def test_what_is_too_large_is_refused_alone(world: World) -> None:
    node = world.node(limits=Limits(max_value_bytes=1_000, max_item_bytes=2_000))
    outcome = declare(
        node,
        declared("a", "str", "x" * 2_000),
        declared("b", "int", 1, description="x" * 2_000),
        declared("c", "int", 1),
    )
    assert outcomes(outcome) == [Outcome.INVALID, Outcome.INVALID, Outcome.CREATED]
    outcome = declare(node, declared("c", "int", 1, "1.1", metadata=FrozenMapping({"k": "x" * 2_000})))
    assert outcomes(outcome) == [Outcome.INVALID]
    assert setting(node, "c").version == Version(1, 0)


def test_an_environment_that_is_full_takes_what_still_fits(world: World) -> None:
    node = world.node(limits=Limits(max_snapshot_bytes=3_000))
    outcome = declare(
        node,
        declared("a", "str", "x" * 2_000),
        declared("b", "str", "x" * 2_000),
        declared("c", "int", 1),
    )
    assert outcomes(outcome) == [Outcome.CREATED, Outcome.INVALID, Outcome.CREATED]
    assert "3000 bytes" in outcome.results[1].message
