"""The data that is moved, made on the server by a script, and kept as a snapshot file so that the next server starts with it.

Mixed keys, by number i modulo 20::

    0 … 11   string    12 … 13   hash of 4 fields    14 … 15   list    16 … 17   set    18 … 19   sorted set
    10% of the strings have a TTL; with field TTLs, two fields of every hash (that is, of 10% of the keys) expire
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, Final

import valkey

from valkeep.runtime.node import Node
from valkeep.runtime.servers import find

__all__ = ["Snapshots", "big_hash", "commands"]

_MIXED: Final = """
local first, count, ttl = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
for i = first, first + count - 1 do
  local k = i % 20
  if k < 12 then
    redis.call('SET', 's:' .. i, 'value-' .. i .. '-' .. string.rep('x', i % 100))
    if i % 10 == 3 then redis.call('PEXPIRE', 's:' .. i, 86400000 + i) end
  elseif k < 14 then
    redis.call('HSET', 'h:' .. i, 'f1', i, 'f2', 'bbbb', 'f3', 'cccccccc', 'f4', 'dd' .. i)
    if ttl == '1' then redis.call('HPEXPIRE', 'h:' .. i, 100000000 + i, 'FIELDS', 2, 'f1', 'f2') end
  elseif k < 16 then redis.call('RPUSH', 'l:' .. i, 'a', 'b', i, 'dddddd')
  elseif k < 18 then redis.call('SADD', 't:' .. i, i, i + 1, i + 2, 'm')
  else redis.call('ZADD', 'z:' .. i, 1.5, 'a', i, 'b', 3, 'c') end
end
"""

_BIG_HASH: Final = """
local key, first, count = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
for base = first, first + count - 1, 1000 do
  local args = {}
  for i = base, base + 999 do args[#args + 1] = 'field:' .. i; args[#args + 1] = 'value:' .. i end
  redis.call('HSETEX', key, 'PX', 86400000 + base, 'FIELDS', 1000, unpack(args))
end
redis.call('HSET', key, 'first', 'stays')
"""

_PIECE: Final = 20_000


class Snapshots:
    """Snapshot files, each made once. ``folder``: where they are kept (given by the caller, who also removes it)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def mixed(self, spec: str, keys: int, *, field_ttl: bool = False) -> Path:
        """A snapshot of ``keys`` mixed keys as the server ``spec`` writes it."""
        path = self.folder / f"{spec}-{keys}{'-ttl' if field_ttl else ''}.rdb"
        if not path.exists():
            with Node.start(find(spec)) as node:
                with valkey.Valkey(port=node.port, socket_timeout=120) as client:
                    script = client.register_script(_MIXED)
                    for first in range(0, keys, _PIECE):
                        script(args=[first, min(_PIECE, keys - first), int(field_ttl)])
                    client.save()
                (node.directory / "dump.rdb").rename(path)
        return path

    def place(self, snapshot: Path) -> Path:
        """A folder for a server that starts with this snapshot. The caller removes it."""
        folder = Path(tempfile.mkdtemp(prefix="valkeep-bench-", dir=self.folder))
        os.link(snapshot, folder / "dump.rdb")
        return folder


def big_hash(client: Any, key: str, fields: int) -> None:
    """A hash of this many fields, rounded up to 1000, all of which expire, and of one more that does not."""
    script = client.register_script(_BIG_HASH)
    for first in range(0, fields, _PIECE):
        script(keys=[key], args=[first, min(_PIECE, fields - first)])


def commands(count: int, *, names: int = 500_000) -> list[bytes]:
    """``count`` write commands, encoded, in pieces of 1000: SET, HSET, INCR, SADD on ``names`` keys, some 60 bytes each."""
    from valkeep.wire.resp import encode

    pieces = []
    number = 0
    for first in range(0, count, 1000):
        piece = bytearray()
        for at in range(first, min(first + 1000, count)):
            number = (number * 48271 + 11) % 2147483647
            key, kind = number % names, at % 10
            if kind < 6:
                piece += encode(b"SET", b"k:%d" % key, b"value-%032d" % at)
            elif kind < 8:
                piece += encode(b"HSET", b"g:%d" % key, b"f%d" % (at % 7), b"v%d" % at)
            elif kind < 9:
                piece += encode(b"INCR", b"n:%d" % key)
            else:
                piece += encode(b"SADD", b"u:%d" % key, b"m%d" % (at % 11))
        pieces.append(bytes(piece))
    return pieces
