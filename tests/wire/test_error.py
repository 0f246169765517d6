from __future__ import annotations

import ast
import inspect
import re
import threading
import wsgiref.simple_server
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from protobuf.wkt import Any as WireAny

import rheostat.errors
from rheo.v1 import change_pb2, config_service_pb2
from rheo.v1.config_service_connect import ConfigServiceClientSync, ConfigServiceWSGIApplication
from rheostat.errors import (
    AlreadyExistsError,
    AuthenticationError,
    BehindError,
    ClientClosedError,
    Conflict,
    DeadlineExceededError,
    FailedPreconditionError,
    FieldViolation,
    InvalidArgumentError,
    InvalidConditionError,
    InvalidDocumentError,
    InvalidSettingError,
    InvalidTypeError,
    LimitExceededError,
    MissingDependencyError,
    NotFoundError,
    PermissionDeniedError,
    RevisionCompactedError,
    RevisionConflictError,
    RheostatError,
    SettingNotFoundError,
    StoreError,
    TypeMismatchError,
    UnavailableError,
    WebhookVerificationError,
)
from rheostat.wire.error import CODES, DOMAIN, INTERNAL_MESSAGE, REASONS, from_connect, to_connect

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "errors.md"
VIOLATIONS = (FieldViolation("mutations[2].put_rule", "is wrong"), FieldViolation("", "and so is the whole"))

EXAMPLES: list[tuple[RheostatError, Code]] = [
    (RheostatError("secret /path"), Code.INTERNAL),
    (InvalidArgumentError("wrong", violations=VIOLATIONS, metadata={"a": "b"}), Code.INVALID_ARGUMENT),
    (InvalidSettingError("wrong", violations=VIOLATIONS), Code.INVALID_ARGUMENT),
    (InvalidTypeError("wrong", violations=VIOLATIONS), Code.INVALID_ARGUMENT),
    (TypeMismatchError("wrong", violations=VIOLATIONS), Code.INVALID_ARGUMENT),
    (InvalidConditionError("wrong", reason="UNKNOWN_SEGMENT"), Code.INVALID_ARGUMENT),
    (InvalidDocumentError("wrong", line=3, column=1, violations=VIOLATIONS), Code.INVALID_ARGUMENT),
    (NotFoundError("no revision 7", reason="REVISION_NOT_FOUND"), Code.NOT_FOUND),
    (SettingNotFoundError("no 'a'", metadata={"setting": "a"}), Code.NOT_FOUND),
    (AlreadyExistsError("taken", reason="REQUEST_ID_REUSED"), Code.ALREADY_EXISTS),
    (
        RevisionConflictError(
            5, [Conflict("setting", "a", "production", 7), Conflict("segment", "s", "", 6)]
        ),
        Code.ABORTED,
    ),
    (FailedPreconditionError("in use", reason="IN_USE"), Code.FAILED_PRECONDITION),
    (RevisionCompactedError(3, 10), Code.OUT_OF_RANGE),
    (LimitExceededError("too many", limit="max_rules"), Code.RESOURCE_EXHAUSTED),
    (LimitExceededError("too many", limit="writes", retry_after=1.5), Code.RESOURCE_EXHAUSTED),
    (AuthenticationError("bad", reason="BAD_KEY"), Code.UNAUTHENTICATED),
    (WebhookVerificationError("unsigned"), Code.UNAUTHENTICATED),
    (PermissionDeniedError("unknown", reason="UNKNOWN_PROJECT"), Code.PERMISSION_DENIED),
    (UnavailableError("full", retry_after=0.0, reason="STORE_FULL"), Code.UNAVAILABLE),
    (BehindError("behind"), Code.UNAVAILABLE),
    (DeadlineExceededError("late"), Code.DEADLINE_EXCEEDED),
    (ClientClosedError("closed"), Code.UNAVAILABLE),
    (MissingDependencyError("install rheostat[server]"), Code.FAILED_PRECONDITION),
    (StoreError("cannot open /var/lib/secret.db"), Code.INTERNAL),
]


def classes(root: type[RheostatError] = RheostatError) -> Iterator[type[RheostatError]]:
    """The public hierarchy; what a module makes of it for itself never travels."""
    yield root
    for subclass in root.__subclasses__():
        if subclass.__module__ == RheostatError.__module__:
            yield from classes(subclass)


def described(exc: RheostatError) -> dict[str, Any]:
    """All that an error carries, to compare errors by."""
    return {"class": type(exc), "text": str(exc), "args": exc.args, **vars(exc)}


def details(exc: ConnectError, class_: Any) -> list[Any]:
    return [
        class_.FromString(detail.message_bytes)
        for detail in exc.details
        if detail.type_name == class_.DESCRIPTOR.full_name
    ]


def test_the_examples_have_every_class() -> None:
    assert {type(exc) for exc, _ in EXAMPLES} == set(classes())
    exported = {getattr(rheostat.errors, name) for name in rheostat.errors.__all__}
    assert set(classes()) <= exported


def test_no_class_falls_back_to_the_root() -> None:
    for class_ in classes():
        nearest = next(base for base in class_.__mro__ if base in CODES)
        assert nearest is not RheostatError or class_ is RheostatError


@pytest.mark.parametrize(("error", "code"), EXAMPLES)
def test_every_error_comes_back_the_same(error: RheostatError, code: Code) -> None:
    told = to_connect(error)
    assert told.code is code
    again = from_connect(told)
    (info,) = details(told, ErrorInfo)
    assert (info.domain, info.reason) == (DOMAIN, error.reason)
    assert re.fullmatch(r"[A-Z][A-Z0-9_]*", info.reason)
    if code is Code.INTERNAL:
        assert (type(again), again.reason) == (type(error), error.reason)
        assert str(again) == INTERNAL_MESSAGE
        return
    expected = described(error)
    if isinstance(error, InvalidDocumentError):
        # The place also travels as metadata, for clients in other languages.
        expected["metadata"] = {"line": "3", "column": "1"}
    assert described(again) == expected


@pytest.mark.parametrize(
    "exc", [ValueError("/home/secret"), KeyError("secret"), StoreError("/secret"), RheostatError("secret")]
)
def test_no_text_of_an_unexpected_error_is_told(exc: Exception) -> None:
    told = to_connect(exc)
    assert told.code is Code.INTERNAL
    assert told.message == INTERNAL_MESSAGE
    assert not any(b"secret" in detail.message_bytes for detail in told.details)


def test_an_error_may_quote_what_utf8_cannot_carry() -> None:
    odd = InvalidSettingError(
        "no \ud800", violations=[FieldViolation("a\ud800", "b\ud800")], metadata={"name": "\ud800"}
    )
    again = from_connect(to_connect(odd))
    assert isinstance(again, InvalidSettingError)
    assert (str(again), again.metadata) == ("no ?", {"name": "?"})
    assert again.violations == (FieldViolation("a?", "b?"),)


def test_a_connect_error_stays_as_it_is() -> None:
    error = ConnectError(Code.CANCELED, "gone")
    assert to_connect(error) is error


def test_details_are_the_messages_that_other_languages_know() -> None:
    told = to_connect(InvalidConditionError("wrong", violations=VIOLATIONS))
    (request,) = details(told, BadRequest)
    assert [(v.field, v.description) for v in request.field_violations] == [
        ("mutations[2].put_rule", "is wrong"),
        ("", "and so is the whole"),
    ]
    (retry,) = details(to_connect(UnavailableError("full", retry_after=2.25)), RetryInfo)
    assert retry.retry_delay.ToMilliseconds() == 2250
    assert details(to_connect(UnavailableError("full")), RetryInfo) == []
    (conflict,) = details(
        to_connect(RevisionConflictError(5, [Conflict("setting", "a", "e", 7)])), change_pb2.RevisionConflict
    )
    assert conflict == change_pb2.RevisionConflict(
        expected_revision=5,
        items=[change_pb2.ConflictingItem(environment="e", kind="setting", key="a", revision=7)],
    )


@pytest.mark.parametrize("code", Code)
def test_an_error_of_a_proxy_is_told_by_its_code(code: Code) -> None:
    error = from_connect(ConnectError(code, "upstream says no"))
    assert str(error) == "upstream says no"
    assert error.reason == code.name
    assert error.metadata == {}
    if code in CODES.values() and code not in (Code.ABORTED, Code.OUT_OF_RANGE):
        assert CODES[type(error)] is code
    else:
        # Without details there is no telling what has changed or is compacted.
        assert type(error) is RheostatError


def test_what_a_newer_or_foreign_server_says_does_no_harm() -> None:
    def told(code: Code, info: ErrorInfo, *more: WireAny) -> RheostatError:
        wrapped = WireAny(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=info.SerializeToString())
        return from_connect(ConnectError(code, "m", [wrapped, *more]))

    newer = told(Code.INVALID_ARGUMENT, ErrorInfo(domain=DOMAIN, reason="BRAND_NEW", metadata={"k": "v"}))
    assert (type(newer), newer.reason, newer.metadata) == (InvalidArgumentError, "BRAND_NEW", {"k": "v"})
    foreign = told(Code.NOT_FOUND, ErrorInfo(domain="example.com", reason="SETTING_NOT_FOUND"))
    assert (type(foreign), foreign.reason) == (NotFoundError, "NOT_FOUND")
    # A reason that belongs to another code does not decide the class.
    odd = told(Code.NOT_FOUND, ErrorInfo(domain=DOMAIN, reason="UNKNOWN_SEGMENT"))
    assert type(odd) is NotFoundError
    compacted = told(
        Code.OUT_OF_RANGE,
        ErrorInfo(domain=DOMAIN, reason="REVISION_COMPACTED", metadata={"revision": "-1", "floor": "x"}),
    )
    assert (type(compacted), compacted.reason) == (RheostatError, "REVISION_COMPACTED")
    damaged = told(
        Code.RESOURCE_EXHAUSTED,
        ErrorInfo(domain=DOMAIN, reason="LIMIT_EXCEEDED"),
        WireAny(type_url="type.googleapis.com/google.rpc.RetryInfo", value=b"\xff"),
    )
    assert isinstance(damaged, LimitExceededError)
    assert (damaged.limit, damaged.retry_after) == ("", None)


class Refusing:
    """A service that raises what it was given."""

    def __init__(self) -> None:
        self.error: RheostatError = RheostatError("unset")

    def ping(self, request: config_service_pb2.PingRequest, ctx: object) -> NoReturn:
        raise to_connect(self.error)

    def __getattr__(self, name: str) -> Any:
        return self.ping


class QuietHandler(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # the base class names it
        pass


@pytest.fixture(scope="module")
def refusing() -> Iterator[tuple[Refusing, str]]:
    service = Refusing()
    application = ConfigServiceWSGIApplication(service)  # type: ignore[arg-type]  # one method serves as all
    server = wsgiref.simple_server.make_server("127.0.0.1", 0, application, handler_class=QuietHandler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield service, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


@pytest.mark.parametrize("error", [exc for exc, code in EXAMPLES if code is not Code.INTERNAL])
def test_every_error_passes_the_runtime_with_all_its_details(
    refusing: tuple[Refusing, str], error: RheostatError
) -> None:
    service, url = refusing
    service.error = error
    with (
        ConfigServiceClientSync(url, timeout_ms=10_000) as client,
        pytest.raises(ConnectError) as caught,
    ):
        client.ping(config_service_pb2.PingRequest())
    assert described(from_connect(caught.value)) == described(from_connect(to_connect(error)))


def raised_in_source() -> Iterator[tuple[str, str | None, str]]:
    """The class, the reason (None for its default) and the place of every error that is made in src."""
    names = {class_.__name__ for class_ in classes()}
    for path in sorted((ROOT / "src" / "rheostat").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and isinstance(node.returns, ast.Name):
                # Of a class whose errors take no reason, where the function that makes one gives it a text.
                for part in ast.walk(node):
                    match part:
                        case ast.Assign([ast.Attribute(attr="reason")], ast.Constant(str() as text)):
                            yield node.returns.id, text, f"{path.relative_to(ROOT)}:{part.lineno}"
                continue
            if not isinstance(node, ast.Call):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if name not in names:
                continue
            place = f"{path.relative_to(ROOT)}:{node.lineno}"
            given = [word.value for word in node.keywords if word.arg == "reason"]
            for reason in given or [None]:
                for text in [None] if reason is None else list(reasons_of(reason, place)):
                    yield name, text, place


DYNAMIC = {
    "f'UNKNOWN_{node[0].upper()}'": ("UNKNOWN_SEGMENT", "UNKNOWN_SETTING"),
    "AWAY": ("STORE_AWAY",),
    "f'{word.upper()}_KEY'": ("EXPIRED_KEY", "REVOKED_KEY"),
}
"""What expressions that make reasons can give."""


def reasons_of(node: ast.expr, place: str) -> Iterator[str | None]:
    match node:
        case ast.Constant(str() | None as value):
            yield value
        case ast.IfExp(body=body, orelse=orelse):
            yield from reasons_of(body, place)
            yield from reasons_of(orelse, place)
        case _:
            assert ast.unparse(node) in DYNAMIC, f"{place} makes a reason of {ast.unparse(node)}"
            yield from DYNAMIC[ast.unparse(node)]


def documented() -> dict[str, tuple[str, str]]:
    """The code and class of each reason in the reference."""
    rows = re.findall(
        r"^\| `([A-Z_]+)` \| ([A-Z_]+) \| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len({reason for reason, _, _ in rows}) == len(rows), "a reason stands twice"
    return {reason: (code, class_) for reason, code, class_ in rows}


def test_the_reference_lists_every_reason_of_the_source_with_its_code_and_class() -> None:
    page = documented()
    used = {class_.default_reason: (class_.__name__, "rheostat.errors") for class_ in classes()}
    for name, reason, place in raised_in_source():
        if reason is None:
            continue
        assert used.setdefault(reason, (name, place))[0] == name, f"{reason} has two classes, one at {place}"
    for reason, (name, place) in used.items():
        assert reason in page, f"docs/reference/errors.md does not list {reason}, raised at {place}"
        class_ = getattr(rheostat.errors, name)
        code = next(CODES[base] for base in class_.__mro__ if base in CODES)
        assert page[reason] == (code.name, name)
    assert set(page) == set(used), "the reference lists reasons that nothing raises"


def test_a_client_raises_the_class_that_the_server_raised() -> None:
    for name, reason, place in raised_in_source():
        class_ = getattr(rheostat.errors, name)
        if reason is None or "reason" not in inspect.signature(class_).parameters:
            continue
        again = from_connect(to_connect(class_("m", reason=reason)))
        assert type(again) is class_, f"{place}: add {reason!r} to REASONS in rheostat.wire.error"


def test_reasons_need_no_entry_where_the_code_tells_the_class() -> None:
    defaults = {class_.default_reason for class_ in classes()}
    raised = {reason for _, reason, _ in raised_in_source()}
    for reason, class_ in REASONS.items():
        assert reason in defaults | raised, f"nothing raises {reason}"
        assert reason in defaults or class_ not in CODES
