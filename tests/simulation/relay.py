"""A relay: the production branches and sessions, a follower of each environment, and a server of what they hold."""

from __future__ import annotations

import datetime
import random
from typing import TYPE_CHECKING, Any, Final

from rheo.v1 import watch_pb2
from rheostat.errors import UnavailableError
from rheostat.relay.branch import Branch
from rheostat.relay.cache import DamagedRelayCacheError, Kept, RelayCache
from rheostat.relay.report import RelayFleet
from rheostat.relay.session import RelaySession
from rheostat.sdk.effect import CloseStream, OpenStream, Sleep
from rheostat.sdk.held import Held
from rheostat.sdk.watch_loop import watch_loop
from rheostat.service import Limits
from rheostat.service.admission import Admission
from rheostat.service.notice import Notices
from rheostat.wire.error import to_connect
from tests.checking import DIGEST, PROTOCOL, Violation
from tests.simulation.disk import Disk
from tests.simulation.follower import Follower
from tests.simulation.network import Endpoint, Network, Stream
from tests.simulation.node import GRACE_SECONDS, HEARTBEAT, PROJECT, Host, Serving, options_of

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["RelayNode"]

_ENVIRONMENTS: Final = ("production", "staging")

_WRITE_SECONDS: Final = 5.0
"""As in `rheostat.relay.relay`."""


class RelayNode(Host):
    """See the module. An `Endpoint` of the network.

    Attributes:
        upstreams: What it follows, in the order of preference.
        followers: The streams that it follows; none while the process does not run.
    """

    def __init__(self, world: World, name: str, upstreams: list[Endpoint]) -> None:
        super().__init__(world, name)
        self.upstreams = upstreams
        self.disk = Disk()
        self.process: Process | None = None
        self.followers: dict[str, BranchFollower] = {}

    @property
    def up(self) -> bool:
        return self.process is not None

    def start(self) -> None:
        """Begin a process, with what the cache has."""
        if self.process is not None:
            return
        process = self.process = Process(self)
        kept = {each.environment: each for each in self._cached()}
        self.world.note(self.name, f"starts with {sorted(kept)}")
        for environment in _ENVIRONMENTS:
            follower = BranchFollower(self, process, environment, kept.get(environment))
            self.followers[environment] = follower
        for follower in self.followers.values():
            follower.begin()
        self.world.clock.after(_WRITE_SECONDS, self._write, process)

    def crash(self) -> None:
        """End the process at once."""
        if self.process is None:
            return
        self.world.note(self.name, "crashes")
        self.process = None
        followers, self.followers = self.followers, {}
        for follower in followers.values():
            follower.stop()
        self.end_streams()

    def drain(self) -> None:
        """End the process as a signal does."""
        process = self.process
        if process is None or process.draining:
            return
        self.world.note(self.name, "drains")
        process.draining = True
        self.rung()
        self.world.clock.after(GRACE_SECONDS + 1.0, self._drained, process)

    def _drained(self, process: Process) -> None:
        if self.process is process:
            self.crash()

    def compact(self, keep: int) -> None:
        """Let go of history but for the newest *keep* revisions."""
        for follower in self.followers.values():
            head = follower.branch.head
            if head is not None:
                follower.branch.compact(head.revision - keep)

    def accept(self, stream: Stream, request: watch_pb2.WatchRequest) -> None:
        process = self.process
        if process is None:
            stream.cut()
            return
        branch = self.followers[request.environment].branch
        head = branch.head
        if head is None:
            stream.finish(
                to_connect(
                    UnavailableError("the relay has no state yet", reason="RELAY_EMPTY", retry_after=1.0)
                )
            )
            return
        self.begin_stream(
            Serving(
                self,
                branch.hub,
                process.admission,
                stream,
                RelaySession(branch, options_of(request)),
                head.identity.token_key,
            )
        )

    # The cache.

    def _cached(self) -> list[Kept]:
        content = self.disk.files.get("cache")
        if content is None:
            return []
        try:
            return RelayCache("cache").parse(content)
        except DamagedRelayCacheError:
            return []

    def _write(self, process: Process) -> None:
        if self.process is not process:
            return
        found = [follower.branch.kept() for follower in self.followers.values()]
        self.disk.files["cache"] = RelayCache("cache").content(kept for kept in found if kept is not None)
        self.world.clock.after(_WRITE_SECONDS, self._write, process)


class Process:
    """What a branch needs of `rheostat.relay.relay.Relay`, without its threads and its HTTP."""

    def __init__(self, relay: RelayNode) -> None:
        self._relay = relay
        world = relay.world
        self.node = relay.name
        self.heartbeat = HEARTBEAT
        self.drain_grace = GRACE_SECONDS
        self.drain_spread = 5.0
        self.reconnect_spread = 0.0
        self.backoff = world.backoff
        self.via = (relay.name,)
        self.monotonic = world.clock.monotonic
        self.jitter: random.Random = world.random
        self.admission = Admission(Limits(), randomness=world.random.randbytes)
        self.fleet = RelayFleet(self.clock, self.monotonic)
        self.notices = Notices(self.monotonic, relay.rung)
        self.draining = False
        self.closed = False
        self.upstreams = self
        self.urls = tuple(endpoint.name for endpoint in relay.upstreams)

    def clock(self) -> datetime.datetime:
        return self._relay.world.clock.wall()

    def stream_age(self) -> float:
        return self._relay.world.max_stream_age

    def changed(self, *, state: bool = False) -> None:
        self._relay.rung()

    def ring(self) -> None:
        self._relay.rung()

    def doubt(self, address: tuple[str, str], token: bytes) -> None:
        # As `Relay._ask_about_doubted`, within a tick.
        self._relay.world.clock.after(1.0, self._ask, address[1], token)

    def _ask(self, environment: str, token: bytes) -> None:
        relay = self._relay
        if relay.process is not self:
            return
        request = watch_pb2.WatchRequest(project=PROJECT, environment=environment, resume=token, via=self.via)
        upstream = next((each for each in relay.upstreams if each.up), None)
        if upstream is not None:
            Asking(relay.world.network).open(upstream, request)

    def prefer(self, url: str) -> None:
        """Calls are no part of this."""

    def watch(self, url: str, request: watch_pb2.WatchRequest) -> _Opened:
        return _Opened(url)


class Asking:
    """A stream that is left after its first event. A `Receiver` of the network."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def open(self, endpoint: Endpoint, request: watch_pb2.WatchRequest) -> None:
        self._network.connect(self, endpoint, request, dark=False)

    def arrived(self, stream: Stream) -> None:
        stream.close()


class _Opened:
    """A stream of the relay, as its branch sees it; the follower has the stream itself."""

    def __init__(self, url: str) -> None:
        self.url = url

    def close(self) -> None:
        """The follower closes it."""


class SimulatedBranch(Branch):
    """A branch whose driver is the world's."""

    nap: float | None = None

    def _sleep(self, seconds: float) -> None:
        self.nap = seconds

    def differed(self, times: int) -> None:
        super().differed(times)
        if times:
            raise Violation(DIGEST, f"{self.node} differs in {self.environment} at {self.held.revision}")

    def refused(self, error: Any, retry_in: float) -> None:
        raise Violation(PROTOCOL, f"{self.node} is refused: {error}")


class BranchFollower(Follower):
    """The stream of one environment."""

    def __init__(self, relay: RelayNode, process: Process, environment: str, kept: Kept | None) -> None:
        super().__init__(relay.world, f"{relay.name}/{environment}")
        self._relay = relay
        self._process: Any = process
        self.branch = SimulatedBranch(self._process, PROJECT, environment, kept)

    def begin(self) -> None:
        """Begin to follow."""
        self.follow(watch_loop(self.branch, clock=self._process.monotonic, randomness=self._process.jitter))

    def held(self) -> Held:
        return self.branch.held

    def endpoint(self) -> Endpoint:
        upstreams = self._relay.upstreams
        return upstreams[self.branch._next % len(upstreams)]

    def perform(self, effect: OpenStream | CloseStream) -> None:
        self.branch._perform(effect)

    def nap(self, effect: Sleep) -> float:
        self.branch.nap = None
        self.branch._perform(effect)
        return self.branch.nap or 0.0

    def heard(self, event: watch_pb2.WatchResponse) -> None:
        stream: Any = self.branch._stream
        self.branch._note(event, stream)
