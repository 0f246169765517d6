"""The file that a relay starts from, and what is left beside it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from rheostat.relay.cache import RelayCache

KILLED = """
import os, signal, sys
from rheostat.relay.cache import RelayCache
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
os.fsync = die
for _ in range(3):
    pid = os.fork()
    if not pid:
        try:
            RelayCache(sys.argv[1]).write([])
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
"""


def test_nothing_stays_of_writes_whose_process_was_killed(tmp_path: Path) -> None:
    cache = RelayCache(tmp_path / "state")
    subprocess.run([sys.executable, "-c", KILLED, cache.path], check=True, timeout=60)
    # One at most, however often that happens: it has the key of the tokens in it.
    (left,) = tmp_path.iterdir()
    assert stat.S_IMODE(left.stat().st_mode) == 0o600
    assert cache.read() is None
    cache.write([])
    assert list(tmp_path.iterdir()) == [cache.path]
    assert cache.read() == []


def test_a_file_that_others_read_is_not_written_to(tmp_path: Path) -> None:
    cache = RelayCache(tmp_path / "state")
    draft = tmp_path / ".state.draft"
    draft.touch(0o644)
    with draft.open("rb") as reader:
        cache.write([])
        assert reader.read() == b""
    assert stat.S_IMODE(cache.path.stat().st_mode) == 0o600
    (tmp_path / "notes").write_text("mine")
    draft.symlink_to(tmp_path / "notes")
    cache.write([])
    assert not cache.path.is_symlink()
    assert (tmp_path / "notes").read_text() == "mine"


def test_the_name_is_on_the_disk_once_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = RelayCache(tmp_path / "state")
    synced: list[tuple[bool, bool]] = []
    sync = os.fsync

    def note(descriptor: int) -> None:
        synced.append((os.path.samestat(os.fstat(descriptor), tmp_path.stat()), cache.path.exists()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    cache.write([])
    # The content before it has its name, and the name after that.
    assert synced == [(False, False), (True, True)]


def test_a_write_that_fails_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = RelayCache(tmp_path / "state")
    cache.write([])
    before = cache.path.stat()

    def fail(descriptor: int) -> None:
        raise OSError(28, "no space")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        cache.write([])
    assert list(tmp_path.iterdir()) == [cache.path]
    assert os.path.samestat(cache.path.stat(), before)
