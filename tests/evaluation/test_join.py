from __future__ import annotations

import datetime

import pytest

from rheostat.evaluation import Context
from rheostat.evaluation.join import implied, join
from rheostat.model.subject import Membership, Subject, UsageCounter, UsagePeriod
from rheostat.model.value import ABSENT

NOW = datetime.datetime(2026, 3, 10, 12, tzinfo=datetime.UTC)


def subject(kind: str, name: str, **fields: object) -> Subject:
    return Subject(
        name.encode(),
        kind,
        **{"keys": {"id": name}, "traits": {}, "created_at": NOW, "updated_at": NOW, **fields},  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("event", ["login", "api.call", "a.b.c", "member_of"])
def test_what_was_never_counted_is_0_in_each_period(event: str) -> None:
    layer = join([subject("company", "acme")], NOW).layer
    for period in UsagePeriod:
        assert Context({}, layer).lookup(f"company.usage.{event}.{period.value}") == 0
    assert Context(layer).lookup(f"user.usage.{event}.day") is ABSENT


def test_a_counter_counts_until_its_period_ends() -> None:
    end = NOW + datetime.timedelta(hours=12)
    counters = (
        UsageCounter("api.call", UsagePeriod.DAY, 3, end),
        UsageCounter("api.call", UsagePeriod.ALL, 7),
    )
    acme = subject("company", "acme", counters=counters)
    joined = join([acme], NOW)
    assert joined.until == end.timestamp()
    assert Context(joined.layer).lookup("company.usage.api.call.day") == 3
    later = join([acme], end)
    assert later.until == float("inf")
    assert Context(later.layer).lookup("company.usage.api.call.day") == 0
    assert Context(later.layer).lookup("company.usage.api.call.all") == 7


def test_a_member_of_several_of_a_kind_brings_none_of_them() -> None:
    acme, globex = Membership(b"a", "company", {"id": "a"}), Membership(b"g", "company", {"id": "g"})
    assert implied([subject("user", "u", member_of=(acme,))]) == (b"a",)
    assert implied([subject("user", "u", member_of=(acme, globex))]) == ()
    assert implied([subject("user", "u", member_of=(acme,)), subject("company", "g")]) == ()
