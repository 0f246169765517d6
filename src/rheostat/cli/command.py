"""Commands with examples and a documented JSON answer, and groups that import their commands late."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

__all__ = ["Command", "Example", "Lazy", "LazyGroup", "command"]

Example = tuple[str, str]
"""A command line, and what it does."""


class Command(click.Command):
    """A command whose help ends with examples and with what it answers under ``--json``."""

    def __init__(self, *args: Any, examples: Sequence[Example] = (), answer: str = "", **kwargs: Any) -> None:
        """Make a command.

        Args:
            args: As for `click.Command`.
            examples: Shown in its help.
            answer: The keys of its JSON answer, in words.
            kwargs: As for `click.Command`.
        """
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)
        self.answer = inspect.cleandoc(answer)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples and the JSON answer."""
        if self.examples:
            with formatter.section("Examples"):
                for line, meaning in self.examples:
                    formatter.write(f"{'':{formatter.current_indent}}# {meaning}\n")
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")
        if self.answer:
            with formatter.section("JSON answer"):
                for line in self.answer.splitlines():
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n" if line else "\n")
        super().format_epilog(ctx, formatter)


def command(
    name: str, *, examples: Sequence[Example] = (), answer: str = "", **kwargs: Any
) -> Callable[[Callable[..., Any]], Command]:
    """Return a decorator that makes a `Command` of a function; its docstring is the help."""
    return click.command(name, cls=Command, examples=examples, answer=answer, **kwargs)


@dataclass(frozen=True, slots=True)
class Lazy:
    """Where a command is, and what `--help` of its group says of it.

    Attributes:
        place: Module and attribute, such as ``rheostat.cli.apply:apply``.
        summary: The first sentence of the command's help, without the full stop.
        section: The heading under which the group lists it.
    """

    place: str
    summary: str
    section: str = "Commands"


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def __init__(self, *args: Any, lazy: Mapping[str, Lazy], **kwargs: Any) -> None:
        """Make a group of the commands in *lazy*, which are listed in that order."""
        super().__init__(*args, **kwargs)
        self.lazy = dict(lazy)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, in the order of the help."""
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command, or None when there is none of that name."""
        lazy = self.lazy.get(cmd_name)
        if lazy is None:
            return None
        module, _, attribute = lazy.place.partition(":")
        found = getattr(importlib.import_module(module), attribute)
        if not isinstance(found, click.Command):
            raise TypeError(f"{lazy.place} is not a command")
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that *args* name, with a suggestion when it is mistyped."""
        if args and args[0] not in self.lazy and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], self.lazy, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by section, without importing them."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, lazy in self.lazy.items():
            sections.setdefault(lazy.section, []).append((name, lazy.summary))
        width = max(len(name) for name in self.lazy)
        for section, rows in sections.items():
            with formatter.section(section):
                formatter.write_dl([(name.ljust(width), summary) for name, summary in rows])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Complete command names without importing the commands."""
        from click.shell_completion import CompletionItem

        found = [
            CompletionItem(name, help=lazy.summary)
            for name, lazy in self.lazy.items()
            if name.startswith(incomplete)
        ]
        return found or click.Command.shell_complete(self, ctx, incomplete)
