"""The declarative document: one format for ``apply``, ``export``, bootstrap files and examples.

Described for users in docs/reference/document.md.
"""

from rheostat.document.apply import plan_apply
from rheostat.document.document import (
    Document,
    EnvironmentEntry,
    RuleEntry,
    SegmentEntry,
    SettingEntry,
    WrittenDistribution,
)
from rheostat.document.export import export_document
from rheostat.document.parser import parse_document
from rheostat.document.printer import format_document
from rheostat.document.promotion import PARTS, promotion
from rheostat.document.schema import document_schema

__all__ = [
    "PARTS",
    "Document",
    "EnvironmentEntry",
    "RuleEntry",
    "SegmentEntry",
    "SettingEntry",
    "WrittenDistribution",
    "document_schema",
    "export_document",
    "format_document",
    "parse_document",
    "plan_apply",
    "promotion",
]
