"""What every file of the contract keeps, whoever adds to it."""

from __future__ import annotations

import keyword
import re
import subprocess
import sys
from importlib import import_module, resources
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, json_format
from google.protobuf.descriptor import FieldDescriptor

import rheo.v1
from rheo.v1 import setting_pb2, value_pb2, watch_pb2

GENERATED = Path(__file__).parents[2] / "gen"

# Reads that carry or answer personal data: by POST only, so that it stays out of URLs and caches.
PERSONAL = {"Evaluate", "EvaluateAll", "GetSubjects", "ListSubjects"}

# Asks the clients to report soon, which no cache may answer.
ASKING = {"GetRollout"}

# Requests that concern no project.
PROJECTLESS = {"ListProjectsRequest", "PingRequest"}

_FIELD = descriptor_pb2.FieldDescriptorProto
_METHOD = descriptor_pb2.MethodOptions


def _files() -> dict[str, descriptor_pb2.FileDescriptorProto]:
    content = resources.files("rheo.v1").joinpath("rules.binpb").read_bytes()
    files = descriptor_pb2.FileDescriptorSet.FromString(content).file
    return {file.name: file for file in files if file.package == "rheo.v1"}


FILES = _files()
MESSAGES = {message.name: message for file in FILES.values() for message in file.message_type}
SERVICES = {service.name: service for file in FILES.values() for service in file.service}
METHODS = {
    f"{service.name}.{method.name}": method for service in SERVICES.values() for method in service.method
}


def _fields(message: str) -> dict[str, descriptor_pb2.FieldDescriptorProto]:
    return {field.name: field for field in MESSAGES[message].field}


def test_the_services_and_their_rpcs_are_those_of_the_design() -> None:
    assert {name: {method.name for method in service.method} for name, service in SERVICES.items()} == {
        "ConfigService": {
            "Watch",
            "GetSnapshot",
            "Evaluate",
            "EvaluateAll",
            "DeclareSettings",
            "ReportStatus",
            "Ping",
        },
        "AdminService": {
            "Commit",
            "Revert",
            "Export",
            "CreateKey",
            "RevokeKey",
            *(f"Get{noun}" for noun in ("Project", "Environment", "Setting", "Segment", "Features")),
            *(f"Get{noun}" for noun in ("Revision", "Key")),
            *(f"List{noun}" for noun in ("Projects", "Environments", "Settings", "Segments", "Revisions")),
            *(f"List{noun}" for noun in ("Keys", "Clients", "StaleSettings")),
            "RotateKey",
            "GetRollout",
        },
        "DraftService": {
            *(f"{verb}Draft" for verb in ("Create", "Update", "Get", "Approve", "Publish", "Cancel")),
            "ListDrafts",
        },
        "WebhookService": {
            *(f"{verb}Webhook" for verb in ("Create", "Update", "Delete", "Get", "Test")),
            "RotateWebhookSecret",
            "ListWebhooks",
            "ListDeliveries",
            "Redeliver",
        },
        "EventService": {
            "RecordEvents",
            *(f"{verb}Subjects" for verb in ("Upsert", "Get", "Delete", "List")),
            *(f"List{noun}" for noun in ("SubjectChanges", "Exposures", "EventCounts")),
        },
    }


@pytest.mark.parametrize("name", METHODS)
def test_every_rpc_has_a_request_and_a_response_of_its_own(name: str) -> None:
    method = METHODS[name]
    assert method.input_type == f".rheo.v1.{method.name}Request"
    assert method.output_type == f".rheo.v1.{method.name}Response"
    assert not method.client_streaming
    assert method.server_streaming == (method.name == "Watch")


def test_no_two_services_have_an_rpc_of_the_same_name() -> None:
    names = [method.name for method in METHODS.values()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", METHODS)
def test_reads_without_personal_data_go_by_get_and_nothing_else_does(name: str) -> None:
    method = METHODS[name]
    read = method.name in {"Ping", "Export"} or method.name.startswith(("Get", "List"))
    expected = read and method.name not in PERSONAL | ASKING
    assert (method.options.idempotency_level == _METHOD.NO_SIDE_EFFECTS) == expected


def test_writes_of_change_sets_are_repeatable_only_by_their_request_id() -> None:
    for method in METHODS.values():
        if "request_id" in _fields(f"{method.name}Request"):
            assert method.options.idempotency_level == _METHOD.IDEMPOTENCY_UNKNOWN


@pytest.mark.parametrize(
    "name", sorted({f"{method.name}Request" for method in METHODS.values()} - PROJECTLESS)
)
def test_requests_that_concern_a_project_are_addressed_alike(name: str) -> None:
    fields = _fields(name)
    for number, field in enumerate(("project", "environment"), 1):
        assert fields[field].number == number
        assert fields[field].type == _FIELD.TYPE_STRING
        assert fields[field].label == _FIELD.LABEL_OPTIONAL


@pytest.mark.parametrize(
    "name", [m.name for m in METHODS.values() if m.name.startswith("List")] + ["GetSnapshot"]
)
def test_lists_come_in_pages(name: str) -> None:
    request, response = _fields(f"{name}Request"), _fields(f"{name}Response")
    assert request["page_size"].type == _FIELD.TYPE_UINT32
    assert request["page_token"].type == _FIELD.TYPE_STRING
    assert response["next_page_token"].type == _FIELD.TYPE_STRING
    assert any(field.label == _FIELD.LABEL_REPEATED for field in response.values())


@pytest.mark.parametrize("enum", [e for file in FILES.values() for e in file.enum_type], ids=lambda e: e.name)
def test_the_zero_of_every_enum_is_unspecified(enum: descriptor_pb2.EnumDescriptorProto) -> None:
    prefix = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", enum.name).upper()
    assert enum.value[0].number == 0
    assert enum.value[0].name == f"{prefix}_UNSPECIFIED"
    assert all(value.name.startswith(f"{prefix}_") for value in enum.value)


def test_no_field_has_a_name_that_python_code_cannot_write() -> None:
    names = {field.name for message in MESSAGES.values() for field in message.field}
    assert {name for name in names if keyword.iskeyword(name)} == set()


def test_durations_and_instants_are_the_well_known_types() -> None:
    for message in MESSAGES.values():
        for field in message.field:
            if field.name.endswith(("_at", "_time")) or field.name == "time":
                assert field.type_name == ".google.protobuf.Timestamp", f"{message.name}.{field.name}"
            if field.name in {"heartbeat", "spread", "grace", "report_within"}:
                assert field.type_name == ".google.protobuf.Duration", f"{message.name}.{field.name}"


def test_an_item_of_an_unknown_kind_keeps_what_the_digest_counts() -> None:
    # Field 99 stands for the body of a kind that a later version adds.
    unknown = watch_pb2.Item(kind="draft", key="d1", revision=7).SerializeToString() + b"\x9a\x06\x01x"
    item = watch_pb2.Item.FromString(unknown)
    assert (item.kind, item.key, item.revision, item.deleted) == ("draft", "d1", 7, False)
    assert item.WhichOneof("body") is None


def test_a_mutation_has_the_kinds_of_the_design() -> None:
    assert list(_fields("Mutation")) == [
        "put_project",
        "put_environment",
        "put_setting",
        "rename_setting",
        "delete_setting",
        "set_value",
        "unset_value",
        "put_rule",
        "move_rule",
        "delete_rule",
        "put_segment",
        "delete_segment",
        "set_features",
    ]


def test_the_generated_messages_are_those_of_the_rules() -> None:
    for name, file in FILES.items():
        module = import_module(name.removesuffix(".proto").replace("/", ".") + "_pb2")
        described = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(described)
        for message, expected in zip(described.message_type, file.message_type, strict=True):
            assert [(f.name, f.number, f.type) for f in message.field] == [
                (f.name, f.number, f.type) for f in expected.field
            ], message.name


@pytest.mark.parametrize(
    "path",
    sorted(
        path
        for pattern in ("python/rheo/**/*.py", "python/rheo/**/*.pyi", "es/rheo/**/*.ts", "es/rheo/**/*.js")
        for path in GENERATED.glob(pattern)
    ),
    ids=lambda path: path.name,
)
def test_generated_clients_know_nothing_of_the_validator(path: Path) -> None:
    assert not re.search(r"buf[./_]validate|protovalidate", path.read_text(encoding="utf-8"))


def test_generated_clients_exist_for_every_file() -> None:
    for name, file in FILES.items():
        stem = Path(name).stem
        suffixes = ["_pb2.py", "_pb2.pyi", *(["_connect.py"] if file.service else [])]
        for suffix in suffixes:
            assert Path(*rheo.v1.__path__, stem + suffix).is_file()
        for suffix in ("_pb.ts", "_pb.js"):
            assert (GENERATED / "es/rheo/v1" / (stem + suffix)).is_file()


def test_importing_a_client_loads_no_server_and_no_validator() -> None:
    code = (
        "import sys\n"
        "from rheo.v1.config_service_connect import ConfigServiceClient, ConfigServiceClientSync\n"
        "print({'protovalidate', 'rheostat', 'uvicorn', 'sqlalchemy'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "set()"


def test_a_position_survives_the_json_form() -> None:
    position = watch_pb2.Position(
        store_id=bytes(range(16)), generation=2**63, revision=2**64 - 1, token=b"\xff"
    )
    assert json_format.Parse(json_format.MessageToJson(position), watch_pb2.Position()) == position


def test_absent_features_differ_from_none() -> None:
    field = setting_pb2.Setting.DESCRIPTOR.fields_by_name["features"]
    assert field.type == FieldDescriptor.TYPE_MESSAGE
    any_attribute = setting_pb2.Setting(name="a")
    no_attribute = setting_pb2.Setting(name="a", features=value_pb2.StringList())
    assert any_attribute.SerializeToString() != no_attribute.SerializeToString()
