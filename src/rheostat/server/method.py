"""Names of the contract's methods."""

from __future__ import annotations

__all__ = ["python_name"]


def python_name(method: str) -> str:
    """Return the name in generated Python code: ``get_snapshot`` for ``rheo.v1.ConfigService/GetSnapshot``."""
    name = method.rpartition("/")[2]
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
