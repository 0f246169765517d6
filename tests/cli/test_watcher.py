"""The watcher over events made by hand: what it applies, what it refuses, and when it connects again."""

from __future__ import annotations

import itertools
import random

import pytest

from rheo.v1 import watch_pb2
from rheostat.cli.connection import Connection
from rheostat.cli.option import Target
from rheostat.cli.watch import Watcher
from rheostat.errors import UnavailableError
from rheostat.model.position import digest_of
from rheostat.model.setting import Setting
from rheostat.model.type import BOOL
from rheostat.model.watch import Entry
from rheostat.wire.watch import item_to_proto


class UsedUpError(Exception):
    """There is no stream left to give out."""


class Streams:
    """In place of the generated client: gives out prepared streams, and keeps what it was asked."""

    def __init__(self, *streams):
        self.streams = list(streams)
        self.requests = []

    def watch(self, request, headers=None):
        self.requests.append(request)
        if not self.streams:
            raise UsedUpError
        yield from self.streams.pop(0)


class Highest(random.Random):
    """Draws the higher bound."""

    def uniform(self, a, b):
        return b


class Watch:
    """A watcher run over streams until they are used up; keeps all it reported."""

    def __init__(self, *streams):
        self.streams = Streams(*streams)
        self.slept = []
        self.reasons = []
        self.changes = []
        connection = Connection(Target())
        connection.config = self.streams
        watcher = Watcher(
            connection,
            on_change=self._changed,
            on_event=self._happened,
            randomness=Highest(),
            clock=lambda: 0.0,
            sleep=self.slept.append,
        )
        with pytest.raises(UsedUpError):
            watcher.run()
        self.requests = self.streams.requests

    def _changed(self, revision, changes, coalesced):
        self.changes.extend((revision, change.key) for change in changes)
        return True

    def _happened(self, event):
        if event["event"] == "disconnected":
            self.reasons.append(event["reason"])


HISTORY = {"store_id": b"s" * 16, "generation": 1, "nonce": b"n" * 8, "scope": b"c" * 8}


def position(revision, **history):
    return watch_pb2.Position(revision=revision, token=b"t%d" % revision, **{**HISTORY, **history})


def setting(name, revision, description=""):
    entry = Entry(
        "setting", name, revision, Setting("id-" + name, name, BOOL, default=False, description=description)
    )
    return item_to_proto(entry)


def digest(*items):
    return digest_of((item.kind, item.key, item.revision) for item in items)


def hello(mode=watch_pb2.WATCH_MODE_SNAPSHOT):
    opening = watch_pb2.Hello(mode=mode, environment="production")
    opening.heartbeat.seconds = 15
    return watch_pb2.WatchResponse(hello=opening)


def snapshot(revision, *items, wrong=False, **history):
    end = watch_pb2.SnapshotEnd(
        position=position(revision, **history), digest=digest(*items) ^ wrong, item_count=len(items)
    )
    return [
        watch_pb2.WatchResponse(snapshot_begin=watch_pb2.SnapshotBegin(item_count=len(items))),
        watch_pb2.WatchResponse(snapshot_chunk=watch_pb2.SnapshotChunk(items=items)),
        watch_pb2.WatchResponse(snapshot_end=end),
    ]


def bookmark(revision, digest=0, **history):
    return watch_pb2.WatchResponse(
        bookmark=watch_pb2.Bookmark(position=position(revision, **history), digest=digest)
    )


def delta(revision, *items, since=0, digest=0, **history):
    return watch_pb2.WatchResponse(
        delta=watch_pb2.Delta(
            from_revision=since, position=position(revision, **history), items=items, digest=digest
        )
    )


OTHER_HISTORIES = [
    {"store_id": b"S" * 16},
    {"generation": 2},
    {"nonce": b"N" * 8},
    {"scope": b"C" * 8},
]


def test_a_wrong_digest_asks_for_a_snapshot_with_the_held_token():
    watch = Watch([hello(), *snapshot(3), bookmark(4, digest=99)])
    assert (watch.requests[1].resume, watch.requests[1].resnapshot) == (b"t3", True)


def test_a_delta_with_a_wrong_digest_is_not_applied_and_its_changes_come_with_the_snapshot():
    changed = setting("a", 4)
    watch = Watch(
        [hello(), *snapshot(3), delta(4, changed, digest=99)],
        [hello(), *snapshot(5, changed)],
    )
    assert watch.changes == [(5, "a")]
    assert watch.requests[1].resume == b"t3"


def test_a_snapshot_is_asked_for_until_one_has_come_whole():
    watch = Watch([hello(), *snapshot(3), bookmark(4, digest=99)], [hello()], [hello(), *snapshot(4)])
    assert [request.resnapshot for request in watch.requests] == [False, True, True, False]


@pytest.mark.parametrize("history", OTHER_HISTORIES, ids=lambda history: next(iter(history)))
def test_a_delta_of_another_history_is_never_applied(history):
    changed = setting("a", 4)
    watch = Watch([hello(), *snapshot(3), delta(4, changed, digest=digest(changed), **history), bookmark(5)])
    assert watch.changes == []
    assert (watch.requests[1].resume, watch.requests[1].resnapshot) == (b"t3", False)


@pytest.mark.parametrize("history", OTHER_HISTORIES, ids=lambda history: next(iter(history)))
def test_a_bookmark_of_another_history_is_never_taken_over(history):
    watch = Watch([hello(), *snapshot(3), bookmark(4, **history), bookmark(5)])
    assert (watch.requests[1].resume, watch.requests[1].resnapshot) == (b"t3", False)


def test_a_bookmark_never_takes_the_position_back():
    watch = Watch([hello(), *snapshot(3), bookmark(2)])
    assert watch.requests[1].resume == b"t3"


def test_a_snapshot_of_another_history_replaces_items_of_the_same_revision():
    watch = Watch(
        [hello(), *snapshot(3, setting("a", 2), setting("b", 3))],
        [hello(), *snapshot(3, setting("a", 2), setting("b", 3, description="other"), generation=2)],
        [hello(), bookmark(4, digest(setting("a", 2), setting("b", 3)), generation=2)],
    )
    assert watch.changes == [(3, "b")]
    assert watch.requests[3].resume == b"t4"


def test_a_gap_is_never_applied():
    watch = Watch([hello(), *snapshot(3), delta(6, since=5)])
    assert watch.requests[1].resume == b"t3"


def test_a_delta_that_is_held_already_is_dropped():
    watch = Watch([hello(), *snapshot(3), delta(3, setting("a", 3), digest=99), bookmark(4)])
    assert watch.changes == []
    assert watch.requests[1].resume == b"t4"


def test_delays_double_up_to_a_bound():
    watch = Watch([hello(), *snapshot(3)], *([] for _ in range(8)))
    assert watch.slept == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 10.0]


def test_a_server_that_stays_away_for_hours_is_still_tried():
    watch = Watch([hello(), *snapshot(3)], *([] for _ in range(1_200)))
    assert watch.slept[-1] == 10.0


def test_a_difference_that_lasts_is_reported_and_no_storm():
    wrong = [hello(), *snapshot(4, setting("a", 4), wrong=True)]
    watch = Watch([hello(), *snapshot(3), bookmark(4, digest=99)], *itertools.repeat(wrong, 3))
    assert watch.slept == [300.0, 300.0, 300.0]
    assert len(watch.reasons) == 4
    # What it held before is kept, and what the server asks with.
    assert watch.changes == []
    assert {(request.resume, request.resnapshot) for request in watch.requests[1:]} == {(b"t3", True)}


def test_a_snapshot_alone_does_not_end_a_difference_that_comes_back():
    again = [hello(), *snapshot(4), bookmark(5, digest=99)]
    watch = Watch(again, again, again)
    assert watch.slept == [300.0, 300.0]


def test_a_difference_after_a_bookmark_that_agreed_is_the_first_again():
    again = [hello(), *snapshot(4), bookmark(4), bookmark(5, digest=99)]
    watch = Watch(again, again, again)
    assert watch.slept == []


def test_a_first_snapshot_that_is_damaged_is_asked_for_again():
    watch = Watch(
        [hello(), *snapshot(3, setting("a", 3), wrong=True)],
        [hello(), *snapshot(3), delta(4, setting("b", 4), digest=digest(setting("b", 4)))],
    )
    assert watch.changes == [(4, "b")]


def test_going_away_is_spread_as_the_server_asks():
    away = watch_pb2.WatchResponse(go_away=watch_pb2.GoAway(reason=watch_pb2.GO_AWAY_REASON_DRAIN))
    away.go_away.spread.seconds = 7
    assert Watch([hello(), *snapshot(3), away]).slept == [7.0]


def test_a_first_connection_that_fails_is_an_error():
    class Refusing:
        def watch(self, request, headers=None):
            raise UnavailableError("no")

    connection = Connection(Target())
    connection.config = Refusing()
    with pytest.raises(UnavailableError):
        Watcher(connection, on_change=lambda *_: True, on_event=lambda _: None).run()
