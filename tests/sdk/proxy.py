"""A TCP proxy that breaks connections in the ways that networks do."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any, Final, Self

__all__ = ["FAULTS", "Proxy"]

FAULTS: Final = ("cut", "half-open", "slow", "delay", "garbage")

_SLOW_BYTES_PER_SECOND: Final = 1024
_DELAY_SECONDS: Final = 0.3
_READ_BYTES: Final = 64 * 1024


class Proxy:
    """Passes connections to 127.0.0.1:*port* on, until it is told to be faulty.

    - ``cut``: open connections are reset and new ones too;
    - ``half-open``: connections are accepted and stay open, and no byte passes, in either direction;
    - ``slow``: 1 kB/s in each direction;
    - ``delay``: each chunk is held back for 0.3 s;
    - ``garbage``: what the server sends is replaced by other bytes.

    Attributes:
        url: What clients connect to.
        connections: How many were accepted.
    """

    def __init__(self, port: int) -> None:
        self._upstream = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._fault: str | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.connections = 0
        self._server = self._run(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def fail(self, fault: str) -> None:
        """Be faulty from now on."""
        self._run(self._change(fault))

    def heal(self) -> None:
        """Pass on everything that comes from now on; what a half-open connection has swallowed is lost.

        Connections that were half-open stay so, as they would behind a router that has forgotten them.
        """
        self._run(self._change(None))

    def lead_to(self, port: int) -> None:
        """Pass new connections on to another port, and cut those that are open."""

        async def lead() -> None:
            self._upstream = port
            self._reset()

        self._run(lead())

    async def _change(self, fault: str | None) -> None:
        self._fault = fault
        if fault == "cut":
            self._reset()

    def _reset(self) -> None:
        for writer in tuple(self._writers):
            writer.transport.abort()

    def close(self) -> None:
        """Cut everything and end."""
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        self._reset()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            if self._fault == "cut":
                writer.transport.abort()
                return
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
            self._writers.add(up_writer)
            # Once a byte was swallowed, what follows would make no sense.
            lost: list[bool] = []
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pump(reader, up_writer, lost, downstream=False))
                    group.create_task(self._pump(up_reader, writer, lost, downstream=True))
            except* OSError:
                pass
            finally:
                up_writer.transport.abort()
                self._writers.discard(up_writer)
        except (OSError, asyncio.CancelledError):
            # Cancelled by `close` alone; the stream's protocol would report that as a failure.
            pass
        finally:
            writer.transport.abort()
            self._writers.discard(writer)
            self._tasks.discard(task)

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        lost: list[bool],
        *,
        downstream: bool,
    ) -> None:
        while chunk := await reader.read(_READ_BYTES):
            match self._fault:
                case "half-open":
                    lost.append(True)
                case "delay":
                    await asyncio.sleep(_DELAY_SECONDS)
                case "garbage" if downstream:
                    chunk = bytes((byte * 7 + 13) % 256 for byte in chunk)
                case "slow":
                    await self._trickle(writer, chunk)
                    continue
            if not lost:
                writer.write(chunk)
                await writer.drain()
        if lost:
            # The end is swallowed as well, until somebody resets the connection.
            await asyncio.get_running_loop().create_future()
        with contextlib.suppress(OSError):
            writer.write_eof()

    async def _trickle(self, writer: asyncio.StreamWriter, chunk: bytes) -> None:
        step = _SLOW_BYTES_PER_SECOND // 16
        for at in range(0, len(chunk), step):
            writer.write(chunk[at : at + step])
            await writer.drain()
            if self._fault == "slow":
                await asyncio.sleep(1 / 16)
