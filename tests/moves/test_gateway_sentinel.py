"""The source's sentinels find the gateway in its list of replicas, and must never make a primary of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server
from tests.integration.test_gateway_service import serving
from tests.support.nodes import Setting
from tests.support.waiting import until
from valkeep.runtime import ports
from valkeep.runtime.node import Process

pytestmark = pytest.mark.server


@contextmanager
def watched(source: Process, folder: Path) -> Iterator[Process]:
    """A sentinel of the source's own kind, which may decide alone."""
    folder.mkdir()
    taken = ports.reserve()
    config: dict[str, Setting] = {
        "sentinel monitor s": f"{source.host} {source.port} 1",
        "sentinel down-after-milliseconds s": 500,
        "sentinel failover-timeout s": 2000,
    }
    sentinel = Process(source.binary, config, folder, ("127.0.0.1", taken.port), release=taken.release, arguments=("--sentinel",))
    try:
        sentinel.launch()
        yield sentinel
    finally:
        sentinel.dispose()


def test_a_sentinel_that_looks_at_the_gateway_is_hung_up_on_and_never_promotes_it(
    server: Server, client: Callable[..., Any], tmp_path: Path
) -> None:
    source = server("redis-8.0")
    with serving(source, tmp_path / "gateway", "8.1") as gateway, watched(source, tmp_path / "sentinel") as sentinel:
        here = client(sentinel)

        def dead() -> bool:
            replicas = [dict(zip(one[::2], one[1::2], strict=True)) for one in here.execute_command("SENTINEL", "REPLICAS", "s")]
            assert all(one[b"runid"] == b"" for one in replicas), "it was told something"
            return [int(one[b"port"]) for one in replicas] == [gateway.port] and b"s_down" in replicas[0][b"flags"]

        until(dead, lambda: f"the sentinel did not find the gateway, or was answered: {sentinel.log()}")
        source.kill()
        until(lambda: "-failover-abort-no-good-slave" in sentinel.log(), "the sentinel did not try to fail over")
        until(dead, "the sentinel found somebody else")
        assert "+selected-slave" not in sentinel.log()
        assert here.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "s")[1] == str(source.port).encode()
