"""What commands print: people's text on terminals and in pipes, or one JSON value.

Answers go to standard output. Where they came from (project, environment, revision), warnings and errors go to
standard error, so that a pipe gets the answer alone.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from rheostat.model.change import PlanWarning

__all__ = ["Output"]

_PIPE_WIDTH: Final = 100_000
"""Columns of a pipe: lines of a table are never wrapped or cut there."""


class Output:
    """Where a command prints. Colours only on terminals, and never with NO_COLOR."""

    def __init__(self, *, json: bool = False) -> None:
        """Make an output; with *json* everything but the JSON answer is left out."""
        self.json = json
        self._consoles: dict[bool, Console] = {}

    @property
    def console(self) -> Console:
        """Standard output."""
        return self._console(stderr=False)

    @property
    def side(self) -> Console:
        """Standard error."""
        return self._console(stderr=True)

    def _console(self, *, stderr: bool) -> Console:
        console = self._consoles.get(stderr)
        if console is None:
            from rich.console import Console

            stream = sys.stderr if stderr else sys.stdout
            console = Console(
                file=stream,
                highlight=False,
                markup=False,
                emoji=False,
                soft_wrap=True,
                width=None if stream.isatty() else _PIPE_WIDTH,
            )
            self._consoles[stderr] = console
        return console

    def answer(self, value: Any) -> None:
        """Print the command's JSON answer."""
        click.echo(json.dumps(value, indent=2, ensure_ascii=not _is_unicode()))

    def line(self, value: Any) -> None:
        """Print one line of a JSON stream at once."""
        with _pipe_errors():
            click.echo(json.dumps(value, separators=(",", ":"), ensure_ascii=not _is_unicode()))
            sys.stdout.flush()

    def print(self, text: RenderableType = "", *, style: str | None = None) -> None:
        """Print a line of the answer."""
        with _pipe_errors():
            self.console.print(text, style=style)

    def flush(self) -> None:
        """Hand over what was printed: a pipe would keep it until there is more."""
        with _pipe_errors():
            sys.stdout.flush()

    def note(self, text: RenderableType, *, style: str | None = "dim") -> None:
        """Print a line that is no part of the answer; nothing under ``--json``."""
        if not self.json:
            with _pipe_errors():
                self.side.print(text, style=style)

    def place(self, project: str, environment: str = "", revision: int | None = None) -> None:
        """Print which project, environment and revision the answer is about."""
        parts = [f"project {project}"]
        if environment:
            parts.append(f"environment {environment}")
        if revision is not None:
            parts.append(f"revision {revision}")
        self.note(", ".join(parts))

    def warn(self, warnings: Sequence[PlanWarning]) -> None:
        """Print the warnings of a plan; nothing under ``--json``, where the answer has them."""
        from rheostat.model.value import canonical_json

        for warning in warnings:
            self.note(f"warning: {warning.message}", style="yellow")
            if warning.context is not None:
                self.note(f"  for instance for {canonical_json(warning.context)}", style="yellow")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[RenderableType]]) -> None:
        """Print *rows* under *columns*; nothing when there are none."""
        from rich import box
        from rich.table import Table

        if not rows:
            return
        table = Table(*columns, box=box.SIMPLE_HEAD if self.console.is_terminal else None, pad_edge=False)
        for row in rows:
            table.add_row(*row)
        if self.console.is_terminal:
            self.print(table)
            return
        with self.console.capture() as capture:
            self.console.print(table)
        with _pipe_errors():
            for line in capture.get().splitlines():
                click.echo(line.rstrip())


@contextlib.contextmanager
def _pipe_errors() -> Iterator[None]:
    """Let a reader that went away end the command as click ends it; rich would exit with a code of its own."""
    try:
        yield
    except SystemExit as exc:
        raise BrokenPipeError(32, "the reader of the output went away") from exc


def _is_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
