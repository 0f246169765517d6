"""The scenarios of tests/spec/subjects.json, through the handlers of a node, as an RPC goes."""

from __future__ import annotations

import datetime
import importlib.util
import json
from typing import Any

import pytest
from google.protobuf import json_format

from rheo.v1 import config_service_pb2 as config
from rheo.v1 import evaluation_pb2
from rheo.v1 import event_service_pb2 as event
from rheostat.document import parse_document
from rheostat.document.apply import plan_apply
from rheostat.server.call import Call
from rheostat.server.handler import Handlers
from rheostat.service import Service, Writer
from rheostat.service.access import OPEN
from rheostat.store import open_store
from rheostat.wire.evaluation import evaluation_from_proto
from tests.evaluation.test_spec import SPEC, reported

CASES = json.loads((SPEC / "subjects.json").read_text())["cases"]


class Wall:
    """A clock that a scenario sets."""

    def __init__(self, text: str) -> None:
        self.set(text)

    def set(self, text: str) -> None:
        self.time = datetime.datetime.fromisoformat(text)

    def __call__(self) -> datetime.datetime:
        return self.time


class Scenario:
    """A node that a case is played on."""

    def __init__(self, service: Service, clock: Wall) -> None:
        self.service = service
        self.clock = clock
        self.handlers = Handlers(service)

    def call(self, method: str, request: Any) -> Any:
        name = method.partition("/")[2]
        python = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)[1:]
        return self.handlers.handle(python, request, Call(OPEN, "id", f"rheo.v1.{method}"))

    def play(self, step: dict[str, Any]) -> None:
        match step:
            case {"clock": instant}:
                self.clock.set(instant)
            case {"upsert": subjects, "rejected": rejected}:
                request = json_format.ParseDict({"subjects": subjects}, event.UpsertSubjectsRequest())
                answer = self.call("EventService/UpsertSubjects", request)
                assert refused(answer) == rejected
                assert len(answer.subjects) == len(subjects) - len(rejected)
            case {"record": events, "rejected": rejected}:
                request = json_format.ParseDict({"events": events}, event.RecordEventsRequest())
                answer = self.call("EventService/RecordEvents", request)
                assert refused(answer) == rejected
                assert answer.accepted == len(events) - len(rejected)
            case {"delete": lookups, "outcomes": outcomes}:
                request = json_format.ParseDict({"lookups": lookups}, event.DeleteSubjectsRequest())
                answer = self.call("EventService/DeleteSubjects", request)
                names = [event.SubjectOutcome.Name(result.outcome) for result in answer.results]
                assert names == [f"SUBJECT_OUTCOME_{outcome}" for outcome in outcomes]
            case {"check": check}:
                self.check(check)
            case _:
                raise AssertionError(step)

    def check(self, check: dict[str, Any]) -> None:
        raw = {"subjects": check["subjects"], "attributes": check["context"]}
        one = json_format.ParseDict({**raw, "name": check["setting"]}, config.EvaluateRequest())
        evaluation = self.call("ConfigService/Evaluate", one).evaluation
        assert reported_of(evaluation) == check["expected"], check
        every = json_format.ParseDict(raw, config.EvaluateAllRequest())
        found = self.call("ConfigService/EvaluateAll", every).evaluations
        assert evaluation in found


def refused(answer: Any) -> list[dict[str, Any]]:
    assert all(entry.message for entry in answer.rejected)
    return [{"index": entry.index, "reason": entry.reason} for entry in answer.rejected]


def reported_of(message: evaluation_pb2.Evaluation) -> dict[str, Any]:
    evaluation = evaluation_from_proto(message)
    return {**reported(evaluation), "note": bool(evaluation.note)}


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_a_scenario_of_subjects(case: dict[str, Any]) -> None:
    clock = Wall(case["clock"])
    document = {"project": "default", "environments": ["production"], "settings": case["settings"]}
    store = open_store("memory:", clock=clock)
    with Service(store, clock=clock, background=False) as service:
        service.commit(Writer(OPEN), "default", "", plan_apply(parse_document(json.dumps(document)), None))
        scenario = Scenario(service, clock)
        for step in case["steps"]:
            scenario.play(step)


def test_the_file_is_what_its_script_makes() -> None:
    source = importlib.util.spec_from_file_location("build_subjects", SPEC / "build_subjects.py")
    assert source is not None
    assert source.loader is not None
    script = importlib.util.module_from_spec(source)
    source.loader.exec_module(script)
    assert script.document() == (SPEC / "subjects.json").read_text()
    assert len(CASES) >= 40
