"""What must hold of every run, whoever made it: the rules that the simulation and the tests of real processes share.

A test tells what was committed, what writers were told, and what watchers saw; a `Violation` names the rule that was
broken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from rheostat.evaluation.narrow import narrow
from rheostat.model.change import ChangeSet, Item, ItemKey
from rheostat.model.condition import segments_of, settings_of
from rheostat.model.encoding import encode_item
from rheostat.model.position import Filter
from rheostat.model.setting import Segment, Setting
from rheostat.model.snapshot import Snapshot

__all__ = [
    "ACKNOWLEDGED",
    "BOOKMARK",
    "CONVERGENCE",
    "DIGEST",
    "EVALUATION",
    "GAPLESS",
    "ORDER",
    "PROTOCOL",
    "STATE",
    "History",
    "Life",
    "Violation",
    "Watched",
    "check_acknowledged",
    "check_followed",
    "check_gapless",
]

ACKNOWLEDGED: Final = "what was acknowledged is in the store, once"
GAPLESS: Final = "revisions are gapless"
STATE: Final = "each observed state is that of the history at its position"
ORDER: Final = "the position never goes back within one store"
BOOKMARK: Final = "a bookmark means that everything up to it was delivered"
DIGEST: Final = "digests agree"
CONVERGENCE: Final = "every watcher converges"
EVALUATION: Final = "evaluation never raises"
PROTOCOL: Final = "a stream says what the contract lets it say"

Life: TypeAlias = tuple[bytes, int, bytes]
"""One unbroken history: store id, generation, nonce."""

_Address: TypeAlias = tuple[str, str, str, str]


class Violation(AssertionError):  # noqa: N818 - it is what was found, not what went wrong here
    """A rule was broken.

    Attributes:
        rule: The rule.
    """

    def __init__(self, rule: str, what: str) -> None:
        super().__init__(f"not so: {rule}; {what}")
        self.rule = rule


def check_gapless(change_sets: Sequence[ChangeSet], first: int = 1) -> None:
    """Revisions count up from *first*."""
    found = [change_set.revision for change_set in change_sets]
    if found != list(range(first, first + len(found))):
        raise Violation(GAPLESS, f"the store has {found}")


def check_acknowledged(acknowledged: Mapping[str, int], change_sets: Iterable[ChangeSet]) -> None:
    """Each request that was acknowledged with a revision has it, and no request was written twice."""
    written: dict[str, int] = {}
    for change_set in change_sets:
        request = change_set.request_id
        if request and request in written:
            raise Violation(
                ACKNOWLEDGED, f"{request} is in revisions {written[request]} and {change_set.revision}"
            )
        written[request] = change_set.revision
    for request, revision in acknowledged.items():
        if written.get(request) != revision:
            raise Violation(
                ACKNOWLEDGED, f"{request} was acknowledged as {revision}, and is in {written.get(request)}"
            )


def check_followed(seen: Sequence[tuple[int, str]], change_sets: Sequence[ChangeSet]) -> None:
    """Who has followed the store from its beginning saw each revision once, in order, with its message."""
    expected = [(change_set.revision, change_set.message) for change_set in change_sets][: len(seen)]
    if list(seen) != expected:
        at = next(i for i, (one, other) in enumerate(zip([*seen, None], [*expected, None])) if one != other)  # noqa: B905 - the end differs from all
        raise Violation(STATE, f"number {at}: seen {[*seen, None][at]}, committed {[*expected, None][at]}")


class History:
    """All that was ever committed: a store that loses its tail begins another life."""

    def __init__(self) -> None:
        self._lives: dict[Life, list[ChangeSet]] = {}
        self._states: dict[Life, list[dict[_Address, Item]]] = {}
        self._seen: dict[tuple[Life, int, str, Filter], Mapping[ItemKey, Item]] = {}

    def begin(self, life: Life, change_sets: Iterable[ChangeSet]) -> None:
        """Begin a life with what is left of the one before."""
        self._lives[life] = list(change_sets)
        self._states[life] = [{}]

    def add(self, life: Life, change_set: ChangeSet) -> None:
        """Note a commit."""
        self._lives[life].append(change_set)

    def revision(self, life: Life) -> int | None:
        """Return the newest revision of a life; None when there was no such life."""
        found = self._lives.get(life)
        return None if found is None else len(found)

    def state(self, life: Life, revision: int, environment: str, filter_: Filter) -> Mapping[ItemKey, Item]:
        """Return what a watcher holds at *revision*, from the history alone."""
        key = (life, revision, environment, filter_)
        found = self._seen.get(key)
        if found is None:
            found = self._seen[key] = _filtered(self._at(life, revision), environment, filter_)
        return found

    def _at(self, life: Life, revision: int) -> Mapping[_Address, Item]:
        states = self._states[life]
        for change_set in self._lives[life][len(states) - 1 : revision]:
            state = dict(states[-1])
            for change in change_set.changes:
                address = (change.project, change.environment, change.kind, change.key)
                if change.after is None:
                    state.pop(address, None)
                else:
                    state[address] = change.after
            states.append(state)
        return states[revision]


def _filtered(state: Mapping[_Address, Item], environment: str, filter_: Filter) -> Mapping[ItemKey, Item]:
    settings = {
        name: item
        for (_, place, kind, name), item in state.items()
        if (kind, place) == ("setting", environment) and isinstance(item, Setting)
    }
    segments = {
        name: item
        for (_, _, kind, name), item in state.items()
        if kind == "segment" and isinstance(item, Segment)
    }
    wanted: Iterable[str] = settings
    if filter_.names or filter_.prefixes:
        wanted = _closure(settings, segments, filter_)
    if filter_.tracked:
        settings = {**narrow(Snapshot(0, settings, segments), dict(filter_.tracked)).settings}
    held: dict[ItemKey, Item] = {("segment", name): segment for name, segment in segments.items()}
    held.update({("setting", name): settings[name] for name in wanted})
    return held


def _closure(settings: Mapping[str, Setting], segments: Mapping[str, Segment], filter_: Filter) -> set[str]:
    """The settings that a filter lets through, found by repeating until nothing is added."""
    called = {name: setting.name for setting in settings.values() for name in setting.aliases}
    called.update({name: name for name in settings})
    names = {name for name in settings if name.startswith(filter_.prefixes)}
    names |= {called[name] for name in filter_.names if name in called}
    used: set[str] = set()
    while True:
        conditions = [rule.condition for name in names for rule in settings[name].rules if rule.condition]
        conditions += [segments[name].condition for name in used]
        more = {called[name] for each in conditions for name in settings_of(each) if name in called}
        inner = {name for each in conditions for name in segments_of(each) if name in segments}
        if more <= names and inner <= used:
            return names
        names |= more
        used |= inner


class Watched:
    """One watcher: each state that it showed, against the history."""

    def __init__(self, history: History, name: str, environment: str, filter_: Filter) -> None:
        self.history = history
        self.name = name
        self.environment = environment
        self.filter = filter_
        self._last: tuple[bytes, int, int] | None = None
        # What was compared already, by the identity of what the watcher holds; kept, so that it stays that.
        self._compared: dict[int, tuple[Any, Item]] = {}

    def begin_anew(self) -> None:
        """Forget the position: the watcher has lost what it held."""
        self._last = None

    def saw(self, life: Life, revision: int, items: Mapping[ItemKey, Any], *, rule: str = STATE) -> None:
        """Check a state that the watcher shows at a position.

        Args:
            life: The history that it stands in.
            revision: Where it stands.
            items: What it holds, by kind and key.
            rule: What is broken when that is not what the history says: `BOOKMARK` when a bookmark brought it there.
        """
        store, generation, _ = life
        if self._last is not None and self._last[0] == store and self._last[1:] > (generation, revision):
            raise Violation(ORDER, f"{self.name} went from {self._last[1:]} to {(generation, revision)}")
        self._last = (store, generation, revision)
        newest = self.history.revision(life)
        if newest is None or not 0 < revision <= newest:
            raise Violation(
                rule, f"{self.name} stands at generation {generation} revision {revision}, which never was"
            )
        expected = self.history.state(life, revision, self.environment, self.filter)
        if items.keys() != expected.keys():
            raise Violation(
                rule,
                f"{self.name} holds at {(generation, revision)} too much "
                f"{sorted(items.keys() - expected.keys())} and lacks {sorted(expected.keys() - items.keys())}",
            )
        for key, item in items.items():
            compared = self._compared.get(id(item))
            if compared is not None and compared[0] is item and compared[1] is expected[key]:
                continue
            if not _same(item, expected[key]):
                raise Violation(
                    rule,
                    f"{self.name} holds at {(generation, revision)} {_text(item)}, and not "
                    f"{_text(expected[key])}",
                )
            self._compared[id(item)] = (item, expected[key])


def _same(item: Any, expected: Item) -> bool:
    # Equal values may differ in their kind, such as 1 and True; the text tells.
    return type(item) is type(expected) and _text(item) == _text(expected)


def _text(item: Any) -> str:
    return encode_item(item) if isinstance(item, (Setting, Segment)) else repr(item)
