"""Forks with a store open; reports as JSON lines. Arguments: how, and the store's URL."""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Callable

from rheostat.errors import RheostatError
from rheostat.model.change import ChangeSet
from rheostat.store.base import Transaction
from rheostat.store.postgres import PostgresStore


def write(transaction: Transaction) -> ChangeSet:
    return ChangeSet("shop", ())


def report(**told: object) -> None:
    os.write(1, json.dumps(told).encode() + b"\n")


def with_an_open_store(url: str, fork: Callable[[], int]) -> None:
    store = PostgresStore(url)
    store.commit(write)
    if fork is os.fork:
        # Without its hooks Python cannot be forked while it has other threads, such as the listener's.
        store.wait_hint(0)
    pid = fork()
    if pid == 0:
        status = 1
        try:
            store.commit(write)
            seen = store.wait_hint(0)
            report(who="child", revision=store.revision(), hint=seen)
            store.close()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    seen = store.wait_hint(5)
    store.commit(write)
    report(who="parent", child=status, revision=store.revision(), hint=seen)
    store.close()


def in_a_write(url: str) -> None:
    store = PostgresStore(url)

    def fork(transaction: Transaction) -> ChangeSet:
        pid = os.fork()
        if pid == 0:
            try:
                transaction.since(0)
                report(child="read")
            except RheostatError as exc:
                report(child=type(exc).__name__, revision=store.revision())
            raise SystemExit
        os.waitpid(pid, 0)
        return write(transaction)

    try:
        store.commit(fork)
    except SystemExit:
        # The child, out of the parent's transaction; from here on it is a process like any other.
        store.close()
        os._exit(0)
    store.commit(write)
    report(revision=store.revision())
    store.close()


def main() -> None:
    how, url = sys.argv[1:]
    match how:
        case "hooks":
            with_an_open_store(url, os.fork)
        case "no-hooks":
            with_an_open_store(url, ctypes.PyDLL(None).fork)
        case "in-a-write":
            in_a_write(url)


if __name__ == "__main__":
    main()
