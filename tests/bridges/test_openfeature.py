"""The provider under the unmodified SDK of OpenFeature, on a real server and a real client.

The scenarios are those of OpenFeature's specification: its Gherkin suites (evaluation, hooks, context merging) and the
conformance kit for providers.
"""

from __future__ import annotations

import asyncio
import datetime
import importlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.evaluation_context import EvaluationContext
from openfeature.flag_evaluation import FlagEvaluationDetails, FlagEvaluationOptions
from openfeature.hook import Hook, HookContext, HookHints
from openfeature.track import TrackingEventDetails
from openfeature.transaction_context import ContextVarsTransactionContextPropagator

from rheostat import (
    Client,
    ErrorCode,
    Evaluation,
    InvalidArgumentError,
    MissingDependencyError,
    Reason,
    ambient,
)
from rheostat.openfeature import AsyncRheostatProvider, RheostatProvider
from rheostat.testing import AsyncStubClient, LocalServer, StubClient
from tests.e2e.process import PATIENCE
from tests.each import each

BALLMER = 'email == "ballmer@macrosoft.com"'
KNOWN_USER = "5c3d8535-f81a-4478-a6d3-afaa4d51199e"
OTHER_USER = "f20bd32d-703b-48b6-bc8e-79d53c85134a"
PICTURES = {"showImages": True, "title": "Check out these pics!", "imagesPerPage": 100}


def ruled(type_: str, default: object, where: str, value: object) -> dict[str, object]:
    rules = [{"id": "the-rule", "where": where, "value": value}]
    return {"type": type_, "default": default, "environments": {"production": {"rules": rules}}}


# The flags that the suites of the specification assume, and some for what only Rheostat does.
FLAGS: dict[str, Any] = {
    "boolean-flag": {"type": "bool", "default": True},
    "string-flag": {"type": "str", "default": "hi"},
    "integer-flag": {"type": "int", "default": 10},
    "float-flag": {"type": "float", "default": 0.5},
    "object-flag": {"type": "Json", "default": PICTURES},
    "list-flag": {"type": "Json", "default": [1, {"a": [2]}]},
    "boolean-zero-flag": {"type": "bool", "default": False},
    "string-zero-flag": {"type": "str", "default": ""},
    "integer-zero-flag": {"type": "int", "default": 0},
    "float-zero-flag": {"type": "float", "default": 0.0},
    "object-zero-flag": {"type": "Json", "default": {}},
    "large-integer-flag": {"type": "int", "default": 2**31 - 1},
    "huge-integer-flag": {"type": "int", "default": 2**53 - 1},
    "integral-float-flag": {"type": "float", "default": 10.0},
    "wrong-flag": {"type": "str", "default": "uno"},
    "null-flag": {"type": "Json", "default": None},
    "boolean-targeted-zero-flag": ruled("bool", False, BALLMER, False),
    "string-targeted-zero-flag": ruled("str", "", BALLMER, ""),
    "integer-targeted-zero-flag": ruled("int", 0, BALLMER, 0),
    "float-targeted-zero-flag": ruled("float", 0.0, BALLMER, 0.0),
    "object-targeted-zero-flag": ruled("Json", {}, BALLMER, {}),
    "targeting-key-flag": ruled("str", "miss", f'user.id == "{KNOWN_USER}"', "hit"),
    "context-aware": ruled(
        "str",
        "EXTERNAL",
        f'{BALLMER} and role == "admin" and age >= 65 and customer == false',
        "INTERNAL",
    ),
    "nested-flag": ruled("str", "no", 'user.address.city == "Ulm" and user.groups has_any ["staff"]', "yes"),
    "date-flag": ruled("bool", False, 'born before "2000-01-01"', True),
    "key-flag": ruled("str", "none", "exists(key)", "some"),
    "ambient-flag": ruled("str", "none", 'region == "eu"', "eu"),
    "disabled-flag": {
        "type": "str",
        "default": "on",
        "environments": {"production": {"enabled": False, "off": "off"}},
    },
    "split-flag": {
        "type": "str",
        "default": "none",
        "environments": {
            "production": {
                "rules": [
                    {
                        "id": "experiment",
                        "split": {
                            "unit": "user.id",
                            "salt": "s",
                            "variants": [{"name": "blue", "weight": "100%", "value": "#00f"}],
                        },
                    }
                ]
            }
        },
    },
}
for level in ("API", "Transaction", "Client", "Invocation", "Before Hooks"):
    FLAGS[f"{level.split()[0].lower()}-wins"] = ruled("bool", False, f'key == "{level}"', True)


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer() as server:
        server.apply({"settings": FLAGS})
        yield server


@pytest.fixture(scope="module")
def replica(server: LocalServer) -> Iterator[Client]:
    with Client(server.url, project="default", environment="production") as client:
        client.wait_ready(60)
        yield client


@pytest.fixture
def flags(replica: Client) -> Iterator[OpenFeatureClient]:
    """A stable provider."""
    api.set_provider_and_wait(RheostatProvider(replica))
    yield api.get_client()
    api.shutdown()


def evaluated(
    flags: OpenFeatureClient,
    kind: str,
    key: str,
    default: object,
    context: EvaluationContext | None = None,
    options: FlagEvaluationOptions | None = None,
) -> FlagEvaluationDetails[Any]:
    """Evaluate in both ways, which agree."""
    name = f"get_{kind}_details"
    found = getattr(flags, name)(key, default, context, options)
    if options is None:
        assert asyncio.run(getattr(flags, f"{name}_async")(key, default, context)) == found
    assert type(found) is FlagEvaluationDetails
    return found


STATIC = [
    ("boolean", "boolean-flag", False, True),
    ("string", "string-flag", "bye", "hi"),
    ("integer", "integer-flag", 1, 10),
    ("float", "float-flag", 0.1, 0.5),
    ("object", "object-flag", {}, PICTURES),
    ("object", "list-flag", [], [1, {"a": [2]}]),
    ("boolean", "boolean-zero-flag", True, False),
    ("string", "string-zero-flag", "hi", ""),
    ("integer", "integer-zero-flag", 1, 0),
    ("float", "float-zero-flag", 0.1, 0.0),
    ("object", "object-zero-flag", {"a": 1}, {}),
    ("integer", "large-integer-flag", 1, 2**31 - 1),
    ("integer", "huge-integer-flag", 1, 2**53 - 1),
    # Numbers pass from one type to the other where nothing is lost.
    ("integer", "integral-float-flag", 1, 10),
    ("float", "integer-flag", 0.1, 10.0),
]


@each(("kind", "key", "default", "value"), STATIC)
def test_a_setting_without_rules_is_static(
    flags: OpenFeatureClient, kind: str, key: str, default: object, value: object
) -> None:
    for context in (None, EvaluationContext(OTHER_USER, {"email": "x"})):
        found = evaluated(flags, kind, key, default, context)
        assert (found.flag_key, found.value, found.reason) == (key, value, "STATIC")
        assert type(found.value) is type(value)
        assert (found.error_code, found.error_message, found.variant) == (None, None, None)


TARGETED = [
    ("boolean", "boolean-targeted-zero-flag", True, False),
    ("string", "string-targeted-zero-flag", "hi", ""),
    ("integer", "integer-targeted-zero-flag", 1, 0),
    ("float", "float-targeted-zero-flag", 0.1, 0.0),
    ("object", "object-targeted-zero-flag", {"a": 1}, {}),
]


@each(("kind", "key", "default", "value"), TARGETED)
def test_a_rule_that_matches_is_a_targeting_match_and_none_the_default(
    flags: OpenFeatureClient, kind: str, key: str, default: object, value: object
) -> None:
    reasons = {
        "TARGETING_MATCH": [{"email": "ballmer@macrosoft.com"}],
        "DEFAULT": [{"email": "ballmer@none.com"}, {"email": None}, {}, None],
    }
    for reason, contexts in reasons.items():
        for attributes in contexts:
            context = None if attributes is None else EvaluationContext(attributes=attributes)  # type: ignore[arg-type]
            found = evaluated(flags, kind, key, default, context)
            assert (found.value, found.reason, found.error_code) == (value, reason, None)


@each(
    ("context", "value", "reason"),
    [
        (EvaluationContext(KNOWN_USER), "hit", "TARGETING_MATCH"),
        (EvaluationContext(OTHER_USER), "miss", "DEFAULT"),
        (EvaluationContext(""), "miss", "DEFAULT"),
        (None, "miss", "DEFAULT"),
        # The same attribute by its name; the targeting key wins over it.
        (EvaluationContext(attributes={"user.id": KNOWN_USER}), "hit", "TARGETING_MATCH"),
        (EvaluationContext(attributes={"user": {"id": KNOWN_USER}}), "hit", "TARGETING_MATCH"),
        (EvaluationContext(KNOWN_USER, {"user": {"id": OTHER_USER}}), "hit", "TARGETING_MATCH"),
        (EvaluationContext(OTHER_USER, {"user.id": KNOWN_USER}), "miss", "DEFAULT"),
        (
            EvaluationContext(KNOWN_USER, {"user.id": OTHER_USER, "user": {"id": OTHER_USER}}),
            "hit",
            "TARGETING_MATCH",
        ),
        (EvaluationContext(KNOWN_USER, {"user": "somebody"}), "hit", "TARGETING_MATCH"),
        (EvaluationContext(KNOWN_USER, {"user": None}), "hit", "TARGETING_MATCH"),
    ],
)
def test_the_targeting_key_is_the_users_id(
    flags: OpenFeatureClient, context: EvaluationContext | None, value: str, reason: str
) -> None:
    found = evaluated(flags, "string", "targeting-key-flag", "fallback", context)
    assert (found.value, found.reason) == (value, reason)


def test_the_targeting_key_may_be_another_attribute(replica: Client) -> None:
    api.set_provider_and_wait(RheostatProvider(replica, targeting_key="key"))
    try:
        flags = api.get_client()
        assert flags.get_string_value("key-flag", "", EvaluationContext("anybody")) == "some"
        assert flags.get_string_value("targeting-key-flag", "", EvaluationContext(KNOWN_USER)) == "miss"
    finally:
        api.shutdown()


@each(
    ("key", "value", "attributes"),
    [
        ("nested-flag", "yes", {"user": {"address": {"city": "Ulm"}, "groups": ["staff", "admin"]}}),
        ("nested-flag", "no", {"user": {"address": {"city": "Ulm"}, "groups": []}}),
        ("nested-flag", "no", {"user": "nobody"}),
        ("date-flag", True, {"born": datetime.datetime(1999, 12, 31, 23, 59, tzinfo=datetime.UTC)}),
        ("date-flag", True, {"born": "1999-12-31T23:59:00Z"}),
        ("date-flag", False, {"born": datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)}),
    ],
)
def test_contexts_hold_mappings_lists_and_dates(
    flags: OpenFeatureClient, key: str, value: object, attributes: Any
) -> None:
    kind = "boolean" if isinstance(value, bool) else "string"
    found = evaluated(
        flags, kind, key, not value if kind == "boolean" else "", EvaluationContext("u", attributes)
    )
    assert found.value == value


def test_several_attributes_target_together(flags: OpenFeatureClient) -> None:
    attributes: Any = {"email": "ballmer@macrosoft.com", "role": "admin", "age": 65, "customer": False}
    found = evaluated(flags, "string", "context-aware", "", EvaluationContext(attributes=attributes))
    assert (found.value, found.reason) == ("INTERNAL", "TARGETING_MATCH")
    attributes["customer"] = True
    found = evaluated(flags, "string", "context-aware", "", EvaluationContext(attributes=attributes))
    assert (found.value, found.reason) == ("EXTERNAL", "DEFAULT")


def test_a_context_is_left_as_it_was(flags: OpenFeatureClient) -> None:
    inner = {"id": OTHER_USER, "plan": "pro"}
    context = EvaluationContext(KNOWN_USER, {"user": inner})
    evaluated(flags, "string", "targeting-key-flag", "", context)
    assert context == EvaluationContext(KNOWN_USER, {"user": {"id": OTHER_USER, "plan": "pro"}})


def test_a_split_names_its_variant(flags: OpenFeatureClient) -> None:
    found = evaluated(flags, "string", "split-flag", "", EvaluationContext("u1"))
    assert (found.value, found.reason, found.variant) == ("#00f", "SPLIT", "blue")
    assert found.flag_metadata["rule_id"] == "experiment"
    found = evaluated(flags, "string", "split-flag", "")
    assert (found.value, found.reason, found.variant) == ("none", "DEFAULT", None)


def test_a_disabled_setting_gives_its_off_value(flags: OpenFeatureClient) -> None:
    found = evaluated(flags, "string", "disabled-flag", "fallback")
    assert (found.value, found.reason, found.error_code) == ("off", "DISABLED", None)


@each(
    ("kind", "default"),
    [("boolean", False), ("string", "bye"), ("integer", 1), ("float", 0.1), ("object", {"a": 1})],
)
def test_an_unknown_flag_gives_the_default_and_says_so(
    flags: OpenFeatureClient, kind: str, default: object
) -> None:
    found = evaluated(flags, kind, "missing-flag", default)
    assert (found.value, found.reason, found.error_code) == (default, "ERROR", "FLAG_NOT_FOUND")
    assert "missing-flag" in (found.error_message or "")


MISTYPED = [
    ("string-flag", ("boolean", "integer", "float", "object")),
    ("wrong-flag", ("boolean",)),
    # A bool is no number, although it is one in Python.
    ("boolean-flag", ("string", "integer", "float", "object")),
    ("integer-flag", ("boolean", "string", "object")),
    ("float-flag", ("boolean", "string", "integer", "object")),
    ("object-flag", ("boolean", "string", "integer", "float")),
    ("null-flag", ("boolean", "string", "integer", "float", "object")),
]


@each(("key", "kinds"), MISTYPED)
def test_a_value_of_another_type_gives_the_default(
    flags: OpenFeatureClient, key: str, kinds: tuple[str, ...]
) -> None:
    defaults: dict[str, Any] = {
        "boolean": False,
        "string": "bye",
        "integer": 1,
        "float": 0.1,
        "object": {"a": 1},
    }
    for kind in kinds:
        found = evaluated(flags, kind, key, defaults[kind])
        assert (found.value, found.reason, found.error_code) == (defaults[kind], "ERROR", "TYPE_MISMATCH")
        assert key in (found.error_message or "")


def test_a_context_that_is_none_is_an_error_of_its_own(replica: Client) -> None:
    # The SDK merges contexts before, and so this is for those who call providers themselves.
    provider = RheostatProvider(replica)
    for key in (None, KNOWN_USER):
        found = provider.resolve_string_details("targeting-key-flag", "mine", EvaluationContext(key, ["x"]))  # type: ignore[arg-type]
        assert (found.value, found.error_code, found.reason) == ("mine", "INVALID_CONTEXT", "ERROR")


def test_metadata_say_which_revision_and_rule_it_was(flags: OpenFeatureClient, server: LocalServer) -> None:
    found = evaluated(flags, "string", "targeting-key-flag", "", EvaluationContext(KNOWN_USER))
    revision = found.flag_metadata["setting_revision"]
    assert found.flag_metadata == {
        "revision": server.revision,
        "setting_revision": revision,
        "version": str(revision),
        "rule_id": "the-rule",
        "flagSetId": "default/production",
    }
    assert 0 < int(revision) <= server.revision
    assert "rule_id" not in evaluated(flags, "boolean", "boolean-flag", True).flag_metadata


@pytest.mark.parametrize("code", list(ErrorCode))
def test_every_error_code_and_note_is_passed_on(code: ErrorCode, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = Evaluation(True, Reason.ERROR, error_code=code, error_message="so", note="without traits")
    monkeypatch.setattr(StubClient, "evaluate", lambda *given: evaluation)
    with StubClient() as client:
        found = RheostatProvider(client).resolve_boolean_details("x", False)
    assert (found.value, found.error_message, found.reason) == (False, "so", "ERROR")
    assert found.error_code is not None
    assert found.error_code.name == code.name
    assert found.flag_metadata["note"] == "without traits"


def test_what_is_handed_out_may_be_changed(flags: OpenFeatureClient) -> None:
    for _ in range(2):
        found = flags.get_object_details("list-flag", [])
        assert found.value == [1, {"a": [2]}]
        assert "mine" not in found.flag_metadata
        found.value.append(3)  # type: ignore[attr-defined]
        found.value[1]["a"].clear()  # type: ignore[call-overload,index,union-attr]
        found.flag_metadata["mine"] = 1  # type: ignore[index]


def test_nothing_is_kept_of_earlier_revisions() -> None:
    with StubClient({"x": [0], "y": 1}) as client:
        provider = RheostatProvider(client)
        for i in range(50):
            client["x"] = [i]
            for _ in range(2):
                found = provider.resolve_object_details("x", [])
                assert (found.value, found.flag_metadata["revision"]) == ([i], client.revision)
            assert provider.resolve_integer_details("y", 0).flag_metadata["revision"] == client.revision
        assert len(provider._known) == 2


def test_a_default_of_the_caller_wins_over_those_of_the_client() -> None:
    with StubClient(defaults={"missing": "the client's"}) as client:
        found = RheostatProvider(client).resolve_string_details("missing", "the caller's")
        assert (found.value, found.error_code) == ("the caller's", "FLAG_NOT_FOUND")


def test_a_value_that_this_process_has_set_is_the_variant_override(
    flags: OpenFeatureClient, replica: Client
) -> None:
    replica.set_override("string-flag", "mine")
    try:
        found = evaluated(flags, "string", "string-flag", "")
        assert (found.value, found.reason, found.variant) == ("mine", "STATIC", "override")
    finally:
        replica.clear_override()
    assert evaluated(flags, "string", "string-flag", "").variant is None


def test_ambient_context_and_pinned_revisions_hold_for_flags_too(
    flags: OpenFeatureClient, replica: Client
) -> None:
    with ambient(region="eu"):
        assert evaluated(flags, "string", "ambient-flag", "").value == "eu"
    with replica.pinned(region="eu"):
        assert evaluated(flags, "string", "ambient-flag", "").value == "eu"
    assert evaluated(flags, "string", "ambient-flag", "").value == "none"


# Context merging: OpenFeature's own levels, each before the next.

LEVELS = ("API", "Transaction", "Client", "Invocation", "Before Hooks")


class AddsContext(Hook):
    def __init__(self, context: EvaluationContext) -> None:
        self.context = context

    def before(self, hook_context: HookContext, hints: HookHints) -> EvaluationContext:
        return self.context


def test_contexts_of_all_levels_reach_the_provider_and_the_nearest_wins(replica: Client) -> None:
    def value_at(levels: tuple[str, ...], key: str) -> bool:
        contexts = {level: EvaluationContext(attributes={"key": level}) for level in levels}
        api.set_provider_and_wait(RheostatProvider(replica))
        api.set_transaction_context_propagator(ContextVarsTransactionContextPropagator())
        try:
            flags = api.get_client()
            nothing = EvaluationContext()
            api.set_evaluation_context(contexts.get("API", nothing))
            api.set_transaction_context(contexts.get("Transaction", nothing))
            flags.context = contexts.get("Client", nothing)
            options = FlagEvaluationOptions([AddsContext(contexts.get("Before Hooks", nothing))])
            return flags.get_boolean_value(key, False, contexts.get("Invocation"), options)
        finally:
            api.shutdown()

    for i, level in enumerate(LEVELS):
        assert value_at((level,), f"{level.split()[0].lower()}-wins")
        assert value_at(LEVELS[: i + 1], f"{level.split()[0].lower()}-wins")
    assert not value_at((), "api-wins")
    assert not value_at(("API", "Client"), "api-wins")


# Hooks.


class Recording(Hook):
    def __init__(self, name: str = "", calls: list[tuple[str, str]] | None = None) -> None:
        self.name = name
        self.calls: list[tuple[str, str]] = [] if calls is None else calls
        self.seen: dict[str, Any] = {}

    def before(self, hook_context: HookContext, hints: HookHints) -> None:
        self.calls.append((self.name, "before"))
        self.seen["context"] = hook_context

    def after(self, hook_context: HookContext, details: FlagEvaluationDetails[Any], hints: HookHints) -> None:
        self.calls.append((self.name, "after"))
        self.seen["after"] = details

    def error(self, hook_context: HookContext, exception: Exception, hints: HookHints) -> None:
        self.calls.append((self.name, "error"))
        self.seen["error"] = exception

    def finally_after(
        self, hook_context: HookContext, details: FlagEvaluationDetails[Any], hints: HookHints
    ) -> None:
        self.calls.append((self.name, "finally"))
        self.seen["finally"] = details


def test_hooks_are_given_the_evaluation_details(flags: OpenFeatureClient) -> None:
    hook = Recording()
    flags.add_hooks([hook])
    context = EvaluationContext("u1", {"email": "x"})
    found = flags.get_boolean_details("boolean-flag", False, context)
    assert [call for _, call in hook.calls] == ["before", "after", "finally"]
    assert hook.seen["after"] == hook.seen["finally"] == found
    told: HookContext = hook.seen["context"]
    assert (told.flag_key, told.default_value, told.evaluation_context) == ("boolean-flag", False, context)
    assert told.provider_metadata is not None
    assert told.provider_metadata.name == "rheostat"


@each(("key", "code"), [("missing-flag", "FLAG_NOT_FOUND"), ("wrong-flag", "TYPE_MISMATCH")])
def test_error_hooks_are_told_of_what_gives_the_default(
    flags: OpenFeatureClient, key: str, code: str
) -> None:
    hook = Recording()
    found = evaluated(flags, "boolean", key, True, options=FlagEvaluationOptions([hook]))
    assert [call for _, call in hook.calls] == ["before", "error", "finally"]
    assert hook.seen["error"].error_code == code
    assert hook.seen["finally"] == found
    assert (found.value, found.variant, found.reason) == (True, None, "ERROR")


def test_hooks_of_the_provider_are_the_last_before_and_the_first_after(replica: Client) -> None:
    calls: list[tuple[str, str]] = []
    api.set_provider_and_wait(RheostatProvider(replica, hooks=[Recording("provider", calls)]))
    try:
        flags = api.get_client()
        api.add_hooks([Recording("api", calls)])
        flags.add_hooks([Recording("client", calls)])
        flags.get_boolean_value(
            "boolean-flag", False, None, FlagEvaluationOptions([Recording("call", calls)])
        )
    finally:
        api.shutdown()
    order = ["api", "client", "call", "provider"]
    assert calls == [
        *((name, "before") for name in order),
        *((name, "after") for name in reversed(order)),
        *((name, "finally") for name in reversed(order)),
    ]


# Tracking.


def test_events_are_tracked_for_the_subjects_of_the_merged_context() -> None:
    with StubClient() as client:
        api.set_provider_and_wait(RheostatProvider(client, subject_keys=["company.id", "account.number"]))
        api.set_evaluation_context(EvaluationContext(attributes={"company": {"id": "acme", "plan": "pro"}}))
        try:
            flags = api.get_client()
            flags.track("the-event")
            details = TrackingEventDetails(99.77, {"currency": "EUR"}).add("items", [{"sku": 1}])
            context = EvaluationContext(
                "u1", {"account.number": 12, "company.id": "other", "user.email": "x"}
            )
            flags.track("purchase", context, details)
            flags.track("api-call", None, TrackingEventDetails(3, {"quantity": 25}))
            flags.track("odd", None, TrackingEventDetails(None, {"quantity": 2.5, "value": "kept"}))
        finally:
            api.shutdown()
    first, purchase, calls, odd = client.events
    assert (first.event, first.quantity, first.attributes) == ("the-event", 1, {})
    assert first.subjects == {"company": {"id": "acme"}}
    assert (purchase.event, purchase.quantity) == ("purchase", 1)
    assert purchase.attributes == {"value": 99.77, "currency": "EUR", "items": ({"sku": 1},)}
    assert purchase.subjects == {
        "user": {"id": "u1"},
        "company": {"id": "other"},
        "account": {"number": "12"},
    }
    assert (calls.quantity, calls.attributes) == (25, {"value": 3})
    assert (odd.quantity, odd.attributes) == (1, {"quantity": 2.5, "value": "kept"})


def test_the_targeting_key_names_the_subject_that_it_is_the_key_of() -> None:
    with StubClient() as client:
        for key, subjects in {
            "company.number": {"company": {"number": "7"}},
            # These are attributes, and no kinds of subjects with keys.
            "tenant": {},
            "client.id": {},
        }.items():
            provider = RheostatProvider(client, targeting_key=key)
            provider.track("seen", EvaluationContext("7"))
            assert client.events[-1].subjects == subjects


@each("name", ["", "no such name", "x" * 201, None])
def test_an_event_without_a_proper_name_is_not_tracked_and_never_raises(name: Any) -> None:
    with StubClient() as client:
        api.set_provider_and_wait(RheostatProvider(client))
        try:
            api.get_client().track(name, EvaluationContext("u1"))
        finally:
            api.shutdown()
        assert client.events == []
        assert client.events_dropped == 1


def test_asynchronous_clients_track_as_well() -> None:
    async def main() -> None:
        async with AsyncStubClient() as client:
            api.set_provider_and_wait(AsyncRheostatProvider(client))
            api.get_client().track("seen", EvaluationContext("u1"), TrackingEventDetails(1.5))
            api.shutdown()
            (event,) = client.events
            assert (event.event, event.subjects, event.attributes) == (
                "seen",
                {"user": {"id": "u1"}},
                {"value": 1.5},
            )

    asyncio.run(main())


# What the provider is made with.


def test_options_that_cannot_be_used_are_refused() -> None:
    with StubClient() as client:
        with pytest.raises(InvalidArgumentError, match="'key'"):
            RheostatProvider(client, key="rst_x")
        with pytest.raises(InvalidArgumentError, match="targeting_key"):
            RheostatProvider(client, targeting_key="")
        with pytest.raises(InvalidArgumentError, match="subject_keys has 'user'"):
            RheostatProvider(client, subject_keys=["user"])
        with pytest.raises(InvalidArgumentError, match=r"'event\.id'"):
            RheostatProvider(client, subject_keys=["event.id"])


def test_an_empty_name_is_a_flag_that_is_not_there(flags: OpenFeatureClient) -> None:
    assert evaluated(flags, "boolean", "", True).error_code == "FLAG_NOT_FOUND"


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openfeature", None)
    monkeypatch.delitem(sys.modules, "openfeature.exception")
    monkeypatch.delitem(sys.modules, "rheostat.openfeature")
    with pytest.raises(MissingDependencyError, match=r"rheostat\[openfeature\]"):
        importlib.import_module("rheostat.openfeature")


def test_programs_with_threads_do_without_aiohttp() -> None:
    code = (
        "import sys\nfrom rheostat.openfeature import RheostatProvider\nassert 'aiohttp' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
