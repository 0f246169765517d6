"""Unary calls: which RPCs there are, which of them may be repeated, and when that makes sense."""

from __future__ import annotations

import random
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from google.protobuf.descriptor import MethodDescriptor

from rheostat.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    LimitExceededError,
    RheostatError,
    UnavailableError,
)
from rheostat.sdk.effect import Effect, Fetch, Sleep
from rheostat.wire.contract import SERVICES

__all__ = ["Answer", "CallResult", "Method", "calling", "method_named"]

M = TypeVar("M")

_BACKOFF_SECONDS: Final = (0.1, 2.0)
"""The bound of the first delay before a repeat, and of the last."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[M]):
    """What a call gave.

    Attributes:
        message: The response.
        headers: Of the response, by lower-case name; of several the last.
        trailers: The same of the trailers.
    """

    message: M
    headers: Mapping[str, str] = field(default_factory=dict)
    trailers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CallResult(Generic[M]):
    """What a call gave, or why it failed.

    Attributes:
        message: The response; None when the call failed.
        headers: Of the response, by lower-case name; ``x-request-id`` is the request's id.
        trailers: The same of the trailers.
        error: Why it failed; None when it did not.
    """

    message: M | None
    headers: Mapping[str, str] = field(default_factory=dict)
    trailers: Mapping[str, str] = field(default_factory=dict)
    error: RheostatError | None = None

    def unwrap(self) -> M:
        """Return the response.

        Raises:
            RheostatError: The call failed.
        """
        if self.error is not None:
            raise self.error
        assert self.message is not None
        return self.message


@dataclass(frozen=True, slots=True)
class Method:
    """An RPC.

    Attributes:
        service: Its service, such as ``ConfigService``.
        name: Its name, such as ``Evaluate``.
        function: What generated clients call it.
        streams: The server answers with a stream.
        repeatable: A repeat does no more than the first.
    """

    service: str
    name: str
    function: str
    streams: bool
    repeatable: bool


def _method(service: str, descriptor: MethodDescriptor) -> Method:
    name = descriptor.name
    function = "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
    repeatable = descriptor.GetOptions().idempotency_level != 0
    return Method(service, name, function, descriptor.server_streaming, repeatable)


def _methods() -> Mapping[str, Method]:
    found: dict[str, Method] = {}
    for service in SERVICES:
        for descriptor in service.methods:
            method = _method(service.name, descriptor)
            for name in (method.name, method.function, f"{method.service}/{method.name}"):
                found[name] = method
    return found


_METHODS: Final = _methods()
"""By all the names they go by. Made now: a fork while another thread reads descriptors for the first time leaves the
child with half of what the protobuf runtime makes of them, and that ends it."""


def method_named(name: str, *, streams: bool = False) -> Method:
    """Return the RPC called *name*: ``Evaluate``, ``evaluate`` or ``ConfigService/Evaluate``.

    Raises:
        InvalidArgumentError: There is none, or it is of the other kind.
    """
    method = _METHODS.get(name)
    if method is None:
        raise InvalidArgumentError(f"no RPC has the name {name!r}")
    if method.streams is not streams:
        kind = "a stream: use client.stream" if method.streams else "no stream: use client.call"
        raise InvalidArgumentError(f"the RPC {name!r} answers with {kind}")
    return method


def calling(fetch: Fetch, *, retries: int, randomness: random.Random) -> Generator[Effect, Any, Answer[Any]]:
    """Make a call, and again where that is safe and may help; return its answer.

    Args:
        fetch: The call.
        retries: How often at most it is repeated.
        randomness: Where delays are drawn from.

    Raises:
        RheostatError: What the last attempt failed with.
    """
    method = method_named(fetch.method)
    safe = method.repeatable or bool(getattr(fetch.request, "request_id", ""))
    attempt = 0
    while True:
        try:
            answer: Answer[Any] = yield fetch
        except (UnavailableError, DeadlineExceededError, LimitExceededError) as error:
            attempt += 1
            if not safe or attempt > retries:
                raise
            first, last = _BACKOFF_SECONDS
            delay = randomness.uniform(0.0, min(last, first * 2**attempt))
            wanted = getattr(error, "retry_after", None)
            if wanted is None and isinstance(error, LimitExceededError):
                # A limit that waiting does not lift.
                raise
            if wanted is not None:
                if wanted > fetch.timeout:
                    raise
                delay += wanted
            yield Sleep(delay)
        else:
            return answer
