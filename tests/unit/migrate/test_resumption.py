"""What a gateway leaves for the next one: read again, refused where it is another's, damaged or of another boot."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.fixtures_snapshots import item
from tests.support.scripted_primary import command, sealed
from valkeep.client.endpoint import Endpoint
from valkeep.errors import ValkeepError
from valkeep.migrate.feed import Origin
from valkeep.migrate.gateway.channel import Channel
from valkeep.migrate.gateway.ledger import Ledger
from valkeep.migrate.gateway.resumption import Rebooted, Resumption, discard
from valkeep.migrate.journal import Journal
from valkeep.migrate.outcome import RunOptions
from valkeep.migrate.run.unfinished import Footing, take_up
from valkeep.migrate.state import StateFile
from valkeep.migrate.transform.target import FieldTtl, TargetFormat

FORMAT = TargetFormat((8, 1))
ORIGIN = Origin("Redis 8.0.2", (8, 0, 2), (8, 0, 2), valkey=False)
SNAPSHOT = sealed(b"REDIS0012\xfa\x0erepl-stream-db\xc0\x03\xfe\x00" + item(0, "k", "0176"))
OWN = "ef" * 20


def channel(folder: Path, resumption: Resumption) -> Channel:
    kept = resumption.channels.get(OWN)
    return Channel(
        FORMAT,
        FieldTtl.DROP_FIELD,
        Ledger(None),
        folder,
        OWN,
        source_version=(8, 0),
        source_offset=kept.checkpoint.source if kept is not None else 1000,
        source_replid="ab" * 20,
        keep=True,
        kept=kept,
        on_wanted=lambda *_: None,
    )


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """The state folder of a gateway that was killed."""
    state = tmp_path / "state"
    resumption = Resumption(state, tmp_path / "disk", None)
    assert not resumption.load()
    resumption.begin(FieldTtl.DROP_FIELD, [FORMAT])
    assert not Resumption(state, tmp_path, None).load()  # there is nothing whole yet
    one = channel(resumption.spool_folder, resumption)
    one.feed_snapshot(SNAPSHOT)
    one.end_snapshot()
    resumption.complete(ORIGIN, ("127.0.0.1", 16400), [one])
    one.feed_stream(command("SET a 1") + command("INCR b")[:7])
    one.close(leave=True)
    resumption.ended()
    return state


def test_the_next_one_finds_where_it_was_also_when_another_disk_is_named(left: Path, tmp_path: Path) -> None:
    again = Resumption(left, tmp_path / "elsewhere", None)
    assert again.load()
    again.expect(FieldTtl.DROP_FIELD, [FORMAT])
    again.check_source(ORIGIN)
    assert again.listen == ("127.0.0.1", 16400)
    assert again.spool_folder.parent == tmp_path / "disk"
    one = channel(again.spool_folder, again)
    assert (one.source_offset, one.received) == (1000 + len(command("SET a 1")),) * 2
    one.feed_stream(command("INCR b"))
    assert one.stream.read(1000, 1000) == command("SELECT 3") + command("SET a 1") + command("INCR b")
    assert one.taken.keys == 1
    one.close(leave=True)
    discard(left)
    assert list((tmp_path / "disk").iterdir()) == []
    assert not Resumption(left, tmp_path, None).load()


def kept(left: Path, kind: str) -> Path:
    return next((left.parent / "disk").glob(f"*/{kind}-*"))


def rewrite(left: Path, **changes: Any) -> None:
    path = left / "gateway.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("code", "damage"),
    [
        ("VK-STATE-READ", lambda left: rewrite(left, schema=99)),
        ("VK-STATE-READ", lambda left: rewrite(left, unknown=1)),
        ("VK-STATE-READ", lambda left: (left / "gateway.json").write_text("{")),
        ("VK-STATE-READ", lambda left: rewrite(left, channels=[{"replid": "a" * 40}])),
        ("VK-STATE-READ", lambda left: rewrite(left, channels=["nothing"])),
        ("VK-STATE-BOOT", lambda left: rewrite(left, boot="another")),
        ("VK-STATE-DAMAGED", lambda left: kept(left, "checkpoint").unlink()),
        ("VK-SPOOL-DAMAGED", lambda left: kept(left, "stream").unlink()),
        ("VK-SPOOL-DAMAGED", lambda left: os.truncate(kept(left, "stream"), 5)),
        ("VK-SPOOL-DAMAGED", lambda left: kept(left, "snapshot").unlink()),
        ("VK-SPOOL-DAMAGED", lambda left: os.truncate(kept(left, "snapshot"), 5)),
    ],
)
def test_what_is_damaged_is_refused_with_the_remedy(left: Path, code: str, damage: Callable[[Path], Any]) -> None:
    damage(left)
    again = Resumption(left, left, None)
    with pytest.raises(ValkeepError) as error:
        again.load()
        channel(again.spool_folder, again)
    assert error.value.code == code
    assert "--fresh" in error.value.remedy
    assert isinstance(error.value, Rebooted) == (code == "VK-STATE-BOOT")
    discard(left)
    assert not (left / "gateway.json").exists()


def test_another_purpose_or_a_newer_source_is_refused(left: Path) -> None:
    again = Resumption(left, left, None)
    assert again.load()
    for policy, formats in ((FieldTtl.REFUSE, [FORMAT]), (FieldTtl.DROP_FIELD, [TargetFormat((9, 1))])):
        with pytest.raises(ValkeepError, match=r"was one for Valkey 8\.1") as error:
            again.expect(policy, formats)
        assert error.value.code == "VK-STATE-OTHER"
    for origin in (Origin("Redis 8.4.0", (8, 4, 0), (8, 4, 0), valkey=False), Origin("Valkey 8.0.1", (8, 0, 1), (8, 0, 1), valkey=True)):
        with pytest.raises(ValkeepError, match=r"was Redis 8\.0\.2") as error:
            again.check_source(origin)
        assert error.value.code == "VK-SOURCE-OTHER"


def test_a_run_does_not_take_the_folder_of_a_gateway_that_targets_wait_for(left: Path) -> None:
    def take(*, fresh: bool) -> Footing:
        options = RunOptions(Endpoint("127.0.0.1", 1), Endpoint("127.0.0.1", 2), state=left, fresh=fresh)
        journal = Journal(None, lambda _event: None, lambda: 0.0)
        return asyncio.run(take_up(options, StateFile(left), [Resumption(left, left, None)], journal))

    with pytest.raises(ValkeepError) as error:
        take(fresh=False)
    assert error.value.code == "VK-STATE-OTHER"
    assert "--fresh" in error.value.remedy
    assert Resumption(left, left, None).load()  # it is still there
    assert take(fresh=True) is Footing.ANEW
