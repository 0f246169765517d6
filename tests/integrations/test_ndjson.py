from __future__ import annotations

import datetime
import errno
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from openfeature import api
from openfeature.evaluation_context import EvaluationContext
from openfeature.flag_evaluation import FlagResolutionDetails
from openfeature.provider.in_memory_provider import InMemoryProvider

from rheostat import ABSENT, Client, InvalidArgumentError
from rheostat.integrations import ndjson
from rheostat.integrations.ndjson import NdjsonWriter
from rheostat.model.exposure import ExposureRecord
from rheostat.model.value import freeze
from rheostat.openfeature import ExposureHook, RheostatProvider
from rheostat.testing import StubClient
from tests.e2e.process import PATIENCE, wait_until

NOON = datetime.datetime(2026, 11, 22, 12, 0, 0, 5, datetime.UTC)


def exposure(setting: str = "checkout.new", value: object = True, **fields: Any) -> ExposureRecord:
    given: dict[str, Any] = {
        "reason": "SPLIT",
        "rule_id": "experiment",
        "variant": "blue",
        "revision": 7,
        "subjects": {"user": {"id": "u1"}},
        "time": NOON,
        **fields,
    }
    return ExposureRecord(setting=setting, value=value, **given)  # type: ignore[arg-type]


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.ndjson"))


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.part"))


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in files(folder) for line in file.read_text("utf-8").splitlines()]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_exposure_is_one_line_with_all_there_is_to_say(tmp_path: Path) -> None:
    with NdjsonWriter(tmp_path / "new" / "exposures.ndjson") as writer:
        writer(exposure(value=freeze({"a": [1, None]}), context={"region": "eu"}, setting_revision=3))
        writer(exposure("x", ABSENT, rule_id=None, variant=None, reason="ERROR", error_code="FLAG_NOT_FOUND"))
    first, second = lines(tmp_path / "new")
    assert first == {
        "time": "2026-11-22T12:00:00.000005Z",
        "setting": "checkout.new",
        "value": {"a": [1, None]},
        "reason": "SPLIT",
        "rule": "experiment",
        "variant": "blue",
        "revision": 7,
        "setting_revision": 3,
        "subjects": {"user": {"id": "u1"}},
        "context": {"region": "eu"},
        "error": None,
    }
    assert list(second) == list(first)
    assert (second["value"], second["rule"], second["error"]) == (None, None, "FLAG_NOT_FOUND")
    assert (writer.written, writer.dropped) == (2, 0)


def test_every_line_is_json_whatever_the_record_holds(tmp_path: Path) -> None:
    texts = ['ü\n"\\\u2028', "\ud800", "\x00"]
    with NdjsonWriter(tmp_path / "e.ndjson") as writer:
        for text in texts:
            writer(exposure(text, text, context={text: (text, math.nan, math.inf, Path("x"))}))
        writer(exposure(time=datetime.datetime(2026, 1, 1, 2)))  # noqa: DTZ001 - as a caller may give it
        writer(exposure(time=NOON.astimezone(datetime.timezone(datetime.timedelta(hours=2)))))
        writer("no record at all")  # type: ignore[arg-type]
        writer(exposure("last"))
    found = lines(tmp_path)
    assert [line["setting"] for line in found[:3]] == [line["value"] for line in found[:3]] == texts
    assert found[0]["context"] == {texts[0]: [texts[0], "nan", "inf", "x"]}
    assert [line["time"] for line in found[3:5]] == [
        "2026-01-01T02:00:00.000000Z",
        "2026-11-22T12:00:00.000005Z",
    ]
    assert found[-1]["setting"] == "last"
    assert (writer.written, writer.dropped) == (6, 1)


def test_a_file_is_seen_once_it_is_finished(tmp_path: Path) -> None:
    with NdjsonWriter(tmp_path / "e.ndjson", flush_interval=0) as writer:
        assert not list(tmp_path.iterdir())
        writer(exposure())
        wait_until(lambda: writer.written == 1)
        assert not files(tmp_path)
        (part,) = parts(tmp_path)
        assert writer.finish(PATIENCE)
        assert not parts(tmp_path)
        (file,) = files(tmp_path)
        assert part.name == f"{file.name}.part"
        # Nothing to finish, and so no further file.
        assert writer.finish(PATIENCE)
        writer(exposure())
    assert len(files(tmp_path)) == 2
    assert not parts(tmp_path)


def test_files_do_not_outgrow_their_size(tmp_path: Path) -> None:
    with NdjsonWriter(tmp_path / "e.ndjson", max_bytes=1000) as writer:
        for i in range(20):
            writer(exposure(str(i)))
        writer(exposure("large", "x" * 2000))
        writer(exposure("last"))
    assert sorted(int(line["setting"]) for line in lines(tmp_path) if line["setting"].isdigit()) == list(
        range(20)
    )
    assert len(lines(tmp_path)) == writer.written == 22
    sizes = [file.stat().st_size for file in files(tmp_path)]
    # One that holds a single line may be larger.
    assert [size > 1000 for size in sizes].count(True) == 1
    assert len(sizes) > 5


def test_files_do_not_outlive_their_age(tmp_path: Path) -> None:
    clock = Clock()
    with NdjsonWriter(tmp_path / "e.ndjson", max_age=60, flush_interval=0, clock=clock) as writer:
        writer(exposure("old"))
        wait_until(lambda: writer.written == 1)
        clock.now = 59
        writer(exposure("old"))
        wait_until(lambda: writer.written == 2)
        assert not files(tmp_path)
        clock.now = 60
        writer(exposure("old"))
        wait_until(lambda: len(files(tmp_path)) == 1)
        writer(exposure("new"))
    assert sorted(line["setting"] for line in lines(tmp_path)) == ["new", "old", "old", "old"]
    assert len(files(tmp_path)) == 2


def test_a_file_that_nobody_writes_to_is_finished_at_its_age(tmp_path: Path) -> None:
    with NdjsonWriter(tmp_path / "e.ndjson", max_age=0.05, flush_interval=0) as writer:
        writer(exposure())
        wait_until(lambda: len(files(tmp_path)) == 1)
        assert not parts(tmp_path)


def test_nobody_waits_for_a_disk_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, answer = threading.Event(), threading.Event()
    write = os.write

    def slow(descriptor: int, data: Any) -> int:
        stuck.set()
        assert answer.wait(PATIENCE)
        return write(descriptor, data)

    monkeypatch.setattr(ndjson.os, "write", slow)
    writer = NdjsonWriter(tmp_path / "e.ndjson", capacity=10, flush_interval=0)
    writer(exposure("first"))
    assert stuck.wait(PATIENCE)
    # The thread holds nothing that those who come now would wait for.
    for i in range(25):
        writer(exposure(str(i)))
    assert writer.dropped == 15
    answer.set()
    writer.close(PATIENCE)
    # The oldest went.
    assert [line["setting"] for line in lines(tmp_path)] == ["first", *map(str, range(15, 25))]
    assert (writer.written, writer.dropped) == (11, 15)


def test_what_a_full_disk_refuses_is_counted_and_leaves_no_half_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    full = threading.Event()
    write = os.write

    def failing(descriptor: int, data: Any) -> int:
        if not full.is_set():
            return write(descriptor, data)
        if len(data) > 20:
            return write(descriptor, data[:20])
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(ndjson.os, "write", failing)
    with NdjsonWriter(tmp_path / "e.ndjson", flush_interval=0) as writer:
        writer(exposure("before"))
        wait_until(lambda: writer.written == 1)
        full.set()
        for lost in (1, 2):
            writer(exposure("lost"))
            wait_until(lambda lost=lost: writer.dropped == lost)  # type: ignore[misc]
        full.clear()
        writer(exposure("after"))
    assert [line["setting"] for line in lines(tmp_path)] == ["before", "after"]
    assert len(caplog.records) == 1
    assert "no space" in caplog.text


def test_a_folder_that_cannot_be_made_is_said_and_not_raised(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "taken").write_text("")
    with NdjsonWriter(tmp_path / "taken" / "e.ndjson") as writer:
        writer(exposure())
    assert (writer.written, writer.dropped) == (0, 1)
    assert "cannot be written" in caplog.text


def test_a_folder_that_comes_later_is_written_to_and_what_is_left_in_it_finished(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    mount.write_text("")
    with NdjsonWriter(mount / "exposures" / "e.ndjson", flush_interval=0) as writer:
        writer(exposure("lost"))
        wait_until(lambda: writer.dropped == 1)
        mount.unlink()
        (mount / "exposures").mkdir(parents=True)
        (mount / "exposures" / "e-20261122T120000Z-0.ndjson.part").write_bytes(b'{"setting":"left"}\n{"set')
        writer(exposure("after"))
    assert {line["setting"] for line in lines(mount / "exposures")} == {"left", "after"}
    assert (writer.written, writer.dropped) == (1, 1)


def test_a_folder_that_goes_is_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "exposures"
    with NdjsonWriter(folder / "e.ndjson", flush_interval=0) as writer:
        writer(exposure("gone"))
        assert writer.finish(PATIENCE)
        shutil.rmtree(folder)
        writer(exposure("after"))
    assert [line["setting"] for line in lines(folder)] == ["after"]
    assert (writer.written, writer.dropped) == (2, 0)


def test_what_comes_after_the_end_is_counted(tmp_path: Path) -> None:
    writer = NdjsonWriter(tmp_path / "e.ndjson")
    writer(exposure())
    writer.close()
    writer.close()
    writer(exposure())
    assert (writer.written, writer.dropped) == (1, 1)
    assert writer.finish(PATIENCE)
    assert len(lines(tmp_path)) == 1


def test_writers_from_many_threads_lose_and_repeat_nothing(tmp_path: Path) -> None:
    with NdjsonWriter(tmp_path / "e.ndjson", flush_interval=0, max_bytes=20_000) as writer:

        def work(name: str) -> None:
            for i in range(200):
                writer(exposure(f"{name}-{i}"))

        threads = [threading.Thread(target=work, args=(str(i),)) for i in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
    found = [line["setting"] for line in lines(tmp_path)]
    assert len(found) == len(set(found)) == writer.written == 1000


PROGRAM = """
import datetime, os, sys
from rheostat.integrations.ndjson import NdjsonWriter
from rheostat.model.exposure import ExposureRecord

def exposure(name):
    now = datetime.datetime.now(datetime.UTC)
    return ExposureRecord(name, True, "STATIC", None, None, 1, {}, now)

writer = NdjsonWriter(sys.argv[1], flush_interval=0)
"""


def run(code: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM + code, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_a_program_that_ends_finishes_its_file(tmp_path: Path) -> None:
    done = run("writer(exposure('x'))\n", tmp_path / "e.ndjson")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line["setting"] for line in lines(tmp_path)] == ["x"]
    assert not parts(tmp_path)


def test_what_a_killed_program_has_left_is_finished_up_to_its_last_whole_line(tmp_path: Path) -> None:
    code = """
writer(exposure('whole'))
while not writer.written:
    os.sched_yield()
os.write(writer._file._descriptor, b'{"setting":"ha')
os.kill(os.getpid(), 9)
"""
    done = run(code, tmp_path / "e.ndjson")
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert parts(tmp_path)
    assert not files(tmp_path)
    (tmp_path / "e-empty.ndjson.part").write_text('{"half')
    others = tmp_path / "other-1.ndjson.part"
    others.write_text("{}\n")
    # One that is being written is left alone.
    with NdjsonWriter(tmp_path / "e.ndjson", flush_interval=0) as alive:
        alive(exposure("alive"))
        wait_until(lambda: alive.written == 1)
        assert [line["setting"] for line in lines(tmp_path)] == ["whole"]
        with NdjsonWriter(tmp_path / "e.ndjson") as writer:
            writer(exposure("new"))
        assert sorted(line["setting"] for line in lines(tmp_path)) == ["new", "whole"]
        alive(exposure("alive"))
    assert sorted(line["setting"] for line in lines(tmp_path)) == ["alive", "alive", "new", "whole"]
    assert parts(tmp_path) == [others]


def test_a_forked_child_writes_a_file_of_its_own(tmp_path: Path) -> None:
    code = """
writer(exposure('before'))
while not writer.written:
    os.sched_yield()
child = os.fork()
writer(exposure('child' if child == 0 else 'parent'))
writer.close()
assert writer.written == (1 if child == 0 else 2), writer.written
if child == 0:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    done = run(code, tmp_path / "e.ndjson")
    assert (done.returncode, done.stderr) == (0, "")
    found = sorted(
        [json.loads(line)["setting"] for line in file.read_text().splitlines()] for file in files(tmp_path)
    )
    assert found == [["before", "parent"], ["child"]]
    assert not parts(tmp_path)


def test_options_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    for options in ({"max_bytes": 0}, {"max_age": -1.0}, {"capacity": 0}, {"flush_interval": -1.0}):
        with pytest.raises(InvalidArgumentError, match=next(iter(options))):
            NdjsonWriter(tmp_path / "e.ndjson", **options)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="path"):
        NdjsonWriter("/")


def test_flags_of_openfeature_are_written_with_chosen_attributes(tmp_path: Path) -> None:
    with StubClient({"title": "hi"}) as client, NdjsonWriter(tmp_path / "e.ndjson") as writer:
        client.set_rules(
            "title", [{"where": 'user.id == "u1"', "value": "hello", "id": "greet"}], default="hi"
        )
        hook = ExposureHook(writer, attributes=["region", "user.plan", "absent"])
        api.set_provider_and_wait(RheostatProvider(client))
        try:
            flags = api.get_client()
            flags.add_hooks([hook])
            attributes: Any = {"region": "eu", "user": {"plan": "pro", "age": 3}, "company": {"id": 7}}
            flags.get_string_value("title", "", EvaluationContext("u1", attributes))
            flags.get_integer_value("title", 4)
            # A default that no setting could have.
            flags.get_object_value("missing", {"x": object()})  # type: ignore[dict-item]
        finally:
            api.shutdown()
    first, second, third = lines(tmp_path)
    assert first["subjects"] == {"user": {"id": "u1"}, "company": {"id": "7"}}
    assert first["context"] == {"region": "eu", "user.plan": "pro"}
    assert (first["setting"], first["value"], first["rule"]) == ("title", "hello", "greet")
    assert (first["reason"], first["error"], first["revision"]) == ("TARGETING_MATCH", None, client.revision)
    assert (second["value"], second["reason"], second["error"]) == (4, "ERROR", "TYPE_MISMATCH")
    assert (third["value"], third["error"], third["subjects"]) == (None, "FLAG_NOT_FOUND", {})


def test_checks_are_written_by_the_clients_own_hook(tmp_path: Path) -> None:
    writer = NdjsonWriter(tmp_path / "e.ndjson")
    with writer, Client(offline=True, bootstrap={"beta": True}, on_exposure=writer) as client:
        assert client.check("beta", user={"id": "u1"}, company={"id": "acme"})
    (line,) = lines(tmp_path)
    assert (line["setting"], line["value"], line["reason"]) == ("beta", True, "STATIC")
    assert line["subjects"] == {"user": {"id": "u1"}, "company": {"id": "acme"}}


def test_a_hook_tells_of_other_providers_flags(tmp_path: Path) -> None:
    class Other(InMemoryProvider):
        def resolve_string_details(self, *given: Any, **named: Any) -> FlagResolutionDetails[str]:
            metadata = {"revision": "8c1f", "setting_revision": 1.5, "rule_id": "r"}
            return FlagResolutionDetails("hi", variant="a", flag_metadata=metadata)

    with NdjsonWriter(tmp_path / "e.ndjson") as writer:
        api.set_provider_and_wait(Other({}))
        try:
            flags = api.get_client()
            flags.add_hooks([ExposureHook(writer)])
            assert flags.get_string_value("title", "") == "hi"
        finally:
            api.shutdown()
    (line,) = lines(tmp_path)
    assert (line["setting"], line["value"], line["variant"], line["rule"]) == ("title", "hi", "a", "r")
    assert (line["revision"], line["setting_revision"]) == (0, 0)


def test_a_hook_may_leave_errors_out_and_survives_its_function(caplog: pytest.LogCaptureFixture) -> None:
    told: list[ExposureRecord] = []

    def take(record: ExposureRecord) -> None:
        told.append(record)
        raise ValueError("mine")

    with StubClient({"x": 1}) as client:
        api.set_provider_and_wait(RheostatProvider(client, hooks=[ExposureHook(take, errors=False)]))
        try:
            flags = api.get_client()
            assert flags.get_integer_value("missing", 5) == 5
            assert flags.get_integer_value("x", 5) == 1
        finally:
            api.shutdown()
    assert [record.setting for record in told] == ["x"]
    assert "'x' could not be told" in caplog.text
