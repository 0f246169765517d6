"""What holds for all tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# How long a machine takes to make an example says nothing about the code; pytest-timeout bounds each test.
settings.register_profile("rheostat", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("rheostat")
