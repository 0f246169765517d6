"""Regular expressions in RE2's syntax: linear in the text, whatever the pattern."""

from __future__ import annotations

from typing import Final

import re2

__all__ = ["pattern_error", "search"]


def _options() -> re2.Options:
    options = re2.Options()
    # The library writes the errors of patterns to stderr otherwise.
    options.log_errors = False
    return options


_OPTIONS: Final = _options()


def pattern_error(pattern: str) -> str | None:
    """Return why *pattern* does not compile, or None when it does."""
    try:
        re2.compile(pattern, _OPTIONS)
    except UnicodeEncodeError:
        return "it holds a lone surrogate"
    except re2.error as exc:
        reason = exc.args[0] if exc.args else "not a regular expression"
        return reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
    return None


def search(pattern: str, text: str) -> bool | None:
    """Tell whether *pattern* is found anywhere in *text*; None when it does not compile.

    None too when either holds a lone surrogate, which UTF-8 cannot carry.
    """
    try:
        return re2.search(pattern, text, _OPTIONS) is not None
    except (re2.error, UnicodeEncodeError):
        return None
