"""A client: the core of the SDK with its watch loop, replica and cache, driven by the clock of the world."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rheo.v1 import watch_pb2
from rheostat.errors import DeadlineExceededError, RheostatError
from rheostat.model.position import Filter, parse_token
from rheostat.model.setting import Setting
from rheostat.sdk.cache import Cache
from rheostat.sdk.core import Core, Options
from rheostat.sdk.effect import CloseStream, Effect, OpenStream, Receive, Sleep
from rheostat.sdk.failure import translated
from rheostat.sdk.watch_loop import Loop
from tests.checking import DIGEST, EVALUATION, ORDER, PROTOCOL, STATE, Life, Violation, Watched
from tests.simulation.clock import Timer
from tests.simulation.disk import Disk, DiskCache
from tests.simulation.network import Stream
from tests.simulation.node import PROJECT

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["LONGEST_BACKOFF", "Client"]

LONGEST_BACKOFF: Final = 2.0

_CONTEXTS: Final = ({"region": "eu", "user": {"id": "1"}}, {"region": "us"}, {})


class SimulatedCore(Core):
    """The core, with its cache on a disk of the world, and who tells the test of what a user would not be told."""

    disk: Disk

    def _cache_at_path(self, path: Any) -> Cache:
        made = super()._cache_at_path(path)
        cache = DiskCache.__new__(DiskCache)
        cache.__dict__.update(made.__dict__)
        cache.disk = self.disk
        return cache

    def differed(self, times: int) -> None:
        super().differed(times)
        if times:
            raise Violation(DIGEST, f"{self.client_id} differs at revision {self.held.revision}")

    def refused(self, error: RheostatError, retry_in: float) -> None:
        raise Violation(PROTOCOL, f"{self.client_id} is refused: {error}")


class Client:
    """See the module. A `Receiver` of the network.

    Attributes:
        core: None while the process does not run.
        stream: The one that is open.
        asleep_until: When the loop goes on that waits before it reconnects.
        slow: It takes nothing from its stream.
    """

    def __init__(self, world: World, name: str, environment: str, filter_: Filter, *, cached: bool) -> None:
        self.world = world
        self.name = name
        self.environment = environment
        self.filter = filter_
        self.cached = cached
        self.disk = Disk()
        self.watched = Watched(world.store.history, name, environment, filter_)
        self.core: SimulatedCore | None = None
        self.stream: Stream | None = None
        self.slow = False
        self._loop: Loop | None = None
        self._timer: Timer | None = None
        self._receiving = False
        self._ticking: Timer | None = None
        self._shown: Any = None
        # The position below which the present stream must not say anything.
        self._told: tuple[bytes, int, int] | None = None
        self._looks = 0

    def start(self) -> None:
        """Begin a process."""
        if self.core is not None:
            return
        world = self.world
        core = SimulatedCore(
            Options(
                url="http://simulated",
                project=PROJECT,
                environment=self.environment,
                client_id=self.name,
                names=self.filter.names,
                prefixes=self.filter.prefixes,
                cache_path="cache" if self.cached else None,
                backoff=(0.25, LONGEST_BACKOFF),
                timeout=1.0,
                report=False,
            ),
            clock=world.clock.monotonic,
            randomness=world.random,
        )
        core.disk = self.disk
        if self.filter.tracked:
            core.narrow(dict(self.filter.tracked))
        self.core = core
        self._shown = core.held
        self.watched.begin_anew()
        core.load_cache()
        world.note(self.name, f"starts with revision {core.held.revision}")
        self._look()
        self._loop = core.loop()
        self._drive(next(self._loop))

    def crash(self) -> None:
        """End the process at once."""
        if self.core is None:
            return
        self.world.note(self.name, "crashes")
        assert self._loop is not None
        self._stop_waiting()
        if self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None
        if self.stream is not None:
            self.stream.close()
        self.core = self._loop = self.stream = None
        self.slow = False

    def pause(self, seconds: float) -> None:
        """Take nothing from the stream for a while."""
        self.slow = True
        self.world.clock.after(seconds, self.resume)

    def resume(self) -> None:
        """Read on."""
        if self.slow:
            self.slow = False
            if self.stream is not None:
                self.arrived(self.stream)

    # The loop.

    def _drive(self, effect: Effect) -> None:
        assert self._loop is not None
        while True:
            match effect:
                case OpenStream(request):
                    self._open(request)
                    effect = self._loop.send(None)
                case CloseStream():
                    if self.stream is not None:
                        self.stream.close()
                        self.stream = None
                    effect = self._loop.send(None)
                case Receive(timeout):
                    self._receiving = True
                    self._timer = self.world.clock.after(timeout, self._timed_out)
                    if self.stream is not None and self.stream.inbox:
                        # In a turn of its own, so that a long answer is no recursion.
                        self.world.clock.after(0.0, self.arrived, self.stream)
                    return
                case Sleep(seconds):
                    self._timer = self.world.clock.after(seconds, self._go_on)
                    return
                case _:
                    raise TypeError(f"{effect!r} is not foreseen")

    def _open(self, request: watch_pb2.WatchRequest) -> None:
        world = self.world
        endpoint = world.endpoint()
        dark = self in world.dark
        world.note(self.name, f"opens {endpoint.name} with {self._position()}{' in the dark' * dark}")
        self._told = self._position()
        key = world.store.identity().token_key
        token = parse_token(request.resume, key) if request.resume else None
        held = self._position()
        if held is not None and (token is None or (token.store_id, token.generation, token.revision) != held):
            raise Violation(STATE, f"{self.name} holds {held} and resumes with {token}")
        sent = watch_pb2.WatchRequest.FromString(request.SerializeToString())
        self.stream = world.network.connect(self, endpoint, sent, dark=dark)

    def _position(self) -> tuple[bytes, int, int] | None:
        assert self.core is not None
        position = self.core.held.position
        return None if position is None else (position.store_id, position.generation, position.revision)

    def _go_on(self) -> None:
        assert self._loop is not None
        self._drive(self._loop.send(None))

    def _timed_out(self) -> None:
        assert self._loop is not None
        self._receiving = False
        self.world.note(self.name, "hears nothing")
        self._drive(self._loop.throw(DeadlineExceededError("no answer in time")))

    def _stop_waiting(self) -> None:
        self._receiving = False
        if self._timer is not None:
            self._timer.cancel()

    def arrived(self, stream: Stream) -> None:
        if stream is not self.stream or self.slow or not self._receiving or not stream.inbox:
            return
        assert self._loop is not None
        found = stream.inbox.popleft()
        stream.taken()
        self._stop_waiting()
        if isinstance(found, Exception):
            self.world.note(self.name, f"loses its stream: {found}")
            self._drive(self._loop.throw(translated(found, "http://simulated")))
            return
        event = None if found is None else watch_pb2.WatchResponse.FromString(found)
        self._listen(event)
        effect = self._loop.send(event)
        self._look()
        self._tick()
        self._drive(effect)

    # What is checked.

    def _listen(self, event: watch_pb2.WatchResponse | None) -> None:
        """What the stream says never goes back behind the token, nor behind what it said before."""
        kind = None if event is None else event.WhichOneof("event")
        if event is None or kind not in {"snapshot_end", "delta", "bookmark"}:
            self.world.note(self.name, f"hears {kind or 'the end'}")
            return
        position = getattr(event, kind).position
        said = (position.store_id, position.generation, position.revision)
        self.world.note(self.name, f"hears {kind} at {said[1:]}")
        if self._told is not None and said[0] == self._told[0] and said < self._told:
            raise Violation(ORDER, f"{self.name} stands at {self._told[1:]} and is sent {kind} {said[1:]}")
        self._told = said

    def _look(self) -> None:
        core = self.core
        assert core is not None
        held = core.held
        if held is self._shown:
            return
        self._shown = held
        position = held.position
        assert position is not None
        life: Life = (position.store_id, position.generation, position.nonce)
        items = {key: item.item for key, item in held.items.items()}
        self.watched.saw(life, position.revision, items)
        snapshot = core.replica.view.snapshot
        shown = {("setting", name): item for name, item in snapshot.settings.items()}
        shown.update({("segment", name): item for name, item in snapshot.segments.items()})  # type: ignore[misc]
        if shown != items or snapshot.revision != position.revision:
            raise Violation(STATE, f"{self.name} shows another state than it holds")
        self._looks += 1
        self.evaluate(list(snapshot.settings.values())[self._looks % 5 :: 5])

    def evaluate(self, settings: list[Setting]) -> None:
        """Evaluate settings, by their aliases too."""
        assert self.core is not None
        for setting in settings:
            context = _CONTEXTS[self._looks % len(_CONTEXTS)]
            for name in setting.names:
                try:
                    self.core.replica.view.evaluate(name, context)
                except Exception as error:
                    raise Violation(EVALUATION, f"{self.name} reads {name!r}: {error!r}") from error

    def current(self) -> str:
        """Return what is missing until the client has what the store has; empty when nothing is."""
        store = self.world.store
        core = self.core
        if core is None or core.held.position is None:
            return "holds nothing"
        position = core.held.position
        if (position.store_id, position.generation, position.nonce) != store.life:
            return f"holds generation {position.generation} revision {position.revision}"
        newest = len(store.change_sets)
        expected = store.history.state(store.life, newest, self.environment, self.filter)
        held = store.history.state(store.life, position.revision, self.environment, self.filter)
        return "" if held == expected else f"holds revision {position.revision} of {newest}"

    # Timers beside the loop.

    def _tick(self) -> None:
        core = self.core
        if core is None:
            return
        write = core.cache_due()
        if write is not None:
            write()
        if core._uncached is not None and self._ticking is None and self.cached:
            self._ticking = self.world.clock.after(core.tick() + 0.001, self._ticked)

    def _ticked(self) -> None:
        self._ticking = None
        self._tick()
