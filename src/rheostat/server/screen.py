"""What is wrong with a call as HTTP, said before the runtime sees it.

The runtime answers such calls without an error, a reason or a request id, and hands some of them to the application
server as exceptions, which then breaks the connection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs

from google.protobuf.descriptor_pb2 import MethodOptions

from rheostat.errors import InvalidArgumentError, NotFoundError, RheostatError
from rheostat.wire.contract import SERVICES

__all__ = ["Refusal", "screen"]

_CODECS: Final = ("proto", "json")
_BASE64: Final = re.compile(r"[A-Za-z0-9_+/-]*={0,2}")
_TIMEOUT: Final = re.compile(r"[0-9]{0,10}")
_GRPC_TIMEOUT: Final = re.compile(r"[0-9]{1,8}[HMSmun]")


@dataclass(frozen=True, slots=True)
class _Method:
    streams: bool
    reads: bool


_METHODS: Final[Mapping[str, _Method]] = {
    f"/{service.full_name}/{method.name}": _Method(
        streams=method.server_streaming,
        reads=method.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS,
    )
    for service in SERVICES
    for method in service.methods
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call is refused.

    Attributes:
        status: Of HTTP.
        error: What the caller is told.
        headers: That HTTP wants with the status.
    """

    status: int
    error: RheostatError
    headers: tuple[tuple[str, str], ...] = ()


def screen(
    method: str, path: str, query: bytes, headers: Mapping[str, str], *, trailers: bool
) -> Refusal | None:
    """Return why a call is refused, or None when the runtime can take it.

    Args:
        method: Of HTTP.
        path: Below the mount point, under one of the services.
        query: As it came.
        headers: By lower-case name, as Latin-1.
        trailers: Whether the application server can send trailers, which gRPC needs.
    """
    called = _METHODS.get(path)
    if called is None:
        return Refusal(404, NotFoundError("there is no such method", reason="METHOD_NOT_FOUND"))
    if method != "POST" and not (method == "GET" and called.reads):
        allowed = "GET, POST" if called.reads else "POST"
        message = f"this method is called by {allowed.replace(', ', ' or ')}"
        return Refusal(
            405, InvalidArgumentError(message, reason="HTTP_METHOD_NOT_ALLOWED"), (("allow", allowed),)
        )
    try:
        query_text = query.decode()
        for value in headers.values():
            value.encode("latin-1").decode()
    except UnicodeError:
        return _malformed("a header, or the query, is not UTF-8")
    content_type = headers.get("content-type", "")
    if content_type.startswith("application/grpc"):
        return _screen_grpc(method, content_type, headers, trailers=trailers)
    if method == "GET":
        parameters = parse_qs(query_text, keep_blank_values=True)
        codec = parameters.get("encoding", [""])[0]
        if parameters.get("base64") == ["1"] and not _BASE64.fullmatch(parameters.get("message", [""])[0]):
            # The runtime leaves out what it cannot read.
            return _malformed("the message in the query is not base64")
    else:
        codec = content_type.partition(";")[0].strip().lower()
        prefix = "application/connect+" if called.streams else "application/"
        codec = codec.removeprefix(prefix) if codec.startswith(prefix) else ""
    if codec not in _CODECS:
        return _unsupported(streams=called.streams)
    version = headers.get("connect-protocol-version", "1")
    if version != "1":
        return _malformed("the header connect-protocol-version is not 1")
    if not _TIMEOUT.fullmatch(headers.get("connect-timeout-ms", "")):
        return _malformed("the header connect-timeout-ms is not a number of at most 10 digits")
    return None


def _screen_grpc(
    method: str, content_type: str, headers: Mapping[str, str], *, trailers: bool
) -> Refusal | None:
    if method != "POST":
        message = "gRPC calls by POST"
        return Refusal(
            405, InvalidArgumentError(message, reason="HTTP_METHOD_NOT_ALLOWED"), (("allow", "POST"),)
        )
    kind, _, codec = content_type.partition("+")
    if kind not in ("application/grpc", "application/grpc-web") or (codec or "proto") not in _CODECS:
        return _unsupported(streams=False)
    if kind == "application/grpc" and not trailers:
        message = "gRPC needs trailers, which this application server does not send; use Connect or gRPC-Web"
        return Refusal(415, InvalidArgumentError(message, reason="UNSUPPORTED_MEDIA_TYPE"))
    timeout = headers.get("grpc-timeout")
    if timeout is not None and not _GRPC_TIMEOUT.fullmatch(timeout):
        return _malformed("the header grpc-timeout is not a number of at most 8 digits and a unit")
    return None


def _malformed(message: str) -> Refusal:
    return Refusal(400, InvalidArgumentError(message, reason="MALFORMED_REQUEST"))


def _unsupported(*, streams: bool) -> Refusal:
    types = ", ".join(f"application/{'connect+' if streams else ''}{codec}" for codec in _CODECS)
    return Refusal(
        415,
        InvalidArgumentError(f"the content type is none of {types}", reason="UNSUPPORTED_MEDIA_TYPE"),
        (("accept-post", types),),
    )
