"""A snapshot as a tree of its parts, so that a mutation can change one length, one count or one round of a loop and leave the rest whole.

Reads good snapshots only (seeds), by the words of ``rdb.layouts``, and simply: it shares no code with the scanner.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from tests.fuzz.bits import blob, interesting, length_bytes, mangled, text
from valkeep.errors import RemoteProtocolError
from valkeep.wire import listpack, lzf, ziplist
from valkeep.wire.rdb.layouts import LAYOUTS

HEADER = 9  # bytes
_EOF, _OPCODES, _KEY_META = 255, 242, 243
_PREFIX = {252: 8, 253: 4, 249: 1}


@dataclass(slots=True)
class Leaf:
    """One part: ``op`` as in a layout's word, or ``#`` for raw bytes."""

    op: str
    raw: bytes

    def write(self, out: bytearray) -> None:
        out += self.raw


@dataclass(slots=True)
class Loop:
    """A count and its rounds. ``count`` None: as many as there are."""

    rounds: list[list[Node]]
    count: bytes | None = None

    def write(self, out: bytearray) -> None:
        out += length_bytes(len(self.rounds)) if self.count is None else self.count
        for each in self.rounds:
            for node in each:
                node.write(out)


Node = Leaf | Loop


@dataclass(slots=True)
class Item:
    """One record or opcode: everything that stands before the value, and the value."""

    code: int
    head: list[Node] = field(default_factory=list)
    body: list[Node] = field(default_factory=list)

    def write(self, out: bytearray) -> None:
        for node in (*self.head, *self.body):
            node.write(out)

    def bytes(self) -> bytes:
        out = bytearray()
        self.write(out)
        return bytes(out)


def copied(node: Node) -> Node:
    if isinstance(node, Leaf):
        return Leaf(node.op, node.raw)
    return Loop([[copied(each) for each in one] for one in node.rounds], node.count)


def copied_item(item: Item) -> Item:
    return Item(item.code, [copied(node) for node in item.head], [copied(node) for node in item.body])


class Reader:
    """Takes good bytes apart."""

    def __init__(self, data: bytes, pos: int, dialect: int) -> None:
        self.data = data
        self.pos = pos
        self.dialect = dialect
        self.words = {row.code: row.word for row in LAYOUTS if row.dialect in (-1, dialect)}

    def items(self) -> list[Item]:
        found = []
        while self.pos < len(self.data) and self.data[self.pos] != _EOF:
            found.append(self.item())
        return found

    def item(self) -> Item:
        head: list[Node] = []
        while True:
            code = self.data[self.pos]
            start = self.pos
            self.pos += 1
            if code in _PREFIX:
                self.pos += _PREFIX[code]
            elif code == 248:
                self.length()
            elif code == _KEY_META and self.dialect == 0:
                for _ in range(self.length()):
                    self.pos += 4
                    while self.tagged():
                        pass
            else:
                break
            head.append(Leaf("#", self.data[start : self.pos]))
        head.append(Leaf("T", bytes([code])))
        if code < _OPCODES:
            head.append(self.leaf("S", self.string))
        return Item(code, head, self.nodes(self.words[code]))

    def nodes(self, word: str) -> list[Node]:
        found: list[Node] = []
        at = 0
        while at < len(word):
            op = word[at]
            if op == "(":
                depth, stop = 1, at + 1
                while depth:
                    depth += {"(": 1, ")": -1}.get(word[stop], 0)
                    stop += 1
                found.append(Loop([self.nodes(word[at + 1 : stop - 1]) for _ in range(self.length())]))
                at = stop
                continue
            found.append(
                self.leaf(op, {"S": self.string, "L": self.length, "D": self.digits, "M": self.tagged_values}.get(op, self.fixed(op)))
            )
            at += 1
        return found

    def leaf(self, op: str, read: Callable[[], object]) -> Leaf:
        start = self.pos
        read()
        assert self.pos <= len(self.data), (op, start)
        return Leaf(op, self.data[start : self.pos])

    def fixed(self, op: str) -> Callable[[], object]:
        def read() -> None:
            self.pos += {"8": 8, "G": 16}[op]

        return read

    def length(self) -> int:
        first = self.data[self.pos]
        size = 1 if first < 0x40 else 2 if first < 0x80 else {0x80: 5, 0x81: 9}[first]
        raw = self.data[self.pos : self.pos + size]
        self.pos += size
        return first if size == 1 else (first & 0x3F) << 8 | raw[1] if size == 2 else int.from_bytes(raw[1:], "big")

    def string(self) -> None:
        first = self.data[self.pos]
        if first < 0xC0:
            size = self.length()
        elif first < 0xC3:
            size = (1 << (first & 3)) + 1
        else:
            self.pos += 1
            size = self.length()
            self.length()
        self.pos += size

    def digits(self) -> None:
        size = self.data[self.pos]
        self.pos += 1 + (size if size < 253 else 0)

    def tagged(self) -> int:
        tag = self.length()
        if tag in (1, 2):
            self.length()
        elif tag in (3, 4):
            self.pos += 4 if tag == 3 else 8
        elif tag == 5:
            self.string()
        return tag

    def tagged_values(self) -> None:
        while self.tagged():
            pass


# --- mutations ------------------------------------------------------------------------------------------------------------------


def _leaves(nodes: list[Node], into: list[Node]) -> None:
    for node in nodes:
        into.append(node)
        if isinstance(node, Loop):
            for each in node.rounds:
                _leaves(each, into)


def mutate_item(rng: Random, item: Item, pool: list[Item]) -> None:
    """One to three changes somewhere in the item."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        nodes: list[Node] = []
        _leaves(item.head, nodes)
        _leaves(item.body, nodes)
        node = rng.choice(nodes)
        if isinstance(node, Loop):
            _mutate_loop(rng, node, pool)
        else:
            node.raw = _mutated(rng, node)


def _mutate_loop(rng: Random, loop: Loop, pool: list[Item]) -> None:
    kind = rng.randrange(6)
    if kind == 0 or not loop.rounds:
        loop.count = length_bytes(interesting(rng, len(loop.rounds)), rng)
    elif kind == 1:
        loop.rounds.append([copied(node) for node in rng.choice(loop.rounds)])
    elif kind == 2:
        del loop.rounds[rng.randrange(len(loop.rounds))]
    elif kind == 3:
        rng.shuffle(loop.rounds)
    elif kind == 4:
        loop.rounds = []
    else:
        other = [node for node in rng.choice(pool).body if isinstance(node, Loop) and node.rounds]
        if other:
            loop.rounds[rng.randrange(len(loop.rounds))] = [copied(node) for node in rng.choice(rng.choice(other).rounds)]


def _mutated(rng: Random, leaf: Leaf) -> bytes:
    if leaf.op == "L":
        return length_bytes(interesting(rng), rng)
    if leaf.op in "8G":
        raw = b"".join((interesting(rng) & (1 << 64) - 1).to_bytes(8, rng.choice(("little", "big"))) for _ in range(len(leaf.raw) // 8))
        return raw if rng.random() < 0.7 else mangled(rng, leaf.raw)
    if leaf.op == "D":
        score = rng.choice(
            (b"", b"1e400", b"nan", b"-inf", b"0x10", b"1_0", b" 1", b"1\0", b"\xff", b"--1", b"9" * 252, b"1e-400", b"infinity")
        )
        return rng.choice((bytes([len(score)]) + score, bytes([rng.randrange(256)]), b"\xfd", b"\xfe", b"\xff"))
    if leaf.op == "T":
        return bytes([rng.choice((rng.randrange(32), rng.randrange(240, 256), rng.randrange(256)))])
    if leaf.op == "S":
        return _mutated_string(rng, leaf.raw)
    return mangled(rng, leaf.raw)


def _mutated_string(rng: Random, raw: bytes) -> bytes:
    body = _body(raw)
    if rng.random() < 0.3 and (packed := repacked(rng, body)) is not None:
        return length_bytes(len(packed)) + packed
    kind = rng.randrange(9)
    if kind == 0:
        return rng.choice((b"\xc0", b"\xc1", b"\xc2")) + rng.randbytes(rng.choice((1, 2, 4)))
    if kind == 1:
        packed = lzf.compress(body[:4096])
        sizes = (len(packed), min(len(body), 4096))
        claims = [interesting(rng, size) if rng.random() < 0.3 else size for size in sizes]
        if rng.random() < 0.4:
            packed = mangled(rng, packed)
        return b"\xc3" + length_bytes(claims[0], rng) + length_bytes(claims[1], rng) + packed
    if kind == 2:
        return length_bytes(interesting(rng, len(body)), rng) + body
    if kind == 3:
        new = blob(rng)
        return length_bytes(len(new)) + new
    if kind == 4:
        return bytes([rng.choice((0xC3, 0xC4, 0xFF, 0x82, 0xBF, 0x80, 0x81))]) + raw[1:]
    if kind == 5:
        return length_bytes(0)
    if kind == 6:
        return mangled(rng, raw)
    if body:
        new = mangled(rng, body)
        if kind == 7:
            new = (new + body)[: len(body)]
        return length_bytes(len(new), rng if rng.random() < 0.2 else None) + new
    return mangled(rng, raw)


def repacked(rng: Random, body: bytes) -> bytes | None:
    """A packed blob that is whole, with other entries; None: ``body`` is no listpack or ziplist."""
    for read, build in ((listpack.entries, listpack.build), (ziplist.entries, ziplist.build)):
        try:
            entries = read(body)
        except RemoteProtocolError:
            continue
        for _ in range(rng.choice((1, 1, 2, 3))):
            at = rng.randrange(len(entries) + 1)
            kind = rng.randrange(4)
            if kind == 0 or at == len(entries):
                entries.insert(at, text(rng))
            elif kind == 1:
                del entries[at]
            elif kind == 2:
                entries[at] = b"%d" % (interesting(rng) - (1 << 63 if rng.random() < 0.3 else 0))
            else:
                entries[at] = rng.choice((b"-1", b"0", b"1", b"2", b"3", b"4", b"5", text(rng), entries[at - 1]))
        return build(entries)
    return None


def _body(raw: bytes) -> bytes:
    """What a plain string's raw form holds; of others the bytes after the first."""
    if not raw or raw[0] < 0x40:
        return raw[1:]
    first = raw[0]
    if first < 0x80:
        return raw[2:]
    if first in (0x80, 0x81):
        return raw[5 if first == 0x80 else 9 :]
    return raw[1:]
