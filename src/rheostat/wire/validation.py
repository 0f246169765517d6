"""The request rules of the contract, checked: the `buf.validate` annotations in `proto/rheo/v1`.

Generated clients carry no annotations, so that they need no validator. The server reads them from
`rheo/v1/rules.binpb`, the descriptors with their annotations. Needs the extra `server`.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Final

import protovalidate
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, EncodeError, Message
from google.protobuf.message_factory import GetMessageClass

from rheostat.errors import FieldViolation

__all__ = ["violations"]

_SEARCHED_PARTS: Final = 2_000
"""In a message of more parts than this the search ends at the first violation.

Each part can break several rules, and a violation costs some 30 µs: half a million empty messages are one
mebibyte, and would take a minute.
"""

_loading = threading.Lock()


@dataclass(frozen=True, slots=True)
class _Rules:
    """What is checked of a type of message.

    Attributes:
        annotated: Its class with the annotations.
        most: How many elements its repeated fields and maps may have.
    """

    annotated: type[Message]
    most: Mapping[str, int] = field(default_factory=dict)


def violations(message: Message) -> list[FieldViolation]:
    """Return what *message*, of package `rheo.v1`, has against its rules; empty when it keeps them.

    The paths are those of the request, such as ``mutations[2].put_setting.setting.name``; a rule of the whole
    message has an empty path. All violations are found in a message of at most `_SEARCHED_PARTS` parts, and one
    in a larger one. Safe from any thread. The first call loads the rules, and each type's first call compiles
    its own (some 40 ms in all); after that a read's request takes 5 to 10 µs, and one rule of a large commit
    as long.

    Raises:
        LookupError: *message* is of no type of the contract.
    """
    loaded, validator = _rules()
    name = message.DESCRIPTOR.full_name
    rules = loaded.get(name)
    if rules is None:
        raise LookupError(f"the contract has no message {name!r}")
    # First, and here: the validator would look at each of a million elements before it counts them.
    for repeated, most in rules.most.items():
        if len(getattr(message, repeated)) > most:
            return [FieldViolation(repeated, f"must contain no more than {most} item(s)")]
    try:
        # Only descriptors of their own have the annotations, so that the bytes are parsed again.
        annotated = rules.annotated.FromString(message.SerializeToString())
        found = validator.collect_violations(annotated, fail_fast=True)
        if found and not _has_more_parts(message, _SEARCHED_PARTS):
            found = validator.collect_violations(annotated)
    except (DecodeError, EncodeError, RecursionError):
        # A message from JSON can nest deeper than one from bytes.
        return [FieldViolation("", "the message nests too deeply")]
    return [_violation(violation.proto) for violation in found]


def _rules() -> tuple[Mapping[str, _Rules], protovalidate.Validator]:
    with _loading:
        return _load()


@functools.cache
def _load() -> tuple[Mapping[str, _Rules], protovalidate.Validator]:
    content = resources.files("rheo.v1").joinpath("rules.binpb").read_bytes()
    files = descriptor_pb2.FileDescriptorSet.FromString(content)
    # A pool of their own: the default one has the same names, without the annotations.
    pool = DescriptorPool()
    for file in files.file:
        for made in file.message_type:
            if f"{file.package}.{made.name}" == "rheo.v1.Value":
                # No rule looks into a value, and the validator would spend 5 µs on each element of a large one.
                made.ClearField("field")
                made.ClearField("oneof_decl")
        pool.Add(file)
    loaded: dict[str, _Rules] = {}
    for file in files.file:
        if file.package == "rheo.v1":
            for made in file.message_type:
                descriptor = pool.FindMessageTypeByName(f"{file.package}.{made.name}")
                # Made here, before threads share them.
                loaded[descriptor.full_name] = _Rules(GetMessageClass(descriptor), _most(descriptor, pool))
    return loaded, protovalidate.Validator()


def _most(descriptor: Descriptor, pool: DescriptorPool) -> dict[str, int]:
    options_class: Any = GetMessageClass(pool.FindMessageTypeByName("google.protobuf.FieldOptions"))
    extension = pool.FindExtensionByName("buf.validate.field")
    most: dict[str, int] = {}
    for described in descriptor.fields:
        options = options_class.FromString(described.GetOptions().SerializeToString())
        annotation = options.Extensions[extension]
        if annotation.repeated.HasField("max_items"):
            most[described.name] = annotation.repeated.max_items
        elif annotation.map.HasField("max_pairs"):
            most[described.name] = annotation.map.max_pairs
    return most


def _has_more_parts(message: Message, most: int) -> bool:
    """Tell whether *message* has more than *most* fields and elements, at all depths."""
    waiting = [message]
    count = 0
    while waiting:
        for described, content in waiting.pop().ListFields():
            is_message = described.type == FieldDescriptor.TYPE_MESSAGE
            if not described.is_repeated:
                count += 1
                if is_message:
                    waiting.append(content)
            else:
                count += len(content)
                if count <= most and is_message:
                    waiting.extend(
                        part
                        for part in (content.values() if hasattr(content, "values") else content)
                        if isinstance(part, Message)
                    )
            if count > most:
                return True
    return False


def _violation(found: protovalidate.ViolationPb) -> FieldViolation:
    path = ""
    for element in found.field.elements if found.field is not None else ():
        path += f".{element.field_name}" if path else element.field_name
        match element.subscript:
            case None:
                pass
            case subscript if isinstance(subscript.value, str):
                path += f'["{subscript.value}"]'
            case subscript:
                path += f"[{subscript.value}]"
    return FieldViolation(path, found.message)
