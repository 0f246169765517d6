"""One run: nodes over a store, clients, writers, and what happens to them, all drawn from one seed."""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import logging
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from unittest import mock

from rheostat.errors import RheostatError, UnavailableError
from rheostat.model.change import Mutation
from rheostat.service import Writer, publish
from rheostat.service.access import OPEN
from rheostat.service.watch import CATCH_UP_SECONDS
from rheostat.wire import event as wire_event
from tests.checking import CONVERGENCE, PROTOCOL, STATE, Violation, check_acknowledged, check_gapless
from tests.service.book import equals, put_segment
from tests.simulation.client import Client
from tests.simulation.clock import Clock
from tests.simulation.follower import Follower
from tests.simulation.network import Endpoint, Network
from tests.simulation.node import GRACE_SECONDS, HEARTBEAT, Node
from tests.simulation.relay import RelayNode
from tests.simulation.store import SharedStore, life_of
from tests.simulation.writing import ENVIRONMENTS, FILTERS, base, mutations

__all__ = ["Run", "World", "run", "scaled"]

LONGEST_BACKOFF: Final = 2.0

CONVERGED_SECONDS: Final = 5.0
"""The page's: after short faults, and after long ones with a back-off of at most 2 s."""

_LOOK_SECONDS: Final = 0.25

_SPREAD_SECONDS: Final = 5.0
"""Over which the clients of a draining node come back."""

_HOUR: Final = datetime.timedelta(hours=1)
_DECADE: Final = datetime.timedelta(days=3653)


@dataclass(frozen=True, slots=True)
class Run:
    """How a run went.

    Attributes:
        seed: Of the world.
        digest: Of all that has happened, in order.
        violation: The rule that was broken; None when all held.
        lines: What has happened, when that was asked for.
    """

    seed: int
    digest: str
    violation: Violation | None
    lines: tuple[str, ...]


class World:
    """See the module.

    Attributes:
        random: Where everything is drawn from.
        max_stream_age: Seconds, ± 20 %.
        backoff: Of everybody who follows a stream.
        calm: Answers to writers are not lost any more.
        dark: Followers whose packets are lost, without their noticing.
    """

    def __init__(self, seed: int, *, trace: bool = False) -> None:
        self.random = random.Random(seed)
        self.clock = Clock()
        self.lines: list[str] | None = [] if trace else None
        self._digest = hashlib.blake2b(digest_size=8)
        draw = self.random
        self.store = SharedStore(self.clock, draw, base(), self._committed)
        self.network = Network(self.clock, draw)
        self.max_stream_age = draw.choice((8.0, 1800.0, 1800.0))
        self.backoff = (0.25, LONGEST_BACKOFF)
        self.dark: set[Follower] = set()
        self.nodes = [Node(self, f"node-{number}") for number in range(draw.choice((1, 2, 2, 2, 3)))]
        self.relays: list[RelayNode] = []
        for number in range(draw.choice((0, 0, 0, 0, 1, 2))):
            above = [*self.relays, *self.nodes] if number else [*self.nodes]
            self.relays.append(RelayNode(self, f"relay-{number}", above[: draw.choice((1, 2))]))
        self.hosts: list[Node | RelayNode] = [*self.nodes, *self.relays]
        self.clients = [
            Client(self, f"client-{number}", draw.choice(ENVIRONMENTS), filter_, cached=draw.random() < 0.7)
            for number, filter_ in enumerate(draw.sample(FILTERS, draw.choice((2, 3, 3, 4))))
        ]
        self._acknowledged: dict[str, int] = {}
        self._requests = 0
        self._backup = self.store.contents()
        self.calm = False
        self._drained_at = -1000.0
        self._hints_lost = draw.choice((0.0, 0.3, 1.0))
        self._hints_late = draw.choice((0.01, 0.01, 2.0))
        self._ends_at = self.clock.now + draw.uniform(4.0, 9.0)

    # What others ask for.

    def note(self, who: str, what: str) -> None:
        """Write down what has happened."""
        line = f"{self.clock.now - 1000.0:9.4f} {who} {what}"
        self._digest.update(line.encode())
        if self.lines is not None:
            self.lines.append(line)

    @property
    def digest(self) -> str:
        """Of all that has happened."""
        return self._digest.hexdigest()

    def endpoint(self) -> Endpoint:
        """Return where a client's next stream leads, as a load balancer without knowledge decides."""
        return self.random.choice(self.hosts)

    def _committed(self, revision: int) -> None:
        for node in self.nodes:
            if self.random.random() >= self._hints_lost:
                for _ in range(self.random.choice((1, 1, 1, 2))):
                    self.clock.after(self.random.uniform(0.0, self._hints_late), node.hinted, revision)

    # A run.

    def run(self) -> None:
        """Let everything happen, then heal everything, and see that all have what the store has.

        Raises:
            Violation: A rule was broken.
        """
        draw, clock = self.random, self.clock
        began = clock.now
        for host in self.hosts:
            host.start()
        for client in self.clients:
            clock.at(began + draw.uniform(0.0, 2.0), client.start)
        for _ in range(draw.randint(2, 5)):
            instant = draw.uniform(began, self._ends_at)
            for _ in range(draw.choice((1, 1, 1, 3))):
                clock.at(instant, self._write)
        # Swarms: each world knows a few kinds of accidents only, and those well.
        kinds = draw.sample(self._accidents(), 4)
        for _ in range(draw.randint(3, 7)):
            clock.at(draw.uniform(began + 0.5, self._ends_at), draw.choice(kinds))
        clock.run_until(self._ends_at)
        self._heal()
        due = max(clock.now + self._patience(client) for client in self.clients)
        self._converge({client: clock.now + self._patience(client) for client in self.clients})
        self.commit_segment("last")
        due = max(due, clock.now) + CONVERGED_SECONDS
        self._converge(dict.fromkeys(self.clients, due))
        for client in self.clients:
            assert client.core is not None
            client.evaluate(list(client.core.replica.view.snapshot.settings.values()))
        check_gapless(self.store.change_sets)
        check_acknowledged(self._acknowledged, self.store.change_sets)

    def _converge(self, due: Mapping[Client, float]) -> None:
        """Let time pass until everybody has what the store has, each by its time; no longer, as little is learnt then."""
        while not all(map(self._is_settled, self.clients)):
            self.clock.run_until(self.clock.now + _LOOK_SECONDS)
            for client in self.clients:
                if self.clock.now >= due[client] and (missing := client.missing()):
                    raise Violation(CONVERGENCE, f"{client.name} {missing}")
            if self.clock.now >= max(due.values()):
                return

    def _is_settled(self, client: Client) -> bool:
        streams = [follower.stream for follower in self.followers]
        return not client.missing() and all(stream is not None and not stream.dark for stream in streams)

    # Writers.

    def commit_segment(self, name: str) -> None:
        """Write something that is in every scope, at any node."""
        self._commit(name, "", [put_segment(name, equals("region", "us"))])

    def _write(self) -> None:
        self._requests += 1
        self._try(f"r{self._requests}", *mutations(self.random, self.store.settings), 4)

    def _try(self, request: str, environment: str, wanted: list[Mutation], tries: int) -> None:
        """Write until it is known what has become of it, at any node, or until the writer gives up."""
        if not tries:
            return
        try:
            known = self._commit(request, environment, wanted)
        except UnavailableError as error:
            self.note("writer", f"does not know about {request}: {error.reason}")
            known = False
        except RheostatError as error:
            self.note("writer", f"is refused {request}: {error.reason}")
            known = True
        if not known:
            self.clock.after(
                self.random.uniform(0.1, 1.0), self._try, request, environment, wanted, tries - 1
            )

    def _commit(self, request: str, environment: str, wanted: list[Mutation]) -> bool:
        node = self.random.choice(self.nodes)
        if self.random.random() < 0.1 and not self.calm:
            node.access.unknown = True
        writer = Writer(OPEN, message=request, request_id=request, payload=request.encode())
        try:
            outcome = node.commit(writer, environment, wanted)
        finally:
            node.access.unknown = False
        if self.random.random() < 0.1 and not self.calm:
            return False
        self.note("writer", f"is told {request} is {outcome.change_set.revision} by {node.name}")
        if outcome.change_set.revision:
            self._acknowledged[request] = outcome.revision
        return True

    # Accidents.

    def _accidents(self) -> list[Callable[[], None]]:
        return [
            self._cut,
            self._half_open,
            self._repeat,
            self._slow_network,
            self._slow_reader,
            self._crash_node,
            self._drain_node,
            self._pause_node,
            self._lose_store,
            self._fail_over,
            self._restore,
            self._restore_by_hand,
            self._compact,
            self._jump,
            self._crash_client,
            self._leave,
            self._leave,
            self._cut_off,
            self._cut_off,
        ]

    def _for_a_while(self, longest: float) -> float:
        """Draw the seconds of an accident, which is over when the world is healed."""
        return min(self.random.uniform(0.1, longest), self._ends_at - self.clock.now)

    def _cut(self) -> None:
        for stream in self.network.open:
            if self.random.random() < 0.5:
                stream.cut()
        self.note("network", "cuts")

    @property
    def followers(self) -> list[Follower]:
        """All that follow a stream: clients, and relays for each environment."""
        inner = [follower for relay in self.relays for follower in relay.followers.values()]
        return [*self.clients, *inner]

    def _half_open(self) -> None:
        client = self.random.choice(self.followers)
        self.note("network", f"loses {client.name}")
        if client.stream is not None:
            client.stream.darken()
        self.dark.add(client)
        self.clock.after(self._for_a_while(6.0), self.dark.discard, client)

    def _repeat(self) -> None:
        for stream in self.network.open[-3:]:
            self.network.repeat(stream)
        self.note("network", "repeats requests")

    def _slow_network(self) -> None:
        client = self.random.choice(self.followers)
        seconds = self._for_a_while(4.0)
        self.note("network", f"holds up {client.name} for {seconds:.1f} s")
        self.network.slow_until[client] = self.clock.now + seconds

    def _slow_reader(self) -> None:
        client = self.random.choice(self.followers)
        seconds = self._for_a_while(40.0)
        self.note(client.name, f"reads nothing for {seconds:.1f} s")
        client.pause(seconds)

    def _crash_node(self) -> None:
        node = self.random.choice(self.hosts)
        node.crash()
        if isinstance(node, RelayNode) and self.random.random() < 0.4:
            node.disk.damage("cache", self.random)
        self.clock.after(self._for_a_while(6.0), node.start)

    def _drain_node(self) -> None:
        node = self.random.choice(self.hosts)
        self._drained_at = self.clock.now
        node.drain()
        self.clock.after(GRACE_SECONDS + self._for_a_while(4.0), node.start)

    def _pause_node(self) -> None:
        node = self.random.choice(self.nodes)
        seconds = self._for_a_while(6.0)
        self.note(node.name, f"stands still for {seconds:.1f} s")
        node.paused_until = self.clock.now + seconds

    def _lose_store(self) -> None:
        node = self.random.choice(self.nodes)
        self.note(node.name, "loses the store")
        node.access.away = True
        self.clock.after(self._for_a_while(6.0), setattr, node.access, "away", False)

    def _fail_over(self) -> None:
        """A standby takes over that may lack the newest revisions; what was acknowledged of them is lost."""
        newest = len(self.store.change_sets)
        lost = self.random.choice((0, 1, 1, 2, 3))
        revision = max(newest - lost, min(self.store.kept))
        self.note("store", f"fails over from {newest} to {revision}")
        self._replace(self.store.kept[revision])

    def _restore(self) -> None:
        self.note("store", f"is restored to {len(self._backup['_change_sets'])}")
        self._replace(self._backup)

    def _restore_by_hand(self) -> None:
        """Somebody puts an older file in place; nodes find out, as long as one is there that has seen more."""
        store = self.store
        _, generation, _ = life_of(self._backup["_identity"])
        before = (generation, len(self._backup["_change_sets"]))
        there = [node for node in self.nodes if node.has_seen_more(before)]
        if not there:
            return
        self.note("store", f"is replaced by {before}")
        store.put_back(self._backup)
        self._forget_lost()
        for node in there:
            node.hinted(before[1])
        if store.life == life_of(self._backup["_identity"]):
            raise Violation(STATE, "no node has noticed that history was lost")

    def _replace(self, contents: dict[str, object]) -> None:
        self.store.replace(contents)
        self._forget_lost()

    def _forget_lost(self) -> None:
        newest = len(self.store.change_sets)
        self._acknowledged = {
            request: revision for request, revision in self._acknowledged.items() if revision <= newest
        }

    def _compact(self) -> None:
        if self.relays and self.random.random() < 0.3:
            self.random.choice(self.relays).compact(self.random.choice((0, 1, 2)))
        else:
            self.random.choice(self.nodes).compact(keep=self.random.choice((None, 0, 1, 2)))

    def _jump(self) -> None:
        jump = self.random.choice((_HOUR, -_HOUR, _DECADE))
        self.note("clock", f"jumps by {jump}")
        self.clock.offset += jump

    def _crash_client(self) -> None:
        client = self.random.choice(self.clients)
        client.crash()
        if self.random.random() < 0.4:
            client.disk.damage("cache", self.random)
        self.clock.after(self._for_a_while(3.0), client.start)

    def _leave(self) -> None:
        """A client is away while much happens, and some of that is compacted."""
        client = self.random.choice(self.clients)
        client.crash()
        for _ in range(3):
            self.clock.after(self.random.uniform(0.0, 1.0), self._write)
        if self.random.random() < 0.7:
            self.clock.after(1.0, self._compact)
        self.clock.after(self._for_a_while(1.0) + 1.0, client.start)

    def _cut_off(self) -> None:
        """A node goes on without the store, while the others go on with it and clients change between them."""
        self._lose_store()
        for _ in range(2):
            self.clock.after(self.random.uniform(0.0, 0.5), self._write)
        self.clock.after(0.6, self._cut)

    # The end.

    def _heal(self) -> None:
        self.note("world", "is healed")
        self.calm = True
        self._hints_lost = 0.0
        self._hints_late = 0.01
        self.dark.clear()
        for node in self.nodes:
            node.access.away = False
            if node.service is not None and node.service.draining:
                node.crash()
            node.start()
        for relay in self.relays:
            if relay.process is not None and relay.process.draining:
                relay.crash()
            relay.start()
        for follower in self.followers:
            follower.resume()
        for client in self.clients:
            client.start()

    def _patience(self, client: Client) -> float:
        """Return the seconds within which a client has to have what the store has."""
        seconds = CONVERGED_SECONDS
        if client.stream is not None and client.stream.dark:
            seconds += 3 * HEARTBEAT
        for relay in self.relays:
            # Its clients may have seen more than it has, and wait for it in vain.
            seconds += CATCH_UP_SECONDS + LONGEST_BACKOFF
            if any(
                follower.stream is not None and follower.stream.dark for follower in relay.followers.values()
            ):
                seconds += 3 * HEARTBEAT
        if self._drained_at > self.clock.now - GRACE_SECONDS - _SPREAD_SECONDS - LONGEST_BACKOFF:
            seconds += _SPREAD_SECONDS
        return seconds


_scope_of = functools.cache(publish.scope_of)


@contextlib.contextmanager
def scaled() -> Iterator[None]:
    """Let a small state be a large one, and the logs be still."""
    log = logging.getLogger("rheostat")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with (
            mock.patch.object(wire_event, "CHUNK_BYTES", 100),
            mock.patch.object(wire_event, "LARGE_DELTA_BYTES", 400),
            # Pure, and asked the same in every world.
            mock.patch.object(publish, "scope_of", _scope_of),
        ):
            yield
    finally:
        log.setLevel(level)


def run(seed: int, *, trace: bool = False) -> Run:
    """Run the world of a seed to its end, or to the first violation."""
    violation: Violation | None = None
    with scaled():
        world = World(seed, trace=trace)
        try:
            world.run()
        except Violation as error:
            violation = error
        except Exception as error:  # noqa: BLE001 - whatever it is, production code has raised it
            violation = Violation(PROTOCOL, f"{error!r} was raised")
            violation.__cause__ = error
    if violation is not None:
        world.note("checker", str(violation))
    return Run(seed, world.digest, violation, tuple(world.lines or ()))
