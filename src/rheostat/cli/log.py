"""What programs in the foreground log: lines for people, or one JSON object a line for programs that collect them."""

from __future__ import annotations

import datetime
import json
import logging
from typing import Final

__all__ = ["FORMATS", "JsonFormatter", "formatter_of"]

FORMATS: Final = ("text", "json")

_EXTRA: Final = ("request_id", "method", "code", "seconds")
"""What calls add to their records."""


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON.

    Its fields are ``time`` (RFC 3339, UTC), ``level``, ``logger`` and ``message``, ``exception`` where there is one,
    and for what concerns a call its ``request_id``, ``method``, ``code`` and ``seconds``, as far as they are known.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        at = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        fields: dict[str, object] = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields.update((name, getattr(record, name)) for name in _EXTRA if hasattr(record, name))
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False, default=str)


def formatter_of(format_: str) -> logging.Formatter:
    """Return what formats the records of a log; *format_* is one of `FORMATS`."""
    if format_ == "json":
        return JsonFormatter()
    return logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
