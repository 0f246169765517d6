"""The reference of the API, which is generated from docstrings."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOOL = ROOT / "tools/api.py"

PUBLIC = (
    "rheostat",
    "rheostat.errors",
    "rheostat.integrations.django",
    "rheostat.integrations.fastapi",
    "rheostat.integrations.flask",
    "rheostat.integrations.logging",
    "rheostat.integrations.ndjson",
    "rheostat.integrations.otel",
    "rheostat.integrations.starlette",
    "rheostat.integrations.webhooks",
    "rheostat.model.exposure",
    "rheostat.openfeature",
    "rheostat.sdk.transport",
    "rheostat.testing",
)


def test_the_reference_is_what_the_docstrings_say() -> None:
    done = subprocess.run(
        [sys.executable, TOOL, "--check"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"run: just api\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_in_the_reference(module: str) -> None:
    pages = "\n".join(page.read_text("utf-8") for page in (ROOT / "docs/reference/api").glob("*.md"))
    headings = set(re.findall(r"^## (?:\w+\.)?(\w+)$", pages, re.MULTILINE))
    assert set(importlib.import_module(module).__all__) <= headings


def test_every_integration_is_in_the_reference() -> None:
    modules = {path.stem for path in (ROOT / "src/rheostat/integrations").glob("*.py")}
    # What they share is not for others.
    assert {f"rheostat.integrations.{module}" for module in modules - {"__init__", "request"}} <= set(PUBLIC)


def test_a_docstring_that_has_changed_is_noticed(tmp_path: Path) -> None:
    tool = tmp_path / "tools/api.py"
    tool.parent.mkdir()
    tool.write_text(TOOL.read_text("utf-8"), "utf-8")
    stale = tmp_path / "docs/reference/api/rheostat.md"
    stale.parent.mkdir(parents=True)
    for page in (ROOT / "docs/reference/api").glob("*.md"):
        (stale.parent / page.name).write_text(page.read_text("utf-8"), "utf-8")
    stale.write_text(stale.read_text("utf-8").replace("never waits", "waits"), "utf-8")
    done = subprocess.run(
        [sys.executable, tool, "--check"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "docs/reference/api/rheostat.md" in done.stdout.split()
