"""Codecs and compression that do shared work once: many watchers are sent the same message.

Public extension points of the runtime: a codec's ``encode`` gets whatever the handler yields, and a compression
gets the bytes that the codec returned.
"""

from __future__ import annotations

import logging
import re
import struct
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from connectrpc.codec import Codec
from connectrpc.compat import google_protobuf_binary_codec, google_protobuf_json_codec
from connectrpc.compression.gzip import GzipCompression
from google.protobuf.json_format import ParseError
from google.protobuf.message import Message

from rheostat.errors import FieldViolation, InvalidArgumentError
from rheostat.wire.error import to_connect

__all__ = ["Framing", "Gzip", "Shared", "chunk", "codecs", "compressions"]

log = logging.getLogger("rheostat.server")

_REMEMBERED: Final = 256
"""Compressed messages that are kept: enough for every scope's newest deltas and a snapshot's chunks."""


@dataclass(frozen=True, slots=True, eq=False)
class Framing:
    """How the messages of a stream are put into its body; there is one object for each way.

    Connect, gRPC-Web and gRPC do it alike: a byte that says whether the message is compressed, four of its length,
    and the message.

    Attributes:
        codec: ``proto`` or ``json``.
        gzip: The messages are compressed.
    """

    codec: str
    gzip: bool

    @classmethod
    def of(cls, headers: Iterable[tuple[bytes, bytes]]) -> Framing | None:
        """Return what the headers of a response say; None when it is no stream that we can write to."""
        codec, compression = "", b"identity"
        for name, value in headers:
            match name.lower():
                case b"content-type":
                    found = _STREAM.fullmatch(value)
                    codec = "" if found is None else (found[1] or b"proto").decode()
                case b"connect-content-encoding" | b"grpc-encoding":
                    compression = value
        if not codec or compression not in (b"identity", b"gzip"):
            return None
        return _FRAMINGS[codec, compression == b"gzip"]

    @classmethod
    def expected(cls, headers: Mapping[str, str]) -> Framing:
        """Return what the answer to a request with *headers* will most likely have."""
        accepted = headers.get("connect-accept-encoding") or headers.get("grpc-accept-encoding") or ""
        return _FRAMINGS["json" if "json" in headers.get("content-type", "") else "proto", "gzip" in accepted]


_FRAMINGS: Final = {
    (codec, gzip): Framing(codec, gzip) for codec in ("proto", "json") for gzip in (False, True)
}

_STREAM: Final = re.compile(rb"application/(?:connect|grpc(?:-web)?)(?:\+(proto|json))?")

_INNER: Final[dict[str, Codec[Any, Any]]] = {
    codec.name(): codec for codec in (google_protobuf_binary_codec(), google_protobuf_json_codec())
}


class Shared:
    """A message that several streams send: encoded once for each codec. Safe from any thread."""

    __slots__ = ("_chunks", "_encoded", "_frames", "message")

    def __init__(self, message: Message) -> None:
        """Wrap *message*, which nobody changes any more."""
        self.message = message
        self._encoded: dict[str, bytes] = {}
        self._frames: dict[Framing, bytes] = {}
        self._chunks: dict[Framing, bytes] = {}

    def encoded(self, codec: Codec[Any, Any]) -> bytes:
        """Return the bytes under *codec*; the same object every time, which compression relies on."""
        name = codec.name()
        found = self._encoded.get(name)
        if found is None:
            found = self._encoded.setdefault(name, codec.encode(self.message))
        return found

    def framed(self, framing: Framing) -> bytes:
        """Return what the message is in the body of a stream; the same object every time."""
        found = self._frames.get(framing)
        if found is None:
            encoded = self._encoded.get(framing.codec)
            if encoded is None:
                encoded = _INNER[framing.codec].encode(self.message)
            if framing.gzip:
                encoded = _GZIP.compress(encoded)
            # As the runtime's own writer of envelopes does.
            frame = struct.pack(">BI", framing.gzip, len(encoded)) + encoded
            found = self._frames.setdefault(framing, frame)
        return found

    def chunked(self, framing: Framing) -> bytes:
        """Return the chunk of HTTP/1.1 that `framed` is sent as."""
        found = self._chunks.get(framing)
        if found is None:
            found = self._chunks.setdefault(framing, chunk(self.framed(framing)))
        return found


def chunk(body: bytes) -> bytes:
    """Return a chunk of HTTP/1.1."""
    return b"%x\r\n%b\r\n" % (len(body), body)


_GZIP: Final = GzipCompression()


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


class _JsonCodec(_SharingCodec):
    """Tells what is wrong with a request in JSON, as people write those by hand."""

    def decode(self, data: bytes | bytearray, message_class: type[Any]) -> Any:
        if not data.lstrip().startswith(b"{"):
            raise to_connect(_malformed("", "is not an object in JSON"))
        try:
            return super().decode(data, message_class)
        except ParseError as exc:
            raise to_connect(_explained(str(exc))) from None


_UNKNOWN_FIELD: Final = re.compile(r'has no field named "([^"]*)" at "\w+\.?([^"]*)"')
_SEVERAL_KINDS: Final = re.compile(r'multiple "(\w+)" oneof fields at "\w+\.?([^"]*)"')
_DUPLICATE: Final = re.compile(r"duplicate key (.*?)\.*$", re.DOTALL)
_PLACE: Final = re.compile(r" at \w+Request\.(\S+?)\.*$")
_PARENTS: Final = re.compile(r"Failed to parse (\w+) field: ")
_NOT_JSON: Final = re.compile(r"Failed to load JSON: .*?(?:: line (\d+) column (\d+) .*)?$", re.DOTALL)


def _explained(text: str) -> InvalidArgumentError:
    """Return what the library says of a request, without its words for its own types."""
    if found := _UNKNOWN_FIELD.search(text):
        name, place = found.groups()
        return _malformed(f"{place}.{name}" if place else name, "is no field of the request")
    if found := _SEVERAL_KINDS.search(text):
        return _malformed(found[2], f"has several fields of the oneof {found[1]}")
    if found := _DUPLICATE.search(text):
        return _malformed(found[1], "stands twice in one object")
    if found := _PLACE.search(text):
        return _malformed(found[1], "cannot be read as what the field holds")
    if parents := _PARENTS.findall(text):
        return _malformed(".".join(parents), "cannot be read as what the field holds")
    if (found := _NOT_JSON.match(text)) and found[1]:
        return _malformed("", f"is not JSON: see line {found[1]}, column {found[2]}")
    return _malformed("", "is not JSON, or not of the method's form")


def _malformed(field: str, why: str) -> InvalidArgumentError:
    field = field if len(field) <= 200 else f"{field[:200]}…"
    return InvalidArgumentError(
        f"{field}: {why}" if field else f"the request {why}",
        violations=[FieldViolation(field, why)],
        reason="MALFORMED_REQUEST",
    )


class Gzip(GzipCompression):
    """Gzip that compresses the same bytes object once, however many streams send it."""

    def __init__(self) -> None:
        super().__init__()
        # The entry holds the bytes object, so that its id cannot be reused while it is remembered.
        self._remembered: OrderedDict[int, tuple[bytes, bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def compress(self, data: bytes | bytearray | memoryview) -> bytes:
        """Compress, or return what was made of the same object before."""
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
        _JsonCodec(google_protobuf_json_codec(ignore_unknown_fields=False)),
    )


def compressions() -> tuple[Gzip]:
    """Return what the server can decompress and compress. Default clients gzip, so it must not be empty."""
    return (Gzip(),)
