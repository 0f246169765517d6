"""The provider for programs with an event loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from openfeature.evaluation_context import EvaluationContext
from openfeature.event import ProviderEvent, ProviderEventDetails
from openfeature.exception import ProviderNotReadyError
from openfeature.flag_evaluation import FlagResolutionDetails
from openfeature.hook import Hook

from rheostat.openfeature.provider import Provider, Structure
from rheostat.sdk.aio import AsyncClient
from rheostat.sdk.subject import Joined

__all__ = ["AsyncRheostatProvider"]

_LOOP_SECONDS: Final = 5.0
"""How long another thread waits for the event loop of a client, beyond what was to be waited for there."""


class AsyncRheostatProvider(Provider[AsyncClient[Any]]):
    """Settings as flags, for programs with an event loop; see `RheostatProvider`.

    The client belongs to the event loop that it is started on, or else to the one in which the provider is set.
    ``set_provider`` initializes in another thread while the loop goes on. ``set_provider_and_wait`` would block the
    loop, and so is for a client that was started before: ``await client.start()``.
    """

    def __init__(
        self,
        client: AsyncClient[Any] | str | None = None,
        *,
        targeting_key: str = "user.id",
        subject_keys: Iterable[str] = ("user.id", "company.id"),
        fetch_subjects: bool = False,
        count_exposures: bool = False,
        hooks: Iterable[Hook] = (),
        **options: Any,
    ) -> None:
        """Make a provider; see `RheostatProvider`. No event loop is needed yet."""
        super().__init__(
            client,
            targeting_key=targeting_key,
            subject_keys=subject_keys,
            fetch_subjects=fetch_subjects,
            count_exposures=count_exposures,
            hooks=hooks,
            options=options,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Task[None] | None = None

    def attach(self, on_emit: Callable[[Any, ProviderEvent, ProviderEventDetails], None]) -> None:
        """Take the SDK's callback, and note the event loop that the provider is set in."""
        super().attach(on_emit)
        self._loop = _running_loop() or self._loop

    def _made(self, url: str | None, options: Mapping[str, Any]) -> AsyncClient[Any]:
        return AsyncClient(url, **options)

    def _fetched(self, subjects: Mapping[str, object]) -> Joined | None:
        # Only what is awaited can wait.
        return None

    async def _fetch(self, context: EvaluationContext | None) -> None:
        """Have the stored subjects that *context* names at hand."""
        subjects = self._subjects(self._attributes(context)) if self._fetches else {}
        if subjects and self._at_hand(subjects) is None:
            await self._client._resolved(subjects, None, None)

    async def resolve_boolean_details_async(
        self, flag_key: str, default_value: bool, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[bool]:
        """Return what `resolve_boolean_details` does, with stored subjects. Never raises."""
        await self._fetch(evaluation_context)
        return self.resolve_boolean_details(flag_key, default_value, evaluation_context)

    async def resolve_string_details_async(
        self, flag_key: str, default_value: str, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[str]:
        """Return what `resolve_string_details` does, with stored subjects. Never raises."""
        await self._fetch(evaluation_context)
        return self.resolve_string_details(flag_key, default_value, evaluation_context)

    async def resolve_integer_details_async(
        self, flag_key: str, default_value: int, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[int]:
        """Return what `resolve_integer_details` does, with stored subjects. Never raises."""
        await self._fetch(evaluation_context)
        return self.resolve_integer_details(flag_key, default_value, evaluation_context)

    async def resolve_float_details_async(
        self, flag_key: str, default_value: float, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[float]:
        """Return what `resolve_float_details` does, with stored subjects. Never raises."""
        await self._fetch(evaluation_context)
        return self.resolve_float_details(flag_key, default_value, evaluation_context)

    async def resolve_object_details_async(
        self, flag_key: str, default_value: Structure, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[Structure]:
        """Return what `resolve_object_details` does, with stored subjects. Never raises."""
        await self._fetch(evaluation_context)
        return self.resolve_object_details(flag_key, default_value, evaluation_context)

    def _home(self) -> asyncio.AbstractEventLoop | None:
        """Return the event loop of the client, or the one that it is to have."""
        driver: Any = self._client._core.driver
        loop = getattr(driver, "loop", None) or self._loop
        return None if loop is None or loop.is_closed() else loop

    def _start(self) -> None:
        if self._client.ready:
            return
        here, home = _running_loop(), self._home()
        if here is not None:
            # Tasks are started, and nothing is waited for.
            self._client._driver()
            if not self._client.ready:
                raise ProviderNotReadyError(
                    "the client is not ready, and waiting for it would block the event loop: await its start first, or "
                    "use set_provider"
                )
        elif home is None:
            raise ProviderNotReadyError(
                "the client is not started, and there is no event loop to start it on"
            )
        else:
            within = self._client._core.options.start_timeout + _LOOP_SECONDS
            starting = asyncio.run_coroutine_threadsafe(self._client.start(), home)
            try:
                starting.result(within)
            except concurrent.futures.TimeoutError:
                starting.cancel()
                raise ProviderNotReadyError(
                    f"the event loop of the client does not answer within {within} s"
                ) from None

    def _end(self) -> None:
        here, home = _running_loop(), self._home()
        if home is None:
            # Its loop is gone, and all tasks with it.
            self._client._core.close()
        elif here is home:
            self._ending = home.create_task(self._client.close())
        else:
            closing = asyncio.run_coroutine_threadsafe(self._client.close(), home)
            try:
                closing.result(_LOOP_SECONDS)
            except concurrent.futures.TimeoutError:
                closing.cancel()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
