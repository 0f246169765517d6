"""All that the design's performance page says of delivery: each row beside its target, and its floor of the same run.

Run: python benchmarks/delivery.py [--watchers 1,100,1000,10000] [--changes N] [--servers asgi,wsgi-gevent]
[--only-crowd] [--scale SHARE]. Writes build/bench/delivery.json, and exits with 1 when a watcher missed a revision, got one
out of order, or was sent a snapshot for a delta. A target that is missed is told, and is no failure: it may be the machine.

First, from the call of a commit to its delta at 1, 100, 1 000 and 10 000 watchers, beside a raw asyncio server.

The processes share the machine: the server, a load client that holds its streams, and this one, which commits. A
change at the server and the same bytes from the floor take turns, so that both meet the same noise. The floor is
uvloop, and writes one frame that is encoded already to as many sockets; it neither plans nor stores anything.

With --stalled N, so many more clients stop reading in the middle of a snapshot: what they cost the server, when it
ends them, and what the others notice. With --soak SECONDS and --rate CHANGES, the watchers stay open for so long, with
so many changes a second; they must see no revision twice or out of order, and all have the last one in the end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.load import PATIENCE, chunk, envelope, run_floor, watch_request
from benchmarks.process import (
    ROOT,
    answer,
    ask,
    child,
    facts,
    loads,
    percentile,
    processor_seconds,
    resident_kib,
    served,
)
from benchmarks.row import Row, rows_of_crowd, scenarios
from benchmarks.series import PAUSE, Series, change, prepare
from benchmarks.soak import soak, stall
from rheo.v1.admin_service_connect import AdminServiceClientSync

OUTPUT = ROOT / "build" / "bench" / "delivery.json"
WARM_UP = 5
WIDTH = 160


class Measurement:
    """One server and the floor, with so many watchers each."""

    def __init__(self, loads: Mapping[str, Connection], watchers: int) -> None:
        self.loads = loads
        self.watchers = watchers
        self.frame_bytes = 0
        self.opening_seconds = 0.0

    def run(self, kind: str, changes: int) -> tuple[Series, Series]:
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            url, pid = stack.enter_context(served(kind, f"sqlite:{folder}/store.db"))
            floor, floor_pid = stack.enter_context(child(run_floor))
            stream_port, control_port = answer(floor)
            client = stack.enter_context(AdminServiceClientSync(url))
            prepare(client)
            control = stack.enter_context(connect(control_port))
            series, floor_series = Series(), Series()
            started = time.monotonic()
            series.kib_per_stream = self._open("server", int(url.rpartition(":")[2]), pid)
            self.opening_seconds = time.monotonic() - started
            floor_series.kib_per_stream = self._open("floor", stream_port, floor_pid)

            def at_server(number: int) -> int:
                return client.commit(change(number)).revision

            def at_floor(_: int) -> int:
                frame = chunk(envelope(self._frame))
                control.sendall(len(frame).to_bytes(4, "big") + frame)
                assert control.recv(2) == b"ok"
                return self._revision

            revisions: list[int] = []
            for number in range(WARM_UP + changes):
                if number == WARM_UP:
                    used, floor_used = processor_seconds(pid), processor_seconds(floor_pid)
                kept = number >= WARM_UP
                self._revision = self._change("server", at_server, number, series if kept else None)
                revisions.append(self._revision)
                self._change("floor", at_floor, number, floor_series if kept else None)
            frames = changes * self.watchers
            series.processor_us_per_frame = (processor_seconds(pid) - used) / frames * 1e6
            floor_series.processor_us_per_frame = (processor_seconds(floor_pid) - floor_used) / frames * 1e6
            self.frame_bytes = len(chunk(envelope(self._frame)))
            series.wrong += ask(self.loads["server"], "end", "server", revisions)
            floor_series.wrong += ask(self.loads["floor"], "end", "floor", revisions)
        return series, floor_series

    def _open(self, name: str, port: int, pid: int) -> float:
        """Open the streams; returns the KiB that the server has grown by, for each."""
        before = resident_kib(pid)
        error = ask(self.loads[name], "open", name, port, watch_request(port), self.watchers)
        if error:
            raise RuntimeError(error)
        return (resident_kib(pid) - before) / self.watchers

    def _change(self, name: str, make: Callable[[int], int], number: int, series: Series | None) -> int:
        time.sleep(PAUSE)
        load = self.loads[name]
        ask(load, "expect", name)
        started = time.monotonic_ns()
        revision = make(number)
        acknowledged = time.monotonic_ns()
        arrivals, self._frame = answer(load)
        if len(arrivals) != self.watchers:
            raise RuntimeError(f"{name}: {len(arrivals)} of {self.watchers} watchers saw revision {revision}")
        if series is not None:
            series.add(started, acknowledged, arrivals)
        return revision


@contextlib.contextmanager
def connect(port: int) -> Iterator[Any]:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield connection


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--watchers", default="1,100,1000,10000", help="counts, separated by commas")
    parser.add_argument("--changes", type=int, default=100, help="measured changes for each count")
    parser.add_argument("--servers", default="asgi", help="asgi, wsgi-gevent, or both separated by a comma")
    parser.add_argument("--only-crowd", action="store_true", help="leave out what is no matter of watchers")
    parser.add_argument("--scale", type=float, default=1.0, help="of the repetitions of all else")
    parser.add_argument("--stalled", type=int, help="clients that stop reading, beside the watchers")
    parser.add_argument("--soak", type=float, help="seconds for which the watchers stay open")
    parser.add_argument("--rate", type=float, default=5.0, help="changes a second of a soak")
    options = parser.parse_args()
    servers = options.servers.split(",")
    if unknown := set(servers) - {"asgi", "wsgi-gevent"}:
        parser.error(f"there is no server {unknown.pop()!r}")
    # The load client holds the streams of the server and of the floor; the children inherit the limit.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    counts = [int(count) for count in options.watchers.split(",")]
    if options.soak is not None:
        return report("soak", [soak(count, options.soak, options.rate) for count in counts])
    if options.stalled is not None:
        return report("stalled", [stall(count, options.stalled, options.changes) for count in counts])
    table = Table(
        "server",
        "watchers",
        "acknowledged",
        "first",
        "median",
        "last",
        "floor's last",
        "of the floor",
        "its rate",
    )
    table.add_column("CPU µs a frame")
    table.add_column("KiB a stream")
    table.caption = "ms after the call of the commit, p50 / p99"
    rows: list[dict[str, Any]] = []
    wrong: list[str] = []
    for kind in servers:
        for watchers in counts:
            with loads() as pipes:
                measurement = Measurement(pipes, watchers)
                series, floor = measurement.run(kind, options.changes)
            ratios = {
                f"p{share}": percentile(series.last, share) / percentile(floor.last, share)
                for share in (50, 99)
            }
            # A single watcher is first and last.
            rate = (
                percentile(floor.spreading, 50) / percentile(series.spreading, 50) if watchers > 1 else None
            )
            rows.append(
                {
                    "server": kind,
                    "watchers": watchers,
                    "changes": options.changes,
                    "frame_bytes": measurement.frame_bytes,
                    "opening_seconds": measurement.opening_seconds,
                    "measured": series.summary(),
                    "floor": floor.summary(),
                    "last_of_the_floor": ratios,
                    "rate_of_the_floor": rate,
                    "wrong": series.wrong + floor.wrong,
                }
            )
            wrong += [f"{kind}, {watchers} watchers: {text}" for text in series.wrong + floor.wrong]
            table.add_row(
                kind,
                str(watchers),
                *(
                    pair(v)
                    for v in (series.acknowledged, series.first, series.median, series.last, floor.last)
                ),
                f"{ratios['p50']:.1f} / {ratios['p99']:.1f}",
                f"{rate:.0%}" if rate is not None else "",
                f"{series.processor_us_per_frame:.0f} (floor {floor.processor_us_per_frame:.0f})",
                f"{series.kib_per_stream:.0f} (floor {floor.kib_per_stream:.1f})" if watchers >= 100 else "",
            )
    console = Console()
    # A pipe has no width, and a row is of no use in pieces.
    (console if console.width >= WIDTH else Console(width=WIDTH)).print(table)
    judged = [row for each in rows if each["server"] == "asgi" for row in rows_of_crowd(each)]
    if not options.only_crowd:
        for measure in scenarios(options.scale):
            judged += measure()
    if judged:
        show(judged)
    wrong += [f"{row.measure}: {text}" for row in judged for text in row.wrong]
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    kept = {"machine": facts(), "rows": rows, "targets": [row.json() for row in judged]}
    OUTPUT.write_text(json.dumps(kept, indent=2) + "\n")
    for text in wrong:
        print(text, file=sys.stderr)
    return 1 if wrong else 0


def show(rows: Sequence[Row]) -> None:
    """Print the rows of the performance page."""
    table = Table("measure", "target", "measured", "floor", "met")
    for row in rows:
        table.add_row(row.measure, row.target, row.measured, row.floor, "yes" if row.met else "MISSED")
    console = Console()
    (console if console.width >= WIDTH else Console(width=WIDTH)).print(table)


def report(name: str, rows: Sequence[Mapping[str, Any]]) -> int:
    """Print and keep the figures of another measurement."""
    output = OUTPUT.with_name(f"delivery-{name}.json")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({"machine": facts(), "rows": rows}, indent=2) + "\n")
    for row in rows:
        print(json.dumps(row, indent=2))
    return 1 if any(row["wrong"] for row in rows) else 0


def pair(values: Sequence[float]) -> str:
    return f"{percentile(values, 50):.1f} / {percentile(values, 99):.1f}"


if __name__ == "__main__":
    sys.exit(main())
