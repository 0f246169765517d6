"""Positions, filters and items of streams as messages."""

from __future__ import annotations

from dataclasses import dataclass

from rheo.v1 import watch_pb2
from rheostat.errors import RheostatError
from rheostat.model.change import Item
from rheostat.model.key import Key
from rheostat.model.position import Filter, Position
from rheostat.model.setting import Segment, Setting
from rheostat.model.watch import Entry
from rheostat.wire.key import relay_key_from_proto, relay_key_to_proto
from rheostat.wire.setting import (
    fill_segment,
    fill_setting,
    segment_from_proto,
    setting_from_proto,
)

__all__ = [
    "ReceivedItem",
    "filter_from_proto",
    "filter_to_proto",
    "item_from_proto",
    "item_to_proto",
    "position_from_proto",
    "position_to_proto",
]


@dataclass(frozen=True, slots=True)
class ReceivedItem:
    """An item of a stream, as far as this version can read it.

    The digest counts (kind, key, revision) of every item that is not deleted, also of one without a body.

    Attributes:
        kind: ``setting``, ``segment``, ``key`` or a kind that this version does not know.
        key: Its key.
        revision: The newest revision of anything that its encoded form depends on.
        deleted: It is a tombstone.
        item: What it is; None in a tombstone, and when this version cannot read it.
        problem: Why it cannot be read; empty when it can, in a tombstone, and for an unknown kind.
    """

    kind: str
    key: str
    revision: int
    deleted: bool
    item: Item | None
    problem: str = ""


def position_to_proto(position: Position, token_key: bytes | None = None) -> watch_pb2.Position:
    """Return *position* as a message.

    Args:
        position: Where the watcher stands.
        token_key: The store's, under which the resume token is authenticated; None leaves the token out.
    """
    return watch_pb2.Position(
        store_id=position.store_id,
        generation=position.generation,
        nonce=position.nonce,
        revision=position.revision,
        scope=position.scope,
        token=b"" if token_key is None else position.token(token_key),
    )


def position_from_proto(message: watch_pb2.Position) -> Position:
    """Return the position; its token, which a client sends back as it is, stays in ``message.token``."""
    return Position(message.store_id, message.generation, message.nonce, message.revision, message.scope)


def filter_to_proto(filter_: Filter) -> watch_pb2.Filter | None:
    """Return *filter_* as a message, or None for the one that passes everything."""
    if not filter_:
        return None
    message = watch_pb2.Filter(names=filter_.names, prefixes=filter_.prefixes)
    for path, values in filter_.tracked:
        message.tracked[path].values.extend(values)
    return message


def filter_from_proto(message: watch_pb2.Filter) -> Filter:
    """Return the filter that *message* holds; an absent one passes everything."""
    tracked = tuple((path, tuple(message.tracked[path].values)) for path in sorted(message.tracked))
    return Filter(tuple(message.names), tuple(message.prefixes), tracked)


def item_to_proto(entry: Entry) -> watch_pb2.Item:
    """Return an item of a stream, or its tombstone, as a message.

    Raises:
        ValueError: Items of its kind are not streamed.
        RheostatError: A value or condition in it cannot be carried; see `fill_setting`.
    """
    message = watch_pb2.Item(
        kind=entry.kind, key=entry.key, revision=entry.revision, deleted=entry.item is None
    )
    match entry.item:
        case None:
            pass
        case Setting():
            fill_setting(message.setting, entry.item)
        case Segment():
            fill_segment(message.segment, entry.item)
        case Key():
            message.relay_key.CopyFrom(relay_key_to_proto(entry.item))
        case _:
            raise ValueError(f"an item of the kind {entry.kind!r} is not streamed")
    return message


def item_from_proto(message: watch_pb2.Item) -> ReceivedItem:
    """Return the item of a stream. Never raises: what this version cannot read has no body, and says why."""
    item: Item | None = None
    problem = ""
    try:
        match None if message.deleted else message.WhichOneof("body"):
            case "setting":
                item = setting_from_proto(message.setting)
            case "segment":
                item = segment_from_proto(message.segment)
            case "relay_key":
                item = relay_key_from_proto(message.relay_key, message.revision)
            case _:
                pass
    except (RheostatError, ValueError) as exc:
        problem = str(exc)
    return ReceivedItem(message.kind, message.key, message.revision, message.deleted, item, problem)
