"""``valkeep migrate run --attach external``: a target that connects by itself, told so by somebody else (the test), and promoted by them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server
from tests.support.pair import Pair
from tests.support.valkeep_process import Valkeep
from tests.support.waiting import until
from tests.support.writers import Writers, lost

Client = Callable[..., Any]
pytestmark = [pytest.mark.slow]


@pytest.fixture
def pair(server: Server, client: Client, tmp_path: Path) -> Pair:
    return _pair(server, client, tmp_path)


def _pair(server: Server, client: Client, folder: Path, target: str = "valkey-8.1", **settings: Any) -> Pair:
    here, there = server("redis-7.0"), server(target, **settings)
    return Pair(here, there, client(here), client(there), folder)


def gateway_port(process: Valkeep) -> int:
    """Where we were told to let the target replicate from."""
    said = until(lambda: [line for line in process.stderr.splitlines() if "let the target" in line], lambda: process.stderr)
    return int(said[-1].partition("REPLICAOF 127.0.0.1 ")[2].split(",")[0])


def run(pair: Pair, *more: str, name: str = "run") -> Valkeep:
    return pair.run("--attach", "external", "--field-ttl", "keep-field", *more, name=name)


@pytest.mark.parametrize("target", ["valkey-8.0", "valkey-8.1", "valkey-9.1"])
def test_a_target_that_attached_by_itself_is_verified_and_cut_over_under_writers(
    server: Server, client: Client, tmp_path: Path, target: str
) -> None:
    pair = _pair(server, client, tmp_path, target)
    pair.here.mset({f"k{number}": number for number in range(2000)})
    pair.here.expire("k1", 10_000)
    with Writers(pair.source.port, 3) as writers, run(pair) as process:
        pair.there.replicaof("127.0.0.1", gateway_port(process))
        process.wait_for("cutover:promote")
        until(lambda: "promote the target" in process.stderr, lambda: process.stderr)
        assert pair.fence == "255"
        pair.there.replicaof("NO", "ONE")
        assert process.wait() == 0, process.stderr
        writers.stop()
        acknowledged = writers.acknowledged()
    assert lost(acknowledged, pair.there) == []
    assert pair.there.dbsize() == pair.here.dbsize()
    assert pair.there.info("stats")["unexpected_error_replies"] == 0
    assert writers.refused, "the fence was not felt"
    process.assert_nothing_left()
