"""The fleet-aware gate: whether the connected clients can decode what a change-set gives to settings.

It judges values, not types, by the types that the clients have declared: whatever a client would refuse, or drop
a part of, it could not decode.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from rheostat.service.declared import DeclaredTypes
from rheostat.service.typeset import Misfit, NewValues, TypeSet
from rheostat.store.base import ClientRow, Store

__all__ = ["Blocked", "Gate"]

_NAMED: Final = 10
"""Clients that a message names."""

_RECORDED: Final = 1_000
"""Clients that an audit row, and an answer to a declaration, lists."""


_HELD_SECONDS: Final = 0.2
"""For how long the sets that were found are judged by: to look through ten thousand clients takes 7 ms."""

_Sets: TypeAlias = Mapping[str, Sequence[tuple[bytes, TypeSet]]]
"""The sets of types, with their hashes, by environment."""


@dataclass(frozen=True, slots=True)
class Blocked:
    """Connected clients could not decode some values.

    Attributes:
        message: Which value, and who; for people.
        misfit: The first such value.
        clients: The ids of the clients, in order, no more than are recorded.
        complete: Those are all.
    """

    message: str
    misfit: Misfit
    clients: tuple[str, ...]
    complete: bool


class Gate:
    """Judges values by what connected clients have declared. Safe from any thread."""

    def __init__(
        self,
        store: Store,
        types: DeclaredTypes,
        *,
        clock: Callable[[], datetime.datetime],
        monotonic: Callable[[], float],
    ) -> None:
        """Read nothing yet."""
        self._store = store
        self._types = types
        self._clock = clock
        self._monotonic = monotonic
        # By project: until when it holds, and the sets by environment.
        self._sets: dict[str, tuple[float, _Sets]] = {}

    def forget(self, project: str) -> None:
        """Look at the clients anew, since one of this node has declared."""
        self._sets.pop(project, None)

    def blocked(self, project: str, found: Iterable[NewValues]) -> Blocked | None:
        """Return what connected clients could not decode of the values; None when all can decode all."""
        misfits: list[Misfit] = []
        declared: dict[tuple[str, bytes], None] = {}
        for new in found:
            for hash_, types in self._declared(project).get(new.environment, ()):
                misfit = types.misfit(new)
                if misfit is not None:
                    misfits.append(misfit)
                    declared[new.environment, hash_] = None
        if not misfits:
            return None
        clients = self._clients(project, declared)
        if not clients:
            # They have left meanwhile.
            return None
        ids = sorted({client.id for client in clients})
        complete = len(clients) <= _RECORDED
        values = {(misfit.new.environment, misfit.new.setting) for misfit in misfits}
        others = f", and so {_counted(len(values) - 1, 'other setting')}" if len(values) > 1 else ""
        message = f"{misfits[0]}, which connected clients have declared{others}: {_named(clients, complete=complete)}"
        return Blocked(message, misfits[0], tuple(ids[:_RECORDED]), complete)

    def _declared(self, project: str) -> _Sets:
        """Return the sets of types in use, as they were at most `_HELD_SECONDS` ago."""
        now = self._monotonic()
        held = self._sets.get(project)
        if held is not None and now < held[0]:
            return held[1]
        sets: dict[str, list[tuple[bytes, TypeSet]]] = {}
        for environment, hash_ in self._store.client_types(project, now=self._clock()):
            types = self._types.find(project, environment, hash_)
            # What is not known, the clients are asked to declare again when they report.
            if types is not None:
                sets.setdefault(environment, []).append((hash_, types))
        self._sets[project] = now + _HELD_SECONDS, sets
        return sets

    def _clients(self, project: str, declared: Iterable[tuple[str, bytes]]) -> list[ClientRow]:
        """Return the clients that declared these types, up to one more than are recorded."""
        clients: list[ClientRow] = []
        for environment, hash_ in declared:
            left = _RECORDED + 1 - len(clients)
            if left <= 0:
                break
            clients += self._store.clients(project, environment, now=self._clock(), types=hash_, limit=left)
        return clients


def _named(clients: Sequence[ClientRow], *, complete: bool) -> str:
    names = [f"{client.name} ({client.id})" if client.name else client.id for client in clients[:_NAMED]]
    rest = len(clients) - len(names)
    if not rest:
        return ", ".join(names)
    return f"{', '.join(names)} and {'' if complete else 'at least '}{rest} more"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
