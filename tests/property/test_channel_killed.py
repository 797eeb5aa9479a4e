"""A channel that is killed at any system call, and made again from what is on the disk: what a target was sent is never taken back, and it ends where the
source ends. The source keeps nothing but what the channel does not have (a fake feed), or everything."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.test_stream_model import LARGE, LARGEST, STEPS, Model, State, dumped, parsed, played
from tests.support.fixtures_snapshots import item
from tests.support.scripted_primary import sealed
from valkeep.errors import ValkeepError
from valkeep.migrate.gateway.channel import Channel
from valkeep.migrate.gateway.checkpoint import CheckpointFile, Kept
from valkeep.migrate.gateway.ledger import Ledger
from valkeep.migrate.transform import stream as module
from valkeep.migrate.transform.copies import Copy
from valkeep.migrate.transform.stream import Wanted
from valkeep.migrate.transform.target import FieldTtl, TargetFormat

SNAPSHOT = sealed(b"REDIS0012\xfa\x0erepl-stream-db\xc0\x00\xfe\x00" + item(0, "unused", "0176"))
BEGIN = 500
OWN = "cd" * 20


NOWHERE = os.open(os.devnull, os.O_WRONLY)


class Killed(BaseException):
    """At a system call."""


class Life:
    """One process after the other. ``sent``: what the target has got, from ``BEGIN`` on."""

    def __init__(self, folder: Path, data: bytes, seen: list[tuple[int, State]]) -> None:
        self.folder, self.data, self.seen = folder, data, seen
        self.sent = bytearray()
        self.kept: Kept | None = None
        self.channel: Channel | None = None
        self.wishes: list[Wanted] = []

    def begin(self) -> int:
        """Returns the position in the data from which the source has to go on."""
        self.wishes = []
        if self.channel is not None:
            self.channel.close(leave=True)
            file = self.channel.ledger._file
            assert file is not None
            os.dup2(NOWHERE, file.fileno())  # what it had not written is lost
        point = CheckpointFile(self.folder / f"checkpoint-{OWN[:8]}").read() if self.kept is not None else None
        kept = Kept(self.kept.begins, self.kept.taken, point) if self.kept is not None and point is not None else None
        one = self.channel = Channel(
            TargetFormat((8, 1)),
            FieldTtl.KEEP_FIELD,
            Ledger(self.folder / "ledger", since=point.ledger if point is not None else None),
            self.folder,
            OWN,
            source_version=(8, 4),
            source_offset=point.source if point is not None else BEGIN,
            on_wanted=lambda _, wanted: self.wishes.append(wanted),
            source_replid="ab" * 20,
            keep=True,
            kept=kept,
        )
        if kept is None:
            one.feed_snapshot(SNAPSHOT)
            one.end_snapshot()
            self.kept = Kept(one.begins, one.taken, one.checkpoint)
        self.show()  # it comes back at once
        received = one.received
        one.go_on()
        while one.resume():
            pass
        return received - BEGIN

    def show(self) -> None:
        """The target takes what it may."""
        one = self.channel
        assert one is not None
        have = BEGIN + len(self.sent)
        assert one.stream.committed >= have, "what was sent is not there any more"
        self.sent += one.stream.read(have, 1 << 20)

    def supply(self, delay: int) -> None:
        one = self.channel
        assert one is not None
        while one.wanted is not None:
            later = [shot for shot in self.seen if shot[0] + BEGIN > one.source_offset] or self.seen[-1:]
            at, state = later[min(delay, len(later) - 1)]
            found = [(place, state[place[0]].get(place[1])) for place in one.wanted.places]
            one.supply([Copy(*place, at + BEGIN, None if value is None else dumped(value)) for place, value in found])
            while one.resume():
                pass


@contextmanager
def killing(after: list[int]) -> Iterator[Callable[[], None]]:
    """Every write of a file counts; the one that ends a life writes half of what it should."""
    write, count, lives = os.pwrite, [0], list(after)

    def pwrite(fd: int, data: Any, at: int) -> int:
        count[0] += 1
        if lives and count[0] >= lives[0]:
            lives.pop(0)
            count[0] = 0
            write(fd, bytes(data)[: len(data) // 2], at)
            raise Killed
        return write(fd, data, at)

    limits = module.LARGE_COMMAND, module.LARGEST_COMMAND
    os.pwrite = pwrite
    module.LARGE_COMMAND, module.LARGEST_COMMAND = LARGE, LARGEST
    try:
        yield lives.clear
    finally:
        os.pwrite = write
        module.LARGE_COMMAND, module.LARGEST_COMMAND = limits


Steps = list[tuple[bool, list[tuple[bytes, ...]]]]


def lived(steps: Steps, pieces: list[int], delays: list[int], lives: list[int], acts: list[str]) -> None:
    """Raises ``AssertionError`` where the target does not end where the source ends."""
    data, seen, source = played(steps)
    folder = Path(tempfile.mkdtemp(prefix="valkeep-test-"))
    life = Life(folder, data, seen)
    position = life.begin()
    turn = 0
    try:
        with killing(lives):
            while True:
                try:
                    one = life.channel
                    assert one is not None
                    piece = data[position : position + pieces[turn % len(pieces)]]
                    position += len(piece)
                    turn += 1
                    if piece:
                        one.feed_stream(piece)
                    act = acts[turn % len(acts)] if piece else "supply"
                    if act == "supply":
                        life.supply(delays[turn % len(delays)])
                    elif act == "ping":
                        one.keep_alive()
                    if act == "show" or not piece:
                        life.show()
                    if not piece and one.wanted is None and not one.copying:
                        break
                except Killed:
                    while True:
                        try:
                            position = life.begin()
                            break
                        except Killed:
                            continue
        assert life.channel is not None
        life.show()
        life.channel.close()
        life.channel.ledger.close()
        assert [path.name for path in folder.iterdir()] == ["ledger"]
    finally:
        shutil.rmtree(folder)
    target = Model(False)
    for words in parsed(bytes(life.sent)):
        target.run(words)
    assert target.databases == source.databases


@settings(max_examples=60)
@given(
    STEPS,
    st.lists(st.integers(1, 300), min_size=1, max_size=5),
    st.lists(st.integers(0, 6), min_size=1, max_size=5),
    st.lists(st.integers(1, 25), min_size=1, max_size=6),
    st.lists(st.sampled_from(["show", "ping", "supply", ""]), min_size=1, max_size=7),
)
def test_killed_at_any_write_it_goes_on_and_the_target_ends_where_the_source_ends(
    steps: Steps, pieces: list[int], delays: list[int], lives: list[int], acts: list[str]
) -> None:
    lived(steps, pieces, delays, lives, acts)


SETS: Steps = [(True, [(b"SET", b"a", b"%d" % number), (b"APPEND", b"b", b"x"), (b"SELECT", b"1")]) for number in range(8)]
COPIES: Steps = [(False, [(b"SET", b"a", b"1"), (b"SELECT", b"1"), (b"SET", b"c", b"2")])]
COPIES += [(False, [(b"BITOP", b"DIFF", b"b", b"c", b"a"), (b"APPEND", b"c", b"2"), (b"APPEND", b"b", b"3")]) for _ in range(6)]
APPENDS: Steps = [(False, [(b"APPEND", b"c", b"2")])] * 12
ONE_COPY: Steps = [(False, [(b"SET", b"c", b"2"), (b"BITOP", b"DIFF", b"b", b"c", b"a")]), *APPENDS]


@pytest.mark.parametrize(
    ("fault", "steps", "act"),
    [
        ("sends what is not recorded", SETS, "show"),
        ("forgets the database", COPIES, "supply"),
        ("forgets the copies under way", ONE_COPY, "supply"),
    ],
)
def test_a_planted_fault_is_found(fault: str, steps: Steps, act: str, monkeypatch: pytest.MonkeyPatch) -> None:
    record = Channel._record

    def wrong(self: Channel, source: int, own: int, database: int, copying: tuple[Any, ...], beside: object) -> None:
        if fault == "forgets the database":
            database = 0
        elif fault == "forgets the copies under way":
            copying = ()
        record(self, source, own, database, copying, beside)
        if fault == "sends what is not recorded":
            self.stream.commit(self.stream.end)

    def all_lives() -> None:
        for first, second in itertools.product(range(4, 24, 2), (3, 11)):
            lived(steps, [17], [5], [first, second], ["show", act])

    all_lives()
    monkeypatch.setattr(Channel, "_record", wrong)
    with pytest.raises((AssertionError, KeyError, ValueError, ValkeepError)):
        all_lives()
