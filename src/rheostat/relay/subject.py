"""What a relay has in the place of subjects: none, since they are not part of the state that it is sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rheostat.errors import UnavailableError
from rheostat.evaluation import Context
from rheostat.model.subject import SubjectReference
from rheostat.service.subject import NOBODY, Joined

__all__ = ["RelaySubjects"]


class RelaySubjects:
    """Joins nobody. Evaluations that name subjects are passed on by those who take them in."""

    behind: Final = 0

    def joined(self, project: str, environment: str, references: Sequence[SubjectReference]) -> Joined:
        """Refuse, unless nobody is named.

        Raises:
            UnavailableError: Somebody is: nothing may be decided without what the upstream knows of them.
        """
        if references:
            raise UnavailableError("a relay has no subjects; its upstream has", reason="UPSTREAM_AWAY")
        return NOBODY

    def references_of(self, project: str, environment: str, context: Context) -> tuple[SubjectReference, ...]:
        """Return nobody: which attributes name subjects only a node knows."""
        return ()
