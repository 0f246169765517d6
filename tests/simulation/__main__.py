"""Run worlds by hand: one, to look at it, or many: ``python -m tests.simulation --help``."""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Final

from tests.simulation.batch import replay, run_range, run_seed
from tests.simulation.bugs import BUGS

_CHUNK: Final = 200


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 when no rule was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one")
    parser.add_argument("--trace", action="store_true", help="with --seed: tell what happens")
    parser.add_argument("--bug", choices=sorted(BUGS), default="", help="run with a known bug")
    parser.add_argument("--seeds", type=int, default=2000, help="without --seed: how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args(arguments)
    if options.seed is not None:
        return _one(options.seed, options.bug, trace=options.trace)
    return _many(options.first, options.seeds, options.bug, options.processes)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _one(seed: int, bug: str, *, trace: bool) -> int:
    found = run_seed(seed, bug=bug, trace=trace)
    for line in found.lines:
        _say(line)
    _say(f"seed {seed}: {found.digest} {found.violation or 'all rules held'}")
    return int(found.violation is not None)


def _many(first: int, count: int, bug: str, processes: int) -> int:
    end = first + count
    starts = range(first, end, _CHUNK)
    began = time.monotonic()
    failed = 0
    # Started afresh, so that the order of sets differs from process to process.
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        ends = [min(start + _CHUNK, end) for start in starts]
        for number, found in enumerate(pool.map(run_range, starts, ends, itertools.repeat(bug)), 1):
            for seed, violation in found:
                _say(f"seed {seed}: {violation}\n  {replay(seed, bug)}")
            failed += len(found)
            if number % 10 == 0 or number == len(starts):
                done = min(number * _CHUNK, count)
                seconds = time.monotonic() - began
                _say(f"{done} of {count} worlds in {seconds:.0f} s, {failed} broke a rule")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
