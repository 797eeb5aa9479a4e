"""A server that is a primary need not have been promoted by us: whoever finds it after a kill -9 may have detached it by hand, before the fence stood."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server
from tests.support.pair import ProxiedPair
from tests.support.proxy import Proxy
from tests.support.waiting import until
from tests.support.writers import Writers

pytestmark = [pytest.mark.slow]
Client = Callable[..., Any]
PAUSE = b"*4\r\n$6\r\nCLIENT\r\n$5\r\nPAUSE\r\n"


@pytest.fixture
def pair(server: Server, client: Client, tmp_path: Path) -> Iterator[ProxiedPair]:
    source, target = server("redis-7.0"), server("valkey-9.1")
    with Proxy(source.address) as to_source, Proxy(target.address) as to_target:
        yield ProxiedPair(source, target, client(source), client(target), tmp_path, to_source, to_target)


@pytest.mark.parametrize("command", ["abort", "commit", "rollback"])
def test_a_target_that_was_detached_by_hand_before_the_fence_is_not_taken_for_promoted(command: str, pair: ProxiedPair) -> None:
    with Writers(pair.source.port, 2) as writers:
        writers.wait_for_acks(5)
        with pair.run("--lease", "1000") as run:
            pair.to_source.when(PAUSE, after=run.kill)
            until(lambda: not run.running, lambda: run.stderr, 120)
        pair.there.execute_command("REPLICAOF", "NO", "ONE")
        writers.wait_for_acks(5)  # the lease ended: the source has writes that the target lacks
        ended = pair.valkeep(command)
        assert ended.process.returncode != 0
        assert ended.code in ("VK-ABORT-UNKNOWN", "VK-ROLLBACK-NONE"), ended.stderr
        assert "has every write" not in ended.stderr
        assert pair.valkeep("abort", "--force").process.returncode == 0
        writers.wait_for_acks(5)


def test_a_target_that_was_detached_by_hand_is_not_taken_for_promoted_where_nothing_was_fenced(pair: ProxiedPair) -> None:
    with pair.run("--fence", "external") as run:
        run.wait_for("cutover:wait-for-silence")
        run.kill()
    pair.there.execute_command("REPLICAOF", "NO", "ONE")
    pair.here.set("later", "v")
    assert pair.valkeep("abort").code == "VK-ABORT-UNKNOWN"
    assert pair.valkeep("abort", "--force").process.returncode == 0
    assert pair.here.set("later", "still")


def test_an_old_server_that_was_promoted_by_hand_gets_no_writers_while_the_new_one_has_them(pair: ProxiedPair) -> None:
    with pair.run("--rollback", "--lease", "1000") as run:
        run.wait_for("way-back:current")
        with Writers(pair.target.port, 2) as writers:
            pair.to_target.when(PAUSE, after=run.kill)
            pair.valkeep("rollback")
            until(lambda: not run.running, lambda: run.stderr, 120)
            pair.here.execute_command("REPLICAOF", "NO", "ONE")
            writers.wait_for_acks(5)
            rolled = pair.valkeep("rollback")
            assert (rolled.process.returncode, rolled.code) == (5, "VK-ROLLBACK-UNKNOWN"), rolled.stderr
            assert pair.fence == "255"
            writers.wait_for_acks(5)
