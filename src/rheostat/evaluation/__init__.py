"""Evaluation of settings for a context: local, without waiting, and never raising.

`rheostat.evaluation.reference` is the executable specification of docs/reference/evaluation.md.
"""

from __future__ import annotations

from rheostat.evaluation.bucket import bucket, format_percent, parse_percent, unit_text
from rheostat.evaluation.context import Context
from rheostat.evaluation.reference import Evaluator, evaluate, holds
from rheostat.evaluation.result import ErrorCode, Evaluation, Reason
from rheostat.evaluation.truth import Truth

__all__ = [
    "Context",
    "ErrorCode",
    "Evaluation",
    "Evaluator",
    "Reason",
    "Truth",
    "bucket",
    "evaluate",
    "format_percent",
    "holds",
    "parse_percent",
    "unit_text",
]
