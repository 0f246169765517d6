"""`rheostat subjects`: what is stored of companies and users, and imports of many."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

from click.testing import CliRunner

from rheostat.cli import subject_file
from rheostat.cli.root import root
from rheostat.cli.subject_file import Upserts, read_upserts
from rheostat.testing import LocalServer
from rheostat.wire.subject import patch_from_request
from tests.cli.conftest import Cli

DEEP = "[" * 60 + "]" * 60


class Input(io.RawIOBase):
    """What a command reads: some bytes, and then whatever else happens."""

    def __init__(self, content: bytes, then: Callable[[], bytes]) -> None:
        self.content = content
        self.then = then

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self.content:
            self.content, self.then = self.then(), bytes
        size = min(len(buffer), len(self.content))
        buffer[:size], self.content = self.content[:size], self.content[size:]
        return size


def taken(text: str, format_: str = "ndjson", **types: str) -> tuple[dict[str, dict[str, Any]], list[int]]:
    """Return the traits that the lines of *text* give, by the key id, and the lines that are refused."""
    traits: dict[str, dict[str, Any]] = {}
    refused: list[int] = []
    for batch in read_upserts(io.BytesIO(text.encode()), format_, Upserts("user", {"id": "id"}, types)):
        for message in batch.messages:
            patch = patch_from_request(message)
            traits[patch.reference.keys["id"]] = dict(patch.traits)
        refused += [failure.line for failure in batch.failures]
    return traits, refused


def test_a_subject_is_made_shown_changed_and_removed(cli):
    made = cli.json(
        *("subjects", "set", "company", "id=acme", "domain=acme.example", "--trait", "plan=pro"),
        *("--trait", "seats=5", "--override", "checkout.timeout=9", "--until", "30d", "--month-day", "15"),
    )
    assert made["keys"] == {"id": "acme", "domain": "acme.example"}
    assert made["traits"] == {"plan": "pro", "seats": 5}
    (override,) = made["overrides"]
    assert (override["setting"], override["value"]) == ("checkout.timeout", 9.0)
    assert override["expires_at"]
    assert cli.json("subjects", "get", "company", "domain=ACME.example") == made
    shown = cli.run("subjects", "get", "company", "id=acme").output
    assert "plan" in shown and "until" in shown
    member = ("--member-of", "company:id=acme")
    assert cli.json("subjects", "set", "user", "id=u1", *member)["member_of"][0]["keys"]["id"] == "acme"
    changed = cli.json(
        "subjects",
        "set",
        "company",
        "id=acme",
        "--remove-trait",
        "seats",
        "--remove-override",
        "checkout.timeout",
    )
    assert (changed["traits"], changed["overrides"]) == ({"plan": "pro"}, [])
    listed = cli.json("subjects", "list", "--kind", "company")["subjects"]
    assert [subject["id"] for subject in listed] == [made["id"]]
    assert "acme" in cli.run("subjects", "list").output
    fields = [change["fields"] for change in cli.json("subjects", "history", "company", "id=acme")["changes"]]
    assert "overrides.checkout.timeout" in fields[0] and "traits.plan" in fields[-1]
    assert cli.json("subjects", "delete", "company", "id=acme") == {"deleted": True}
    assert "there was none" in cli.run("subjects", "delete", "company", "id=acme", "--yes").output
    cli.run("subjects", "get", "company", "id=acme", code=1)
    assert cli.json("subjects", "history", "--id", made["id"])["changes"][0]["fields"] == ["deleted"]


def test_what_is_wrong_is_said(cli):
    assert "name=value" in cli.run("subjects", "get", "company", "acme", code=2).output
    assert "client" in cli.run("subjects", "get", "client", "id=1", code=2).output
    assert "UTF-8" in cli.run("subjects", "get", "company", "id=\udcff", code=2).output
    wrong = cli.json("subjects", "set", "company", "id=a", "--override", "checkout.timeout=soon", code=1)
    assert wrong["error"]["reason"] == "TYPE_MISMATCH"
    unheard = cli.json("subjects", "set", "company", "id=a", "--override", "unheard=1", code=1)
    assert unheard["error"]["reason"] == "UNKNOWN_SETTING"
    assert "give --override" in cli.run("subjects", "set", "company", "id=a", "--until", "1d", code=2).output


def test_a_csv_file_is_imported_again_without_a_change(cli, tmp_path):
    file = tmp_path / "users.csv"
    file.write_text(
        "user_id,mail,plan,seats,zip,note\n"
        'u1,a@example.com,pro,5,01234,"two\nlines"\n'
        "u2,b@example.com,,2.5,99999,\n"
        "u3,c@example.com\n"
        ",d@example.com,pro,1,1,\n"
        "u2,a@example.com,pro,1,1,\n",
        encoding="utf-8",
    )
    command = ("subjects", "import", str(file), "--kind", "user", "--by", "id=user_id", "--by", "email=mail")
    command += ("--trait", "zip:str", "--skip", "note", "--json")
    answer = json.loads(cli.run(*command, code=1).stdout)
    assert (answer["read"], answer["written"]) == (5, 3)
    assert [(failure["line"], failure["reason"]) for failure in answer["failed"]] == [
        (5, "INVALID_ARGUMENT"),
        (7, "SUBJECT_CONFLICT"),
    ]
    user = cli.json("subjects", "get", "user", "email=a@example.com")
    assert user["traits"] == {"plan": "pro", "seats": 5, "zip": "01234"}
    assert cli.json("subjects", "get", "user", "id=u2")["traits"] == {"seats": 2.5, "zip": "99999"}
    cli.run(*command, code=1)
    assert cli.json("subjects", "get", "user", "id=u1")["version"] == user["version"]


def test_ndjson_is_imported_with_its_types_and_refusals_go_into_a_file(cli, tmp_path):
    file = tmp_path / "companies.ndjson"
    lines = [json.dumps({"id": f"c{number}", "n": number, "tags": ["a"]}) for number in range(1200)]
    lines[3] = "{broken"
    lines[5] = '{"id": "c5", "usage": 1}'
    file.write_text("\n".join(lines), encoding="utf-8")
    failed = tmp_path / "failed.ndjson"
    shown = cli.run(
        "subjects", "import", str(file), "--kind", "company", "--errors", str(failed), code=1
    ).output
    assert "1198 of 1200 subjects written" in shown
    assert [json.loads(line)["line"] for line in failed.read_text().splitlines()] == [4, 6]
    assert cli.json("subjects", "get", "company", "id=C1199")["traits"] == {"n": 1199, "tags": ["a"]}
    assert len(cli.json("subjects", "list", "--limit", "1100")["subjects"]) == 1100


def test_a_file_that_cannot_be_read_is_refused_before_anything_is_sent(cli, tmp_path):
    file = tmp_path / "users.csv"
    for text, message in (("", "empty"), ("a,b\n1,2\n", "no column 'id'"), ('id\n"x\n', "not CSV")):
        file.write_text(text, encoding="utf-8")
        assert message in cli.run("subjects", "import", str(file), "--kind", "user", code=1).output
    file.write_bytes(b"id,name\n1,\xff\n")
    assert "not UTF-8" in cli.run("subjects", "import", str(file), "--kind", "user", code=1).output
    assert cli.json("subjects", "list")["subjects"] == []
    assert "--format" in cli.run("subjects", "import", "-", "--kind", "user", code=2, input="").output


def test_a_value_that_is_json_but_too_deep_or_too_large_is_no_text(cli):
    for value, message in (
        (DEEP, "nests"),
        ("9" * 30, "64 bits"),
        ('{"a": 1, "a": 2}', "twice"),
        ("1e999", "finite"),
    ):
        for option in ("--trait=plan=", "--override=checkout.timeout="):
            assert message in cli.run("subjects", "set", "user", "id=u", f"{option}{value}", code=2).output
    made = cli.json(
        "subjects", "set", "user", "id=u", "--trait", "a=[1", "--trait", "b=NaN", "--trait", "c=x y"
    )
    assert made["traits"] == {"a": "[1", "b": "NaN", "c": "x y"}


def test_a_cell_that_is_json_but_too_deep_or_too_large_is_refused_unless_it_is_to_be_a_text():
    file = f'id,n\na,"{DEEP}"\nb,{"9" * 30}\nc,[1\nd,NaN\n'
    assert taken(file, "csv") == ({"c": {"n": "[1"}, "d": {"n": "NaN"}}, [2, 3])
    traits, refused = taken(file, "csv", n="str")
    assert (traits["a"], traits["b"], refused) == ({"n": DEEP}, {"n": "9" * 30}, [])


def test_keys_in_ndjson_are_texts_or_integers():
    ids = ['"a"', "7", '{"a": 1}', "[1, 2]", "true", "1.5", '""', "null"]
    traits, refused = taken("".join(f'{{"id": {id_}}}\n' for id_ in ids))
    assert (list(traits), refused) == (["a", "7"], [3, 4, 5, 6, 7, 8])


def test_traits_have_the_types_that_are_asked_for():
    values = ["true", "1", "1.5", '"5"', '"1_0"', '"nan"', '{"x": [1]}', '"no"', f'"{"9" * 30}"']
    file = "".join(f'{{"id": "{number}", "n": {value}}}\n' for number, value in enumerate(values))
    for type_, expected in {
        "str": ["true", "1", "1.5", "5", "1_0", "nan", '{"x":[1]}', "no", "9" * 30],
        "int": [None, 1, None, 5, None, None, None, None, None],
        "float": [None, 1.0, 1.5, 5.0, None, None, None, None, 1e30],
        "bool": [True, True, None, None, None, None, None, False, None],
        "json": [True, 1, 1.5, 5, None, None, {"x": (1,)}, None, None],
    }.items():
        traits, refused = taken(file, n=type_)
        found = [traits[str(number)]["n"] if str(number) in traits else None for number in range(len(values))]
        assert found == expected, type_
        assert refused == [number + 1 for number, value in enumerate(expected) if value is None]
        for value in found if type_ in ("int", "float", "bool") else ():
            assert value is None or type(value).__name__ == type_


def users(first: int, end: int) -> bytes:
    return b"".join(b'{"id": "u%d"}\n' % number for number in range(first, end))


def test_a_line_that_is_not_utf_8_is_refused_and_the_others_are_written(cli, tmp_path):
    file = tmp_path / "users.ndjson"
    file.write_bytes(users(0, 3) + b'{"id": "\xff"}\n' + users(3, 5))
    answer = json.loads(cli.run("subjects", "import", str(file), "--kind", "user", "--json", code=1).stdout)
    assert (answer["read"], answer["written"]) == (6, 5)
    assert [(failure["line"], failure["message"]) for failure in answer["failed"]] == [(4, "not UTF-8")]
    file = tmp_path / "users.csv"
    file.write_bytes(b'id,name\nc1,a\nc2,"\xff\nx"\nc3,"\xc3\xa4"\n')
    answer = json.loads(cli.run("subjects", "import", str(file), "--kind", "user", "--json", code=1).stdout)
    assert (answer["written"], [failure["line"] for failure in answer["failed"]]) == (2, [3])
    assert cli.json("subjects", "get", "user", "id=c3")["traits"] == {"name": "ä"}


def test_what_was_read_before_the_file_breaks_is_written_and_told(cli, tmp_path):
    file, failed = tmp_path / "users.csv", tmp_path / "failed.ndjson"
    file.write_text('id,n\nu1,1\nu2\nu3,3\nu4,"x"y\nu5,1\n', encoding="utf-8")
    shown = cli.run("subjects", "import", str(file), "--kind", "user", "--errors", str(failed), code=1).output
    assert "2 of 3 subjects written" in shown and "line 5 is not CSV" in shown
    unclosed = cli.run(
        "subjects", "import", "-", "--format=csv", "--kind=user", code=1, input='id\n"u6\nu7\n'
    )
    assert "line 2 is not CSV" in unclosed.output
    assert [json.loads(line)["line"] for line in failed.read_text().splitlines()] == [3]
    assert cli.json("subjects", "get", "user", "id=u3")["traits"] == {"n": 3}

    def broken() -> bytes:
        raise OSError(5, "input/output error")

    stream = io.BufferedReader(Input(users(10, 12), broken))
    command = ["subjects", "import", "-", "--format", "ndjson", "--kind", "user"]
    result = CliRunner().invoke(root, command, input=stream, env=cli.env)
    assert (result.exit_code, "2 of 2" in result.output, "input/output" in result.output) == (1, True, True)


def test_what_was_written_and_refused_before_the_server_goes_away_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(subject_file, "_FIRST_DELAY", 0.0)
    monkeypatch.setattr(subject_file, "_BATCH", 100)
    failed = tmp_path / "failed.ndjson"
    with LocalServer("memory:") as server:

        def gone() -> bytes:
            server.stop()
            return b"{}\n" + users(200, 250)

        stream = io.BufferedReader(Input(users(0, 200) + b"[]\n", gone))
        command = ["subjects", "import", "-", "--format=ndjson", "--kind=user", f"--errors={failed}"]
        result = CliRunner().invoke(root, command, input=stream, env=Cli(server.url, "default", tmp_path).env)
    assert result.exit_code == 3, result.output
    assert "200 of 252 subjects written" in result.output
    assert [json.loads(line)["line"] for line in failed.read_text().splitlines()] == [201, 202]


def test_an_import_takes_no_more_memory_for_refused_lines():
    lines = io.BytesIO(b"[]\n" * 2500)
    assert [batch.read for batch in read_upserts(lines, "ndjson", Upserts("user", {"id": "id"}, {}))] == [
        *(1000, 1000, 500)
    ]


def test_a_subject_that_no_request_has_room_for_is_refused_alone():
    long = json.dumps(["x" * 1000] * 2000)
    traits, refused = taken(f'{{"id": "a", "n": {long}}}\n{{"id": "b"}}\n')
    assert (list(traits), refused) == (["b"], [1])


def test_an_empty_import_has_an_answer_too(cli):
    command = ("subjects", "import", "-", "--format", "ndjson", "--kind", "user")
    answer = cli.json(*command, input="\n")
    assert (answer["read"], answer["written"], answer["failed"]) == (0, 0, [])


def test_files_that_are_not_there_are_mistakes_of_the_command_line(cli, tmp_path):
    file = tmp_path / "users.ndjson"
    command = ("subjects", "import", str(file), "--kind", "user")
    assert "does not exist" in cli.run(*command, code=2).output
    file.write_bytes(users(0, 2))
    for errors in (tmp_path / "missing" / "failed.ndjson", tmp_path, file):
        assert "--errors" in cli.run(*command, "--errors", str(errors), code=2).output
    assert file.read_bytes() == users(0, 2)
    assert "'a b'" in cli.run("subjects", "import", str(file), "--kind", "a b", code=2).output
    assert cli.json("subjects", "list")["subjects"] == []


def test_an_answer_keeps_the_first_thousand_refusals_and_the_file_has_all(cli, tmp_path):
    failed = tmp_path / "failed.ndjson"
    command = ("subjects", "import", "-", "--format", "ndjson", "--kind", "user")
    answer = json.loads(cli.run(*command, "--json", input="[]\n" * 1500, code=1).stdout)
    assert (answer["refused"], len(answer["failed"])) == (1500, 1000)
    shown = cli.run(*command, "--errors", str(failed), input="[]\n" * 1500, code=1).output
    assert "1500 were refused" in shown
    assert [json.loads(line)["line"] for line in failed.read_text().splitlines()] == [*range(1, 1501)]


def test_columns_that_options_or_traits_cannot_mean_are_told_before_anything_is_sent(cli, tmp_path):
    file = tmp_path / "users.csv"
    file.write_text("id,zip,First Name,usage\nu1,01234,Ada,3\n", encoding="utf-8")
    command = ("subjects", "import", str(file), "--kind", "user")
    skip = ("--skip", "First Name", "--skip", "usage")
    for options, message in (
        ((*skip, "--trait", "zpi:str"), "--trait: the file has no column 'zpi'"),
        ((*skip, "--skip", "nmae"), "--skip: the file has no column 'nmae'"),
        (("--skip", "usage"), "the column 'First Name' cannot be a trait"),
        (("--skip", "First Name"), "the column 'usage' cannot be a trait"),
    ):
        assert message in cli.run(*command, *options, code=1).output
    twice = ("--trait", "zip:str", "--trait", "zip:int")
    assert "given twice" in cli.run(*command, *twice, code=2).output
    assert cli.json("subjects", "list")["subjects"] == []
    cli.run(*command, *skip, "--trait", "zip:str")
    assert cli.json("subjects", "get", "user", "id=u1")["traits"] == {"zip": "01234"}


def test_a_field_of_ndjson_that_options_name_and_no_line_has_is_told(cli):
    command = ("subjects", "import", "-", "--format", "ndjson", "--kind", "user")
    options = ("--trait", "zip:str", "--trait", "zpi:str", "--skip", "nmae")
    lines = '{"id": "u1", "zip": "1"}\n{"id": "u2"}\n'
    assert cli.json(*command, *options, input=lines)["unseen"] == ["nmae", "zpi"]
    assert "no line has nmae, zpi" in cli.run(*command, *options, input=lines).output
