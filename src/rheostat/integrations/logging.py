"""Log levels that follow a setting, live.

    levels = Setting("log.levels", Mapping[str, str], default={})
    stop = follow_levels(client, "log.levels")

With the value ``{"": "WARNING", "shop.checkout": "DEBUG"}`` the root logger logs warnings, and one part of the program
everything, from the moment the change arrives. Only levels are set: no handler is added, so that nothing is logged
twice.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from rheostat.sdk.reader import Reader
from rheostat.sdk.subscription import SettingChange

__all__ = ["follow_levels"]

_LEVELS: Final = logging.getLevelNamesMapping()

log = logging.getLogger("rheostat")


def follow_levels(reader: Reader[Any], name: str = "log.levels") -> Callable[[], None]:
    """Set the levels of loggers as the setting *name* says, now and whenever it changes.

    The setting is a mapping from loggers' names, the empty one being the root, to ``DEBUG``, ``INFO`` and so on in any
    case. A logger that is no longer named gets the level back that it had before. What is no level is logged, and
    left alone. Safe to call from any thread; the levels are set by whoever delivers changes.

    Args:
        reader: A client, or a scoped one, whose context then counts.
        name: The setting.

    Returns:
        What ends it and puts all levels back; may be called twice.
    """
    following = _Following(reader, name)
    stop = reader.subscribe(name, following.changed)
    following.apply(reader.get(name))

    def ended() -> None:
        stop()
        following.apply({})

    return ended


class _Following:
    def __init__(self, reader: Reader[Any], name: str) -> None:
        self._reader = reader
        self._name = name
        self._lock = threading.Lock()
        # By name, the levels that loggers had before this set theirs.
        self._former: dict[str, int] = {}

    def changed(self, _: SettingChange[Any]) -> None:
        self.apply(self._reader.get(self._name))

    def apply(self, wanted: object) -> None:
        levels = self._levels(wanted)
        with self._lock:
            for name in self._former.keys() - levels.keys():
                logging.getLogger(name).setLevel(self._former.pop(name))
            for name, level in levels.items():
                logger = logging.getLogger(name)
                self._former.setdefault(name, logger.level)
                logger.setLevel(level)

    def _levels(self, wanted: object) -> dict[str, int]:
        if wanted is None:
            return {}
        if not isinstance(wanted, Mapping):
            log.warning("the setting %r is no mapping from loggers to levels: %r", self._name, wanted)
            return {}
        found: dict[str, int] = {}
        for name, level in wanted.items():
            number = _LEVELS.get(level.upper()) if isinstance(level, str) else None
            if number is None:
                log.warning("the setting %r has no level for the logger %r: %r", self._name, name, level)
            else:
                found[name] = number
        return found
