"""The provider for programs with threads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from openfeature.hook import Hook

from rheostat.openfeature.provider import Provider
from rheostat.sdk.subject import Joined
from rheostat.sdk.sync import Client

__all__ = ["RheostatProvider"]


class RheostatProvider(Provider[Client[Any]]):
    """Settings as flags, for programs with threads. Safe from any thread. Nothing waits, unless subjects are fetched.

    Attributes of a context are attributes of a condition, the targeting key among them. Events: the provider is stale
    while the server is not heard of, has an error while it refuses the key, is ready again, and says which flags have
    changed. Values are served in all of these.
    """

    def __init__(
        self,
        client: Client[Any] | str | None = None,
        *,
        targeting_key: str = "user.id",
        subject_keys: Iterable[str] = ("user.id", "company.id"),
        fetch_subjects: bool = False,
        count_exposures: bool = False,
        hooks: Iterable[Hook] = (),
        **options: Any,
    ) -> None:
        """Make a provider. No I/O is done before the SDK initializes it.

        Args:
            client: A client, which is started if it was not, and which you close; or the address for one that the
                provider makes and closes. None takes the address from ``RHEOSTAT_URL``.
            targeting_key: The attribute that the targeting key is.
            subject_keys: Attributes that name subjects, such as ``account.id``: for them events are tracked.
            fetch_subjects: Ask the server for stored subjects that are named and not at hand, as checks do, which waits
                for it the first time; without it only those join that are at hand.
            count_exposures: Count on the server what was given, by flag, rule, variant and revision, as it is of checks; the
                client's option `exposures` is the share that counts.
            hooks: Hooks for all evaluations by this provider.
            options: Those of `rheostat.Client`, for a client that the provider makes: ``key``, ``project``, …

        Raises:
            InvalidArgumentError: An option cannot be used.
        """
        super().__init__(
            client,
            targeting_key=targeting_key,
            subject_keys=subject_keys,
            fetch_subjects=fetch_subjects,
            count_exposures=count_exposures,
            hooks=hooks,
            options=options,
        )

    def _made(self, url: str | None, options: Mapping[str, Any]) -> Client[Any]:
        return Client(url, **options)

    def _fetched(self, subjects: Mapping[str, object]) -> Joined | None:
        return self._client._resolved(subjects, None, None)

    def _start(self) -> None:
        self._client.start()

    def _end(self) -> None:
        self._client.close()
