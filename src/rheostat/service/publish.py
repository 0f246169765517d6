"""What watchers read: immutable views of the environments, swapped as one head at each revision.

A watcher is a cursor (the revision it was sent) and a wake-up. Everything that many watchers need is computed
once and kept on the view: deltas, snapshots, the closure of a filter.
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias, TypeVar

from rheostat.evaluation.compile import CompiledSnapshot
from rheostat.model.change import Change, ChangeSet, Environment, Item, ItemKey, Project
from rheostat.model.condition import segments_of, settings_of
from rheostat.model.encoding import encode_item
from rheostat.model.key import Key
from rheostat.model.position import Filter, Position, digest_of, item_digest, scope_of
from rheostat.model.setting import Segment, Setting
from rheostat.model.snapshot import Snapshot
from rheostat.model.state import EnvironmentState, ProjectState, State
from rheostat.model.watch import Content, Delta, Entry, SnapshotEvent
from rheostat.service.narrowing import NarrowedEntries, Narrowing, SegmentUse
from rheostat.store.base import Contents, Identity

__all__ = [
    "Head",
    "Hub",
    "KeyRing",
    "Received",
    "RelayView",
    "ScopedView",
    "View",
    "compacted_head",
    "head_of",
    "next_head",
    "received_head",
    "stepped_head",
]

T = TypeVar("T")

_CACHED_SCOPES: Final = 128

_CACHED_DELTAS: Final = 64
"""Deltas kept for each scope of a view: laggards of so many different positions share them."""


@dataclass(frozen=True, slots=True)
class _Touch:
    """What one revision changed in an environment's stream.

    Attributes:
        keys: The items.
        rewired: Items whose references to settings changed, so that the closure of a filter may have; None
            when that is not known any more.
        realiased: Aliases that a setting got or lost, with the same effect where a name is used as an alias.
        merged: Earlier changes of the same items may be missing: only their newest state was received.
    """

    keys: tuple[ItemKey, ...]
    rewired: frozenset[ItemKey] | None
    realiased: frozenset[str] = frozenset()
    merged: bool = False


class _Log:
    """The revisions that touched one environment, oldest first. Append-only: views share it by length."""

    __slots__ = ("before_first", "floor", "revisions", "touches")

    def __init__(self, floor: int, before_first: int) -> None:
        self.floor = floor
        self.before_first = before_first
        self.revisions: list[int] = []
        self.touches: list[_Touch] = []

    def append(self, revision: int, touch: _Touch) -> None:
        # The touch first: a reader that sees the revision must find it.
        self.touches.append(touch)
        self.revisions.append(revision)

    def compacted(self, floor: int) -> _Log:
        cut = bisect.bisect_right(self.revisions, floor)
        log = _Log(max(floor, self.floor), self.revisions[cut - 1] if cut else self.before_first)
        log.revisions = self.revisions[cut:]
        log.touches = self.touches[cut:]
        return log

    def cut(self, length: int) -> _Log:
        """Return a log of the first *length* revisions: this one, unless it has gone on already."""
        if length == len(self.revisions):
            return self
        log = _Log(self.floor, self.before_first)
        log.revisions = self.revisions[:length]
        log.touches = self.touches[:length]
        return log


class View:
    """One environment as watchers see it at one revision. Immutable but for its caches; safe from any thread.

    Attributes:
        project: Its project.
        environment: Its slug.
        snapshot: What evaluation sees.
        digest: Over all items, unfiltered.
    """

    def __init__(
        self,
        project: str,
        environment: str,
        snapshot: Snapshot,
        tombstones: Mapping[ItemKey, int],
        log: _Log,
        digest: int,
        size: int | None = None,
        segment_use: SegmentUse | None = None,
        narrowed: NarrowedEntries | None = None,
        compiled: CompiledSnapshot | None = None,
    ) -> None:
        self.project = project
        self.environment = environment
        self.snapshot = snapshot
        self.digest = digest
        self._tombstones = tombstones
        self._log = log
        self._length = len(log.revisions)
        self._size = size
        self._segment_use = segment_use
        self._compiled = compiled
        # Passed on from view to view: most settings stay as they are.
        self._narrowed = NarrowedEntries() if narrowed is None else narrowed
        self._scopes: dict[Filter, ScopedView] = {}
        self._relayed: RelayView | None = None
        self._superseded = False
        self._lock = threading.Lock()

    def supersede(self) -> None:
        """Forget the scopes, which refer back here: what no watcher holds is then freed at once.

        The server keeps the collector of reference cycles from running often, and a view can be large.
        """
        with self._lock:
            self._superseded = True
            self._scopes = {}
            relayed, self._relayed = self._relayed, None
        if relayed is not None:
            relayed.supersede()

    def relayed(self, ring: KeyRing) -> RelayView:
        """Return this view with the keys of *ring*; the same object for as long as they are the same."""
        with self._lock:
            former = self._relayed
            if former is not None and (former.ring is ring or former.ring == ring):
                return former
            made = RelayView(self, ring)
            if not self._superseded:
                self._relayed = made
        if former is not None:
            former.supersede()
        return made

    @property
    def floor(self) -> int:
        """Positions below it need a snapshot."""
        return self._log.floor

    @property
    def size(self) -> int:
        """Bytes of all items in their stored form; summed up at the first use and kept up from then on."""
        if self._size is None:
            self._size = sum(_size(entry.item) for entry in self.entries())
        return self._size

    @property
    def segment_use(self) -> SegmentUse:
        """Which settings refer to which segments; read at the first use and kept up from then on."""
        if self._segment_use is None:
            self._segment_use = SegmentUse(self.snapshot)
        return self._segment_use

    @property
    def compiled(self) -> CompiledSnapshot:
        """The compiled evaluator of the snapshot; made at the first use, and passed on from then on."""
        if self._compiled is None:
            self._compiled = CompiledSnapshot(self.snapshot)
        return self._compiled

    def narrowing(self, filter_: Filter) -> Narrowing | None:
        """Return what narrows entries to the values that a filter tracks; None when it tracks none."""
        if not filter_.tracked:
            return None
        remembered = self._narrowed.of(filter_.tracked)
        return Narrowing(self.snapshot, self.segment_use, filter_.tracked, remembered)

    @property
    def tombstones(self) -> Sequence[Entry]:
        """What was removed above the floor."""
        floor = self.floor
        return [
            Entry(kind, name, revision, None)
            for (kind, name), revision in self._tombstones.items()
            if revision > floor
        ]

    def removed_at(self, key: ItemKey) -> int:
        """Return the revision that removed the item; 0 when it exists, never did, or that is compacted."""
        return self._tombstones.get(key, 0)

    def scope(self, filter_: Filter) -> ScopedView:
        """Return the part of this view that a filter lets through; the same object for equal filters."""
        found = self._scopes.get(filter_)
        if found is not None:
            return found
        with self._lock:
            scoped = self._scopes.get(filter_)
            if scoped is None:
                scoped = ScopedView(self, filter_)
                # Polls may come with any number of filters; only so many are worth keeping.
                if not self._superseded and len(self._scopes) < _CACHED_SCOPES:
                    self._scopes[filter_] = scoped
            return scoped

    def entry(self, key: ItemKey) -> Entry | None:
        """Return the item, or its tombstone; None when neither is known."""
        kind, name = key
        item: Setting | Segment | None
        item = self.snapshot.settings.get(name) if kind == "setting" else self.snapshot.segments.get(name)
        if item is not None:
            return Entry(kind, name, item.revision, item)
        revision = self._tombstones.get(key)
        return None if revision is None else Entry(kind, name, revision, None)

    def entries(self) -> Iterable[Entry]:
        """Yield all items: segments first, so that a reader can resolve references as it goes."""
        for name, segment in self.snapshot.segments.items():
            yield Entry("segment", name, segment.revision, segment)
        for name, setting in self.snapshot.settings.items():
            yield Entry("setting", name, setting.revision, setting)

    def touched_at(self, revision: int) -> int | None:
        """Return the newest revision at or before *revision* that touched the stream; None when that is not known."""
        log = self._log
        at = bisect.bisect_right(log.revisions, revision, 0, self._length)
        return log.revisions[at - 1] if at else None

    def touches_since(self, revision: int) -> tuple[int, Sequence[int], Sequence[_Touch]]:
        """Return the last touching revision at or before *revision*, and those after it with what they did."""
        log, length = self._log, self._length
        start = bisect.bisect_right(log.revisions, revision, 0, length)
        before = log.revisions[start - 1] if start else log.before_first
        return before, log.revisions[start:length], log.touches[start:length]


@dataclass(frozen=True)
class KeyRing:
    """The keys that bear on one environment, by selector.

    Attributes:
        valid: Those that were not revoked; some may have expired.
        revoked: The revisions that revoked the others.
    """

    valid: Mapping[str, Key] = field(default_factory=dict)
    revoked: Mapping[str, int] = field(default_factory=dict)

    @functools.cached_property
    def digest(self) -> int:
        """Over the valid keys, as items of a stream."""
        digest = 0
        for selector, key in self.valid.items():
            digest ^= item_digest("key", selector, key.revision)
        return digest

    @functools.cached_property
    def changes(self) -> Sequence[tuple[int, str]]:
        """The last change of each key, as its revision and the selector, oldest first."""
        found = [(key.revision, selector) for selector, key in self.valid.items()]
        found += [(revision, selector) for selector, revision in self.revoked.items()]
        return sorted(found)

    @classmethod
    def of(cls, keys: Iterable[Key], project: str, environment: str) -> KeyRing:
        """Take those of *keys* that open anything in an environment."""
        valid: dict[str, Key] = {}
        revoked: dict[str, int] = {}
        for key in keys:
            if key.project not in ("", project) or (key.environments and environment not in key.environments):
                continue
            if key.revoked_at is None:
                valid[key.selector] = key
            else:
                revoked[key.selector] = key.revision
        return cls(valid, revoked)


class RelayView(View):
    """A view with the keys of its environment, which the streams of relays carry, and no others.

    Nothing of it is kept up from revision to revision: the keys say by their revisions when they changed.

    Attributes:
        ring: The keys.
    """

    def __init__(self, plain: View, ring: KeyRing) -> None:
        """Add the keys of *ring* to the items of *plain*."""
        super().__init__(
            plain.project,
            plain.environment,
            plain.snapshot,
            {**plain._tombstones, **{("key", name): revision for name, revision in ring.revoked.items()}},
            plain._log,
            plain.digest ^ ring.digest,
            plain._size,
            plain._segment_use,
            plain._narrowed,
            plain._compiled,
        )
        self._length = plain._length
        self.ring = ring

    def entry(self, key: ItemKey) -> Entry | None:
        """As `View.entry`, keys too."""
        kind, name = key
        found = self.ring.valid.get(name) if kind == "key" else None
        return super().entry(key) if found is None else Entry(kind, name, found.revision, found)

    def entries(self) -> Iterable[Entry]:
        """As `View.entries`, with the keys first."""
        for selector, key in self.ring.valid.items():
            yield Entry("key", selector, key.revision, key)
        yield from super().entries()

    def touches_since(self, revision: int) -> tuple[int, Sequence[int], Sequence[_Touch]]:
        """As `View.touches_since`; what a key was before its last change is not known."""
        before, revisions, touches = super().touches_since(revision)
        changes = self.ring.changes
        at = bisect.bisect_right(changes, revision, key=lambda each: each[0])
        if at:
            before = max(before, changes[at - 1][0])
        if at == len(changes):
            return before, revisions, touches
        merged = dict(zip(revisions, touches, strict=True))
        for when, selector in changes[at:]:
            touch = merged.get(when) or _Touch((), frozenset())
            merged[when] = replace(touch, keys=(*touch.keys, ("key", selector)))
        ordered = sorted(merged)
        return before, ordered, [merged[when] for when in ordered]


class ScopedView:
    """A view through a filter: what one scope's watchers hold. Safe from any thread."""

    def __init__(self, view: View, filter_: Filter) -> None:
        self.view = view
        self.filter = filter_
        self.scope = scope_of(view.project, view.environment, filter_)
        self.closure: frozenset[str] | None = None
        # Names that lead to the closure: of the filter, and in the references of what is in it.
        self._used: frozenset[str] = frozenset()
        if filter_.selects:
            self.closure, self._used = _closure(view.snapshot, filter_)
        self._narrowing = view.narrowing(filter_)
        self._content: Content | None = None
        self._drawn_in: frozenset[str] | None = None
        self._deltas: OrderedDict[tuple[int, Position], Delta] = OrderedDict()
        # The newest answers: watchers that keep up all ask the same.
        self._newest: tuple[Identity, Position] | None = None
        self._step: tuple[int, Position, Delta | None] | None = None
        self._lock = threading.Lock()

    def holds(self, key: ItemKey) -> bool:
        """Tell whether the scope contains the item, now or when it still existed."""
        kind, name = key
        return (
            self.closure is None or kind != "setting" or name in self.closure or _selected(self.filter, name)
        )

    @property
    def drawn_in(self) -> frozenset[str]:
        """The settings that are in the scope by a reference or an alias only, so not by their names.

        What a filter names enters and leaves the scope as it is made and removed; of these, that is not so.
        """
        if self._drawn_in is None:
            self._drawn_in = frozenset(
                name for name in self.closure or () if not _selected(self.filter, name)
            )
        return self._drawn_in

    @property
    def digest(self) -> int:
        """The digest over the scope's items."""
        if self.closure is not None:
            return self.content.digest
        return (
            self.view.digest if self._narrowing is None else self.view.digest ^ self.view.segment_use.digest
        )

    @property
    def content(self) -> Content:
        """The scope's items; the same object every time, so that what is made of it is shared."""
        with self._lock:
            if self._content is None:
                entries = tuple(map(self._seen, self._held()))
                if self.closure is None:
                    digest = self.digest
                else:
                    digest = digest_of((entry.kind, entry.key, entry.revision) for entry in entries)
                if isinstance(self.view, RelayView):
                    self._content = Content(entries, digest, self.view.tombstones, self.view.floor)
                else:
                    self._content = Content(entries, digest)
            return self._content

    def entries(self) -> Sequence[Entry]:
        """Return the scope's items."""
        return self.content.entries

    def _held(self) -> Iterable[Entry]:
        """The scope's items, not narrowed."""
        return (entry for entry in self.view.entries() if self.holds((entry.kind, entry.key)))

    def _seen(self, entry: Entry) -> Entry:
        return entry if self._narrowing is None else self._narrowing.entry(entry)

    def changed_since(self, revision: int) -> bool:
        """Tell whether the scope changed after *revision*; True when that is not known any more."""
        if revision < self.view.floor:
            return True
        _, _, touches = self.view.touches_since(revision)
        return any(self.holds(key) for touch in touches for key in touch.keys)

    def rewired_since(self, revision: int) -> bool:
        """Tell whether the closure of the filter may have changed after *revision*."""
        if self.closure is None:
            return False
        _, _, touches = self.view.touches_since(revision)
        # Whose alias a name was is not known of revisions from before the node's start.
        by_alias = not self._used <= self.view.snapshot.settings.keys()

        def may_rewire(touch: _Touch) -> bool:
            if touch.rewired is None:
                return by_alias or any(map(self.holds, touch.keys))
            return bool(touch.realiased & self._used) or any(map(self.holds, touch.rewired))

        return any(map(may_rewire, touches))

    def position(self, head: Head) -> Position:
        """Return the position of *head* in this scope; the same object for as long as the head is the newest."""
        newest = self._newest
        if newest is None or newest[0] is not head.identity or newest[1].revision != head.revision:
            newest = self._newest = (head.identity, head.position(self.scope))
        return newest[1]

    def delta(self, held: int, position: Position) -> Delta | None:
        """Return what leads from revision *held* to *position*; None when the scope did not change."""
        step = self._step
        if step is None or step[0] != held or step[1] is not position:
            step = self._step = (held, position, self._delta(held, position))
        return step[2]

    def _delta(self, held: int, position: Position) -> Delta | None:
        _, revisions, touches = self.view.touches_since(held)
        merged: dict[ItemKey, None] = {}
        count = 0
        first = 0
        partial = False
        for revision, touch in zip(revisions, touches, strict=True):
            keys = [key for key in touch.keys if self.holds(key)]
            if keys:
                first = first or revision
                count += 1
                partial = partial or touch.merged
                merged.update(dict.fromkeys(keys))
        if not count:
            return None
        cache_key = (first, position)
        with self._lock:
            cached = self._deltas.get(cache_key)
        if cached is not None:
            return cached
        if self._narrowing is not None:
            # Segments are in every scope, so that this adds no revision to those that touch it.
            users = self.view.segment_use.users(name for kind, name in merged if kind == "segment")
            merged.update(dict.fromkeys(key for name in users if self.holds(key := ("setting", name))))
        delta = Delta(
            from_revision=self._before(first),
            position=position,
            entries=tuple(self._seen(entry) for key in merged if (entry := self.view.entry(key)) is not None),
            coalesced=count > 1 or partial,
            digest=self.digest,
        )
        with self._lock:
            return _cached(self._deltas, cache_key, delta)

    def snapshot(self, position: Position) -> SnapshotEvent:
        """Return the whole scope at *position*."""
        return SnapshotEvent(position, self.content)

    def _before(self, revision: int) -> int:
        """The last revision that changed this scope before *revision*."""
        before, _, _ = self.view.touches_since(revision - 1)
        if self.closure is None:
            return before
        _, revisions, touches = self.view.touches_since(self.view.floor)
        at = bisect.bisect_left(revisions, revision)
        for index in range(at - 1, -1, -1):
            if any(self.holds(key) for key in touches[index].keys):
                return revisions[index]
        # Nothing above the floor. The floor itself will not do: a watcher that keeps up may have been passed over
        # it without a word.
        return max((entry.revision for entry in self._held() if entry.revision <= self.view.floor), default=0)


@dataclass(frozen=True, slots=True)
class Head:
    """Everything a node knows at one revision. Immutable.

    Attributes:
        identity: The history.
        state: The whole store.
        floor: The compaction floor.
        views: By project and environment.
        rings: The keys of environments, by these; of a node they are read from `state` at the first use, and shared
            by the heads until a key changes.
    """

    identity: Identity
    state: State
    floor: int
    views: Mapping[tuple[str, str], View] = field(default_factory=dict)
    rings: dict[tuple[str, str], KeyRing] = field(default_factory=dict, repr=False, compare=False)

    @property
    def revision(self) -> int:
        """The newest revision that is in it."""
        return self.state.revision

    def relayed(self, project: str, environment: str) -> RelayView | None:
        """Return an environment as relays see it, with the keys that bear on it; None when there is no such one."""
        view = self.views.get((project, environment))
        if view is None:
            return None
        ring = self.rings.get((project, environment))
        if ring is None:
            ring = self.rings[project, environment] = KeyRing.of(
                self.state.keys.values(), project, environment
            )
        return view.relayed(ring)

    def position(self, scope: bytes) -> Position:
        """Return the position of this head in *scope*."""
        return Position(
            self.identity.store_id, self.identity.generation, self.identity.nonce, self.revision, scope
        )


def head_of(contents: Contents, state: State) -> Head:
    """Build the head of a store that was just loaded."""
    logs: dict[tuple[str, str], _Log] = {}
    tombstones: dict[tuple[str, str], dict[ItemKey, int]] = {}
    before: dict[tuple[str, str], int] = {}
    environments = {slug: list(project.environments) for slug, project in state.projects.items()}
    for stored in contents.items:
        # The newest revision at or below the floor that can have touched the stream.
        for environment in _environments(
            stored.kind, stored.environment, environments.get(stored.project, [])
        ):
            if stored.item.revision <= contents.floor:
                address = (stored.project, environment)
                before[address] = max(before.get(address, 0), stored.item.revision)
    for project, slugs in environments.items():
        for slug in slugs:
            logs[project, slug] = _Log(contents.floor, before.get((project, slug), 0))
            tombstones[project, slug] = {}
    for tombstone in contents.tombstones:
        for environment in _environments(
            tombstone.kind, tombstone.environment, environments.get(tombstone.project, [])
        ):
            tombstones[tombstone.project, environment][tombstone.kind, tombstone.key] = tombstone.revision
    for revision, addresses in contents.touched:
        keys: dict[tuple[str, str], list[ItemKey]] = {}
        for project, environment, kind, key in addresses:
            for slug in _environments(kind, environment, environments.get(project, [])):
                keys.setdefault((project, slug), []).append((kind, key))
        for address, touched in keys.items():
            logs[address].append(revision, _Touch(tuple(touched), None))
    views = {
        (project, slug): _fresh_view(state, project, slug, tombstones[project, slug], log)
        for (project, slug), log in logs.items()
    }
    return Head(contents.identity, state, contents.floor, views)


def next_head(head: Head, change_set: ChangeSet, *, rule_number: int | None = None) -> Head:
    """Return the head after one more change-set; views that it does not touch stay the same objects."""
    number = head.state.rule_number + change_set.rule_numbers if rule_number is None else rule_number
    state = head.state.apply(change_set.changes, change_set.revision, number)
    views = dict(head.views)
    touched: dict[tuple[str, str], list[Change]] = {}
    for change in change_set.changes:
        project = state.projects.get(change.project)
        slugs = [] if project is None else list(project.environments)
        if (
            change.kind == "environment"
            and change.after is not None
            and (change.project, change.key) not in views
        ):
            views[change.project, change.key] = _fresh_view(
                state, change.project, change.key, {}, _Log(head.floor, change_set.revision)
            )
        for slug in _environments(change.kind, change.environment, slugs):
            touched.setdefault((change.project, slug), []).append(change)
    for address, changes in touched.items():
        if address in head.views:
            views[address] = _next_view(views[address], state, [(change_set.revision, changes)])
        else:
            # Made by this very change-set: no watcher can have a position in it yet.
            view = views[address]
            views[address] = _fresh_view(state, *address, {}, view._log)
    keys_changed = any(change.kind == "key" for change in change_set.changes)
    return Head(head.identity, state, head.floor, views, {} if keys_changed else head.rings)


@dataclass(frozen=True, slots=True)
class Received:
    """An item of one environment, or its tombstone, as a relay got it.

    Attributes:
        key: Its kind, which is ``setting`` or ``segment``, and its key.
        revision: The revision that changed or removed it.
        item: None for a tombstone.
    """

    key: ItemKey
    revision: int
    item: Setting | Segment | None


def received_head(
    identity: Identity,
    revision: int,
    floor: int,
    project: str,
    environment: str,
    received: Iterable[Received],
    ring: KeyRing,
) -> Head:
    """Build the head of one environment from a whole state, as the stream of a relay brings it.

    Args:
        identity: The history.
        revision: Up to which the state is complete.
        floor: Above it the tombstones are complete.
        project: Slug.
        environment: Slug.
        received: All items, and the tombstones.
        ring: The keys of the environment.
    """
    settings: dict[str, Setting] = {}
    segments: dict[str, Segment] = {}
    tombstones: dict[ItemKey, int] = {}
    touched: dict[int, list[ItemKey]] = {}
    before = 0
    for each in received:
        match each.item:
            case Setting():
                settings[each.key[1]] = each.item
            case Segment():
                segments[each.key[1]] = each.item
            case None:
                tombstones[each.key] = each.revision
        if each.revision > floor:
            touched.setdefault(each.revision, []).append(each.key)
        else:
            before = max(before, each.revision)
    log = _Log(floor, before)
    for at in sorted(touched):
        log.append(at, _Touch(tuple(touched[at]), None, merged=True))
    state = State(
        {
            project: ProjectState(
                Project(project),
                {environment: EnvironmentState(Environment(environment), settings)},
                segments,
            )
        },
        ring.valid,
        revision,
    )
    view = _fresh_view(state, project, environment, tombstones, log)
    address = (project, environment)
    return Head(identity, state, floor, {address: view}, {address: ring})


def stepped_head(
    head: Head,
    revision: int,
    received: Iterable[Received] = (),
    ring: KeyRing | None = None,
    *,
    coalesced: bool = False,
) -> Head:
    """Return what follows the head of one environment, as a step of a relay's stream brings it.

    Args:
        head: As `received_head` made it.
        revision: Up to which the next one is complete.
        received: What has changed.
        ring: The keys of the environment; None when they are the same.
        coalesced: The step merges several revisions.
    """
    (address,) = head.views
    project, environment = address
    view = head.views[address]
    ring = head.rings[address] if ring is None else ring
    state = replace(head.state, keys=ring.valid, revision=revision)
    changes: dict[int, list[Change]] = {}
    for each in received:
        kind = "setting" if each.key[0] == "setting" else "segment"
        before = view.entry(each.key)
        changes.setdefault(each.revision, []).append(
            Change(
                project,
                environment if kind == "setting" else "",
                kind,
                each.key[1],
                None if before is None else before.item,
                each.item,
            )
        )
    if changes:
        ordered = [(at, changes[at]) for at in sorted(changes)]
        state = state.apply((change for _, some in ordered for change in some), revision, 0)
        view = _next_view(view, state, ordered, merged=coalesced)
    return Head(head.identity, state, head.floor, {address: view}, {address: ring})


def compacted_head(head: Head, floor: int) -> Head:
    """Return the head with its logs cut at *floor*.

    Not while another head is made after it: they may share their logs.
    """
    views = {
        address: View(
            view.project,
            view.environment,
            view.snapshot,
            {key: revision for key, revision in view._tombstones.items() if revision > floor},
            # It may have gone on for a head that was made and is not published, or never was.
            view._log.cut(view._length).compacted(floor),
            view.digest,
            view._size,
            view._segment_use,
            view._narrowed,
            view._compiled,
        )
        for address, view in head.views.items()
    }
    return Head(head.identity, head.state, floor, views, dict(head.rings))


def _environments(kind: str, environment: str, all_: Sequence[str]) -> Sequence[str]:
    """The environments whose plain streams an item belongs to."""
    if kind == "setting":
        return [environment] if environment in all_ else []
    return all_ if kind == "segment" else []


def _fresh_view(
    state: State, project: str, environment: str, tombstones: Mapping[ItemKey, int], log: _Log
) -> View:
    snapshot = state.projects[project].snapshot(environment, state.revision)
    digest = 0
    for kind, items in (("setting", snapshot.settings), ("segment", snapshot.segments)):
        for name, item in items.items():
            digest ^= item_digest(kind, name, item.revision)
    return View(project, environment, snapshot, tombstones, log, digest)


def _next_view(
    view: View, state: State, steps: Sequence[tuple[int, Sequence[Change]]], *, merged: bool = False
) -> View:
    """Return the view after *steps*: by revision, ascending, what was changed.

    Args:
        view: What was before.
        state: What is after all steps.
        steps: An item stands in one of them at most.
        merged: The steps may leave out earlier changes of the same items.
    """
    tombstones = dict(view._tombstones)
    digest = view.digest
    size = view._size
    # Views of the past keep their length; one whose successor was made, but never published, gets another log.
    log = view._log.cut(view._length)
    touched: list[ItemKey] = []
    for revision, changes in steps:
        rewired: set[ItemKey] = set()
        realiased: set[str] = set()
        for change in changes:
            key = (change.kind, change.key)
            if size is not None:
                size += _size(change.after) - _size(change.before)
            if change.before is not None:
                digest ^= item_digest(change.kind, change.key, change.before.revision)
            if change.after is None:
                tombstones[key] = revision
                if change.kind == "setting":
                    view._narrowed.forget(change.key)
            else:
                tombstones.pop(key, None)
                digest ^= item_digest(change.kind, change.key, change.after.revision)
            if _references(change.before) != _references(change.after):
                rewired.add(key)
            realiased |= _aliases(change.before) ^ _aliases(change.after)
        keys = tuple((change.kind, change.key) for change in changes)
        touched += keys
        known = None if merged else frozenset(rewired)
        log.append(revision, _Touch(keys, known, frozenset(realiased), merged))
    snapshot = state.projects[view.project].snapshot(view.environment, state.revision)
    use = view._segment_use
    if use is not None:
        use = use.next(view.snapshot, snapshot, touched)
    compiled = view._compiled
    if compiled is not None:
        compiled = CompiledSnapshot(
            snapshot,
            previous=compiled,
            settings=[name for kind, name in touched if kind == "setting"],
            segments=[name for kind, name in touched if kind == "segment"],
        )
    return View(
        view.project,
        view.environment,
        snapshot,
        tombstones,
        log,
        digest,
        size,
        use,
        view._narrowed,
        compiled,
    )


def _size(item: Item | None) -> int:
    return 0 if item is None else len(encode_item(item).encode())


def _aliases(item: Item | None) -> set[str]:
    return set(item.aliases) if isinstance(item, Setting) else set()


def _references(item: object) -> tuple[frozenset[str], frozenset[str]]:
    match item:
        case Setting(rules=rules):
            conditions = [rule.condition for rule in rules if rule.condition is not None]
        case Segment(condition=condition):
            conditions = [condition]
        case _:
            conditions = []
    return (
        frozenset(name for condition in conditions for name in settings_of(condition)),
        frozenset(name for condition in conditions for name in segments_of(condition)),
    )


def _selected(filter_: Filter, name: str) -> bool:
    return name in filter_.names or name.startswith(filter_.prefixes)


def _closure(snapshot: Snapshot, filter_: Filter) -> tuple[frozenset[str], frozenset[str]]:
    """The selected settings and all that they refer to, directly or through segments; the names used for that."""
    used = set(filter_.names)
    wanted = [name for name in snapshot.settings if _selected(filter_, name)]
    for name in filter_.names:
        found = snapshot.setting(name)
        if found is not None:
            wanted.append(found.name)
    closure: set[str] = set()
    seen_segments: set[str] = set()
    while wanted:
        name = wanted.pop()
        setting = snapshot.setting(name)
        if setting is None or setting.name in closure:
            continue
        closure.add(setting.name)
        settings, segments = _references(setting)
        wanted.extend(settings)
        used |= settings
        pending = list(segments)
        while pending:
            segment_name = pending.pop()
            segment = snapshot.segments.get(segment_name)
            if segment is None or segment_name in seen_segments:
                continue
            seen_segments.add(segment_name)
            inner_settings, inner_segments = _references(segment)
            wanted.extend(inner_settings)
            used |= inner_settings
            pending.extend(inner_segments)
    return frozenset(closure), frozenset(used)


K = TypeVar("K")


def _cached(cache: OrderedDict[K, T], key: K, made: T) -> T:
    """Keep the first of equal entries, so that all watchers share one object."""
    kept = cache.setdefault(key, made)
    while len(cache) > _CACHED_DELTAS:
        cache.popitem(last=False)
    return kept


_Waiter: TypeAlias = "threading.Lock"
"""Held by whoever waits, and released to wake him."""


def _release(waiters: dict[_Waiter, None]) -> None:
    # Taken out one by one: what interrupts this may be about to release the same ones, and none is to be twice.
    with contextlib.suppress(KeyError):
        while True:
            waiters.popitem()[0].release()


class Hub:
    """The current head, and a wake-up for whoever waits for the next one.

    Safe from any thread, and from a handler of signals, which may come in the middle of any of this.
    """

    def __init__(self, head: Head) -> None:
        self._head = head
        # Guards what follows. No condition: that has all whom it wakes pass through its lock, one after the other, and
        # wakes those who are told of subjects and those who are not together. Re-entrant for handlers of signals.
        self._lock = threading.RLock()
        self._waiters: dict[_Waiter, None] = {}
        self._told_waiters: dict[_Waiter, None] = {}
        self._listeners: list[Callable[[], None]] = []
        self._told: list[Callable[[], None]] = []
        self._bell = 0
        self._notes = 0

    @property
    def head(self) -> Head:
        """The newest head; reading it takes no lock."""
        return self._head

    @property
    def bell(self) -> int:
        """Counts wake-ups; compare with an earlier reading to see whether one was missed."""
        return self._bell

    def publish(self, head: Head) -> None:
        """Make *head* the current one and wake all waiters."""
        former, self._head = self._head, head
        for address, view in former.views.items():
            if head.views.get(address) is not view:
                view.supersede()
        self.ring()

    def ring(self) -> None:
        """Wake all waiters without a new head: draining, revoked keys."""
        with self._lock:
            self._bell += 1
            waiters, self._waiters = self._waiters, {}
            told, self._told_waiters = self._told_waiters, {}
            listeners = tuple(self._listeners)
        _release(waiters)
        _release(told)
        for listener in listeners:
            listener()

    @property
    def notes(self) -> int:
        """Counts what `tell` was called for, as `bell` does the rings."""
        return self._notes

    def tell(self) -> None:
        """Wake those who are told of subjects, and nobody else: there are many such changes, and few who care."""
        with self._lock:
            self._notes += 1
            waiters, self._told_waiters = self._told_waiters, {}
            told = tuple(self._told)
        _release(waiters)
        for listener in told:
            listener()

    def wait(self, bell: int, timeout: float, notes: int | None = None) -> None:
        """Block until the bell has rung after *bell*, or for *timeout* seconds.

        Args:
            bell: What the bell was.
            timeout: Seconds.
            notes: Of one who is told of subjects, what `notes` was: those wake too.
        """
        waiter = threading.Lock()
        waiter.acquire()
        woken = False
        try:
            with self._lock:
                waiters = self._waiters if notes is None else self._told_waiters
                waiters[waiter] = None
                # Looked at afterwards: a signal in between would else ring for nobody.
                missed = self._bell != bell or (notes is not None and self._notes != notes)
            woken = not missed and waiter.acquire(timeout=timeout)
        finally:
            # An exception may end the wait too: gevent raises those of its timeouts and ended greenlets here.
            if not woken:
                with self._lock:
                    self._waiters.pop(waiter, None)
                    self._told_waiters.pop(waiter, None)

    def reach(self, revision: int, timeout: float, monotonic: Callable[[], float]) -> Head:
        """Return the head once it has reached *revision*, or as it is after *timeout* seconds of *monotonic*."""
        deadline = monotonic() + timeout
        while True:
            bell, head = self.bell, self.head
            left = deadline - monotonic()
            if head.revision >= revision or left <= 0:
                return head
            self.wait(bell, left)

    def listen(
        self, listener: Callable[[], None], told: Callable[[], None] | None = None
    ) -> Callable[[], None]:
        """Call *listener* (from any thread; it must not block) at each ring; returns what ends that.

        Args:
            listener: See above.
            told: Likewise, whenever there is something for those who are told of subjects.
        """
        with self._lock:
            self._listeners.append(listener)
            if told is not None:
                self._told.append(told)

        def stop() -> None:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)
                if told is not None and told in self._told:
                    self._told.remove(told)

        return stop
