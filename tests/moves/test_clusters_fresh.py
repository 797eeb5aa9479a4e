"""A killed move of a cluster that is begun anew, of fewer shards than before."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.cluster_pair import clusters, fill
from valkeep.migrate.gateway.resumption import Resumption

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180), pytest.mark.server]


def test_what_is_left_of_a_shard_that_is_no_more_is_removed_when_the_move_begins_anew(tmp_path: Path) -> None:
    with clusters("redis-7.0", "newest-valkey", tmp_path, (2, 1)) as pair:
        fill(pair.here, 60)
        with pair.run("--cutover", "manual") as run:
            run.wait_for("waiting")
            run.kill()
        shards = tmp_path / "state" / "shards"
        spool = Path(json.loads((shards / "2" / "gateway.json").read_text())["spool"])
        shutil.copytree(shards / "2", shards / "3")  # as if there had been three
        third = Resumption(shards / "3", spool.parent, None).spool_folder
        shutil.copytree(spool, third)
        standing = json.loads((shards / "3" / "gateway.json").read_text()) | {"spool": str(third)}
        (shards / "3" / "gateway.json").write_text(json.dumps(standing))
        with pair.run("--cutover", "manual", name="on") as run:  # which goes on, and leaves alone what it does not know
            run.wait_for("waiting")
            assert third.exists()
            run.kill()
        with pair.run("--fresh", "--wipe-target", name="anew") as run:
            assert run.wait() == 0, run.stderr
        assert not third.exists()
        assert {folder.name for folder in shards.iterdir()} == {"1", "2"}
        pair.assert_same()
