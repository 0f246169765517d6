"""Runs what the README and the guide tell readers to run, and checks what they refer to.

The blocks of a page run in order, in a directory of the page's own, against a real server on the example project:

- ``python`` in the interpreter, ``sh`` in bash (exported variables last for the page), ``ts`` in node;
- ``text`` right after one of them is its output: these lines, in this order, perhaps among others and with other spaces;
  ``…`` is anything;
- other languages are only shown.

A comment right before a block changes that:

- ``<!-- test: background -->`` starts it and goes on; it is ended with the page. Output that follows is waited for.
- ``<!-- test: background output -->`` before ``text``: what the last background block prints in the meantime.
- ``<!-- test: fails -->``: its exit code is not 0.
- ``<!-- test: file NAME -->``: it is a file of that name, and does not run.
- ``<!-- test: skip, REASON -->``.

``<!-- test: no server -->`` at the head of a page: it starts its own. The ports 7420, which is also what `rheostat`
takes by default, and 8000 to 8009 stand for free ones. A block inside an HTML comment is run and not shown.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from rheostat.document import parse_document
from rheostat.document.apply import plan_apply
from rheostat.example import PROJECT, document_text
from rheostat.server import open_service
from rheostat.service import Writer
from rheostat.service.access import OPEN
from tests.program import NODE, SCRIPTS, TYPESCRIPT, Program, free_port, install_typescript

ROOT = Path(__file__).parent.parent

RUN = (ROOT / "README.md", *sorted((ROOT / "docs/guide").glob("*.md")), ROOT / "examples/README.md")
"""The pages whose blocks are run."""

LINKED = (
    *RUN,
    *sorted(ROOT.glob("docs/**/*.md")),
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
)
"""The pages whose links are followed."""

BLOCK_SECONDS = 300

_BLOCK = re.compile(
    r"^(?:<!-- test: (?P<directive>[^\n]+?) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_PORT = re.compile(r"\b(?:7420|800[0-9])\b")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    line: int
    language: str
    directive: str
    text: str
    output: str = ""
    """What is expected of it, when the next block says so."""


def blocks_of(page: Path) -> list[Block]:
    markdown = page.read_text("utf-8")
    blocks: list[Block] = []
    end = 0
    for match in _BLOCK.finditer(markdown):
        block = Block(
            markdown.count("\n", 0, match.start()) + 1,
            match["language"],
            match["directive"] or "",
            match["text"],
        )
        follows = not markdown[end : match.start()].strip()
        end = match.end()
        if block.language == "text" and not block.directive and follows and blocks:
            last = blocks[-1]
            blocks[-1] = Block(last.line, last.language, last.directive, last.text, block.text)
        else:
            blocks.append(block)
    return blocks


def matches(expected: str, printed: str) -> bool:
    """Tell whether the lines of *expected* are among those of *printed*, in their order."""
    left = iter(printed.splitlines())
    return all(any(_line_matches(wanted, line) for line in left) for wanted in expected.splitlines())


def _line_matches(wanted: str, line: str) -> bool:
    wanted, line = " ".join(wanted.split()), " ".join(line.split())
    pattern = ".*".join(re.escape(part) for part in wanted.split("…"))
    return re.fullmatch(pattern, line) is not None


class Page:
    """Runs the blocks of one page."""

    def __init__(self, page: Path, directory: Path, stack: ExitStack) -> None:
        self._page = page
        self._directory = directory
        self._stack = stack
        self._ports: dict[str, str] = {}
        self._background: Program | None = None
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("RHEOSTAT_", "PYTEST_"))
        } | {
            "PATH": f"{SCRIPTS}{os.pathsep}{NODE.parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
            "NO_COLOR": "1",
            "COLUMNS": "160",
            "RHEOSTAT_AUTHOR": "ada",
            "RHEOSTAT_URL": f"http://127.0.0.1:{self._port('7420')}",
            "NO_PROXY": "127.0.0.1,localhost",
        }

    def serve_the_example(self) -> None:
        store = f"sqlite:{self._directory / 'shop.db'}"
        with open_service(store) as service:
            service.commit(Writer(OPEN), PROJECT, "", plan_apply(parse_document(document_text()), None))
        port = self._port("7420")
        server = Program(
            [SCRIPTS / "rheostat", "serve", "--store", store, "--port", port],
            cwd=self._directory,
            env=self._environment,
        )
        self._stack.enter_context(server).wait_for_port(int(port))

    def _port(self, written: str) -> str:
        return self._ports.setdefault(written, str(free_port()))

    def _on_free_ports(self, text: str) -> str:
        text = re.sub(
            r"^rheostat serve\b(?!.*--port)", "rheostat serve --port 7420", text, flags=re.MULTILINE
        )
        return _PORT.sub(lambda match: self._port(match[0]), text)

    def run(self, block: Block) -> None:
        where = f"{self._page.relative_to(ROOT)}:{block.line}"
        text, output = self._on_free_ports(block.text), self._on_free_ports(block.output)
        word, _, argument = block.directive.partition(" ")
        match word:
            case "skip,":
                assert argument, f"{where}: say why it cannot run"
            case "file":
                path = self._directory / argument
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, "utf-8")
            case "background" if argument == "output":
                self._await_background(text, where)
            case "background":
                arguments = self._arguments(block.language, text)
                program = Program(arguments, cwd=self._directory, env=self._environment)
                self._background = self._stack.enter_context(program)
                if output:
                    self._await_background(output, where)
            case "" | "fails" if block.language in ("python", "sh", "ts"):
                self._run_to_its_end(block.language, text, output, where, fails=word == "fails")
            case "":
                pass
            case _:
                pytest.fail(f"{where}: an unknown directive {block.directive!r}")

    def _await_background(self, expected: str, where: str) -> None:
        assert self._background is not None, f"{where}: nothing runs in the background"
        assert self._background.wait_until(lambda printed: matches(expected, printed)), (
            f"{where}: expected\n{expected}\nof what runs in the background, which printed\n"
            f"{self._background.output}"
        )

    def _run_to_its_end(self, language: str, text: str, expected: str, where: str, *, fails: bool) -> None:
        done = subprocess.run(
            self._arguments(language, text),
            cwd=self._directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=BLOCK_SECONDS,
            check=False,
        )
        assert (done.returncode != 0) is fails, f"{where}: exit code {done.returncode}\n{done.stdout}"
        assert matches(expected, done.stdout), f"{where}: expected\n{expected}\nbut it printed\n{done.stdout}"

    def _arguments(self, language: str, text: str) -> Sequence[str | Path]:
        match language:
            case "python":
                return [sys.executable, "-c", text]
            case "ts":
                modules = self._directory / "node_modules"
                if not modules.exists():
                    modules.symlink_to(TYPESCRIPT / "node_modules")
                (self._directory / "block.ts").write_text(text, "utf-8")
                return [NODE, "--preserve-symlinks", "block.ts"]
            case _:
                exported = self._directory / ".exported"
                script = (
                    f"set -euo pipefail\n[ -e {exported} ] && . {exported}\n{text}\nexport -p >{exported}\n"
                )
                return ["bash", "-c", script]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_tells_to_run_does_what_it_says(page: Path, tmp_path: Path, stack: ExitStack) -> None:
    assert shutil.which("bash"), "the pages' commands need bash"
    assert shutil.which("curl"), "the pages' commands need curl"
    blocks = blocks_of(page)
    if any(block.language == "ts" for block in blocks):
        install_typescript()
    runner = Page(page, tmp_path, stack)
    if "<!-- test: no server -->" not in page.read_text("utf-8"):
        runner.serve_the_example()
    for block in blocks:
        runner.run(block)


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    for target in _LINK.findall(re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{target} does not exist"
        if anchor:
            assert anchor in anchors_of(found), f"{target}: there is no such heading"


def anchors_of(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_first_two_commands_of_the_readme_are_what_the_project_has() -> None:
    demo, test = blocks_of(ROOT / "README.md")[:2]
    start = "python3.11 -m venv .venv && .venv/bin/pip install -q uv && .venv/bin/uv run --locked "
    assert demo.text.strip() == f"{start}rheostat demo"
    assert test.text.strip() == f"{start}just test"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert project["project"]["scripts"]["rheostat"] == "rheostat.cli:main"
    # `uv run` installs the default groups, and with them just and the server.
    assert project["tool"]["uv"]["default-groups"] == ["dev"]
    dev = project["dependency-groups"]["dev"]
    assert any(re.fullmatch(r"rheostat\[([a-z]+,)*server(,[a-z]+)*\]", requirement) for requirement in dev)
    assert any(requirement.startswith("rust-just") for requirement in dev)
    assert re.search(r"^test .*:\n    .*pytest", (ROOT / "justfile").read_text("utf-8"), re.MULTILINE)


def test_the_readme_shows_reading_reacting_and_testing_in_ten_lines_each() -> None:
    readme = ROOT / "README.md"
    shown = {
        line: next(block for block in blocks_of(readme) if block.line > number)
        for number, line in enumerate(readme.read_text("utf-8").splitlines())
        if line in {"## Read it from Python", "## React to a change", "## Test without a server"}
    }
    assert len(shown) == 3
    for heading, block in shown.items():
        assert block.language == "python"
        assert len(block.text.splitlines()) <= 10, heading


def test_contributing_names_every_recipe() -> None:
    listed = subprocess.run(
        [SCRIPTS / "just", "--justfile", ROOT / "justfile", "--summary"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=BLOCK_SECONDS,
    ).stdout.split()
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    for recipe in set(listed) - {"default"}:
        assert f"`just {recipe}`" in text, f"CONTRIBUTING.md does not name `just {recipe}`"


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    requirements = [
        *project["project"]["dependencies"],
        *(r for extra in project["project"]["optional-dependencies"].values() for r in extra),
        *(r for group in project["dependency-groups"].values() for r in group),
    ]
    text = (ROOT / "docs/decisions/0002-dependencies.md").read_text("utf-8")
    described = set(re.findall(r"^\| `([\w.-]+)`", text, re.MULTILINE))
    names = {re.split(r"[^\w.-]", requirement)[0] for requirement in requirements} - {"rheostat"}
    assert names == described


def test_a_page_that_promises_another_output_would_fail() -> None:
    assert matches("a …\nc", "first\na b\nb\nc d\nc\n")
    assert not matches("c\na", "a\nc\n")
    assert not matches("a", "a b\n")


def test_every_decision_is_listed() -> None:
    index = (ROOT / "docs/decisions/README.md").read_text("utf-8")
    for page in (ROOT / "docs/decisions").glob("[0-9]*.md"):
        assert f"]({page.name})" in index
