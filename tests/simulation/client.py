"""A client: the core of the SDK with its watch loop, replica and cache, driven by the clock of the world."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rheo.v1 import watch_pb2
from rheostat.errors import RheostatError
from rheostat.model.position import Filter
from rheostat.model.setting import Setting
from rheostat.sdk.cache import Cache
from rheostat.sdk.core import Core, Options
from rheostat.sdk.held import Held
from tests.checking import BOOKMARK, DIGEST, EVALUATION, PROTOCOL, STATE, Life, Violation, Watched
from tests.simulation.clock import Timer
from tests.simulation.disk import Disk, DiskCache
from tests.simulation.follower import Follower
from tests.simulation.node import PROJECT

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["Client"]

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


class Client(Follower):
    """See the module.

    Attributes:
        core: None while the process does not run.
    """

    def __init__(self, world: World, name: str, environment: str, filter_: Filter, *, cached: bool) -> None:
        super().__init__(world, name)
        self.environment = environment
        self.filter = filter_
        self.cached = cached
        self.disk = Disk()
        self.watched = Watched(world.store.history, name, environment, filter_)
        self.core: SimulatedCore | None = None
        self._ticking: Timer | None = None
        self._shown: Held | None = None
        self._looks = 0
        self._rule = STATE

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
                backoff=world.backoff,
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
        self._rule = STATE
        self.watched.begin_anew()
        core.load_cache()
        world.note(self.name, f"starts with revision {core.held.revision}")
        self._look()
        self.follow(core.loop())

    def crash(self) -> None:
        """End the process at once."""
        if self.core is None:
            return
        self.world.note(self.name, "crashes")
        if self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None
        self.stop()
        self.core = None

    def held(self) -> Held:
        assert self.core is not None
        return self.core.held

    def heard(self, event: watch_pb2.WatchResponse) -> None:
        self._rule = BOOKMARK if event.HasField("bookmark") else STATE

    def moved(self) -> None:
        self._look()
        self._tick()

    # What is checked.

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
        self.watched.saw(life, position.revision, items, rule=self._rule)
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

    def missing(self) -> str:
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
