"""Which calls are repeated, how often, and after how long."""

from __future__ import annotations

import random
from typing import Any

import pytest

from rheo.v1.admin_service_pb2 import CommitRequest, GetSettingRequest
from rheo.v1.config_service_pb2 import DeclareSettingsRequest, PingRequest
from rheostat.errors import (
    AuthenticationError,
    DeadlineExceededError,
    InvalidArgumentError,
    LimitExceededError,
    NotFoundError,
    RheostatError,
    UnavailableError,
)
from rheostat.sdk.call import Answer, calling, method_named
from rheostat.sdk.effect import Fetch, Sleep


def outcome(fetch: Fetch, *answers: object, retries: int = 2, seed: int = 0) -> tuple[object, list[float]]:
    """Make a call whose attempts are answered with *answers*; returns the result or error, and the waits."""
    work = calling(fetch, retries=retries, randomness=random.Random(seed))
    waits: list[float] = []
    left = list(answers)
    effect: Any = next(work)
    try:
        while True:
            if isinstance(effect, Sleep):
                waits.append(effect.seconds)
                effect = work.send(None)
                continue
            assert effect is fetch
            answer = left.pop(0)
            effect = work.throw(answer) if isinstance(answer, RheostatError) else work.send(answer)
    except StopIteration as stop:
        found = stop.value
    except RheostatError as error:
        found = error
    assert not left, "it was not asked so often"
    return found, waits


READ = Fetch("GetSetting", GetSettingRequest(), 10.0)
WRITE = Fetch("Commit", CommitRequest(), 10.0)
SAFE_WRITE = Fetch("Commit", CommitRequest(request_id="once"), 10.0)
AWAY = UnavailableError("away")


@pytest.mark.parametrize("fetch", [READ, SAFE_WRITE, Fetch("Ping", PingRequest(), 10.0)])
@pytest.mark.parametrize("error", [AWAY, DeadlineExceededError("late")], ids=["away", "late"])
def test_a_call_that_may_be_repeated_is_twice(fetch: Fetch, error: RheostatError) -> None:
    answer = Answer(PingRequest())
    assert outcome(fetch, error, error, answer)[0] is answer
    found, waits = outcome(fetch, error, error, error)
    assert found is error
    assert len(waits) == 2


@pytest.mark.parametrize(
    "fetch",
    [WRITE, Fetch("DeclareSettings", DeclareSettingsRequest(), 10.0)],
    ids=lambda fetch: fetch.method,
)
def test_a_write_without_a_request_id_is_never_repeated(fetch: Fetch) -> None:
    assert outcome(fetch, AWAY) == (AWAY, [])


@pytest.mark.parametrize(
    "error",
    [AuthenticationError("bad key"), InvalidArgumentError("no"), NotFoundError("no such setting")],
    ids=lambda error: type(error).__name__,
)
def test_what_a_repeat_would_not_mend_is_not_repeated(error: RheostatError) -> None:
    assert outcome(READ, error) == (error, [])


def test_no_retries_means_one_attempt() -> None:
    assert outcome(READ, AWAY, retries=0) == (AWAY, [])


def test_delays_are_random_from_zero_and_grow() -> None:
    first, second = [], []
    for seed in range(50):
        _, waits = outcome(READ, AWAY, AWAY, AWAY, seed=seed)
        first.append(waits[0])
        second.append(waits[1])
    assert min(first) < 0.05 and max(first) <= 0.2
    assert min(second) < 0.1 and 0.2 < max(second) <= 0.4


def test_a_server_that_says_when_to_come_back_is_obeyed() -> None:
    busy = LimitExceededError("busy", limit="calls")
    busy.retry_after = 3.0
    for seed in range(20):
        _, waits = outcome(READ, busy, Answer(PingRequest()), seed=seed)
        assert 3.0 <= waits[0] <= 3.4


def test_a_wait_longer_than_the_call_may_take_is_the_callers_to_decide() -> None:
    busy = LimitExceededError("busy", limit="calls")
    busy.retry_after = 60.0
    assert outcome(READ, busy) == (busy, [])


def test_a_limit_that_waiting_does_not_lift_is_not_tried_again() -> None:
    large = LimitExceededError("too large", limit="bytes")
    assert outcome(READ, large) == (large, [])


@pytest.mark.parametrize("name", ["Evaluate", "evaluate", "ConfigService/Evaluate"])
def test_an_rpc_has_its_name_in_every_spelling(name: str) -> None:
    method = method_named(name)
    assert (method.service, method.name, method.function) == ("ConfigService", "Evaluate", "evaluate")
    assert method.repeatable


def test_a_name_that_is_no_unary_rpc_is_refused_and_says_what_to_use() -> None:
    with pytest.raises(InvalidArgumentError, match="'Nonsense'"):
        method_named("Nonsense")
    with pytest.raises(InvalidArgumentError, match=r"client\.stream"):
        method_named("Watch")
    with pytest.raises(InvalidArgumentError, match=r"client\.call"):
        method_named("Ping", streams=True)
