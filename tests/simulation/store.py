"""One store that all nodes share: the store in memory, with the accidents of a database server."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from typing import Any, Final

from rheostat.errors import UnavailableError
from rheostat.model.change import ChangeSet
from rheostat.store.base import Contents, Identity, Write
from rheostat.store.memory import MemoryStore
from tests.checking import History, Life
from tests.simulation.clock import Clock

__all__ = ["Access", "SharedStore", "life_of"]

_CONTENTS: Final = ("_identity", "_floor", "_rule_number", "_change_sets", "_items", "_requests")

Contained = dict[str, Any]


def life_of(identity: Identity) -> Life:
    """Return which history an identity is of."""
    return (identity.store_id, identity.generation, identity.nonce)


class SharedStore(MemoryStore):
    """The database: what it holds, and what it has held.

    Attributes:
        history: All that was ever committed.
        kept: What it held after each revision that it still has; what a standby that lags behind may have.
        committed: Called with each new revision; tells the nodes.
    """

    def __init__(
        self, clock: Clock, randomness: random.Random, base: Contained, committed: Callable[[int], None]
    ) -> None:
        super().__init__(clock=clock.wall, randomness=randomness.randbytes)
        identity = self._identity
        self._put(base)
        self._identity = identity
        # As if it had been made just now.
        self.history = History()
        self.history.begin(life_of(identity), self._change_sets)
        self.committed = committed
        self.kept: dict[int, Contained] = {len(self._change_sets): self.contents()}

    @property
    def life(self) -> Life:
        """The history that it holds."""
        return life_of(self._identity)

    @property
    def change_sets(self) -> Sequence[ChangeSet]:
        """All that it holds."""
        return self._change_sets

    @property
    def settings(self) -> Sequence[tuple[str, str]]:
        """The environments and names of the settings that it holds."""
        return [
            (environment, name)
            for (_, environment, kind, name), (_, item) in self._items.items()
            if kind == "setting" and item is not None
        ]

    def commit(self, write: Write) -> ChangeSet | None:
        """See `Store.commit`."""
        written = super().commit(write)
        if written is not None:
            self.history.add(self.life, written)
            self.kept[written.revision] = self.contents()
            self.committed(written.revision)
        return written

    def raise_generation(self, above: int, cause: str = "") -> Identity:
        """See `Store.raise_generation`."""
        raised = super().raise_generation(above, cause)
        self.history.begin(life_of(raised), self._change_sets)
        return raised

    def contents(self) -> Contained:
        """Return a copy of all that is stored."""
        return {name: copy.copy(getattr(self, name)) for name in _CONTENTS}

    def replace(self, contents: Contained) -> None:
        """Go on with what a standby or a backup has, in a new generation, as the server sees to."""
        self.put_back(contents)
        self.raise_generation(0)

    def put_back(self, contents: Contained) -> None:
        """Go on with other contents, as if nothing had been."""
        self._put(contents)
        newest = len(self._change_sets)
        self.kept = {revision: kept for revision, kept in self.kept.items() if revision <= newest}

    def _put(self, contents: Contained) -> None:
        for name, content in contents.items():
            setattr(self, name, copy.copy(content))


class Access:
    """The store as one node reaches it: `rheostat.store.base.Store`, or an error while the way to it is cut.

    Attributes:
        away: Nothing gets through.
        unknown: The next commit is made, and its answer lost.
    """

    def __init__(self, shared: SharedStore) -> None:
        self._shared = shared
        self.away = False
        self.unknown = False

    def _reached(self) -> SharedStore:
        if self.away:
            raise UnavailableError("the store is away", reason="STORE_AWAY")
        return self._shared

    def load(self) -> Contents:
        return self._reached().load()

    def identity(self) -> Identity:
        return self._reached().identity()

    def revision(self) -> int:
        return self._reached().revision()

    def commit(self, write: Write) -> ChangeSet | None:
        written = self._reached().commit(write)
        if self.unknown:
            self.unknown = False
            raise UnavailableError("the connection was lost in the commit", reason="STORE_AWAY")
        return written

    def read_since(self, revision: int, limit: int = 1000) -> Sequence[ChangeSet]:
        return self._reached().read_since(revision, limit)

    def change_set(self, revision: int) -> ChangeSet | None:
        return self._reached().change_set(revision)

    def raise_generation(self, above: int, cause: str = "") -> Identity:
        return self._reached().raise_generation(above, cause)

    def compact(self, floor: int) -> int:
        return self._reached().compact(floor)

    def __getattr__(self, name: str) -> Any:
        # What the watch protocol does not use: records, clients.
        return getattr(self._reached(), name)
