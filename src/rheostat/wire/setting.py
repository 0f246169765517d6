"""Settings, rules and segments as messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rheo.v1 import segment_pb2, setting_pb2
from rheostat.errors import (
    FieldViolation,
    InvalidArgumentError,
    InvalidSettingError,
    InvalidTypeError,
    TypeMismatchError,
)
from rheostat.model.rule import Distribution, Outcome, Rule, ValueOutcome, Variant
from rheostat.model.setting import Lifecycle, Order, Segment, Setting, Version
from rheostat.model.type import SettingType, parse_type
from rheostat.model.value import ABSENT, Absent, Value
from rheostat.wire.condition import (
    algorithm_from_request,
    algorithm_to_proto,
    condition_from_proto,
    condition_from_request,
    fill_condition,
    known_algorithm,
)
from rheostat.wire.value import (
    context_from_proto,
    context_from_request,
    fill_value,
    mapping_to_proto,
    value_from_proto,
    value_from_request,
)

__all__ = [
    "fill_segment",
    "fill_setting",
    "lifecycle_from_request",
    "lifecycle_to_proto",
    "order_from_request",
    "order_to_proto",
    "outcome_from_proto",
    "rule_from_proto",
    "rule_from_request",
    "rule_to_proto",
    "segment_from_proto",
    "segment_from_request",
    "segment_to_proto",
    "setting_from_proto",
    "setting_from_request",
    "setting_to_proto",
    "version_from_request",
]

_ORDERS: Final[Mapping[int, Order]] = {
    number: Order[name.removeprefix("RULE_ORDER_")]
    for name, number in setting_pb2.RuleOrder.items()
    if number
}
_ORDER_NUMBERS: Final = {order: number for number, order in _ORDERS.items()}
_LIFECYCLES: Final[Mapping[int, Lifecycle]] = {
    number: Lifecycle[name.removeprefix("LIFECYCLE_")]
    for name, number in setting_pb2.Lifecycle.items()
    if number
}
_LIFECYCLE_NUMBERS: Final = {lifecycle: number for number, lifecycle in _LIFECYCLES.items()}


def setting_to_proto(setting: Setting) -> setting_pb2.Setting:
    """Return *setting* with its rules as a message.

    Raises:
        TypeMismatchError: A value in it cannot be carried; see `value_to_proto`.
        InvalidConditionError: A condition nests too deeply.
    """
    message = setting_pb2.Setting()
    fill_setting(message, setting)
    return message


def fill_setting(message: setting_pb2.Setting, setting: Setting) -> None:
    """Write *setting* into *message*, an empty part of another one.

    Raises:
        TypeMismatchError: As `setting_to_proto`.
        InvalidConditionError: As `setting_to_proto`.
    """
    message.id = setting.id
    message.name = setting.name
    message.aliases.extend(setting.aliases)
    message.type = str(setting.type)
    fill_value(message.default, setting.default)
    message.description = setting.description
    message.version = str(setting.version)
    message.owner = setting.owner
    message.tags.extend(setting.tags)
    message.order = order_to_proto(setting.order)
    message.enabled = setting.enabled
    message.lifecycle = lifecycle_to_proto(setting.lifecycle)
    message.declared = setting.declared
    message.revision = setting.revision
    if setting.features is not None:
        message.features.SetInParent()
        message.features.values.extend(setting.features)
    mapping_to_proto(setting.metadata, message.metadata)
    if setting.value is not ABSENT:
        fill_value(message.value, setting.value)
    if setting.off is not ABSENT:
        fill_value(message.off, setting.off)
    for rule in setting.rules:
        _fill_rule(message.rules.add(), rule)


def setting_from_proto(message: setting_pb2.Setting) -> Setting:
    """Return the setting of a peer's answer.

    Rules, conditions and outcomes that this version does not know are kept in their place, and never match.

    Raises:
        InvalidSettingError: The type is one that this version does not know, or the version is none.
        TypeMismatchError: A value is of a kind that this version does not know.
    """
    return _read_setting(message, None)


def setting_from_request(message: setting_pb2.Setting, field: str) -> Setting:
    """Return the setting of a request. A version, enabled, order or lifecycle that is not said has its default.

    Raises:
        InvalidArgumentError: A part is unknown, missing or wrong; the violation names it by its path from *field*.
    """
    return _read_setting(message, field)


def rule_to_proto(rule: Rule) -> setting_pb2.Rule:
    """Return *rule* as a message; one without an outcome gets none, so that no reader matches it."""
    message = setting_pb2.Rule()
    _fill_rule(message, rule)
    return message


def rule_from_proto(message: setting_pb2.Rule) -> Rule:
    """Return the rule of a peer's answer; an outcome that this version does not know is None."""
    return Rule(
        id=message.id,
        outcome=outcome_from_proto(message),
        condition=condition_from_proto(message.condition) if message.HasField("condition") else None,
        number=message.number,
        enabled=message.enabled if message.HasField("enabled") else True,
        description=message.description,
        metadata=context_from_proto(message.metadata),
    )


def rule_from_request(message: setting_pb2.Rule, field: str) -> Rule:
    """Return the rule of a request. Its number is ignored; when it does not say whether it is enabled, it is.

    Raises:
        InvalidArgumentError: A part is unknown, missing or wrong; the violation names it by its path from *field*.
    """
    return Rule(
        id=message.id,
        outcome=_outcome_from_request(message, field),
        condition=(
            condition_from_request(message.condition, f"{field}.condition")
            if message.HasField("condition")
            else None
        ),
        enabled=message.enabled if message.HasField("enabled") else True,
        description=message.description,
        metadata=context_from_request(message.metadata, f"{field}.metadata"),
    )


def outcome_from_proto(message: setting_pb2.Rule) -> Outcome | None:
    """Return the outcome of a peer's rule, or None when any part of it is of a kind that is not known here."""
    try:
        match message.WhichOneof("outcome"):
            case "value":
                value = value_from_proto(message.value)
                return None if value is ABSENT else ValueOutcome(value)
            case "distribution":
                return _distribution_from_proto(message.distribution)
            case _:
                return None
    except TypeMismatchError:
        return None


def segment_to_proto(segment: Segment) -> segment_pb2.Segment:
    """Return *segment* as a message."""
    message = segment_pb2.Segment()
    fill_segment(message, segment)
    return message


def fill_segment(message: segment_pb2.Segment, segment: Segment) -> None:
    """Write *segment* into *message*, an empty part of another one.

    Raises:
        InvalidConditionError: As `condition_to_proto`.
        TypeMismatchError: As `condition_to_proto`.
    """
    message.name = segment.name
    fill_condition(message.condition, segment.condition)
    message.description = segment.description
    message.revision = segment.revision


def segment_from_proto(message: segment_pb2.Segment) -> Segment:
    """Return the segment of a peer's answer."""
    return Segment(
        message.name, condition_from_proto(message.condition), message.description, message.revision
    )


def segment_from_request(message: segment_pb2.Segment, field: str) -> Segment:
    """Return the segment of a request. Its revision is ignored.

    Raises:
        InvalidConditionError: The condition is missing or not acceptable; the violation names the place.
        TypeMismatchError: A literal in it is not a value; likewise.
    """
    condition = condition_from_request(message.condition, f"{field}.condition")
    return Segment(message.name, condition, message.description)


def order_to_proto(order: Order) -> setting_pb2.RuleOrder:
    """Return the number of *order*."""
    return _ORDER_NUMBERS[order]  # type: ignore[return-value]  # enum numbers are plain ints at run time


def order_from_request(number: int, field: str) -> Order:
    """Return the order of rules in a request, where unspecified means STORED.

    Raises:
        InvalidSettingError: It is not known here; the violation names *field*.
    """
    if number == setting_pb2.RULE_ORDER_UNSPECIFIED:
        return Order.STORED
    order = _ORDERS.get(number)
    if order is None:
        raise _invalid(field, f"the order {number} is unknown")
    return order


def lifecycle_to_proto(lifecycle: Lifecycle) -> setting_pb2.Lifecycle:
    """Return the number of *lifecycle*."""
    return _LIFECYCLE_NUMBERS[lifecycle]  # type: ignore[return-value]  # as above


def lifecycle_from_request(number: int, field: str) -> Lifecycle:
    """Return the lifecycle of a request, where unspecified means ACTIVE.

    Raises:
        InvalidSettingError: It is not known here; the violation names *field*.
    """
    if number == setting_pb2.LIFECYCLE_UNSPECIFIED:
        return Lifecycle.ACTIVE
    lifecycle = _LIFECYCLES.get(number)
    if lifecycle is None:
        raise _invalid(field, f"the lifecycle {number} is unknown")
    return lifecycle


def version_from_request(text: str, field: str) -> Version:
    """Return the version of a request, where empty means 1.0.

    Raises:
        InvalidSettingError: It is not of the form ``major.minor``; the violation names *field*.
    """
    try:
        return Version.parse(text) if text else Version()
    except ValueError as exc:
        raise _invalid(field, str(exc)) from None


def _fill_rule(message: setting_pb2.Rule, rule: Rule) -> None:
    message.id = rule.id
    message.number = rule.number
    message.enabled = rule.enabled
    message.description = rule.description
    if rule.condition is not None:
        fill_condition(message.condition, rule.condition)
    match rule.outcome:
        case ValueOutcome(value):
            fill_value(message.value, value)
        case Distribution(unit, salt, variants, algorithm):
            message.distribution.unit = unit
            message.distribution.salt = salt
            message.distribution.algorithm = algorithm_to_proto(algorithm)
            for variant in variants:
                fill_value(
                    message.distribution.variants.add(name=variant.name, weight=variant.weight).value,
                    variant.value,
                )
        case None:
            pass
    mapping_to_proto(rule.metadata, message.metadata)


def _invalid(field: str, description: str) -> InvalidSettingError:
    return InvalidSettingError(f"{field}: {description}", violations=[FieldViolation(field, description)])


def _read_setting(message: setting_pb2.Setting, field: str | None) -> Setting:
    """Read a setting: of a request when its *field* is given, of a peer's answer when it is None."""
    if field is None:
        # A reader never orders rules and never writes, so that an unknown order or lifecycle costs nothing.
        order = _ORDERS.get(message.order, Order.STORED)
        lifecycle = _LIFECYCLES.get(message.lifecycle, Lifecycle.ACTIVE)
        metadata = context_from_proto(message.metadata)
        rules = tuple(rule_from_proto(rule) for rule in message.rules)
    else:
        order = order_from_request(message.order, f"{field}.order")
        lifecycle = lifecycle_from_request(message.lifecycle, f"{field}.lifecycle")
        metadata = context_from_request(message.metadata, f"{field}.metadata")
        rules = tuple(rule_from_request(rule, f"{field}.rules[{i}]") for i, rule in enumerate(message.rules))
    prefix = field or f"setting {message.name!r}"
    return Setting(
        id=message.id,
        name=message.name,
        type=_read_type(message.type, f"{prefix}.type"),
        default=value_from_request(message.default, f"{prefix}.default"),
        aliases=tuple(message.aliases),
        description=message.description,
        version=version_from_request(message.version, f"{prefix}.version"),
        features=tuple(message.features.values) if message.HasField("features") else None,
        metadata=metadata,
        owner=message.owner,
        tags=tuple(message.tags),
        order=order,
        enabled=message.enabled if message.HasField("enabled") else True,
        value=_optional_value(message, "value", prefix),
        off=_optional_value(message, "off", prefix),
        rules=rules,
        lifecycle=lifecycle,
        declared=message.declared,
        revision=message.revision,
    )


def _optional_value(message: setting_pb2.Setting, name: str, prefix: str) -> Value | Absent:
    if not message.HasField(name):
        return ABSENT
    return value_from_request(getattr(message, name), f"{prefix}.{name}")


def _read_type(text: str, field: str) -> SettingType:
    try:
        return parse_type(text)
    except InvalidTypeError as exc:
        raise InvalidTypeError(
            f"{field}: {exc.message}", violations=[FieldViolation(field, exc.message)]
        ) from None


def _outcome_from_request(message: setting_pb2.Rule, field: str) -> Outcome:
    match message.WhichOneof("outcome"):
        case "value":
            return ValueOutcome(value_from_request(message.value, f"{field}.value"))
        case "distribution":
            distribution = message.distribution
            place = f"{field}.distribution"
            return Distribution(
                distribution.unit,
                distribution.salt,
                tuple(
                    Variant(
                        variant.name,
                        variant.weight,
                        value_from_request(variant.value, f"{place}.variants[{i}].value"),
                    )
                    for i, variant in enumerate(distribution.variants)
                ),
                algorithm_from_request(distribution.algorithm, f"{place}.algorithm"),
            )
        case _:
            description = "a rule needs a value or a distribution"
            raise InvalidArgumentError(
                f"{field}.outcome: {description}",
                violations=[FieldViolation(f"{field}.outcome", description)],
                reason="OUTCOME_REQUIRED",
            )


def _distribution_from_proto(message: setting_pb2.Distribution) -> Distribution | None:
    algorithm = known_algorithm(message.algorithm)
    if algorithm is None:
        return None
    variants: list[Variant] = []
    for variant in message.variants:
        value = value_from_proto(variant.value)
        if value is ABSENT:
            return None
        variants.append(Variant(variant.name, variant.weight, value))
    return Distribution(message.unit, message.salt, tuple(variants), algorithm)
