"""`rheostat store` and `rheostat restore`: stores that are moved, and backups that are put back."""

from __future__ import annotations

import datetime
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from rheo.v1 import watch_pb2
from rheo.v1.config_service_connect import ConfigServiceClientSync
from rheostat.cli.root import root
from rheostat.service.access import Principal
from rheostat.store import open_store
from rheostat.testing import LocalServer
from tests.cli.conftest import CLEAN, DOCUMENT, Cli
from tests.service.replica import Replica
from tests.store.contract import put


def run(*arguments: str, code: int = 0) -> Any:
    """Run a command that needs no server; return its JSON answer, or error."""
    result = CliRunner().invoke(root, [*arguments, "--json"], env=CLEAN)
    assert result.exit_code == code, result.output
    return json.loads(result.stdout if code == 0 else result.stderr)


def text(*arguments: str, code: int = 0) -> tuple[str, str]:
    """Run a command that needs no server; return what it prints to both outputs."""
    result = CliRunner().invoke(root, arguments, env=CLEAN)
    assert result.exit_code == code, result.output
    return result.stdout, result.stderr


@contextmanager
def serving(store: Path) -> Iterator[tuple[LocalServer, Cli]]:
    with LocalServer(str(store), project="shop") as server:
        yield server, Cli(server.url, "shop", store.parent)


def watch(server: LocalServer, replica: Replica) -> watch_pb2.Hello:
    """Let a plain client take part until it has everything, and then leave."""
    replica.connect()
    generation = server.service.head.identity.generation
    client = ConfigServiceClientSync(server.url)
    request = watch_pb2.WatchRequest(project="shop", environment="production", resume=replica.token)
    with closing(client.watch(request, timeout_ms=30_000)) as stream:  # type: ignore[type-var]
        for message in stream:
            replica.feed(message.SerializeToString())
            if replica.position is not None and replica.at == (generation, server.revision):
                break
    assert replica.hello is not None
    return replica.hello


def shown(cli: Cli) -> dict[str, Any]:
    """What people see of a project."""
    return {
        "export": cli.run("export").stdout,
        "history": cli.json("history", "--limit", "100", "--patch"),
        "keys": cli.json("keys", "list"),
        "drafts": cli.json("drafts", "list"),
    }


def test_a_moved_store_shows_the_same_and_clients_go_on_in_a_new_generation(tmp_path: Path) -> None:
    first, second = tmp_path / "first.db", tmp_path / "second.db"
    replica = Replica()
    with serving(first) as (server, cli):
        cli.apply(DOCUMENT.format(project="shop"))
        selector = cli.json("keys", "create", "--kind", "server", "-e", "production")["selector"]
        cli.run("set", "theme", "dark", "-e", "production", "--draft")
        cli.run("set", "greeting", "hey", "-e", "production")
        cli.run("subjects", "set", "company", "id=acme", "-e", "production")
        before = shown(cli)
        assert watch(server, replica).reason == watch_pb2.SNAPSHOT_REASON_NEW
        revision = server.revision
    assert "1 subjects" in text("store", "copy", str(first), str(tmp_path / "third.db"))[1]
    answer = run("store", "copy", f"sqlite:{first}", str(second))
    assert answer == {
        "source": f"sqlite:{first}",
        "destination": str(second),
        "revision": revision,
        "generation": 2,
        "change_sets": revision,
        "subjects": 1,
        "missed": 0,
        **{name: answer[name] for name in ("items", "records", "seconds")},
    }
    with serving(second) as (server, cli):
        after = shown(cli)
        assert after == before
        key = server.service.head.state.keys[selector]
        assert server.service.key_in_force(Principal(key))
        # The token is understood, and is one of a generation that is over.
        hello = watch(server, replica)
        assert hello.reason == watch_pb2.SNAPSHOT_REASON_GENERATION
        assert replica.at == (2, revision)
        cli.run("set", "greeting", "hello again", "-e", "production")
        assert watch(server, replica).mode == watch_pb2.WATCH_MODE_DELTA
        assert replica.at == (2, revision + 1)
        # A draft of the source is published in the copy.
        cli.run("publish", after["drafts"]["drafts"][0]["id"])


def test_what_a_store_is_can_be_seen_without_a_server(tmp_path: Path) -> None:
    first, second = tmp_path / "first.db", tmp_path / "second.db"
    store = open_store(str(first))
    put(store, "a")
    identity = store.identity()
    store.close()
    run("store", "copy", str(first), str(second))
    found = run("store", "show", "--store", str(second))
    (beginning,) = found.pop("generations")
    assert found == {
        "store": str(second),
        "schema": found["schema"],
        "store_id": identity.store_id.hex(),
        "revision": 1,
        "floor": 0,
        "items": 1,
        "records": 1,
        "generation": 2,
    }
    began_at = datetime.datetime.fromisoformat(beginning.pop("began_at"))
    assert (
        datetime.timedelta() <= datetime.datetime.now(datetime.UTC) - began_at < datetime.timedelta(hours=1)
    )
    assert beginning == {"generation": 2, "revision": 1, "cause": f"copied from {first}"}
    printed, _ = text("store", "show", "--store", str(second))
    assert f"{second}: revision 1, generation 2" in printed
    assert f"copied from {first}" in printed
    printed, _ = text("store", "show", "--store", str(first))
    assert "generation 1" in printed
    assert "because" not in printed


def test_a_copy_says_how_fast_it_was_and_what_it_has_missed(tmp_path: Path, monkeypatch) -> None:
    first = tmp_path / "first.db"
    store = open_store(str(first))
    put(store, "a")
    printed, noted = text("store", "copy", str(first), str(tmp_path / "second.db"))
    assert printed == f"copied {first} to {tmp_path / 'second.db'}: revision 1, generation 2\n"
    assert "1 change-sets in " in noted
    assert "warning" not in noted
    from rheostat.store import copy

    looking_at = copy.looking_at
    looks = []

    def commit_before_the_second_look(url: str) -> Any:
        looks.append(url)
        if len(looks) == 2:
            put(store, "b")
        return looking_at(url)

    monkeypatch.setattr(copy, "looking_at", commit_before_the_second_look)
    _, noted = text("store", "copy", str(first), str(tmp_path / "third.db"))
    assert "warning: 1 change-sets came to the source meanwhile and are not in the copy" in noted
    store.close()


def test_a_terminal_shows_how_far_a_copy_has_got(tmp_path: Path) -> None:
    open_store(str(tmp_path / "first.db")).close()
    command = [sys.executable, "-m", "rheostat.cli", "store", "copy", "first.db", "second.db"]
    leader, follower = pty.openpty()
    try:
        done = subprocess.run(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=follower, check=False, timeout=60
        )
    finally:
        os.close(follower)
    seen = b""
    while chunk := _read(leader):
        seen += chunk
    os.close(leader)
    assert done.returncode == 0, seen
    assert b"copying" in seen
    assert done.stdout == b"copied first.db to second.db: revision 0, generation 2\n"


def _read(leader: int) -> bytes:
    try:
        return os.read(leader, 65536)
    except OSError:
        # How Linux says that the other end is closed.
        return b""


def test_refuses_a_destination_that_holds_something_and_names_no_password(tmp_path: Path) -> None:
    first, second = tmp_path / "first.db", tmp_path / "second.db"
    for path in (first, second):
        open_store(str(path)).close()
    error = run("store", "copy", str(first), str(second), code=1)["error"]
    assert error["reason"] == "STORE_NOT_EMPTY"
    assert "second.db" in error["message"]
    error = run("store", "copy", str(tmp_path / "absent.db"), str(tmp_path / "x.db"), code=1)["error"]
    assert error["message"] == f"there is no store '{tmp_path / 'absent.db'}'"
    unreachable = "postgresql://ada:s3cret@127.0.0.1:1/shop"
    error = run("store", "copy", str(first), unreachable, code=3)["error"]
    assert error["reason"] == "STORE_AWAY"
    assert "s3cret" not in error["message"]


def test_a_backup_put_back_makes_every_client_forget_what_was_lost(tmp_path: Path) -> None:
    path, saved = tmp_path / "store.db", tmp_path / "backup.db"
    replica = Replica()
    with serving(path) as (server, cli):
        cli.apply(DOCUMENT.format(project="shop"))
        kept = server.revision
        # While the server runs.
        answer = run("store", "backup", f"sqlite:{path}", str(saved))
        assert answer == {"source": f"sqlite:{path}", "file": str(saved), "revision": kept}
        assert saved.stat().st_mode & 0o777 == 0o600
        assert [name.name for name in tmp_path.glob("backup*")] == ["backup.db"]
        cli.run("set", "greeting", "lost", "-e", "production")
        watch(server, replica)
        assert '"lost"' in replica.items["setting", "greeting"]
    for left in tmp_path.glob("store.db*"):
        if left.is_file():
            left.unlink()
    saved.rename(path)
    assert run("restore", "--store", str(path)) == {
        "store": str(path),
        "revision": kept,
        "previous_generation": 1,
        "generation": 2,
    }
    with serving(path) as (server, cli):
        # The same revision again, with another content: without a new generation nobody could tell.
        cli.run("set", "greeting", "new", "-e", "production")
        assert server.revision == kept + 1
        assert watch(server, replica).reason == watch_pb2.SNAPSHOT_REASON_GENERATION
        assert '"new"' in replica.items["setting", "greeting"]
        assert replica.at == (2, kept + 1)


def test_a_generation_begins_above_one_that_others_have_seen(tmp_path: Path) -> None:
    path = str(tmp_path / "store.db")
    open_store(path).close()
    assert run("restore", "--store", path, "--above", "7")["generation"] == 8
    printed, noted = text("restore", "--store", path, "--above", "3")
    assert printed == f"{path} is in generation 9 now, after 8; its newest revision is 0\n"
    assert "every client gets a snapshot" in noted
    causes = [each["cause"] for each in run("store", "show", "--store", path)["generations"]]
    assert causes == ["rheostat restore: a backup was put in place"] * 2


def test_a_store_that_is_not_there_is_not_made_by_restoring_it(tmp_path: Path) -> None:
    error = run("restore", "--store", str(tmp_path / "absent.db"), code=1)["error"]
    assert "there is no store" in error["message"]
    assert not list(tmp_path.iterdir())
    assert "no other can reach it" in run("restore", "--store", "memory:", code=1)["error"]["message"]
