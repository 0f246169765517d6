"""Codecs and compression that do shared work once: many watchers are sent the same message.

Public extension points of the runtime: a codec's ``encode`` gets whatever the handler yields, and a compression
gets the bytes that the codec returned.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final

from connectrpc.codec import Codec
from connectrpc.compat import google_protobuf_binary_codec, google_protobuf_json_codec
from connectrpc.compression.gzip import GzipCompression
from google.protobuf.message import Message

from rheostat.wire.error import to_connect

__all__ = ["Shared", "codecs", "compressions"]

log = logging.getLogger("rheostat.server")

_REMEMBERED: Final = 256
"""Compressed messages that are kept: enough for every scope's newest deltas and a snapshot's chunks."""


class Shared:
    """A message that several streams send: encoded once for each codec. Safe from any thread."""

    __slots__ = ("_encoded", "message")

    def __init__(self, message: Message) -> None:
        """Wrap *message*, which nobody changes any more."""
        self.message = message
        self._encoded: dict[str, bytes] = {}

    def encoded(self, codec: Codec[Any, Any]) -> bytes:
        """Return the bytes under *codec*; the same object every time, which compression relies on."""
        name = codec.name()
        found = self._encoded.get(name)
        if found is None:
            found = self._encoded.setdefault(name, codec.encode(self.message))
        return found


class _SharingCodec(Codec[Any, Any]):
    def __init__(self, inner: Codec[Any, Any]) -> None:
        self._inner = inner

    def name(self) -> str:
        return self._inner.name()

    def encode(self, message: Any) -> bytes:
        try:
            return (
                message.encoded(self._inner) if isinstance(message, Shared) else self._inner.encode(message)
            )
        except Exception as exc:
            # The runtime would tell the caller its text.
            log.exception("an answer cannot be encoded")
            raise to_connect(exc) from None

    def decode(self, data: bytes | bytearray, message_class: type[Any]) -> Any:
        return self._inner.decode(data, message_class)


class _RememberingGzip(GzipCompression):
    """Gzip that compresses the same bytes object once, however many streams send it."""

    def __init__(self) -> None:
        super().__init__()
        # The entry holds the bytes object, so that its id cannot be reused while it is remembered.
        self._remembered: OrderedDict[int, tuple[bytes, bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def compress(self, data: bytes | bytearray | memoryview) -> bytes:
        if not isinstance(data, bytes):
            return super().compress(data)
        with self._lock:
            found = self._remembered.get(id(data))
        if found is not None and found[0] is data:
            return found[1]
        compressed = super().compress(data)
        with self._lock:
            self._remembered[id(data)] = (data, compressed)
            while len(self._remembered) > _REMEMBERED:
                self._remembered.popitem(last=False)
        return compressed


def codecs() -> Sequence[Codec[Any, Any]]:
    """Return the binary and the JSON codec, both of which take `Shared` messages."""
    return (
        _SharingCodec(google_protobuf_binary_codec()),
        # Unknown JSON fields are a mistake of the caller, and silence would hide it.
        _SharingCodec(google_protobuf_json_codec(ignore_unknown_fields=False)),
    )


def compressions() -> Sequence[GzipCompression]:
    """Return what the server can decompress and compress. Default clients gzip, so it must not be empty."""
    return (_RememberingGzip(),)
