"""Reading: which default is used, which context wins, and that nothing raises."""

from __future__ import annotations

import contextvars
import dataclasses
import enum
import gc
import logging
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheostat import Setting as Declared
from rheostat import ambient
from rheostat.errors import SettingNotFoundError
from rheostat.evaluation.result import ErrorCode, Reason
from rheostat.model.setting import Lifecycle
from rheostat.model.type import JSON
from rheostat.model.value import ABSENT, FrozenMapping
from rheostat.sdk.ambient import current
from rheostat.sdk.reader import Reader
from tests.sdk.state import State, setting
from tests.service.book import equals, rule
from tests.strategies import texts, values


def by_region(name: str = "a") -> Any:
    """A setting that says where its region came from."""
    regions = ("call", "inner", "outer", "scoped", "client")
    return setting(
        name,
        "none",
        type_=JSON,
        rules=tuple(rule(f"r{n}", region, equals("region", region)) for n, region in enumerate(regions)),
    )


def with_context(state: State, **context: object) -> Reader[Any]:
    """A client's own context is that of a reader before all others."""
    return state.reader.with_context(context)


# Defaults.


def test_an_explicit_default_beats_a_scoped_one_and_that_the_clients_and_the_declared() -> None:
    state = State(defaults={"x": "client", "y": "client"})
    scoped = state.reader.with_defaults({"x": "scoped"})
    state.core.declare([Declared("x", str, default="declared"), Declared("z", str, default="declared")])
    assert scoped.get("x", "explicit") == "explicit"
    assert scoped.get("x") == scoped["x"] == "scoped"
    assert scoped.get("y") == scoped["y"] == "client"
    assert scoped.get("z") == scoped["z"] == "declared"
    assert state.reader.get("x") == "client", "a scope changes nothing for others"
    assert scoped.with_defaults({"x": "inner"}).get("x") == "inner"
    assert scoped.get("unknown") is None


@pytest.mark.parametrize("value", [None, False, 0, "", (), FrozenMapping({})])
def test_a_value_is_never_taken_for_none(value: Any) -> None:
    state = State(setting("a", value, type_=JSON), defaults={"a": "client"})
    assert state.reader.get("a", "explicit") == value
    assert state.reader["a"] == value
    assert "a" in state.reader


@pytest.mark.parametrize("default", [None, False, 0, ""])
def test_a_default_that_looks_like_nothing_is_a_default(default: Any) -> None:
    state = State(defaults={"x": default})
    assert state.reader["x"] == default
    assert "x" in state.reader
    assert state.reader.get("y", default) == default


def test_a_name_that_nobody_knows_raises_a_key_error_that_says_how_the_client_stands() -> None:
    state = State()
    with pytest.raises(SettingNotFoundError, match=r"'x'.*not ready: it is connecting") as caught:
        state.reader["x"]
    assert isinstance(caught.value, KeyError)
    with pytest.raises(KeyError):
        state.reader.settings["x"]


def test_the_evaluation_of_an_absent_setting_has_the_default_and_says_why() -> None:
    state = State(defaults={"x": 1})
    found = state.reader.evaluate("x")
    assert (found.value, found.reason, found.error_code) == (1, Reason.ERROR, ErrorCode.PROVIDER_NOT_READY)
    assert state.reader.evaluate("x", 2).value == 2


def test_names_are_those_of_settings_then_of_defaults_each_once() -> None:
    state = State(setting("a", aliases=("old",)), setting("b"), defaults={"b": 1, "c": 2, "old": 3})
    state.core.declare([Declared("d", int, default=4), Declared("a", int, default=0)])
    assert list(state.reader) == ["a", "b", "c", "d"]
    assert len(state.reader) == 4
    assert state.reader.keys() == ("a", "b", "c", "d")
    assert dict(state.reader.settings) == {"a": 0, "b": 0, "c": 2, "d": 4}
    assert "old" in state.reader and 5 not in state.reader


def test_all_evaluations_leave_out_what_is_archived() -> None:
    state = State(setting("a"), setting("b", lifecycle=Lifecycle.ARCHIVED))
    assert state.reader.evaluate_all().keys() == {"a"}


# Context.


def test_the_call_wins_over_ambient_context_and_that_over_scopes_and_the_client() -> None:
    state = State(by_region())
    client = with_context(state, region="client")
    scoped = client.with_context(region="scoped")
    assert client["a"] == client.get("a") == "client"
    assert scoped["a"] == "scoped"
    with ambient(region="outer"):
        assert scoped["a"] == scoped.get("a") == scoped.evaluate("a").value == "outer"
        with ambient({"region": "inner"}):
            assert scoped["a"] == "inner"
            assert scoped.get("a", region="call") == "call"
            assert scoped.get("a", None, {"region": "call"}) == "call"
            assert scoped.evaluate("a", context={"region": "x"}, region="call").value == "call", (
                "keywords win"
            )
            assert scoped.explain("a", region="call").evaluation.value == "call"
        assert scoped["a"] == "outer"
    assert scoped["a"] == "scoped"


def test_a_call_without_the_attribute_leaves_the_outer_one() -> None:
    scoped = with_context(State(by_region()), region="scoped")
    assert scoped.get("a", other=1) == "scoped"
    with ambient(other=1):
        assert scoped.get("a", None, {"more": 2}) == "scoped"


def test_context_variables_are_read_at_each_evaluation() -> None:
    region: contextvars.ContextVar[str] = contextvars.ContextVar("region")
    scoped = with_context(State(by_region()), region="client").with_context(region=region)
    assert scoped["a"] == scoped.get("a") == "client", "one without a value is missing"
    token = region.set("scoped")
    assert scoped["a"] == scoped.evaluate("a").value == scoped.explain("a").evaluation.value == "scoped"
    region.reset(token)
    assert scoped["a"] == "client"


def test_a_context_that_changes_after_it_was_given_changes_nothing() -> None:
    state = State(by_region())
    given = {"region": "scoped"}
    scoped = state.reader.with_context(given)
    given["region"] = "client"
    assert scoped["a"] == "scoped"


def test_a_strict_client_names_attributes_that_are_no_features(caplog: pytest.LogCaptureFixture) -> None:
    state = State(by_region(), strict=True)
    state.reader.with_context(anything=1)
    state.core.features = frozenset({"region", "user.plan"})
    with pytest.raises(ValueError, match=r"'user\.name', 'plan'"):
        state.reader.with_context(region="eu", user={"plan": 1, "name": 2}, plan=1)
    scoped = state.reader.with_context(region="client", user={"plan": "pro"})
    with caplog.at_level(logging.WARNING):
        state.replica.idle = lambda: None
        for _ in range(3):
            assert scoped.get("a", wrong=1) == "client", "a read never raises"
    assert [record.getMessage() for record in caplog.records] == ["'wrong' is no registered feature"]
    # It would go on to check the ambient context of the tests that follow, until the collector comes.
    state.core.close()


# Views.


def test_a_pinned_reader_stays_at_its_revision() -> None:
    state = State(setting("a"))
    pinned = state.reader.pin()
    state.write(setting("a", 1), setting("b", 1))
    assert (pinned["a"], "b" in pinned, pinned.get("b", 5)) == (0, False, 5)
    assert state.reader["a"] == 1
    assert pinned.with_context(x=1)["a"] == 0


def test_inside_a_pinned_block_all_readers_stay_and_others_do_not() -> None:
    state, other = State(setting("a")), State(setting("a"))
    with state.reader.pinned(region="eu"):
        state.write(setting("a", 1))
        other.write(setting("a", 1))
        assert state.reader["a"] == state.reader.get("a") == state.reader.with_context(x=1)["a"] == 0
        assert state.reader.evaluate("a").value == 0
        assert contextvars.Context().run(lambda: state.reader["a"]) == 1, "another thread or task"
        assert other.reader["a"] == 1
    assert state.reader["a"] == 1


# Typed reads.


@pytest.mark.parametrize(
    ("method", "fits", "default"),
    [
        ("bool_value", [(True, True), (False, False)], True),
        ("int_value", [(3, 3), (3.0, 3), (-(2**62), -(2**62))], 7),
        ("float_value", [(2.5, 2.5), (3, 3.0)], 7.5),
        ("str_value", [("", ""), ("x", "x")], "d"),
        ("json_value", [((1, 2), (1, 2)), (FrozenMapping({"a": 1}), {"a": 1})], ("d",)),
    ],
)
def test_a_typed_read_gives_its_type_or_the_default(method: str, fits: list[Any], default: Any) -> None:
    good = [value for value, _ in fits]
    for value in [True, False, 3, 3.0, 2.5, "x", "1", None, (1,), FrozenMapping({"a": 1}), *good]:
        state = State(setting("a", value, type_=JSON))
        found = getattr(state.reader, method)("a", default)
        expected = next(
            (want for given_, want in fits if given_ == value and type(given_) is type(value)), None
        )
        if expected is not None:
            assert found == expected
        assert type(found) in {type(default), *(type(want) for _, want in fits), type(value)}
        if method != "json_value":
            assert type(found) is type(default), (value, found)
    assert getattr(State().reader, method)("absent", default) == default


def test_a_typed_read_that_does_not_fit_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    state = State(setting("a", "text", type_=JSON))
    for _ in range(3):
        assert state.reader.int_value("a", 7) == 7
    assert len(caplog.records) == 1 and "'a'" in caplog.text


# Whatever is asked.


class Hostile:
    """Raises wherever it is touched."""

    def __hash__(self) -> int:
        raise RuntimeError("hash")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("eq")

    def __str__(self) -> str:
        raise RuntimeError("str")

    def __repr__(self) -> str:
        # Hypothesis needs it.
        return "Hostile()"

    def __bool__(self) -> bool:
        raise RuntimeError("bool")

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("getattr")


class Unprintable(Hostile):
    """Cannot even be named in a message."""

    def __repr__(self) -> str:
        raise RuntimeError("repr")


class HostileMapping(dict[str, Any]):
    """A mapping that cannot be read."""

    def __getitem__(self, key: str) -> Any:
        raise RuntimeError("getitem")

    def get(self, key: str, default: Any = None) -> Any:  # type: ignore[override]
        raise RuntimeError("get")


odd = st.one_of(
    values(),
    st.sampled_from(
        [float("nan"), float("inf"), 2**80, b"bytes", object(), {1, 2}, [1], "\ud800", {"\ud800": 1}]
    ),
    st.builds(Hostile),
    st.builds(HostileMapping, region=st.just("eu")),
    st.recursive(
        st.none(), lambda inner: st.dictionaries(st.text(max_size=2), inner, max_size=2), max_leaves=5
    ),
)
odd_names = st.one_of(texts(), st.sampled_from(["a", "b", "\ud800"]), odd)
contexts = st.one_of(
    odd, st.dictionaries(st.one_of(st.sampled_from(["region", "user", "user.id"]), texts()), odd, max_size=4)
)
STATE = State(
    by_region(),
    setting("b", 1, rules=(rule("r", 2, equals("user.id", 1)),)),
    defaults={"c": 1},
)


@given(odd_names, contexts)
def test_no_name_and_no_context_makes_a_read_raise(name: Any, context: Any) -> None:
    reader = STATE.reader
    reader.get(name, None, context)
    reader.evaluate(name, 1, context)
    reader.explain(name, 1, context)
    for asked in ("a", "b", name):
        reader.get(asked, 5, context, region="eu")
        reader.bool_value(asked, True, context)
        reader.int_value(asked, 1, context)
        reader.float_value(asked, 1.0, context)
        reader.str_value(asked, "", context)
        reader.json_value(asked, (), context)
    if isinstance(context, dict) and not isinstance(context, HostileMapping):
        scoped = reader.with_context(context)
        scoped.get("a")
        scoped.evaluate("b")
        with ambient(context):
            reader.get("a")
            reader.evaluate_all()


def test_what_cannot_be_printed_does_not_make_a_read_raise_either() -> None:
    for name, context in ((Unprintable(), None), ("a", Unprintable()), ("a", {"region": Unprintable()})):
        STATE.reader.get(name, None, context)  # type: ignore[arg-type]
        STATE.reader.evaluate(name, None, context)  # type: ignore[arg-type]
        STATE.reader.explain(name, None, context)  # type: ignore[arg-type]
        STATE.reader.int_value(name, 1, context)  # type: ignore[arg-type]


class Mode(enum.Enum):
    FAST = "fast"
    SLOW = "slow"


def test_a_default_that_is_given_for_a_declared_setting_is_of_its_type(
    caplog: pytest.LogCaptureFixture,
) -> None:
    mode = Declared("mode", Mode, default=Mode.SLOW)
    rate = Declared("rate", float, default=1.0)
    state = State(defaults={"mode": "fast", "rate": "abc"})
    state.core.declare([mode, rate])
    for setting_ in (mode, rate):
        setting_.bind(state.reader)
    for _ in range(2):
        assert (mode.get(), state.reader.get("mode")) == (Mode.FAST, "fast")
        assert (rate.get(), rate.evaluate().value, state.reader["rate"]) == (1.0, 1.0, 1.0)
    assert [each.getMessage().split(";")[0] for each in caplog.records].count(
        caplog.records[0].getMessage()
    ) == 1
    assert "'rate' does not fit its type" in caplog.text
    scoped = state.reader.with_defaults({"mode": Mode.FAST, "rate": 2})
    assert (scoped.get("mode"), scoped.get("rate")) == ("fast", 2.0)
    assert state.reader.with_defaults({"mode": 5}).read_setting(mode, ABSENT, None, {}) is Mode.SLOW


def test_an_object_that_cannot_be_copied_is_handed_out_as_it_is() -> None:
    @dataclasses.dataclass
    class Limits:
        rate: int = 1

        def __post_init__(self) -> None:
            self.lock = threading.Lock()

    limits = Declared("limits", Limits, default=Limits(1))
    state = State(setting("limits", FrozenMapping({"rate": 7}), type_=JSON))
    state.core.declare([limits])
    limits.bind(state.reader)
    assert limits.get().rate == 7
    state.write(setting("limits", FrozenMapping({"rate": 8}), type_=JSON))
    assert state.reader.value_in(state.replica.view, "limits", limits).rate == 8
    assert limits.evaluate().value.rate == 8


def test_a_pinned_reader_stays_at_its_revision_inside_a_pinned_block() -> None:
    state = State(setting("a", 1))
    old = state.reader.pin()
    state.write(setting("a", 2), setting("new", 1))
    with state.reader.pinned():
        assert (old.get("a"), old["a"], old.evaluate_all()["a"].value) == (1, 1, 1)
        assert old.revision < state.reader.revision
        assert ("new" in old, "new" in state.reader) == (False, True)
        assert list(old) == ["a"]
        assert old.pin()["a"] == 1


def test_an_ambient_block_keeps_no_reader_alive() -> None:
    state = State(by_region())

    with ambient(region="outer"):
        for i in range(100):
            assert state.reader.with_context(user=str(i)).get("a") == "outer"
        gc.collect()
        found = current.get()
        assert found is not None
        assert len(found.bases) == 0
        assert state.reader.get("a") == "outer"
        assert len(found.bases) == 1
    assert len(state.core.readers) == 1


def test_a_fork_inside_an_ambient_block_gives_the_child_s_client_id() -> None:
    state = State(setting("a", "nobody", type_=JSON))
    state.write(
        setting(
            "a", "nobody", type_=JSON, rules=(rule("r", "parent", equals("client.id", state.core.client_id)),)
        )
    )
    with ambient(region="outer"):
        assert state.reader.get("a") == "parent"
        state.core.after_fork()
        assert state.reader.get("a") == "nobody"
