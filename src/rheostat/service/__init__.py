"""The use cases of a node: planning and committing change-sets, reading, evaluating, watching."""

from __future__ import annotations

from rheostat.service.limit import Limits
from rheostat.service.service import Outcome, Service, Writer

__all__ = ["Limits", "Outcome", "Service", "Writer"]
