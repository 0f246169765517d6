"""Hostile requests, made from the descriptors of the contract. The same seed makes the same requests."""

from __future__ import annotations

import base64
import copy
import gzip
import json
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tests.server.exchange import WATCH, Asked, asked_by_get, enveloped

HOSTILE_TEXTS: Final = (
    "",
    " ",
    "\0",
    "a\0b",
    "'; DROP TABLE change_set; --",
    '" OR ""="',
    "1 UNION SELECT token_key FROM store",
    "../../../../etc/passwd",
    "..\\..\\boot.ini",
    "file:///etc/shadow",
    "%s%s%s%n",
    "{0.__class__.__init__.__globals__}",
    "${jndi:ldap://127.0.0.1/a}",
    "{{7*7}}",
    "__class__",
    "constructor",
    "<script>alert(1)</script>",
    "\r\nx-injected: 1",
    "\u202e\u200b\ufeff",
    "👩‍👩‍👧‍👦" * 20,
    "ß" * 300,
    "İ",
    "e\u0301",
    "x" * 10_240,
    "9" * 400,
    "-0",
    "NaN",
    "1e400",
    "null",
    "true",
    "[" * 500,
    "(a+)+$",
    "(?P<a>.)(?P=a)",
    "\\",
    "[z-a]",
    "a{1000}{1000}",
    "Enum[",
    "Sequence<" * 200 + "int" + ">" * 200,
    'Json[{"$ref": "#"}]',
    'Json[{"$ref": "file:///etc/passwd"}]',
    'Json[{"$schema": "http://127.0.0.1:1/", "type": "nonsense"}]',
    'Json[{"pattern": "(a+)+$"}]',
)
LIKELY_TEXTS: Final = (
    "default",
    "shop",
    "production",
    "staging",
    "a",
    "u1",
    "eu",
    "1.0",
    "x.y",
    "1",
    "2026-01-01",
)
INTEGERS: Final = (0, 1, 2, 3, 5, 7, 50, 100, 1_000, 1_001, 100_000, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1)  # fmt: skip
NUMBERS: Final = (
    0.0,
    -0.0,
    1.0,
    0.5,
    -1.5,
    1e308,
    -1e308,
    5e-324,
    2.0**53,
    float("nan"),
    float("inf"),
    -float("inf"),
)
RANGES: Final = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
JSON_ODDITIES: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1.5, 2**64, -(2**63) - 1, 10**400, 1e308, float("nan"), float("inf"), "", "NaN", "-Infinity",
    "\ud800", "a\udfffb", [], {}, [[]], [None], {"": None}, "NO_SUCH_NAME", "99999999999999999999", "!!not base64!!", {"@type": "x"},
)  # fmt: skip
CONTENT_TYPES: Final = (
    "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/xml", "application/",
    "application/json; charset=utf-16", "application/JSON", "application/proto", "application/json", "application/connect+proto",
    "application/connect+json", "application/grpc", "application/grpc+proto", "application/grpc-web+json", "a" * 5_000, "\xff",
)  # fmt: skip


class Fuzzer:
    """Makes requests. The samples are what the server would take: parts of them are put into new requests."""

    def __init__(self, seed: str, samples: Iterable[Message]) -> None:
        self._random = random.Random(seed)
        self._samples: dict[str, list[Message]] = defaultdict(list)
        self._texts: dict[str, list[str]] = defaultdict(list)
        self._wildness = 0.0
        for sample in samples:
            self._collect(sample)

    def requests(self, method: MethodDescriptor, count: int) -> Iterator[Asked]:
        """Yield *count* requests of a method, binary and JSON in turn."""
        for i in range(count):
            yield self._request(method, "json" if i % 2 else "proto")

    def message(self, descriptor: Descriptor) -> Message:
        """Return a message, more or less like one that the server would take."""
        self._wildness = self._random.choice([0.0, 0.02, 0.1, 0.4])
        samples = self._samples.get(descriptor.full_name)
        if samples and self._random.random() < 0.7:
            message = copy.deepcopy(self._random.choice(samples))
            for _ in range(self._random.choice([0, 1, 1, 2, 3])):
                self._mutate(message)
            return message
        message = GetMessageClass(descriptor)()
        self._fill(message, 0)
        return message

    # Messages.

    def _collect(self, message: Message) -> None:
        samples = self._samples[message.DESCRIPTOR.full_name]
        if len(samples) < 400:
            samples.append(message)
        for field, content in message.ListFields():
            if _is_map(field):
                values = list(content.values())
            else:
                values = list(content) if field.is_repeated else [content]
            for value in values:
                if isinstance(value, Message):
                    self._collect(value)
                elif isinstance(value, str) and len(self._texts[field.name]) < 400:
                    self._texts[field.name].append(value)

    def _fill(self, message: Message, depth: int) -> None:
        fields = message.DESCRIPTOR.fields
        in_oneofs = {field.name for oneof in message.DESCRIPTOR.oneofs for field in oneof.fields[1:]}
        for field in fields:
            likely = 0.75 if field.name in ("project", "environment") else 0.5 if depth < 2 else 0.3
            if field.name in in_oneofs or field.containing_oneof is not None:
                likely = 0.6 / len(field.containing_oneof.fields)
            if self._random.random() < likely:
                self._set(message, field, depth)

    def _set(self, message: Any, field: FieldDescriptor, depth: int) -> None:
        if _is_map(field):
            entries = getattr(message, field.name)
            value_field = field.message_type.fields_by_name["value"]
            for _ in range(self._random.choice([1, 1, 2, 3])):
                key = self._scalar(field.message_type.fields_by_name["key"], field.name)
                if value_field.message_type is not None:
                    entries[key].CopyFrom(self._part(value_field, depth + 1))
                else:
                    entries[key] = self._scalar(value_field, field.name)
        elif field.is_repeated:
            count = self._random.choice([1, 1, 2, 3])
            if self._random.random() < 0.02 + self._wildness / 20:
                count = self._random.choice([20, 300, 1_001])
            elements = getattr(message, field.name)
            if field.message_type is None:
                elements.extend(self._scalar(field, field.name) for _ in range(count))
                return
            first = self._part(field, depth + 1)
            elements.add().CopyFrom(first)
            for _ in range(count - 1):
                # Large repeats are of the same: what matters is how many there are.
                elements.add().CopyFrom(first if count > 3 else self._part(field, depth + 1))
        elif field.message_type is not None:
            getattr(message, field.name).CopyFrom(self._part(field, depth + 1))
        else:
            setattr(message, field.name, self._scalar(field, field.name))

    def _part(self, field: FieldDescriptor, depth: int) -> Message:
        descriptor = field.message_type
        samples = self._samples.get(descriptor.full_name)
        if samples and self._random.random() < 0.8 - self._wildness:
            part = copy.deepcopy(self._random.choice(samples))
            if self._random.random() < self._wildness * 2:
                self._mutate(part)
            return part
        part = GetMessageClass(descriptor)()
        if self._random.random() < self._wildness / 3:
            self._nest(part)
        elif depth < 8:
            self._fill(part, depth)
        return part

    def _nest(self, message: Any) -> None:
        """Make *message* as deep as it can be."""
        for _ in range(self._random.choice([10, 31, 33, 60, 99, 120])):
            recursive = [
                field
                for field in message.DESCRIPTOR.fields
                if field.message_type is not None and _leads_to(field.message_type, message.DESCRIPTOR)
            ]
            if not recursive:
                return
            field = self._random.choice(recursive)
            content = getattr(message, field.name)
            if _is_map(field):
                message = content["a"]
            elif field.is_repeated:
                message = content.add()
            else:
                content.SetInParent()
                message = content
        self._fill(message, 8)

    def _mutate(self, message: Message) -> None:
        """Change one field somewhere in *message*."""
        while True:
            parts = [
                part
                for field, content in message.ListFields()
                if field.message_type is not None
                for part in (
                    list(content.values())
                    if _is_map(field) and field.message_type.fields_by_name["value"].message_type is not None
                    else []
                    if _is_map(field)
                    else list(content)
                    if field.is_repeated
                    else [content]
                )
            ]
            if not parts or self._random.random() < 0.15:
                break
            message = self._random.choice(parts)
        if not message.DESCRIPTOR.fields:
            return
        fields = list(message.DESCRIPTOR.fields)
        scalars = [field for field in fields if field.message_type is None]
        field = self._random.choice(scalars if scalars and self._random.random() < 0.6 else fields)
        if self._random.random() < 0.2:
            message.ClearField(field.name)
        else:
            self._set(message, field, 4)

    def _scalar(self, field: FieldDescriptor, name: str) -> Any:
        choose = self._random
        match field.cpp_type:
            case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
                return choose.choice(
                    [b"", b"\0", b"\xff" * 40, choose.randbytes(16), choose.randbytes(72), b"a" * 2_000]
                )
            case FieldDescriptor.CPPTYPE_STRING:
                return self._text(name)
            case FieldDescriptor.CPPTYPE_BOOL:
                return choose.random() < 0.5
            case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
                return choose.choice(NUMBERS)
            case FieldDescriptor.CPPTYPE_ENUM:
                if choose.random() < 0.1:
                    return choose.choice([-1, 99, 2**31 - 1])
                return choose.choice(field.enum_type.values).number
            case kind:
                low, high = RANGES[kind]
                number = choose.choice(INTEGERS) * choose.choice([1, 1, 1, -1])
                return min(max(number, low), high)

    def _text(self, name: str) -> str:
        if self._random.random() < self._wildness:
            return self._random.choice(HOSTILE_TEXTS)
        if name in ("project", "environment", "environments"):
            return self._random.choice(
                ["shop", "default"] if name == "project" else ["production", "staging", ""]
            )
        if name == "page_token":
            raw = b"p" + self._random.choice(
                [b"", b"a", b"payments.retry", b"\0" * 8, b"\0\0\0\0\0\0\0\2", b"\xff" * 8, b"\xff" * 76]
            )
            return base64.urlsafe_b64encode(raw).decode().rstrip("=")
        known = self._texts.get(name) or self._texts.get({"setting": "name", "names": "name"}.get(name, ""))
        if known and self._random.random() < 0.9:
            return self._random.choice(known)
        return self._random.choice(LIKELY_TEXTS)

    # Bytes.

    def _request(self, method: MethodDescriptor, codec: str) -> Asked:
        message = self.message(method.input_type)
        kind = self._random.random()
        try:
            if codec == "json":
                body = self._json_text(message, spoil=kind > 0.75)
            else:
                body = message.SerializeToString()
                if kind > 0.75:
                    body = self._spoiled(body)
        except Exception:  # noqa: BLE001 - too deep, or without a form in JSON: send what nobody expects
            body = self._deep(codec)
        if kind > 0.97:
            body = self._deep(codec)
        return self._transported(method, codec, body, odd=self._random.random() < 0.1)

    def _spoiled(self, body: bytes) -> bytes:
        spoilt = bytearray(body)
        for _ in range(self._random.choice([1, 1, 2, 8])):
            at = self._random.randrange(len(spoilt) + 1)
            match self._random.randrange(8):
                case 0:
                    del spoilt[at:]
                case 1 if at < len(spoilt):
                    spoilt[at] ^= 1 << self._random.randrange(8)
                case 2:
                    spoilt[at:at] = self._random.randbytes(self._random.choice([1, 4, 32]))
                case 3:
                    # An unknown field, of every wire type.
                    spoilt += self._random.choice(
                        [b"\xf8\x07\x01", b"\xfa\x07\x02ab", b"\xf9\x07" + b"\0" * 8, b"\xfb\x07\xfc\x07"]
                    )
                case 4:
                    spoilt[at:at] = b"\xff" * 11
                case 5:
                    # A text that is not UTF-8, in the first field.
                    spoilt += b"\x0a\x03a\xff\xfe"
                case 6:
                    # A length that the body does not have.
                    spoilt += b"\x0a\xff\xff\xff\xff\x07"
                case _:
                    spoilt += spoilt[: at or 1]
        return bytes(spoilt)

    def _json_text(self, message: Message, *, spoil: bool) -> bytes:
        content: Any = MessageToDict(message)
        if not spoil:
            return json.dumps(content).encode()
        for _ in range(self._random.choice([1, 1, 2, 4])):
            content = self._odd_json(content)
        text = json.dumps(content)
        match self._random.randrange(12):
            case 0:
                text = text[: self._random.randrange(len(text) + 1)]
            case 1:
                text += self._random.choice(["}", "garbage", "\0", text])
            case 2:
                text = "\ufeff" + text
            case 3:
                return text.encode("utf-16")
            case 4:
                return bytes(self._spoiled(text.encode()))
            case 5:
                # Each name twice.
                text = f"{text[:-1]},{text[1:]}" if len(text) > 2 and text[0] == "{" else text
            case 6:
                text = text.replace(":", ": /* comment */", 1)
            case 7:
                text = text.replace('"', "'")
            case 8:
                return text.encode().replace(b"a", b"\xff", 1)
            case _:
                pass
        return text.encode("utf-8", "surrogatepass")

    def _odd_json(self, content: Any) -> Any:
        if isinstance(content, dict) and content and self._random.random() < 0.8:
            name = self._random.choice(list(content))
            match self._random.randrange(6):
                case 0:
                    content[
                        self._random.choice(["unknown", "__proto__", "", "@type", name.upper(), f"{name}_"])
                    ] = 1
                case 1:
                    content[name] = [content[name]]
                case 2:
                    content[name] = {"a": content[name]}
                case _:
                    content[name] = self._odd_json(content[name])
            return content
        if isinstance(content, list) and content and self._random.random() < 0.8:
            at = self._random.randrange(len(content))
            content[at] = self._odd_json(content[at])
            return content
        return self._random.choice([*JSON_ODDITIES, self._random.choice(HOSTILE_TEXTS)])

    def _deep(self, codec: str) -> bytes:
        depth = self._random.choice([50, 101, 1_000, 100_000])
        if codec == "json":
            return self._random.choice([b"[", b'{"a":', b'{"attributes":{"a":', b'{"context":']) * depth
        deep = b""
        for _ in range(min(depth, 1_000)):
            deep = b"\x1a" + _varint(len(deep)) + deep
        return deep

    # HTTP.

    def _transported(self, method: MethodDescriptor, codec: str, body: bytes, *, odd: bool) -> Asked:
        full_name = f"{method.containing_service.full_name}/{method.name}"
        streams = full_name == WATCH
        content_type = f"application/{'connect+' if streams else ''}{codec}"
        headers = {"host": "localhost", "content-type": content_type}
        http_method, query = "POST", b""
        reads = method.GetOptions().idempotency_level == 1
        if not odd:
            if reads and len(body) < 4_000 and self._random.random() < 0.2:
                return asked_by_get(full_name, body, codec, in_base64=self._random.random() < 0.8)
            return self._asked(full_name, enveloped(body) if streams else body, headers)
        compression = "connect-content-encoding" if streams else "content-encoding"
        flags = 0
        match self._random.randrange(12):
            case 0:
                headers["content-type"] = self._random.choice(CONTENT_TYPES)
            case 1:
                headers[compression] = "gzip"
                body, flags = gzip.compress(body, mtime=0), 1
            case 2:
                headers[compression], flags = "gzip", 1
            case 3:
                headers[compression] = "gzip"
                body, flags = gzip.compress(body, mtime=0)[:-9], 1
            case 4:
                # 64 MiB in 64 KiB.
                headers[compression] = "gzip"
                body, flags = BOMB, 1
            case 5:
                headers[compression] = self._random.choice(["br", "zstd", "gzip, gzip", "\0", "identity"])
            case 6:
                http_method = self._random.choice(
                    ["GET", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "TRACE", "X"]
                )
            case 7:
                http_method = "GET"
                query = self._random.choice(
                    [
                        b"",
                        b"message=",
                        b"message=!!!&encoding=json&base64=1",
                        b"message=%ff%fe&encoding=json",
                        b"\xff\xfe",
                        b"message={}&encoding=proto&compression=gzip&base64=1",
                        b"message=a&encoding=xml",
                        b"message=" + b"a" * 20_000 + b"&encoding=json",
                        b"&" * 5_000,
                    ]
                )
            case 8:
                headers["connect-timeout-ms"] = self._random.choice(
                    ["x", "-1", "", "99999999999", "9999999999", "1e3", "٣"]
                )
            case 9:
                headers["connect-protocol-version"] = self._random.choice(["2", "", "1.0", "\xff"])
            case 10:
                body = body + body
            case _:
                flags = self._random.choice([1, 2, 3, 4, 255])
        if streams:
            body = self._random.choice(
                [
                    body,
                    b"",
                    body[:3],
                    enveloped(body, flags),
                    enveloped(body, flags) * 2,
                    enveloped(body)[:-1],
                ]
            )
        return self._asked(full_name, body, headers, http_method, query)

    @staticmethod
    def _asked(
        method: str, body: bytes, headers: dict[str, str], http_method: str = "POST", query: bytes = b""
    ) -> Asked:
        encoded = tuple(
            (name.encode(), value.encode("utf-8" if value.isascii() else "latin-1", "replace"))
            for name, value in headers.items()
        )
        return Asked(f"/{method}", body, encoded, http_method, query)


BOMB: Final = gzip.compress(bytes(64 * 1024 * 1024), compresslevel=9, mtime=0)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _leads_to(start: Descriptor, wanted: Descriptor) -> bool:
    """Tell whether a message of type *start* can hold one of type *wanted*, at any depth."""
    seen: set[str] = set()
    waiting: list[Descriptor] = [start]
    while waiting:
        descriptor = waiting.pop()
        if descriptor.full_name == wanted.full_name:
            return True
        if descriptor.full_name not in seen:
            seen.add(descriptor.full_name)
            waiting += [field.message_type for field in descriptor.fields if field.message_type is not None]
    return False
