"""A client's core without a driver, whose state the test writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from rheo.v1 import watch_pb2
from rheostat.model.change import ItemKey
from rheostat.model.position import item_digest
from rheostat.model.setting import Segment, Setting
from rheostat.model.type import INT, SettingType
from rheostat.model.value import Value
from rheostat.sdk.core import Core, Options
from rheostat.sdk.held import Held, HeldItem
from rheostat.sdk.reader import Reader
from rheostat.sdk.replica import Publication
from rheostat.sdk.subscription import SettingChange, Subscription, Unsubscribe

__all__ = ["State", "setting"]


def setting(
    name: str, value: Value = 0, *, type_: SettingType = INT, id_: str = "", **fields: Any
) -> Setting:
    return Setting(id=id_ or f"id-{name}", name=name, type=type_, default=value, **fields)


class State:
    """See the module.

    Attributes:
        publications: All that were published.
        told: The changes that subscribers were told of by `tell`.
    """

    def __init__(
        self, *items: Setting | Segment, defaults: Mapping[str, object] | None = None, **options: Any
    ) -> None:
        self.core = Core(Options(url="http://127.0.0.1:1", **options))
        self.replica = self.core.replica
        self.reader: Reader[Any] = Reader()
        self.reader._read_from(self.core, self.replica, (), defaults or {})
        self.publications: list[Publication] = []
        self.told: list[SettingChange[Any]] = []
        listener = self.replica.listener
        assert listener is not None

        def listen(publication: Publication) -> None:
            self.publications.append(publication)
            listener(publication)

        self.replica.listener = listen
        self.replica.wants_affected = True
        self.revision = 0
        self.write(*items)

    def write(self, *items: Setting | Segment, gone: Iterable[str] = ()) -> frozenset[str]:
        """Deliver one revision; returns the names that it affects."""
        self.revision += 1
        held = dict(self.replica.held.items)
        changed: list[ItemKey] = []
        for name in gone:
            del held["setting", name]
            changed.append(("setting", name))
        for item in items:
            kind = "setting" if isinstance(item, Setting) else "segment"
            held[kind, item.name] = HeldItem(
                self.revision, item, watch_pb2.Item(kind=kind, key=item.name, revision=self.revision)
            )
            changed.append((kind, item.name))
        digest = 0
        for (kind, key), each in held.items():
            digest ^= item_digest(kind, key, each.revision)
        position = watch_pb2.Position(store_id=bytes(16), generation=1, revision=self.revision)
        before = len(self.publications)
        self.replica.advance(Held(position, held, digest), changed)
        return self.publications[-1].affected if len(self.publications) > before else frozenset()

    def rename(self, before: Setting, name: str) -> frozenset[str]:
        """Deliver a rename as the server does: a tombstone and the same setting under its new name."""
        renamed = dataclasses.replace(before, name=name, aliases=(*before.aliases, before.name))
        return self.write(renamed, gone=[before.name])

    def subscribe(self, name: str | None = None) -> Unsubscribe:
        return self.core.subscribe(Subscription(self.reader, self.told.append, name))

    def tell(self) -> list[SettingChange[Any]]:
        """Deliver the callbacks; returns what was told since the last time."""
        before = len(self.told)
        for callback, arguments in self.core.dispatcher.calls():
            callback(*arguments)
        return self.told[before:]
