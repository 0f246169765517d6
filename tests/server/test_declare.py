"""DeclareSettings over the wire: what cannot be read, who may call, and what is repeated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from rheo.v1.client_pb2 import ClientIdentity
from rheo.v1.config_service_pb2 import DeclareSettingsRequest, DeclareSettingsResponse
from rheo.v1.declaration_pb2 import (
    DECLARATION_OUTCOME_CREATED,
    DECLARATION_OUTCOME_INVALID,
    DECLARATION_OUTCOME_UP_TO_DATE,
    DECLARATION_OUTCOME_UPGRADED,
    DIFFERENCE_LEVEL_MINOR,
    Declaration,
)
from rheo.v1.value_pb2 import StringList, Value
from rheostat.errors import AlreadyExistsError, LimitExceededError, PermissionDeniedError, RheostatError
from rheostat.model.change import PutEnvironment, SetFeatures
from rheostat.model.key import Key, KeyKind
from rheostat.server import wsgi_app
from rheostat.server.call import Call
from rheostat.server.handler import Handlers
from rheostat.service import Limits, Service, Writer
from rheostat.service.access import OPEN, Principal
from rheostat.store import open_store
from tests.server.exchange import Wsgi, asked

METHOD = "rheo.v1.ConfigService/DeclareSettings"


@pytest.fixture
def service() -> Iterator[Service]:
    with Service(open_store("memory:"), limits=Limits(max_writes_per_second=3)) as made:
        yield made


def declaration(name: str, type_: str = "int", default: Any = 1, **fields: Any) -> Declaration:
    made = Declaration(name=name, type=type_, **fields)
    if default is not None:
        made.default.CopyFrom(Value(int_value=default))
    return made


def ask(
    service: Service, *declarations: Declaration, principal: Principal = OPEN, **fields: Any
) -> DeclareSettingsResponse:
    request = DeclareSettingsRequest(declarations=declarations, **fields)
    answer: DeclareSettingsResponse = Handlers(service).handle(
        "declare_settings", request, Call(principal, "1", METHOD)
    )
    return answer


def outcomes(answer: DeclareSettingsResponse) -> list[int]:
    return [result.outcome for result in answer.results]


def test_what_cannot_be_read_is_invalid_alone(service: Service):
    deep = Value(int_value=1)
    for _ in range(31):
        outer = Value()
        outer.list_value.values.add().CopyFrom(deep)
        deep = outer
    answer = ask(
        service,
        declaration("a", "integer"),
        declaration("b", default=None),
        declaration("c", version="one"),
        declaration("d", metadata={"k": Value()}),
        declaration("e", metadata={"k": deep}),
        declaration("f", "float"),
        Declaration(),
    )
    assert outcomes(answer) == [DECLARATION_OUTCOME_INVALID] * 5 + [
        DECLARATION_OUTCOME_CREATED,
        DECLARATION_OUTCOME_INVALID,
    ]
    assert [result.name for result in answer.results] == ["a", "b", "c", "d", "e", "f", ""]
    for result, word in zip(
        answer.results, ("type", "default", "version", "metadata", "metadata"), strict=False
    ):
        assert word in result.message


def test_an_answer_has_the_position_the_features_and_the_differences(service: Service):
    service.commit(Writer(OPEN), "default", "", [SetFeatures(("region",))])
    created = ask(service, declaration("a", features=StringList(values=["region"])))
    assert created.revision == service.head.revision
    assert created.generation == service.head.identity.generation
    assert list(created.features) == ["region"]
    (result,) = ask(
        service, declaration("a", default=0, version="1.1", features=StringList(values=[]))
    ).results
    assert result.outcome == DECLARATION_OUTCOME_UPGRADED
    assert result.stored_version == "1.0"
    default, features = result.differences
    assert (default.attribute, default.level) == ("default", DIFFERENCE_LEVEL_MINOR)
    assert (default.declared.int_value, default.stored.int_value) == (0, 1)
    assert features.declared.list_value.values == []
    assert [value.string_value for value in features.stored.list_value.values] == ["region"]
    # Features that are absent are any, and features that are empty are none.
    (result,) = ask(service, declaration("a", default=0, version="1.1")).results
    (features,) = result.differences
    assert not features.HasField("declared")
    assert features.HasField("stored")


def test_a_request_is_repeated_by_its_id_and_declarations_whoever_the_client_is(service: Service):
    first = ask(service, declaration("a"), request_id="r", client=ClientIdentity(id="1", name="shop"))
    again = ask(service, declaration("a"), request_id="r", client=ClientIdentity(id="2"))
    assert again == first
    assert outcomes(first) == [DECLARATION_OUTCOME_CREATED]
    assert outcomes(ask(service, declaration("a"))) == [DECLARATION_OUTCOME_UP_TO_DATE]
    with pytest.raises(AlreadyExistsError):
        ask(service, declaration("a", default=2), request_id="r")


def test_the_audit_row_says_which_program_declared(service: Service):
    key, _, _ = service.create_key(
        Writer(OPEN), kind=KeyKind.SERVER, project="default", description="checkout servers"
    )
    identity = ClientIdentity(id="1", name="checkout@web-7", sdk="rheostat-go/2.0")
    answer = ask(service, declaration("a"), principal=Principal(key), client=identity)
    row = service.change_set("default", answer.revision)
    assert (row.author, row.actor) == ("checkout servers", key.selector)
    assert row.message == "Declared by checkout@web-7 (rheostat-go/2.0)"


def test_a_key_declares_in_its_own_environments_only(service: Service):
    service.commit(Writer(OPEN), "default", "", [PutEnvironment("staging")])
    key = Key("0" * 16, KeyKind.SERVER, bytes(32), project="default", environments=("staging",))
    assert outcomes(ask(service, declaration("a"), principal=Principal(key))) == [DECLARATION_OUTCOME_CREATED]
    for fields in ({"environment": "production"}, {"environment": "unknown"}, {"project": "other"}):
        with pytest.raises(PermissionDeniedError):
            ask(service, declaration("a"), principal=Principal(key), **fields)
    with pytest.raises(RheostatError) as caught:
        ask(service, declaration("a"))
    assert caught.value.reason == "ENVIRONMENT_REQUIRED"
    environments = service.head.state.projects["default"].environments
    assert [len(environments[slug].settings) for slug in ("production", "staging")] == [0, 1]


def test_a_batch_that_is_too_large_is_refused_with_the_name_of_the_limit(service: Service):
    with pytest.raises(LimitExceededError) as caught:
        ask(service, *(declaration(f"a{i}", description="x" * 1_000) for i in range(1_100)))
    assert caught.value.metadata["limit"] == "max_request_bytes"
    with pytest.raises(RheostatError) as refused:
        ask(service, *(Declaration() for _ in range(10_001)))
    assert refused.value.reason == "INVALID_FIELD"


def test_declaring_counts_as_writing(service: Service):
    exchange = Wsgi(wsgi_app(service, open=True))
    codes = [
        exchange(asked(METHOD, DeclareSettingsRequest(declarations=[declaration(f"a{i}")]))).code
        for i in range(20)
    ]
    assert codes[:3] == ["ok"] * 3
    assert "resource_exhausted" in codes
