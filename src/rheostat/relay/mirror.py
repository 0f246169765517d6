"""From what a relay's stream has delivered to what its clients are served."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from rheostat.errors import UnavailableError
from rheostat.model.change import ItemKey
from rheostat.model.key import Key
from rheostat.model.position import Position
from rheostat.model.setting import Segment, Setting
from rheostat.model.watch import Entry
from rheostat.sdk.held import Held, HeldItem, Update
from rheostat.service.publish import Head, KeyRing, Received, received_head, stepped_head
from rheostat.store.base import Identity
from rheostat.wire.watch import item_from_proto, item_to_proto, position_from_proto

__all__ = ["NotARelayError", "UnreadableError", "mirrored", "position_of"]

_PLAIN: Final = ("setting", "segment")


class UnreadableError(UnavailableError):
    """The upstream sends what this version cannot pass on as it came: the relay has to be updated first."""

    default_reason = "RELAY_OUTDATED"


class NotARelayError(UnavailableError):
    """The upstream has sent a plain stream: the key is not one of a relay."""

    default_reason = "PLAIN_STREAM"


def position_of(held: Held) -> Position:
    """Return the position of a state that there is."""
    assert held.position is not None
    return position_from_proto(held.position)


def mirrored(head: Head | None, update: Update, project: str, environment: str) -> Head:
    """Return the head of one environment after *update*.

    Args:
        head: The one before; None before the first state.
        update: A step of the upstream's stream, or a snapshot of it.
        project: Slug.
        environment: Slug.

    Raises:
        UnreadableError: An item is of a kind or form that this version does not know: passed on in part, it would
            mean something else to the clients that do know it.
        NotARelayError: The stream does not say what a relay needs.
    """
    if update.snapshot:
        return _whole(update, project, environment)
    assert head is not None
    address = (project, environment)
    view, ring = head.views[address], head.rings[address]
    received: list[Received] = []
    keys: list[ItemKey] = []
    for key in sorted(update.changed):
        item = update.held.items.get(key)
        if key[0] == "key":
            keys.append(key)
        elif item is not None:
            former = view.entry(key) if key[0] in _PLAIN else None
            if former is None or former.item is None or former.revision != item.revision:
                received.append(_received(key, item))
        elif key[0] in _PLAIN:
            received.append(Received(key, update.tombstones[key], None))
    return stepped_head(
        head,
        position_of(update.held).revision,
        received,
        _ring(ring, keys, update) if keys else None,
        coalesced=update.coalesced,
    )


def _whole(update: Update, project: str, environment: str) -> Head:
    begin = update.begin
    if begin is None or not begin.token_key:
        raise NotARelayError(
            "the upstream does not take this for a relay; a server that runs open, without keys, cannot"
        )
    position = position_of(update.held)
    identity = Identity(position.store_id, position.generation, position.nonce, begin.token_key)
    items = update.held.items
    received = [_received(key, item) for key, item in items.items() if key[0] != "key"]
    removed = update.tombstones.items()
    received += [Received(key, revision, None) for key, revision in removed if key[0] in _PLAIN]
    ring = _ring(KeyRing(), [key for key in (*items, *update.tombstones) if key[0] == "key"], update)
    return received_head(identity, position.revision, begin.floor, project, environment, received, ring)


def _ring(ring: KeyRing, changed: Iterable[ItemKey], update: Update) -> KeyRing:
    valid, revoked = dict(ring.valid), dict(ring.revoked)
    for key in changed:
        item = update.held.items.get(key)
        if item is None:
            valid.pop(key[1], None)
            revoked[key[1]] = update.tombstones[key]
        else:
            revoked.pop(key[1], None)
            valid[key[1]] = _key(key, item)
    return KeyRing(valid, revoked)


def _key(key: ItemKey, item: HeldItem) -> Key:
    found = item_from_proto(item.message).item
    if not isinstance(found, Key):
        raise _unreadable(key)
    return found


def _received(key: ItemKey, item: HeldItem) -> Received:
    kept: Mapping[str, type[Setting | Segment]] = {"setting": Setting, "segment": Segment}
    found = item.item
    if key[0] not in kept or not isinstance(found, kept[key[0]]):
        raise _unreadable(key)
    # What this version does not know of an item, it has left out.
    if item_to_proto(Entry(*key, item.revision, found)) != item.message:
        raise _unreadable(key)
    return Received(key, item.revision, found)


def _unreadable(key: ItemKey) -> UnreadableError:
    return UnreadableError(
        f"the upstream sends the {key[0]} {key[1]!r} in a form that this version does not know; update the relay",
        metadata={"kind": key[0], "key": key[1]},
    )
