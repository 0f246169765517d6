"""The pytest plugin, in pytest processes of their own."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from rheostat import Client, Setting
from rheostat.testing import LocalServer, StubClient

TIMEOUT = Setting("timeout", float, default=0.5)


def test_the_stub_of_the_fixture_is_active(rheostat_stub: StubClient) -> None:
    rheostat_stub["timeout"] = 2.0
    assert TIMEOUT.get() == 2.0


def test_each_test_has_a_stub_of_its_own(rheostat_stub: StubClient) -> None:
    assert TIMEOUT.get() == 0.5
    assert len(rheostat_stub.evaluations) == 1


def test_the_server_of_the_fixture_serves(rheostat_server: LocalServer) -> None:
    rheostat_server.set("timeout", 2.0)
    with Client(rheostat_server.url) as client:
        assert client["timeout"] == 2.0


def run(*arguments: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_pytest_finds_the_plugin_by_its_entry_point() -> None:
    found = [entry.value for entry in entry_points(group="pytest11") if entry.name == "rheostat"]
    assert found == ["rheostat.testing.plugin"]


def test_the_plugin_imports_nothing_until_a_fixture_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import sys\n"
        "def test_what_is_imported():\n"
        "    found = {name for name in sys.modules if name.partition('.')[0] in {'rheostat', 'rheo', 'google'}}\n"
        "    assert found <= {'rheostat', 'rheostat.testing', 'rheostat.testing.plugin', 'google'}, found\n"
    )
    output = run("-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "test_it.py", cwd=tmp_path)
    assert "1 passed" in output


def test_a_project_of_users_has_the_fixtures_with_warnings_as_errors(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "from rheostat import Client\n"
        "def test_stub(rheostat_stub):\n"
        "    rheostat_stub['x'] = 1\n"
        "    assert rheostat_stub['x'] == 1\n"
        "def test_server(rheostat_server):\n"
        "    with Client(rheostat_server.url) as client:\n"
        "        assert client.ready\n"
    )
    output = run(
        "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "-n", "1", "test_it.py", cwd=tmp_path
    )
    assert "2 passed" in output


@pytest.mark.parametrize("name", ["StubClient", "AsyncStubClient", "LocalServer", "RecordedEvaluation"])
def test_the_package_has_its_names(name: str) -> None:
    import rheostat.testing as package

    assert name in dir(package)
    assert getattr(package, name).__name__ == name
    with pytest.raises(AttributeError, match="nonsense"):
        _ = package.nonsense
