"""Being told of changes: who wants to know what, and what is still to be delivered, in order.

Publications are queued where they happen and delivered by the driver elsewhere, so that no callback holds up the
stream.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from rheostat.model.value import ABSENT, Absent
from rheostat.sdk.replica import Publication, View

if TYPE_CHECKING:
    from rheostat.sdk.reader import Reader
    from rheostat.sdk.setting import Setting

__all__ = ["Dispatcher", "SettingChange", "Subscription", "Unsubscribe"]

T = TypeVar("T")

Unsubscribe: TypeAlias = Callable[[], None]

log = logging.getLogger("rheostat")


@dataclass(frozen=True, slots=True)
class SettingChange(Generic[T]):
    """A setting may give other values than before: its value, its rules, or what these refer to has changed.

    A change of the description, or a commit of what was there already, is none. Values are those of the context of
    the client, or of the scoped client, that was subscribed to: they are equal where only other contexts are affected.

    Attributes:
        name: The name that was subscribed to; the current one for subscribers to everything.
        before: The value until now; ABSENT when there was no such setting.
        after: The value from now on; ABSENT when the setting is gone.
        revision: The revision that is shown from now on.
    """

    name: str
    before: T | Absent
    after: T | Absent
    revision: int

    @property
    def created(self) -> bool:
        """Whether the setting is new."""
        return self.before is ABSENT

    @property
    def deleted(self) -> bool:
        """Whether the setting is gone."""
        return self.after is ABSENT


@dataclass(eq=False, slots=True)
class Subscription:
    """One callback.

    Attributes:
        reader: In whose context values are given.
        callback: Called with a `SettingChange`.
        name: The name or alias that it is about; None for all settings.
        setting: Whose type the values have; None for those of the wire.
        active: It has not ended.
    """

    reader: Reader[Any]
    callback: Callable[[SettingChange[Any]], object]
    name: str | None = None
    setting: Setting[Any] | None = None
    active: bool = True

    def changes(self, publication: Publication) -> Iterator[SettingChange[Any]]:
        """Yield what *publication* means to it."""
        before, after = publication.before, publication.after
        if self.name is not None:
            # By whatever name it has: a rename alone is no change.
            current = {self.name, _current(before, self.name), _current(after, self.name)}
            if not current.isdisjoint(publication.affected):
                yield self._change(self.name, publication)
            return
        seen: set[str] = set()
        for name in sorted(publication.affected):
            shown = name
            if name not in after.snapshot.settings:
                if name not in before.snapshot.settings:
                    # An alias, of which the subscribers to everything do not hear.
                    continue
                # Renamed, unless it is gone: one change, under the new name.
                shown = _current(after, name) or name
            if shown not in seen:
                seen.add(shown)
                yield self._change(shown, publication)

    def _change(self, name: str, publication: Publication) -> SettingChange[Any]:
        before, after = publication.before, publication.after
        return SettingChange(
            name,
            self.reader.value_in(before, self._name_in(before, name, after), self.setting),
            self.reader.value_in(after, name, self.setting),
            after.snapshot.revision,
        )

    def _name_in(self, before: View, name: str, after: View) -> str:
        """Return the name that the setting had before: a new name was unknown then."""
        if before.snapshot.setting(name) is None:
            setting = after.snapshot.setting(name)
            if setting is not None:
                return next((n for n in setting.aliases if before.snapshot.setting(n) is not None), name)
        return name


def _current(view: View, name: str) -> str | None:
    setting = view.snapshot.setting(name)
    return None if setting is None else setting.name


@dataclass(eq=False, slots=True)
class Dispatcher:
    """The subscriptions of a client and what they have not been told yet. Safe from any thread.

    Attributes:
        wake: Called when there is something to deliver; it must not block.
    """

    wake: Callable[[], None] = lambda: None
    # By identity, in order: adding and removing one is atomic.
    _subscriptions: dict[Subscription, None] = field(default_factory=dict)
    _queue: deque[
        tuple[Publication, tuple[Subscription, ...]] | tuple[Callable[..., object], tuple[Any, ...]]
    ] = field(default_factory=deque)
    # Of the publication that is being delivered, one by one: a fork in the midst of it loses none.
    _changes: deque[tuple[Subscription, SettingChange[Any]]] = field(default_factory=deque)

    def subscribe(self, subscription: Subscription) -> Unsubscribe:
        """Tell *subscription* of what is published from now on; returns what ends that, which may be called twice."""
        self._subscriptions[subscription] = None

        def unsubscribe() -> None:
            subscription.active = False
            self._subscriptions.pop(subscription, None)

        return unsubscribe

    @property
    def names(self) -> frozenset[str]:
        """The names of the settings that somebody has subscribed to by name."""
        return frozenset(each.name for each in tuple(self._subscriptions) if each.name is not None)

    def publish(self, publication: Publication) -> None:
        """Queue *publication* for those who are subscribed now."""
        if publication.affected and self._subscriptions:
            self._queue.append((publication, tuple(self._subscriptions)))
            self.wake()

    def call(self, hook: Callable[..., object] | None, *arguments: Any) -> None:
        """Queue the call of a *hook*, behind all that was queued before; None does nothing."""
        if hook is not None:
            self._queue.append((hook, arguments))
            self.wake()

    def calls(self) -> Iterator[tuple[Callable[..., object], tuple[Any, ...]]]:
        """Take what is queued and yield each callback with its arguments, in order. For one thread or task."""
        while self._changes or self._queue:
            if self._changes:
                subscription, change = self._changes.popleft()
                if subscription.active:
                    yield subscription.callback, (change,)
                continue
            first, second = self._queue[0]
            if isinstance(first, Publication):
                changes = [(each, change) for each in second for change in _changes(each, first)]
                self._queue.popleft()
                self._changes.extend(changes)
            else:
                self._queue.popleft()
                yield first, second

    def deliver(self) -> None:
        """Call all that is queued. What a callback raises, were it the end of the program, ends nothing here."""
        for callback, arguments in self.calls():
            try:
                callback(*arguments)
            except BaseException as error:  # noqa: BLE001 - a callback is the caller's
                failed(callback, error)

    async def deliver_async(self) -> None:
        """Call all that is queued, and await what is awaitable; see `deliver`.

        Raises:
            asyncio.CancelledError: This task was cancelled, not one that a callback awaited.
        """
        task = asyncio.current_task()
        for callback, arguments in self.calls():
            try:
                found = callback(*arguments)
                if inspect.isawaitable(found):
                    await found
            except GeneratorExit:
                raise
            except BaseException as error:
                if task is not None and task.cancelling():
                    raise
                failed(callback, error)

    def __bool__(self) -> bool:
        return bool(self._changes or self._queue)


def _changes(subscription: Subscription, publication: Publication) -> Sequence[SettingChange[Any]]:
    try:
        return tuple(subscription.changes(publication))
    except Exception as error:  # noqa: BLE001 - types of declared settings are the caller's
        failed(subscription.callback, error)
        return ()


def failed(callback: Callable[..., object], error: BaseException) -> None:
    """Log what a callback has raised; delivery goes on."""
    name = getattr(callback, "__qualname__", repr(callback))
    log.error("the callback %s has raised %s", name, type(error).__name__, exc_info=error)
