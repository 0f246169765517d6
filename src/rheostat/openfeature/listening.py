"""Being told where a client stands and what has changed, beside the callbacks that it was made with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final
from weakref import WeakKeyDictionary, ref

from rheostat.sdk.client import BaseClient
from rheostat.sdk.core import Core
from rheostat.sdk.replica import Publication
from rheostat.sdk.status import Status
from rheostat.sdk.subscription import Subscription, Unsubscribe

__all__ = ["NameSubscription", "listen"]

StatusListener = Callable[[Status], None]
NamesListener = Callable[[list[str]], None]

_listeners: Final[WeakKeyDictionary[Core, tuple[StatusListener, ...]]] = WeakKeyDictionary()
"""Who is told of each client's status; replaced as a whole, under the lock of the client."""


def listen(client: BaseClient[Any], on_status: StatusListener, on_names: NamesListener) -> Unsubscribe:
    """Call *on_status* with each new status of *client*, and *on_names* with the names that each revision affects.

    Both are called in order with the client's other callbacks, and must not raise.

    Returns:
        What ends it; it may be called twice.
    """
    core = client._core
    with core.replica.lock():
        if core not in _listeners:
            _listeners[core] = ()
            hooks = core.options.hooks
            core.options = replace(
                core.options, hooks=replace(hooks, on_status=_teller(ref(core), hooks.on_status))
            )
        _listeners[core] = (*_listeners[core], on_status)
    unsubscribe = core.subscribe(NameSubscription(client, on_names))  # type: ignore[arg-type]

    def end() -> None:
        unsubscribe()
        with core.replica.lock():
            _listeners[core] = tuple(each for each in _listeners[core] if each is not on_status)

    return end


def _teller(core: ref[Core], original: Callable[[Status], object] | None) -> Callable[[Status], object]:
    def tell(status: Status) -> object:
        living = core()
        for listener in () if living is None else _listeners[living]:
            listener(status)
        # A coroutine of the caller's is awaited by whoever calls this.
        return None if original is None else original(status)

    return tell


class NameSubscription(Subscription):
    """Told once for each publication, of all names by which what it affects is or was known."""

    __slots__ = ()

    def changes(self, publication: Publication) -> Iterator[Any]:
        """Yield the names, sorted, unless there are none."""
        names = set(publication.affected)
        for view in (publication.before, publication.after):
            for name in publication.affected:
                setting = view.snapshot.settings.get(name)
                if setting is not None:
                    names.update(setting.names)
        if names:
            yield sorted(names)
