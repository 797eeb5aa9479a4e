"""What can be said of the Compose files without running them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.services.project import COMPOSE, Project

FILES = ("ha", "cluster")


def rendered(file: str, **environment: str) -> dict[str, Any]:
    done = Project(file, **environment).compose("config", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert not done.stderr, f"Compose warns: {done.stderr}"
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def servers_of(project: dict[str, Any]) -> dict[str, Any]:
    return {name: service for name, service in project["services"].items() if re.fullmatch(r"[ns]\d", name)}


def wrong_about_restarts(project: dict[str, Any], settings: str) -> list[str]:
    """A server that restarts by itself has to have kept its data: an empty primary makes its replicas empty."""
    persistent = "appendonly yes" in settings.splitlines()
    return [
        name
        for name, service in servers_of(project).items()
        if service.get("restart", "no") != "no"
        and not (persistent and any(volume["type"] == "volume" and volume["target"] == "/data" for volume in service["volumes"]))
    ]


@pytest.mark.parametrize("file", FILES)
def test_what_restarts_by_itself_keeps_its_data(file: str) -> None:
    settings = (COMPOSE / "conf" / "valkey.conf").read_text()
    project = rendered(file)
    assert wrong_about_restarts(project, settings) == []
    assert wrong_about_restarts(project, settings.replace("appendonly yes", "appendonly no")) == list(servers_of(project))
    del project["services"]["n1"]["volumes"][1]
    assert wrong_about_restarts(project, settings) == ["n1"]


@pytest.mark.parametrize("file", FILES)
def test_every_server_has_a_health_check_a_published_port_of_the_same_number_and_time_to_stop(file: str) -> None:
    published: set[str] = set()
    for name, service in servers_of(rendered(file)).items():
        assert service["healthcheck"]["test"], name
        assert service["stop_grace_period"] in ("30s", "10s"), name
        for port in service["ports"]:
            assert port["published"] == str(port["target"]), name
            assert port["host_ip"] == "127.0.0.1", f"{name} is published to the network"
            assert port["published"] not in published
            published.add(port["published"])
        assert service["environment"]["ANNOUNCE_IP"] == service["networks"]["valkey"]["ipv4_address"]


@pytest.mark.parametrize("file", FILES)
def test_with_an_address_of_the_host_everything_is_announced_and_published_there(file: str) -> None:
    for name, service in servers_of(rendered(file, VALKEY_HOST_IP="192.0.2.7")).items():
        assert service["environment"]["ANNOUNCE_IP"] == "192.0.2.7", name
        assert {port["host_ip"] for port in service["ports"]} == {"192.0.2.7"}, name
    assert "172.30.99.0/24" in str(rendered(file, VALKEY_NET="172.30.99")["networks"])


@pytest.mark.parametrize("script", sorted([*COMPOSE.glob("conf/*.sh"), COMPOSE / "image" / "valkey-cli"]), ids=lambda path: path.name)
def test_scripts_are_posix_shell(script: Path) -> None:
    for shell in (["busybox", "sh"], ["dash"]):
        done = subprocess.run([*shell, "-n", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
