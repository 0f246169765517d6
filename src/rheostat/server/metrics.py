"""A node's counts in the text that Prometheus reads."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from rheostat.errors import RheostatError
from rheostat.service import Service
from rheostat.service.metric import Shape

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

__all__ = ["exposition"]

_COUNTERS: Final = {
    "frames": ("rheostat_watch_frames", "Messages that were handed to the connections of watchers.", ()),
    "bytes": (
        "rheostat_watch_bytes",
        "Bytes of these messages, after compression where the node itself does it.",
        (),
    ),
    "snapshots": ("rheostat_watch_snapshots", "Snapshots that were sent, by why.", ("reason",)),
    "coalesced": (
        "rheostat_watch_coalesced",
        "Deltas that merged several revisions, for watchers that lagged.",
        (),
    ),
    "ended": ("rheostat_watch_ended", "Watches that the node has ended, by why.", ("reason",)),
    "errors": ("rheostat_call_errors", "Calls that were answered with an error, by its reason.", ("reason",)),
    "diverged": (
        "rheostat_client_digest_mismatches",
        "Reports of clients whose state is not the node's.",
        (),
    ),
    "store errors": ("rheostat_store_errors", "Times that the store was away or refused.", ()),
    "subjects": ("rheostat_subjects", "Writes of subjects, by what became of them.", ("outcome",)),
    "events": ("rheostat_events", "Events that were told, by what became of them.", ("outcome",)),
    "calls": ("rheostat_calls", "Calls that have ended, by their code.", ("method", "code")),
}


def exposition(
    service: Service, accept: str, *, stale_seconds: float | None = None, redis_seconds: float | None = None
) -> tuple[bytes, str]:
    """Return the metrics of *service* in this process, and their content type.

    Args:
        service: The node.
        accept: The header of the request, which chooses between the text formats.
        stale_seconds: How old the state of a relay is; None for a node.
        redis_seconds: For how long Redis may not have held that; None where none is written.

    Names of projects, environments and settings are not in it.
    """
    # Late: only a node that is scraped needs it.
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.registry import CollectorRegistry

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(service, stale_seconds, redis_seconds))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Collector:
    """Makes the families of a node's metrics; what `prometheus_client` asks of a collector."""

    def __init__(self, service: Service, stale_seconds: float | None, redis_seconds: float | None) -> None:
        self._service = service
        self._stale_seconds = stale_seconds
        self._redis_seconds = redis_seconds

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

        service, metrics = self._service, self._service.metrics
        yield GaugeMetricFamily("rheostat_ready", "1 while the node can serve.", float(service.ready))
        yield GaugeMetricFamily("rheostat_watch_streams", "Watches that are open.", service.watchers)
        if self._stale_seconds is not None:
            yield GaugeMetricFamily(
                "rheostat_relay_stale_seconds", "How old the state of this relay is.", self._stale_seconds
            )
        if self._redis_seconds is not None:
            yield GaugeMetricFamily(
                "rheostat_relay_redis_seconds",
                "For how long Redis may not have held the state of this relay.",
                self._redis_seconds,
            )
        if service.started:
            # A relay may have none yet, and a node may have lost its own.
            with contextlib.suppress(RheostatError):
                head = service.head
                yield GaugeMetricFamily(
                    "rheostat_revision", "The newest revision of this node.", head.revision
                )
                generation = head.identity.generation
                yield GaugeMetricFamily("rheostat_generation", "The generation of the store.", generation)
        if self._stale_seconds is None:
            yield GaugeMetricFamily(
                "rheostat_subject_feed_behind",
                "Changes of subjects that this node had still to read when it last looked.",
                service.subjects.behind,
            )
        for what, (name, text, labels) in _COUNTERS.items():
            family = CounterMetricFamily(name, text, labels=labels)
            counted = metrics.counted(what)
            if not labels and not counted:
                # So that a rate can be seen from the first one on.
                counted = {(): 0}
            for of, times in sorted(counted.items()):
                family.add_metric(of, times)
            yield family
        yield _histogram(
            "rheostat_watch_lag_seconds",
            "From a commit until its delta was handed to the connection of a watcher.",
            {(): metrics.lag.shape},
        )
        yield _histogram(
            "rheostat_commit_seconds", "Of writes that were committed.", {(): metrics.commits.shape}
        )
        yield _histogram(
            "rheostat_call_seconds",
            "Of calls; of watches until they ended.",
            {(method,): distribution.shape for method, distribution in sorted(metrics.calls.items())},
            ("method",),
        )


def _histogram(
    name: str, text: str, shapes: dict[tuple[str, ...], Shape], labels: tuple[str, ...] = ()
) -> Metric:
    from prometheus_client.metrics_core import HistogramMetricFamily

    family = HistogramMetricFamily(name, text, labels=labels)
    for of, shape in shapes.items():
        bounds = [*(f"{bound:g}" for bound in shape.bounds), "+Inf"]
        sums = itertools.accumulate(shape.counts)
        family.add_metric(of, list(zip(bounds, map(float, sums), strict=True)), shape.total)
    return family
