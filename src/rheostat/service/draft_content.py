"""What drafts would do, kept apart from the drafts, so that to look at many of these reads little."""

from __future__ import annotations

import datetime
import json
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from rheostat.errors import LimitExceededError, RheostatError, StoreError
from rheostat.model.change import Mutation
from rheostat.model.draft import Draft
from rheostat.model.draft_encoding import decode_mutations, encode_mutations
from rheostat.store.base import Record, Store, Transaction

if TYPE_CHECKING:
    from collections.abc import Callable

    from rheostat.service.service import Service

__all__ = ["CONTENT_KIND", "DraftContents"]

log = logging.getLogger("rheostat.service")

CONTENT_KIND: Final = "draft-mutations"
"""The kind of the records that hold mutations; their keys are the project, the draft's id, and the content's."""

_SIZE_KIND: Final = "draft-size"
"""The kind of the records, with the same keys, that say that there is such a record, or may be, and how large."""

_CHECKED_AFTER: Final = datetime.timedelta(hours=1)
"""How long after it was written a content is looked for in its draft; no write takes so long."""

_CHECKED_AGAIN_AFTER: Final = datetime.timedelta(days=1)

_BATCH: Final = 1000


class DraftContents:
    """The contents of the drafts of a store. Safe from any thread; all methods wait for the store.

    A content is written before the draft that names it, and removed after the one that named it. What a crash in
    between leaves behind, `clean` removes.
    """

    def __init__(self, service: Service) -> None:
        """Begin with what the store holds."""
        self._service = service

    def write(self, project: str, draft_id: str, mutations: Sequence[Mutation]) -> str:
        """Keep *mutations*, and return by what id the draft finds them.

        Raises:
            LimitExceededError: The project has too many open drafts, or they are too large together.
        """
        content = self._service.randomness(8).hex()
        text = encode_mutations(mutations)
        due = self._service.clock() + _CHECKED_AFTER
        size = json.dumps({"bytes": len(text.encode())})
        key = _key(project, draft_id, content)
        # First, so that of two at once neither is overlooked.
        self._service.store.put_record(Record(_SIZE_KIND, key, size, due))
        try:
            self._check_limits(project, draft_id, content)
        except LimitExceededError:
            self.drop(project, draft_id, content)
            raise
        self._service.store.put_record(Record(CONTENT_KIND, key, text))
        return content

    @staticmethod
    def read(source: Store | Transaction, draft: Draft) -> tuple[Mutation, ...] | None:
        """Return the mutations of an open draft; None when they are gone, because it was changed.

        Raises:
            StoreError: They are damaged, or a newer version wrote them.
        """
        record = source.record(CONTENT_KIND, _key(draft.project, draft.id, draft.content))
        return None if record is None else decode_mutations(record.body)

    def drop(self, project: str, draft_id: str, content: str) -> None:
        """Remove what no draft names any more. When the store is away, `clean` does it later."""
        if not content:
            return
        key = _key(project, draft_id, content)
        try:
            for kind in (CONTENT_KIND, _SIZE_KIND):
                self._service.store.delete_record(kind, key)
        except RheostatError as exc:
            log.info("the mutations %s are left for later: %s", key, exc)

    @staticmethod
    def drop_in(transaction: Transaction, draft: Draft) -> None:
        """Remove the content of a draft together with a change-set."""
        for kind in (CONTENT_KIND, _SIZE_KIND):
            transaction.delete_record(kind, _key(draft.project, draft.id, draft.content))

    def clean(self, now: datetime.datetime, limit: int, find: Callable[[str, str], Draft | None]) -> bool:
        """Remove contents that no draft names.

        Args:
            now: Those that were written an hour before are looked at.
            limit: At most so many of them.
            find: Returns a draft by its project and id.

        Returns:
            Whether there may be more.
        """
        store = self._service.store
        found = store.due_records(_SIZE_KIND, now, limit)
        for record in found:
            project, draft_id, content = record.key.split("/")
            try:
                draft = find(project, draft_id)
                unused = draft is None or draft.content != content
            except StoreError:
                # Of a newer version; it is not known what it names.
                unused = False
            if unused:
                self.drop(project, draft_id, content)
            else:
                again = Record(_SIZE_KIND, record.key, record.body, now + _CHECKED_AGAIN_AFTER)
                store.put_record(again, expected_version=record.version)
        return len(found) == limit

    def _check_limits(self, project: str, draft_id: str, content: str) -> None:
        """Count what is kept, with this content of this draft, whose others it replaces."""
        limits = self._service.limits
        ids: set[str] = set()
        size, after = 0, ""
        while True:
            records = self._service.store.records(_SIZE_KIND, prefix=f"{project}/", after=after, limit=_BATCH)
            for record in records:
                _, other, kept = record.key.split("/")
                if other != draft_id or kept == content:
                    ids.add(other)
                    size += json.loads(record.body)["bytes"]
                after = record.key
            if len(ids) > limits.max_open_drafts:
                raise LimitExceededError(
                    f"the project {project!r} has {limits.max_open_drafts} open drafts already: publish or "
                    "cancel some",
                    limit="max_open_drafts",
                )
            if size > limits.max_drafts_bytes:
                raise LimitExceededError(
                    f"the open drafts of the project {project!r} would be larger than {limits.max_drafts_bytes} "
                    "bytes together: publish or cancel some",
                    limit="max_drafts_bytes",
                )
            if len(records) < _BATCH:
                return


def _key(project: str, draft_id: str, content: str) -> str:
    return f"{project}/{draft_id}/{content}"
