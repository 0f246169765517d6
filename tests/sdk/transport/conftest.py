"""The servers that the tests of the transports talk to."""

from __future__ import annotations

import contextlib
import gc
import shutil
import socket
import subprocess
import zlib
from typing import TYPE_CHECKING

import pytest
import urllib3

from .peers import RawServer, serving, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from .peers import RawConnection, Served


@pytest.fixture
def served() -> Iterator[Served]:
    with serving() as running:
        yield running


@pytest.fixture
def raw_server() -> Iterator[Callable[[Callable[[RawConnection], None]], RawServer]]:
    servers: list[RawServer] = []

    def start(handle: Callable[[RawConnection], None]) -> RawServer:
        servers.append(RawServer(handle))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def gzip_bomb() -> bytes:
    """Some 254 KiB that unpack to 256 MiB."""
    packer = zlib.compressobj(9, wbits=31)
    zeros = bytes(1024 * 1024)
    packed = b"".join(packer.compress(zeros) for _ in range(256)) + packer.flush()
    assert len(packed) < 260 * 1024
    return packed


@pytest.fixture
def black_hole() -> Iterator[str]:
    """The URL of a server that never accepts: its queue is full, so that opening a connection hangs."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def served_with_tls(tmp_path: Path) -> Iterator[tuple[Served, str]]:
    """A server with a certificate that nobody trusts, and that certificate's path."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "certificate.pem")
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-nodes", "-days", "2", "-keyout", key, "-out", certificate),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    with serving(ssl_certfile=certificate, ssl_keyfile=key) as running:
        yield running, certificate
        # A server that is stopped under an open TLS connection leaves it behind, and urllib3 closes a pool's
        # connections when the last reference to it goes: also that of an error's traceback.
        gc.collect()
        wait_until(lambda: running.open_connections == 0)


@pytest.fixture
def pool() -> Iterator[urllib3.PoolManager]:
    """The caller's own pool: two connections, and whoever wants a third has to wait."""
    with urllib3.PoolManager(maxsize=2, block=True) as manager:
        yield manager
    # Connections that nobody closed are reported when they are collected: here, not in some later test.
    gc.collect()
