from __future__ import annotations

import pytest
from hypothesis import given

from rheo.v1 import watch_pb2
from rheostat.model.change import Project
from rheostat.model.encoding import encode_item
from rheostat.model.key import Key, KeyKind
from rheostat.model.position import Filter, Position, digest_of, parse_token
from rheostat.model.setting import Segment, Setting
from rheostat.model.type import STR
from rheostat.model.watch import Entry
from rheostat.wire.watch import (
    ReceivedItem,
    filter_from_proto,
    filter_to_proto,
    item_from_proto,
    item_to_proto,
    position_from_proto,
    position_to_proto,
)
from tests.strategies import segments, settings

POSITION = Position(b"s" * 16, 2, b"n" * 8, 2**63 + 1, b"c" * 8)


def test_a_position_comes_back_the_same_and_carries_a_token_that_its_store_knows() -> None:
    message = watch_pb2.Position.FromString(position_to_proto(POSITION, b"k" * 32).SerializeToString())
    assert position_from_proto(message) == POSITION
    assert parse_token(message.token, b"k" * 32) == POSITION
    assert parse_token(message.token, b"other") is None


def test_the_position_of_a_beginning_snapshot_has_no_token() -> None:
    assert position_to_proto(POSITION).token == b""


def test_a_filter_comes_back_the_same_and_the_one_of_everything_is_absent() -> None:
    filter_ = Filter(("b", "a"), ("checkout.",), (("plan", ("pro",)), ("region", ("us", "eu"))))
    message = filter_to_proto(filter_)
    assert message is not None
    assert filter_from_proto(message) == filter_
    assert filter_to_proto(Filter()) is None
    assert filter_from_proto(watch_pb2.WatchRequest().filter) == Filter()


@given(settings(), segments())
def test_items_come_back_the_same(setting: Setting, segment: Segment) -> None:
    for item, kind in ((setting, "setting"), (segment, "segment")):
        entry = Entry(kind, item.name, 7, item)
        message = watch_pb2.Item.FromString(item_to_proto(entry).SerializeToString())
        read = item_from_proto(message)
        assert read.item is not None
        assert encode_item(read.item) == encode_item(item)
        assert (read.kind, read.key, read.revision, read.deleted, read.problem) == (
            kind,
            item.name,
            7,
            False,
            "",
        )


def test_a_key_of_a_relays_stream_has_the_revision_of_its_item() -> None:
    key = Key("ab12", KeyKind.SERVER, b"v" * 32, project="shop", environments=("e",), revision=5)
    assert item_from_proto(item_to_proto(Entry("key", "ab12", 5, key))).item == key


def test_a_tombstone_has_no_body() -> None:
    message = item_to_proto(Entry("setting", "n", 7, None))
    assert message.WhichOneof("body") is None
    assert item_from_proto(message) == ReceivedItem("setting", "n", 7, deleted=True, item=None)


def test_an_old_client_counts_items_of_kinds_that_it_does_not_know() -> None:
    # Field 99 of Item, as a newer peer might send it.
    message = watch_pb2.Item(kind="webhook", key="w", revision=9)
    message.MergeFromString(b"\x9a\x06\x00")
    read = item_from_proto(message)
    assert read == ReceivedItem("webhook", "w", 9, deleted=False, item=None)
    assert digest_of([(read.kind, read.key, read.revision)]) == digest_of([("webhook", "w", 9)])


def test_a_setting_that_cannot_be_read_says_why_and_ends_nothing() -> None:
    message = item_to_proto(Entry("setting", "n", 7, Setting("i", "n", STR, default="d")))
    message.setting.type = "Date"
    read = item_from_proto(message)
    assert (read.kind, read.key, read.revision, read.item) == ("setting", "n", 7, None)
    assert "'Date'" in read.problem


def test_what_is_no_part_of_a_stream_is_not_sent() -> None:
    with pytest.raises(ValueError, match="'project' is not streamed"):
        item_to_proto(Entry("project", "shop", 1, Project("shop")))
