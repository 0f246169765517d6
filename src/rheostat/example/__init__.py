"""The example project: the configuration of an imaginary shop, used by the demo, the guide and the tests."""

from __future__ import annotations

import importlib.resources
from typing import Final

__all__ = ["PROJECT", "document_text"]

PROJECT: Final = "shop"
"""The slug of the project that the document is about."""


def document_text() -> str:
    """Return the declarative document of the example, in YAML."""
    return importlib.resources.files(__name__).joinpath("shop.yaml").read_text("utf-8")
