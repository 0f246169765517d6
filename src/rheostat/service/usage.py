"""Which keys are in use and which settings are read, as all nodes together know it."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from rheostat.service.sighting import Seen, Sightings

if TYPE_CHECKING:
    from rheostat.model.key import Key
    from rheostat.service.service import Service

__all__ = ["FLUSH_SECONDS", "READ_GRANULARITY", "Usage"]

FLUSH_SECONDS: Final = 60.0
"""How often a node writes down what it has noted."""

_KEY_GRANULARITY: Final = 60

READ_GRANULARITY: Final = 3600
"""Seconds. A setting that is read all the time costs one write an hour, whatever the number of settings and nodes."""


class Usage:
    """Notes in memory which keys are used and which settings are read. Safe from any thread."""

    def __init__(self, service: Service) -> None:
        """Note nothing yet."""
        self._service = service
        self._keys = Sightings(service.store, "key_use", granularity=_KEY_GRANULARITY, clock=service.clock)
        self._reads = Sightings(service.store, "read", granularity=READ_GRANULARITY, clock=service.clock)

    def note_key(self, key: Key) -> None:
        """Note that a call was let in with *key*. Never waits for the store."""
        self._keys.note(_of_keys(key.project), (key.selector,))

    def note_reads(self, project: str, environment: str, names: Iterable[str]) -> None:
        """Note that settings of an environment are read, by name or alias. Never waits for the store.

        Names that the environment does not have are passed over.
        """
        view = self._service.head.views.get((project, environment))
        if view is not None:
            found = [name for name in names if view.snapshot.setting(name) is not None]
            self._reads.note(_of_reads(project, environment), found)

    def flush(self) -> None:
        """Write down what has been noted; the tail does so each `FLUSH_SECONDS`.

        Raises:
            UnavailableError: The store is away; nothing is lost.
        """
        head = self._service.head
        for actor in self._service.admission.actors:
            # A stream that was opened long ago uses its key all the time.
            key = head.state.keys.get(actor)
            if key is not None:
                self.note_key(key)
        self._keys.flush(known=lambda _, selector: selector in head.state.keys)
        views = {_of_reads(*place): view for place, view in head.views.items()}
        self._reads.flush(
            views,
            known=lambda group, name: group not in views or views[group].snapshot.setting(name) is not None,
        )

    def keys_used_at(self, project: str) -> dict[str, datetime.datetime]:
        """Return when the keys of a project, and store-wide ones, were last used, by selector, to the minute."""
        return {**self._keys.seen(_of_keys("")).at, **self._keys.seen(_of_keys(project)).at}

    def reads(self, project: str, environment: str) -> Seen:
        """Return when settings of an environment were last read, by the name they were asked for, to the hour."""
        return self._reads.seen(_of_reads(project, environment))


def _of_keys(project: str) -> str:
    return f"{project}/"


def _of_reads(project: str, environment: str) -> str:
    return f"{project}/{environment}"
