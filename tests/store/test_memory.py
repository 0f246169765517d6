"""The contract on the store in memory."""

from __future__ import annotations

from rheostat.store.memory import MemoryStore
from tests.store.contract import Clock, Randomness, StoreContract


class TestMemoryStore(StoreContract):
    def open(self, clock: Clock, randomness: Randomness) -> MemoryStore:
        return MemoryStore(clock=clock, randomness=randomness)
