"""A disk of files in memory, which a crash may cut or alter."""

from __future__ import annotations

import random
from typing import Any

from rheostat.sdk.cache import Cache
from rheostat.sdk.held import Held

__all__ = ["Disk", "DiskCache"]


class Disk:
    """Files by name. Writing replaces one as a whole, as a rename does."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def damage(self, name: str, randomness: random.Random) -> None:
        """Cut a file, or turn one bit of it."""
        content = self.files.get(name)
        if content is None:
            return
        at = randomness.randrange(len(content))
        if randomness.random() < 0.5:
            self.files[name] = content[:at]
        else:
            turned = content[at] ^ 1 << randomness.randrange(8)
            self.files[name] = content[:at] + bytes([turned]) + content[at + 1 :]


class DiskCache(Cache):
    """The client's cache, on a disk of the simulation."""

    disk: Disk

    def read(self) -> Held | None:
        content = self.disk.files.get(self.path.name)
        return None if content is None else self.parse(content)

    def write(self, held: Held, **_options: Any) -> None:
        self.disk.files[self.path.name] = self.content(held)
