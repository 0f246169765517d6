"""What `Client` and `AsyncClient` have in common: all that needs neither a thread nor an event loop."""

from __future__ import annotations

import _thread
import logging
import os
import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol
from urllib.parse import urlsplit
from weakref import WeakMethod, finalize

from rheostat.errors import InvalidArgumentError, InvalidSettingError, RheostatError
from rheostat.model.declaration import DeclarationResult
from rheostat.model.exposure import ExposureRecord
from rheostat.model.position import Position
from rheostat.model.setting import Lifecycle
from rheostat.model.value import FrozenMapping, Value
from rheostat.sdk import fork
from rheostat.sdk import setting as declared
from rheostat.sdk.core import ALL, Core, Driver, Hooks, Options
from rheostat.sdk.reader import Reader, S
from rheostat.sdk.status import Status
from rheostat.sdk.subscription import SettingChange, Subscription
from rheostat.wire.watch import position_from_proto

if TYPE_CHECKING:
    from rheostat.sdk.redis_source import RedisSource
    from rheostat.sdk.setting import Setting
    from rheostat.sdk.subject import SharedCache

__all__ = ["ALL", "BaseClient", "SettingInfo"]

log = logging.getLogger("rheostat")

_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


class Told(Protocol):
    """What collects changes for an iterator."""

    stop: Callable[[], object]

    def put(self, change: SettingChange[Any]) -> None:
        """Add a change."""


class Closing(Driver, Protocol):
    """What runs a client on threads."""

    def close(self) -> None:
        """End them."""


@dataclass(frozen=True, slots=True)
class SettingInfo:
    """What a setting is, beside its values.

    Attributes:
        name: Its current name.
        type: The text of its type, such as ``Enum["a","b"]``.
        default: The default of the definition.
        aliases: Its former names.
        version: Of its definition.
        features: The attributes that rules may read; None means any.
        metadata: What tools keep with it.
        description: For people.
        owner: Who answers for it.
        tags: Words to find it by.
        lifecycle: Where it stands in its life.
    """

    name: str
    type: str
    default: Value
    aliases: tuple[str, ...]
    version: str
    features: tuple[str, ...] | None
    metadata: FrozenMapping
    description: str
    owner: str
    tags: tuple[str, ...]
    lifecycle: Lifecycle


class BaseClient(Reader[S]):
    """A live, local replica of one environment; `Client` for threads and `AsyncClient` for asyncio.

    Making one does no I/O. It connects in `start`, as a context manager, or at the first read, which does not wait:
    until there is a state, reads give defaults.
    """

    # Whether it waits in the threads of its callers.
    _waits: ClassVar[bool] = True

    def __init__(
        self,
        url: str | None = None,
        *,
        key: str | None = None,
        project: str | None = None,
        environment: str | None = None,
        context: Mapping[str, object] | None = None,
        defaults: Mapping[str, object] | None = None,
        settings: Iterable[Setting[Any]] | object = (),
        required: Iterable[str] = (),
        name: str = "",
        client_id: str | None = None,
        cache_path: str | os.PathLike[str] | None = None,
        bootstrap: str | os.PathLike[str] | Mapping[str, object] | None = None,
        offline: bool = False,
        mode: str = "watch",
        poll_interval: float = 30.0,
        names: Iterable[str] = (),
        prefixes: Iterable[str] = (),
        timeout: float = 10.0,
        start_timeout: float = 5.0,
        retries: int = 2,
        backoff: tuple[float, float] = (1.0, 30.0),
        stale_after: float | None = None,
        max_events: int = 10_000,
        event_interval: float = 5.0,
        flush_timeout: float = 5.0,
        exposures: float = 1.0,
        max_subjects: int = 10_000,
        subject_timeout: float = 2.0,
        cache: SharedCache | None = None,
        strict: bool = False,
        report: bool = True,
        headers: Mapping[str, str] | None = None,
        http_client: Any = None,
        http_client_factory: Callable[[], Any] | None = None,
        source: RedisSource | None = None,
        on_update: Callable[[Position], object] | None = None,
        on_update_error: Callable[[RheostatError], object] | None = None,
        on_status: Callable[[Status], object] | None = None,
        on_declaration: Callable[[Sequence[DeclarationResult]], object] | None = None,
        on_exposure: Callable[[ExposureRecord], object] | None = None,
    ) -> None:
        """Prepare a client.

        Args:
            url: The server's address; None is taken from ``RHEOSTAT_URL``.
            key: The key, ``rst_…``, of which surrounding whitespace does not count; None is taken from
                ``RHEOSTAT_KEY``.
            project: The project's slug; None is taken from ``RHEOSTAT_PROJECT``, else it is the key's.
            environment: The environment's slug; None is taken from ``RHEOSTAT_ENVIRONMENT``, else it is the only one
                that the key has.
            context: Attributes of every evaluation; values may be context variables.
            defaults: Values for settings that the server does not have, by name.
            settings: Declared settings to bind to this client; also a module or class that holds them.
            required: Names without which the client is not ready.
            name: What people are shown, such as ``checkout@web-7``.
            client_id: The attribute ``client.id``; None draws one for each process.
            cache_path: A file for the last known good state, read when the server is away at start.
            bootstrap: Values to begin with until the server has sent its own: a mapping by name, a JSON file of
                one, or a copy of a cache file.
            offline: Ask no server: bootstrap, defaults and overrides only.
            mode: ``watch`` for a stream, ``poll`` for networks that cut streams.
            poll_interval: Seconds between two polls.
            names: Only these settings, and what they refer to.
            prefixes: Only settings whose names begin so.
            timeout: Seconds for one call, and for opening a connection; reads make none.
            start_timeout: Seconds that `start` waits at most.
            retries: How often a call that may be repeated is.
            backoff: Seconds: the bound of the first random delay before a stream is opened again, and of the last.
            stale_after: Seconds without a word of the server after which the state counts as stale; None is three
                heartbeats.
            max_events: How many events wait at most to be sent; of more the oldest are dropped, see `events_dropped`.
            event_interval: Seconds after which events are sent; a hundred are at once.
            flush_timeout: Seconds that closing the client takes at most to send what is left.
            exposures: The share of checks that are counted as exposures, 0 to 1.
            max_subjects: How many stored subjects are held at most; of more those that were not used for longest are
                dropped.
            subject_timeout: Seconds that a check waits at most for stored subjects that are not at hand.
            cache: Where subjects are shared with other processes, see `RedisCache`.
            strict: Know the project's features: `with_context`, `ambient` and `narrow` refuse other attributes, until it is
                closed, and reads log them. Meant for tests.
            report: Tell the server about once a minute, and soon after a change while somebody waits for it, which
                revision this client is at, what went wrong last and which settings were read, for
                ``rheostat clients``, ``--wait`` and the list of unused settings. Never holds up a read.
            headers: Further headers of every call.
            http_client: Your own `urllib3.PoolManager`, on `AsyncClient` `aiohttp.ClientSession`, for proxies, TLS
                and instrumentation. It is never closed for you.
            http_client_factory: Makes such a pool or session, in each process anew; that one is closed with the client.
            source: Where to read the state from in the place of a server: what a relay writes to Redis, see
                `RedisSource`. Then a server is used only when *url* names one here, and not for reading.
            on_update: Called with the position after each step.
            on_update_error: Called with what ended a stream or refused one, and with a damaged cache.
            on_status: Called with each new status.
            on_declaration: Called with the answers to declarations.
            on_exposure: Called with each check that is counted, by whoever makes it; it must not block.

        Raises:
            InvalidArgumentError: There is no address, or an option is out of range; the message names it.
        """
        url = url or (os.environ.get("RHEOSTAT_URL") if source is None else None) or None
        if url is None and not offline and source is None:
            raise InvalidArgumentError(
                "a client needs the server's address: url, RHEOSTAT_URL, a source or offline=True"
            )
        if url is not None:
            url = _checked_url(url)
        if mode not in {"watch", "poll"}:
            raise InvalidArgumentError(f"the mode {mode!r} is neither 'watch' nor 'poll'")
        if not isinstance(retries, int) or retries < 0:
            raise InvalidArgumentError(f"the option retries is {retries!r}, and has to be a number from 0 on")
        for option, seconds in (
            ("poll_interval", poll_interval),
            ("timeout", timeout),
            ("start_timeout", start_timeout),
            ("backoff", backoff[0]),
            ("backoff", backoff[1]),
            ("stale_after", 1.0 if stale_after is None else stale_after),
            ("event_interval", event_interval),
            ("flush_timeout", flush_timeout),
            ("subject_timeout", subject_timeout),
        ):
            if not 0 < seconds < float("inf"):
                raise InvalidArgumentError(f"the option {option} is {seconds} s, and has to be above zero")
        for option, most in (("max_events", max_events), ("max_subjects", max_subjects)):
            if not isinstance(most, int) or most < 1:
                raise InvalidArgumentError(
                    f"the option {option} is {most!r}, and has to be a number from 1 on"
                )
        if not 0 <= exposures <= 1:
            raise InvalidArgumentError(f"the option exposures is {exposures}, and has to be from 0 to 1")
        if backoff[0] > backoff[1]:
            raise InvalidArgumentError(
                f"the option backoff is {backoff}, and the first is not to be above the last"
            )
        if cache is not None:
            cache.check_kind(waits=self._waits)
        core = Core(
            Options(
                url=None if url is None else url.rstrip("/"),
                key=_header_text("key", os.environ.get("RHEOSTAT_KEY") or None if key is None else key),
                project=os.environ.get("RHEOSTAT_PROJECT", "") if project is None else project,
                environment=os.environ.get("RHEOSTAT_ENVIRONMENT", "")
                if environment is None
                else environment,
                name=name,
                client_id=client_id,
                required=tuple(required),
                names=tuple(names),
                prefixes=tuple(prefixes),
                mode=mode,
                poll_interval=poll_interval,
                offline=offline,
                strict=strict,
                report=report and (url is not None or source is None),
                cache_path=cache_path,
                bootstrap=bootstrap,
                timeout=timeout,
                start_timeout=start_timeout,
                retries=retries,
                backoff=backoff,
                stale_after=stale_after,
                max_events=max_events,
                event_interval=event_interval,
                flush_timeout=flush_timeout,
                exposures=exposures,
                max_subjects=max_subjects,
                subject_timeout=subject_timeout,
                cache=cache,
                headers=_checked_headers(headers or {}),
                http_client=http_client,
                http_client_factory=http_client_factory,
                source=source,
                hooks=Hooks(on_update, on_update_error, on_status, on_declaration, on_exposure),
            )
        )
        self._read_from(core, core.replica, () if not context else (dict(context),), dict(defaults or {}))
        idle = WeakMethod(self._start_idle)

        def start_idle() -> None:
            start = idle()
            if start is not None:
                start()

        self._idle = start_idle
        core.replica.idle = start_idle
        fork.register(self)
        self.declare(settings)

    # How it stands.

    @property
    def ready(self) -> bool:
        """Whether there is a state that has every required setting; the cache's and a bootstrap count."""
        return self._core.ready

    @property
    def stale(self) -> bool:
        """Whether nothing was heard of the server for `stale_after` seconds, or the state is from the cache."""
        return self._core.stale

    @property
    def status(self) -> Status:
        """Where the client stands."""
        return self._core.status

    @property
    def position(self) -> Position | None:
        """Up to where everything has been delivered; None before the first state."""
        position = self._core.held.position
        return None if position is None else position_from_proto(position)

    @property
    def client_id(self) -> str:
        """The attribute ``client.id``, another one in each process unless it was given."""
        return self._core.client_id

    def get_settings(self) -> dict[str, SettingInfo]:
        """Return what the settings are, by name: types, aliases, versions, metadata."""
        return {
            name: SettingInfo(
                name=setting.name,
                type=str(setting.type),
                default=setting.default,
                aliases=setting.aliases,
                version=str(setting.version),
                features=setting.features,
                metadata=setting.metadata,
                description=setting.description,
                owner=setting.owner,
                tags=setting.tags,
                lifecycle=setting.lifecycle,
            )
            for name, setting in self._view().snapshot.settings.items()
        }

    # Declared settings.

    def declare(self, settings: Setting[Any] | Iterable[Setting[Any]] | object) -> None:
        """Bind declared settings to this client: they are read through it, and declared to the server.

        Values of the server are fitted to their types from now on. Safe to call with what is declared already.

        Raises:
            InvalidSettingError: What is given holds something else than settings.
        """
        found = (settings,) if isinstance(settings, declared.Setting) else declared.settings_of(settings)
        for each in found:
            if not isinstance(each, declared.Setting):
                raise InvalidSettingError(f"{each!r} is not a declared setting")
            each.bind(self)
        self._core.declare(found)

    @contextmanager
    def activate(self) -> Iterator[None]:
        """Let all declared settings be read through this client inside the block, in this thread or task."""
        token = declared.current_client.set(self)
        try:
            yield
        finally:
            declared.current_client.reset(token)

    # Events.

    def track(
        self,
        event: str,
        *,
        quantity: int = 1,
        attributes: Mapping[str, object] | None = None,
        **subjects: Mapping[str, str],
    ) -> None:
        """Tell the server that something has happened to subjects: ``track("api-call", company={"id": "acme"})``.

        It is buffered and sent with others. Never blocks and never raises: what is wrong with the arguments is logged
        once, and counted in `events_dropped`. Safe from any thread or task.

        Args:
            event: What has happened: letters, digits, ``_``, ``-`` and dots.
            quantity: How much of it; a negative one takes back.
            attributes: What else there is to say.
            subjects: To whom, by kind: the keys of each. A subject that is not stored yet is stored with them.
        """
        entry = self._core.events.track(event, quantity, attributes, subjects)
        if entry is not None:
            self._core.subjects.count(entry)

    def identify(
        self,
        kind: str,
        keys: Mapping[str, str],
        traits: Mapping[str, object] | None = None,
        *,
        member_of: Mapping[str, Mapping[str, str] | Sequence[Mapping[str, str]]] | None = None,
    ) -> None:
        """Tell the server who somebody is: ``identify("user", {"id": "u1"}, {"plan": "pro"})``.

        The subject is found by any of its keys, or stored, and has all of them afterwards. Buffered and sent as events
        are, before the events that come after it. Never blocks and never raises.

        Args:
            kind: What the subject is, such as ``user``.
            keys: By name.
            traits: To set, by name; None removes one. Others stay.
            member_of: What it becomes a member of, by kind: the keys of one, or a list of those of several. These
                have to be stored before.
        """
        self._core.events.identify(kind, keys, traits, member_of)

    @property
    def events_dropped(self) -> int:
        """How many events and patches of subjects this process has not sent and never will.

        Because an argument was wrong, the buffer was full, the server refused it, or the client was closed.
        """
        return self._core.events.dropped

    # Values of this process.

    def set_override(self, name: str, value: object) -> None:
        """Set the value of *name* for this process: it wins over everything, with the variant ``override``.

        Raises:
            TypeMismatchError: The value does not fit the declared type, or is no value at all.
        """
        self._core.replica.override({name: value})

    def clear_override(self, name: str | None = None) -> None:
        """Go back to the server's value of *name*, or of everything."""
        self._core.replica.clear_overrides(None if name is None else (name,))

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Go on reading the same revision inside the block; the stream goes on, and what came is shown at its end."""
        with self._core.replica.frozen():
            yield

    def narrow(self, **attributes: object) -> None:
        """Tell the server which values attributes will ever have here: rules that can match none are not sent.

        The attribute has to be present in every context from then on: rules for contexts without it may not be sent.
        Evaluations in contexts that have it, with one of the values, give the same as without. ``narrow(region=["eu", "us"], plan=ALL)`` adds to what
        was narrowed before; `ALL` ends it. An attribute with a dot goes into a mapping:
        ``narrow(**{"user.plan": ["pro"]})``.

        Raises:
            TypeMismatchError: Values are no strings.
            ValueError: The client is strict, and an attribute is no registered feature.
        """
        self._core.narrow(attributes)

    @abstractmethod
    def after_fork(self) -> None:
        """Become the client of a child process; called by itself."""

    @abstractmethod
    def _start_idle(self) -> None:
        """Start, if that is possible here; called by reads, and so it neither waits nor raises."""

    def _tell(self, changes: Told, name: str | None) -> None:
        """Put changes of *name* into *changes*, for as long as somebody refers to it."""
        put = WeakMethod(changes.put)

        def tell(change: SettingChange[Any]) -> None:
            living = put()
            if living is not None:
                living(change)

        self._core.ending.add(changes)
        changes.stop = stop = finalize(changes, self._core.subscribe(Subscription(self, tell, name)))
        stop.atexit = False

    def _end_unreferred(self, driver: Closing) -> None:
        """Let *driver* end when nobody refers to the client any more, unless it calls back."""
        if self._core.options.hooks == Hooks():
            finalize(self, _leave, self._core, driver).atexit = False

    def _give_up(self, error: Exception, *, quietly: bool = False) -> None:
        """Let reads go on without the server, as starting has failed; an explicit `start` tries again."""
        core = self._core
        with core.replica.lock():
            if core.closed:
                return
            # A strict client has more to do before each read.
            core.replica.idle = _nothing if core.options.strict else None
        log.log(
            logging.DEBUG if quietly else logging.ERROR,
            "the client cannot start, and reads do without the server: %s",
            error,
            exc_info=error,
        )


def _leave(core: Core, driver: Closing) -> None:
    # Elsewhere, as garbage is collected in any place.
    if core.driver is driver and not core.closed:
        with suppress(RuntimeError):
            _thread.start_new_thread(_end, (core, driver))


def _end(core: Core, driver: Closing) -> None:
    core.close()
    driver.close()


def _checked_url(url: str) -> str:
    """Return the address of a server that may be asked.

    Raises:
        InvalidArgumentError: It is none.
    """
    url = url.strip()
    if not url.startswith(("http://", "https://")):
        raise InvalidArgumentError(f"the server's address {url!r} does not begin with http:// or https://")
    # Not named from here on: there may be a password in it.
    if any(character.isspace() or not character.isprintable() for character in url):
        raise InvalidArgumentError("the server's address, url, holds whitespace or a control character")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidArgumentError(f"the server's address, url, cannot be used: {error}") from None
    if not host:
        raise InvalidArgumentError("the server's address, url, has no host")
    return url


def _checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    checked: dict[str, str] = {}
    for name, value in headers.items():
        if not isinstance(name, str) or _HEADER_NAME.fullmatch(name) is None:
            raise InvalidArgumentError(f"the option headers has the name {name!r}, which no header can have")
        text = _header_text(f"headers, {name!r},", value)
        if text is None:
            raise InvalidArgumentError(f"the option headers, {name!r}, is not a string but a NoneType")
        checked[name] = text
    return checked


def _header_text(option: str, text: object) -> str | None:
    """Return *text* without surrounding whitespace. Errors never show it, as it may be secret.

    Raises:
        InvalidArgumentError: It cannot stand in a header.
    """
    if text is None:
        return None
    if not isinstance(text, str):
        raise InvalidArgumentError(f"the option {option} is not a string but a {type(text).__name__}")
    text = text.strip()
    for i, character in enumerate(text):
        if not " " <= character <= "~":
            raise InvalidArgumentError(
                f"the option {option} cannot be sent: its character {i + 1} is a control character, or not ASCII"
            )
    return text


def _nothing() -> None:
    """Start nothing."""
