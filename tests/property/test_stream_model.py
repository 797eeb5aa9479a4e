"""Whatever a source does, however the network cuts it, and whenever keys are copied again: in the end the target holds what the source holds.

Both sides are a model of a few lines: strings in two databases, and the commands that are told apart by the translation (what passes, is replaced, is copied
again, reads one key and writes another, changes databases, comes in transactions, is too large). The target's model refuses what a Valkey 8 does not know.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.scripted_primary import command, payload
from valkeep.migrate.transform import stream as module
from valkeep.migrate.transform.copies import Copy
from valkeep.migrate.transform.stream import StreamTransform
from valkeep.migrate.transform.target import FieldTtl, TargetFormat

State = tuple[dict[bytes, bytes], dict[bytes, bytes]]
KEYS = [b"a", b"b", b"c"]
LARGE, LARGEST = 200, 2000


def dumped(value: bytes) -> bytes:
    return payload(b"\x00\x80" + len(value).to_bytes(4, "big") + value)


class Model:
    """A server: ``run`` executes one command as it stands in a stream. ``knows`` what only the source knows."""

    def __init__(self, knows: bool) -> None:
        self.databases: State = ({}, {})
        self.selected = 0
        self.knows = knows

    def run(self, words: list[bytes]) -> None:
        keys = self.databases[self.selected]
        match words:
            case [b"SET", key, value]:
                keys[key] = value
            case [b"SET", key, value, b"IFEQ", _] if self.knows:
                keys[key] = value
            case [b"APPEND", key, value]:
                keys[key] = keys.get(key, b"") + value
            case [b"MSET", *pairs]:
                keys.update(zip(pairs[::2], pairs[1::2], strict=True))
            case [b"DEL", *gone]:
                for key in gone:
                    keys.pop(key, None)
            case [b"RENAME", key, to]:
                keys[to] = keys.pop(key)  # KeyError: an error that the source did not have
            case [b"COPY", key, to, b"DB", database, b"REPLACE"]:
                self.databases[int(database)][to] = keys[key]
            case [b"MOVE", key, database]:
                assert key not in self.databases[int(database)]
                self.databases[int(database)][key] = keys.pop(key)
            case [b"BITOP", operation, to, one, other]:
                assert operation == b"OR" or self.knows
                value = keys.get(one, b"") + keys.get(other, b"")
                keys.pop(to, None)
                if value:
                    keys[to] = operation + value[:400]
            case [b"SELECT", database]:
                self.selected = int(database)
            case [b"SWAPDB", _, _]:
                self.databases = (self.databases[1], self.databases[0])
            case [b"FLUSHDB"]:
                keys.clear()
            case [b"FLUSHALL"]:
                self.databases = ({}, {})
            case [b"RESTORE", key, b"0", data, b"REPLACE", b"ABSTTL"]:
                keys[key] = data[6:-10]
            case [b"MULTI"] | [b"EXEC"] | [b"PING"]:
                pass
            case [b"REPLCONF", *_] if self.knows:
                pass
            case _:
                raise AssertionError(words[0])

    def may(self, words: list[bytes]) -> bool:
        """Whether the source would do it, and so replicate it."""
        keys = self.databases[self.selected]
        match words:
            case [b"RENAME" | b"COPY", key, *_]:
                return key in keys
            case [b"MOVE", key, database]:
                return key in keys and int(database) != self.selected and key not in self.databases[int(database)]
        return True


key = st.sampled_from(KEYS)
database = st.sampled_from([b"0", b"1"])
value = st.one_of(st.binary(min_size=1, max_size=4), st.integers(LARGE, 2 * LARGE).map(lambda size: b"x" * size))
COMMANDS = st.one_of(
    st.tuples(st.just(b"SET"), key, value),
    st.tuples(st.just(b"SET"), key, value, st.just(b"IFEQ"), st.just(b"old")),
    st.tuples(st.just(b"APPEND"), key, value),
    st.tuples(st.just(b"MSET"), key, value, key, value),
    st.tuples(st.just(b"DEL"), key, key),
    st.tuples(st.just(b"RENAME"), key, key),
    st.tuples(st.just(b"COPY"), key, key, st.just(b"DB"), database, st.just(b"REPLACE")),
    st.tuples(st.just(b"MOVE"), key, database),
    st.tuples(st.just(b"BITOP"), st.sampled_from([b"DIFF", b"OR"]), key, key, key),
    st.tuples(st.just(b"SELECT"), database),
    st.sampled_from([(b"SWAPDB", b"0", b"1"), (b"FLUSHDB",), (b"FLUSHALL",), (b"PING",), (b"REPLCONF", b"GETACK", b"*")]),
)
STEPS = st.lists(st.tuples(st.booleans(), st.lists(COMMANDS, min_size=1, max_size=4)), min_size=1, max_size=10)


def parsed(data: bytes) -> Iterator[list[bytes]]:
    at = 0
    while at < len(data):
        end = data.index(b"\r\n", at)
        count, at = int(data[at + 1 : end]), end + 2
        words = []
        for _ in range(count):
            end = data.index(b"\r\n", at)
            size, at = int(data[at + 1 : end]), end + 2
            words.append(data[at : at + size])
            at += size + 2
        yield words


def played(steps: list[tuple[bool, list[tuple[bytes, ...]]]]) -> tuple[bytes, list[tuple[int, State]], Model]:
    """The stream; the states that a reader can see, each with its offset; the source."""
    source, data = Model(True), bytearray()
    seen: list[tuple[int, State]] = []

    def shown() -> None:
        seen.append((len(data), (dict(source.databases[0]), dict(source.databases[1]))))

    for together, commands in steps:
        if together:
            data += command("MULTI")
        for words in commands:
            if source.may(list(words)):
                source.run(list(words))
                data += command(*words)
                if not together:
                    shown()
        if together:
            data += command("EXEC")
            shown()
    return bytes(data), seen, source


@contextmanager
def small_limits() -> Iterator[None]:
    kept = module.LARGE_COMMAND, module.LARGEST_COMMAND
    module.LARGE_COMMAND, module.LARGEST_COMMAND = LARGE, LARGEST
    try:
        yield
    finally:
        module.LARGE_COMMAND, module.LARGEST_COMMAND = kept


def followed(data: bytes, seen: list[tuple[int, State]], pieces: list[int], delays: list[int], lives: list[int]) -> bytes:
    """What a target is sent. ``lives``: after so many feeds each, the translation is lost with all that it has in memory, and another one goes on at the last
    boundary: what was sent behind that is taken back."""
    out, buffer = bytearray(), bytearray()
    position = turn = wishes = offset = feeds = 0
    left = list(lives)
    kept = (0, 0, 0, tuple[tuple[int, bytes], ...]())  # source offset, bytes sent, database, keys under way

    def begun() -> StreamTransform:
        made = StreamTransform((8, 4), TargetFormat((8, 1)), FieldTtl.KEEP_FIELD, lambda _note: None, database=kept[2])
        if kept[3]:
            made.demand(kept[3], kept[0])
        return made

    transform = begun()
    while position < len(data) or buffer or transform.wants is not None or transform.copying:
        buffer += data[position : position + pieces[turn % len(pieces)]]
        position = min(position + pieces[turn % len(pieces)], len(data))
        turn += 1
        progress = True
        while progress:
            if transform.wants is None:
                feeds += 1
                before = len(out)
                consumed, sent = transform.feed(buffer, offset)
                out += sent
                if isinstance(sent, memoryview):
                    sent.release()
                offset += consumed
                del buffer[:consumed]
                if (told := transform.boundary) is not None:
                    kept = told.source, before + told.out, told.database, told.copying
                progress = bool(consumed and buffer)
                if left and feeds >= left[0]:
                    left.pop(0)
                    feeds = 0
                    position = offset = kept[0]
                    buffer.clear()
                    del out[kept[1] :]
                    transform = begun()
                    break
            if transform.wants is not None:
                assert transform.wants.hold is None
                later = [one for one in seen if one[0] > offset] or seen[-1:]
                at, state = later[min(delays[wishes % len(delays)], len(later) - 1)]
                wishes += 1
                copies = [(place, state[place[0]].get(place[1])) for place in transform.wants.places]
                transform.supply([Copy(*place, at, None if found is None else dumped(found)) for place, found in copies])
                progress = True
        else:
            assert position < len(data) or not buffer
    return bytes(out)


@settings(max_examples=150)
@given(STEPS, st.lists(st.integers(1, 300), min_size=1, max_size=5), st.lists(st.integers(0, 6), min_size=1, max_size=5))
def test_the_target_ends_where_the_source_ends(
    steps: list[tuple[bool, list[tuple[bytes, ...]]]], pieces: list[int], delays: list[int]
) -> None:
    data, seen, source = played(steps)
    with small_limits():
        out = followed(data, seen, pieces, delays, [])
    target = Model(False)
    for words in parsed(out):
        target.run(words)
    assert target.databases == source.databases


@settings(max_examples=150)
@given(
    STEPS,
    st.lists(st.integers(1, 300), min_size=1, max_size=5),
    st.lists(st.integers(0, 6), min_size=1, max_size=5),
    st.lists(st.integers(1, 12), min_size=1, max_size=6),
)
def test_the_target_ends_there_too_when_the_translation_is_lost_and_begun_again_at_its_last_boundary(
    steps: list[tuple[bool, list[tuple[bytes, ...]]]], pieces: list[int], delays: list[int], lives: list[int]
) -> None:
    data, seen, source = played(steps)
    with small_limits():
        out = followed(data, seen, pieces, delays, lives)
    target = Model(False)
    for words in parsed(out):
        target.run(words)
    assert target.databases == source.databases
