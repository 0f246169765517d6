"""`rheostat usage`: what was told of exposures and events."""

from __future__ import annotations

import json

from rheo.v1 import event_service_pb2 as event
from rheo.v1.subject_pb2 import SubjectReference
from rheostat.cli.connection import Connection
from rheostat.cli.option import Target


def test_it_counts_what_was_told_by_setting_variant_and_revision(cli):
    assert cli.json("usage") == {"exposures": []}
    assert "no exposures" in cli.run("usage").output
    subject = SubjectReference(kind="company", keys={"id": "acme"})
    events = [
        event.Event(
            idempotency_key=f"x{variant}",
            exposure={"setting": "theme", "variant": variant, "revision": 2, "count": count, "rule_id": "r"},
        )
        for variant, count in (("on", 3), ("off", 1))
    ]
    events += [event.Event(idempotency_key="t", subjects=[subject], track={"name": "login", "quantity": 4})]
    target = Target(url=cli.url, project=cli.project)
    with Connection(target) as connection:
        request = event.RecordEventsRequest(project=cli.project, events=events)
        assert connection.call(connection.events.record_events, request).accepted == 3
    counts = {each["variant"]: each["count"] for each in cli.json("usage", "theme")["exposures"]}
    assert counts == {"on": 3, "off": 1}
    assert json.loads(cli.run("usage", "greeting", "--format", "json").stdout) == {"exposures": []}
    lines = cli.run("usage", "--format", "ndjson").stdout.splitlines()
    assert [json.loads(line)["variant"] for line in lines] == ["off", "on"]
    (counted,) = cli.json("usage", "--events", "--since", "1d")["events"]
    assert (counted["event"], counted["events"], counted["quantity"]) == ("login", 1, 4)
    assert cli.json("usage", "--events", "--until", "2d") == {"events": []}
    assert "login" in cli.run("usage", "--events").stdout
    assert "either" in cli.run("usage", "theme", "--events", code=2).output
