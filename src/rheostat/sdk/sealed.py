"""Files that hold a state whole or not at all: with a checksum, and put in place when they are written."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

__all__ = ["replace_by", "sealed", "unsealed"]

_HASH_BYTES: Final = hashlib.sha256().digest_size


def sealed(magic: bytes, body: bytes) -> bytes:
    """Return the content of a file: its *magic*, the SHA-256 of the *body*, and that."""
    return magic + hashlib.sha256(body).digest() + body


def unsealed(magic: bytes, content: bytes) -> bytes:
    """Return the body of a file.

    Raises:
        ValueError: It is not what was written; the text says why.
    """
    if not content.startswith(magic):
        raise ValueError("it is no cache of this version")
    checksum = content[len(magic) : len(magic) + _HASH_BYTES]
    body = content[len(magic) + _HASH_BYTES :]
    if not hmac.compare_digest(checksum, hashlib.sha256(body).digest()):
        raise ValueError("its checksum is wrong")
    return body


def replace_by(path: Path, content: bytes, *, draft: str, sync: Callable[[int], None] | None = None) -> None:
    """Replace the file at *path*: readers see the old one or the new one, never a part. Its owner alone may read it.

    Args:
        path: The file; its folders are made.
        content: What it is to hold.
        draft: The name of the file in the same folder that is written first. It must not be there.
        sync: Makes the content of a descriptor outlast a loss of power; by default `os.fsync`.

    Raises:
        OSError: It cannot be written; the old one stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(draft)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            (sync or os.fsync)(file.fileno())
        beside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise
