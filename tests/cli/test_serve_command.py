"""`rheostat serve`, `migrate`, `keys`, `version`: life of a server, first start, who may call."""

from __future__ import annotations

import json
import re
import signal
import socket
import time

from rheostat.store import migrate


def test_it_says_where_it_is_ready_and_writes_it_to_the_file(server):
    assert re.fullmatch(r"http://127\.0\.0\.1:[0-9]+", server.url)
    assert (server.folder / "ready").read_text() == f"{server.url}\n"
    assert "OPEN" in server.process.stderr


def test_it_ends_within_five_seconds_with_open_watches(make_server, empty):
    server = make_server()
    empty.env.update(RHEOSTAT_URL=server.url, RHEOSTAT_PROJECT="default")
    watching = empty.process("watch", "--json")
    try:
        watching.wait_for('"snapshot"')
        begun = time.monotonic()
        server.process.popen.send_signal(signal.SIGTERM)
        assert server.process.wait() == 0
        assert time.monotonic() - begun < 5.0
        assert not (server.folder / "ready").exists()
    finally:
        watching.end()


def test_json_says_url_and_process(empty, tmp_path):
    process = empty.process("serve", "--store", "memory:", "--port", "0", "--json")
    try:
        ready = json.loads(process.wait_for('"ready"'))
        assert (ready["event"], ready["pid"]) == ("ready", process.popen.pid)
        assert empty.json("version", "--url", ready["url"])["server"]["revision"] == 1
    finally:
        assert process.end() == 0


def test_another_address_without_keys_is_refused_with_what_to_do(empty, tmp_path):
    store = f"sqlite:{tmp_path / 'store.db'}"
    result = empty.run("serve", "--host", "0.0.0.0", "--port", "0", "--store", store, code=1)
    assert "rheostat keys create" in result.stderr


def test_another_address_without_tls_is_refused_unless_told(empty, tmp_path):
    store = f"sqlite:{tmp_path / 'store.db'}"
    empty.run("keys", "create", "--kind", "user", "--role", "admin", "--store", store, "--project", "default")
    result = empty.run("serve", "--host", "0.0.0.0", "--port", "0", "--store", store, code=1)
    assert "--ssl-certfile" in result.stderr and "--insecure" in result.stderr


def test_a_taken_port_is_one_clear_line(empty, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = empty.run("serve", "--port", port, "--store", "memory:", code=1)
    assert re.fullmatch(
        rf"Error: cannot listen on 127.0.0.1 port {port}: .+\n", result.stderr.splitlines(True)[-1]
    )


def test_a_store_that_cannot_be_opened_is_an_error(empty, tmp_path):
    error = empty.json("serve", "--port", "0", "--store", f"sqlite:{tmp_path / 'no' / 'store.db'}", code=1)
    assert error["error"]["reason"] == "STORE"


def test_an_unknown_limit_is_answered_with_all_names(empty):
    text = empty.run("serve", "--store", "memory:", "--limit", "max_stream=5", code=2).stderr
    assert "max_streams" in text
    assert "above 0" in empty.run("serve", "--store", "memory:", "--limit", "max_streams=x", code=2).stderr


def test_certificate_and_key_go_together(empty):
    assert "together" in empty.run("serve", "--ssl-certfile", "cert.pem", code=2).stderr


def test_migrate_makes_a_store_and_names_its_schema(empty, tmp_path):
    store = f"sqlite:{tmp_path / 'store.db'}"
    assert empty.json("migrate", "--store", store) == {"store": store, "schema": migrate(store)}
    assert (tmp_path / "store.db").exists()


def test_a_server_whose_store_has_keys_asks_for_one(make_server, empty):
    server = make_server()
    empty.env.update(RHEOSTAT_URL=server.url, RHEOSTAT_PROJECT="default")
    secret = empty.run("keys", "create", "--kind", "user", "--role", "editor").stdout.strip()
    assert secret.startswith("rst_user_")
    admin = empty.json("keys", "create", "--kind", "user", "--role", "admin", "--expires", "90d")
    assert admin["expires_at"] > admin["created_at"]
    server.stop()
    server.start()
    assert empty.json("list", code=4)["error"]["reason"] == "MISSING_KEY"
    assert empty.json("list", "--key", secret)["settings"] == []
    assert empty.json("keys", "list", "--key", secret, code=4)["error"]["reason"] == "PERMISSION_DENIED"
    listed = empty.json("keys", "list", "--key", admin["secret"])["keys"]
    assert {key["role"] for key in listed} == {"editor", "admin"}
    assert all("secret" not in key for key in listed)
    empty.run("keys", "revoke", secret.split("_")[2], "--key", admin["secret"])
    assert empty.json("list", "--key", secret, code=4)["error"]["reason"] == "REVOKED_KEY"


def test_the_first_key_can_be_made_without_a_server(empty, tmp_path):
    store = f"sqlite:{tmp_path / 'store.db'}"
    made = empty.json(
        *("keys", "create", "--kind", "server", "--store", store, "--project", "default"),
        *("--description", "checkout"),
    )
    assert made["secret"].startswith("rst_server_")
    assert made["environments"] == ["production"]
    assert "revoked" not in empty.run("version").stdout


def test_a_user_key_needs_a_role_and_others_have_none(empty):
    empty.run("keys", "create", "--kind", "user", code=2)
    empty.run("keys", "create", "--kind", "server", "--role", "admin", code=2)
    assert (
        "90d"
        in empty.run(
            "keys", "create", "--kind", "user", "--role", "admin", "--expires", "soon", code=2
        ).stderr
    )


def test_a_key_is_never_quoted_back(empty):
    text = empty.run("list", "--key", "rst_user_secret with_space", code=2).stderr
    assert "secret" not in text


def test_a_key_that_others_could_read_is_warned_about(empty):
    options = ("--key", "rst_user_x", "--timeout", "0.1")
    assert "not https" in empty.run("list", "--url", "http://rheostat.invalid:1", *options, code=3).stderr
    assert "not https" not in empty.run("list", *options, "--url", "http://127.0.0.1:1", code=3).stderr


def test_version_needs_no_server(empty):
    assert empty.json("version", "--url", "http://127.0.0.1:1")["server"] is None
    assert empty.json("version")["server"]["url"] == empty.url
