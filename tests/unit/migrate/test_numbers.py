"""A gateway's numbers for Prometheus: whose they are, of several shards of a source and of one server."""

from __future__ import annotations

import asyncio
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.support.fixtures_snapshots import item
from tests.support.scripted_feed import ScriptedFeed
from tests.support.scripted_primary import command, sealed
from valkeep.migrate.gateway.gateway import Gateway, GatewayOptions
from valkeep.migrate.gateway.ledger import Ledger
from valkeep.migrate.gateway.resumption import Resumption
from valkeep.migrate.run.numbers import watched
from valkeep.migrate.transform.copies import Copy
from valkeep.migrate.transform.target import FieldTtl, TargetFormat

FORMATS = (TargetFormat((9, 1)),)
SNAPSHOT = sealed(b"REDIS0012\xfa\x0erepl-stream-db\xc0\x00\xfe\x00" + item(0, "k", "0176"))
DOCUMENTED: Final = Path(__file__).parents[3] / "docs" / "reference" / "metrics.md"
OFFSETS = {"": 1000, "1": 1000, "2": 5000}


class Source(ScriptedFeed):
    async def read(self, places: object) -> list[Copy]:
        raise AssertionError(places)


def link(channel: object, lag: int) -> Any:
    """Of a target that has the snapshot."""
    return SimpleNamespace(channel=channel, peer="there:1", lag=lag, online=True, close=lambda _: None)


def scraped(tmp_path: Path, *names: str) -> list[Sample]:
    """What Prometheus gets of gateways of these shards, each with another offset, and one more command and byte of lag than the one before."""

    async def work() -> list[Sample]:
        async with AsyncExitStack() as stack:
            gateways: dict[str, Gateway] = {}
            for number, name in enumerate(names, 1):
                kept = Resumption(tmp_path / f"state{name}", tmp_path, None)
                kept.begin(FieldTtl.KEEP_FIELD, FORMATS)
                source, ledger = Source(SNAPSHOT, OFFSETS[name]), Ledger(None)
                ledger.counts["degraded", "encoding", "keep-field"] += number
                options = GatewayOptions(FORMATS, FieldTtl.KEEP_FIELD, ("127.0.0.1", 0), frozenset(), kept.spool_folder)
                gateway = await stack.enter_async_context(Gateway(source, options, ledger, lambda _: None, lambda: 0.0, kept))
                async with asyncio.timeout(5):
                    await gateway.snapshot_taken()
                source.say(command("SET k 1") * number)
                gateway.adopt(link(gateway.channels[0], number))
                gateways[name] = gateway
            with watched(gateways, ("127.0.0.1", 0), lambda: "") as server:
                url = f"http://127.0.0.1:{server.port}/metrics"
                text = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=10).read().decode())
        return [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    return asyncio.run(work())


def by_shard(samples: list[Sample], name: str) -> Mapping[str | None, float]:
    return {sample.labels.get("shard"): sample.value for sample in samples if sample.name == name}


def documented() -> dict[str, set[str]]:
    """Metric → its labels, by the reference."""
    rows = re.findall(r"^\| `(valkeep_\w+)` \| \w+ \| (.*?) \|", DOCUMENTED.read_text(), re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}


def test_each_number_of_each_of_several_shards_says_whose_it_is(tmp_path: Path) -> None:
    samples = scraped(tmp_path, "1", "2")
    said = {(sample.name, *sorted(sample.labels)) for sample in samples}
    assert said == {(name, *sorted({*labels, "shard"})) for name, labels in documented().items()}
    size = len(command("SET k 1"))
    assert by_shard(samples, "valkeep_source_offset_bytes") == {"1": 1000 + size, "2": 5000 + 2 * size}
    assert by_shard(samples, "valkeep_stream_commands_total") == {"1": 1, "2": 2}
    assert by_shard(samples, "valkeep_target_lag_bytes") == {"1": 1, "2": 2}  # to the same server of the target
    assert by_shard(samples, "valkeep_ledger_total") == {"1": 1, "2": 2}
    assert all(set(by_shard(samples, name)) == {"1", "2"} for name in documented())


def test_the_numbers_of_a_single_server_have_no_shard(tmp_path: Path) -> None:
    samples = scraped(tmp_path, "")
    assert {(sample.name, *sorted(sample.labels)) for sample in samples} == {
        (name, *sorted(labels)) for name, labels in documented().items()
    }
    assert by_shard(samples, "valkeep_stream_commands_total") == {None: 1}


def test_a_cluster_of_one_shard_says_which_it_is_too(tmp_path: Path) -> None:
    """Alarms that name a shard go on when the others are over."""
    assert by_shard(scraped(tmp_path, "1"), "valkeep_target_online") == {"1": 1}


def test_the_first_shard_that_is_not_ready_is_the_reason_for_all() -> None:
    incomplete = SimpleNamespace(channels=[SimpleNamespace(complete=False)], held=())
    whole = SimpleNamespace(channels=[SimpleNamespace(complete=True)], held=())
    for gateways in ({"1": incomplete, "2": whole}, {"1": whole, "2": incomplete}):
        with watched(cast("Mapping[str, Gateway]", gateways), ("127.0.0.1", 0), lambda: "") as server:
            assert "the source's snapshot is not complete yet" in _ready(server.port)
    with watched(cast("Mapping[str, Gateway]", {"1": whole, "2": whole}), ("127.0.0.1", 0), lambda: "") as server:
        assert _ready(server.port) == "ok\n"


def _ready(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=10) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as refused:  # 503
        with refused:
            return refused.read().decode()
