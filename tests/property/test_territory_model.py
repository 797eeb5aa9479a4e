"""Whatever shards of a source do with their slots, and however their lanes run ahead of each other: in the end the target holds what the source holds.

The source is a model of a few lines: three shards that say in their streams what real ones say (docs/explanation/replication.md, "A cluster's streams"). A slot
goes from one to another key by key (RESTORE-ASKING here, DEL there), or as a whole (Valkey 9: plain commands before it changes hands), or is torn away
(Redis 7.0: its keys are gone without a word). The lanes' translation is the real one; the order of a handover is the one that `resharding` keeps.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.scripted_primary import command, payload
from valkeep.migrate.gateway.ledger import Ledger
from valkeep.migrate.transform.copies import Copy
from valkeep.migrate.transform.stream import StreamTransform
from valkeep.migrate.transform.target import FieldTtl, TargetFormat
from valkeep.migrate.transform.territory import Territory
from valkeep.topology.slots import key_slot
from valkeep.wire import resp

TAGS = [b"{a}", b"{b}"]
KEYS = [tag + b"%d" % number for tag in TAGS for number in range(3)]
SHARDS = 3


def dumped(value: bytes) -> bytes:
    return payload(b"\x00\x80" + len(value).to_bytes(4, "big") + value)


def loaded(dump: bytes) -> bytes:
    if dump[1] == 0x80:
        return dump[6 : 6 + int.from_bytes(dump[2:6], "big")]
    return dump[2 : 2 + dump[1]]


def execute(keys: dict[bytes, bytes], words: list[bytes]) -> None:
    """One command as it stands in a stream. A KeyError is an error that the source did not have."""
    match words:
        case [b"SET", key, value]:
            keys[key] = value
        case [b"APPEND", key, value]:
            keys[key] = keys.get(key, b"") + value
        case [b"SETRANGE", key, _, value]:  # in the model: an error where there is no key
            keys[key] = value + keys[key][len(value) :]
        case [b"DEL", *gone]:
            for key in gone:
                keys.pop(key, None)
        case [b"RENAME", key, to]:
            keys[to] = keys.pop(key)
        case [b"BITOP", b"OR", to, one, other]:  # in the model: one after the other
            keys[to] = keys.get(one, b"") + keys.get(other, b"")
        case [b"RESTORE", key, _, dump, *options]:
            if key in keys and b"REPLACE" not in options:
                raise KeyError(key)
            keys[key] = loaded(dump)
        case [b"VALKEEP.FLUSHSLOTS", *ranges]:
            bounds = [(int(first), int(last)) for first, _, last in (word.partition(b"-") for word in ranges)]
            for key in [key for key in keys if any(first <= key_slot(key) <= last for first, last in bounds)]:
                del keys[key]
        case [b"PING"]:
            pass
        case _:
            raise AssertionError(words)


@dataclass
class Shard:
    keys: dict[bytes, bytes] = field(default_factory=dict)
    stream: bytearray = field(default_factory=bytearray)

    def say(self, *words: bytes) -> None:
        self.stream += command(*words)

    def run(self, *words: bytes) -> None:
        execute(self.keys, [*words])
        self.say(*words)


class Source:
    """``owner`` of each tag's slot, ``taker`` while it is on its way, ``whole``: as Valkey 9 does it. ``unseen``: it has another owner, and nobody
    has looked yet. ``silent``: keys of it were removed that no stream tells of; had it gone away and come back before anybody looks, nobody would know."""

    def __init__(self) -> None:
        self.shards = [Shard() for _ in range(SHARDS)]
        self.owner = {tag: number for number, tag in enumerate(TAGS)}
        self.taker: dict[bytes, int] = {}
        self.whole: set[bytes] = set()
        self.unseen: set[bytes] = set()
        self.silent: set[bytes] = set()

    def at(self, keys: list[bytes]) -> Shard | None:
        """Which shard executes a command on these keys of one slot; None: it says TRYAGAIN."""
        tag = keys[0][:3]
        owner = self.shards[self.owner[tag]]
        if tag not in self.taker or tag in self.whole:
            return owner
        there = [key in owner.keys for key in keys]
        return owner if all(there) else None if any(there) else self.shards[self.taker[tag]]

    def write(self, words: list[bytes], keys: list[bytes]) -> None:
        shard = self.at(keys)
        if shard is None:
            return
        if words[0] in (b"RENAME", b"SETRANGE") and words[1] not in shard.keys:
            return
        shard.run(*words)
        tag = keys[0][:3]
        if tag in self.whole:
            self.shards[self.taker[tag]].run(*words)

    def begin(self, tag: bytes, to: int, *, whole: bool) -> None:
        if tag in self.taker or tag in self.silent or self.owner[tag] == to:
            return
        self.taker[tag] = to
        giver, taker = self.shards[self.owner[tag]], self.shards[to]
        if not whole:
            for shard in (giver, taker):
                shard.say(b"CLUSTER", b"SETSLOT", b"1", b"IMPORTING", b"x" * 40)
            return
        self.whole.add(tag)
        taker.say(b"CLUSTER", b"SYNCSLOTS", b"ESTABLISH")
        for key in [key for key in giver.keys if key.startswith(tag)]:
            taker.run(b"SET", key, giver.keys[key])

    def move(self, tag: bytes) -> None:
        """One key of a slot that goes key by key."""
        giver = self.shards[self.owner[tag]]
        key = next((key for key in giver.keys if key.startswith(tag)), None)
        if key is None or tag not in self.taker or tag in self.whole:
            return
        taker = self.shards[self.taker[tag]]
        taker.keys[key] = giver.keys[key]
        taker.say(b"RESTORE-ASKING", key, b"0", dumped(giver.keys[key]))
        giver.run(b"DEL", key)

    def finish(self, tag: bytes) -> None:
        if tag not in self.taker:
            return
        giver = self.shards[self.owner[tag]]
        while tag in self.unseen and tag not in self.whole and any(key.startswith(tag) for key in giver.keys):
            self.move(tag)
        self.owner[tag] = self.taker.pop(tag)
        self.unseen.add(tag)
        left = [key for key in giver.keys if key.startswith(tag)]
        if tag in self.whole:
            self.whole.remove(tag)
            self.shards[self.owner[tag]].say(b"CLUSTER", b"SYNCSLOTS", b"FINISH")
            for key in left:
                giver.run(b"DEL", key)
        elif left:
            self.silent.add(tag)
        for key in left:
            giver.keys.pop(key, None)

    def give_up(self, tag: bytes) -> None:
        if tag not in self.whole:
            return
        self.whole.remove(tag)
        taker = self.shards[self.taker.pop(tag)]
        taker.say(b"CLUSTER", b"SYNCSLOTS", b"FINISH", b"STATE", b"FAILED")
        if tag in self.unseen:
            self.silent.add(tag)
        for key in [key for key in taker.keys if key.startswith(tag)]:
            del taker.keys[key]

    def flush(self, number: int) -> None:
        self.shards[number].keys.clear()
        self.shards[number].say(b"FLUSHALL")
        for tag in self.whole:
            if self.owner[tag] == number:
                self.shards[self.taker[tag]].say(b"CLUSTER", b"SYNCSLOTS", b"FINISH", b"STATE", b"FAILED")
        for tag in [tag for tag in self.whole if number in (self.owner[tag], self.taker[tag])]:
            self.give_up(tag)

    def data(self) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        for tag in TAGS:
            places = [self.owner[tag]] if tag not in self.taker or tag in self.whole else [self.owner[tag], self.taker[tag]]
            for place in places:
                found |= {key: value for key, value in self.shards[place].keys.items() if key.startswith(tag)}
        return found


class Lane:
    """``position``: of the shard's stream, translated so far."""

    def __init__(self, shard: Shard, slots: list[int], target: dict[bytes, bytes]) -> None:
        self.shard = shard
        self.territory = Territory(slots)
        self.position = 0
        self._target = target
        self._parser = resp.Parser()
        self._out = bytearray()
        form = TargetFormat((8, 1), databases=1, cluster=True)
        self.transform = StreamTransform((7, 0), form, FieldTtl.KEEP_FIELD, Ledger(None).record, territory=self.territory)

    def translate(self, size: int) -> None:
        if self.transform.wants is not None:
            return
        piece = self.shard.stream[self.position : self.position + size]
        consumed, out = self.transform.feed(piece, self.position)
        self._out += out
        if isinstance(out, memoryview):
            out.release()
        self.position += consumed

    def supply(self) -> None:
        wants = self.transform.wants
        if wants is None:
            return
        assert wants.hold is None, wants
        offset, keys = len(self.shard.stream), self.shard.keys
        self.transform.supply([Copy(0, key, offset, dumped(keys[key]) if key in keys else None) for _, key in wants.places])

    def apply(self, size: int) -> None:
        self._parser.feed(bytes(self._out[:size]))
        del self._out[:size]
        for words in self._parser:
            assert isinstance(words, list)
            execute(self._target, words)

    def reach(self, offset: int) -> None:
        """Translated up to there."""
        while self.position < offset or self.transform.copying or self.transform.wants is not None:
            self.supply()
            self.translate(1 << 20)

    def drain(self) -> None:
        """What was translated is in the target, to the end of the command that has begun to pass."""
        self.reach(self.position)
        size = 1
        while not self.transform.between_commands:
            self.translate(size)
            size += 1
        self.apply(len(self._out))

    def demand(self, keys: list[bytes]) -> None:
        self.transform.demand(tuple((0, key) for key in keys), self.position)
        self.territory.arrive(keys)


class Migration:
    """A source, its lanes, the target; ``holder``: the lane of each slot. ``without``: what a handover leaves out, to see whether that is noticed."""

    def __init__(self, without: str = "") -> None:
        self.without = without
        self.source = Source()
        self.target: dict[bytes, bytes] = {}
        self.holder = dict(self.source.owner)
        slots = [[key_slot(tag) for tag, owner in self.holder.items() if owner == number] for number in range(SHARDS)]
        self.lanes = [Lane(shard, mine, self.target) for shard, mine in zip(self.source.shards, slots, strict=True)]
        self._under_way: Iterator[None] | None = None

    def hand_over(self) -> bool:
        """The next step of a handover; False when there is none."""
        if self._under_way is None:
            settled = (tag for tag in TAGS if tag not in self.source.taker and self.holder[tag] != self.source.owner[tag])
            tag = next(settled, None)
            if tag is None:
                return False
            self._under_way = self._handed_over(tag, self.source.owner[tag])
        if next(self._under_way, self) is self:
            self._under_way = None
        return True

    def _handed_over(self, tag: bytes, to: int) -> Iterator[None]:
        slot, giver, taker = key_slot(tag), self.lanes[self.holder[tag]], self.lanes[to]
        self.source.unseen.discard(tag)
        self.source.silent.discard(tag)
        if self.without != "leave":
            giver.territory.leave(slot)
        yield
        if self.without != "drained":
            giver.drain()
        yield
        taker.territory.leave(slot)
        if self.without != "note":
            taker.territory.note(slot)
        yield
        listed = {key for key in taker.shard.keys if key.startswith(tag)}
        said = len(taker.shard.stream)
        yield
        if self.without != "as far as the list":
            taker.reach(said)
            taker.drain()
        if self.without == "the source's keys":
            listed = set()
        if self.without != "the target's keys":
            listed |= {key for key in self.target if key.startswith(tag)}
        taker.territory.enter(slot, listed)
        self.holder[tag] = to
        pending = sorted(taker.territory.pending(slot))
        for at in range(0, len(pending), 2):
            yield
            while taker.transform.wants is not None:
                taker.supply()
            if self.without == "copies":
                taker.territory.arrive(pending[at : at + 2])
            else:
                taker.demand(pending[at : at + 2])
        yield
        taker.drain()

    def end(self) -> None:
        for tag in TAGS:
            self.source.finish(tag)
        while self.hand_over():
            pass
        for lane in self.lanes:
            lane.reach(len(lane.shard.stream))
            lane.drain()


tags, keys, lanes = st.sampled_from(TAGS), st.sampled_from(KEYS), st.integers(0, SHARDS - 1)
steps = st.one_of(
    st.tuples(st.just("set"), keys),
    st.tuples(st.just("append"), keys),
    st.tuples(st.just("setrange"), keys),
    st.tuples(st.just("del"), keys),
    st.tuples(st.just("rename"), keys, keys),
    st.tuples(st.just("bitop"), keys, keys, keys),
    st.tuples(st.just("flush"), lanes),
    st.tuples(st.just("begin"), tags, lanes, st.booleans()),
    st.tuples(st.just("move"), tags),
    st.tuples(st.just("finish"), tags),
    st.tuples(st.just("give up"), tags),
    st.tuples(st.just("translate"), lanes, st.sampled_from([7, 40, 90, 1000])),
    st.tuples(st.just("apply"), lanes, st.sampled_from([7, 40, 90, 1000])),
    st.tuples(st.just("supply"), lanes),
    st.tuples(st.just("hand over")),
    st.tuples(st.just("hand over")),
)


def played(script: list[tuple[object, ...]], migration: Migration) -> None:
    source = migration.source
    for number, step in enumerate(script):
        value = b"<%d>" % number
        match step:
            case ("set", bytes(key)):
                source.write([b"SET", key, value], [key])
            case ("append", bytes(key)):
                source.write([b"APPEND", key, value], [key])
            case ("setrange", bytes(key)):
                source.write([b"SETRANGE", key, b"0", value], [key])
            case ("del", bytes(key)):
                source.write([b"DEL", key], [key])
            case ("rename", bytes(key), bytes(to)) if key[:3] == to[:3] and key != to:
                source.write([b"RENAME", key, to], [key, to])
            case ("bitop", bytes(to), bytes(one), bytes(other)) if to[:3] == one[:3] == other[:3]:
                source.write([b"BITOP", b"OR", to, one, other], [to, one, other])
            case ("flush", int(shard)):
                source.flush(shard)
            case ("begin", bytes(tag), int(shard), bool(whole)):
                source.begin(tag, shard, whole=whole)
            case ("move", bytes(tag)):
                source.move(tag)
            case ("finish", bytes(tag)):
                source.finish(tag)
            case ("give up", bytes(tag)):
                source.give_up(tag)
            case ("translate", int(shard), int(size)):
                migration.lanes[shard].translate(size)
            case ("apply", int(shard), int(size)):
                migration.lanes[shard].apply(size)
            case ("supply", int(shard)):
                migration.lanes[shard].supply()
            case ("hand over",):
                migration.hand_over()


@given(st.lists(steps, min_size=5, max_size=60))
@settings(max_examples=400, deadline=None)
def test_the_target_has_what_the_source_has_however_slots_move(script: list[tuple[object, ...]]) -> None:
    migration = Migration()
    played(script, migration)
    migration.end()
    assert migration.target == migration.source.data()


def random_script(rng: random.Random) -> list[tuple[object, ...]]:
    def slot(tag: bytes) -> list[bytes]:
        return [key for key in KEYS if key.startswith(tag)]

    script: list[tuple[object, ...]] = []
    for _ in range(rng.randint(20, 120)):
        tag, lane = rng.choice(TAGS), rng.randrange(SHARDS)
        one, other, third = (rng.choice(slot(tag)) for _ in range(3))
        script.append(
            rng.choice(
                [
                    (rng.choice(["set", "append", "setrange", "del"]), one),
                    ("rename", one, other),
                    ("bitop", one, other, third),
                    ("begin", tag, lane, rng.random() < 0.4),
                    ("move", tag),
                    ("finish", tag),
                    *[("hand over",)] * 2,
                    *[(rng.choice(["translate", "apply"]), lane, rng.choice([40, 90, 1000]))] * 2,
                    ("supply", lane),
                    ("flush", lane) if rng.random() < 0.1 else ("give up", tag),
                ]
            )
        )
    return script


def right(script: list[tuple[object, ...]], without: str) -> bool:
    migration = Migration(without)
    try:
        played(script, migration)
        migration.end()
    except KeyError:
        return False
    return migration.target == migration.source.data()


@pytest.mark.parametrize(
    "without",
    ["leave", "drained", "note", "as far as the list", "the source's keys", "the target's keys", "copies"],
)
def test_nothing_of_a_handover_can_be_left_out(without: str) -> None:
    scripts = [random_script(random.Random(seed)) for seed in range(800)]
    assert not all(right(script, without) for script in scripts)


def test_whole_handovers_are_right_in_many_long_stories() -> None:
    assert all(right(random_script(random.Random(seed)), "") for seed in range(800))
