"""Recognising values that are secrets by their form: configuration is not a vault."""

from __future__ import annotations

import re
from typing import Final

from rheostat.model.value import FrozenMapping, Value

__all__ = ["looks_like_credential"]

# Only forms that are unmistakable: a refused harmless value would be worse than a missed odd one.
_FORMS: Final = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY( BLOCK)?-----"), "a private key"),
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"), "an AWS access key"),
    (re.compile(r"\bAIza[0-9A-Za-z_-]{35}\b"), "a Google API key"),
    (re.compile(r"\bgh[pousr]_[0-9A-Za-z]{36,}\b"), "a GitHub token"),
    (re.compile(r"\bxox[abprs]-[0-9A-Za-z-]{20,}"), "a Slack token"),
    (re.compile(r"\bsk_live_[0-9A-Za-z]{16,}"), "a Stripe secret key"),
    (re.compile(r"\brst_(?:public|server|relay|user)_[0-9a-z]{16}_[0-9a-f]{64}_"), "a Rheostat key"),
)


def looks_like_credential(value: Value) -> str | None:
    """Return what *value*, or a string anywhere in it, looks like, such as ``a private key``; else None."""
    match value:
        case str():
            return next((name for form, name in _FORMS if form.search(value)), None)
        case tuple():
            return next((found for element in value if (found := looks_like_credential(element))), None)
        case FrozenMapping():
            return next(
                (found for element in value.values() if (found := looks_like_credential(element))), None
            )
        case _:
            return None
