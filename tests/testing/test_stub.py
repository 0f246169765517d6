from __future__ import annotations

import asyncio
import inspect
import os
import threading
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum
from typing import Any

import pytest

from rheo.v1.config_service_pb2 import PingRequest
from rheo.v1.watch_pb2 import WatchRequest
from rheostat import (
    AsyncClient,
    Client,
    ClientClosedError,
    FailedPreconditionError,
    InvalidArgumentError,
    InvalidConditionError,
    InvalidSettingError,
    Reason,
    Setting,
    SettingNotFoundError,
    Status,
    TypeMismatchError,
    ambient,
)
from rheostat.model.rule import Rule, ValueOutcome
from rheostat.testing import AsyncStubClient, RecordedEvaluation, StubClient


class Theme(Enum):
    LIGHT = "light"
    DARK = "dark"


@dataclass
class Limits:
    calls: int = 5


THEME = Setting("theme", Theme, default=Theme.LIGHT, alias="colours")
LIMITS = Setting("limits", Limits, default=Limits())
TIMEOUT = Setting("checkout.timeout", float, default=2.5)


@pytest.fixture
def stub() -> StubClient:
    return StubClient()


def test_a_stub_is_a_client_to_whatever_asks(stub: StubClient) -> None:
    assert isinstance(stub, Client)
    assert isinstance(AsyncStubClient(), AsyncClient)


def test_both_stubs_have_the_same_methods() -> None:
    def public(cls: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(member).parameters)
            for name, member in inspect.getmembers(cls, inspect.isfunction)
            if not name.startswith("_")
        }

    plain, asynchronous = public(StubClient), public(AsyncStubClient)
    # What is told to coroutine functions takes a while.
    assert asynchronous.pop("delivered") == ["self"]
    assert plain == asynchronous
    assert public(Client).items() <= plain.items()


def test_no_threads_and_no_network(stub: StubClient) -> None:
    before = set(threading.enumerate())
    with stub, stub.activate():
        stub["x"] = 1
        stub.subscribe(lambda change: None)
        assert stub.reload().revision == 2
        assert stub.status is Status.LIVE
    assert not set(threading.enumerate()) - before
    assert stub.status is Status.CLOSED
    with pytest.raises(ClientClosedError):
        stub.start()
    with pytest.raises(ClientClosedError):
        stub.reload()


def test_what_needs_a_server_is_refused(stub: StubClient) -> None:
    with pytest.raises(FailedPreconditionError, match="LocalServer"):
        stub.ping()
    assert isinstance(stub.call("Ping", PingRequest()).error, FailedPreconditionError)
    with pytest.raises(FailedPreconditionError), stub.stream(WatchRequest()):
        pass


def test_setting_a_value_takes_the_rules_away(stub: StubClient) -> None:
    stub.set_rules("x", [('region == "eu"', 2), (None, 3)], default=1)
    assert (stub.get("x", region="eu"), stub["x"]) == (2, 3)
    stub["x"] = 4
    assert stub.get("x", region="eu") == 4
    assert stub.evaluate("x").reason is Reason.STATIC


def test_rules_keep_the_value_that_is_there(stub: StubClient) -> None:
    stub["x"] = 1
    stub.set_rules("x", [('region == "eu"', 2)])
    assert (stub["x"], stub.get("x", region="eu")) == (1, 2)
    stub.set_rules("x", [('region == "us"', 3)])
    assert (stub["x"], stub.get("x", region="eu"), stub.get("x", region="us")) == (1, 1, 3)
    stub.set_rules("x", [], default=5)
    assert stub["x"] == 5


def test_rules_of_a_declared_setting_need_no_value() -> None:
    stub = StubClient(settings=[TIMEOUT, LIMITS], defaults={"y": 7})
    stub.set_rules("checkout.timeout", [('region == "eu"', 9)])
    stub.set_rules("limits", [('region == "eu"', Limits(9))])
    stub.set_rules("y", [('region == "eu"', 9)])
    assert (TIMEOUT.get(), TIMEOUT.get(region="eu")) == (2.5, 9.0)
    assert (LIMITS.get(), LIMITS.get(region="eu")) == (Limits(5), Limits(9))
    assert (stub["y"], stub.get("y", region="eu")) == (7, 9)
    with pytest.raises(SettingNotFoundError, match=r"'z'.*default="):
        stub.set_rules("z", [])


def test_rules_may_be_the_models_own(stub: StubClient) -> None:
    stub.set_rules(
        "x", [Rule("mine", ValueOutcome(2)), {"id": "other", "value": 3, "enabled": True}], default=1
    )
    assert stub.evaluate("x").rule_id == "mine"


@pytest.mark.parametrize(
    ("rules", "error", "message"),
    [
        ([('region = "eu"', 1)], InvalidConditionError, "rule 1 of 'x': expected an operator.*=="),
        ([(None, 1), ("nonsense", 1)], InvalidConditionError, "rule 2 of 'x'"),
        ([{"where": "nonsense", "value": 1}], InvalidConditionError, "rule 1 of 'x'"),
        ([('segment("staff")', 1)], InvalidConditionError, "rule 1 of 'x' refers to the segment 'staff'"),
        ([('setting("y") == 1', 1)], InvalidConditionError, "rule 1 of 'x' refers to the setting 'y'"),
        ([{"split": {"unit": "user.id"}}], InvalidArgumentError, "rule 1 of 'x': split: .*variants"),
        ([{"valeu": 1}], InvalidArgumentError, "rule 1 of 'x'.*did you mean value|rule 1 of 'x'.*valeu"),
        ([42], InvalidArgumentError, "rule 1 of 'x' is 42: write a pair"),
        ([(None, {1, 2})], TypeMismatchError, "rule 1 of 'x': the value of 'x': .*set"),
    ],
)
def test_rules_that_are_wrong_are_said_at_once(
    stub: StubClient, rules: Any, error: type[Exception], message: str
) -> None:
    stub["x"] = 0
    with pytest.raises(error, match=f"(?s){message}"):
        stub.set_rules("x", rules)
    assert (stub["x"], stub.revision) == (0, 2)


def test_names_that_are_none_are_refused(stub: StubClient) -> None:
    with pytest.raises(InvalidSettingError, match="'no name'"):
        stub["no name"] = 1
    with pytest.raises(InvalidSettingError, match="'no name'"):
        stub.set_segment("no name", "exists(x)")
    with pytest.raises(InvalidConditionError, match="the segment 'staff': "):
        stub.set_segment("staff", "x =")


def test_a_declared_setting_takes_values_of_its_type_alone() -> None:
    stub = StubClient(settings=[THEME, TIMEOUT])
    stub["colours"] = Theme.DARK
    assert THEME.get() is Theme.DARK
    assert stub["theme"] == stub["colours"] == "dark"
    with pytest.raises(TypeMismatchError, match="the value of 'theme': 'drak' is no member of Theme"):
        stub["theme"] = "drak"
    with pytest.raises(
        TypeMismatchError, match=r"the value of 'checkout.timeout': 'fast' is not of type float"
    ):
        stub["checkout.timeout"] = "fast"
    with (
        pytest.raises(TypeMismatchError, match=r"'checkout.timeout'"),
        stub.override({"checkout.timeout": "x"}),
    ):
        pass
    with pytest.raises(TypeMismatchError, match="rule 1 of 'theme'"):
        stub.set_rules("theme", [(None, 1)])
    with pytest.raises(TypeMismatchError):
        StubClient({"checkout.timeout": "fast"}, settings=[TIMEOUT])
    assert THEME.get() is Theme.DARK


@pytest.mark.parametrize("known", [False, True])
def test_values_of_python_types_are_taken_before_and_after_the_setting_is_known(
    stub: StubClient, known: bool
) -> None:
    with stub.activate():
        if known:
            assert (THEME.get(), LIMITS.get()) == (Theme.LIGHT, Limits(5))
        stub["theme"], stub["limits"] = Theme.DARK, Limits(7)
        assert (THEME.get(), LIMITS.get()) == (Theme.DARK, Limits(7))
        stub["theme"], stub["limits"] = "light", {"calls": 8}
        assert (THEME.get(), LIMITS.get()) == (Theme.LIGHT, Limits(8))
        stub.set_rules("theme", [("exists(night)", Theme.DARK)])
        assert THEME.get(night=True) is Theme.DARK
        with pytest.raises(TypeMismatchError, match="the value of 'theme'"):
            stub["theme"] = object()


@pytest.mark.parametrize("value", [Theme.DARK, "dark"])
def test_overrides_of_python_types_are_taken_before_the_setting_is_known(
    stub: StubClient, value: object
) -> None:
    with stub.activate(), stub.override(theme=value, limits=Limits(7)):
        assert (THEME.get(), LIMITS.get()) == (Theme.DARK, Limits(7))
        with stub.override(theme=Theme.LIGHT):
            assert THEME.get() is Theme.LIGHT
        assert THEME.get() is Theme.DARK


def test_an_override_that_does_not_fit_a_later_declaration_is_not_used_and_holds_nothing_up(
    stub: StubClient, caplog: pytest.LogCaptureFixture
) -> None:
    stub["checkout.timeout"] = 1.0
    stub.set_override("checkout.timeout", "fast")
    with stub.activate():
        assert TIMEOUT.get() == 1.0
        stub["checkout.timeout"] = 3.0
        assert TIMEOUT.get() == 3.0
    assert stub.evaluate("checkout.timeout").variant is None
    assert "the override of 'checkout.timeout': 'fast' is not of type float; it is not used" in caplog.text


def test_an_active_stub_is_read_by_settings_that_are_bound_to_another_client(stub: StubClient) -> None:
    other = StubClient({"checkout.timeout": 1.0}, settings=[TIMEOUT])
    stub["checkout.timeout"] = 9.0
    with stub.activate():
        assert TIMEOUT.get() == 9.0
    assert TIMEOUT.get() == 1.0
    assert [read.value for read in other.evaluations] == [1.0]
    TIMEOUT.unbind()


def test_overrides_nest_and_end_with_their_block(stub: StubClient) -> None:
    stub["x"] = 1
    told: list[object] = []
    stub.subscribe("x", lambda change: told.append(change.after))
    with stub.override(x=2, y=0), stub.override({"a.b": 5}, x=3):
        assert (stub["x"], stub["y"], stub["a.b"]) == (3, 0, 5)
        stub["x"] = 9
        assert stub["x"] == 3
    with pytest.raises(ValueError, match="in the block"), stub.override(x=4):
        raise ValueError("in the block")
    assert (stub["x"], "y" in stub, "a.b" in stub) == (9, False, False)
    assert told == [2, 3, 2, 9, 4, 9]


def test_deleting_and_clearing_tell_subscribers(stub: StubClient) -> None:
    told: list[str] = []
    stub.subscribe(lambda change: told.append(change.name) if change.deleted else None)
    stub["x"], stub["y"] = 1, 2
    stub.set_segment("staff", "exists(user.staff)")
    stub.set_override("z", 3)
    stub.delete("x")
    with pytest.raises(SettingNotFoundError, match="'x'"):
        stub.delete("x")
    assert stub.get("y") == 2
    stub.clear()
    assert sorted(told) == ["x", "y", "z"]
    assert (len(stub), stub.evaluations) == (0, [])
    with pytest.raises(InvalidConditionError, match="staff"):
        stub.set_rules("x", [('segment("staff")', 1)], default=0)
    stub.clear()


def test_what_was_read_is_recorded_with_its_context() -> None:
    region = ContextVar("region", default="eu")
    stub = StubClient({"x": 1}, context={"app": "shop", "region": region}, settings=[THEME])
    stub.set_rules("y", [('user.plan == "pro"', 2)], default=1)
    stub["x"]
    scoped = stub.with_context(user={"id": 7})
    with ambient(user={"plan": "pro"}, app="test"):
        scoped.get("y", extra=True)
    stub.evaluate("z", 5)
    stub.bool_value("x", False)
    THEME.get()
    stub.pin().get("x", 0, context={"a": 1})
    base = {"app": "shop", "region": "eu"}
    assert stub.evaluations == [
        RecordedEvaluation("x", base, 1, Reason.STATIC),
        RecordedEvaluation(
            "y",
            {"app": "test", "region": "eu", "user": {"id": 7, "plan": "pro"}, "extra": True},
            2,
            Reason.TARGETING_MATCH,
            "rule-1",
        ),
        RecordedEvaluation("z", base, 5, Reason.ERROR),
        RecordedEvaluation("x", base, 1, Reason.STATIC),
        RecordedEvaluation("theme", base, Theme.LIGHT, Reason.ERROR),
        RecordedEvaluation("x", {**base, "a": 1}, 1, Reason.STATIC),
    ]
    stub.evaluations.clear()
    stub.evaluate_all()
    assert [read.name for read in stub.evaluations] == ["x", "y"]
    THEME.unbind()


def test_callbacks_run_in_order_before_a_change_returns(stub: StubClient) -> None:
    told: list[object] = []

    def first(change: Any) -> None:
        told.append(("first", change.after, threading.current_thread()))
        if change.after == 1:
            # Told after the others have been told of 1.
            stub["x"] = 2

    stub.subscribe("x", first)
    stub.subscribe("x", lambda change: told.append(("second", change.after, threading.current_thread())))
    stub["x"] = 1
    here = threading.current_thread()
    assert told == [("first", 1, here), ("second", 1, here), ("first", 2, here), ("second", 2, here)]


def test_callbacks_have_no_ambient_context_and_no_pins(stub: StubClient) -> None:
    stub.set_rules("y", [('region == "eu"', 2)], default=1)
    told: list[object] = []
    stub.subscribe("x", lambda change: told.append((stub["x"], stub["y"])))
    with stub.pinned(region="eu"):
        stub["x"] = 1
        assert stub.get("x") is None
    assert told == [(1, 1)]


def test_changes_of_several_threads_are_told_once_each(stub: StubClient) -> None:
    told: list[object] = []
    stub.subscribe(lambda change: told.append(change.after))

    def work(first: int) -> None:
        for value in range(first, first + 100):
            stub[f"x{value}"] = value

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 100, 200, 300)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(told) == list(range(400))
    assert stub.revision == 401


def test_a_strict_stub_refuses_ambient_attributes_that_are_no_features() -> None:
    stub = StubClient({"limit": 3}, features=["region"])
    with pytest.raises(ValueError, match="colour"), ambient(colour="red"):
        pass
    with pytest.raises(ValueError, match="colour"), stub.pinned(colour="red"):
        pass
    with ambient(region="eu"):
        assert stub["limit"] == 3
    stub.close()
    with ambient(colour="red"):
        assert stub["limit"] == 3


def test_a_strict_stub_refuses_attributes_that_are_no_features() -> None:
    stub = StubClient({"x": 1}, features=["region", "user.plan"])
    stub.with_context(region="eu", user={"plan": "pro"})
    with pytest.raises(ValueError, match=r"user\.plna"):
        stub.with_context(user={"plna": "pro"})
    assert stub.get("x", nonsense=1) == 1
    stub.close()


def test_hooks_are_called() -> None:
    positions: list[int] = []
    statuses: list[Status] = []
    stub = StubClient(
        on_update=lambda position: positions.append(position.revision), on_status=statuses.append
    )
    stub["x"] = 1
    stub.close()
    assert (positions, statuses) == ([1, 2], [Status.LIVE, Status.CLOSED])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_stub_goes_on_in_a_forked_process(stub: StubClient) -> None:
    stub["x"] = 1
    told: list[object] = []
    stub.subscribe("x", lambda change: told.append(change.after))
    with stub._core.replica.lock():
        child = os.fork()
        if child == 0:
            try:
                stub["x"] = stub["x"] + 1
                os._exit(0 if told == [2] else 1)
            finally:
                os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert stub["x"] == 1


# Async.


def test_an_async_stub_tells_plain_functions_at_once_and_coroutine_functions_in_order() -> None:
    async def main() -> None:
        async with AsyncStubClient({"x": 0}) as stub:
            told: list[object] = []
            gate = asyncio.Event()

            async def slow(change: Any) -> None:
                await gate.wait()
                told.append(("slow", change.after))

            stub.subscribe("y", lambda change: told.append(change.after))
            stub["y"] = 1
            assert told == [1]
            stub.subscribe("x", slow)
            stub.subscribe("x", lambda change: told.append(("quick", change.after)))
            stub["x"] = 1
            stub["x"] = 2
            assert told == [1]
            gate.set()
            await stub.delivered()
            assert told == [1, ("slow", 1), ("quick", 1), ("slow", 2), ("quick", 2)]

    asyncio.run(main())


def test_an_async_stub_closes_after_its_callbacks() -> None:
    async def main() -> None:
        told: list[object] = []
        stub = await AsyncStubClient().start()
        changes = stub.changes("x")

        async def note(change: Any) -> None:
            await asyncio.sleep(0)
            told.append(change.after)
            if change.after == 1:
                stub["x"] = 2

        stub.subscribe("x", note)
        stub["x"] = 1
        await stub.close()
        await stub.close()
        assert told == [1, 2]
        assert [change.after async for change in changes] == [1, 2]
        with pytest.raises(ClientClosedError):
            await stub.wait_ready()
        with pytest.raises(ClientClosedError):
            await stub.reload()

    asyncio.run(main())


def test_an_async_stub_asks_no_server() -> None:
    async def main() -> None:
        stub = AsyncStubClient()
        await stub.wait_ready()
        assert (await stub.reload()).revision == 1
        with pytest.raises(FailedPreconditionError):
            await stub.ping()
        with pytest.raises(FailedPreconditionError):
            async with stub.stream(WatchRequest()):
                pass

    asyncio.run(main())


def test_a_coroutine_function_without_an_event_loop_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    stub = AsyncStubClient()
    told: list[object] = []

    async def note(change: Any) -> None:
        raise AssertionError

    stub.subscribe("x", note)
    stub.subscribe("x", lambda change: told.append(change.after))
    stub["x"] = 1
    assert told == [1]
    assert "no running event loop" in caplog.text


def test_a_coroutine_function_that_raises_is_logged_and_the_rest_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        stub = AsyncStubClient()
        told: list[object] = []

        async def broken(change: Any) -> None:
            raise ValueError("broken callback")

        stub.subscribe("x", broken)
        stub.subscribe("x", lambda change: told.append(change.after))
        stub["x"] = 1
        await stub.delivered()
        assert told == [1]

    asyncio.run(main())
    assert "broken callback" in caplog.text


def test_a_closed_stub_leaves_declared_settings_their_defaults() -> None:
    rate = Setting("rate", float, default=2.5)
    with StubClient({"rate": 9.0}, settings=[rate]):
        assert rate.get() == 9.0
    assert rate.get() == 2.5

    async def main() -> None:
        async with AsyncStubClient({"rate": 8.0}, settings=[rate]):
            assert rate.get() == 8.0

    asyncio.run(main())
    assert rate.get() == 2.5
    with StubClient({"rate": 7.0}, settings=[rate]) as outer, StubClient({"rate": 6.0}, settings=[rate]):
        outer.close()
        assert rate.get() == 6.0, "it reads from another one by now"


def test_a_hostile_context_does_not_make_a_read_of_a_stub_raise() -> None:
    class Hostile(dict[str, object]):
        def __getitem__(self, key: str) -> object:
            raise RuntimeError("no")

        def __contains__(self, key: object) -> bool:
            raise RuntimeError("no")

        def __iter__(self) -> Any:
            raise RuntimeError("no")

    stub = StubClient({"x": 1})
    for context in (Hostile(a=1), {"user": Hostile(a=1), "plan": "pro"}):
        assert stub.get("x", context=context) == 1
        assert stub.evaluate("x", context=context).value == 1
    assert stub.evaluations[-1].context["plan"] == "pro"
