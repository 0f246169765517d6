"""The changes that the delivery benchmark makes, and how long each took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.process import percentile
from rheo.v1.admin_service_connect import AdminServiceClientSync
from rheo.v1.admin_service_pb2 import CommitRequest
from rheo.v1.change_pb2 import Mutation, PutSetting, SetValue
from rheo.v1.setting_pb2 import Setting
from rheo.v1.value_pb2 import Value

SETTINGS = 100
BATCH = 500
"""Settings that one change-set makes."""
PAUSE = 0.01
"""Seconds between two changes, so that none begins while the one before is still being worked off."""


@dataclass(slots=True)
class Series:
    """The changes of one server at one count of watchers, milliseconds."""

    acknowledged: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    median: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)
    spreading: list[float] = field(default_factory=list)
    processor_us_per_frame: float = 0.0
    kib_per_stream: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def add(self, started: int, acknowledged: int, arrivals: Sequence[int]) -> None:
        ordered = sorted(arrivals)
        self.acknowledged.append((acknowledged - started) / 1e6)
        self.first.append((ordered[0] - started) / 1e6)
        self.median.append((ordered[len(ordered) // 2] - started) / 1e6)
        self.last.append((ordered[-1] - started) / 1e6)
        self.spreading.append((ordered[-1] - ordered[0]) / 1e6)

    def summary(self) -> dict[str, Any]:
        named = {
            name: {"p50": percentile(values, 50), "p99": percentile(values, 99), "max": max(values)}
            for name, values in (
                ("acknowledged_ms", self.acknowledged),
                ("first_ms", self.first),
                ("median_ms", self.median),
                ("last_ms", self.last),
                ("spreading_ms", self.spreading),
            )
        }
        return {
            **named,
            "processor_us_per_frame": self.processor_us_per_frame,
            "kib_per_stream": self.kib_per_stream,
        }


def prepare(client: AdminServiceClientSync, settings: int = SETTINGS) -> None:
    """Make the settings of an ordinary environment."""
    for start in range(0, settings, BATCH):
        mutations = [
            Mutation(
                put_setting=PutSetting(
                    setting=Setting(
                        name=f"checkout.setting-{number:03}",
                        type="str",
                        default=Value(string_value="a value of an ordinary length"),
                        description="What it does, in one sentence of an ordinary length.",
                    )
                )
            )
            for number in range(start, min(start + BATCH, settings))
        ]
        client.commit(CommitRequest(environment="production", mutations=mutations))


def name_of(number: int) -> str:
    return f"checkout.setting-{number % SETTINGS:03}"


def change(number: int) -> CommitRequest:
    value = Value(string_value=f"value {number:06} of an ordinary length")
    return CommitRequest(
        environment="production",
        mutations=[Mutation(set_value=SetValue(name=name_of(number), value=value))],
        message="a change",
    )
