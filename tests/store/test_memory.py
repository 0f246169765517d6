"""The contract on the store in memory."""

from __future__ import annotations

from rheostat.store.memory import MemoryStore
from tests.store.client_contract import ClientContract
from tests.store.contract import Clock, Randomness, StoreContract
from tests.store.record_contract import RecordContract
from tests.store.subject_contract import SubjectContract


class TestMemoryStore(StoreContract, RecordContract, ClientContract, SubjectContract):
    def open(self, clock: Clock, randomness: Randomness) -> MemoryStore:
        return MemoryStore(clock=clock, randomness=randomness)
