"""However the network cuts what the source sends, the target is sent the same bytes, and the ledger says the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.fixtures_snapshots import ROWS, SNAPSHOTS, Snapshot, snapshot
from tests.support.fixtures_streams import SCENARIOS, Scenario
from valkeep.migrate.transform.copies import Copy
from valkeep.migrate.transform.notes import LedgerNote
from valkeep.migrate.transform.snapshot import Bytes, SnapshotTransform
from valkeep.migrate.transform.stream import StreamTransform
from valkeep.migrate.transform.target import FieldTtl, TargetFormat

FORMATS = [
    (TargetFormat((8, 0)), FieldTtl.KEEP_FIELD),
    (TargetFormat((8, 1)), FieldTtl.DROP_FIELD),
    (TargetFormat((9, 1)), FieldTtl.REFUSE),
]
LARGE = b"0123456789" * 30_000


class Heap:
    """What waits aside, in memory."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: Bytes) -> None:
        self.data += data

    def chunks(self) -> Iterator[bytes]:
        for start in range(0, len(self.data), 3):
            yield bytes(self.data[start : start + 3])

    def clear(self) -> None:
        self.data.clear()


def rewritten(data: bytes, pieces: Sequence[int], target: TargetFormat, policy: FieldTtl) -> tuple[bytes, list[LedgerNote], int]:
    """What a target gets of ``data``, given in pieces of these sizes, over and over; the ledger; how many records."""
    out, notes = bytearray(), list[LedgerNote]()
    transform = SnapshotTransform(target, policy, notes.append, out.__iadd__, Heap())
    buffer = bytearray()
    position = turn = 0
    while position < len(data):
        size = pieces[turn % len(pieces)]
        buffer += data[position : position + size]
        position += size
        turn += 1
        del buffer[: transform.feed(buffer)]
    assert transform.done
    assert not buffer
    return bytes(out), notes, transform.keys


def small(one: Snapshot) -> bytes:
    rows = [row for row in one.rows if row.name != "large string"]
    return snapshot(one.name.encode(), rows, opcodes=bool(one.stripped))


@given(st.sampled_from(SNAPSHOTS), st.sampled_from(FORMATS), st.lists(st.integers(1, 400), min_size=1, max_size=8))
@example(SNAPSHOTS[0], FORMATS[0], [1])
@example(SNAPSHOTS[0], FORMATS[1], [1])
@example(SNAPSHOTS[0], FORMATS[2], [1])
@example(SNAPSHOTS[-1], FORMATS[1], [1])
def test_a_snapshot_in_any_pieces_becomes_the_same_snapshot(one: Snapshot, to: tuple[TargetFormat, FieldTtl], pieces: list[int]) -> None:
    data = small(one)
    whole, whole_notes, keys = rewritten(data, [len(data)], *to)
    cut, cut_notes, cut_keys = rewritten(data, pieces, *to)
    assert cut_keys == keys
    assert sorted(map(repr, cut_notes)) == sorted(map(repr, whole_notes))
    assert cut == whole


def test_every_row_is_in_some_snapshot() -> None:
    assert {row.name for one in SNAPSHOTS for row in one.rows} == {row.name for row in ROWS}


def translated(scenario: Scenario, pieces: Sequence[int], target: TargetFormat, policy: FieldTtl) -> tuple[bytes, list[LedgerNote]]:
    """What a target is sent for a scenario, given in pieces; copies are of the end of the stream."""
    data, out, notes = scenario.data, bytearray(), list[LedgerNote]()
    transform = StreamTransform((8, 4), target, policy, notes.append)
    buffer = bytearray()
    position = turn = offset = 0
    while position < len(data) or buffer:
        size = pieces[turn % len(pieces)]
        buffer += data[position : position + size]
        position = min(position + size, len(data))
        turn += 1
        while buffer:
            consumed, sent = transform.feed(buffer, offset)
            out += sent
            if isinstance(sent, memoryview):
                sent.release()
            offset += consumed
            del buffer[:consumed]
            if transform.wants is not None:
                assert transform.wants.hold is None
                copies = []
                for database, key in transform.wants.places:
                    value = scenario.values.get((database, key))
                    copies.append(
                        Copy(database, key, len(data), None if value is None else value.payload, -1 if value is None else value.expire_ms)
                    )
                transform.supply(copies)
            elif not consumed:
                break
        assert position < len(data) or not buffer
    assert not transform.copying
    return bytes(out), notes


SMALL_SCENARIOS = [scenario for scenario in SCENARIOS if len(scenario.data) < 10_000]


@given(st.sampled_from(SMALL_SCENARIOS), st.sampled_from(FORMATS), st.lists(st.integers(1, 90), min_size=1, max_size=6))
def test_a_stream_in_any_pieces_becomes_the_same_stream(scenario: Scenario, to: tuple[TargetFormat, FieldTtl], pieces: list[int]) -> None:
    whole = translated(scenario, [len(scenario.data)], *to)
    assert translated(scenario, pieces, *to) == whole
