"""Names of settings as identifiers: from the names alone, so that no setting ever takes over another's identifier."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Final

__all__ = ["assign", "type_candidates", "variable_candidates"]

_SPELLED: Final = {".": "_dot_", "-": "_dash_", "_": "_underscore_"}
_DIGESTS: Final = (6, 12, 64)


def assign(candidates: Mapping[str, Sequence[str]], taken: Collection[str]) -> dict[str, str]:
    """Return an identifier for each key: the first of its candidates that nobody else wants.

    Where two want the same, neither has it: one that came later would otherwise silently stand for what the
    other was. The order of the keys has no influence.

    Args:
        candidates: What would do, the most welcome first; after the last one come underscores behind it.
        taken: What nobody may have.
    """
    at = dict.fromkeys(candidates, 0)
    # What two have wanted stays out of use, also for a third one that comes by later.
    spent = set(taken)
    while True:
        chosen = {key: _at(candidates[key], at[key]) for key in candidates}
        wanted = Counter(chosen.values())
        clashing = [key for key, name in chosen.items() if wanted[name] > 1 or name in spent]
        if not clashing:
            return chosen
        for key in clashing:
            spent.add(chosen[key])
            at[key] += 1


def _at(candidates: Sequence[str], place: int) -> str:
    last = len(candidates) - 1
    return candidates[min(place, last)] + "_" * max(0, place - last)


def variable_candidates(name: str, reserved: Collection[str] = ()) -> Sequence[str]:
    """Return identifiers for a setting: ``checkout.new-flow`` as ``checkout_new_flow``.

    Args:
        name: Of the setting.
        reserved: Identifiers that get an underscore behind them, as PEP 8 has it for keywords.
    """
    plain = _started(re.sub(r"[^A-Za-z0-9]", "_", name))
    if plain in reserved:
        plain += "_"
    spelled = _started(re.sub(r"[^A-Za-z0-9]", lambda match: _SPELLED.get(match[0], "_"), name))
    return (plain, spelled, *_digested(plain, name))


def type_candidates(key: str, words: Sequence[str]) -> Sequence[str]:
    """Return names for a type that belongs to a setting: *words* in Pascal case, each of them any text.

    Args:
        key: What tells the type from all others.
        words: The setting's name and the way to the type within it.
    """
    parts = [part for word in words for part in re.split(r"[^A-Za-z0-9]+", word) if part]
    plain = "".join(part[0].upper() + part[1:] for part in parts)
    if not plain or plain[0].isdigit():
        plain = f"Type{plain}"
    # Long ways through a schema make names that nobody reads to their end.
    if len(plain) > 80:
        plain = f"{plain[:72]}_{_digest(key)[:6]}"
    return (plain, f"{plain}Value", *_digested(plain, key))


def _started(identifier: str) -> str:
    # A leading underscore would make it private.
    return identifier if identifier[0].isalpha() else f"setting_{identifier}"


def _digested(plain: str, key: str) -> list[str]:
    digest = _digest(key)
    return [f"{plain.rstrip('_')}_{digest[:length]}" for length in _DIGESTS]


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
