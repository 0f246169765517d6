"""Type checkers and compilers, run on generated modules."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.program import NODE, SCRIPTS, TYPESCRIPT, install_typescript

ROOT = Path(__file__).parents[2]
SECONDS = 150

_CACHE = ROOT / "build" / f"mypy-codegen-{os.environ.get('PYTEST_XDIST_WORKER', 'only')}"


def check_python(folder: Path, files: Mapping[str, str], *, fails: bool = False) -> str:
    """Write *files* and check them with mypy and pyright, both strict; return what they say."""
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8")
    (folder / "pyrightconfig.json").write_text(
        json.dumps(
            {
                "typeCheckingMode": "strict",
                "pythonVersion": "3.11",
                "include": list(files),
                # An editable install is found by its paths, not by its hook.
                "extraPaths": [str(ROOT / "src"), str(ROOT / "gen/python")],
            }
        )
    )
    commands = [
        [SCRIPTS / "mypy", "--strict", "--config-file=", "--cache-dir", _CACHE, *files],
        [SCRIPTS / "basedpyright", "--pythonpath", sys.executable, "--warnings"],
    ]
    said = []
    for command in commands:
        done = _run(command, folder)
        assert (done.returncode != 0) is fails, f"{command[0]}\n{done.stdout}"
        said.append(done.stdout)
    return "\n".join(said)


def check_typescript(folder: Path, files: Mapping[str, str], *, fails: bool = False) -> str:
    """Write *files* and check them with tsc, as strict as it can be; return what it says."""
    install_typescript()
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8")
    options = {
        "strict": True,
        "noEmit": True,
        "target": "es2022",
        "module": "nodenext",
        "types": [],
        "verbatimModuleSyntax": True,
        "exactOptionalPropertyTypes": True,
        "noUncheckedIndexedAccess": True,
        "noPropertyAccessFromIndexSignature": True,
        "allowImportingTsExtensions": True,
    }
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "tsconfig.json").write_text(json.dumps({"compilerOptions": options, "files": list(files)}))
    done = _run([NODE, TYPESCRIPT / "node_modules/typescript/bin/tsc", "--pretty", "false"], folder)
    assert (done.returncode != 0) is fails, done.stdout
    return done.stdout


def run_typescript(folder: Path, file: str) -> Any:
    """Return the exports of a module, which node runs without its types."""
    program = (
        "const found = { ...(await import(process.argv[1])) };process.stdout.write(JSON.stringify(found));"
    )
    done = _run([NODE, "--input-type=module", "-e", program, str(folder / file)], folder, stderr=None)
    assert done.returncode == 0, done.stdout
    return json.loads(done.stdout)


def _run(
    command: list[Any], folder: Path, stderr: int | None = subprocess.STDOUT
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=stderr,
        encoding="utf-8",
        timeout=SECONDS,
        check=False,
    )
