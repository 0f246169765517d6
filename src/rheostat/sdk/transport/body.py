"""What both transports know about the body of a response: its kind, its limit and its encoding."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from connectrpc.code import Code
from connectrpc.compression.gzip import GzipCompression
from connectrpc.errors import ConnectError

if TYPE_CHECKING:
    from connectrpc.compression import Compression
    from pyqwest import Headers

DEFAULT_MAX_RESPONSE_BYTES = 64 * 1024 * 1024
"""The largest unary response accepted by default, in bytes after decompression: the largest snapshot."""

LEAST_BYTES_PER_SECOND = 100
"""A message that arrives more slowly never ends, such as one whose length was garbled while bookmarks go on coming."""

READ_BYTES = 64 * 1024
"""The most that one read of a body returns, in bytes."""

# RFC 9110: a coding that is absent, or named so, leaves the body as it is.
_UNENCODED = frozenset({"", "identity"})


def is_stream(request_headers: Headers) -> bool:
    """Tell whether the call's responses are framed messages, to be handed on as they arrive."""
    content_type = request_headers.get("content-type") or ""
    return content_type.startswith(("application/connect+", "application/grpc"))


def is_open_ended(request_headers: Headers, status: int) -> bool:
    """Tell whether a response may go on for ever: one to a stream, unless it is an error's plain body."""
    return is_stream(request_headers) and status == HTTPStatus.OK


def coding(response_headers: Headers) -> str | None:
    """Return the compression applied to the whole body, or None."""
    name = (response_headers.get("content-encoding") or "").strip().lower()
    return None if name in _UNENCODED else name


def decode(name: str, body: bytes | bytearray, limit: int) -> bytes:
    """Decompress a whole body, never producing more than `limit` bytes.

    Raises:
        ConnectError: RESOURCE_EXHAUSTED above the limit; INTERNAL for a compression that cannot be undone
            here or a body that is damaged.
    """
    try:
        return _compression(name).decompress(body, limit)
    except ConnectError:
        raise
    except Exception as error:
        msg = f"response body is not valid {name}: {error}"
        raise ConnectError(Code.INTERNAL, msg) from error


def too_large(limit: int) -> ConnectError:
    """Build the error for a response above the limit."""
    return ConnectError(Code.RESOURCE_EXHAUSTED, f"response is larger than {limit} bytes")


def unexpected_coding(name: str) -> ConnectError:
    """Build the error for a stream compressed as a whole, which would hold its messages back."""
    return ConnectError(Code.INTERNAL, f"stream has content-encoding {name!r}, which was not asked for")


def _compression(name: str) -> Compression:
    if name == "gzip":
        return GzipCompression()
    # The other two need packages that are only there if the caller has chosen these compressions.
    try:
        if name == "br":
            from connectrpc.compression.brotli import BrotliCompression

            return BrotliCompression()
        if name == "zstd":
            from connectrpc.compression.zstd import ZstdCompression

            return ZstdCompression()
    except ImportError as error:
        raise ConnectError(Code.INTERNAL, f"cannot decode content-encoding {name!r}: {error}") from error
    raise ConnectError(Code.INTERNAL, f"unknown content-encoding {name!r}")
