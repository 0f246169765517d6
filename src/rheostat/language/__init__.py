"""The condition language: conditions as people write them.

``region == "eu" and user.plan in ["pro", "team"]``; the grammar is in docs/reference/conditions.md. Every
condition of the model has a canonical text, and parsing that text gives the same condition.
"""

from rheostat.language.parser import MAX_CONDITION_LENGTH, parse_condition
from rheostat.language.printer import format_condition, format_percent
from rheostat.language.written import WrittenCondition

__all__ = [
    "MAX_CONDITION_LENGTH",
    "WrittenCondition",
    "format_condition",
    "format_percent",
    "parse_condition",
]
