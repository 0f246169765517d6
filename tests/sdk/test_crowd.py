"""A thousand clients that lose their server at once: how they come back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rheo.v1.watch_pb2 import WATCH_MODE_SNAPSHOT
from rheostat import AsyncClient
from tests.e2e.process import ServerProgram, wait_until
from tests.sdk.crowd import Crowd, peak
from tests.sdk.editor import Editor
from tests.sdk.fake import HEARTBEAT

CLIENTS = 1000

ADMISSION = 400
"""Clients a second that a node is ready for: storage-and-scale.md, Admission."""


@pytest.mark.parametrize("outage", [0.1, 1.0, 5.0, 40.0])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_thousand_clients_come_back_spread_out_after_a_crash(
    outage: float, seed: int, record_property: Callable[[str, object], None]
):
    crowd = Crowd(CLIENTS, seed)
    # Bookmarks have told all of them how many they are.
    crowd.world.run_until(crowd.world.now + 1.1 * HEARTBEAT)
    crowd.server.opened.clear()
    began = crowd.world.now
    crowd.server.crash()
    crowd.world.run_until(began + outage)
    crowd.server.up = True
    crowd.server.commit("a", 2)
    crowd.world.run_until(began + outage + 30.0 + CLIENTS / ADMISSION)
    assert all(crowd.reads("a", 2))
    assert len(crowd.server.opened) == CLIENTS
    # By delta, each of them.
    assert WATCH_MODE_SNAPSHOT not in crowd.server.modes
    record_property("most_in_a_second", peak(crowd.server.opened))
    record_property("all_back_after", max(crowd.server.opened) - began - outage)
    assert peak(crowd.server.opened) <= ADMISSION


@pytest.mark.parametrize("seed", [1, 2])
def test_goaway_spreads_a_thousand_clients_over_the_time_that_it_says(seed: int):
    crowd = Crowd(CLIENTS, seed)
    began = crowd.world.now
    spread = max(5.0, CLIENTS / ADMISSION)
    crowd.server.drain(spread, grace=3.0)
    crowd.server.commit("a", 2)
    crowd.world.run_until(began + spread + 0.5)
    opened = [at - began for at in crowd.server.opened]
    assert len(opened) == CLIENTS
    assert all(crowd.reads("a", 2))
    assert max(opened) <= spread + 0.1
    # Evenly: each second has its share.
    for second in range(round(spread)):
        share = sum(second <= at < second + 1 for at in opened)
        assert 0.7 * CLIENTS / spread < share < 1.3 * CLIENTS / spread
    assert peak(opened) <= ADMISSION
    assert WATCH_MODE_SNAPSHOT not in crowd.server.modes
    # Nobody takes the end of a stream that was announced for an error.
    assert not any(member.core._failed for member in crowd.members)


def test_a_thousand_clients_that_need_snapshots_get_them_in_turns():
    crowd = Crowd(CLIENTS, 3)
    began = crowd.world.now
    crowd.server.crash()
    crowd.server.store.generation += 1
    crowd.world.run_until(began + 5.0)
    crowd.server.up = True
    crowd.server.commit("a", 2)
    crowd.world.run_until(began + 5.0 + 60.0)
    assert all(crowd.reads("a", 2))
    assert crowd.server.most_snapshots <= 16
    assert peak(crowd.server.opened) <= ADMISSION * 1.1
    # Those that were refused did not ask again and again.
    assert len(crowd.server.attempts) < 10 * CLIENTS


@pytest.mark.parametrize("end", ["kill", "drain"])
def test_fifty_real_clients_come_back_to_a_server_that_was_restarted(
    end: str, tmp_path: Path, record_property: Callable[[str, object], None]
):
    with ServerProgram("serve", f"sqlite:{tmp_path}/store.db", heartbeat="1") as server:
        editor = Editor(server.url, "production")
        editor.put("a", 1)

        async def run() -> list[float]:
            clients: list[AsyncClient] = [AsyncClient(server.url, backoff=(1.0, 2.0)) for _ in range(50)]
            hellos: list[int] = []
            came: list[float] = []
            for client in clients:
                core = client._core
                connected = core.connected

                def noted(hello: object, connected: object = connected) -> None:
                    hellos.append(hello.mode)  # type: ignore[attr-defined]
                    came.append(time.monotonic())
                    connected(hello)  # type: ignore[operator]

                core.connected = noted  # type: ignore[method-assign]
            await asyncio.gather(*(client.start() for client in clients))
            assert all(client["a"] == 1 for client in clients)
            hellos.clear()
            came.clear()
            if end == "kill":
                server.kill()
            else:
                server.terminate()
                await asyncio.to_thread(server.wait)
            again = await asyncio.to_thread(server.again)
            try:
                up = time.monotonic()
                await asyncio.to_thread(Editor(again.url, "production").set, a=2)
                await asyncio.to_thread(wait_until, lambda: all(client["a"] == 2 for client in clients), 30.0)
                assert WATCH_MODE_SNAPSHOT not in hellos
                await asyncio.gather(*(client.close() for client in clients))
            finally:
                again.kill()
            return [at - up for at in came]

        came = asyncio.run(run())
        record_property("all_back_after", max(came))
        record_property("most_in_a_tenth", peak(came, 0.1))
