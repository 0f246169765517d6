"""`rheostat codegen`: from a server and from files, to standard output and to files."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys

import pytest

from rheostat.cli.failure import ExitCode
from rheostat.example import document_text
from rheostat.model.value import thaw
from tests.cli.checker import ROOT, check_python, check_typescript

SHOP = ROOT / "examples/shop.yaml"
LANGUAGES = ("python", "typescript")

USE_PYTHON = """\
from typing import Literal, assert_type

import shop_settings as shop
from rheostat import AsyncClient, Client

client: Client[shop.Settings] = Client("http://127.0.0.1:7420", settings=shop.ALL_SETTINGS)
assert_type(client.settings["checkout.timeout"], float)
assert_type(AsyncClient[shop.Settings]("http://127.0.0.1:7420").settings["checkout.guest"], bool)


def read(settings: shop.Settings) -> None:
    assert_type(settings["checkout.timeout"], float)
    assert_type(settings["account.password-policy"]["min_length"], int)
    assert_type(shop.checkout_timeout.get(user={"plan": "plus"}), float)
    level = shop.ops_log_level.get()
    assert_type(level, Literal["debug", "error", "info", "warning"])
    for channel in shop.notifications_channels.get():
        assert_type(channel, Literal["email", "push", "sms"])
"""

MISUSE_PYTHON = """\
import shop_settings as shop

a: str = shop.checkout_timeout.get()
b: shop.OpsLogLevel = "loud"


def read(settings: shop.Settings) -> None:
    print(settings["checkout.time-out"])
    print(settings["account.password-policy"]["minimum"])
"""

USE_TYPESCRIPT = """\
import { defaults, type SettingName, type Settings } from "./shop.ts";

export function read<N extends SettingName>(settings: Settings, name: N): Settings[N] {
  return settings[name];
}
const seconds: number = read(defaults, "checkout.timeout");
const level: "debug" | "error" | "info" | "warning" = read(defaults, "ops.log-level");
export const shown: string = `${seconds.toFixed(1)} ${level}`;
"""

MISUSE_TYPESCRIPT = """\
import { defaults, type Settings } from "./shop.ts";

export const a: string = (defaults as Settings)["checkout.timeout"];
export const b: unknown = (defaults as Settings)["checkout.time-out"];
export const c: Settings["ops.log-level"] = "loud";
"""


@pytest.fixture
def shop(empty):
    empty.apply(document_text().replace("project: shop", f"project: {empty.project}", 1))
    return empty


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_server_and_its_export_give_the_same_module(shop, tmp_path, language):
    live = shop.run("codegen", "--lang", language, "-e", "production")
    for name in ("shop.yaml", "shop.json"):
        shop.run("export", "--output", str(tmp_path / name))
        exported = shop.run("codegen", "--lang", language, "-e", "production", "--from", str(tmp_path / name))
        assert exported.stdout == live.stdout
    shop.run("export", "-e", "staging", "--output", str(tmp_path / "staging.yaml"))
    staging = shop.run("codegen", "--lang", language, "--from", str(tmp_path / "staging.yaml"))
    assert staging.stdout == shop.run("codegen", "--lang", language, "-e", "staging").stdout
    assert f"project {shop.project}, environment production" in live.stdout
    assert f"project {shop.project}, environment production" in live.stderr


def test_the_module_of_the_example_shop_is_typed_in_python(shop, tmp_path):
    code = shop.run("codegen", "--lang", "python", "-e", "production").stdout
    check_python(tmp_path, {"shop_settings.py": code, "use.py": USE_PYTHON})
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    (wrong / "shop_settings.py").write_text(code)
    said = check_python(wrong, {"misuse.py": MISUSE_PYTHON}, fails=True)
    for line in (3, 4, 8, 9):
        assert len(re.findall(rf"misuse\.py:{line}:.*error", said)) >= 2, f"line {line} in\n{said}"


def test_the_module_of_the_example_shop_is_typed_in_typescript(shop, tmp_path):
    code = shop.run("codegen", "--lang", "typescript", "-e", "production").stdout
    check_typescript(tmp_path, {"shop.ts": code, "use.ts": USE_TYPESCRIPT})
    said = check_typescript(tmp_path, {"misuse.ts": MISUSE_TYPESCRIPT}, fails=True)
    for line in (3, 4, 5):
        assert f"misuse.ts({line}," in said, said


def test_a_declaration_by_the_generated_module_is_up_to_date(shop):
    """What the server compares (declarations.md) is what it holds."""
    code = shop.run("codegen", "--lang", "python", "-e", "production").stdout
    module: dict = {"__name__": "shop_settings"}
    exec(compile(code, "shop_settings.py", "exec"), module)
    stored = {setting["name"]: setting for setting in shop.json("list", "-e", "production")["settings"]}
    assert {setting.name for setting in module["ALL_SETTINGS"]} == set(stored)
    for setting in module["ALL_SETTINGS"]:
        held, declared = stored[setting.name], setting.declaration()
        assert str(declared.type) == held["type"]
        assert (thaw(declared.default), thaw(declared.metadata)) == (held["default"], held["metadata"])
        assert str(declared.version) == held["version"]
        assert list(declared.aliases) == held["aliases"]
        assert (None if declared.features is None else list(declared.features)) == held["features"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_values_rules_and_revisions_make_no_difference(shop, language):
    arguments = ("codegen", "--lang", language, "-e", "production")
    before = shop.run(*arguments).stdout
    shop.run("set", "checkout.timeout", "9", "-e", "production")
    shop.run("set", "checkout.timeout", "8", "-e", "production", "--where", 'region == "eu"')
    assert shop.run(*arguments).stdout == before


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_order_of_a_document_and_of_hashes_makes_no_difference(tmp_path, language):
    document = {
        "environments": ["production"],
        "settings": {
            name: {"type": f'Enum["{name}","b"]', "default": "b"} for name in ("z", "a.b", "a-b", "m")
        },
    }
    turned = {**document, "settings": dict(reversed(document["settings"].items()))}
    found = set()
    for seed, content in enumerate([document, turned]):
        path = tmp_path / f"{seed}.json"
        path.write_text(json.dumps(content))
        done = subprocess.run(
            [sys.executable, "-m", "rheostat.cli", "codegen", "--lang", language, "--from", path],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            stdout=subprocess.PIPE,
            check=True,
            timeout=60,
        )
        found.add(done.stdout)
    assert len(found) == 1


def test_the_file_is_written_whole_and_only_when_it_changes(cli, tmp_path):
    path = tmp_path / "settings.py"
    first = cli.run("codegen", "--lang", "python", "--output", str(path))
    assert "wrote" in first.stderr and first.stdout == ""
    assert stat.S_IMODE(path.stat().st_mode) & 0o600 == 0o600
    before = path.stat()
    again = cli.run("codegen", "--lang", "python", "--output", str(path))
    assert "up to date" in again.stderr
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert path.read_text("utf-8") == cli.run("codegen", "--lang", "python", "--output", "-").stdout
    assert [entry.name for entry in tmp_path.iterdir()] == ["settings.py"]


def test_check_fails_when_the_file_is_another_and_writes_nothing(cli, tmp_path):
    path = tmp_path / "settings.ts"
    arguments = ("codegen", "--lang", "typescript", "--output", str(path))
    missing = cli.run(*arguments, "--check", code=ExitCode.FAILED)
    assert "settings.ts is not what rheostat codegen writes" in missing.stderr
    assert not path.exists()
    cli.run(*arguments)
    cli.run(*arguments, "--check")
    # A checkout on Windows.
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    cli.run(*arguments, "--check")
    cli.apply(f"project: {cli.project}\nsettings:\n  added: {{type: bool, default: false}}\n")
    cli.run(*arguments, "--check", code=ExitCode.FAILED)
    assert "added" not in path.read_text("utf-8")
    path.write_bytes(b"\xff")
    assert cli.json(*arguments, "--check", code=ExitCode.FAILED)["error"]["exit_code"] == 1


def test_check_without_a_file_is_a_wrong_command_line(cli):
    refused = cli.run("codegen", "--lang", "python", "--check", code=ExitCode.USAGE)
    assert "--output" in refused.stderr


def test_the_json_answer_has_the_code_or_says_what_was_written(cli, tmp_path):
    answer = cli.json("codegen", "--lang", "python")
    assert answer["code"] == cli.run("codegen", "--lang", "python").stdout
    assert answer | {"code": ""} == {
        "language": "python",
        "project": cli.project,
        "environment": "production",
        "settings": 6,
        "file": None,
        "code": "",
    }
    path = str(tmp_path / "settings.py")
    assert cli.json("codegen", "--lang", "python", "-o", path)["changed"] is True
    assert cli.json("codegen", "--lang", "python", "-o", path, "--check")["changed"] is False


def from_text(cli, text, *arguments, code=0):
    return cli.run(
        "codegen", "--lang", "python", "--from", "-", *arguments, input=text, code=code, RHEOSTAT_PROJECT=None
    )


def test_an_environment_has_its_own_definitions(cli):
    text = """\
environments: [production, staging]
settings:
  a:
    type: int
    default: 1
    environments:
      staging: {type: str, default: x, version: "2.0"}
  only-there:
    environments:
      staging: {type: bool, default: true}
  gone:
    type: int
    default: 1
    environments:
      production: {lifecycle: archived}
"""
    production = from_text(cli, text, "-e", "production").stdout
    assert "a: Setting[int]" in production
    assert "only_there" not in production and "gone" not in production
    staging = from_text(cli, text, "-e", "staging").stdout
    assert 'a: Setting[str] = Setting("a", str, default="x", version="2.0")' in staging
    assert "only_there: Setting[bool]" in staging and "gone: Setting[int]" in staging


def test_a_document_of_no_environment_is_about_all(cli):
    code = from_text(cli, "settings:\n  a: {type: int, default: 1}\n").stdout
    assert code.startswith("# Generated by `rheostat codegen` from a document; do not edit.\n")
    assert "environment qa" in from_text(cli, "settings:\n  a: {type: int, default: 1}\n", "-e", "qa").stdout


@pytest.mark.parametrize(
    ("text", "arguments", "problem"),
    [
        ("environments: [a, b]\n", (), "several environments, name one with --environment: a, b"),
        ("environments: [a, b]\n", ("-e", "c"), "'c' is not among the document's: a, b"),
        ("settings:\n  x: {type: int}\n", (), "standard input:2:6: settings.x: the setting has no default"),
        ("settings:\n  x: {default: 1}\n", (), "settings.x: the setting has no type"),
        ("settings:\n  x: {type: int, default: a}\n", (), '"a" is not of type int'),
        ("settings:\n  x: {type: inf, default: a}\n", (), "unknown type 'inf'"),
        ("project: other\n", ("--project", "mine"), "about 'other', not 'mine'"),
        ("settings: [\n", (), "standard input:2:1"),
    ],
)
def test_a_wrong_document_is_refused_where_it_is_wrong(cli, text, arguments, problem):
    refused = from_text(cli, text, *arguments, code=ExitCode.FAILED)
    assert problem in refused.stderr


def test_several_environments_are_named_when_none_is_chosen(shop):
    refused = shop.run("codegen", "--lang", "python", code=ExitCode.FAILED)
    assert "development, production, staging" in refused.stderr
    assert "--environment" in refused.stderr


def test_a_file_that_cannot_be_written_is_named(cli, tmp_path):
    path = tmp_path / "no-such-folder" / "settings.py"
    refused = cli.run("codegen", "--lang", "python", "-o", str(path), code=ExitCode.FAILED)
    assert f"cannot write {path}" in refused.stderr
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    refused = cli.run("codegen", "--lang", "python", "--from", str(binary), code=ExitCode.FAILED)
    assert "not UTF-8" in refused.stderr


def test_an_unreachable_server_is_reported_as_such(cli):
    cli.run("codegen", "--lang", "python", "--url", "http://127.0.0.1:1", code=ExitCode.UNREACHABLE)
