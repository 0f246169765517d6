"""What a client says of itself: who it is, where it stands, and what it can decode."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

__all__ = ["ClientReport"]


@dataclass(frozen=True, slots=True)
class ClientReport:
    """Where a client stands.

    Attributes:
        id: As the client calls itself; unique in its environment.
        name: Of the program, for people; may be empty.
        sdk: Such as ``rheostat-python/0.1.0``; may be empty.
        generation: Of the state that it has applied.
        revision: Of the state that it has applied.
        node: The node that it is connected to; empty when it is connected to none.
        types: The hash of the types that it has declared; empty when it has declared none.
        diverged: Its digest differed from the server's twice in a row.
        reported_at: When it reported, aware; None when it has not, or when that is for the node to say.
        age: Seconds since it applied the newest change of its state, when it reports; None when that came in a
            snapshot.
        lag: Seconds from the commit of that change until it had applied it; None when that is not known.
        error: What went wrong last, for people; empty when nothing did.
        settings_read: The settings that it has read since it last said so.
    """

    id: str
    name: str = ""
    sdk: str = ""
    generation: int = 0
    revision: int = 0
    node: str = ""
    types: bytes = b""
    diverged: bool = False
    reported_at: datetime.datetime | None = None
    age: float | None = None
    lag: float | None = None
    error: str = ""
    settings_read: tuple[str, ...] = ()
