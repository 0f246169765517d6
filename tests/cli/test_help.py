"""Help, completion, the reference page, and how commands fail."""

from __future__ import annotations

import ast
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from rheostat import errors
from rheostat.cli.command import Command
from rheostat.cli.failure import ExitCode, UnreachableError, exit_code, report
from rheostat.cli.reference import reference
from rheostat.cli.root import root

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"


def commands(group=root, path=()):
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


ALL = dict(commands())


def test_the_reference_page_is_what_the_help_says():
    assert PAGE.read_text("utf-8") == reference(), (
        "run: python -m rheostat.cli.reference > docs/reference/cli.md"
    )


@pytest.mark.parametrize("name", ALL)
def test_every_command_has_help_examples_and_json(name):
    command = ALL[name]
    assert isinstance(command, Command)
    assert command.examples and command.answer
    assert "--json" in {option for param in command.params for option in param.opts}
    for param in command.params:
        assert isinstance(param, click.Argument) or param.hidden or param.help, param.name
    text = CliRunner().invoke(root, [*name.split(), "--help"]).output
    assert "Examples:" in text and "JSON answer:" in text


@pytest.mark.parametrize("name", ALL)
def test_examples_are_command_lines_that_parse(name):
    """Each option in an example exists, and each command is one."""
    import shlex

    for line, _ in ALL[name].examples:
        if not line.startswith("rheostat "):
            continue
        words = shlex.split(line.partition(" | ")[0].partition(" > ")[0])[1:]
        given = " ".join(words)
        found = next(known for known in ALL if given == known or given.startswith(f"{known} "))
        rest = words[len(found.split()) :]
        options = {option for param in ALL[found].params for option in param.opts + param.secondary_opts}
        for word in rest:
            if word.startswith("-") and word != "-":
                assert word in options, f"{line}: {word}"


def test_the_group_lists_commands_with_the_first_sentence_of_their_help():
    context = click.Context(root)
    for name, lazy in root.lazy.items():
        command = root.get_command(context, name)
        assert command.help.splitlines()[0].rstrip(".:").startswith(lazy.summary), name


def test_help_imports_no_command_no_server_and_no_network():
    code = (
        "import sys\n"
        "from rheostat.cli.root import root\n"
        "root(['--help'], standalone_mode=False)\n"
        "print(sorted(m for m in sys.modules if m.partition('.')[0] in"
        " ('rich', 'urllib3', 'connectrpc', 'google', 'sqlalchemy', 'uvicorn', 'lark', 'rheo')))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_reading_commands_never_import_the_server():
    code = (
        "import sys\n"
        "from rheostat.cli.root import root\n"
        "try: root(['list', '--url', 'http://127.0.0.1:1'])\n"
        "except SystemExit: pass\n"
        "print([m for m in sys.modules if m in ('rheostat.server', 'rheostat.service', 'sqlalchemy', 'uvicorn')])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_completion_script(shell):
    result = CliRunner().invoke(root, ["completion", shell])
    assert result.exit_code == 0
    assert "_RHEOSTAT_COMPLETE" in result.stdout


def completed(words, env):
    result = CliRunner().invoke(
        root,
        [],
        prog_name="rheostat",
        complete_var="_RHEOSTAT_COMPLETE",
        env={
            **env,
            "_RHEOSTAT_COMPLETE": "bash_complete",
            "COMP_WORDS": f"rheostat {words}",
            "COMP_CWORD": str(len(words.split(" "))),
        },
    )
    return {line.partition(",")[2] for line in result.stdout.splitlines() if line}


def test_completion_knows_commands_and_the_names_of_settings(cli):
    assert {"evaluate", "export", "explain", "env"} == completed("e", cli.env)
    assert completed("get check", {**cli.env, "RHEOSTAT_ENVIRONMENT": "production"}) == {"checkout.timeout"}
    assert completed("get check", {**cli.env, "RHEOSTAT_URL": "http://127.0.0.1:1"}) == set()


def test_a_mistyped_command_is_met_with_a_suggestion():
    result = CliRunner().invoke(root, ["exprot"])
    assert result.exit_code == ExitCode.USAGE
    assert "Did you mean 'export'?" in result.stderr


@pytest.mark.parametrize("arguments", [["get", "--json"], ["--json"], ["set", "a", "b", "--json", "--wat"]])
def test_a_wrong_command_line_is_reported_as_json_too(arguments):
    result = CliRunner().invoke(root, arguments)
    assert result.exit_code == ExitCode.USAGE
    error = json.loads(result.stderr)["error"]
    assert (error["reason"], error["exit_code"]) == ("USAGE", 2)


def test_a_url_without_a_scheme_is_refused_before_anything_is_sent():
    result = CliRunner().invoke(root, ["list", "--url", "localhost:7420"])
    assert result.exit_code == ExitCode.USAGE
    assert "http://" in result.stderr


def test_something_that_is_no_rheostat_server_is_said_to_be_none(tmp_path):
    import http.server
    import threading

    class Quiet(http.server.BaseHTTPRequestHandler):
        def do_POST(self):  # the base class's name
            self.send_error(404)

        do_GET = do_POST  # noqa: N815  # likewise

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Quiet) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        try:
            result = CliRunner().invoke(root, ["list", "--url", f"http://127.0.0.1:{other.server_port}"])
        finally:
            other.shutdown()
            thread.join()
    assert result.exit_code == ExitCode.UNREACHABLE
    assert "no rheostat server" in result.stderr


def test_every_error_has_an_exit_code_and_a_record(capsys):
    codes = {
        "UnavailableError": 3,
        "BehindError": 3,
        "DeadlineExceededError": 3,
        "AuthenticationError": 4,
        "WebhookVerificationError": 4,
        "PermissionDeniedError": 4,
        "RevisionConflictError": 5,
    }
    tree = ast.parse(Path(errors.__file__).read_text("utf-8"))
    names = [
        node.name for node in tree.body if isinstance(node, ast.ClassDef) and node.name.endswith("Error")
    ]
    assert len(names) > 20
    for name in names:
        class_ = getattr(errors, name)
        match name:
            case "RevisionConflictError":
                error = class_(3, [errors.Conflict("setting", "x", "production", 4)])
            case "RevisionCompactedError":
                error = class_(3, 4)
            case "LimitExceededError":
                error = class_("m", limit="max")
            case _:
                error = class_("m")
        assert report(error, as_json=True) == exit_code(error) == codes.get(name, 1), name
        record = json.loads(capsys.readouterr().err)["error"]
        assert record["reason"] == error.reason
    assert exit_code(UnreachableError("no")) == 3


def run_on_a_terminal(arguments, env):
    """Return what a command writes to standard output when that is a terminal."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "rheostat.cli", *arguments],
        stdout=slave,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **env},
    )
    os.close(slave)
    written = b""
    try:
        # A terminal whose other end is closed is an error on Linux, and an end elsewhere.
        while chunk := os.read(master, 65536):
            written += chunk
    except OSError:
        pass
    finally:
        os.close(master)
    assert process.wait(30) == 0
    return written.decode()


def test_colours_are_for_terminals_and_not_with_no_color(cli):
    env = {name: value for name, value in cli.env.items() if value is not None}
    env |= {"TERM": "xterm-256color", "COLUMNS": "100"}
    arguments = ["set", "checkout.timeout", "9", "--dry-run"]
    coloured = run_on_a_terminal(arguments, env)
    assert "\x1b[32m9.0" in coloured
    assert "\x1b[3" not in run_on_a_terminal(arguments, {**env, "NO_COLOR": "1"})
    assert "\x1b" not in cli.run(*arguments).output


def test_tables_in_pipes_have_no_colour_frame_or_trailing_space(cli):
    for line in cli.run("list").stdout.splitlines():
        assert line == line.rstrip()
        assert "─" not in line


def test_a_reader_that_goes_away_is_no_traceback(cli):
    env = {name: value for name, value in cli.env.items() if value is not None}
    read, write = os.pipe()
    os.close(read)
    process = subprocess.Popen(
        [sys.executable, "-m", "rheostat.cli", "export"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **env},
    )
    os.close(write)
    _, errors_ = process.communicate(timeout=30)
    assert "Traceback" not in errors_
    assert process.returncode == 1
