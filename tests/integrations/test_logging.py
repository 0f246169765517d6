from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from rheostat.integrations.logging import follow_levels
from rheostat.testing import StubClient


@pytest.fixture
def stub() -> Iterator[StubClient]:
    with StubClient() as stub:
        yield stub


@pytest.fixture
def name() -> str:
    return f"test.{uuid.uuid4().hex}"


def test_a_logger_has_the_level_that_the_setting_says_from_the_change_on(stub: StubClient, name: str) -> None:
    logger = logging.getLogger(name)
    logger.setLevel(logging.ERROR)
    stub["log.levels"] = {name: "debug"}
    stop = follow_levels(stub)
    assert logger.level == logging.DEBUG
    stub["log.levels"] = {name: "WARNING"}
    assert logger.level == logging.WARNING
    stub["log.levels"] = {}
    assert logger.level == logging.ERROR
    stub["log.levels"] = {name: "INFO"}
    stop()
    stop()
    assert logger.level == logging.ERROR
    stub["log.levels"] = {name: "DEBUG"}
    assert logger.level == logging.ERROR


def test_following_twice_adds_no_handler(stub: StubClient, name: str) -> None:
    logger = logging.getLogger(name)
    before = [*logging.getLogger().handlers, *logging.getLogger("rheostat").handlers]
    stub["log.levels"] = {name: "INFO"}
    stops = [follow_levels(stub), follow_levels(stub)]
    assert logger.level == logging.INFO
    assert not logger.handlers
    assert [*logging.getLogger().handlers, *logging.getLogger("rheostat").handlers] == before
    for stop in reversed(stops):
        stop()
    assert logger.level == logging.NOTSET


@pytest.mark.parametrize("value", ["DEBUG", 3, {"a.logger.of.nobody": "LOUD"}, {"a.logger.of.nobody": 10}])
def test_what_is_no_level_is_logged_and_left_alone(
    stub: StubClient, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    stub["log.levels"] = value
    follow_levels(stub)
    assert logging.getLogger("a.logger.of.nobody").level == logging.NOTSET
    assert "log.levels" in caplog.text


def test_a_setting_that_is_not_there_sets_nothing(stub: StubClient, name: str) -> None:
    logger = logging.getLogger(name)
    follow_levels(stub)
    assert logger.level == logging.NOTSET
    stub["log.levels"] = {name: "INFO"}
    assert logger.level == logging.INFO
    stub.delete("log.levels")
    assert logger.level == logging.NOTSET
