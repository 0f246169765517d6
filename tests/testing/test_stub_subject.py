"""Stubs know the subjects that a test has stored, and remember what was told."""

from __future__ import annotations

import asyncio

import pytest

from rheostat import InvalidArgumentError, Reason
from rheostat.testing import AsyncStubClient, RecordedEvent, RecordedIdentity, StubClient


def _stub() -> StubClient:
    stub = StubClient({"beta": False, "limit": 1})
    stub.set_rules("beta", [('user.plan == "pro"', True), ("company.usage.call.month >= 3", True)])
    return stub


def test_a_check_joins_what_the_test_has_stored() -> None:
    stub = _stub()
    stub.set_subject("user", {"id": "u1"}, {"plan": "pro"})
    stub.set_subject("company", {"id": "c1"}, usage={"call": 2})
    assert stub.check("beta", user={"id": "U1"}) is True
    assert stub.check("beta", company={"id": "c1"}) is False
    assert stub.check("beta", company={"id": "c1"}, plus={"call": 1}) is True
    stub.track("call", company={"id": "c1"})
    assert stub.check("beta", company={"id": "c1"}) is True
    assert stub.get("beta", user={"id": "u1"}) is True
    stub.set_subject("user", {"id": "u1"}, {"plan": "free"})
    assert stub.check("beta", user={"id": "u1"}) is False


def test_a_subject_that_is_stored_again_has_the_usage_that_is_given() -> None:
    stub = _stub()
    stub.set_subject("company", {"id": "c1"})
    stub.track("call", quantity=2, company={"id": "c1"})
    stub.set_subject("company", {"id": "c1"}, usage={"call": 2})
    assert stub.check("beta", company={"id": "c1"}) is False
    stub.track("call", company={"id": "c1"})
    assert stub.check("beta", company={"id": "c1"}) is True


def test_an_event_stores_the_subjects_that_it_names() -> None:
    stub = _stub()
    stub.track("call", quantity=3, company={"id": "c1"}, user={"id": "u1"})
    found = stub.check_details("beta", company={"id": "c1"})
    assert (found.value, found.note) == (True, "")


def test_who_was_not_stored_is_noted() -> None:
    found = _stub().check_details("beta", user={"id": "nobody"})
    assert (found.value, found.reason) == (False, Reason.DEFAULT)
    assert "not stored" in found.note


def test_overrides_and_memberships_are_those_of_the_subject() -> None:
    stub = _stub()
    stub.set_subject("company", {"id": "c1"}, overrides={"beta": True, "limit": 7})
    stub.set_subject("user", {"id": "u1"}, member_of={"company": {"id": "c1"}})
    assert stub.check("beta", user={"id": "u1"}) is True
    assert stub.get("limit", company={"id": "c1"}) == 7
    with pytest.raises(InvalidArgumentError, match="no company"):
        stub.set_subject("user", {"id": "u2"}, member_of={"company": {"id": "unheard"}})


def test_what_was_told_is_recorded() -> None:
    stub = _stub()
    stub.identify("user", {"id": "u1"}, {"plan": "pro", "old": None})
    stub.track("call", quantity=2, attributes={"path": "/"}, user={"id": "u1"})
    stub.track("no such name")
    assert stub.events == [RecordedEvent("call", 2, {"path": "/"}, {"user": {"id": "u1"}})]
    assert stub.identities == [RecordedIdentity("user", {"id": "u1"}, {"plan": "pro", "old": None})]
    assert (stub.flush(), stub.events_dropped) == (True, 1)
    assert stub.check("beta", user={"id": "u1"}) is True
    (exposure,) = stub.exposures
    assert (exposure.setting, exposure.value, exposure.subjects) == ("beta", True, {"user": {"id": "u1"}})
    assert [each.name for each in stub.evaluations] == ["beta"]
    scoped = stub.with_context(region="eu")
    assert scoped.check("beta", user={"id": "u1"}) is True
    assert len(stub.exposures) == 2
    stub.clear()
    assert (stub.events, stub.identities, stub.exposures) == ([], [], [])


def test_the_stub_for_asyncio_does_the_same() -> None:
    async def run() -> None:
        stub = AsyncStubClient({"beta": False})
        stub.set_rules("beta", [('user.plan == "pro"', True)])
        stub.set_subject("user", {"id": "u1"}, {"plan": "pro"})
        stub.track("call", user={"id": "u1"})
        assert await stub.check("beta", user={"id": "u1"}) is True
        assert await stub.check_all(user={"id": "u1"}) == {"beta": True}
        assert (await stub.check_details("beta", user={"id": "u2"})).note
        assert await stub.flush() is True
        assert len(stub.events) == 1
        assert len(stub.exposures) == 3
        await stub.close()

    asyncio.run(run())
