"""The two clients have one surface, and their drivers stay thin."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from rheostat import AsyncClient, Client
from rheostat.sdk.aio import AsyncChanges, AsyncStream
from rheostat.sdk.sync import Changes, Stream

AWAITED = {
    "start",
    "wait_ready",
    "close",
    "reload",
    "ping",
    "call",
    "flush",
    "check",
    "check_details",
    "check_all",
}
"""What client.md allows to be awaited; besides, entering and leaving `with`, and iterating."""

_TWINS = {
    "__enter__": "__aenter__",
    "__exit__": "__aexit__",
    "__next__": "__anext__",
}


def _public(class_: type) -> dict[str, Any]:
    twins = {asynchronous: name for name, asynchronous in _TWINS.items()}
    return {
        twins.get(name, name): member
        for name, member in inspect.getmembers_static(class_)
        if (not name.startswith("_") or name in _TWINS or name in twins) and name != "after_fork"
    }


def _plain(annotation: object) -> str:
    """Return an annotation as it reads for threads."""
    return re.sub(r"\bAsync", "", str(annotation))


def _signature(member: Any) -> tuple[list[tuple[str, Any, Any, str]], str]:
    found = inspect.signature(inspect.unwrap(member))
    parameters = [(p.name, p.kind, p.default, _plain(p.annotation)) for p in found.parameters.values()]
    return parameters, _plain(found.return_annotation)


@pytest.mark.parametrize(
    ("blocking", "awaited"), [(Client, AsyncClient), (Changes, AsyncChanges), (Stream, AsyncStream)]
)
def test_both_clients_have_the_same_methods_parameters_and_defaults(blocking: type, awaited: type):
    ours, theirs = _public(blocking), _public(awaited)
    assert ours.keys() == theirs.keys()
    assert ours
    for name, member in ours.items():
        other = theirs[name]
        if not inspect.isfunction(member):
            assert type(member) is type(other), name
            continue
        assert _signature(member) == _signature(other), name


def test_only_what_needs_the_server_is_awaited():
    coroutines = {
        name
        for name, member in inspect.getmembers(AsyncClient, inspect.iscoroutinefunction)
        if name[0] != "_"
    }
    assert coroutines == AWAITED


def test_both_clients_take_the_same_options():
    assert inspect.signature(Client) == inspect.signature(AsyncClient)


@pytest.mark.parametrize("module", ["sync", "aio", "thread_driver", "task_driver"])
def test_a_driver_has_no_more_than_300_lines(module: str):
    path = importlib.import_module(f"rheostat.sdk.{module}").__file__
    assert path is not None
    assert len(Path(path).read_text().splitlines()) <= 300
