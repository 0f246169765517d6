"""Flags for stored subjects: what is known of those that a context names joins, as it does in checks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from openfeature import api
from openfeature.evaluation_context import EvaluationContext

from rheo.v1.event_service_pb2 import SubjectUpsert, UpsertSubjectsRequest
from rheo.v1.subject_pb2 import SubjectReference
from rheo.v1.value_pb2 import Value
from rheostat import AsyncClient, Client
from rheostat.openfeature import AsyncRheostatProvider, RheostatProvider
from rheostat.testing import LocalServer
from tests.e2e.process import PATIENCE

OPTIONS: dict[str, Any] = {"start_timeout": PATIENCE, "subject_timeout": PATIENCE, "timeout": PATIENCE}


@pytest.fixture(autouse=True)
def _forget_the_provider() -> Iterator[None]:
    yield
    api.shutdown()


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    def ruled(where: str) -> dict[str, object]:
        rules = [{"id": "r", "where": where, "value": "yes"}]
        return {"type": "str", "default": "no", "environments": {"production": {"rules": rules}}}

    with LocalServer() as server:
        server.apply(
            {
                "settings": {
                    "user-flag": ruled('user.plan == "pro"'),
                    "company-flag": ruled("company.seats > 5"),
                }
            }
        )
        with Client(server.url) as client:
            client.call("UpsertSubjects", UpsertSubjectsRequest(subjects=SUBJECTS)).unwrap()
        yield server


def subject(kind: str, keys: dict[str, str], traits: dict[str, Value]) -> SubjectUpsert:
    return SubjectUpsert(reference=SubjectReference(kind=kind, keys=keys), traits=traits)


SUBJECTS = [
    subject("user", {"id": "u1", "email": "ada@example.com"}, {"plan": Value(string_value="pro")}),
    subject("user", {"id": "u2"}, {"plan": Value(string_value="free")}),
    subject("company", {"id": "acme"}, {"seats": Value(int_value=9)}),
]


CASES = [
    ("user-flag", EvaluationContext("u1"), "yes"),
    ("user-flag", EvaluationContext("U1"), "yes"),
    ("user-flag", EvaluationContext("u2"), "no"),
    ("user-flag", EvaluationContext("nobody"), "no"),
    ("user-flag", EvaluationContext(attributes={"user.id": "u1"}), "yes"),
    ("user-flag", EvaluationContext(attributes={"user": {"email": "ada@example.com"}}), "yes"),
    # What the call says wins over what is stored.
    ("user-flag", EvaluationContext("u1", {"user": {"plan": "free"}}), "no"),
    ("company-flag", EvaluationContext("u1", {"company": {"id": "acme"}}), "yes"),
    ("company-flag", EvaluationContext("u1", {"company.id": "acme"}), "yes"),
    ("company-flag", EvaluationContext("u1"), "no"),
    ("company-flag", None, "no"),
]
KEYS = ["user.id", "user.email", "company.id"]


def test_stored_subjects_that_a_context_names_are_fetched(server: LocalServer) -> None:
    for key, context, value in CASES:
        # Each time by a client that has nothing at hand.
        provider = RheostatProvider(server.url, subject_keys=KEYS, fetch_subjects=True, **OPTIONS)
        api.set_provider_and_wait(provider)
        found = api.get_client().get_string_details(key, "", context)
        assert (found.value, found.error_code) == (value, None), (key, context)
        unknown = context is not None and context.targeting_key == "nobody"
        assert ("note" in found.flag_metadata) == unknown
        # At hand now, and the same.
        assert api.get_client().get_string_details(key, "", context) == found


def test_asynchronous_evaluation_awaits_them(server: LocalServer) -> None:
    async def main() -> None:
        for key, context, value in CASES:
            async with AsyncClient(server.url, **OPTIONS) as client:
                provider = AsyncRheostatProvider(client, subject_keys=KEYS, fetch_subjects=True)
                api.set_provider_and_wait(provider)
                flags = api.get_client()
                if (key, context) == ("user-flag", EvaluationContext("u1")):
                    # What cannot wait says what it went without.
                    early = flags.get_string_details(key, "", context)
                    assert early.value == "no"
                    assert "not at hand" in str(early.flag_metadata["note"])
                found = await flags.get_string_details_async(key, "", context)
                assert (found.value, found.error_code) == (value, None), (key, context)
                assert flags.get_string_details(key, "", context) == found

    asyncio.run(main())


def test_without_fetching_those_at_hand_join(server: LocalServer) -> None:
    with Client(server.url, **OPTIONS) as client:
        client.wait_ready(PATIENCE)
        api.set_provider_and_wait(RheostatProvider(client))
        flags = api.get_client()
        assert flags.get_string_value("user-flag", "", EvaluationContext("u1")) == "no"
        client.check("anything", user={"id": "u1"})
        assert flags.get_string_value("user-flag", "", EvaluationContext("u1")) == "yes"


def test_keys_of_different_subjects_are_an_error(server: LocalServer) -> None:
    provider = RheostatProvider(server.url, subject_keys=KEYS, fetch_subjects=True, **OPTIONS)
    api.set_provider_and_wait(provider)
    context = EvaluationContext("u2", {"user": {"email": "ada@example.com"}})
    found = api.get_client().get_string_details("user-flag", "mine", context)
    assert (found.value, found.error_code) == ("mine", "INVALID_CONTEXT")
    assert "key conflict" in (found.error_message or "")


def test_a_server_that_is_away_is_said(server: LocalServer) -> None:
    with Client(server.url, subject_timeout=0.2, retries=0) as client:
        client.wait_ready(PATIENCE)
        api.set_provider_and_wait(RheostatProvider(client, fetch_subjects=True))
        server.stop()
        try:
            found = api.get_client().get_string_details("user-flag", "", EvaluationContext("u1"))
        finally:
            server.start()
        assert found.value == "no"
        assert "traits unavailable" in str(found.flag_metadata["note"])
