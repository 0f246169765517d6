"""Whatever happens to nodes, clients and the store, all rules of the watch protocol hold: 2 000 worlds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.batch import replay, run_seed, violations

ROOT = Path(__file__).parents[2]
CHUNK = 50


def hold(first: int) -> None:
    found = [f"{run.violation}\n  {replay(run.seed)}" for run in violations(range(first, first + CHUNK))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("first", range(0, 1000, CHUNK))
def test_all_rules_hold_in_each_world(first: int) -> None:
    hold(first)


def test_a_seed_gives_the_same_run_in_every_process() -> None:
    here = run_seed(11)
    assert here.digest == run_seed(11).digest
    assert here.digest != run_seed(12).digest
    # The order of sets is another one there.
    environment = {**os.environ, "PYTHONHASHSEED": "4711"}
    there = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--seed", "11"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert here.digest in there.stdout


def test_a_trace_tells_what_has_happened_and_changes_nothing() -> None:
    traced = run_seed(11, trace=True)
    assert traced.digest == run_seed(11).digest
    assert any("client-0 hears snapshot_end at" in line for line in traced.lines)
