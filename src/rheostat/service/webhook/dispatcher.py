"""The threads of a process that deliver: one that looks, and one for each webhook that is being told something."""

from __future__ import annotations

import datetime
import logging
import threading
from typing import TYPE_CHECKING, Final

from rheostat.errors import RheostatError
from rheostat.service.webhook.courier import Courier
from rheostat.service.webhook.ledger import Ledger
from rheostat.service.webhook.sender import Sender

if TYPE_CHECKING:
    from rheostat.service.service import Service

__all__ = ["Dispatcher"]

log = logging.getLogger("rheostat.webhook")

_IDLE_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 5.0
"""How often, while something is delivered or waited for: leases are renewed, and jumps of the clock noticed."""

_AFTER_ERROR: Final = datetime.timedelta(seconds=5)

_MAX_THREADS: Final = 64
"""Webhooks beyond these wait until one of the others has been told, or has failed."""

_CLOSING_SECONDS: Final = 2.0


class Dispatcher:
    """Runs the couriers of a process. Safe from any thread; started by the first enabled webhook."""

    def __init__(self, service: Service, ledger: Ledger, sender: Sender) -> None:
        """Make a dispatcher; no thread runs before `notice`."""
        self._service = service
        self._ledger = ledger
        self._sender = sender
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._couriers: dict[str, Courier] = {}
        self._busy: dict[str, threading.Thread] = {}
        # For each webhook: what it was looked at for, and when to look again.
        self._looked: dict[str, tuple[int, int]] = {}
        self._due: dict[str, datetime.datetime | None] = {}

    def notice(self) -> None:
        """Start the thread when there is an enabled webhook and none runs."""
        webhooks = self._service.head.state.webhooks
        if not webhooks or self._thread is not None or self._closed:
            return
        if any(webhook.enabled for webhook in webhooks.values()):
            with self._lock:
                if self._thread is None and not self._closed:
                    self._thread = threading.Thread(target=self._run, name="rheostat-webhooks", daemon=True)
                    self._thread.start()

    def nudge(self, webhook_id: str) -> None:
        """Look after a webhook now, whatever it was waited for."""
        with self._lock:
            self._looked.pop(webhook_id, None)
            self._due.pop(webhook_id, None)
        self._wake.set()

    def close(self) -> None:
        """Begin no further delivery, and wait a moment for those that are under way."""
        with self._lock:
            self._closed = True
            threads = [self._thread, *self._busy.values()]
            for courier in self._couriers.values():
                courier.stopped = True
        self._wake.set()
        until = self._service.monotonic() + _CLOSING_SECONDS
        for thread in threads:
            if thread is not None and thread is not threading.current_thread():
                thread.join(max(0.0, min(_CLOSING_SECONDS, until - self._service.monotonic())))

    def _run(self) -> None:
        stop_listening = self._service.hub.listen(self._wake.set)
        try:
            while not self._closed:
                self._wake.wait(self._looked_after())
                self._wake.clear()
        finally:
            stop_listening()

    def _looked_after(self) -> float:
        try:
            return self._look()
        except Exception:
            if not self._closed:
                # Whatever it is: without this thread no webhook would be told of anything any more.
                log.exception("webhooks cannot be looked after; trying again")
            return _LOOK_SECONDS

    def _look(self) -> float:
        """Start what is to be delivered, and return after how many seconds to look again."""
        if self._service.draining:
            return _IDLE_SECONDS
        head = self._service.head
        now = self._service.clock()
        wait = _IDLE_SECONDS
        with self._lock:
            for gone in self._couriers.keys() - head.state.webhooks.keys() - self._busy.keys():
                for each in (self._couriers, self._looked, self._due):
                    each.pop(gone, None)
            busy = [self._couriers[webhook_id] for webhook_id in self._busy]
            for webhook in head.state.webhooks.values():
                if not webhook.enabled or webhook.id in self._busy:
                    continue
                revision, webhook_revision = self._looked.get(webhook.id, (0, 0))
                due = self._due.get(webhook.id)
                changed = webhook.revision != webhook_revision or (due is None and head.revision != revision)
                if changed or (due is not None and now >= due):
                    if len(self._busy) < _MAX_THREADS:
                        self._start(webhook.id, (head.revision, webhook.revision))
                elif due is not None:
                    wait = min(wait, (due - now).total_seconds())
            if self._busy or wait < _IDLE_SECONDS:
                wait = min(wait, _LOOK_SECONDS)
        for courier in busy:
            try:
                courier.renew()
            except RheostatError as exc:
                log.warning("a webhook's lease cannot be renewed: %s", exc)
        return max(0.05, wait)

    def _start(self, webhook_id: str, looked: tuple[int, int]) -> None:
        """Start a thread for a webhook. The lock is held."""
        courier = self._couriers.get(webhook_id)
        if courier is None:
            courier = Courier(self._service, self._ledger, self._sender, webhook_id)
            self._couriers[webhook_id] = courier
        courier.stopped = self._closed
        thread = threading.Thread(
            target=self._work, args=(courier, webhook_id, looked), name="rheostat-webhook", daemon=True
        )
        # Its end waits for the lock; and one that cannot be started is no work in progress.
        thread.start()
        self._busy[webhook_id] = thread

    def _work(self, courier: Courier, webhook_id: str, looked: tuple[int, int]) -> None:
        due: datetime.datetime | None
        try:
            due = courier.run()
        except Exception as exc:
            due = self._service.clock() + _AFTER_ERROR
            if isinstance(exc, RheostatError):
                if not self._closed:
                    log.warning("the webhook %s cannot be served: %s; trying again", webhook_id, exc)
            else:
                # Whatever it is: the webhook must not be left alone for good.
                log.exception("the webhook %s cannot be served; trying again", webhook_id)
        with self._lock:
            self._busy.pop(webhook_id, None)
            self._looked[webhook_id] = looked
            self._due[webhook_id] = due
        self._wake.set()
