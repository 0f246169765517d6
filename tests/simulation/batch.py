"""Many worlds, one after another."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterable, Iterator

from tests.simulation.bugs import BUGS
from tests.simulation.world import Run, run

__all__ = ["replay", "run_range", "run_seed", "violations"]


def run_seed(seed: int, *, bug: str = "", trace: bool = False) -> Run:
    """Run a world, with one of `BUGS` or with none."""
    with BUGS[bug]() if bug else contextlib.nullcontext():
        return run(seed, trace=trace)


def replay(seed: int, bug: str = "") -> str:
    """Return the command that shows what happens in a world."""
    return f"python -m tests.simulation --seed {seed}{f' --bug {bug}' if bug else ''} --trace"


def violations(seeds: Iterable[int], *, bug: str = "") -> Iterator[Run]:
    """Yield the runs that broke a rule."""
    # All that was made before stays, and each world is garbage as a whole: a third of the time goes to looking.
    collects = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        for number, seed in enumerate(seeds):
            found = run_seed(seed, bug=bug)
            if found.violation is not None:
                yield found
            if number % 50 == 49:
                gc.collect()
    finally:
        gc.unfreeze()
        if collects:
            gc.enable()


def run_range(first: int, end: int, bug: str) -> list[tuple[int, str]]:
    """Return the seeds that broke a rule, with what was found; for another process."""
    return [(found.seed, str(found.violation)) for found in violations(range(first, end), bug=bug)]
