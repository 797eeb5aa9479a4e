"""Containers for real, on a Docker daemon of the test run's own. `make test-services` runs these (`.ci/services`), `make test` does not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from valkeep.runtime import image, servers
from valkeep.runtime.docker import Docker

collect_ignore_glob = [] if os.environ.get("VALKEEP_TEST_SERVICES") else ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two containers that start at once on a busy machine take their time."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session", autouse=True)
def docker() -> Docker:
    """Found by what this process has in its environment (see `daemon`), as Valkeep and Compose would find it."""
    return Docker.find()


@pytest.fixture(scope="session")
def server_image(docker: Docker) -> str:
    """With a real command-line client, as official images have one."""
    cli = shutil.which("redis-cli") or shutil.which("valkey-cli")
    assert cli, "apt-get install redis-tools"
    return image.build(docker, servers.find("newest-valkey"), cli=Path(cli))


@pytest.fixture(scope="session")
def bare_image(docker: Docker) -> str:
    """With the stand-in for the command-line client."""
    return image.build(docker, servers.find("newest-valkey"))
