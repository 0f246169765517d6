"""The last known good state in a file: used when the server is away at start, refused when it is damaged.

The file is a line of ASCII, ``rheostat-cache 1``, the SHA-256 of all that follows, a JSON object that says what the
state is of, on a line, and the state as a `GetSnapshotResponse`. It may hold secrets of the configuration, and
is readable by its owner only.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError

from rheo.v1.config_service_pb2 import GetSnapshotResponse
from rheostat.errors import RheostatError
from rheostat.sdk.held import Held, whole
from rheostat.sdk.sealed import replace_by, sealed, unsealed

__all__ = ["Cache", "DamagedCacheError"]

_MAGIC: Final = b"rheostat-cache 1\n"


class DamagedCacheError(RheostatError):
    """The file is cut, altered, of another version, or of another environment."""

    default_reason = "CACHE_DAMAGED"


class Cache:
    """One file. Not for several threads at once; several processes may share it, and the last to write wins."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        server: str,
        project: str,
        environment: str,
        *,
        scope: bytes = b"",
    ) -> None:
        """Name the file; nothing is read or written yet.

        Args:
            path: The file.
            server: What the state is of: the server's address,
            project: as the client was given it,
            environment: and this too.
            scope: What else decides what the state holds, such as the key and the filter; it is kept as a hash only.
        """
        self.path = Path(path)
        about = [server, project, environment]
        if scope:
            about.append(hashlib.sha256(scope).hexdigest())
        self._about = json.dumps(about).encode()

    def read(self) -> Held | None:
        """Return the state; None when there is no file.

        Raises:
            DamagedCacheError: The file cannot be used; the text says why.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DamagedCacheError(f"the cache {self.path} cannot be read: {error.strerror}") from error
        except ValueError as error:
            # A path that no file can have, such as one with a NUL.
            raise DamagedCacheError(f"the cache {str(self.path)!r} cannot be read: {error}") from error
        return self.parse(content)

    def parse(self, content: bytes) -> Held:
        """Return the state that the *content* of a file is.

        Raises:
            DamagedCacheError: It is not what was written.
        """
        try:
            body = unsealed(_MAGIC, content)
        except ValueError as error:
            raise self._damaged(str(error)) from None
        about, _, encoded = body.partition(b"\n")
        if about != self._about:
            raise self._damaged("it is of another server, project, environment, key or filter")
        message = GetSnapshotResponse()
        try:
            message.ParseFromString(encoded)
            update = whole(Held(), message.position, message.items, message.item_count, message.digest)
        except (DecodeError, RheostatError) as error:
            raise self._damaged(str(error)) from error
        return update.held

    def content(self, held: Held) -> bytes:
        """Return the content of a file that keeps *held*."""
        message = GetSnapshotResponse(
            position=held.position,
            items=[item.message for item in held.items.values()],
            item_count=len(held.items),
            digest=held.digest,
        )
        body = self._about + b"\n" + message.SerializeToString()
        return sealed(_MAGIC, body)

    def write(self, held: Held, *, sync: Callable[[int], None] = os.fsync) -> None:
        """Replace the file by one that keeps *held*: readers see the old one or the new one, never a part.

        Raises:
            OSError: It cannot be written; the old one stays.
        """
        if "\0" in str(self.path):
            raise OSError("the path holds a NUL")
        # Of its own name, so that processes that share the path do not write into each other's.
        draft = f".{self.path.name}.{secrets.token_hex(6)}"
        replace_by(self.path, self.content(held), draft=draft, sync=sync)

    def _damaged(self, why: str) -> DamagedCacheError:
        return DamagedCacheError(f"the cache {self.path} is not used: {why}")
