"""docs/reference/cli.md, from the commands themselves.

python -m rheostat.cli.reference > docs/reference/cli.md
"""

from __future__ import annotations

from collections.abc import Iterator

import click

from rheostat.cli.root import EXIT_CODES, root

__all__ = ["reference"]

_WIDTH = 100

_INTRODUCTION = """\
# The command line

<!-- Written by `python -m rheostat.cli.reference`; a test compares the two. -->

`rheostat` talks to a server over the same contract as every other client. What a command is about comes from
options or, for a whole session, from the environment:

| Option | Variable | Meaning |
|---|---|---|
| `--url` | `RHEOSTAT_URL` | the server; `http://127.0.0.1:7420` by default |
| `--key` | `RHEOSTAT_KEY` | the key; none on an open server |
| `--project` | `RHEOSTAT_PROJECT` | the project; by default the key's, or `default` |
| `--environment`, `-e` | `RHEOSTAT_ENVIRONMENT` | the environment; needed when there are several, which the refusal then names |
| `--author` | `RHEOSTAT_AUTHOR` | who writes, for the history of an open server |
| `--store` | `RHEOSTAT_STORE` | the store of `serve`, `migrate`, `restore` and `store show` |

`apply` and `export` are about all environments of a document or project unless `--environment` is given as an
option. A server with a certificate of one's own authority is trusted through `SSL_CERT_FILE`.

Answers go to standard output; project, environment and revision, warnings and errors go to standard error.
There are colours on terminals only, and none with `NO_COLOR`.

## JSON

With `--json` a command answers one JSON object (`watch`: one a line), and an error is one JSON object on standard
error:

```json
{"error": {"reason": "SETTING_NOT_FOUND", "message": "…", "exit_code": 1, "metadata": {}}}
```

`reason` is one of errors.md, or `USAGE`, or `UNREACHABLE`. There may also be `violations` (`[{field, description}]`),
`line` and `column` of a document, `conflicts` (`[{kind, name, environment, revision}]`) with `expected_revision`,
`retry_after` (seconds) and `request_id`. Keys are added to these objects, never renamed or removed.

## Exit codes

| Code | Meaning |
|---|---|
"""


def reference() -> str:
    """Return the page, in Markdown."""
    lines = [_INTRODUCTION.rstrip("\n")]
    lines += [f"| {int(code)} | {meaning} |" for code, meaning in EXIT_CODES.items()]
    lines += ["", "`watch` ends with 0 on Ctrl-C.", "", "## Commands", ""]
    for path, command, context in _commands(root, None, "rheostat"):
        lines += [f"### `{path}`", "", "```text"]
        lines += [line.rstrip() for line in command.get_help(context).splitlines()]
        lines += ["```", ""]
    return "\n".join(lines)


def _commands(
    command: click.Command, parent: click.Context | None, name: str
) -> Iterator[tuple[str, click.Command, click.Context]]:
    context = click.Context(
        command, info_name=name, parent=parent, terminal_width=_WIDTH, **command.context_settings
    )
    yield context.command_path, command, context
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            if found is not None:
                yield from _commands(found, context, child)


if __name__ == "__main__":
    click.echo(reference(), nl=False)
