"""The real server inside the test's process."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from rheostat.document import parse_document, plan_apply
from rheostat.errors import FailedPreconditionError, MissingDependencyError, UnavailableError
from rheostat.model.change import DeleteSetting, Mutation, PutSetting, SetValue
from rheostat.model.type import BOOL, FLOAT, INT, JSON, STR, SettingType, normalise
from rheostat.model.value import Value, freeze, thaw

if TYPE_CHECKING:
    from rheostat.service import Limits, Service, Writer

try:
    import uvicorn
except ModuleNotFoundError as exc:
    raise MissingDependencyError(
        "the server needs uvicorn, which is not installed: pip install 'rheostat[server]'"
    ) from exc

__all__ = ["LocalServer"]

_START_SECONDS: Final = 10.0
_STOP_SECONDS: Final = 5.0


class LocalServer:
    """The real server, in a thread of this process, on a free port of 127.0.0.1, open to everybody without a key.

    ::

        with LocalServer() as server, Client(server.url) as client:
            server.set("checkout.timeout", 2.5)

    Safe from any thread. Made and started at once; `close` or the ``with`` block ends it.

    Attributes:
        url: For clients; the same after a restart.
        service: The node itself, for what the methods here do not do.
    """

    def __init__(
        self,
        store: str = "memory:",
        *,
        project: str = "",
        environment: str = "",
        limits: Limits | None = None,
        heartbeat: float = 15.0,
    ) -> None:
        """Start a server.

        Args:
            store: The URL of the store, such as ``sqlite:test.db``.
            project: Whose settings `set` and `delete` change; empty for the only one beside the first, ``default``.
            environment: Where; empty for the project's only one.
            limits: See `rheostat.service.Limits`.
            heartbeat: Seconds of silence after which a stream says that it is alive.

        Raises:
            MissingDependencyError: The extra ``rheostat[server]`` is not installed.
            StoreError: The store cannot be opened.
        """
        try:
            from rheostat.service import Service
            from rheostat.store import open_store
        except ModuleNotFoundError as exc:
            raise _missing(exc) from exc
        self._project = project
        self._environment = environment
        self._lock = threading.RLock()
        self._closed = False
        self._running: _Running | None = None
        self.service: Service = Service(open_store(store), limits=limits, heartbeat=heartbeat)
        # Bound while the server is stopped, so that nobody else takes the port and clients are refused.
        self._reserved = _bound(0)
        self.url: str = f"http://127.0.0.1:{self._reserved.getsockname()[1]}"
        try:
            self.service.start()
            self.start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Serve again, at the same address and with the same store; does nothing when it serves.

        Raises:
            FailedPreconditionError: It was closed.
            UnavailableError: It does not come up.
        """
        with self._lock:
            if self._closed:
                raise FailedPreconditionError("the local server was closed")
            if self._running is None:
                running = _Running(self.service, self._reserved)
                running.wait()
                self._running = running

    def stop(self) -> None:
        """Go away as a server does that was killed: connections break, and new ones are refused.

        The store stays; `start` brings everything back. Does nothing when it is stopped.
        """
        with self._lock:
            running, self._running = self._running, None
            if running is not None:
                running.end()
                self._reserved = _bound(running.port)

    def close(self) -> None:
        """End for good. Does nothing the second time."""
        with self._lock:
            if self._closed:
                return
            self.stop()
            self._closed = True
            self._reserved.close()
            self.service.close()

    # What a test sets.

    @property
    def revision(self) -> int:
        """The newest revision."""
        return self.service.head.revision

    def apply(self, document: str | os.PathLike[str] | Mapping[str, object]) -> int:
        """Apply a declarative document, as ``rheostat apply`` does, and return the revision.

        Args:
            document: Its text, the path of a file, or its contents as a mapping. Without ``project`` it is about the
                server's.

        Raises:
            InvalidDocumentError: It is wrong, or does not fit what there is.
            RheostatError: The server refuses it.
        """
        if isinstance(document, Mapping):
            text, source = json.dumps(_plain(document)), "document"
        elif isinstance(document, os.PathLike) or ("\n" not in document and Path(document).is_file()):
            text, source = Path(document).read_text("utf-8"), os.fspath(document)
        else:
            text, source = document, "document"
        parsed = parse_document(text, source=source)
        head = self.service.head
        project = parsed.project or self._its_project()
        mutations = plan_apply(parsed, head.state.projects.get(project))
        return self._commit(project, "", mutations)

    def set(self, name: str, value: object) -> int:
        """Let the setting *name* have *value* where no rule decides, and return the revision.

        A new setting gets the type of the value: bool, int, float, str or, for everything else, Json.

        Raises:
            TypeMismatchError: The value does not fit the setting's type.
            RheostatError: The server refuses it.
        """
        project, environment = self._place()
        frozen = freeze(value)
        settings = self.service.head.state.projects[project].environments[environment].settings
        known = next((setting for setting in settings.values() if name in setting.names), None)
        mutation: Mutation
        if known is None:
            mutation = PutSetting(name, {"type": str(_type_of(frozen)), "default": frozen})
        else:
            mutation = SetValue(name, normalise(known.type, frozen))
        return self._commit(project, environment, [mutation])

    def delete(self, name: str) -> int:
        """Delete the setting *name*, and return the revision.

        Raises:
            SettingNotFoundError: There is none.
        """
        project, environment = self._place()
        return self._commit(project, environment, [DeleteSetting(name)])

    def _commit(self, project: str, environment: str, mutations: Any) -> int:
        return self.service.commit(_writer(), project, environment, mutations).revision

    def _its_project(self) -> str:
        if self._project:
            return self._project
        projects = [*self.service.head.state.projects]
        others = [slug for slug in projects if slug != "default"]
        return others[0] if len(others) == 1 else "default"

    def _place(self) -> tuple[str, str]:
        project = self._its_project()
        state = self.service.head.state.projects.get(project)
        slugs = [] if state is None else [*state.environments]
        if self._environment:
            if self._environment not in slugs:
                raise FailedPreconditionError(
                    f"the project {project!r} has no environment {self._environment!r}; it has {slugs}"
                )
            return project, self._environment
        if len(slugs) != 1:
            raise FailedPreconditionError(
                f"the project {project!r} has the environments {slugs}: say which with LocalServer(environment=...)"
            )
        return project, slugs[0]


class _Running:
    """One run of the server, in a thread."""

    def __init__(self, service: Service, bound: socket.socket) -> None:
        try:
            from rheostat.server.asgi import asgi_app
        except ModuleNotFoundError as exc:
            raise _missing(exc) from exc
        self.port: int = bound.getsockname()[1]
        self._socket = bound
        self._socket.listen(128)
        self._up = threading.Event()
        self._server = _Server(
            uvicorn.Config(
                asgi_app(service, open=True),
                loop="asyncio",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=1,
            ),
            self._up,
        )
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, name="rheostat-local-server", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        self._up.wait(_START_SECONDS)
        if not self._server.started:
            self.end()
            raise UnavailableError("the local server does not come up") from self._failure

    def end(self) -> None:
        self._server.should_exit = True
        self._thread.join(_STOP_SECONDS)
        self._socket.close()

    def _serve(self) -> None:
        try:
            self._server.run(sockets=[self._socket])
        except BaseException as exc:  # noqa: BLE001 - told by `wait`
            self._failure = exc
        finally:
            self._up.set()


class _Server(uvicorn.Server):
    """Uvicorn in a thread, which says when it serves, and breaks its connections when it ends."""

    def __init__(self, config: uvicorn.Config, up: threading.Event) -> None:
        super().__init__(config)
        self._is_up = up

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say so."""
        await super().startup(sockets)
        self._is_up.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Break the connections first, since streams would go on."""
        for connection in tuple(self.server_state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()
        # The applications hear of it in the next turns of the loop.
        await asyncio.sleep(0)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Leave signals to the test runner."""


def _bound(port: int) -> socket.socket:
    # The protocol is named because asyncio turns Nagle's algorithm off only where it is.
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(("127.0.0.1", port))
    except OSError:
        found.close()
        raise
    return found


def _writer() -> Writer:
    from rheostat.service import Writer
    from rheostat.service.access import OPEN

    return Writer(OPEN, author="test")


def _type_of(value: Value) -> SettingType:
    for kind, type_ in ((bool, BOOL), (int, INT), (float, FLOAT), (str, STR)):
        if isinstance(value, kind):
            return type_
    return JSON


def _plain(document: Mapping[str, object]) -> Any:
    return thaw(freeze(document))


def _missing(exc: ModuleNotFoundError) -> Exception:
    if (exc.name or "").startswith("rheostat"):
        return exc
    return MissingDependencyError(
        f"the server needs {exc.name}, which is not installed: pip install 'rheostat[server]'"
    )
