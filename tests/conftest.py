"""What holds for all tests."""

from __future__ import annotations

import gc

import pytest
from hypothesis import HealthCheck, settings

# How long a machine takes to make an example says nothing about the code; pytest-timeout bounds each test.
settings.register_profile("rheostat", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("rheostat")


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Keep the thousands of tests out of each later collection of garbage, which would take seconds."""
    gc.collect()
    gc.freeze()
