"""Exposures and evaluations for a warehouse: one JSON object a line, in files that are finished when they are seen.

::

    writer = NdjsonWriter("exposures/exposures.ndjson")
    client = Client("http://127.0.0.1:7420", on_exposure=writer)
    api.add_hooks([ExposureHook(writer, attributes=["region"])])    # with OpenFeature: rheostat.openfeature

A line has ``time``, ``setting``, ``value``, ``reason``, ``rule``, ``variant``, ``revision``, ``setting_revision``,
``subjects``, ``context`` and ``error``, always all of them; what there is not is null.
"""

from __future__ import annotations

import atexit
import datetime
import json
import logging
import math
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from rheostat.errors import InvalidArgumentError
from rheostat.model.exposure import ExposureRecord
from rheostat.model.value import ABSENT
from rheostat.sdk import fork

try:
    import fcntl
except ModuleNotFoundError:
    # Windows, where what a killed process was writing stays as it is.
    fcntl = None  # type: ignore[assignment]

__all__ = ["NdjsonWriter"]

log: Final = logging.getLogger("rheostat")

_PART: Final = ".part"
"""What the name of a file ends with that is being written."""


class NdjsonWriter:
    """Writes each exposure that it is called with, in a thread of its own. Safe from any thread.

    Being called takes microseconds and raises nothing: when the buffer is full, because the disk is slow or full, the
    oldest records are dropped and counted.

    A file is written as ``exposures-20261122T165000Z-1f3a9c2b.ndjson.part`` and loses the last suffix once it is
    finished: synced to the disk, and never touched again. What a process that was killed has left unfinished is
    finished by the next one that writes to the same path, up to its last whole line; lost is what waited in its buffer,
    for `flush_interval` at most. Several processes may share a path; a child process after a fork writes files of its own.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int = 64 * 1024 * 1024,
        max_age: float = 3600.0,
        capacity: int = 10_000,
        flush_interval: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare a writer; nothing is made on the disk before the first record.

        Args:
            path: Where files go, and what their names are made of, such as ``exposures/exposures.ndjson``. The folder is
                made if it is not there.
            max_bytes: A file that would be larger is finished, and another one begun.
            max_age: Seconds after which a file is finished.
            capacity: How many records wait for the disk at most.
            flush_interval: Seconds that a record waits at most for others to be written with it.
            clock: Seconds that only ever grow; for tests.

        Raises:
            InvalidArgumentError: An option cannot be used.
        """
        for option, given in (
            ("max_bytes", max_bytes),
            ("max_age", max_age),
            ("capacity", capacity),
        ):
            if not given > 0:
                raise InvalidArgumentError(f"the option {option} is {given}, which is not above zero")
        if not 0 <= flush_interval < threading.TIMEOUT_MAX:
            raise InvalidArgumentError(f"the option flush_interval is {flush_interval}")
        # Of where the process is now, should it change its directory.
        self._path = Path(path).absolute()
        if not self._path.name:
            raise InvalidArgumentError(f"the option path is {os.fspath(path)!r}, which names no file")
        self._file: _File | None = None
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._capacity = capacity
        self._flush_interval = flush_interval
        self._clock = clock
        self._closed = False
        self._recovered = False
        self._reset()
        fork.register(self)

    def _reset(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._waiting: deque[ExposureRecord] = deque()
        self._thread: threading.Thread | None = None
        self._asked = self._answered = 0
        self._written = self._dropped = 0
        self._complained = False

    @property
    def written(self) -> int:
        """How many records this process has written."""
        return self._written

    @property
    def dropped(self) -> int:
        """How many records this process has dropped: the buffer or the disk was full, or the writer closed."""
        return self._dropped

    def __call__(self, record: ExposureRecord) -> None:
        """Take *record*, to be written soon. Never waits for the disk and never raises."""
        with self._changed:
            if self._closed:
                self._dropped += 1
                return
            waiting = self._waiting
            if len(waiting) >= self._capacity:
                waiting.popleft()
                self._dropped += 1
            waiting.append(record)
            if len(waiting) == 1 or len(waiting) == self._capacity // 2:
                self._changed.notify_all()
            if self._thread is None:
                self._begin()

    def finish(self, timeout: float | None = None) -> bool:
        """Write all records that were given until now and finish the file.

        Args:
            timeout: Seconds to wait at most; None is as long as it takes.

        Returns:
            Whether that was done in time.
        """
        with self._changed:
            if self._thread is None:
                return not self._waiting
            self._asked = asked = self._asked + 1
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._answered >= asked or self._thread is None, timeout)

    def close(self, timeout: float = 5.0) -> None:
        """Finish and end; does nothing the second time. Called by itself at the end of the program.

        Args:
            timeout: Seconds to wait at most for what is still to be written.
        """
        with self._changed:
            self._closed = True
            thread = self._thread
            self._changed.notify_all()
        atexit.unregister(self.close)
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def after_fork(self) -> None:
        """Write files of its own in a child process; called by itself."""
        file, self._file = self._file, None
        if file is not None:
            # Or the lock on the parent's file would outlive the parent.
            file.leave()
        # A thread of the parent may have held the lock; what waits is written by the parent.
        self._reset()

    # The thread.

    def _begin(self) -> None:
        thread = threading.Thread(target=self._run, name="rheostat-ndjson", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # The interpreter is ending.
            self._dropped += len(self._waiting)
            self._waiting.clear()
        else:
            self._thread = thread
            atexit.register(self.close)

    def _run(self) -> None:
        changed = self._changed
        while True:
            with changed:
                changed.wait_for(self._has_work, self._left())
                if self._waiting:
                    changed.wait_for(self._is_urgent, self._flush_interval)
                records = tuple(self._waiting)
                self._waiting.clear()
                asked, ends = self._asked, self._closed
            written = self._write(records)
            if ends or asked > self._answered or self._is_old():
                self._finish_file()
            with changed:
                self._written += written
                self._dropped += len(records) - written
                self._answered = asked
                ended = ends and not self._waiting
                if ended:
                    self._thread = None
                changed.notify_all()
                if ended:
                    return

    def _has_work(self) -> bool:
        return bool(self._waiting) or self._closed or self._asked > self._answered

    def _is_urgent(self) -> bool:
        return (
            self._closed or self._asked > self._answered or len(self._waiting) >= max(1, self._capacity // 2)
        )

    def _left(self) -> float | None:
        if self._file is None:
            return None
        left = self._file.begun_at + self._max_age - self._clock()
        return min(max(0.0, left), threading.TIMEOUT_MAX)

    def _is_old(self) -> bool:
        return self._file is not None and self._clock() >= self._file.begun_at + self._max_age

    def _write(self, records: Iterable[ExposureRecord]) -> int:
        """Write *records*, and return how many were."""
        written = 0
        for lines in self._fitting(self._lines(records)):
            try:
                if self._file is None:
                    # Each time: it may come late, as that of a mount does, or go.
                    self._path.parent.mkdir(parents=True, exist_ok=True)
                    self._recover()
                    self._file = _File.begin(self._path, self._clock())
                self._file.append(b"".join(lines))
            except OSError as error:
                self._complain("exposures cannot be written to %s, and are dropped: %s", self._path, error)
                if self._file is not None and self._file.left:
                    self._file = None
            else:
                written += len(lines)
                self._complained = False
        return written

    def _fitting(self, lines: Iterable[bytes]) -> Iterator[list[bytes]]:
        """Yield *lines* in parts, each of which goes into one file."""
        part: list[bytes] = []
        size = 0
        for line in lines:
            held = 0 if self._file is None else self._file.size
            if held + size and held + size + len(line) > self._max_bytes:
                if part:
                    yield part
                self._finish_file()
                part, size = [], 0
            part.append(line)
            size += len(line)
        if part:
            yield part

    def _lines(self, records: Iterable[ExposureRecord]) -> Iterator[bytes]:
        for record in records:
            try:
                line = _line(record)
            except Exception as error:  # noqa: BLE001 - a record is the caller's, and the others are to be written
                self._complain("an exposure cannot be written, and is dropped: %s", type(error).__name__)
            else:
                yield line

    def _finish_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            try:
                file.finish()
            except OSError as error:
                self._complain("the file %s could not be finished: %s", file.path, error)

    def _recover(self) -> None:
        """Finish what others have left behind, the first time."""
        if not self._recovered:
            for part in sorted(self._path.parent.glob(f"{_escaped(self._path.stem)}-*{_PART}")):
                if part.name.endswith(f"{self._path.suffix}{_PART}"):
                    _finish_left(part)
            self._recovered = True

    def _complain(self, message: str, *arguments: object) -> None:
        """Log once, until something was written again."""
        if not self._complained:
            self._complained = True
            log.error(message, *arguments)


class _File:
    """A file that is being written, for one thread.

    Attributes:
        path: Of the unfinished file.
        begun_at: By the writer's clock.
        size: In bytes; whole lines.
    """

    def __init__(self, path: Path, descriptor: int, begun_at: float) -> None:
        self.path = path
        self.begun_at = begun_at
        self.size = 0
        self._descriptor = descriptor

    @classmethod
    def begin(cls, path: Path, begun_at: float) -> Self:
        """Make a file with a name of its own, made of *path* and the time.

        Raises:
            OSError: That cannot be done.
        """
        while True:
            now = datetime.datetime.now(datetime.UTC)
            name = f"{path.stem}-{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}{path.suffix}{_PART}"
            part = path.with_name(name)
            descriptor = os.open(
                part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o640
            )
            # Somebody who looks for what was left behind may have come in between.
            if _locked(descriptor) and _is_same(part, descriptor):
                return cls(part, descriptor, begun_at)
            os.close(descriptor)

    def append(self, lines: bytes) -> None:
        """Write whole *lines*, or nothing.

        Raises:
            OSError: They could not be written.
        """
        try:
            left = memoryview(lines)
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError:
            try:
                os.ftruncate(self._descriptor, self.size)
                os.lseek(self._descriptor, self.size, os.SEEK_SET)
            except OSError:
                # Half a line stays at its end, which whoever finds the file cuts off.
                self.leave()
            raise
        self.size += len(lines)

    def finish(self) -> None:
        """Let others see it.

        Raises:
            OSError: It stays unfinished.
        """
        try:
            os.fsync(self._descriptor)
            if os.name == "nt":
                # Which renames no open file.
                self.leave()
            self.path.rename(self.path.with_suffix(""))
        finally:
            self.leave()

    @property
    def left(self) -> bool:
        """Whether it can be written no more."""
        return self._descriptor < 0

    def leave(self) -> None:
        """Forget the file, as it is."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _finish_left(part: Path) -> None:
    """Finish a file whose process has ended, up to its last whole line."""
    if fcntl is None:
        return
    try:
        descriptor = os.open(part, os.O_RDWR)
    except OSError:
        return
    try:
        if _locked(descriptor) and _is_same(part, descriptor):
            whole = _whole_lines(descriptor)
            if whole:
                os.ftruncate(descriptor, whole)
                os.fsync(descriptor)
                part.rename(part.with_suffix(""))
            else:
                part.unlink()
    except OSError as error:
        log.warning("the unfinished file %s is left as it is: %s", part, error)
    finally:
        os.close(descriptor)


def _whole_lines(descriptor: int) -> int:
    """Return the size of the file up to its last line break."""
    end = os.fstat(descriptor).st_size
    while end:
        begin = max(0, end - 65536)
        os.lseek(descriptor, begin, os.SEEK_SET)
        found = os.read(descriptor, end - begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0


def _locked(descriptor: int) -> bool:
    """Take the lock that the writer of a file holds; false when another has it."""
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


def _is_same(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False


def _escaped(text: str) -> str:
    """Return the pattern of files that stands for *text*."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in text)


def _line(record: ExposureRecord) -> bytes:
    instant = record.time
    if instant.utcoffset() is None:
        instant = instant.replace(tzinfo=datetime.UTC)
    written = {
        "time": instant.astimezone(datetime.UTC).isoformat(timespec="microseconds").removesuffix("+00:00")
        + "Z",
        "setting": record.setting,
        "value": None if record.value is ABSENT else _plain(record.value),
        "reason": record.reason,
        "rule": record.rule_id,
        "variant": record.variant,
        "revision": record.revision,
        "setting_revision": record.setting_revision,
        "subjects": _plain(record.subjects),
        "context": _plain(record.context),
        "error": record.error_code,
    }
    # ASCII alone: some readers take U+2028 for the end of a line, and a lone surrogate is no UTF-8.
    return json.dumps(written, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def _plain(value: Any) -> Any:
    """Return *value* as JSON has it; what it has not, as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(inner) for inner in value]
    return str(value)
