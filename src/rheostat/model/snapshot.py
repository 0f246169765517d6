"""What one environment holds at a revision: the input of every evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Self, TypeVar

from rheostat.model.setting import Segment, Setting

__all__ = ["Snapshot"]

T = TypeVar("T")


class Snapshot:
    """The settings and segments of one environment at one revision. Immutable; safe from any thread.

    Attributes:
        revision: The store's revision up to which this is complete.
        features: The project's hierarchy, general to specific.
        settings: By current name.
        segments: By name.
    """

    __slots__ = ("_aliases", "features", "revision", "segments", "settings")

    def __init__(
        self,
        revision: int = 0,
        settings: Mapping[str, Setting] | None = None,
        segments: Mapping[str, Segment] | None = None,
        features: tuple[str, ...] = (),
    ) -> None:
        """Take over *settings* and *segments*, which nobody may change afterwards."""
        self.revision = revision
        self.features = features
        self.settings: Mapping[str, Setting] = {} if settings is None else settings
        self.segments: Mapping[str, Segment] = {} if segments is None else segments
        self._aliases: Mapping[str, str] | None = None

    @classmethod
    def of(
        cls,
        settings: Iterable[Setting] = (),
        segments: Iterable[Segment] = (),
        *,
        revision: int = 0,
        features: tuple[str, ...] = (),
    ) -> Self:
        """Make a snapshot of the given settings and segments."""
        return cls(revision, {s.name: s for s in settings}, {s.name: s for s in segments}, features)

    def setting(self, name: str) -> Setting | None:
        """Return the setting whose name or alias is *name*, or None."""
        found = self.settings.get(name)
        if found is not None:
            return found
        if self._aliases is None:
            # Built on the first miss: most lookups are by current name, and most snapshots see no miss.
            self._aliases = {
                alias: setting.name for setting in self.settings.values() for alias in setting.aliases
            }
        current = self._aliases.get(name)
        return None if current is None else self.settings[current]

    def replace(
        self,
        revision: int,
        *,
        settings: Mapping[str, Setting | None] | None = None,
        segments: Mapping[str, Segment | None] | None = None,
        features: tuple[str, ...] | None = None,
    ) -> Snapshot:
        """Return the next snapshot: each named item replaced, or removed where it is None."""
        return Snapshot(
            revision,
            _replaced(self.settings, settings),
            _replaced(self.segments, segments),
            self.features if features is None else features,
        )


def _replaced(old: Mapping[str, T], new: Mapping[str, T | None] | None) -> Mapping[str, T]:
    if not new:
        return old
    merged = dict(old)
    for name, item in new.items():
        if item is None:
            merged.pop(name, None)
        else:
            merged[name] = item
    return merged
