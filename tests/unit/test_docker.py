"""What Docker's failures are told as, without Docker: a program in its place says what the real one was seen to say."""

from __future__ import annotations

from pathlib import Path

import pytest

from valkeep.errors import ExitCode, UsageError
from valkeep.runtime import compose
from valkeep.runtime.docker import AddressesTaken, Docker, DockerFailed, DockerMissing
from valkeep.topology.spec import TopologySpec


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH; `program` puts programs into it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


FAILS = """\
case "$1" in
  compose) [ "$2" = version ] && { echo 2.26.1; exit 0; }; echo "some progress" >&2; echo "%s" >&2; exit 1 ;;
  version) echo 28.2.2 ;;
esac
"""


@pytest.mark.parametrize(
    ("said", "told", "kind"),
    [
        (
            "Error response from daemon: driver failed programming external connectivity: Bind for 127.0.0.1:7001 failed: port is already allocated",
            "127.0.0.1:7001 is taken",
            DockerFailed,
        ),
        (
            "Error response from daemon: driver failed: Error starting userland proxy: listen tcp4 127.0.0.1:7002: bind: address already in use",
            "127.0.0.1:7002 is taken",
            DockerFailed,
        ),
        (
            "failed to create network a_valkey: Error response from daemon: Pool overlaps with other one on this address space",
            "addresses are those of another",
            AddressesTaken,
        ),
        ("Error response from daemon: pull access denied for nothing", "pull access denied for nothing", DockerFailed),
    ],
)
def test_a_failure_of_compose_says_what_is_in_the_way(says: Path, said: str, told: str, kind: type[DockerFailed]) -> None:
    program(says, "docker", FAILS % said)
    with pytest.raises(kind, match=told) as caught:
        Docker.find().compose_run("up")
    assert caught.value.remedy
    assert caught.value.exit_code is ExitCode.NOT_RUN


def test_no_docker_no_compose_an_old_compose_and_no_daemon_are_told_apart(says: Path) -> None:
    with pytest.raises(DockerMissing, match="no docker on PATH"):
        Docker.find()
    program(says, "docker", "exit 1")
    with pytest.raises(DockerMissing, match="Compose 2 is not"):
        Docker.find()
    program(says, "docker-compose", "echo 1.29.2")
    with pytest.raises(DockerMissing, match="Compose 2 is not"):
        Docker.find()
    program(says, "docker-compose", "echo 2.26.1-4")
    program(says, "docker", "echo Cannot connect to the Docker daemon >&2; exit 1")
    with pytest.raises(DockerMissing, match="daemon does not answer: Cannot connect") as caught:
        Docker.find()
    assert "docker info" in caught.value.remedy
    program(says, "docker", '[ "$1" = version ] && echo 28.2.2')
    assert Docker.find().compose == ("docker-compose",)


def test_a_shape_that_no_file_describes_is_refused_before_docker_is_asked(says: Path) -> None:
    for spec in (TopologySpec.sentinel(replicas=1), TopologySpec.cluster(shards=5), TopologySpec.standalone()):
        with pytest.raises(UsageError, match="no Compose file"):
            compose.ComposeDeployment(spec)


def test_the_compose_files_are_found_by_the_package() -> None:
    assert (compose.FILES / "docker-compose.ha.yml").read_text().startswith("# One primary")
    assert (compose.FILES / "conf" / "sentinel.conf").exists()
