"""Recognising values and texts that are secrets by their form: configuration is not a vault."""

from __future__ import annotations

import re
from typing import Final

from rheostat.errors import FieldViolation, InvalidSettingError
from rheostat.model.value import FrozenMapping

__all__ = ["check_credentials", "looks_like_credential"]

# Only forms that are unmistakable: a refused harmless value would be worse than a missed odd one.
_FORMS: Final = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY( BLOCK)?-----"), "a private key"),
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"), "an AWS access key"),
    (re.compile(r"\bAIza[0-9A-Za-z_-]{35}\b"), "a Google API key"),
    (re.compile(r"\bgh[pousr]_[0-9A-Za-z]{36,}\b"), "a GitHub token"),
    (re.compile(r"\bgithub_pat_[0-9A-Za-z_]{50,}\b"), "a GitHub token"),
    (re.compile(r"\bxox[abprs]-[0-9A-Za-z-]{20,}"), "a Slack token"),
    (re.compile(r"\b[rs]k_live_[0-9A-Za-z]{16,}"), "a Stripe secret key"),
    (re.compile(r"\brst_(?:public|server|relay|user)_[0-9a-z]{16}_[0-9a-f]{64}_"), "a Rheostat key"),
    (re.compile(r"\bwhsec_[0-9A-Za-z+/]{32,}"), "a webhook's secret"),
)


def looks_like_credential(value: object) -> str | None:
    """Return what *value*, or a string anywhere in it, looks like, such as ``a private key``; else None."""
    match value:
        case str():
            return next((name for form, name in _FORMS if form.search(value)), None)
        case tuple():
            return next((found for element in value if (found := looks_like_credential(element))), None)
        case FrozenMapping():
            parts = (part for pair in value.items() for part in pair)
            return next((found for part in parts if (found := looks_like_credential(part))), None)
        case _:
            return None


def check_credentials(value: object, place: str) -> None:
    """Refuse a value, or text, that looks like a credential, without repeating it.

    Whatever else may be wrong with it is to be looked at after this, because other errors do repeat it.

    Args:
        value: What is to be stored. What is neither a value nor a text passes.
        place: The field that the error names.

    Raises:
        InvalidSettingError: It does.
    """
    kind = looks_like_credential(value)
    if kind is not None:
        raise InvalidSettingError(
            f"this looks like {kind}; configuration is not a vault, keep a reference to the secret instead",
            violations=[FieldViolation(place, f"looks like {kind}")],
            reason="LOOKS_LIKE_CREDENTIAL",
        )
