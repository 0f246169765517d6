"""What a node keeps for its watchers: shared while it is the newest, gone as soon as nobody holds it."""

from __future__ import annotations

import gc
import queue
import threading
import weakref
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest

from rheostat.model.change import Change, ChangeSet, PutEnvironment, PutSetting, SetValue
from rheostat.model.position import Filter
from rheostat.service import Service, Writer
from rheostat.service.access import OPEN
from rheostat.service.publish import Hub, compacted_head, next_head
from rheostat.service.watch import WatchOptions
from rheostat.store import open_store

WRITER = Writer(OPEN)


@pytest.fixture
def service() -> Iterator[Service]:
    with Service(open_store("memory:")) as started:
        started.commit(WRITER, "default", "", [PutEnvironment("staging")])
        for environment in ("production", "staging"):
            started.commit(WRITER, "default", environment, [PutSetting("n", {"type": "int", "default": 0})])
        yield started


def test_snapshots_at_different_positions_of_one_state_share_their_content(service: Service):
    contents = set()
    for number in range(3):
        session = service.watch(WatchOptions("default", "production"))
        contents.add(id(session.step(0.0).events[1].content))
        service.commit(WRITER, "default", "staging", [SetValue("n", number + 1)])
    assert len(contents) == 1


def test_a_view_that_nobody_holds_is_gone_without_the_collector(service: Service):
    session = service.watch(WatchOptions("default", "production", filter=Filter(prefixes=("n",))))
    session.step(0.0)
    gc.collect()
    gc.disable()
    try:
        views = []
        for number in range(3):
            views.append(weakref.ref(service.view("default", "production")))
            service.commit(WRITER, "default", "production", [SetValue("n", number + 1)])
            session.step(0.0)
        assert [view() for view in views] == [None] * 3
    finally:
        gc.enable()


def test_what_was_never_published_is_no_part_of_a_compacted_head(service: Service):
    head = service.head
    floor = head.revision - 1
    lost = ChangeSet(
        "default",
        tuple(
            Change("default", "production", "setting", "n", item, replace(item, revision=head.revision + 1))
            for item in head.views["default", "production"].snapshot.settings.values()
        ),
        revision=head.revision + 1,
        generation=head.identity.generation,
    )
    view = next_head(head, lost).views["default", "production"]
    assert view.touches_since(floor)[1] == [lost.revision]
    compacted = compacted_head(head, floor)
    assert compacted.floor == floor
    assert [list(view.touches_since(floor)[1]) for view in compacted.views.values()] == [[], [head.revision]]
    assert not compacted.views["default", "production"].scope(Filter()).changed_since(head.revision)
    # The head that it was made of still has its own.
    assert list(head.views["default", "staging"].touches_since(0)[1])[-1] == head.revision


def test_a_ring_wakes_all_who_wait_and_a_note_only_those_who_are_told(service: Service):
    hub = Hub(service.head)
    woken: queue.SimpleQueue[str] = queue.SimpleQueue()

    def wait(name: str, notes: int | None) -> None:
        hub.wait(0, 60.0, notes)
        woken.put(name)

    threads = [threading.Thread(target=wait, args=each) for each in (("told", 0), ("other", None))]
    for thread in threads:
        thread.start()
    while not (hub._waiters and hub._told_waiters):
        threading.Event().wait(0.001)
    hub.tell()
    assert not hub._told_waiters and len(hub._waiters) == 1
    assert woken.get(timeout=60) == "told"
    threads[0].join(60)
    assert threads[1].is_alive() and woken.empty()
    hub.ring()
    assert woken.get(timeout=60) == "other"
    threads[1].join(60)


def test_a_signal_in_the_middle_of_a_ring_may_ring_too(service: Service):
    hub = Hub(service.head)
    rung: list[int] = []

    class Interrupted(list[object]):
        def __iter__(self) -> Iterator[object]:
            # Within the lock, where Python runs handlers of signals too.
            hub._listeners = [lambda: rung.append(hub.bell)]
            hub.ring()
            hub.tell()
            return super().__iter__()

    hub._listeners = Interrupted()
    waiting = threading.Thread(target=hub.wait, args=(0, 60.0))
    waiting.start()
    while not hub._waiters:
        threading.Event().wait(0.001)
    ringing = threading.Thread(target=hub.ring, daemon=True)
    ringing.start()
    ringing.join(60)
    assert not ringing.is_alive()
    waiting.join(60)
    assert rung == [2] and hub.bell == 2 and hub.notes == 1


def test_a_ring_that_interrupts_who_begins_to_wait_is_not_missed(service: Service):
    hub = Hub(service.head)

    class Interrupted(dict[object, None]):
        def __setitem__(self, waiter: object, nothing: None) -> None:
            hub.ring()
            super().__setitem__(waiter, nothing)

    hub._waiters = Interrupted()
    waiting = threading.Thread(target=hub.wait, args=(0, 3600.0), daemon=True)
    waiting.start()
    waiting.join(60)
    assert not waiting.is_alive() and not hub._waiters


def test_who_has_missed_a_ring_does_not_wait_and_who_gives_up_is_forgotten(service: Service):
    hub = Hub(service.head)
    hub.ring()
    hub.wait(0, 3600.0)
    hub.tell()
    hub.wait(1, 3600.0, 0)
    hub.wait(1, 0.0)
    hub.wait(1, 0.001, 1)
    assert not hub._waiters and not hub._told_waiters


@pytest.mark.parametrize("notes", [None, 0])
def test_who_is_interrupted_is_forgotten(
    service: Service, monkeypatch: pytest.MonkeyPatch, notes: int | None
):
    hub = Hub(service.head)

    class Interrupted(BaseException):
        pass

    class Lock:
        """Where a greenlet waits, and is ended."""

        def acquire(self, timeout: float | None = None) -> bool:
            if timeout is None:
                return True
            assert hub._waiters or hub._told_waiters
            raise Interrupted

    monkeypatch.setattr("rheostat.service.publish.threading", SimpleNamespace(Lock=Lock))
    with pytest.raises(Interrupted):
        hub.wait(0, 60.0, notes)
    assert not hub._waiters and not hub._told_waiters
