"""Mutations, changes and change-sets as messages."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Final, cast

from google.protobuf.field_mask_pb2 import FieldMask

from rheo.v1 import change_pb2, condition_pb2, setting_pb2
from rheostat.errors import FieldViolation, InvalidArgumentError
from rheostat.model.change import (
    SETTING_FIELDS,
    Change,
    ChangeSet,
    DeleteRule,
    DeleteSegment,
    DeleteSetting,
    Environment,
    Item,
    MoveRule,
    Mutation,
    PlanWarning,
    Project,
    PutEnvironment,
    PutProject,
    PutRule,
    PutSegment,
    PutSetting,
    RenameSetting,
    SetFeatures,
    SetValue,
    UnsetValue,
)
from rheostat.model.condition import AllOf
from rheostat.model.key import Key
from rheostat.model.setting import Lifecycle, Order, Segment, Setting
from rheostat.model.value import ABSENT, Value
from rheostat.model.webhook import Webhook
from rheostat.wire.instant import instant_from_proto, instant_to_proto
from rheostat.wire.key import key_from_proto, key_to_proto
from rheostat.wire.project import (
    environment_from_proto,
    environment_to_proto,
    project_from_proto,
    project_to_proto,
)
from rheostat.wire.setting import (
    fill_segment,
    fill_setting,
    lifecycle_from_request,
    lifecycle_to_proto,
    order_from_request,
    order_to_proto,
    rule_from_request,
    rule_to_proto,
    segment_from_proto,
    segment_from_request,
    segment_to_proto,
    setting_from_proto,
    version_from_request,
)
from rheostat.wire.value import (
    context_from_proto,
    context_from_request,
    mapping_to_proto,
    string_list_to_proto,
    value_from_request,
    value_to_proto,
)
from rheostat.wire.webhook import webhook_from_proto, webhook_to_proto

__all__ = [
    "change_from_proto",
    "change_set_from_proto",
    "change_set_to_proto",
    "change_to_proto",
    "mutation_from_request",
    "mutation_to_proto",
    "mutations_from_request",
    "warning_from_proto",
    "warning_to_proto",
]


def mutations_from_request(
    mutations: Iterable[change_pb2.Mutation], *, project: str = "", field: str = "mutations"
) -> list[Mutation]:
    """Return the mutations of a request, in order.

    Args:
        mutations: The messages.
        project: The slug of the request's project, which a `PutProject` without a name is about.
        field: The path of the repeated field in the request.

    Raises:
        InvalidArgumentError: A part of a mutation is unknown, missing or wrong; the violation names it, such as
            ``mutations[2].put_rule.rule.condition.comparison.op``.
    """
    return [
        mutation_from_request(message, f"{field}[{i}]", project=project)
        for i, message in enumerate(mutations)
    ]


def mutation_from_request(message: change_pb2.Mutation, field: str, *, project: str = "") -> Mutation:
    """Return one mutation of a request; see `mutations_from_request`.

    Raises:
        InvalidArgumentError: As `mutations_from_request`; the path starts with *field*.
    """
    kind = message.WhichOneof("kind")
    if kind is None:
        raise _invalid(field, "a mutation has no kind that is known here")
    if kind == "put_project":
        return _read_put_project(message.put_project, f"{field}.put_project", project)
    return _READERS[kind](getattr(message, kind), f"{field}.{kind}")


def mutation_to_proto(mutation: Mutation) -> change_pb2.Mutation:
    """Return *mutation* as a message from which `mutation_from_request` makes the same mutation.

    In a `PutSetting`, an empty text, list or mapping and `ABSENT` are the same on the wire: both clear the
    field. The number of a rule, and the revision of a segment, are the server's and not sent.

    Raises:
        InvalidArgumentError: It holds what the contract cannot say, such as two places for a rule.
    """
    message = change_pb2.Mutation()
    match mutation:
        case PutProject(slug, title, description):
            message.put_project.project.name = slug
            _fill_named(message.put_project, "project", {"title": title, "description": description})
        case PutEnvironment():
            message.put_environment.environment.name = mutation.slug
            _fill_named(
                message.put_environment,
                "environment",
                {name: getattr(mutation, name) for name in _ENVIRONMENT_FIELDS},
            )
        case PutSetting(name, fields, environment):
            message.put_setting.environment = environment
            message.put_setting.setting.name = name
            _fill_setting(message.put_setting, fields)
        case RenameSetting(name, new_name, environment):
            message.rename_setting.environment = environment
            message.rename_setting.name = name
            message.rename_setting.new_name = new_name
        case DeleteSetting(name, environment):
            message.delete_setting.environment = environment
            message.delete_setting.name = name
        case SetValue(name, value, environment):
            message.set_value.environment = environment
            message.set_value.name = name
            message.set_value.value.CopyFrom(value_to_proto(value))
        case UnsetValue(name, environment):
            message.unset_value.environment = environment
            message.unset_value.name = name
        case PutRule(setting, rule, before_id, after_id, environment=environment):
            message.put_rule.environment = environment
            message.put_rule.setting = setting
            message.put_rule.rule.CopyFrom(rule_to_proto(rule))
            message.put_rule.rule.ClearField("number")
            if mutation.keep_enabled:
                message.put_rule.rule.ClearField("enabled")
            if mutation.keep_algorithms:
                for part in _hashed_parts(message.put_rule.rule):
                    part.ClearField("algorithm")
            _fill_place(message.put_rule, before_id, after_id)
        case MoveRule(setting, rule_id, before_id, after_id, environment):
            message.move_rule.environment = environment
            message.move_rule.setting = setting
            message.move_rule.rule_id = rule_id
            _fill_place(message.move_rule, before_id, after_id)
        case DeleteRule(setting, rule_id, environment):
            message.delete_rule.environment = environment
            message.delete_rule.setting = setting
            message.delete_rule.rule_id = rule_id
        case PutSegment(segment):
            message.put_segment.segment.CopyFrom(segment_to_proto(segment))
            message.put_segment.segment.ClearField("revision")
            if mutation.keep_condition:
                message.put_segment.segment.ClearField("condition")
            else:
                message.put_segment.update_mask.paths.append("condition")
            if mutation.keep_description:
                message.put_segment.segment.ClearField("description")
            else:
                message.put_segment.update_mask.paths.append("description")
        case DeleteSegment(name):
            message.delete_segment.name = name
        case SetFeatures(features):
            message.set_features.SetInParent()
            message.set_features.features.extend(features)
    return message


def change_to_proto(change: Change) -> change_pb2.Change:
    """Return *change* as a message; a key in it comes without its verifier."""
    message = change_pb2.Change(
        project=change.project, environment=change.environment, kind=change.kind, key=change.key
    )
    if change.before is not None:
        _fill_body(message.before, change.before)
    if change.after is not None:
        _fill_body(message.after, change.after)
    return message


def change_from_proto(message: change_pb2.Change) -> Change:
    """Return the change of a peer's answer; a body of a kind that this version does not know is None.

    Raises:
        InvalidArgumentError: A setting or key in it is of a type or kind that this version does not know.
    """
    return Change(
        project=message.project,
        environment=message.environment,
        kind=message.kind,
        key=message.key,
        before=_read_body(message.before),
        after=_read_body(message.after),
    )


def change_set_to_proto(change_set: ChangeSet) -> change_pb2.ChangeSet:
    """Return *change_set* as a message, naming the environments that its changes name."""
    message = change_pb2.ChangeSet(
        revision=change_set.revision,
        generation=change_set.generation,
        project=change_set.project,
        environments=sorted({change.environment for change in change_set.changes} - {""}),
        author=change_set.author,
        actor=change_set.actor,
        message=change_set.message,
        request_id=change_set.request_id,
        changes=[change_to_proto(change) for change in change_set.changes],
        reverts=change_set.reverts,
        draft=change_set.draft,
        approved_by=change_set.approved_by,
        forced_clients=change_set.forced_clients,
    )
    if change_set.created_at is not None:
        message.committed_at.CopyFrom(instant_to_proto(change_set.created_at))
    return message


def change_set_from_proto(message: change_pb2.ChangeSet) -> ChangeSet:
    """Return the change-set of a peer's answer, without what only the store knows of it.

    Raises:
        InvalidArgumentError: As `change_from_proto`.
    """
    return ChangeSet(
        project=message.project,
        changes=tuple(change_from_proto(change) for change in message.changes),
        author=message.author,
        message=message.message,
        actor=message.actor,
        request_id=message.request_id,
        reverts=message.reverts,
        revision=message.revision,
        generation=message.generation,
        created_at=instant_from_proto(message.committed_at) if message.HasField("committed_at") else None,
        draft=message.draft,
        approved_by=tuple(message.approved_by),
        forced_clients=tuple(message.forced_clients),
    )


def warning_to_proto(warning: PlanWarning) -> change_pb2.Warning:
    """Return *warning* as a message."""
    message = change_pb2.Warning(code=warning.code, message=warning.message)
    if warning.mutation >= 0:
        message.mutation_index = warning.mutation
    if warning.context is not None:
        mapping_to_proto(warning.context, message.example)
    return message


def warning_from_proto(message: change_pb2.Warning) -> PlanWarning:
    """Return the warning of a peer's answer; an empty example is none."""
    return PlanWarning(
        code=message.code,
        message=message.message,
        mutation=message.mutation_index if message.HasField("mutation_index") else -1,
        context=context_from_proto(message.example) if message.example else None,
    )


def _invalid(field: str, description: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"{field}: {description}", violations=[FieldViolation(field, description)])


def _named_fields(
    message: Any, mask: FieldMask, allowed: Collection[str], field: str, refused: Mapping[str, str]
) -> tuple[list[str], frozenset[str]]:
    """Return the fields that a mutation is about, and those of them that are set in *message*.

    Args:
        message: The thing that is put.
        mask: Names the fields to take over; empty means all that are set.
        allowed: The fields that may be taken over.
        field: The path of the mutation.
        refused: Why fields other than these are not allowed, by name, where there is more to say.
    """
    present = frozenset(descriptor.name for descriptor, _ in message.ListFields())
    for i, path in enumerate(mask.paths):
        if path not in allowed:
            hint = f": {refused[path]}" if path in refused else ""
            raise _invalid(f"{field}.update_mask.paths[{i}]", f"the field {path!r} cannot be put{hint}")
    named = set(mask.paths) or present
    return [name for name in allowed if name in named], present


def _read_put_project(message: change_pb2.PutProject, field: str, project: str) -> PutProject:
    named, _ = _named_fields(
        message.project,
        message.update_mask,
        ("title", "description"),
        field,
        {"features": "use set_features"},
    )
    if not message.update_mask.paths and message.project.features:
        raise _invalid(f"{field}.project.features", "cannot be put: use set_features")
    return PutProject(
        message.project.name or project,
        title=message.project.title if "title" in named else None,
        description=message.project.description if "description" in named else None,
    )


_ENVIRONMENT_FIELDS: Final = ("title", "description", "protected", "required_approvals", "self_approval")


def _read_put_environment(message: change_pb2.PutEnvironment, field: str) -> PutEnvironment:
    environment = message.environment
    named, _ = _named_fields(environment, message.update_mask, _ENVIRONMENT_FIELDS, field, {})
    return PutEnvironment(environment.name, **{name: getattr(environment, name) for name in named})


_SETTING_REFUSED: Final = {"name": "use rename_setting", "rules": "use put_rule"}


def _read_put_setting(message: change_pb2.PutSetting, field: str) -> PutSetting:
    setting = message.setting
    named, present = _named_fields(setting, message.update_mask, SETTING_FIELDS, field, _SETTING_REFUSED)
    if not message.update_mask.paths and setting.rules:
        raise _invalid(f"{field}.setting.rules", "cannot be put: use put_rule")
    return PutSetting(
        setting.name,
        {
            name: _setting_field(setting, name, f"{field}.setting.{name}") if name in present else ABSENT
            for name in named
        },
        message.environment,
    )


def _setting_field(setting: setting_pb2.Setting, name: str, field: str) -> object:
    match name:
        case "default" | "value" | "off":
            return value_from_request(getattr(setting, name), field)
        case "aliases" | "tags":
            return tuple(getattr(setting, name))
        case "features":
            return tuple(setting.features.values)
        case "metadata":
            return context_from_request(setting.metadata, field)
        case "version":
            return version_from_request(setting.version, field)
        case "order":
            return order_from_request(setting.order, field)
        case "lifecycle":
            return lifecycle_from_request(setting.lifecycle, field)
        case _:
            return getattr(setting, name)


def _fill_setting(message: change_pb2.PutSetting, fields: Mapping[str, object]) -> None:
    setting = message.setting
    # In the order of the contract, so that equal mutations are equal messages.
    for name in sorted(fields, key=SETTING_FIELDS.index):
        message.update_mask.paths.append(name)
        content = fields[name]
        if content is ABSENT or (name == "features" and content is None):
            continue
        match name:
            case "default" | "value" | "off":
                getattr(setting, name).CopyFrom(value_to_proto(cast("Value", content)))
            case "aliases" | "tags":
                getattr(setting, name).extend(content)
            case "features":
                setting.features.CopyFrom(string_list_to_proto(cast("tuple[str, ...]", content)))
            case "metadata":
                mapping_to_proto(cast("Mapping[str, Value]", content), setting.metadata)
            case "order":
                setting.order = order_to_proto(cast("Order", content))
            case "lifecycle":
                setting.lifecycle = lifecycle_to_proto(cast("Lifecycle", content))
            case "type" | "version":
                setattr(setting, name, str(content))
            case _:
                setattr(setting, name, content)


def _fill_named(message: Any, part: str, fields: Mapping[str, object]) -> None:
    """Write those of *fields* that are not None into a part of *message*, and name them in its mask."""
    for name, content in fields.items():
        if content is not None:
            message.update_mask.paths.append(name)
            setattr(getattr(message, part), name, content)


def _read_put_rule(message: change_pb2.PutRule, field: str) -> PutRule:
    algorithms = [part.algorithm for part in _hashed_parts(message.rule)]
    return PutRule(
        message.setting,
        rule_from_request(message.rule, f"{field}.rule"),
        before_id=message.before_id,
        after_id=message.after_id,
        keep_enabled=not message.rule.HasField("enabled"),
        keep_algorithms=bool(algorithms) and not any(algorithms),
        environment=message.environment,
    )


def _hashed_parts(
    rule: setting_pb2.Rule,
) -> Iterator[setting_pb2.Distribution | condition_pb2.Percentage]:
    """Yield the parts of a rule that name an algorithm, or could."""
    if rule.HasField("distribution"):
        yield rule.distribution
    pending = [rule.condition]
    while pending:
        condition = pending.pop()
        match condition.WhichOneof("kind"):
            case "percentage":
                yield condition.percentage
            case "all_of":
                pending.extend(condition.all_of.conditions)
            case "any_of":
                pending.extend(condition.any_of.conditions)
            case "negation":
                pending.append(condition.negation.condition)
            case _:
                pass


def _fill_place(message: change_pb2.PutRule | change_pb2.MoveRule, before_id: str, after_id: str) -> None:
    if before_id and after_id:
        raise InvalidArgumentError(
            f"a rule cannot be put both before {before_id!r} and after {after_id!r}",
            violations=[FieldViolation("place", "names two rules")],
        )
    if before_id:
        message.before_id = before_id
    elif after_id:
        message.after_id = after_id


def _read_put_segment(message: change_pb2.PutSegment, field: str) -> PutSegment:
    named, present = _named_fields(
        message.segment, message.update_mask, ("condition", "description"), field, {}
    )
    keep_description = "description" not in named
    description = "" if keep_description else message.segment.description
    if "condition" not in named:
        # The stored one is kept, so that what stands here is never looked at.
        segment = Segment(message.segment.name, AllOf(()), description)
        return PutSegment(segment, keep_description=keep_description, keep_condition=True)
    if "condition" not in present:
        raise _invalid(f"{field}.segment.condition", "a segment cannot be without a condition")
    condition = segment_from_request(message.segment, f"{field}.segment").condition
    return PutSegment(
        Segment(message.segment.name, condition, description), keep_description=keep_description
    )


_READERS: Final[Mapping[str, Callable[[Any, str], Mutation]]] = {
    "put_environment": _read_put_environment,
    "put_setting": _read_put_setting,
    "rename_setting": lambda message, _: RenameSetting(message.name, message.new_name, message.environment),
    "delete_setting": lambda message, _: DeleteSetting(message.name, message.environment),
    "set_value": lambda message, field: SetValue(
        message.name, value_from_request(message.value, f"{field}.value"), message.environment
    ),
    "unset_value": lambda message, _: UnsetValue(message.name, message.environment),
    "put_rule": _read_put_rule,
    "move_rule": lambda message, _: MoveRule(
        message.setting, message.rule_id, message.before_id, message.after_id, message.environment
    ),
    "delete_rule": lambda message, _: DeleteRule(message.setting, message.rule_id, message.environment),
    "put_segment": _read_put_segment,
    "delete_segment": lambda message, _: DeleteSegment(message.name),
    "set_features": lambda message, _: SetFeatures(tuple(message.features)),
}


def _fill_body(message: change_pb2.ChangeBody, item: Item) -> None:
    match item:
        case Setting():
            fill_setting(message.setting, item)
        case Segment():
            fill_segment(message.segment, item)
        case Project():
            message.project.CopyFrom(project_to_proto(item))
        case Environment():
            message.environment.CopyFrom(environment_to_proto(item))
        case Key():
            message.key.CopyFrom(key_to_proto(item))
        case Webhook():
            message.webhook.CopyFrom(webhook_to_proto(item))


def _read_body(message: change_pb2.ChangeBody) -> Item | None:
    match message.WhichOneof("body"):
        case "setting":
            return setting_from_proto(message.setting)
        case "segment":
            return segment_from_proto(message.segment)
        case "project":
            return project_from_proto(message.project)
        case "environment":
            return environment_from_proto(message.environment)
        case "key":
            return key_from_proto(message.key)
        case "webhook":
            return webhook_from_proto(message.webhook)[0]
        case _:
            return None
