"""Rows: what verification keeps of a record, and the comparison of two sides' rows. Pure; no names, no values, no files.

A snapshot becomes one row of six 64-bit words (48 bytes, this machine's byte order) for each record::

    word 0 1   key digest      keyed, over database and key
    word 2 3   value digest    keyed, over kind, expiry and the logical value
    word 4     expiry          unix ms, -1 none
    word 5     field expiry    the earliest of a hash's fields, unix ms, -1 none

The two expiries stand outside the digests because two servers forget an expired key at different moments, and only a time that is known
after both were read (the *deadline*) says which keys no client could see any more. The rule needs the times, not the values.

``compare`` hashes the left rows into an open-addressing table (key digests are uniform, so word 1 is the hash; word 0 chose the
partition) and looks every right row up: 12 to 20 bytes of scratch a row besides the rows themselves. It returns one state byte for every
row, so that the caller can walk the names, which stand in the rows' order, without any index.

Why a table and no sort: a sort of 48-byte rows costs log n moves of them; here nothing moves, and 1 M rows a side take some 0.1 s.
"""

from __future__ import annotations

from struct import Struct

__all__ = [
    "ABSENT",
    "AMBIGUOUS",
    "DIFFERENT",
    "DUPLICATE",
    "EQUAL",
    "EXPIRED",
    "NAME",
    "ROW_SIZE",
    "ROW_WORDS",
    "WRITTEN",
    "Outcome",
    "compare",
    "pick",
]

ROW_WORDS = 6
ROW_SIZE = 48  # bytes

# One name:  database: 4 bytes LE | size: 4 bytes LE | key
NAME = Struct("<II")

# --- states of a row ---------------------------------------------------------------------------------------------------------------------
ABSENT = 0  # the other side has no such key: missing (left) or extra (right)
EQUAL = 1
DIFFERENT = 2  # both have the key, with another value or expiry
WRITTEN = 3  # the key is among the written ones: this pair of snapshots can't judge it
EXPIRED = 4  # differs, but no client could see the key on either side at the deadline
AMBIGUOUS = 5  # differs, and a field of the hash had expired at the deadline: look again with a clock
DUPLICATE = 6  # the same key a second time on one side (a SCAN may do that; a snapshot may not)

_ABSENT = ABSENT
_EQUAL = EQUAL
_DIFFERENT = DIFFERENT
_WRITTEN = WRITTEN
_EXPIRED = EXPIRED
_AMBIGUOUS = AMBIGUOUS
_DUPLICATE = DUPLICATE


class Outcome:
    """``left``, ``right``: a state byte for every row, in order. ``counts_left``, ``counts_right``: how many rows are in each state."""

    def __init__(self, left: bytearray, right: bytearray) -> None:
        self.left = left
        self.right = right
        self.counts_left = [left.count(state) for state in range(7)]
        self.counts_right = [right.count(state) for state in range(7)]

    @property
    def agree(self) -> bool:
        """No row needs a name."""
        return not any(self.counts_left[state] or self.counts_right[state] for state in (ABSENT, DIFFERENT, AMBIGUOUS))


def pick(
    names: bytes, states: bytes | bytearray, wanted: bytes, row: int, pos: int, limit: int
) -> tuple[list[tuple[int, int, bytes]], int, int]:
    """Walk the names of a partition (see ``NAME``) beside its states: (state, database, key) of rows whose state is in ``wanted``.

    Starts at ``row``, whose name is at ``pos``; stops after ``limit`` hits. Returns the hits and where to go on; done when row = len(states).
    """
    return _pick(names, names, states, wanted, row, pos, limit)


def _pick(
    names: bytes, view: bytes, states: bytes | bytearray, wanted: bytes, row: int, pos: int, limit: int
) -> tuple[list[tuple[int, int, bytes]], int, int]:
    hits: list[tuple[int, int, bytes]] = []
    flags = bytearray(256)
    for state in wanted:
        flags[state] = 1
    rows = len(states)
    count = 0
    while row < rows and count < limit:
        database = view[pos] | view[pos + 1] << 8 | view[pos + 2] << 16 | view[pos + 3] << 24
        size = view[pos + 4] | view[pos + 5] << 8 | view[pos + 6] << 16 | view[pos + 7] << 24
        pos += 8
        if flags[states[row]]:
            hits.append((states[row], database, names[pos : pos + size]))
            count += 1
        pos += size
        row += 1
    return hits, row, pos


def _slots(rows: int) -> int:
    """A power of two, at least twice as many as ``rows``."""
    size = 8
    while size < 2 * rows:
        size *= 2
    return size


def compare(left: bytes | bytearray, right: bytes | bytearray, written: bytes | bytearray, deadline: int) -> Outcome:
    """Compare two sides' rows of one partition. ``written``: 16-byte key digests that this comparison may not judge.

    ``deadline``: unix ms at which both snapshots were surely taken already, by whichever server's clock is later.
    """
    states_left = bytearray(len(left) // ROW_SIZE)
    states_right = bytearray(len(right) // ROW_SIZE)
    table = bytearray(4 * _slots(len(states_left)))
    others = bytearray(4 * _slots(len(written) // 16))
    _match(
        memoryview(left).cast("Q"),
        memoryview(right).cast("Q"),
        memoryview(written).cast("Q"),
        memoryview(table).cast("I"),
        memoryview(others).cast("I"),
        memoryview(states_left),
        memoryview(states_right),
        deadline,
    )
    return Outcome(states_left, states_right)


def _match(
    left: memoryview,
    right: memoryview,
    written: memoryview,
    table: memoryview,
    others: memoryview,
    states_left: memoryview,
    states_right: memoryview,
    deadline: int,
) -> None:
    mask = len(table) - 1
    other_mask = len(others) - 1
    rows_left = len(states_left)
    rows_right = len(states_right)
    many = len(written) // 2

    for row in range(many):
        slot = written[2 * row + 1] & other_mask
        while others[slot]:
            slot = (slot + 1) & other_mask
        others[slot] = row + 1

    for row in range(rows_left):
        at = 6 * row
        slot = left[at + 1] & mask
        while table[slot]:
            there = 6 * (table[slot] - 1)
            if left[there] == left[at] and left[there + 1] == left[at + 1]:
                break
            slot = (slot + 1) & mask
        if table[slot]:
            states_left[row] = _DUPLICATE
        else:
            table[slot] = row + 1

    for row in range(rows_right):
        at = 6 * row
        slot = right[at + 1] & mask
        found = 0
        while table[slot]:
            there = 6 * (table[slot] - 1)
            if left[there] == right[at] and left[there + 1] == right[at + 1]:
                found = table[slot]
                break
            slot = (slot + 1) & mask
        if many and _among(written, others, other_mask, right[at], right[at + 1]):
            states_right[row] = _WRITTEN
            if found:
                states_left[found - 1] = _WRITTEN
        elif not found:
            states_right[row] = _alone(right[at + 4], right[at + 5], deadline)
        elif states_left[found - 1] != _ABSENT:
            states_right[row] = _DUPLICATE
        else:
            there = 6 * (found - 1)
            if left[there + 2] == right[at + 2] and left[there + 3] == right[at + 3]:
                state = _EQUAL
            elif _past(left[there + 4], deadline) and _past(right[at + 4], deadline):
                state = _EXPIRED
            elif _past(left[there + 5], deadline) or _past(right[at + 5], deadline):
                state = _AMBIGUOUS
            else:
                state = _DIFFERENT
            states_right[row] = state
            states_left[found - 1] = state

    for row in range(rows_left):
        if states_left[row] == _ABSENT:
            at = 6 * row
            if many and _among(written, others, other_mask, left[at], left[at + 1]):
                states_left[row] = _WRITTEN
            else:
                states_left[row] = _alone(left[at + 4], left[at + 5], deadline)


def _among(written: memoryview, others: memoryview, mask: int, first: int, second: int) -> bool:
    slot = second & mask
    while others[slot]:
        at = 2 * (others[slot] - 1)
        if written[at] == first and written[at + 1] == second:
            return True
        slot = (slot + 1) & mask
    return False


def _past(expiry: int, deadline: int) -> bool:
    # -1 (none) as an unsigned word is above every time
    return expiry <= deadline


def _alone(expiry: int, field_expiry: int, deadline: int) -> int:
    """The state of a key that only one side has."""
    if _past(expiry, deadline):
        return _EXPIRED
    if _past(field_expiry, deadline):
        return _AMBIGUOUS
    return _ABSENT
