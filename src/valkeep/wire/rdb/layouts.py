"""How the bytes of every record type and opcode are laid out, as words over a small alphabet; and those words as the scanner's program.

`opcodes.TYPES` says what the parts mean, this says only what has to be known to step over them. At import all words become one program of a
few hundred bytes; `scan.py` is the machine that runs it, `convert.py` does not use it.

Types that are missing here can't be stepped over, because nobody knows their layout for sure: MODULE_PRE_GA (6), and what Redis 8.6 and
later and Valkey 9.2 added (26 and above; 23 and 242 under VALKEY).

Sources: rdb.c of Redis 7.4 and of Valkey 9.1; cluster_migrateslots.c of Valkey 9.1 (SLOT_IMPORT); keymeta.c of Redis 8.6.
"""

from __future__ import annotations

from dataclasses import dataclass

from .opcodes import DIALECT_REDIS, DIALECT_VALKEY

__all__ = ["ENTRIES", "JUMPS", "LAYOUTS", "PROGRAM", "Layout"]

BOTH = -1
REDIS = DIALECT_REDIS
VALKEY = DIALECT_VALKEY


@dataclass(frozen=True, slots=True)
class Layout:
    """How the bytes after the type byte (and, for a record, after the key) of one type or opcode are laid out.

    ``S`` string · ``L`` length (any 64-bit number) · ``8`` ``G`` 8, 16 raw bytes · ``D`` number as text with a length byte
    (253–255: nan, +inf, −inf, without text) · ``M`` module values, each tagged with its kind, up to tag 0 ·
    ``(…)`` a length n, then n times what is in the parentheses.
    ``dialect``: the same number means different things under the two magics. Names and fields are told by ``opcodes.TYPES``.
    """

    code: int
    name: str
    word: str
    dialect: int = BOTH


_STREAM_GROUP_TAIL = "(G8L)"  # the group's PEL: id, delivery time, delivery count

LAYOUTS: tuple[Layout, ...] = (
    Layout(0, "string", "S"),
    Layout(1, "list", "(S)"),
    Layout(2, "set", "(S)"),
    Layout(3, "zset, scores as text", "(SD)"),
    Layout(4, "hash", "(SS)"),
    Layout(5, "zset_2, scores as doubles", "(S8)"),
    # 6, module without tags (4.0 release candidates): its length can't be known
    Layout(7, "module_2: module id, tagged values", "LM"),
    Layout(9, "hash, zipmap", "S"),
    Layout(10, "list, ziplist", "S"),
    Layout(11, "set, intset", "S"),
    Layout(12, "zset, ziplist", "S"),
    Layout(13, "hash, ziplist", "S"),
    Layout(14, "list, quicklist of ziplists", "(S)"),
    #       nodes: id, listpack; length, last id; groups: name, last id, PEL; consumers: name, seen time, PEL
    Layout(15, "stream", "(SS)LLL" + "(SLL" + _STREAM_GROUP_TAIL + "(S8(G)))"),
    Layout(16, "hash, listpack", "S"),
    Layout(17, "zset, listpack", "S"),
    Layout(18, "list, quicklist_2: each node its container (1 plain, 2 packed)", "(LS)"),
    #       also first id, max deleted id, entries added; per group entries read
    Layout(19, "stream_2", "(SS)LLLLLLLL" + "(SLLL" + _STREAM_GROUP_TAIL + "(S8(G)))"),
    Layout(20, "set, listpack", "S"),
    #       also each consumer's active time
    Layout(21, "stream_3", "(SS)LLLLLLLL" + "(SLLL" + _STREAM_GROUP_TAIL + "(S88(G)))"),
    Layout(22, "hash_metadata, 7.4 rc: absolute expiry, field, value", "(LSS)", REDIS),
    Layout(23, "hash_listpack_ex, 7.4 rc", "S", REDIS),
    Layout(24, "hash_metadata: least expiry; relative expiry, field, value", "8(LSS)", REDIS),
    Layout(25, "hash_listpack_ex: least expiry; listpack of triples", "8S", REDIS),
    Layout(22, "hash_2: field, value, expiry", "(SS8)", VALKEY),
    # ---- opcodes that stand alone
    Layout(243, "slot_import: job, slot ranges", "S(LL)", VALKEY),
    Layout(244, "slot_info: slot, keys, keys with expiry", "LLL"),
    Layout(245, "function2: a library's code", "S"),
    Layout(247, "module_aux: module id, tagged values", "LM"),
    Layout(250, "aux: name, value", "SS"),
    Layout(251, "resizedb: keys, keys with expiry", "LL"),
    Layout(254, "selectdb", "L"),
)
# ---- opcodes that stand before a record's type: 253 expiry in s (4 bytes) · 252 expiry in ms (8) · 249 LFU (1) · 248 LRU idle (length)
#      243 under REDIS: key metadata of modules, n × (4-byte class, tagged values)


_OPEN, _CLOSE = b"()"


def _assemble() -> tuple[bytes, bytes, dict[int, bytes]]:
    """All words as one program; the jumps between its parentheses; and for each dialect where the word of each type begins (0: unknown).

    Each word ends with a zero byte. The program is shorter than 256 bytes, so that a place in it is a byte.
    """
    program = bytearray(b"\0")  # 0: nowhere
    entries = {REDIS: bytearray(256), VALKEY: bytearray(256)}
    places: dict[str, int] = {}
    for row in LAYOUTS:
        if row.word not in places:
            places[row.word] = len(program)
            program += row.word.encode() + b"\0"
        for dialect in (REDIS, VALKEY) if row.dialect == BOTH else (row.dialect,):
            entries[dialect][row.code] = places[row.word]
    jumps = bytearray(len(program))
    opened: list[int] = []
    for place, op in enumerate(program):
        if op == _OPEN:
            opened.append(place)
        elif op == _CLOSE:
            start = opened.pop()
            jumps[start] = place + 1  # none: over the loop
            jumps[place] = start + 1  # again: the loop's first op
    return bytes(program), bytes(jumps), {dialect: bytes(entry) for dialect, entry in entries.items()}


PROGRAM, JUMPS, ENTRIES = _assemble()
