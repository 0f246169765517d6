"""What is held of stored subjects, without a server: whose traits join, and for how long what was heard goes."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from types import MappingProxyType

import pytest

from rheostat.testing import StubClient


class Who(StrEnum):
    """Texts that are not exactly str."""

    PRO = "u1"
    FREE = "u2"


@pytest.fixture
def stub() -> StubClient:
    made = StubClient({"beta": False, "grown": False})
    made.set_rules("beta", [('user.plan == "pro"', True)])
    made.set_rules("grown", [("user.age >= 18", True)])
    made.set_subject("user", {"id": "u1"}, {"plan": "pro"})
    made.set_subject("user", {"id": "u2"}, {"plan": "free"})
    made.set_subject("company", {"id": "acme"}, {})
    return made


@pytest.mark.parametrize(
    "name",
    [
        lambda who: {"id": who},
        lambda who: MappingProxyType({"id": who.value}),
        lambda who: {"id": who, "age": 7},
    ],
    ids=["a member of an enumeration", "a mapping that is no dict", "more than keys"],
)
def test_a_verdict_is_never_that_of_somebody_else(stub: StubClient, name: Callable[[Who], object]):
    company = {"id": "acme"}
    for _ in range(2):
        assert stub.check("beta", company=company, user=name(Who.PRO)) is True
        assert stub.check("beta", company=company, user=name(Who.FREE)) is False
        assert stub.check("beta", company=company) is False
        assert stub.get("beta", context={"company": company, "user": name(Who.PRO)}) is True
        assert stub.get("beta", context={"company": company, "user": name(Who.FREE)}) is False


def test_what_one_call_says_beyond_keys_is_not_said_of_the_next(stub: StubClient):
    for user in ({"id": "u1"}, {"id": "nobody"}):
        assert stub.check("grown", user={**user, "age": 30}) is True
        assert stub.check("grown", user=user) is False
        assert stub.check("grown", user={**user, "age": 7}) is False
    said = {"id": "nobody"}
    assert stub.check("beta", user=said) is False
    said["plan"] = "pro"
    assert stub.check("beta", user={"id": "nobody"}) is False


def test_a_kind_without_a_key_is_noted_beside_one_that_is_at_hand(stub: StubClient):
    assert stub.check_details("beta", company={"id": "acme"}).note == ""
    for user in ({"id": 5}, {}, MappingProxyType({})):
        assert "named by no key: user" in stub.check_details("beta", company={"id": "acme"}, user=user).note
    assert stub.check_details("beta", company={"id": "acme"}).note == ""
