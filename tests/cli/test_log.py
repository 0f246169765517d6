"""The log of programs in the foreground, for programs that collect it."""

from __future__ import annotations

import io
import json
import logging

from rheostat.cli.log import formatter_of


def logged(format_: str, write) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter_of(format_))
    logger = logging.Logger("rheostat.server")  # noqa: LOG001 - one of the test's own
    logger.addHandler(handler)
    write(logger)
    return stream.getvalue()


def test_a_record_is_one_line_of_json_whatever_is_in_it():
    written = logged("json", lambda log: log.warning("two\nlines of %s", "é"))
    assert written.count("\n") == 1
    fields = json.loads(written)
    assert fields.pop("time").endswith("Z")
    assert fields == {"level": "warning", "logger": "rheostat.server", "message": "two\nlines of é"}


def test_a_record_of_a_call_has_its_method_and_request():
    written = logged("json", lambda log: log.error("x", extra={"method": "a/B", "request_id": "12ab"}))
    fields = json.loads(written)
    assert (fields["method"], fields["request_id"]) == ("a/B", "12ab")


def test_an_exception_is_a_field_of_its_record():
    def fail(log: logging.Logger) -> None:
        try:
            raise ValueError("odd")
        except ValueError:
            log.exception("failed")

    written = logged("json", fail)
    assert written.count("\n") == 1
    assert "ValueError: odd" in json.loads(written)["exception"]


def test_a_server_logs_json_when_it_is_told_to(empty):
    process = empty.process("serve", "--store", "memory:", "--port", "0", "--log-format", "json")
    try:
        process.wait_for("ready at ")
    finally:
        process.end()
    lines = [json.loads(line) for line in process.stderr.splitlines()]
    assert any("running OPEN" in line["message"] for line in lines)
