"""What holds for all tests."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long a machine takes to make an example says nothing about the code; pytest-timeout bounds each test.
settings.register_profile("rheostat", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("rheostat")

ROOT = Path(__file__).parent

LONG = (
    "test_docs.py",
    "server/test_fuzz.py",
    "sdk/test_fork.py",
    "test_mounting.py",
    "sdk/test_fault.py",
    "e2e",
)
"""The files that take minutes. Those of one file run one after the other, and with one of them at the end all other
workers would wait for it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest."""
    ranks = {ROOT / name: rank for rank, name in enumerate(LONG)}
    assert all(path.exists() for path in ranks), "a file that LONG names has another name by now"

    def rank(item: pytest.Item) -> int:
        return min(
            (ranks[path] for path in (item.path, *item.path.parents) if path in ranks), default=len(LONG)
        )

    items.sort(key=rank)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Keep the thousands of tests out of each later collection of garbage, which would take seconds."""
    gc.collect()
    gc.freeze()
