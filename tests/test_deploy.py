"""The files of examples/deploy say what the programs take; nothing here needs the systems that they are for."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from rheostat.cli.root import root
from rheostat.server.metrics import exposition
from rheostat.service import Service
from rheostat.store import open_store
from tests.program import SCRIPTS

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "examples" / "deploy"


def read(name: str) -> str:
    return (DEPLOY / name).read_text("utf-8")


def of_dockerfile() -> Iterator[Sequence[str]]:
    yield yaml.safe_load(re.findall(r"^CMD (.*)$", read("Dockerfile"), re.MULTILINE)[-1])


def of_compose() -> Iterator[Sequence[str]]:
    for name, service in yaml.safe_load(read("compose.yaml"))["services"].items():
        if name != "setup" and "command" in service:
            yield service["command"]


def of_units() -> Iterator[Sequence[str]]:
    for name in ("rheostat.service", "rheostat-relay.service"):
        (line,) = re.findall(r"^ExecStart=\S+/rheostat (.*)$", read(name), re.MULTILINE)
        yield shlex.split(line)


def of_kubernetes() -> Iterator[Sequence[str]]:
    for item in items("Deployment"):
        spec = item["spec"]["template"]["spec"]
        for container in (*spec.get("initContainers", ()), *spec["containers"]):
            yield [part for argument in container["args"] for part in argument.split("=", 1)]


def items(kind: str) -> list[Any]:
    return [item for item in yaml.safe_load(read("kubernetes.yaml"))["items"] if item["kind"] == kind]


COMMANDS = [tuple(each) for found in (of_dockerfile, of_compose, of_units, of_kubernetes) for each in found()]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_the_command_takes_the_options(arguments: tuple[str, ...]) -> None:
    command = root.get_command(click.Context(root), arguments[0])
    assert command is not None
    known = {
        name: parameter
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for name in parameter.opts
    }
    rest = list(arguments[1:])
    while rest:
        option = known[rest.pop(0)]
        if not option.is_flag:
            value = rest.pop(0)
            assert not value.startswith("--")


def test_the_setup_of_compose_makes_each_key_once(tmp_path: Path) -> None:
    (script,) = yaml.safe_load(read("compose.yaml"))["services"]["setup"]["command"]
    script = script.replace("$$", "$").replace("/keys/", f"{tmp_path}/").replace("chown 10001", "test -s")
    made = []
    for _ in range(2):
        subprocess.run(
            ["/bin/sh", "-euc", script],
            check=True,
            timeout=600,
            env={
                **os.environ,
                "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",
                "RHEOSTAT_STORE": f"sqlite:{tmp_path / 'store.db'}",
            },
        )
        made.append({path.name: path.read_text() for path in tmp_path.glob("*.key")})
    assert made[0] == made[1]
    assert made[0]["admin.key"].startswith("rst_user_")
    assert made[0]["relay.key"].startswith("rst_relay_")
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("*.key")} == {0o600}


def test_the_image_is_built_of_what_there_is() -> None:
    text = read("Dockerfile")
    for sources in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE):
        assert all((ROOT / source).exists() for source in sources.split())
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for named in re.findall(r"\[([a-z,]+)\]\"", text):
        assert set(named.split(",")) <= extras.keys()


def test_pods_are_chosen_by_their_services_and_budgets() -> None:
    labels = {item["metadata"]["name"]: item["metadata"]["labels"] for item in items("Deployment")}
    for service in items("Service"):
        assert service["spec"]["selector"] == labels[service["metadata"]["name"]]
    for budget in items("PodDisruptionBudget"):
        assert budget["spec"]["selector"]["matchLabels"] == labels[budget["metadata"]["name"]]
        assert budget["spec"]["minAvailable"] == 1
    for item in items("Deployment"):
        (container,) = item["spec"]["template"]["spec"]["containers"]
        assert item["spec"]["replicas"] > 1
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
        assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    with Service(open_store("memory:")) as service:
        # One of each kind that only appears when it has happened.
        for what in ("snapshots", "ended", "errors", "calls"):
            service.metrics.count(what, "a", *("ok" for _ in range(what == "calls")))
        service.metrics.called("a", "ok", 0.1)
        body, _ = exposition(service, "", stale_seconds=1.0)
    known = {
        sample.name for family in text_string_to_metric_families(body.decode()) for sample in family.samples
    }
    dashboard = json.loads(read("grafana.json"))
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"rheostat_\w+", target["expr"])
    }
    assert len(asked) > 10
    assert asked <= known
