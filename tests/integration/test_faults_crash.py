"""A machine that loses power keeps what was synced and nothing else, whoever built the server."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.waiting import holds
from valkeep.client.connection import Connection
from valkeep.errors import Refused, ValkeepError
from valkeep.runtime import synced
from valkeep.runtime.local import LocalDeployment
from valkeep.runtime.synced import SyncedFiles
from valkeep.topology.spec import Persistence, TopologySpec

pytestmark = pytest.mark.server


def spec(persistence: Persistence, server: str = "newest-valkey") -> TopologySpec:
    return replace(TopologySpec.standalone(), persistence=persistence, server=server)


async def crashed_under_load(persistence: Persistence, server: str) -> tuple[list[float], int]:
    """When each append was acked, and how many of them are there after the crash, which must be the first ones."""
    acked: list[float] = []

    async def write(deployment: LocalDeployment) -> None:
        connection = await Connection.open(deployment.machines["n1"].endpoint)
        try:
            while True:
                await connection.pipeline([("RPUSH", "k", str(len(acked) + number)) for number in range(10)])
                acked.extend([time.monotonic()] * 10)
        except ValkeepError:
            await connection.close()

    async with LocalDeployment(spec(persistence, server), needs=frozenset({"fsync"})) as deployment:
        assert "fsync" in deployment.abilities
        writer = asyncio.create_task(write(deployment))
        files = SyncedFiles(deployment.folder / "n1", deployment.folder / "n1.synced")
        await holds(lambda: any(size > 1000 for name, size in files.synced().items() if "aof" in name), "something is synced")
        goal = len(acked) + 500
        await holds(lambda: len(acked) > goal, "more is written")
        await deployment.machines["n1"].crash()
        await writer
        await deployment.machines["n1"].start()
        connection = await Connection.open(deployment.machines["n1"].endpoint)
        kept = await connection.call("LRANGE", "k", 0, -1)
        await connection.close()
    assert kept == [str(number).encode() for number in range(len(kept))]
    return acked, len(kept)


@pytest.mark.parametrize("server", ["newest-valkey", "redis-7.0", "valkey-8.0"])
def test_everysec_loses_the_last_acked_writes_and_no_others(server: str) -> None:
    acked, kept = asyncio.run(crashed_under_load(Persistence.EVERYSEC, server))
    assert 0 < kept < len(acked)
    assert acked[-1] - acked[kept] <= 3, "a second, and another for a slow disk"


@pytest.mark.parametrize("server", ["newest-valkey", "redis-7.0"])
def test_always_loses_no_acked_write(server: str) -> None:
    acked, kept = asyncio.run(crashed_under_load(Persistence.ALWAYS, server))
    assert kept >= len(acked) > 0
    assert kept <= len(acked) + 10, "more than was acked can only be what was in flight"


def test_a_node_without_a_record_of_syncs_refuses_to_crash() -> None:
    async def main() -> None:
        async with LocalDeployment(spec(Persistence.EVERYSEC)) as deployment:
            assert "fsync" not in deployment.abilities
            with pytest.raises(Refused) as caught:
                await deployment.machines["n1"].crash()
            assert caught.value.remedy
            assert deployment.machines["n1"].alive

    asyncio.run(main())


def test_without_the_compiled_library_machine_crashes_are_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synced, "shim", lambda: None)

    async def main() -> None:
        async with LocalDeployment(spec(Persistence.EVERYSEC), needs=frozenset({"fsync"})):
            raise AssertionError("started")

    with pytest.raises(Refused, match="not compiled") as caught:
        asyncio.run(main())
    assert "compiler" in caught.value.remedy


def test_unsynced_bytes_are_cut_off_and_a_reused_file_number_inherits_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "node"
    folder.mkdir()
    (folder / "old").write_bytes(b"x" * 7)
    files = SyncedFiles(folder, tmp_path / "table")
    files.prepare()
    code = """if True:
        import os
        def put(name, synced, unsynced):
            with open(name, "wb", buffering=0) as file:
                file.write(b"s" * synced)
                if synced: os.fsync(file.fileno())
                file.write(b"u" * unsynced)
        put("both", 10, 5); put("never", 0, 5); put("node.log", 0, 5)
        put("gone", 100, 0); os.unlink("gone"); put("again", 0, 50)     # the same inode, most likely
        put("temp", 20, 3); os.rename("temp", "renamed")
        put("short", 30, 0); os.truncate("short", 30)
        with open("short", "r+b", buffering=0) as file: file.truncate(8); file.seek(8); file.write(b"u" * 30)
    """
    subprocess.run([sys.executable, "-c", code], cwd=folder, env={**os.environ, **files.environment}, check=True)
    lost = files.lose_unsynced()
    assert lost == {"both": 5, "never": 5, "again": 50, "renamed": 3, "short": 30}
    assert (folder / "old").stat().st_size == 7
    assert (folder / "node.log").stat().st_size == 5
