"""A gateway with several channels that is killed at any system call, again and again: what each target was sent is never taken back, and each ends where the
source ends, although the channels' checkpoints differ."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.property.test_stream_model import KEYS, LARGE, LARGEST, Model, State, dumped, parsed, played
from tests.support.fixtures_snapshots import item
from tests.support.scripted_feed import ScriptedFeed
from tests.support.scripted_primary import sealed
from valkeep.errors import ValkeepError
from valkeep.migrate.gateway.channel import Channel
from valkeep.migrate.gateway.gateway import Gateway, GatewayOptions
from valkeep.migrate.gateway.ledger import Ledger
from valkeep.migrate.gateway.resumption import Resumption
from valkeep.migrate.transform import stream as module
from valkeep.migrate.transform.copies import Copy
from valkeep.migrate.transform.target import FieldTtl, TargetFormat
from valkeep.wire.commands import Place

SNAPSHOT = sealed(b"REDIS0012\xfa\x0erepl-stream-db\xc0\x00\xfe\x00" + item(0, "unused", "0176"))
BEGIN = 500
FORMATS = (TargetFormat((8, 0)), TargetFormat((8, 1)))
Steps = list[tuple[bool, list[tuple[bytes, ...]]]]


class Source(ScriptedFeed):
    """Keys are read a while after they are asked for, and handed over when the stream has come to where they were read."""

    def __init__(self, data: bytes, seen: list[tuple[int, State]], chance: Random) -> None:
        super().__init__(SNAPSHOT, BEGIN)
        self.data, self.seen, self.chance = data, seen, chance

    async def read(self, places: Sequence[Place]) -> list[Copy]:
        later = [shot for shot in self.seen if shot[0] + BEGIN >= self.received] or self.seen[-1:]
        at, state = later[min(self.chance.randrange(4), len(later) - 1)]
        for _ in range(self.chance.choice([0, 3, 50])):
            await asyncio.sleep(0)
        while self.received < at + BEGIN:  # noqa: ASYNC110 - what the real one does
            await asyncio.sleep(0)
        found = [(place, state[place[0]].get(place[1])) for place in places]
        return [Copy(*place, at + BEGIN, None if value is None else dumped(value)) for place, value in found]

    def go_on(self, size: int) -> bool:
        """The next bytes; False where there are none."""
        piece = self.data[self.received - BEGIN :][:size]
        if piece:
            self.say(piece)
        return bool(piece)


class Disk:
    """The folder of all lives. ``kill_at``: after so many writes it is put aside as it is then, with half of what that write should have written: the next
    life finds that. ``sent``: what the targets had got by then."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.aside = folder.with_name("aside")
        self.kill_at = 0
        self.sent: dict[str, bytes] = {}
        self.channels: list[Channel] = []
        self._write = os.pwrite

    @property
    def killed(self) -> bool:
        return self.aside.exists()

    def pwrite(self, fd: int, data: Any, at: int) -> int:
        self.kill_at -= 1
        if self.kill_at == 0:
            self._write(fd, bytes(data)[: len(data) // 2], at)
            shutil.copytree(self.folder, self.aside)
            self.see()
        return self._write(fd, data, at)

    def see(self) -> None:
        for one in self.channels:
            have = self.sent.get(one.replid, b"")
            assert one.stream.committed >= one.begins + len(have), "what was sent is not there any more"
            self.sent[one.replid] = have + one.stream.read(one.begins + len(have), 1 << 20)

    def next_life(self) -> None:
        if self.killed:
            shutil.rmtree(self.folder)
            self.aside.rename(self.folder)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        limits = module.LARGE_COMMAND, module.LARGEST_COMMAND
        os.pwrite = self.pwrite
        module.LARGE_COMMAND, module.LARGEST_COMMAND = LARGE, LARGEST
        try:
            yield
        finally:
            os.pwrite = self._write
            module.LARGE_COMMAND, module.LARGEST_COMMAND = limits


def some(chance: Random) -> Steps:
    def one() -> tuple[bytes, ...]:
        keys, value = chance.choices(KEYS, k=3), bytes(chance.choices(b"abcd", k=chance.choice([1, 4, LARGE + 9])))
        return chance.choice(
            [
                (b"SET", keys[0], value),
                (b"APPEND", keys[0], value[:4]),
                (b"APPEND", keys[1], value[:4]),
                (b"SET", keys[0], value, b"IFEQ", b"old"),
                (b"BITOP", b"DIFF", *keys),
                (b"SELECT", b"%d" % chance.randrange(2)),
                (b"RENAME", *keys[:2]),
                (b"SWAPDB", b"0", b"1"),
            ]
        )

    return [(chance.random() < 0.5, [one() for _ in range(chance.randint(1, 4))]) for _ in range(chance.randint(4, 14))]


async def live(disk: Disk, source: Source, chance: Random) -> bool:
    """Whether it came to the source's end."""
    kept = Resumption(disk.folder, disk.folder, None)
    if not kept.load():
        kept.begin(FieldTtl.KEEP_FIELD, FORMATS)
        disk.sent.clear()
    options = GatewayOptions(FORMATS, FieldTtl.KEEP_FIELD, ("127.0.0.1", 0), frozenset(), kept.spool_folder)
    async with Gateway(source, options, Ledger(None), lambda _: None, lambda: 0.0, kept) as gateway:
        disk.channels = gateway.channels
        while not disk.killed:
            more = source.go_on(chance.choice([1, 7, 40, 300]))
            for _ in range(chance.choice([0, 0, 1, 5])):
                await asyncio.sleep(0)
            if chance.random() < 0.2:
                chance.choice(gateway.channels).keep_alive()
            if chance.random() < 0.3 and not disk.killed:
                disk.see()
            if not more:
                await asyncio.sleep(0)
                if not any(one.wanted or one.held_bytes or one.copying for one in gateway.channels):
                    break
        disk.channels = []
        if not disk.killed:
            disk.channels = gateway.channels
            disk.see()
            disk.channels = []
    return not disk.killed


def lived(seed: int, folder: Path) -> None:
    """Raises where a target does not end where the source ends."""
    chance = Random(seed)
    data, seen, source = played(some(chance))
    disk = Disk(folder / "state")
    with disk.at_work():
        for _ in range(8):
            disk.kill_at = chance.randint(1, 60)
            if asyncio.run(live(disk, Source(data, seen, chance), chance)):
                break
            disk.next_life()
        else:
            disk.kill_at = 0
            assert asyncio.run(live(disk, Source(data, seen, chance), chance))
    assert len(disk.sent) == len(FORMATS)
    for sent in disk.sent.values():
        target = Model(False)
        for words in parsed(sent):
            target.run(words)
        assert target.databases == source.databases


@pytest.mark.parametrize("seed", range(40))
def test_killed_at_any_write_every_channel_goes_on_and_ends_where_the_source_ends(seed: int, tmp_path: Path) -> None:
    lived(seed, tmp_path)


def test_a_planted_fault_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Channel, "given", property(lambda one: one.received))
    with pytest.raises((AssertionError, KeyError, ValueError, ValkeepError)):
        for seed in range(40):
            lived(seed, tmp_path / str(seed))
