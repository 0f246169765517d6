"""The command line: `rheostat`, one module for each group of commands.

Modules of commands are imported when their command is called, so that `rheostat --help` and completion stay
quick; only `serve`, `demo`, `migrate` and `keys create --store` import the server.
"""

from __future__ import annotations

from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command of this process's arguments and exit with its code; see `rheostat.cli.failure.ExitCode`."""
    from rheostat.cli.root import root

    root()
    # Unreachable but for type checkers: click's standalone mode always exits.
    raise SystemExit(0)
