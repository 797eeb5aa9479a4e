"""`valkeep up --runtime compose`: containers that stand, are looked at and go, as processes do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import until
from valkeep.runtime.docker import Docker


def containers(docker: Docker, holder: int) -> str:
    return docker.run("ps", "--all", "--quiet", "--filter", f"name=valkeep-{holder}-")


@pytest.mark.parametrize("killed", [False, True], ids=["down", "kill -9 of the holder"])
def test_containers_stand_until_they_are_ended(docker: Docker, tmp_path: Path, killed: bool) -> None:
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}

    def valkeep(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "valkeep", *words], env=environment, capture_output=True, text=True, check=False, timeout=300
        )

    done = valkeep("up", "sentinel", "--runtime", "compose", "--detach", "--json", "-")
    assert done.returncode == 0, done.stderr
    about: dict[str, Any] = json.loads(done.stdout)
    try:
        assert len(containers(docker, about["holder"]).split()) >= 6
        (seen,) = json.loads(valkeep("status", "--json", "-").stdout)["topologies"]
        assert seen["whole"], seen["missing"]
        assert [node["role"] for node in seen["nodes"]] == ["primary", "replica", "replica"]
        assert all(one["primary"] == "n1" for one in seen["sentinels"])
        if killed:
            os.kill(about["holder"], signal.SIGKILL)
        else:
            ended = valkeep("down")
            assert ended.returncode == 0, ended.stderr
            assert containers(docker, about["holder"]) == ""
        until(lambda: containers(docker, about["holder"]) == "", "containers gone", 90.0)
        until(lambda: not Path(about["folder"]).exists() and not list(tmp_path.rglob("*.json")), "files gone", 90.0)
    finally:
        valkeep("down", "--all")
