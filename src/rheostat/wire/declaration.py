"""Declarations and their results as messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rheo.v1 import declaration_pb2, value_pb2
from rheostat.errors import FieldViolation, InvalidTypeError, TypeMismatchError
from rheostat.model.declaration import (
    Declaration,
    DeclarationOutcome,
    DeclarationResult,
    Difference,
    DifferenceLevel,
)
from rheostat.model.setting import Version
from rheostat.model.type import parse_type
from rheostat.model.value import ABSENT, Absent, Value
from rheostat.wire.setting import version_from_request
from rheostat.wire.value import (
    context_from_request,
    fill_value,
    mapping_to_proto,
    value_from_proto,
    value_from_request,
)

__all__ = [
    "declaration_from_proto",
    "declaration_result_from_proto",
    "declaration_result_to_proto",
    "declaration_to_proto",
]

_OUTCOMES: Final[Mapping[int, DeclarationOutcome]] = {
    number: DeclarationOutcome[name.removeprefix("DECLARATION_OUTCOME_")]
    for name, number in declaration_pb2.DeclarationOutcome.items()
}
_OUTCOME_NUMBERS: Final = {outcome: number for number, outcome in _OUTCOMES.items()}
_LEVELS: Final[Mapping[int, DifferenceLevel]] = {
    number: DifferenceLevel[name.removeprefix("DIFFERENCE_LEVEL_")]
    for name, number in declaration_pb2.DifferenceLevel.items()
}
_LEVEL_NUMBERS: Final = {level: number for number, level in _LEVELS.items()}


def declaration_to_proto(declaration: Declaration) -> declaration_pb2.Declaration:
    """Return *declaration* as a message.

    Raises:
        TypeMismatchError: A value in it cannot be carried; see `value_to_proto`.
    """
    message = declaration_pb2.Declaration(
        name=declaration.name,
        type=str(declaration.type),
        version=str(declaration.version),
        aliases=declaration.aliases,
        description=declaration.description,
        owner=declaration.owner,
        tags=declaration.tags,
    )
    fill_value(message.default, declaration.default)
    if declaration.features is not None:
        message.features.SetInParent()
        message.features.values.extend(declaration.features)
    mapping_to_proto(declaration.metadata, message.metadata)
    return message


def declaration_from_proto(message: declaration_pb2.Declaration) -> Declaration:
    """Return the declaration that *message* holds; an empty version is 1.0.

    Whether its names are legal and its default fits the type is for the service to say. An error is about this
    declaration alone; its violations name the field of the declaration.

    Raises:
        InvalidSettingError: The type or the version is none.
        TypeMismatchError: The default or a value of the metadata is missing, or cannot be read.
    """
    try:
        type_ = parse_type(message.type)
    except InvalidTypeError as exc:
        raise InvalidTypeError(
            f"type: {exc.message}", violations=[FieldViolation("type", exc.message)]
        ) from None
    return Declaration(
        name=message.name,
        type=type_,
        default=value_from_request(message.default, "default"),
        version=version_from_request(message.version, "version"),
        aliases=tuple(message.aliases),
        features=tuple(message.features.values) if message.HasField("features") else None,
        metadata=context_from_request(message.metadata, "metadata"),
        description=message.description,
        owner=message.owner,
        tags=tuple(message.tags),
    )


def declaration_result_to_proto(result: DeclarationResult) -> declaration_pb2.DeclarationResult:
    """Return *result* as a message.

    Raises:
        TypeMismatchError: A value in it cannot be carried; see `value_to_proto`.
    """
    message = declaration_pb2.DeclarationResult(
        name=result.name,
        outcome=_OUTCOME_NUMBERS[result.outcome],  # type: ignore[arg-type]  # enum numbers are plain ints
        stored_version="" if result.stored_version is None else str(result.stored_version),
        message=result.message,
        blocking_clients=result.blocking_clients,
    )
    for difference in result.differences:
        part = message.differences.add(
            level=_LEVEL_NUMBERS[difference.level],
            attribute=difference.attribute,
            message=difference.message,
        )
        if difference.declared is not ABSENT:
            fill_value(part.declared, difference.declared)
        if difference.stored is not ABSENT:
            fill_value(part.stored, difference.stored)
    return message


def declaration_result_from_proto(message: declaration_pb2.DeclarationResult) -> DeclarationResult:
    """Return the result of a peer's answer. Never raises: what this version does not know is left out."""
    return DeclarationResult(
        name=message.name,
        outcome=_OUTCOMES.get(message.outcome, DeclarationOutcome.UNSPECIFIED),
        stored_version=_stored_version(message.stored_version),
        differences=tuple(
            Difference(
                _LEVELS.get(part.level, DifferenceLevel.UNSPECIFIED),
                part.attribute,
                _value(part.declared),
                _value(part.stored),
                part.message,
            )
            for part in message.differences
        ),
        message=message.message,
        blocking_clients=tuple(message.blocking_clients),
    )


def _stored_version(text: str) -> Version | None:
    try:
        return Version.parse(text)
    except ValueError:
        return None


def _value(message: value_pb2.Value) -> Value | Absent:
    try:
        return value_from_proto(message)
    except TypeMismatchError:
        return ABSENT
