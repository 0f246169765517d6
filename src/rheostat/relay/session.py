"""A watch that is open at a relay."""

from __future__ import annotations

import datetime

from rheostat.model.position import Position
from rheostat.model.watch import GoAway, GoAwayReason
from rheostat.relay.branch import Branch
from rheostat.service.publish import Head
from rheostat.service.watch import CATCH_UP_SECONDS, RELAY_BOOKMARK_SECONDS, Step, WatchOptions, WatchSession

__all__ = ["RelaySession"]


class RelaySession(WatchSession):
    """As a node's, but for what only a node that reads the store can decide."""

    def __init__(self, branch: Branch, options: WatchOptions) -> None:
        """Prepare a session; see `WatchSession`."""
        super().__init__(branch, options)
        self._branch = branch
        self._told_origin: datetime.datetime | None = None

    def _cannot_serve(self, head: Head, token: Position, now: float) -> Step | None:
        """Send away whoever has seen more than this relay: it serves nothing older, and decides about no history."""
        identity = head.identity
        if token.store_id != identity.store_id or token.generation < identity.generation:
            return None
        same = token.generation == identity.generation
        if same and token.nonce == identity.nonce and token.revision <= head.revision:
            return None
        assert self._asked_at is not None
        patience = self._asked_at + CATCH_UP_SECONDS
        if now < patience and not (same and token.nonce != identity.nonce):
            return Step((), patience)
        self._branch.doubt(self._options.resume)
        return self._leave(now, GoAway(GoAwayReason.BEHIND, spread=0.0, grace=0.0))

    def _hops(self) -> int:
        return self._branch.hops

    def _origin_time(self) -> datetime.datetime:
        self._told_origin = self._branch.origin_time
        return self._told_origin

    def _bookmark_at(self) -> float:
        """Pass on to relays below at once what the store's own node has said: each would add a heartbeat to it."""
        due = super()._bookmark_at()
        if self._options.relay and self._told_origin != self._branch.origin_time:
            return min(due, self._last_bookmark + RELAY_BOOKMARK_SECONDS)
        return due
