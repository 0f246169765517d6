"""Where a watcher stands, its resume token, and the digest over what it holds."""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from rheostat.model.value import canonical_json, freeze

__all__ = ["Filter", "Position", "digest_of", "item_digest", "parse_token", "scope_of"]

_FORMAT: Final = struct.Struct(">B16sQ8sQ8s")
_VERSION: Final = 1
_MAC_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Filter:
    """What a stream carries of an environment; segments always come all. Empty means everything.

    Attributes:
        names: Exact names, closed over the settings that their rules refer to.
        prefixes: Beginnings of names.
        tracked: Attributes, each with the texts that it is one of wherever the watcher evaluates. Rules that can
            match none of them are left out. One that is not named may be anything.
    """

    names: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    tracked: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.names or self.prefixes or self.tracked)

    @property
    def selects(self) -> bool:
        """Whether it lets through some settings only."""
        return bool(self.names or self.prefixes)

    def canonical(self) -> Filter:
        """Return the one form of all filters that say the same: sorted, and nothing twice."""
        return Filter(
            tuple(sorted(set(self.names))),
            tuple(sorted(set(self.prefixes))),
            tuple(sorted((path, tuple(sorted(set(values)))) for path, values in self.tracked)),
        )


@dataclass(frozen=True, slots=True)
class Position:
    """Where a watcher stands.

    Attributes:
        store_id: 16 random bytes, drawn when the store was made.
        generation: Rises when history was lost (failover, restore); ordered.
        nonce: 8 random bytes, drawn whenever a generation begins.
        revision: Everything up to it was delivered.
        scope: 8 bytes that name project, environment and filter; see `scope_of`.
    """

    store_id: bytes
    generation: int
    nonce: bytes
    revision: int
    scope: bytes

    def token(self, key: bytes) -> bytes:
        """Return the opaque resume token, authenticated under the store's token *key*."""
        body = _FORMAT.pack(_VERSION, self.store_id, self.generation, self.nonce, self.revision, self.scope)
        return body + _mac(key, body)

    def same_history(self, other: Position) -> bool:
        """Tell whether both positions are of one scope in one unbroken history."""
        return (
            self.store_id == other.store_id
            and self.generation == other.generation
            and self.nonce == other.nonce
            and self.scope == other.scope
        )


def parse_token(token: bytes, key: bytes) -> Position | None:
    """Return the position of a resume token, or None when it is damaged or was not made under *key*."""
    if len(token) != _FORMAT.size + _MAC_BYTES:
        return None
    body, mac = token[: _FORMAT.size], token[_FORMAT.size :]
    if not hmac.compare_digest(mac, _mac(key, body)):
        return None
    version, store_id, generation, nonce, revision, scope = _FORMAT.unpack(body)
    if version != _VERSION:
        return None
    return Position(store_id, generation, nonce, revision, scope)


def scope_of(project: str, environment: str, filter_: Filter | None = None) -> bytes:
    """Return the 8 bytes that name what a stream is about; never depends on the key."""
    wanted = (filter_ or Filter()).canonical()
    described: dict[str, object] = {"names": wanted.names, "prefixes": wanted.prefixes}
    if wanted.tracked:
        described["tracked"] = dict(wanted.tracked)
    text = canonical_json(freeze({"project": project, "environment": environment, "filter": described}))
    return hashlib.sha256(text.encode()).digest()[:8]


def item_digest(kind: str, key: str, revision: int) -> int:
    """Return one item's part of the digest, an unsigned 64-bit integer."""
    return int.from_bytes(hashlib.sha256(f"{kind}:{key}@{revision}".encode()).digest()[:8], "big")


def digest_of(items: Iterable[tuple[str, str, int]]) -> int:
    """Return the digest of held items given as (kind, key, revision); 0 when there are none."""
    digest = 0
    for kind, key, revision in items:
        digest ^= item_digest(kind, key, revision)
    return digest


def _mac(key: bytes, body: bytes) -> bytes:
    return hmac.digest(key, body, "sha256")[:_MAC_BYTES]
