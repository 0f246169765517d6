"""A change that wakes many watches leaves room on the event loop for others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing

import pytest

from rheostat.server.waiting import Waiters, Waiting
from rheostat.service import Service
from rheostat.service.publish import Hub
from rheostat.store import open_store


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Service(open_store("memory:")) as service:
        yield service.hub


def run(scenario):
    asyncio.run(asyncio.wait_for(scenario, 30))


def test_other_calls_get_their_turn_while_thousands_are_woken(hub: Hub):
    async def scenario() -> None:
        waiters = Waiters(hub, asyncio.get_running_loop())
        woken = 0

        async def watch() -> None:
            nonlocal woken
            with closing(Waiting(waiters)) as waiting:
                await waiting.wait(hub.bell, 30)
                woken += 1

        watches = [asyncio.create_task(watch()) for _ in range(2_000)]
        await asyncio.sleep(0)
        hub.ring()
        # As the answer to a commit does, which takes some turns of the loop.
        for _ in range(4):
            await asyncio.sleep(0)
        assert 0 < woken < 1_000
        await asyncio.gather(*watches)
        assert woken == 2_000

    run(scenario())


def test_whoever_waits_again_is_not_woken_by_the_change_that_it_has_seen(hub: Hub):
    async def scenario() -> None:
        waiters = Waiters(hub, asyncio.get_running_loop())
        seen: list[int] = []
        again: list[bool] = []

        async def watch() -> None:
            with closing(Waiting(waiters)) as waiting:
                await waiting.wait(hub.bell, 30)
                bell = hub.bell
                seen.append(bell)
                await waiting.wait(bell, 30)
                again.append(hub.bell > bell)

        watches = [asyncio.create_task(watch()) for _ in range(500)]
        await asyncio.sleep(0)
        hub.ring()
        while len(seen) < 500 or len(waiters.waiting) < 500:  # noqa: ASYNC110 - it is turns of the loop that pass
            await asyncio.sleep(0)
        assert not again
        hub.ring()
        await asyncio.gather(*watches)
        assert again == [True] * 500

    run(scenario())


def test_a_wait_that_nothing_ends_is_over_when_it_is_due(hub: Hub):
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        with closing(Waiting(Waiters(hub, loop))) as waiting:
            began = loop.time()
            # The timer of a long wait must not keep a shorter one after it waiting.
            long = asyncio.create_task(waiting.wait(hub.bell, 30))
            await asyncio.sleep(0)
            hub.ring()
            await long
            await waiting.wait(hub.bell, 0.05)
            assert 0.04 < loop.time() - began < 10

    run(scenario())


def test_a_timer_of_an_earlier_wait_does_not_end_a_later_one(hub: Hub):
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        with closing(Waiting(Waiters(hub, loop))) as waiting:
            short = asyncio.create_task(waiting.wait(hub.bell, 0.05))
            await asyncio.sleep(0)
            hub.ring()
            await short
            began = loop.time()
            await waiting.wait(hub.bell, 0.3)
            assert loop.time() - began > 0.29

    run(scenario())
