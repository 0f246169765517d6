"""Analysis at write: what is suspicious about rules, each with a context that shows it where there is one.

`domain` cuts what an attribute may be into cells, `box` writes conditions as boxes of cells, `cover` searches for
what no box covers, `example` makes contexts of it, `report` and `rollout` say what was found. Nothing here decides
what a rule does: that is `rheostat.evaluation.reference`, on which every example is tried.
"""

from __future__ import annotations

from rheostat.evaluation.finding.deadline import Deadline
from rheostat.evaluation.finding.report import SECONDS, WHOLE_RULES, Finding, analyse, analyse_segment
from rheostat.evaluation.finding.rollout import compare_rollouts, compare_segment_rollouts

__all__ = [
    "SECONDS",
    "WHOLE_RULES",
    "Deadline",
    "Finding",
    "analyse",
    "analyse_segment",
    "compare_rollouts",
    "compare_segment_rollouts",
]
