"""The events of a watch that a caller has opened, as the clients hand them out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping

from connectrpc.client import ResponseMetadata

from rheo.v1 import watch_pb2
from rheostat.errors import RheostatError
from rheostat.sdk.failure import translated

__all__ = ["AsyncStream", "Stream"]


class Stream(Iterator[watch_pb2.WatchResponse]):
    """The events of a watch. Iterating ends with the stream and raises nothing; `error` says why it ended."""

    def __init__(self, events: Iterator[watch_pb2.WatchResponse], url: str) -> None:
        """Iterate over *events*, which come from *url*."""
        self.headers: Mapping[str, str] = {}
        self.trailers: Mapping[str, str] = {}
        self.error: RheostatError | None = None
        self._events = events
        self._url = url

    def __next__(self) -> watch_pb2.WatchResponse:
        with ResponseMetadata() as metadata:
            try:
                return next(self._events)
            except StopIteration:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, it ended the stream
                self.error = translated(error, self._url)
                raise StopIteration from None
            finally:
                self.headers = dict(metadata.headers) or self.headers
                self.trailers = dict(metadata.trailers) or self.trailers


class AsyncStream(AsyncIterator[watch_pb2.WatchResponse]):
    """The events of a watch. Iterating ends with the stream and raises nothing; `error` says why it ended."""

    def __init__(self, events: AsyncIterator[watch_pb2.WatchResponse], url: str) -> None:
        """Iterate over *events*, which come from *url*."""
        self.headers: Mapping[str, str] = {}
        self.trailers: Mapping[str, str] = {}
        self.error: RheostatError | None = None
        self._events = events
        self._url = url

    async def __anext__(self) -> watch_pb2.WatchResponse:
        with ResponseMetadata() as metadata:
            try:
                return await anext(self._events)
            except StopAsyncIteration:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, it ended the stream
                self.error = translated(error, self._url)
                raise StopAsyncIteration from None
            finally:
                self.headers = dict(metadata.headers) or self.headers
                self.trailers = dict(metadata.trailers) or self.trailers
