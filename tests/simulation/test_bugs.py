"""The simulation is worth something: it catches bugs that systems like this one have had."""

from __future__ import annotations

import pytest

from tests.simulation.batch import replay, run_seed, violations
from tests.simulation.bugs import BUGS

SEEDS = 500


def test_ten_bugs_are_kept() -> None:
    assert len(BUGS) == 10


@pytest.mark.parametrize("bug", BUGS)
def test_a_known_bug_is_caught(bug: str) -> None:
    runs = violations(range(SEEDS), bug=bug)
    # What the bug makes production code raise would be found without this.
    caught = next((run for run in runs if run.violation and run.violation.__cause__ is None), None)
    assert caught is not None, f"{bug} broke no rule in {SEEDS} worlds"
    again = run_seed(caught.seed, bug=bug)
    assert (again.digest, str(again.violation)) == (caught.digest, str(caught.violation)), replay(
        caught.seed, bug
    )
    # It is the bug, and not the world.
    assert run_seed(caught.seed).violation is None, replay(caught.seed)
