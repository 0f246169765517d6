"""What an `AsyncClient` has buffered is sent, or counted as lost, whenever its event loop ends and wherever it is closed."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from rheo.v1.event_service_pb2 import RecordEventsRequest, RecordEventsResponse
from rheostat import AsyncClient, Client
from rheostat.sdk.task_driver import TaskDriver
from tests.e2e.process import PATIENCE
from tests.sdk.fake import FakeServer, Refusal, Store


class Recorder:
    """A server of events, which may leave a request unanswered."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.asked = threading.Event()
        self.answers = threading.Event()
        self.answers.set()
        self.server = FakeServer(Store().answer, {"RecordEvents": self._record})
        self.url = self.server.url

    def _record(self, body: bytes) -> RecordEventsResponse:
        self.asked.set()
        if not self.answers.is_set():
            self.answers.wait(PATIENCE)
            raise Refusal(503, b"")
        request = RecordEventsRequest.FromString(body)
        self.names += [event.track.name for event in request.events]
        return RecordEventsResponse(accepted=len(request.events))


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    made = Recorder()
    with made.server:
        yield made
        made.answers.set()


def test_what_is_in_flight_when_the_loop_ends_is_sent_on_the_next_one(recorder: Recorder):
    client = AsyncClient(recorder.url, event_interval=0.01)
    recorder.answers.clear()

    async def first() -> None:
        await client.start()
        client.track("first")
        await asyncio.to_thread(recorder.asked.wait, PATIENCE)

    async def second() -> None:
        assert await client.flush(PATIENCE)
        await client.close()

    asyncio.run(first())
    recorder.answers.set()
    asyncio.run(second())
    assert (recorder.names, client.events_dropped) == (["first"], 0)


def test_what_was_told_without_a_loop_is_sent_by_close(recorder: Recorder):
    never_started = AsyncClient(recorder.url)
    never_started.track("early")
    asyncio.run(never_started.close())
    client = AsyncClient(recorder.url, event_interval=3600.0)

    async def run() -> None:
        await client.start()
        client.track("during")

    asyncio.run(run())
    client.track("after")
    asyncio.run(client.close())
    assert recorder.names == ["early", "during", "after"]
    assert client.events_dropped == never_started.events_dropped == 0


def test_what_close_cannot_send_is_counted(recorder: Recorder):
    client = AsyncClient("http://127.0.0.1:1", flush_timeout=0.2)
    client.track("nowhere")
    asyncio.run(client.close())
    assert client.events_dropped == 1
    recorder.answers.clear()

    async def run(hanging: AsyncClient) -> None:
        await hanging.start()
        hanging.track("hanging")
        await asyncio.to_thread(recorder.asked.wait, PATIENCE)
        await hanging.close()

    hanging = AsyncClient(recorder.url, event_interval=0.01, flush_timeout=0.2)
    asyncio.run(run(hanging))
    assert (hanging.events_dropped, bool(hanging._core.events)) == (1, False)
    recorder.asked.clear()
    blocking = Client(recorder.url, event_interval=0.01, flush_timeout=0.2).start()
    blocking.track("hanging")
    assert recorder.asked.wait(PATIENCE)
    blocking.close()
    assert (blocking.events_dropped, bool(blocking._core.events)) == (1, False)


def test_a_program_without_a_loop_sends_its_events_at_its_end(recorder: Recorder):
    program = "import sys; from rheostat import AsyncClient; AsyncClient(sys.argv[1]).track('alone')"
    subprocess.run([sys.executable, "-c", program, recorder.url], check=True, timeout=PATIENCE)
    assert recorder.names == ["alone"]


def test_loops_that_have_ended_leave_nothing_behind(recorder: Recorder):
    client = AsyncClient(recorder.url, event_interval=3600.0)

    async def run() -> None:
        await client.start()
        client.track("e")

    for _ in range(3):
        asyncio.run(run())
    gc.collect()
    assert not [each for each in gc.get_objects() if type(each) is TaskDriver and each._core is client._core]
    asyncio.run(client.close())
    assert recorder.names == ["e"] * 3


def test_a_flush_without_a_time_waits_until_all_is_sent(recorder: Recorder):
    with Client(recorder.url, event_interval=3600.0) as blocking:
        blocking.track("blocking")
        assert blocking.flush(None) is True

    async def run() -> None:
        async with AsyncClient(recorder.url, event_interval=3600.0) as client:
            client.track("async")
            assert await client.flush(None) is True

    asyncio.run(run())
    assert recorder.names == ["blocking", "async"]
