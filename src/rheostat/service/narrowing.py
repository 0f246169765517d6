"""What a watcher that tracks attributes is sent in place of the settings of an environment.

What is left of a setting depends on the segments that it refers to, too. So its item has the highest revision of
the setting and of those segments, directly or through segments, whether or not anything was left out of it: that
is known without narrowing, and the same for all values that are tracked.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias

from rheostat.evaluation.narrow import Narrower
from rheostat.model.change import ItemKey
from rheostat.model.condition import segments_of
from rheostat.model.position import item_digest
from rheostat.model.setting import Setting
from rheostat.model.snapshot import Snapshot
from rheostat.model.watch import Entry

__all__ = ["NarrowedEntries", "Narrowing", "SegmentUse", "Tracked"]

Tracked: TypeAlias = tuple[tuple[str, tuple[str, ...]], ...]
"""Attributes with their values, as a filter has them."""

_REMEMBERED: Final = 64
"""For how many sets of tracked values the narrowed settings of an environment are kept: those that a node serves
by default; polls may come with any number of others."""

_Remembered: TypeAlias = dict[str, tuple[Setting, Entry]]
"""By name, the setting that was narrowed and the entry that came of it."""


class SegmentUse:
    """Which segments the settings of an environment refer to at one revision. Safe from any thread.

    Attributes:
        digest: What turns the digest over the settings as they are into that over them with `revision`.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        """Read all rules of *snapshot*: some 10 µs for each setting that has some."""
        references = {name: _references(setting) for name, setting in snapshot.settings.items()}
        self._direct: Mapping[str, frozenset[str]] = {name: used for name, used in references.items() if used}
        self._take(snapshot)

    def next(self, before: Snapshot, after: Snapshot, changed: Sequence[ItemKey]) -> SegmentUse:
        """Return the use in *after*, when this is the one in *before* and only *changed* differ."""
        made = SegmentUse.__new__(SegmentUse)
        names = {name for kind, name in changed if kind == "setting"}
        direct = {name: used for name, used in self._direct.items() if name not in names}
        for name in names & after.settings.keys():
            used = _references(after.settings[name])
            if used:
                direct[name] = used
        made._direct = direct
        if any(kind == "segment" for kind, _ in changed):
            made._take(after)
            return made
        made._snapshot = after
        made._reached = self._reached
        made.digest = self.digest
        for name in names:
            made.digest ^= self._part(before.settings.get(name)) ^ made._part(after.settings.get(name))
        return made

    def revision(self, setting: Setting) -> int:
        """Return the highest revision of *setting* and of the segments that it refers to."""
        used = self._direct.get(setting.name)
        if used is None:
            return setting.revision
        return max(setting.revision, *(self._reach(name)[1] for name in used))

    def users(self, segments: Iterable[str]) -> list[str]:
        """Return the settings that refer to any of *segments* that there are, directly or through segments."""
        wanted = {name for name in segments if name in self._snapshot.segments}
        if not wanted:
            return []
        return [
            setting
            for setting, used in self._direct.items()
            if any(not wanted.isdisjoint(self._reach(name)[0]) for name in used)
        ]

    def _take(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._reached: dict[str, tuple[frozenset[str], int]] = {}
        self.digest = 0
        for name in self._direct:
            self.digest ^= self._part(snapshot.settings[name])

    def _part(self, setting: Setting | None) -> int:
        if setting is None:
            return 0
        revision = self.revision(setting)
        if revision == setting.revision:
            return 0
        return item_digest("setting", setting.name, setting.revision) ^ item_digest(
            "setting", setting.name, revision
        )

    def _reach(self, name: str) -> tuple[frozenset[str], int]:
        """The segment *name* with those that it refers to, and the highest of their revisions."""
        found = self._reached.get(name)
        if found is None:
            segments = self._snapshot.segments
            reached: set[str] = set()
            waiting = [name]
            while waiting:
                segment = segments.get(waiting.pop())
                if segment is not None and segment.name not in reached:
                    reached.add(segment.name)
                    waiting.extend(segments_of(segment.condition))
            newest = max((segments[each].revision for each in reached), default=0)
            found = self._reached[name] = frozenset(reached), newest
        return found


class NarrowedEntries:
    """What settings of an environment were narrowed to, for as long as they stay as they are. Safe from any thread."""

    def __init__(self) -> None:
        self._by_tracked: OrderedDict[Tracked, _Remembered] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, tracked: Tracked) -> _Remembered:
        """Return what is remembered for *tracked*, to look up and to add to."""
        with self._lock:
            found = self._by_tracked.setdefault(tracked, {})
            self._by_tracked.move_to_end(tracked)
            while len(self._by_tracked) > _REMEMBERED:
                self._by_tracked.popitem(last=False)
            return found

    def forget(self, name: str) -> None:
        """Forget a setting that is gone."""
        with self._lock:
            for remembered in self._by_tracked.values():
                remembered.pop(name, None)


class Narrowing:
    """Narrows the entries of one revision to tracked values, each at most once. Safe from any thread."""

    def __init__(
        self, snapshot: Snapshot, use: SegmentUse, tracked: Tracked, remembered: _Remembered
    ) -> None:
        """Narrow entries of *snapshot*, of which *use* is the use of segments."""
        self._use = use
        self._narrower = Narrower(snapshot, dict(tracked))
        self._remembered = remembered

    def entry(self, entry: Entry) -> Entry:
        """Return what a watcher is sent for *entry*; segments and tombstones are as they are."""
        setting = entry.item
        if not isinstance(setting, Setting):
            return entry
        revision = self._use.revision(setting)
        found = self._remembered.get(setting.name)
        # The same setting with the same newest segment is left the same rules.
        if found is None or found[0] is not setting or found[1].revision != revision:
            narrowed = Entry(entry.kind, entry.key, revision, self._narrower.narrow(setting))
            found = self._remembered[setting.name] = setting, narrowed
        return found[1]


def _references(setting: Setting) -> frozenset[str]:
    """The segments that the rules of *setting* refer to directly."""
    return frozenset(
        name for rule in setting.rules if rule.condition is not None for name in segments_of(rule.condition)
    )
