"""`rheostat serve` and callers who keep it waiting, who have no end of headers, or who lack a certificate."""

from __future__ import annotations

import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path

import pytest

from tests.cli.conftest import Server

PATIENCE = 60.0

PING = b"POST /rheo.v1.ConfigService/Ping HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/proto\r\n"


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    seconds = [f"max_{name}_seconds=1" for name in ("header", "request", "idle")]
    options = (part for limit in seconds for part in ("--limit", limit))
    running = Server(tmp_path_factory.mktemp("strict"), *options)
    yield running
    running.stop()


def connected(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), PATIENCE)


def until_closed(connection: socket.socket) -> bytes:
    answer = b""
    while part := connection.recv(65536):
        answer += part
    return answer


@pytest.mark.parametrize(
    ("sent", "limit"),
    [
        (b"", ""),
        (b"\r\n", "max_header_seconds"),
        (b"P", "max_header_seconds"),
        (PING, "max_header_seconds"),
        (PING + b"content-length: 5\r\n\r\nab", "max_request_seconds"),
        (PING + b"transfer-encoding: chunked\r\n\r\n5\r\nab", "max_request_seconds"),
    ],
    ids=["nothing", "empty lines", "a letter", "half the headers", "half the body", "half a chunk"],
)
def test_a_request_that_does_not_go_on_is_ended_naming_the_limit(
    strict: Server, sent: bytes, limit: str
) -> None:
    started = time.monotonic()
    with connected(strict) as connection:
        connection.sendall(sent)
        answer = until_closed(connection)
    assert 0.9 < time.monotonic() - started < PATIENCE
    assert answer.startswith(b"HTTP/1.1 408 ") is bool(limit)
    assert limit.encode() in answer


def test_a_request_that_drips_has_no_more_time_than_one_that_stands_still(strict: Server) -> None:
    started = time.monotonic()
    with connected(strict) as connection:
        connection.settimeout(0.1)
        answer = b""
        for byte in PING * 10:
            try:
                connection.sendall(bytes([byte]))
                answer = connection.recv(65536)
                break
            except TimeoutError:
                continue
            except OSError:
                break
    assert 0.9 < time.monotonic() - started < PATIENCE
    assert b"max_header_seconds" in answer


def test_an_idle_connection_is_closed_and_a_watch_is_not(strict: Server) -> None:
    watch = HTTPConnection("127.0.0.1", strict.port, timeout=PATIENCE)
    headers = {"content-type": "application/connect+proto"}
    watch.request("POST", "/rheo.v1.ConfigService/Watch", b"\0\0\0\0\0", headers)
    stream = watch.getresponse()
    assert stream.status == 200
    with connected(strict) as idle:
        idle.sendall(PING + b"content-length: 0\r\n\r\n")
        started = time.monotonic()
        assert until_closed(idle).startswith(b"HTTP/1.1 200 ")
        assert 0.9 < time.monotonic() - started < PATIENCE
    with connected(strict) as other:
        other.sendall(b"P")
        until_closed(other)
    assert stream.read1(1), "more than twice the limit later it is open, and has what came first"
    assert not stream.isclosed()
    watch.close()


def test_headers_without_end_are_refused_naming_the_limit(make_server: Callable[..., Server]) -> None:
    server = make_server("--limit", "max_header_bytes=2000")
    with connected(server) as connection:
        connection.sendall(PING + b"x-more: " + b"a" * 3000)
        answer = until_closed(connection)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"max_header_bytes" in answer
    with connected(server) as connection:
        connection.sendall(
            PING + b"x-more: " + b"a" * 1000 + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        )
        assert until_closed(connection).startswith(b"HTTP/1.1 200 ")


def certify(folder: Path, name: str) -> tuple[str, str]:
    key, certificate = folder / f"{name}.key", folder / f"{name}.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-nodes", "-days", "2", "-keyout", key, "-out", certificate),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return str(certificate), str(key)


def test_over_tls_a_client_needs_a_certificate_where_authorities_are_given(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    certificate, key = certify(tmp_path, "server")
    theirs, their_key = certify(tmp_path, "client")
    server = make_server(
        *("--ssl-certfile", certificate, "--ssl-keyfile", key, "--ssl-client-ca", theirs),
    )
    assert server.url.startswith("https://")

    def healthy(context: ssl.SSLContext) -> bool:
        connection = HTTPSConnection("127.0.0.1", server.port, timeout=PATIENCE, context=context)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
        finally:
            connection.close()

    trusting = ssl.create_default_context(cafile=certificate)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        healthy(trusting)
    trusting.load_cert_chain(theirs, their_key)
    assert healthy(trusting)


def test_files_for_tls_that_are_unfit_are_told_before_the_port_is_bound(empty, tmp_path: Path) -> None:
    certificate, key = certify(tmp_path, "server")
    other, _ = certify(tmp_path, "other")
    start = ("serve", "--store", "memory:", "--port", "0")
    for cert, private, told in (
        (certificate, str(tmp_path / "none.pem"), "no file 'none.pem'"),
        (key, key, "PEM"),
        (certificate, other, "PEM"),
    ):
        result = empty.run(*start, "--ssl-certfile", cert, "--ssl-keyfile", private, code=1)
        assert told in result.stderr
        assert str(tmp_path) not in result.stderr
    assert "need TLS" in empty.run(*start, "--ssl-client-ca", certificate, code=1).stderr
