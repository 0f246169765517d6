"""A command's connection to a server, through the generated clients."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeVar

import urllib3
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from pyqwest import SyncClient

from rheo.v1 import admin_service_pb2 as admin
from rheo.v1.admin_service_connect import AdminServiceClientSync
from rheo.v1.config_service_connect import ConfigServiceClientSync
from rheo.v1.draft_service_connect import DraftServiceClientSync
from rheo.v1.event_service_connect import EventServiceClientSync
from rheo.v1.setting_pb2 import Setting as SettingMessage
from rheo.v1.webhook_service_connect import WebhookServiceClientSync
from rheostat.cli.failure import UnreachableError
from rheostat.cli.option import Target
from rheostat.errors import RheostatError
from rheostat.model.setting import Setting
from rheostat.sdk.transport import Urllib3Transport
from rheostat.wire.error import from_connect
from rheostat.wire.setting import setting_from_proto

__all__ = ["Connection", "new_request_id"]

Res = TypeVar("Res")

_MAX_ANSWER_BYTES: Final = 256 * 1024 * 1024
"""Above the 64 MiB that a server lets one environment grow to, times a few environments in an export."""

_PAGE_SIZE: Final = 1000


class _Paged(Protocol):
    next_page_token: str


P = TypeVar("P", bound=_Paged)


def new_request_id() -> str:
    """Return a request id that no other write has."""
    return f"cli-{secrets.token_hex(12)}"


class Connection:
    """The services of a server for one command; not for several threads.

    Attributes:
        target: What the command asked for.
        admin: The client of the admin service.
        config: The client of the config service.
        drafts: The client of the draft service.
        webhooks: The client of the webhook service.
        events: The client of the event service.
    """

    def __init__(self, target: Target) -> None:
        """Prepare a connection; nothing is sent before the first call."""
        self.target = target
        self._pool = urllib3.PoolManager(num_pools=1, maxsize=2)
        self._transport = Urllib3Transport(self._pool)
        http_client = SyncClient(self._transport)
        self.admin = AdminServiceClientSync(
            target.url, http_client=http_client, read_max_bytes=_MAX_ANSWER_BYTES
        )
        self.config = ConfigServiceClientSync(
            target.url, http_client=http_client, read_max_bytes=_MAX_ANSWER_BYTES
        )
        self.drafts = DraftServiceClientSync(
            target.url, http_client=http_client, read_max_bytes=_MAX_ANSWER_BYTES
        )
        self.webhooks = WebhookServiceClientSync(
            target.url, http_client=http_client, read_max_bytes=_MAX_ANSWER_BYTES
        )
        self.events = EventServiceClientSync(
            target.url, http_client=http_client, read_max_bytes=_MAX_ANSWER_BYTES
        )
        self.headers = {"authorization": f"Bearer {target.key}"} if target.key else {}
        self._project = target.project
        self._environment = target.environment

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.clear()

    @property
    def project(self) -> str:
        """The project that the command is about, as the server understands it.

        Raises:
            RheostatError: As `call`.
        """
        if not self._project:
            answer = self.call(self.admin.get_project, admin.GetProjectRequest())
            self._project = answer.project.name
        return self._project

    @property
    def environment(self) -> str:
        """The environment that the command is about; asked of the server when none is named.

        Raises:
            InvalidArgumentError: None is named, and there are several; the message lists them.
            RheostatError: As `call`.
        """
        if not self._environment:
            request = admin.GetEnvironmentRequest(project=self.project)
            self._environment = self.call(self.admin.get_environment, request).environment.name
        return self._environment

    def call(self, rpc: Callable[..., Res], request: Any) -> Res:
        """Make one call within the target's time-out.

        Raises:
            UnreachableError: No server answers.
            RheostatError: What the server refused it with.
        """
        try:
            return rpc(request, headers=self.headers, timeout_ms=round(self.target.timeout * 1000))
        except ConnectError as error:
            raise self.translated(error) from error

    def write(self, rpc: Callable[..., Res], request: Any) -> Res:
        """Make one call that has a request id, and once more when its answer was lost.

        Raises:
            RheostatError: As `call`.
        """
        try:
            return self.call(rpc, request)
        except UnreachableError:
            # The request id makes the second call answer what the first one did, if it got through.
            time.sleep(0.1)
            return self.call(rpc, request)

    def pages(self, rpc: Callable[..., P], request: Any) -> Iterator[P]:
        """Make a paged call and yield its pages.

        Raises:
            RheostatError: As `call`.
        """
        request.page_size = _PAGE_SIZE
        while True:
            page = self.call(rpc, request)
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def setting(self, name: str) -> tuple[Setting, int]:
        """Return a setting of the environment, and the revision of the state that it was read from.

        Raises:
            RheostatError: As `call`; also when this version is too old to read the setting.
        """
        request = admin.GetSettingRequest(project=self.project, environment=self.environment, name=name)
        answer = self.call(self.admin.get_setting, request)
        return setting_from_proto(answer.setting), answer.revision

    def settings(self, prefix: str = "") -> tuple[list[Setting], int]:
        """Return the environment's settings whose names begin with *prefix*, by name, and their revision.

        Raises:
            RheostatError: As `setting`.
        """
        request = admin.ListSettingsRequest(project=self.project, environment=self.environment, prefix=prefix)
        found: list[SettingMessage] = []
        revision = 0
        for page in self.pages(self.admin.list_settings, request):
            found.extend(page.settings)
            revision = page.revision
        return [setting_from_proto(message) for message in found], revision

    def wait_at_most(self, seconds: float) -> None:
        """Bound the silence of streams, from the next read on."""
        self._transport.stream_read_timeout = seconds

    def translated(self, error: ConnectError) -> RheostatError:
        """Return the error that commands report for *error*."""
        causes = list(_causes(error))
        if any(isinstance(cause, (OSError, urllib3.exceptions.HTTPError)) for cause in causes):
            return UnreachableError(self._unreachable(causes), metadata={"url": self.target.url})
        strange = error.code is Code.UNIMPLEMENTED or "content-type" in error.message
        if strange and not error.details:
            return UnreachableError(
                f"what answers at {self.target.url} is no rheostat server: {error.message}",
                metadata={"url": self.target.url},
            )
        return from_connect(error)

    def _unreachable(self, causes: Sequence[BaseException]) -> str:
        # The innermost one says it in the fewest words: "Connection refused".
        inner = causes[-1]
        detail = (inner.strerror if isinstance(inner, OSError) and inner.strerror else str(inner)).lower()
        message = f"no server answers at {self.target.url}: {detail}"
        if self.target.is_loopback:
            message += "\n  start one with: rheostat serve"
        return message


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current = error.__cause__ or error.__context__
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        inner = current.__cause__ or current.__context__
        if inner is None:
            # urllib3 keeps the socket's error as an argument.
            with contextlib.suppress(StopIteration):
                inner = next(arg for arg in current.args if isinstance(arg, BaseException))
        current = inner
