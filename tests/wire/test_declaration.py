from __future__ import annotations

from collections.abc import Callable

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from rheo.v1 import declaration_pb2
from rheostat.errors import InvalidArgumentError, InvalidSettingError, InvalidTypeError, TypeMismatchError
from rheostat.model.declaration import (
    Declaration,
    DeclarationOutcome,
    DeclarationResult,
    Difference,
    DifferenceLevel,
)
from rheostat.model.setting import Version
from rheostat.model.type import FLOAT, JSON, SettingType
from rheostat.model.value import ABSENT, Value, same
from rheostat.wire.declaration import (
    declaration_from_proto,
    declaration_result_from_proto,
    declaration_result_to_proto,
    declaration_to_proto,
)
from tests.strategies import metadata, setting_names, texts, types, values, values_of


def declarations() -> SearchStrategy[Declaration]:
    def of(type_: SettingType) -> SearchStrategy[Declaration]:
        names = st.lists(setting_names(), max_size=2).map(tuple)
        return st.builds(
            Declaration,
            setting_names(),
            st.just(type_),
            values_of(type_),
            version=st.builds(Version, st.integers(0, 9), st.integers(0, 99)),
            aliases=names,
            features=st.one_of(st.none(), names),
            metadata=metadata(),
            description=texts(),
            owner=texts(),
            tags=names,
        )

    return types().flatmap(of)


def optional_values() -> SearchStrategy[Value]:
    return st.one_of(st.just(ABSENT), values(3))


def results() -> SearchStrategy[DeclarationResult]:
    difference = st.builds(
        Difference,
        st.sampled_from(DifferenceLevel),
        st.sampled_from(["name", "type", "default", "features", "metadata"]),
        optional_values(),
        optional_values(),
        texts(),
    )
    return st.builds(
        DeclarationResult,
        setting_names(),
        st.sampled_from(DeclarationOutcome),
        st.one_of(st.none(), st.builds(Version, st.integers(0, 9), st.integers(0, 99))),
        st.lists(difference, max_size=3).map(tuple),
        texts(),
        st.lists(texts(), max_size=2).map(tuple),
    )


@given(declarations())
def test_every_declaration_comes_back_the_same_in_binary_and_json(declaration: Declaration) -> None:
    message = declaration_to_proto(declaration)
    binary = declaration_pb2.Declaration.FromString(message.SerializeToString())
    from_json = json_format.Parse(json_format.MessageToJson(message), declaration_pb2.Declaration())
    for read in (declaration_from_proto(binary), declaration_from_proto(from_json)):
        assert read == declaration
        assert same(read.default, declaration.default)
        assert str(read.type) == str(declaration.type)


@given(results())
def test_every_result_comes_back_the_same(result: DeclarationResult) -> None:
    message = declaration_result_to_proto(result)
    read = declaration_result_from_proto(
        declaration_pb2.DeclarationResult.FromString(message.SerializeToString())
    )
    assert read == result
    for was, now in zip(result.differences, read.differences, strict=True):
        assert (was.declared is ABSENT) == (now.declared is ABSENT)
        assert was.declared is ABSENT or same(was.declared, now.declared)  # type: ignore[arg-type]


def test_the_model_mirrors_the_contract() -> None:
    for enum, members in (
        (declaration_pb2.DeclarationOutcome, DeclarationOutcome),
        (declaration_pb2.DifferenceLevel, DifferenceLevel),
    ):
        assert [name.split("_", 2)[2] for name in enum.keys()] == [member.name for member in members]  # noqa: SIM118 - a wrapper, no dict
    for message, model in (
        (declaration_pb2.Declaration, Declaration),
        (declaration_pb2.DeclarationResult, DeclarationResult),
        (declaration_pb2.Difference, Difference),
    ):
        assert [field.name for field in message.DESCRIPTOR.fields] == list(model.__dataclass_fields__)


def test_no_features_differ_from_any_features() -> None:
    any_features = Declaration("x", FLOAT, 1.0)
    assert declaration_from_proto(declaration_to_proto(any_features)).features is None
    none = Declaration("x", FLOAT, 1.0, features=())
    assert declaration_from_proto(declaration_to_proto(none)).features == ()


def test_a_version_that_is_not_said_is_the_first() -> None:
    message = declaration_to_proto(Declaration("x", FLOAT, 1.0, Version(3, 1)))
    message.version = ""
    assert declaration_from_proto(message).version == Version(1, 0)


@pytest.mark.parametrize("default", [None, False, 0, "", ()])
def test_falsy_defaults_are_present(default: Value) -> None:
    read = declaration_from_proto(declaration_to_proto(Declaration("x", JSON, default)))
    assert same(read.default, default)


@pytest.mark.parametrize(
    ("change", "error", "field"),
    [
        (lambda m: setattr(m, "type", "strr"), InvalidTypeError, "type"),
        (lambda m: setattr(m, "version", "one"), InvalidSettingError, "version"),
        (lambda m: m.ClearField("default"), TypeMismatchError, "default"),
        (lambda m: m.metadata["k"].SetInParent(), TypeMismatchError, "metadata['k']"),
    ],
)
def test_an_error_names_the_field(
    change: Callable[[declaration_pb2.Declaration], object], error: type[InvalidArgumentError], field: str
) -> None:
    message = declaration_to_proto(Declaration("x", FLOAT, 1.0))
    change(message)
    with pytest.raises(error) as caught:
        declaration_from_proto(message)
    assert caught.value.violations[0].field == field
    assert caught.value.message.startswith(f"{field}: ")


def test_what_a_newer_server_says_spoils_no_result() -> None:
    message = declaration_result_to_proto(
        DeclarationResult(
            "x",
            DeclarationOutcome.OUTDATED,
            Version(2, 0),
            (Difference(DifferenceLevel.MINOR, "default", 1, 2, "other default"),),
        )
    )
    message.outcome = 99  # type: ignore[assignment]  # what a newer peer may send
    message.stored_version = "2.0.1"
    message.differences[0].level = 99  # type: ignore[assignment]  # likewise
    message.differences[0].declared.list_value.values.add()
    read = declaration_result_from_proto(message)
    assert read == DeclarationResult(
        "x",
        DeclarationOutcome.UNSPECIFIED,
        None,
        (Difference(DifferenceLevel.UNSPECIFIED, "default", ABSENT, 2, "other default"),),
    )
