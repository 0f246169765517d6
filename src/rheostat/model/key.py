"""Keys: who may call, for which project and environments."""

from __future__ import annotations

import binascii
import datetime
import enum
import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Final

__all__ = ["KEY_PATTERN", "Key", "KeyKind", "Role", "key_selector", "make_secret", "verify_secret"]


class KeyKind(enum.Enum):
    """What a key is for."""

    PUBLIC = "public"
    SERVER = "server"
    RELAY = "relay"
    USER = "user"


class Role(enum.Enum):
    """What a user key may do; each role includes those before it."""

    VIEWER = "viewer"
    EDITOR = "editor"
    APPROVER = "approver"
    ADMIN = "admin"


KEY_PATTERN: Final = re.compile(
    r"rst_(?P<kind>public|server|relay|user)_(?P<selector>[a-z0-9]{16})_(?P<secret>[0-9a-f]{64})_(?P<crc>[0-9a-f]{8})"
)


@dataclass(frozen=True, slots=True)
class Key:
    """A key as the store holds it: never its secret.

    Attributes:
        selector: 16 letters and digits that find the key; shown everywhere.
        kind: What it is for.
        verifier: SHA-256 of the secret's text.
        project: The project it belongs to; empty for a store-wide user key.
        environments: The environments it may see; empty means all of the project's.
        role: Of a user key; None for other kinds.
        declare: A server key may declare settings, in environments that are not protected.
        declare_protected: It was expressly given that permission, which holds in protected environments too.
        subjects: A public key may name stored subjects in its context.
        description: For people.
        created_at: Aware, UTC.
        expires_at: Aware, UTC; None never.
        revoked_at: Aware, UTC; from then on it answers UNAUTHENTICATED for good. None while it is in force.
        revision: The newest revision that changed it.
        lineage: The selector of the first of the keys that it succeeds by rotation: all of them are one person, or
            one program. Empty when it succeeds none; `rheostat.service.access.Principal.lineage` is never.
    """

    selector: str
    kind: KeyKind
    verifier: bytes
    project: str = ""
    environments: tuple[str, ...] = ()
    role: Role | None = None
    declare: bool = True
    subjects: bool = False
    description: str = ""
    created_at: datetime.datetime | None = None
    expires_at: datetime.datetime | None = None
    revoked_at: datetime.datetime | None = None
    revision: int = 0
    declare_protected: bool = False
    lineage: str = ""


def make_secret(kind: KeyKind, randomness: bytes) -> tuple[str, str, bytes]:
    """Make the text of a new key.

    Args:
        kind: What the key is for.
        randomness: 40 random bytes: 8 for the selector, 32 for the secret.

    Returns:
        The key's text, which is shown once; its selector; the verifier to store.
    """
    if len(randomness) != 40:
        raise ValueError("a key takes 40 random bytes")
    selector = randomness[:8].hex()
    secret = randomness[8:].hex()
    body = f"rst_{kind.value}_{selector}_{secret}"
    return f"{body}_{_crc(body)}", selector, hashlib.sha256(secret.encode()).digest()


def key_selector(text: str) -> str | None:
    """Return the selector of a well-formed key, or None when the text is no key or is mistyped."""
    match = KEY_PATTERN.fullmatch(text)
    if match is None or _crc(text.rpartition("_")[0]) != match["crc"]:
        return None
    return match["selector"]


def verify_secret(text: str, verifier: bytes) -> bool:
    """Tell whether the key's text has the secret that belongs to *verifier*, in constant time."""
    match = KEY_PATTERN.fullmatch(text)
    return match is not None and hmac.compare_digest(
        hashlib.sha256(match["secret"].encode()).digest(), verifier
    )


def _crc(body: str) -> str:
    return f"{binascii.crc32(body.encode()):08x}"
