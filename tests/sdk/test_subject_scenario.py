"""The scenarios of tests/spec/subjects.json through both clients: their drivers, and a node without a network between."""

from __future__ import annotations

import asyncio
import datetime
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.protobuf import json_format

from rheo.v1 import event_service_pb2 as event
from rheostat import AsyncClient, Client, Evaluation, Reason
from rheostat.document import parse_document
from rheostat.document.apply import plan_apply
from rheostat.sdk.call import Answer, method_named
from rheostat.sdk.effect import Fetch
from rheostat.server.call import Call
from rheostat.server.handler import Handlers
from rheostat.service import Service, Writer
from rheostat.service.access import OPEN
from rheostat.store import open_store
from tests.evaluation.test_spec import SPEC, reported

CASES = json.loads((SPEC / "subjects.json").read_text())["cases"]


class Node:
    """A node, its clock, and what stands in the place of a network to it."""

    url = "http://node.invalid"
    received_bytes = 0

    def __init__(self, case: dict[str, Any]) -> None:
        self.set(case["clock"])
        self.service = Service(open_store("memory:", clock=self.clock), clock=self.clock, background=False)
        document = {"project": "default", "environments": ["production"], "settings": case["settings"]}
        self.service.start()
        self.service.commit(
            Writer(OPEN), "default", "", plan_apply(parse_document(json.dumps(document)), None)
        )
        self.handlers = Handlers(self.service)
        self.fetched: list[str] = []

    def set(self, text: str) -> None:
        self.time = datetime.datetime.fromisoformat(text)

    def clock(self) -> datetime.datetime:
        return self.time

    def seconds(self) -> float:
        return self.time.timestamp()

    def answer(self, fetch: Fetch) -> Any:
        method = method_named(fetch.method)
        self.fetched.append(method.name)
        call = Call(OPEN, "id", f"rheo.v1.{method.service}/{method.name}")
        return Answer(self.handlers.handle(method.function, fetch.request, call))

    # What a source gives.

    def connection(self, core: Any) -> Wire:
        return Wire(self)

    def async_connection(self, core: Any) -> AsyncWire:
        return AsyncWire(self)


class Wire:
    """For threads."""

    url = Node.url

    def __init__(self, node: Node) -> None:
        self.node = node

    def fetch(self, fetch: Fetch) -> Any:
        return self.node.answer(fetch)

    def close(self) -> None:
        """Nothing is open."""


class AsyncWire(Wire):
    """For asyncio."""

    async def fetch(self, fetch: Fetch) -> Any:
        return self.node.answer(fetch)

    async def close(self) -> None:
        """Nothing is open."""


class Played:
    """A client of a node, whose checks wait."""

    def __init__(self, kind: str, node: Node) -> None:
        self.node = node
        self.checked = 0
        self._loop = None if kind == "sync" else asyncio.new_event_loop()
        options: Any = {"source": node, "mode": "poll", "event_interval": 3600.0}
        self.client: Any = (Client if self._loop is None else AsyncClient)(node.url, **options)
        self.client._core.subjects._wall_clock = node.seconds
        self.run(lambda: self.client.start(timeout=60))

    def run(self, function: Callable[[], Any]) -> Any:
        if self._loop is None:
            return function()

        async def call() -> Any:
            return await function()

        return self._loop.run_until_complete(call())

    def close(self) -> None:
        self.run(self.client.close)
        if self._loop is not None:
            self._loop.close()

    def play(self, step: dict[str, Any]) -> None:
        match step:
            case {"clock": instant}:
                self.node.set(instant)
            case {"upsert": subjects}:
                self._write("UpsertSubjects", {"subjects": subjects}, event.UpsertSubjectsRequest())
            case {"record": events}:
                self._write("RecordEvents", {"events": events}, event.RecordEventsRequest())
            case {"delete": lookups}:
                self._write("DeleteSubjects", {"lookups": lookups}, event.DeleteSubjectsRequest())
            case {"check": check}:
                self.check(check)

    def _write(self, method: str, raw: Any, request: Any) -> None:
        self.node.answer(Fetch(method, json_format.ParseDict(raw, request), 10.0))
        # What a stream would tell.
        self.client._core.subjects.changed((), everything=True)

    def check(self, check: dict[str, Any]) -> None:
        name = check["setting"]
        subjects = {each["kind"]: each["keys"] for each in check["subjects"]}
        if len(subjects) < len(check["subjects"]):
            # A call names one subject of a kind.
            return
        for _ in range(2):
            # The second one has everything at hand.
            found: Evaluation = self.run(lambda: self._details(name, context=check["context"], **subjects))
        note = bool(found.note)
        if found.error_code is not None and found.error_code.value == "TYPE_MISMATCH":
            found = self.client.evaluate(name, context={**subjects, **check["context"]})
        self.checked += 1
        result = {**reported(found), "note": note}
        if found.reason is Reason.ERROR:
            assert result.pop("value", None) is None
        assert result == check["expected"], check

    def _details(self, name: str, **arguments: Any) -> Any:
        return self.client.check_details(name, default=None, **arguments)


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> Iterator[str]:
    return request.param


def test_the_scenarios_of_subjects(kind: str):
    checked = 0
    for case in CASES:
        node = Node(case)
        played = Played(kind, node)
        try:
            for step in case["steps"]:
                played.play(step)
        except BaseException as error:
            error.add_note(f"in the case {case['name']!r}")
            raise
        finally:
            played.close()
            node.service.close()
        checked += played.checked
    assert len(CASES) >= 40
    assert checked > len(CASES)
