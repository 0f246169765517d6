"""Render `buf/validate/validate.proto` from the descriptor inside the installed `protovalidate` wheel.

Our proto files import it for their request rules. The registry that publishes its source cannot be reached
offline, and a copy in the repository would drift from the validator; the wheel, which `uv.lock` pins, is the
one source of both. Comments and the options of its own fields (CEL expressions that the validator has built
in) are left out: only names, numbers and types are needed to encode our annotations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import protovalidate
from google.protobuf import descriptor_pb2

# 2^29, one past the highest field number: protoc writes `to max` for it.
_END_OF_FIELD_NUMBERS = 536870912

_FIELD = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    getattr(_FIELD, f"TYPE_{name.upper()}"): name
    for name in (
        "double",
        "float",
        "int64",
        "uint64",
        "int32",
        "fixed64",
        "fixed32",
        "bool",
        "string",
        "bytes",
        "uint32",
        "sfixed32",
        "sfixed64",
        "sint32",
        "sint64",
    )
}
_LABELS = {
    _FIELD.LABEL_OPTIONAL: "optional",
    _FIELD.LABEL_REQUIRED: "required",
    _FIELD.LABEL_REPEATED: "repeated",
}


def descriptor() -> descriptor_pb2.FileDescriptorProto:
    """Return the descriptor that the installed validator was built with."""
    return descriptor_pb2.FileDescriptorProto.FromString(
        protovalidate.ViolationPb.desc().file.proto.to_binary()
    )


def render(file: descriptor_pb2.FileDescriptorProto) -> str:
    """Return proto2 source that defines the same messages, enums and extensions as *file*.

    Raises:
        ValueError: *file* uses a construct that the rendering does not know.
    """
    # An empty syntax is proto2: the compiler leaves the default out.
    if file.syntax not in ("", "proto2"):
        raise ValueError(f"cannot render syntax {file.syntax!r}, only proto2")
    lines = [
        f"// Rendered by tools/validate_proto.py from the protovalidate wheel's {file.name}. DO NOT EDIT.",
        "",
        'syntax = "proto2";',
        "",
        f"package {file.package};",
        "",
        *(f'import "{name}";' for name in file.dependency),
        "",
    ]
    for enum in file.enum_type:
        lines += [*_enum(enum), ""]
    for message in file.message_type:
        lines += [*_message(message), ""]
    for extension in file.extension:
        lines += [f"extend {extension.extendee} {{", *_indent(_field(extension, {})), "}", ""]
    return "\n".join(lines)


def _message(message: descriptor_pb2.DescriptorProto) -> Iterator[str]:
    maps = {}
    nested = []
    for inner in message.nested_type:
        if inner.options.map_entry:
            key, value = inner.field
            maps[inner.name] = f"map<{_type(key)}, {_type(value)}>"
        else:
            nested.append(inner)
    yield f"message {message.name} {{"
    for enum in message.enum_type:
        yield from _indent(_enum(enum))
    for inner in nested:
        yield from _indent(_message(inner))
    opened: set[int] = set()
    for field in message.field:
        if not field.HasField("oneof_index"):
            yield from _indent(_field(field, maps))
        elif field.oneof_index not in opened:
            opened.add(field.oneof_index)
            yield f"  oneof {message.oneof_decl[field.oneof_index].name} {{"
            for member in message.field:
                if member.HasField("oneof_index") and member.oneof_index == field.oneof_index:
                    yield f"    {_type(member)} {member.name} = {member.number};"
            yield "  }"
    for extensions in message.extension_range:
        yield f"  extensions {_numbers(extensions.start, extensions.end)};"
    for numbers in message.reserved_range:
        yield f"  reserved {_numbers(numbers.start, numbers.end)};"
    for name in message.reserved_name:
        yield f'  reserved "{name}";'
    yield "}"


def _enum(enum: descriptor_pb2.EnumDescriptorProto) -> Iterator[str]:
    yield f"enum {enum.name} {{"
    if enum.options.allow_alias:
        yield "  option allow_alias = true;"
    for value in enum.value:
        yield f"  {value.name} = {value.number};"
    for numbers in enum.reserved_range:
        # Unlike a message's, an enum's reserved range includes its end.
        yield f"  reserved {_numbers(numbers.start, numbers.end + 1)};"
    for name in enum.reserved_name:
        yield f'  reserved "{name}";'
    yield "}"


def _field(field: descriptor_pb2.FieldDescriptorProto, maps: dict[str, str]) -> Iterator[str]:
    if field.default_value:
        raise ValueError(f"cannot render the default of {field.name}")
    entry = maps.get(field.type_name.rpartition(".")[2])
    kind = entry if entry is not None else f"{_LABELS[field.label]} {_type(field)}"
    yield f"{kind} {field.name} = {field.number};"


def _type(field: descriptor_pb2.FieldDescriptorProto) -> str:
    if field.type == _FIELD.TYPE_GROUP:
        raise ValueError(f"cannot render the group {field.name}")
    return field.type_name or _SCALARS[field.type]


def _numbers(start: int, end: int) -> str:
    if end == start + 1:
        return str(start)
    return f"{start} to {'max' if end == _END_OF_FIELD_NUMBERS else end - 1}"


def _indent(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield f"  {line}"
