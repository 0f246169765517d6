"""`rheostat doctor`: whether a set-up works, and what to do where it does not."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import click
from connectrpc.errors import ConnectError

from rheo.v1 import admin_service_pb2 as admin
from rheo.v1 import change_pb2, config_service_pb2, draft_service_pb2, watch_pb2
from rheostat.cli.command import command
from rheostat.cli.connection import Connection
from rheostat.cli.failure import ExitCode
from rheostat.cli.option import Target, target_options
from rheostat.cli.output import Output
from rheostat.errors import AuthenticationError, PermissionDeniedError, RheostatError, UnavailableError
from rheostat.store.health import Finding, Verdict, examine_store

__all__ = ["doctor", "examine_server"]

_PINGS: Final = 5

_SLOW_PING: Final = 1.0
_SLOW_HELLO: Final = 3.0
_HELLO_SECONDS: Final = 10.0

_BOOKMARK_SECONDS: Final = 10.0
"""After two heartbeats."""

_SKEW: Final = datetime.timedelta(seconds=5)
"""Between two clocks. Keys, schedules and signatures are about seconds at best."""

_CERTIFICATE_DAYS: Final = 14
"""So many days before a certificate ends, a warning is due."""

_STYLES: Final = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "red"}

_NOBODY: Final = "rheostat-doctor-asks-for-nothing"
"""A name that nothing has: to ask for it shows what a key may, and changes nothing."""

_UNBUFFERED: Final = (
    "let no proxy buffer or end the answer of /rheo.v1.ConfigService/Watch (nginx: proxy_buffering off and a long "
    "proxy_read_timeout), or let clients poll"
)


@command(
    "doctor",
    examples=[
        ("rheostat doctor --url https://config.example.com -e production", "from the machine of a service"),
        (
            "rheostat doctor --store postgresql://rheostat@db.internal/shop --no-server",
            "whether a store is fit to be served",
        ),
    ],
    answer="""
    ok       true when nothing fails
    checks   [{check, verdict, message, fix}]; the verdict is ok, warn or fail, the fix may be empty
    """,
)
@click.option("--store", metavar="URL", help="Look at this store too, without the server.")
@click.option("--no-server", is_flag=True, help="Look at the store alone.")
@click.option("--quick", is_flag=True, help="Do not wait for the bookmark that a quiet stream brings.")
@target_options()
def doctor(store: str | None, no_server: bool, quick: bool, target: Target, output: Output) -> int:
    """Say whether a set-up works, and what to do where it does not.

    Of the server: its address, certificate, version, clock and time to answer, what the key may, and whether a stream
    arrives as it is sent. Of a store: schema, generation, integrity, and of a database whether hints are heard.
    Nothing is changed. Warnings are no failure; the exit code is 1 when a check fails.
    """
    if no_server and store is None:
        raise click.UsageError("--no-server leaves nothing to look at without --store")
    findings: list[Finding] = []

    def note(found: Iterator[Finding]) -> None:
        for finding in found:
            findings.append(finding)
            if not output.json:
                _print(output, finding)

    if not no_server:
        note(examine_server(target, wait_for_bookmark=not quick))
    if store is not None:
        note(examine_store(store, _utc_now()))
    failed = any(finding.verdict is Verdict.FAIL for finding in findings)
    if output.json:
        output.answer(
            {
                "ok": not failed,
                "checks": [
                    {
                        "check": finding.check,
                        "verdict": finding.verdict.value,
                        "message": finding.message,
                        "fix": finding.fix,
                    }
                    for finding in findings
                ],
            }
        )
    return ExitCode.FAILED if failed else ExitCode.OK


def examine_server(
    target: Target,
    *,
    wait_for_bookmark: bool = True,
    now: Callable[[], datetime.datetime] | None = None,
) -> Iterator[Finding]:
    """Look at a server as a client sees it; yields what is found as it is found.

    Args:
        target: Server, key, project and environment.
        wait_for_bookmark: Wait for the first sign of life of a quiet stream, for up to two heartbeats.
        now: This machine's clock, aware.
    """
    address = _address(target)
    yield address
    if address.verdict is Verdict.FAIL:
        return
    yield _transport(target)
    with Connection(target) as connection:
        try:
            answers = [_ping(connection, now or _utc_now) for _ in range(_PINGS)]
        except RheostatError as exc:
            yield _refused("server", exc)
            return
        yield from _about_answers(answers)
        place = _place(connection, target)
        if place is not None:
            yield place
            if place.verdict is Verdict.FAIL:
                return
        yield from _permissions(connection, target)
        yield from _stream(connection, target, wait_for_bookmark=wait_for_bookmark)


def _address(target: Target) -> Finding:
    parts = urlsplit(target.url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    try:
        entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        # A name with an empty part cannot even be asked for.
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        return Finding(
            "address", Verdict.FAIL, f"the name {host!r} does not resolve: {reason}", "check --url"
        )
    found = sorted({str(entry[4][0]) for entry in entries})
    return Finding("address", Verdict.OK, f"{host} is {', '.join(found)}, port {port}")


def _transport(target: Target) -> Finding:
    parts = urlsplit(target.url)
    if parts.scheme != "https":
        if target.is_loopback:
            return Finding("tls", Verdict.OK, "none, and nothing leaves this machine")
        what = "the key and all values" if target.key else "all values"
        return Finding("tls", Verdict.WARN, f"none: others can read {what} on their way", "use https")
    host = parts.hostname or ""
    try:
        with (
            socket.create_connection((host, parts.port or 443), timeout=target.timeout) as connected,
            ssl.create_default_context().wrap_socket(connected, server_hostname=host) as wrapped,
        ):
            version, certificate = wrapped.version(), wrapped.getpeercert() or {}
    except ssl.SSLCertVerificationError as exc:
        return Finding(
            "tls",
            Verdict.FAIL,
            f"the certificate is not trusted: {exc.verify_message}",
            "name the file of your own authority in SSL_CERT_FILE",
        )
    except OSError as exc:
        return Finding("tls", Verdict.FAIL, f"no connection: {exc.strerror or exc}", "check --url")
    ends = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    days = int((ends - time.time()) // 86400)
    if days < _CERTIFICATE_DAYS:
        return Finding("tls", Verdict.WARN, f"{version}; the certificate ends in {days} days", "renew it")
    return Finding("tls", Verdict.OK, f"{version}; the certificate is good for {days} days")


def _ping(
    connection: Connection, now: Callable[[], datetime.datetime]
) -> tuple[float, datetime.timedelta, config_service_pb2.PingResponse]:
    """Return the seconds that a call took, by how much the server's clock is ahead, and its answer."""
    before, began = now(), time.monotonic()
    answer = connection.call(connection.config.ping, config_service_pb2.PingRequest())
    seconds = time.monotonic() - began
    middle = before + datetime.timedelta(seconds=seconds / 2)
    return seconds, answer.time.ToDatetime(datetime.UTC) - middle, answer


def _about_answers(
    answers: Sequence[tuple[float, datetime.timedelta, config_service_pb2.PingResponse]],
) -> Iterator[Finding]:
    from importlib.metadata import version

    newest = answers[-1][2]
    own = version("rheostat")
    message = (
        f"{newest.node}, version {newest.version}, generation {newest.generation}, revision {newest.revision}"
    )
    if newest.version != own:
        yield Finding(
            "server",
            Verdict.WARN,
            f"{message}; this program is version {own}",
            "nothing, unless something that is missing there is needed",
        )
    else:
        yield Finding("server", Verdict.OK, message)
    median = statistics.median(seconds for seconds, _, _ in answers)
    # The first call opens the connection.
    verdict, fix = (Verdict.WARN, "look for what is between") if median > _SLOW_PING else (Verdict.OK, "")
    yield Finding("latency", verdict, f"a call takes {median * 1000:.1f} ms", fix)
    _, skew, _ = min(answers, key=lambda answer: answer[0])
    shown = f"{abs(skew).total_seconds():.1f} s {'ahead of' if skew > datetime.timedelta() else 'behind'}"
    if abs(skew) > _SKEW:
        yield Finding(
            "clock",
            Verdict.WARN,
            f"the server's is {shown} this one",
            "set both by NTP: keys end by the clock",
        )
    else:
        yield Finding("clock", Verdict.OK, f"the server's is {shown} this one")


def _place(connection: Connection, target: Target) -> Finding | None:
    """Look at what the key is for; None when it may not ask: its programs learn it from the stream."""
    request = admin.GetEnvironmentRequest(project=target.project, environment=target.environment)
    try:
        connection.call(connection.admin.get_environment, request)
        return Finding(
            "place", Verdict.OK, f"project {connection.project}, environment {connection.environment}"
        )
    except RheostatError as exc:
        if exc.reason == "ON_RELAY":
            upstream = exc.metadata.get("upstream", "its upstream")
            return Finding("place", Verdict.OK, f"a relay, which serves programs; people ask {upstream}")
        return None if exc.reason == "PERMISSION_DENIED" else _refused("place", exc)


def _permissions(connection: Connection, target: Target) -> Iterator[Finding]:
    project, environment = target.project, target.environment
    # Each is refused for what it asks, or for the key: nothing is changed in either case.
    calls: tuple[tuple[str, Any, Any], ...] = (
        (
            "watch",
            connection.config.get_snapshot,
            config_service_pb2.GetSnapshotRequest(project=project, environment=environment, page_size=1),
        ),
        (
            "evaluate",
            connection.config.evaluate,
            config_service_pb2.EvaluateRequest(project=project, environment=environment, name=_NOBODY),
        ),
        (
            "view",
            connection.admin.list_settings,
            admin.ListSettingsRequest(project=project, environment=environment, page_size=1),
        ),
        (
            "edit",
            connection.admin.commit,
            admin.CommitRequest(
                project=project,
                environment=environment,
                dry_run=True,
                mutations=[change_pb2.Mutation(delete_setting=change_pb2.DeleteSetting(name=_NOBODY))],
            ),
        ),
        (
            "approve",
            connection.drafts.approve_draft,
            draft_service_pb2.ApproveDraftRequest(project=project, id=_NOBODY, version=1),
        ),
        ("administer", connection.admin.list_keys, admin.ListKeysRequest(project=project, page_size=1)),
    )
    may, may_not = [], []
    for name, rpc, request in calls:
        try:
            connection.call(rpc, request)
        except AuthenticationError as exc:
            yield _refused("key", exc)
            return
        except PermissionDeniedError as exc:
            if exc.reason != "PERMISSION_DENIED":
                yield _refused("key", exc)
                return
            may_not.append(name)
        except UnavailableError:
            # Neither refused nor let through, as by a relay that is cut off.
            continue
        except RheostatError as exc:
            if exc.reason != "ON_RELAY":
                may.append(name)
        else:
            may.append(name)
    whose = "the key may" if target.key else "without a key, everybody may"
    refused = f", and not {', '.join(may_not)}" if may_not else ""
    yield Finding("key", Verdict.OK, f"{whose} {', '.join(may) or 'nothing'}{refused}")


def _stream(connection: Connection, target: Target, *, wait_for_bookmark: bool) -> Iterator[Finding]:
    request = watch_pb2.WatchRequest(project=target.project, environment=target.environment)
    connection.wait_at_most(_HELLO_SECONDS)
    began = time.monotonic()
    hello: watch_pb2.Hello | None = None
    try:
        stream = connection.config.watch(request, headers=connection.headers, timeout_ms=None)
        with contextlib.closing(stream):  # type: ignore[type-var]  # a generator, says the runtime otherwise
            for message in stream:
                waited = time.monotonic() - began
                event = message.WhichOneof("event")
                if event == "hello":
                    hello = message.hello
                    heartbeat = hello.heartbeat.ToTimedelta().total_seconds()
                    connection.wait_at_most(2 * heartbeat + _BOOKMARK_SECONDS)
                    yield _about_hello(hello, waited)
                elif event == "snapshot_end":
                    yield Finding(
                        "snapshot",
                        Verdict.OK,
                        f"{message.snapshot_end.item_count} items at revision "
                        f"{message.snapshot_end.position.revision}, after {waited * 1000:.0f} ms",
                    )
                    if not wait_for_bookmark:
                        return
                elif event in {"bookmark", "delta"}:
                    # A change proves as much as the sign of life that comes without one.
                    yield Finding("bookmark", Verdict.OK, f"a sign of life came after {waited:.1f} s")
                    return
                elif event == "go_away":
                    break
        yield Finding("stream", Verdict.WARN, "the server ended the stream, perhaps to restart", "try again")
    except ConnectError as exc:
        error = connection.translated(exc)
        if hello is None and isinstance(error, PermissionDeniedError):
            yield Finding(
                "stream", Verdict.WARN, f"not tried: {error.message}", "use the key of a service to try it"
            )
            return
        what = "no stream begins" if hello is None else "the stream came to nothing after its beginning"
        yield Finding("stream", Verdict.FAIL, f"{what}: {error.message}", _UNBUFFERED)


def _about_hello(hello: watch_pb2.Hello, waited: float) -> Finding:
    what = f"the first message of {hello.environment} in {hello.project} came after {waited * 1000:.0f} ms"
    if waited > _SLOW_HELLO:
        return Finding("stream", Verdict.WARN, f"{what}, as if it were held back", _UNBUFFERED)
    return Finding("stream", Verdict.OK, what)


def _refused(check: str, error: RheostatError) -> Finding:
    fixes = {
        "MISSING_KEY": "set RHEOSTAT_KEY",
        "BAD_KEY": "check RHEOSTAT_KEY: it begins with rst_ and was shown once, when it was made",
        "EXPIRED_KEY": "make a new key: `rheostat keys rotate`, or `keys create`",
        "REVOKED_KEY": "make a new key: `rheostat keys create`",
        "NOT_LOCAL": "an open server answers its own machine only: create a key there, and start it anew",
        "ENVIRONMENT_REQUIRED": "name it with --environment or RHEOSTAT_ENVIRONMENT",
        "UNKNOWN_ENVIRONMENT": "check --environment, and which environments the key is for",
        "UNKNOWN_PROJECT": "check --project, and which project the key is for",
        "UNREACHABLE": "start the server, or check --url and what is between",
    }
    return Finding(check, Verdict.FAIL, error.message.splitlines()[0], fixes.get(error.reason, ""))


def _print(output: Output, finding: Finding) -> None:
    from rich.text import Text

    line = Text.assemble(
        (f"{finding.verdict.value:<5}", _STYLES[finding.verdict]), f"{finding.check:<11}", finding.message
    )
    output.print(line)
    if finding.fix:
        output.print(f"{'':16}→ {finding.fix}")
    # Some checks take seconds.
    output.flush()


def _utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
