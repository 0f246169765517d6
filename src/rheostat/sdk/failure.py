"""What can go wrong on the way to a server, as errors of the public hierarchy."""

from __future__ import annotations

from connectrpc.code import Code
from connectrpc.errors import ConnectError

from rheostat.errors import DeadlineExceededError, InvalidArgumentError, RheostatError, UnavailableError
from rheostat.wire.error import from_connect

__all__ = ["translated"]


def translated(error: Exception, url: str) -> RheostatError:
    """Return the public error for what a generated client has raised."""
    if isinstance(error, RheostatError):
        return error
    if isinstance(error, ConnectError):
        found = from_connect(error)
        strange = (
            error.code is Code.UNIMPLEMENTED
            or "content-type" in error.message
            # Said by the runtime on this side, with a code that is the server's for a wrong request.
            or error.message.startswith("unmarshal ")
        )
        if (strange and not error.details) or type(found) is RheostatError:
            # A page of a proxy, a message that cannot be read: not for good, as far as anybody knows.
            return UnavailableError(f"what answers at {url} cannot be understood: {error.message}")
        return found
    if isinstance(error, ValueError):
        # Its text may quote a header, and so the key.
        return InvalidArgumentError(
            f"a request to {url} cannot be made ({type(error).__name__}): check the address, the key and the headers"
        )
    if isinstance(error, TimeoutError):
        return DeadlineExceededError(f"no answer from {url} in time")
    return UnavailableError(f"the connection to {url} failed: {error or type(error).__name__}")
