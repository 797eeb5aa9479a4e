"""How the gateway ends with its source: each way has a code, and the source's name."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.scripted_primary import ScriptedPrimary, until
from valkeep.client import replication
from valkeep.client.endpoint import Endpoint
from valkeep.errors import ValkeepError
from valkeep.migrate.feed.psync import PsyncFeed
from valkeep.migrate.gateway.gateway import Gateway, GatewayOptions
from valkeep.migrate.gateway.ledger import Ledger
from valkeep.migrate.transform.target import FieldTtl, TargetFormat

SNAPSHOT = b"REDIS0012\xff" + bytes(8)  # eight zero bytes: a checksum that is not to be checked


class Replying(ScriptedPrimary):
    """Answers PSYNC with its snapshot's bytes as they are."""

    async def _full_resync(self, writer: asyncio.StreamWriter) -> None:
        writer.write(self.snapshot)


async def ended(primary: ScriptedPrimary, folder: Path, *, cut: bool = False) -> ValkeepError:
    """The error that the gateway ends with; ``cut``: once it follows the stream, the source hangs up."""
    async with primary, asyncio.timeout(20):
        options = GatewayOptions(
            formats=(TargetFormat((8, 1)),),
            field_ttl=FieldTtl.REFUSE,
            listen=("127.0.0.1", 0),
            allow=frozenset(),
            spool=folder,
        )
        async with Gateway(
            PsyncFeed(Endpoint("127.0.0.1", primary.port)), options, Ledger(None), lambda _: None, asyncio.get_running_loop().time
        ) as gateway:
            with pytest.raises(ValkeepError) as raised:
                if cut:
                    await gateway.snapshot_taken()
                    await until(lambda: primary.acked == 1000)
                    await primary.hang_up()
                await gateway.watch()
    assert raised.value.remedy
    assert raised.value.message.startswith(f"the source 127.0.0.1:{primary.port} ")
    return raised.value


def test_a_source_that_hangs_up_is_lost(tmp_path: Path) -> None:
    error = asyncio.run(ended(ScriptedPrimary(SNAPSHOT), tmp_path, cut=True))
    assert (error.code, "in the stream, at offset 1000" in error.message) == ("VK-SOURCE-LOST", True)


def test_a_source_that_cannot_replicate_at_present_is_not_ready(tmp_path: Path) -> None:
    error = asyncio.run(ended(Replying(b"-NOMASTERLINK Can't SYNC while not connected with my master\r\n"), tmp_path))
    assert (error.code, "NOMASTERLINK" in error.message) == ("VK-SOURCE-NOT-READY", True)


def test_a_source_that_says_nothing_for_too_long_is_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replication, "SILENCE_SECONDS", 0.3)
    error = asyncio.run(ended(ScriptedPrimary(SNAPSHOT), tmp_path))
    assert (error.code, "said nothing for" in error.message) == ("VK-SOURCE-SILENT", True)
