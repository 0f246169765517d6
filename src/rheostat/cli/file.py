"""Files that commands read and write."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Final, TextIO

import click

__all__ = ["read_document", "replace_file"]

_MAX_CHARACTERS: Final = 32 * 1024 * 1024
"""A change-set has at most 32 MiB, so that a longer document is some other file."""


def read_document(file: TextIO) -> tuple[str, str]:
    """Return the text of a document, and the name of its file for messages.

    Raises:
        click.ClickException: It is no UTF-8, or far too long.
    """
    try:
        text = file.read(_MAX_CHARACTERS + 1)
    except UnicodeDecodeError as exc:
        raise click.ClickException(f"{file.name}: not UTF-8 text, at byte {exc.start}") from None
    if len(text) > _MAX_CHARACTERS:
        raise click.ClickException(f"{file.name}: longer than a change-set may be")
    return text, "standard input" if file.name in ("-", "<stdin>") else Path(file.name).name


def replace_file(path: Path, text: str) -> None:
    """Write *text* to *path*; a reader sees the old file or the new one, never a half.

    Raises:
        click.ClickException: It cannot be written.
    """
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
            # mkstemp's files are for the owner's eyes alone; the new file is like any other.
            umask = os.umask(0)
            os.umask(umask)
            Path(name).chmod(path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~umask)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as exc:
        raise click.ClickException(f"cannot write {path}: {exc.strerror}") from None
