"""The second half of the worlds of ``test_seeds.py``, which another worker of the test run may take."""

from __future__ import annotations

import pytest

from tests.simulation.test_seeds import CHUNK, hold


@pytest.mark.parametrize("first", range(1000, 2000, CHUNK))
def test_all_rules_hold_in_each_further_world(first: int) -> None:
    hold(first)
