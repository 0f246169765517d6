"""A node over a store that holds the example, the same in every run."""

from __future__ import annotations

import datetime
import hashlib
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rheostat.document import parse_document
from rheostat.document.apply import plan_apply
from rheostat.example import PROJECT, document_text
from rheostat.service import Limits, Service, Writer
from rheostat.service.access import OPEN
from rheostat.service.webhook import Attempt
from rheostat.store import open_store
from rheostat.store.base import Store


class Clock:
    """Each look takes ten seconds, so that nobody waits for a revision that does not come."""

    def __init__(self) -> None:
        self._ticks = itertools.count()

    def __call__(self) -> float:
        return 10.0 * next(self._ticks)


class Randomness:
    def __init__(self) -> None:
        self._calls = itertools.count()

    def __call__(self, size: int) -> bytes:
        return hashlib.shake_256(next(self._calls).to_bytes(8, "big")).digest(size)


class Nowhere:
    """Takes what webhooks are told, and sends it to nobody."""

    def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> Attempt:
        return Attempt(204)


def now() -> datetime.datetime:
    return datetime.datetime(2026, 6, 1, tzinfo=datetime.UTC)


def open_service(path: Path, *, limits: Limits | None = None, wrap: Any = None) -> Service:
    """Return a node over the SQLite file *path*; *wrap* may put something between it and its store."""
    randomness = Randomness()
    store: Store = open_store(f"sqlite:{path}", clock=now, randomness=randomness)
    return Service(
        store if wrap is None else wrap(store),
        clock=now,
        monotonic=Clock(),
        randomness=randomness,
        node="node",
        limits=limits,
        webhook_sender=Nowhere(),
    )


def fill(service: Service) -> None:
    """Bring the example into an empty store."""
    service.commit(Writer(OPEN), PROJECT, "", plan_apply(parse_document(document_text()), None))
