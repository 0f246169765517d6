"""What a node counts, as Prometheus reads it."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

from rheo.v1.config_service_pb2 import EvaluateRequest, PingRequest
from rheo.v1.watch_pb2 import WatchRequest
from rheostat.errors import UnavailableError
from rheostat.model.change import SetValue
from rheostat.model.key import KeyKind
from rheostat.server import asgi_app, wsgi_app
from rheostat.server.metrics import exposition
from rheostat.service import Service, Writer
from rheostat.service.access import OPEN
from rheostat.service.metric import Distribution
from rheostat.store import open_store
from tests.server.exchange import Asgi, Asked, Wsgi, asked
from tests.service.book import put

CONFIG = "rheo.v1.ConfigService/"


def scraped(service: Service) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What a scrape says now, by name and labels."""
    body, content_type = exposition(service, "text/plain")
    assert content_type.startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def value(service: Service, name: str, **labels: str) -> float:
    return scraped(service)[name, frozenset(labels.items())]


def test_a_distribution_counts_each_number_in_the_first_range_that_holds_it():
    distribution = Distribution((0.1, 1.0))
    for measured in (-5.0, 0.1, 0.5, 7.0):
        distribution.note(measured)
    distribution.note(1.0, times=3)
    assert distribution.shape.counts == (2, 4, 1)
    assert distribution.shape.total == pytest.approx(0.1 + 0.5 + 7.0 + 3.0)


def test_commits_and_where_the_node_stands_are_shown():
    with Service(open_store("memory:")) as service:
        before = service.head.revision
        service.commit(Writer(OPEN), "default", "production", [put("n", default=1)])
        service.commit(Writer(OPEN), "default", "production", [SetValue("n", 2)])
        assert value(service, "rheostat_commit_seconds_count") == 2
        assert value(service, "rheostat_commit_seconds_bucket", le="+Inf") == 2
        assert value(service, "rheostat_revision") == before + 2
        assert value(service, "rheostat_generation") == 1
        assert value(service, "rheostat_ready") == 1


def test_what_changes_nothing_is_no_commit():
    with Service(open_store("memory:")) as service:
        service.commit(Writer(OPEN), "default", "production", [put("n", default=1)], dry_run=True)
        assert value(service, "rheostat_commit_seconds_count") == 0


def test_a_store_that_is_away_is_counted(monkeypatch):
    with Service(open_store("memory:")) as service:

        def away(_):
            raise UnavailableError("the store is away")

        monkeypatch.setattr(service.store, "commit", away)
        with pytest.raises(UnavailableError):
            service.commit(Writer(OPEN), "default", "production", [put("n", default=1)])
        assert value(service, "rheostat_store_errors_total") == 1


def test_calls_are_counted_by_method_and_code_and_timed():
    with Service(open_store("memory:")) as service:
        call = Wsgi(wsgi_app(service, open=True))
        for _ in range(2):
            assert call(asked(f"{CONFIG}Ping", PingRequest())).code == "ok"
        assert call(asked(f"{CONFIG}Evaluate", EvaluateRequest(name="nothing"))).code == "not_found"
        assert call(asked(f"{CONFIG}Ping", b"\xff")).code == "invalid_argument"
        ping = f"{CONFIG}Ping"
        assert value(service, "rheostat_calls_total", method=ping, code="ok") == 2
        assert value(service, "rheostat_calls_total", method=ping, code="invalid_argument") == 1
        assert value(service, "rheostat_calls_total", method=f"{CONFIG}Evaluate", code="not_found") == 1
        assert value(service, "rheostat_call_seconds_count", method=ping) == 3


def get(app, *headers: tuple[bytes, bytes], method: str = "GET"):
    return Wsgi(app)(Asked("/metrics", b"", ((b"host", b"localhost"), *headers), method))


def test_an_open_node_shows_its_metrics_to_its_machine():
    with Service(open_store("memory:")) as service:
        answer = get(wsgi_app(service, open=True))
        assert answer.status == 200
        assert b"rheostat_watch_streams 0.0" in answer.body
        assert get(wsgi_app(service, open=True), method="POST").status == 405


def test_a_closed_node_shows_its_metrics_to_any_key_but_a_public_one():
    with Service(open_store("memory:")) as service:
        statuses = []
        for kind in (KeyKind.SERVER, KeyKind.PUBLIC):
            _, secret, _ = service.create_key(
                Writer(OPEN), kind=kind, project="default", environments=["production"]
            )
            statuses.append(get(wsgi_app(service), (b"authorization", f"Bearer {secret}".encode())).status)
        assert statuses == [200, 403]
        assert get(wsgi_app(service)).status == 401


def test_calls_without_a_good_key_are_counted():
    with Service(open_store("memory:")) as service:
        call = Wsgi(wsgi_app(service))
        assert call(asked(f"{CONFIG}Ping", PingRequest())).code == "unauthenticated"
        assert value(service, "rheostat_calls_total", method=f"{CONFIG}Ping", code="unauthenticated") == 1


@pytest.mark.parametrize("mount", ["asgi", "wsgi"])
def test_what_a_watch_is_sent_is_counted(mount: str):
    with Service(open_store("memory:")) as service:
        service.commit(Writer(OPEN), "default", "production", [put("n", default=1)])
        call = Asgi(asgi_app(service, open=True)) if mount == "asgi" else Wsgi(wsgi_app(service, open=True))

        def watch(resume: bytes = b"") -> bytes:
            request = asked(f"{CONFIG}Watch", WatchRequest(environment="production", resume=resume))
            answer = asyncio.run(call(request)) if mount == "asgi" else call(request)
            for event in reversed(answer.events()):
                for part in (event.snapshot_end, event.delta):
                    if part.position.token:
                        return part.position.token
            raise AssertionError(answer)

        token = watch()
        assert value(service, "rheostat_watch_snapshots_total", reason="NEW") == 1
        for number in range(2):
            service.commit(Writer(OPEN), "default", "production", [SetValue("n", 2 + number)])
        watch(token)
        assert value(service, "rheostat_watch_coalesced_total") == 1
        assert value(service, "rheostat_watch_streams") == 0


def test_a_node_that_has_not_begun_tells_so_and_reads_nothing():
    service = Service(open_store("memory:"))
    assert value(service, "rheostat_ready") == 0
    assert not service.started
    service.close()
