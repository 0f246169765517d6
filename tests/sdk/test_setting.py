from __future__ import annotations

import contextvars
import enum
import logging
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from rheostat.errors import FailedPreconditionError, InvalidSettingError
from rheostat.evaluation.compile import CompiledSnapshot
from rheostat.evaluation.result import ErrorCode, Evaluation, Reason
from rheostat.model.declaration import Declaration
from rheostat.model.rule import Distribution, Rule, ValueOutcome, Variant, outcome_values
from rheostat.model.setting import Setting as StoredSetting
from rheostat.model.setting import Version
from rheostat.model.snapshot import Snapshot
from rheostat.model.type import FLOAT, INT, JSON, STR, normalise, parse_type
from rheostat.model.value import ABSENT, FrozenMapping, Value, freeze, same
from rheostat.sdk.setting import Problem, Setting, SettingSource, current_client, settings_of
from rheostat.wire.declaration import declaration_from_proto, declaration_to_proto
from tests.strategies import settings, values, values_of
from tests.strategies import types as setting_types


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Access(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


@dataclass
class Retry:
    attempts: int
    delays: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.attempts < 0:
            raise ValueError("attempts is negative")


class Limits(TypedDict):
    soft: int


DEFAULTS: list[tuple[object, Any]] = [
    (bool, True),
    (int, 3),
    (float, 2.5),
    (str, "x"),
    (Any, None),
    (Colour, Colour.RED),
    (Access, Access.READ | Access.WRITE),
    (Sequence[int], (1, 2)),
    (list[int], [1, 2]),
    (dict[str, Colour], {"a": Colour.BLUE}),
    (Retry, Retry(1, [0.5])),
    (Limits, {"soft": 1}),
    (int | None, None),
]


class Source:
    """A source that answers the same to all, and keeps what it was asked."""

    def __init__(self, value: Any = None, error: Exception | None = None) -> None:
        self.value = value
        self.error = error
        self.asked: list[tuple[Any, ...]] = []

    def read_setting(
        self,
        setting: Setting[Any],
        default: Any,
        context: Mapping[str, object] | None,
        attributes: dict[str, object],
    ) -> Any:
        self.asked.append((setting, default, context, attributes))
        if self.error is not None:
            raise self.error
        return self.value

    def evaluate_setting(
        self,
        setting: Setting[Any],
        default: Any,
        context: Mapping[str, object] | None,
        attributes: dict[str, object],
    ) -> Evaluation:
        return Evaluation(self.read_setting(setting, default, context, attributes), Reason.STATIC)

    def subscribe_setting(
        self, setting: Setting[Any], callback: Callable[[Any], object]
    ) -> Callable[[], None]:
        self.asked.append((setting, callback))
        return self.asked.clear

    def __len__(self) -> int:
        # A client has as many items as it has settings: none at first, when it must be used all the same.
        return 0


@pytest.fixture
def activated() -> Iterator[Callable[[SettingSource], None]]:
    token = current_client.set(None)
    yield lambda source: current_client.set(source) and None
    current_client.reset(token)


def stored(type_: object, default: Value, **fields: Any) -> StoredSetting:
    return StoredSetting("id", "x", parse_type(str(type_)), default, revision=3, **fields)


# What is declared.


@pytest.mark.parametrize(("python_type", "default"), DEFAULTS)
def test_a_declaration_says_all_and_its_default_fits(python_type: object, default: Any) -> None:
    setting: Setting[Any] = Setting(
        "checkout.timeout",
        python_type,
        default=default,
        features=["region", "user.plan"],
        version="2.03",
        alias="timeout",
        metadata={"note": {"a": [1]}},
        description="seconds",
        owner="shop",
        tags=["pay"],
    )
    declaration = setting.declaration()
    assert declaration == Declaration(
        name="checkout.timeout",
        type=setting.codec.type,
        default=setting.codec.encode(default),
        version=Version(2, 3),
        aliases=("timeout",),
        features=("region", "user.plan"),
        metadata=freeze({"note": {"a": [1]}}),  # type: ignore[arg-type]  # a mapping
        description="seconds",
        owner="shop",
        tags=("pay",),
    )
    assert declaration_from_proto(declaration_to_proto(declaration)) == declaration
    assert same(normalise(declaration.type, declaration.default), declaration.default)
    assert setting.default is default
    assert setting.get() == default


def test_what_is_not_said_has_its_default() -> None:
    assert Setting("x", int, default=0).declaration() == Declaration("x", INT, 0)
    assert Setting("x", int, default=0, features=[]).features == ()
    assert Setting("x", int, default=0, alias=["a", "b"]).aliases == ("a", "b")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": ""}, "the name '' of a setting is not of the form"),
        ({"name": "a b"}, "the name 'a b' of a setting is not of the form"),
        ({"name": "a" * 201}, "at most 200"),
        ({"name": 3}, "the name 3 of a setting"),
        ({"type": bytes}, "setting 'x': the type bytes is not supported"),
        ({"type": "number"}, "setting 'x': unknown type 'number'"),
        ({"default": "2"}, "setting 'x': the default does not fit the type: '2' is not of type float"),
        ({"default": None}, "the default does not fit the type: None is not of type float"),
        ({"type": list[int], "default": [1, "a"]}, "the default does not fit the type: [1]: 'a' is not of type int"),
        ({"version": "1"}, "setting 'x': the version '1' is not of the form major.minor, such as 1.0"),
        ({"version": 1.0}, "the version 1.0 is not a string: write it as '1.0'"),
        ({"features": "region"}, "features is 'region': give a list of strings"),
        ({"features": ["a", "a"]}, "the feature 'a' stands twice: remove one"),
        ({"features": ["a b"]}, "the feature 'a b' is not of the form"),
        ({"features": [1]}, "features holds 1, which is not a string"),
        ({"alias": "a b"}, "the alias 'a b' is not of the form"),
        ({"alias": ["a", "a"]}, "the alias 'a' stands twice"),
        ({"alias": "x"}, "its name is among its aliases"),
        ({"metadata": {"a.b": 1}}, "the key 'a.b' of the metadata is not of the form"),
        ({"metadata": {1: 1}}, "the key 1 of the metadata"),
        ({"metadata": {"a": {1}}}, "the metadata 'a' is not JSON: a value of type set is not JSON"),
        ({"metadata": [1]}, "the metadata [1] is not a mapping"),
        ({"tags": ["a", "a"]}, "the tag 'a' stands twice"),
        ({"tags": "a"}, "tags is 'a': give a list of strings"),
        ({"validators": [3]}, "the validator 3 cannot be called"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_at_once(arguments: dict[str, Any], message: str) -> None:
    given_arguments: dict[str, Any] = {"name": "x", "type": float, "default": 1.0, **arguments}
    with pytest.raises(InvalidSettingError) as caught:
        Setting(given_arguments.pop("name"), given_arguments.pop("type"), **given_arguments)
    assert message in caught.value.message


def test_a_default_whose_class_cannot_be_made_again_is_refused() -> None:
    @dataclass
    class Once:
        a: int

        def __post_init__(self) -> None:
            if self.a:
                raise ValueError("only nothing")

    once = Once(0)
    once.a = 1
    with pytest.raises(InvalidSettingError, match="only nothing"):
        Setting("x", Once, default=once)


def test_settings_are_collected_from_modules_classes_and_lists() -> None:
    first = Setting("a", int, default=1)
    second = Setting("b", int, default=1)
    module = types.ModuleType("configuration")
    module.first, module.again, module.second, module.other = first, first, second, 3  # type: ignore[attr-defined]

    class Base:
        one = first

    class Namespace(Base):
        two = second

    for source in (
        module,
        [first, second, first],
        {"k": first, "l": second},
        Namespace,
        iter([first, second]),
    ):
        assert settings_of(source) == (first, second)
    assert settings_of(module.__class__("empty")) == ()
    for wrong in ([first, 3], "ab", 3):
        with pytest.raises(InvalidSettingError):
            settings_of(wrong)


# What reads give.


def test_an_unbound_setting_answers_its_default() -> None:
    setting = Setting("x", float, default=2)
    assert setting.get() == 2.0 and type(setting.get()) is float
    assert setting.get(7.5) == 7.5
    assert setting.get(context={"a": 1}, b=2) == 2.0
    evaluation = setting.evaluate()
    assert (evaluation.value, evaluation.reason) == (2.0, Reason.ERROR)
    assert evaluation.error_code is ErrorCode.PROVIDER_NOT_READY
    assert "'x' is bound to no client" in evaluation.error_message
    assert setting.evaluate(0.0).value == 0.0
    with pytest.raises(FailedPreconditionError, match="'x' is bound to no client: pass it to Client"):
        setting.subscribe(print)


@pytest.mark.parametrize("falsy", [0, None, False, "", ()])
def test_a_falsy_default_of_a_call_is_given(falsy: Any) -> None:
    setting: Setting[Any] = Setting("x", Any, default="own")
    assert setting.get(falsy) is falsy
    assert setting.evaluate(falsy).value is falsy


def test_a_reader_cannot_change_the_default_for_others() -> None:
    given_list = [1]
    setting = Setting("x", list[int], default=given_list)
    setting.get().append(2)
    given_list.append(3)
    assert setting.get() == [1]
    retries = Setting("y", Retry, default=Retry(1))
    retries.get().delays.append(1.0)
    assert retries.get() == Retry(1)
    assert Setting("z", Sequence[int], default=[1]).get() == (1,)


def test_a_bound_setting_reads_from_its_source() -> None:
    setting = Setting("x", float, default=2.5)
    source = Source(4.0)
    setting.bind(source)
    assert setting.get() == 4.0
    assert setting.get(1.0, {"region": "eu"}, user={"id": "u"}) == 4.0
    assert source.asked == [
        (setting, ABSENT, None, {}),
        (setting, 1.0, {"region": "eu"}, {"user": {"id": "u"}}),
    ]
    assert setting.evaluate().value == 4.0
    stop = setting.subscribe(print)
    assert source.asked[-1] == (setting, print)
    stop()
    assert source.asked == []


def test_only_the_source_that_is_read_from_is_unbound() -> None:
    setting = Setting("x", int, default=0)
    older, newer = Source(1), Source(2)
    setting.bind(older)
    setting.bind(newer)
    setting.unbind(older)
    assert setting.get() == 2
    setting.unbind(newer)
    assert setting.get() == 0
    setting.bind(older)
    setting.unbind()
    assert setting.get() == 0


def test_the_activated_client_wins_in_its_context_alone(activated: Callable[[SettingSource], None]) -> None:
    setting = Setting("x", int, default=0)
    setting.bind(Source(1))

    def inside() -> None:
        activated(Source(2))
        assert setting.get() == 2
        assert setting.evaluate().value == 2
        setting.subscribe(print)

    contextvars.copy_context().run(inside)
    assert setting.get() == 1


def test_a_read_never_raises_and_says_once_why(caplog: pytest.LogCaptureFixture) -> None:
    setting = Setting("x", int, default=5)
    setting.bind(Source(error=RuntimeError("broken")))
    with caplog.at_level(logging.ERROR):
        assert [setting.get(), setting.get(6), setting.get()] == [5, 6, 5]
        assert setting.evaluate().value == 5
        assert setting.evaluate().error_code is ErrorCode.GENERAL
    assert [record.getMessage() for record in caplog.records] == [
        "reading the setting 'x' failed; its default is used"
    ]
    assert "broken" in caplog.text


# What becomes of a server's values.


def test_a_setting_that_fits_is_handed_back_itself() -> None:
    setting = Setting("x", float, default=1.0)
    server = stored(
        FLOAT,
        1.0,
        value=2.0,
        off=0.0,
        rules=(
            Rule("a", ValueOutcome(3.0)),
            Rule("b", Distribution("user.id", "s", (Variant("v", 100_000, 4.0),))),
            Rule("c", None),
        ),
    )
    localised = setting.localise(server)
    assert localised.setting is server
    assert not localised.decoded
    assert localised.problems == ()


def test_numbers_of_the_other_kind_fit_without_a_word() -> None:
    setting = Setting("x", float, default=1.0)
    localised = setting.localise(stored(INT, 1, value=2, rules=(Rule("a", ValueOutcome(3)),)))
    assert localised.setting == stored(FLOAT, 1.0, value=2.0, rules=(Rule("a", ValueOutcome(3.0)),))
    assert type(localised.setting.base_value) is float
    assert (localised.decoded, localised.problems) == ({}, ())


def test_python_values_stand_under_their_places() -> None:
    setting = Setting("x", Colour, default=Colour.RED)
    server = stored(
        STR,
        "red",
        value="blue",
        off="red",
        rules=(
            Rule("a", ValueOutcome("red")),
            Rule(
                "b", Distribution("user.id", "s", (Variant("v", 50_000, "red"), Variant("w", 50_000, "blue")))
            ),
        ),
    )
    localised = setting.localise(server)
    assert localised.problems == ()
    assert localised.decoded == {
        (False, None, None): Colour.BLUE,
        (True, None, None): Colour.RED,
        (False, "a", None): Colour.RED,
        (False, "b", "v"): Colour.RED,
        (False, "b", "w"): Colour.BLUE,
    }
    without_off = setting.localise(replace(server, off=ABSENT))
    assert without_off.decoded[True, None, None] is Colour.BLUE
    assert without_off.setting is not None and without_off.setting.off is ABSENT


def test_a_rule_whose_value_does_not_fit_is_skipped_alone() -> None:
    setting = Setting("x", int, default=1)
    good = Rule("good", ValueOutcome(7))
    unknown = Rule("unknown", None)
    server = stored(
        JSON,
        2,
        rules=(
            Rule("bad", ValueOutcome("text")),
            Rule("split", Distribution("u", "s", (Variant("v", 50_000, 3), Variant("w", 50_000, "4")))),
            unknown,
            good,
        ),
    )
    localised = setting.localise(server)
    assert localised.setting is not None
    assert localised.setting.rules == (unknown, good)
    assert localised.setting.base_value == 2
    assert [(problem.rule_id, problem.raw, problem.value) for problem in localised.problems] == [
        ("bad", "text", ABSENT),
        ("split", "4", ABSENT),
    ]
    assert [problem.message for problem in localised.problems] == [
        (
            "setting 'x': the value of the rule 'bad' does not fit, and the rule is skipped: "
            '"text" is not of type int'
        ),
        (
            "setting 'x': the variant 'w' of the rule 'split' does not fit, and the rule is skipped: "
            '"4" is not of type int'
        ),
    ]


def test_a_distribution_with_a_bad_variant_leaves_no_values_behind() -> None:
    setting = Setting("x", Colour, default=Colour.RED)
    split = Distribution("u", "s", (Variant("v", 50_000, "red"), Variant("w", 50_000, "green")))
    localised = setting.localise(stored(STR, "blue", rules=(Rule("split", split),)))
    assert localised.decoded == {(False, None, None): Colour.BLUE, (True, None, None): Colour.BLUE}


@pytest.mark.parametrize("environment_value", [ABSENT, "text"])
def test_a_base_value_that_does_not_fit_gives_way_to_the_local_default(environment_value: Any) -> None:
    setting = Setting("x", int, default=1)
    server = stored(STR, "other", value=environment_value, off="gone", rules=(Rule("r", ValueOutcome(5)),))
    localised = setting.localise(server)
    assert localised.setting is not None
    assert (localised.setting.base_value, localised.setting.off) == (1, 1)
    assert localised.setting.value == (ABSENT if environment_value is ABSENT else 1)
    assert localised.setting.type == INT
    assert localised.setting.revision == 3
    assert localised.setting.rules == server.rules
    what = "the default" if environment_value is ABSENT else "the environment's value"
    assert [problem.message.split(" does not fit")[0] for problem in localised.problems] == [
        f"setting 'x': {what}",
        "setting 'x': the off value",
    ]
    assert {problem.rule_id for problem in localised.problems} == {None}


def test_a_default_that_the_environment_hides_is_no_problem() -> None:
    localised = Setting("x", int, default=1).localise(stored(JSON, "text", value=5))
    assert localised.problems == ()
    assert localised.setting is not None
    assert (localised.setting.default, localised.setting.base_value) == (1, 5)


def test_the_local_default_stands_among_the_python_values() -> None:
    setting = Setting("x", Colour, default=Colour.BLUE)
    localised = setting.localise(stored(STR, "green", off="green"))
    assert localised.decoded == {(False, None, None): Colour.BLUE, (True, None, None): Colour.BLUE}


def test_what_is_used_in_part_is_told() -> None:
    told: list[Any] = []
    setting = Setting("x", Access, default=Access.READ, on_coerce=lambda *arguments: told.append(arguments))
    rule = Rule("r", ValueOutcome(("WRITE", "DELETE")))
    localised = setting.localise(
        stored(parse_type('Flags["READ","WRITE","DELETE"]'), ("READ",), rules=(rule,))
    )
    assert localised.decoded[False, "r", None] is Access.WRITE
    (problem,) = localised.problems
    assert (problem.rule_id, problem.raw, problem.value) == ("r", ("WRITE", "DELETE"), ("WRITE",))
    assert problem.message == (
        "setting 'x': the value of the rule 'r' is used in part: "
        """[1]: 'DELETE' is no flag of Flags["READ","WRITE"]"""
    )
    assert told == [(Access.WRITE, ("WRITE", "DELETE"), problem.coercions, rule, setting)]
    assert problem.coercions[0].dropped == "DELETE"


def test_what_is_used_in_part_of_a_base_value_is_told_without_a_rule() -> None:
    told: list[Any] = []
    setting: Setting[Any] = Setting(
        "x", Sequence[int], default=(), on_coerce=lambda *arguments: told.append(arguments)
    )
    localised = setting.localise(stored("Sequence<Json>", (1, "a")))
    assert localised.setting is not None and localised.setting.default == (1,)
    assert not localised.decoded
    assert [(value, raw, rule) for value, raw, _, rule, _ in told] == [((1,), (1, "a"), None)]


def test_an_on_coerce_that_fails_is_logged_and_spoils_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no")

    setting: Setting[Any] = Setting("x", Sequence[int], default=(), on_coerce=fail)
    with caplog.at_level(logging.ERROR):
        localised = setting.localise(stored("Sequence<Json>", (1, "a")))
    assert localised.setting is not None and localised.setting.base_value == (1,)
    assert "on_coerce of the setting 'x' failed" in caplog.text


def test_a_handler_of_coercions_cannot_change_what_readers_get() -> None:
    def spoil(value: Any, *_: object) -> None:
        value.clear()

    setting = Setting("x", list[int], default=[], on_coerce=spoil)
    localised = setting.localise(stored("Sequence<Json>", (1, "a")))
    assert localised.decoded[False, None, None] == [1]


# Validators.


def test_validators_transform_server_values_in_turn_and_never_the_default() -> None:
    setting = Setting("x", int, default=100, validators=[lambda value: value + 1])

    @setting.add_validator
    def at_most_ten(value: int) -> int:
        return min(value, 10)

    assert at_most_ten(11) == 10
    assert len(setting.validators) == 2
    assert setting.get() == 100
    localised = setting.localise(stored(INT, 5, off=50, rules=(Rule("r", ValueOutcome(7)),)))
    assert localised.decoded == {(False, None, None): 6, (True, None, None): 10, (False, "r", None): 8}
    assert localised.problems == ()
    # The server's values stay as they are, for conditions that refer to the setting.
    assert localised.setting == stored(INT, 5, off=50, rules=(Rule("r", ValueOutcome(7)),))
    unfit = setting.localise(stored(STR, "text"))
    assert unfit.decoded[False, None, None] == 100


def test_a_validator_that_raises_rejects_that_value_alone() -> None:
    def positive(value: int) -> int:
        if value <= 0:
            raise ValueError("not positive")
        return value

    setting = Setting("x", int, default=1, validators=[positive])
    localised = setting.localise(
        stored(INT, -1, off=4, rules=(Rule("a", ValueOutcome(0)), Rule("b", ValueOutcome(2))))
    )
    assert localised.decoded == {(False, None, None): 1, (True, None, None): 4, (False, "b", None): 2}
    assert localised.setting is not None and localised.setting.base_value == 1
    assert [rule.id for rule in localised.setting.rules] == ["b"]
    assert [problem.message for problem in localised.problems] == [
        "setting 'x': the default is refused, and the local default is used instead: ValueError('not positive')",
        "setting 'x': the value of the rule 'a' is refused, and the rule is skipped: ValueError('not positive')",
    ]


def test_a_validator_that_forgets_to_return_rejects_the_value() -> None:
    def forgetful(value: int) -> Any:
        return None

    localised = Setting("x", int, default=1, validators=[forgetful]).localise(stored(INT, 5))
    assert localised.decoded[False, None, None] == 1
    assert "forgetful returned what does not fit: None is not of type int" in localised.problems[0].message


def test_a_class_that_refuses_its_fields_rejects_the_value_alone() -> None:
    setting = Setting("x", Retry, default=Retry(1))
    localised = setting.localise(
        stored(JSON, freeze({"attempts": 3}), rules=(Rule("r", ValueOutcome(freeze({"attempts": -1}))),))
    )
    assert localised.decoded[False, None, None] == Retry(3)
    assert localised.setting is not None and localised.setting.rules == ()
    assert "Retry refuses it: attempts is negative" in localised.problems[0].message


def test_a_setting_that_breaks_the_model_gives_the_local_default() -> None:
    broken = replace(stored(INT, 1), rules=3)  # type: ignore[arg-type]  # as meant
    localised = Setting("x", int, default=1).localise(broken)
    assert localised.setting is None
    assert isinstance(localised.problems[0], Problem)
    assert "setting 'x': cannot be read" in localised.problems[0].message


def validator_of(kind: str) -> Callable[[Any], Any]:
    def fail(value: Any) -> Any:
        raise RuntimeError(kind)

    return {"same": lambda value: value, "none": lambda value: None, "fail": fail}[kind]


def declared(data: DataObject) -> Setting[Any]:
    chosen = data.draw(st.sampled_from(DEFAULTS) | setting_types().map(lambda type_: (type_, None)))
    python_type, default = chosen
    if not any(chosen is each for each in DEFAULTS):
        default = data.draw(values_of(python_type))
    kinds = data.draw(st.lists(st.sampled_from(["same", "same", "none", "fail"]), max_size=2))
    return Setting(
        "x",
        python_type,
        default=default,
        validators=[validator_of(kind) for kind in kinds],
        on_coerce=data.draw(st.sampled_from([None, lambda *_: None, lambda value, *_: value.clear()])),
    )


def server_settings(data: DataObject, setting: Setting[Any]) -> StoredSetting:
    """A server's setting: of the same type, of another one, or of values of all kinds."""
    kind = data.draw(st.sampled_from(["same", "other", "any"]))
    if kind == "same":
        return data.draw(settings(type_=setting.codec.type))
    if kind == "other":
        return data.draw(settings())
    return data.draw(settings(type_=JSON))


@given(st.data())
def test_whatever_a_server_sends_fits_once_localised(data: DataObject) -> None:
    setting = declared(data)
    server = server_settings(data, setting)
    logging.disable()
    try:
        localised = setting.localise(server)
    finally:
        logging.disable(logging.NOTSET)
    kept = localised.setting
    assert kept is not None
    held = [kept.default, kept.base_value]
    held += [] if kept.off is ABSENT else [kept.off]
    held += [value for rule in kept.rules for value in outcome_values(rule.outcome)]
    for value in held:
        assert same(normalise(setting.codec.type, value), value)
    assert [rule.id for rule in server.rules if rule in kept.rules or _kept(rule, kept)] == [
        rule.id for rule in kept.rules
    ]
    refused = {problem.rule_id for problem in localised.problems if problem.value is ABSENT} - {None}
    assert {rule.id for rule in server.rules} - {rule.id for rule in kept.rules} == refused
    plain = setting.codec.identity and not setting.validators
    if plain:
        assert not localised.decoded
        return
    places = {(False, None, None), (True, None, None)}
    for rule in kept.rules:
        match rule.outcome:
            case ValueOutcome():
                places.add((False, rule.id, None))
            case Distribution(variants=variants):
                places.update((False, rule.id, variant.name) for variant in variants)
    assert set(localised.decoded) == places
    for value in localised.decoded.values():
        setting.codec.encode(value)


def _kept(rule: Rule, setting: StoredSetting) -> bool:
    return setting.rule(rule.id) is not None


@given(st.data())
def test_what_is_localised_is_evaluated_with_values_that_are_there(data: DataObject) -> None:
    setting = declared(data)
    logging.disable()
    try:
        localised = setting.localise(server_settings(data, setting))
    finally:
        logging.disable(logging.NOTSET)
    assert localised.setting is not None
    name = localised.setting.name
    snapshot = CompiledSnapshot(Snapshot.of([localised.setting]))
    evaluation = snapshot.evaluate(name, {"region": "eu", "user": {"id": "u1"}})
    assert evaluation.reason is not Reason.ERROR
    if localised.decoded:
        place = (evaluation.reason is Reason.DISABLED, evaluation.rule_id, evaluation.variant)
        assert place in localised.decoded


@given(st.data())
def test_what_a_server_of_the_same_version_holds_is_not_touched(data: DataObject) -> None:
    type_ = data.draw(setting_types())
    server = data.draw(settings(type_=type_))
    setting: Setting[Any] = Setting("x", type_, default=data.draw(values_of(type_)))
    assert setting.localise(server).setting is server


@given(values())
def test_a_typed_setting_gives_its_type_whatever_the_value(value: Value) -> None:
    limits = Setting("x", Limits, default={"soft": 1})
    decoded: Any = limits.localise(stored(JSON, value)).decoded[False, None, None]
    assert type(decoded) is dict and type(decoded["soft"]) is int


def test_ten_thousand_settings_that_fit_are_localised_quickly() -> None:
    declared_settings = [Setting(f"s{i}", float, default=1.0) for i in range(10_000)]
    server = stored(FLOAT, 1.0, value=2.0, rules=(Rule("r", ValueOutcome(3.0)),))
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        for setting in declared_settings:
            setting.localise(server)
        best = min(best, time.perf_counter() - start)
    assert best < 0.1


def test_a_frozen_mapping_is_handed_out_where_a_mapping_is_declared() -> None:
    setting: Setting[Mapping[str, int]] = Setting("x", Mapping[str, int], default={"a": 1})
    assert isinstance(setting.get(), FrozenMapping)
    assert setting.get() == {"a": 1}
