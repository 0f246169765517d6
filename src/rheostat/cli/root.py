"""The command `rheostat`: its subcommands, and the one place where errors become exit codes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from rheostat.cli.command import Lazy, LazyGroup
from rheostat.cli.failure import ExitCode, report
from rheostat.errors import RheostatError

__all__ = ["EXIT_CODES", "root"]

EXIT_CODES: Final = {
    ExitCode.OK: "done, or nothing to change",
    ExitCode.FAILED: "refused or failed",
    ExitCode.USAGE: "the command line is wrong",
    ExitCode.UNREACHABLE: "no server answers, or not now",
    ExitCode.DENIED: "no key, or one that may not do this",
    ExitCode.CONFLICT: "somebody else changed the same things first",
    ExitCode.BEHIND: "done, but fewer clients than --wait asks for had it in time",
    ExitCode.INTERRUPTED: "ended by Ctrl-C",
}

_COMMANDS: Final = {
    "demo": Lazy("rheostat.cli.demo:demo", "See a change arrive live, in ten seconds", "Start"),
    "serve": Lazy("rheostat.cli.serve:serve", "Run a server", "Start"),
    "relay": Lazy("rheostat.cli.relay:relay", "Run a relay, which follows servers", "Start"),
    "apply": Lazy("rheostat.cli.apply:apply", "Apply a document of settings", "Change"),
    "set": Lazy("rheostat.cli.value:set_", "Set a value, for everybody or where a condition holds", "Change"),
    "unset": Lazy("rheostat.cli.value:unset", "Clear a value, or remove a rule", "Change"),
    "mark": Lazy(
        "rheostat.cli.mark:mark", "Say whose a setting is, and where it stands in its life", "Change"
    ),
    "promote": Lazy(
        "rheostat.cli.promote:promote", "Bring settings of one environment into another", "Change"
    ),
    "revert": Lazy("rheostat.cli.history:revert", "Undo a revision, or everything after one", "Change"),
    "drafts": Lazy("rheostat.cli.draft:drafts", "List, show, approve, refresh and cancel drafts", "Change"),
    "publish": Lazy(
        "rheostat.cli.publish:publish", "Publish a draft or a document, and see it arrive", "Change"
    ),
    "get": Lazy("rheostat.cli.read:get", "Show a setting", "Read"),
    "list": Lazy("rheostat.cli.read:list_", "List the settings of an environment", "Read"),
    "rules": Lazy("rheostat.cli.read:rules", "List the rules of a setting, in order", "Read"),
    "evaluate": Lazy("rheostat.cli.evaluate:evaluate", "Evaluate a setting for a context", "Read"),
    "explain": Lazy("rheostat.cli.evaluate:explain", "Explain a value, rule by rule", "Read"),
    "export": Lazy("rheostat.cli.export:export", "Write a project as a document", "Read"),
    "history": Lazy("rheostat.cli.history:history", "List what was changed, newest first", "Read"),
    "stale": Lazy("rheostat.cli.stale:stale", "List settings that look as if nobody needed them", "Read"),
    "usage": Lazy(
        "rheostat.cli.usage:usage",
        "Show which values were given how often, or how often events happened",
        "Read",
    ),
    "watch": Lazy("rheostat.cli.watch:watch", "Print changes as they are committed", "Read"),
    "rollout": Lazy(
        "rheostat.cli.rollout:rollout", "Show how far a revision has got, or wait for it", "Read"
    ),
    "clients": Lazy(
        "rheostat.cli.client:clients",
        "List the connected clients of an environment, and how far each has got",
        "Read",
    ),
    "env": Lazy(
        "rheostat.cli.environment:environments", "List, show, create and copy environments", "Administer"
    ),
    "features": Lazy("rheostat.cli.feature:features", "List, add, move and remove features", "Administer"),
    "keys": Lazy("rheostat.cli.key:keys", "Create, list, rotate and revoke keys", "Administer"),
    "subjects": Lazy(
        "rheostat.cli.subject:subjects",
        "Show, change, remove and import subjects: companies, users and what else is stored",
        "Administer",
    ),
    "webhooks": Lazy(
        "rheostat.cli.webhook:webhooks", "Tell other programs of each change, over HTTP", "Administer"
    ),
    "migrate": Lazy("rheostat.cli.migrate:migrate", "Bring a store to this version's schema", "Administer"),
    "store": Lazy(
        "rheostat.cli.store:store", "Copy, back up and look at a store, without a server", "Administer"
    ),
    "restore": Lazy(
        "rheostat.cli.restore:restore",
        "Begin a generation after a backup was put in the place of a store",
        "Administer",
    ),
    "doctor": Lazy(
        "rheostat.cli.doctor:doctor", "Say whether a set-up works, and what to do where it does not", "Tools"
    ),
    "codegen": Lazy(
        "rheostat.cli.codegen.command:codegen", "Generate typed code from an environment", "Tools"
    ),
    "schema": Lazy("rheostat.cli.export:schema", "Print the JSON Schema of documents", "Tools"),
    "completion": Lazy("rheostat.cli.shell:completion", "Print the completion script of a shell", "Tools"),
    "version": Lazy("rheostat.cli.shell:version", "Print the versions of client and server", "Tools"),
}


class Root(LazyGroup):
    """The group that turns errors into exit codes and messages."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command; in standalone mode exit with its `ExitCode`."""
        given = list(sys.argv[1:] if args is None else args)
        if not standalone_mode:
            return super().main(given, prog_name, complete_var, standalone_mode=False, **extra)
        for stream in (sys.stdout, sys.stderr):
            # Arrows and names must not end a command on a terminal that has no Unicode.
            if (reconfigure := getattr(stream, "reconfigure", None)) is not None:
                reconfigure(errors="replace")
        try:
            result = super().main(
                given, prog_name or "rheostat", complete_var, standalone_mode=False, **extra
            )
        except (RheostatError, click.ClickException) as error:
            sys.exit(report(error, as_json=_wants_json(given)))
        except click.Abort:
            sys.exit(ExitCode.INTERRUPTED)
        sys.exit(result if isinstance(result, int) else ExitCode.OK)


def _wants_json(args: Sequence[str]) -> bool:
    # Also known when the command line is too wrong to be parsed.
    return "--json" in (args[: args.index("--")] if "--" in args else args)


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"rheostat {version('rheostat')}")
        ctx.exit()


@click.group(
    cls=Root,
    lazy=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: " + "; ".join(f"{int(code)} {meaning}" for code, meaning in EXIT_CODES.items()) + ".",
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Print this program's version and exit.",
)
def root() -> None:
    """Turn the knobs of running systems: typed settings, rules and live changes.

    Commands talk to the server at --url (RHEOSTAT_URL), with the key of RHEOSTAT_KEY, about the project of
    --project (RHEOSTAT_PROJECT) and the environment of --environment (RHEOSTAT_ENVIRONMENT). Every command
    explains itself with --help and answers JSON with --json.
    """
