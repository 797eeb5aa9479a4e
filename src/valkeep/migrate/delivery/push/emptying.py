"""Slots of a shard that are emptied: ``VALKEEP.FLUSHSLOTS 0-5460 …``, what a channel says where a shard of its source was emptied (`transform.territory`).

FLUSHALL would take what other lanes have brought. So each slot's own keys go, and only they: not those of other slots, nor anybody's marker. A script may ask
for a slot's keys (CLUSTER GETKEYSINSLOT, seen in Valkey 8.0, 8.1 and 9.1), and removes them in pieces. Nothing else runs meanwhile on that server, so one call
takes ``AT_ONCE`` slots. The last call goes through all of them once more and sets the marker: if that is there, they were empty at that moment; if it is not,
all of it is done again, and nothing else was done since.

    EVAL <script> 1 <marker's key> ""       0 255      as often as there are slots
    EVAL <script> 1 <marker's key> <value>  0 5460 …
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from valkeep.topology.slots import ranges_of, slots_of
from valkeep.wire import resp

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["SCRIPT", "calls", "ranges_in"]

AT_ONCE: Final = 256  # slots

SCRIPT: Final = b"""#!lua flags=allow-cross-slot-keys,allow-oom
redis.call('GET', KEYS[1])
local function marker(key)
  return key == 'valkeep:push:offset' or key:match('^valkeep:push:offset{%d+}$') or key:match('^valkeep:push:offset{%d+}:[%w_]+$')
end
for at = 2, #ARGV, 2 do
  for slot = tonumber(ARGV[at]), tonumber(ARGV[at + 1]) do
    local left = redis.call('CLUSTER', 'COUNTKEYSINSLOT', slot)
    while left > 0 do
      local others = false
      for _, key in ipairs(redis.call('CLUSTER', 'GETKEYSINSLOT', slot, 1000)) do
        if not marker(key) then
          others = true
          redis.call('UNLINK', key)
        end
      end
      if not others then break end
      local now = redis.call('CLUSTER', 'COUNTKEYSINSLOT', slot)
      if now >= left then return redis.error_reply('ERR keys of slot ' .. slot .. ' can not be removed') end
      left = now
    end
  end
end
if ARGV[1] ~= '' then redis.call('SET', KEYS[1], ARGV[1]) end
return redis.status_reply('OK')
"""


def ranges_in(words: Sequence[bytes], owned: bytes) -> tuple[tuple[int, int], ...]:
    """What of ``0-5460 …`` is ``owned`` (16384 bytes). Raises ValueError for other words, ``RemoteProtocolError`` for what is no slot."""
    ranges = [(int(first), int(last)) for first, _, last in (word.partition(b"-") for word in words)]
    return ranges_of(slot for slot in slots_of(ranges) if owned[slot])


def calls(ranges: Sequence[tuple[int, int]], key: bytes, value: bytes) -> Iterator[bytes]:
    """The commands that empty these ranges and then set the marker ``key``; each is answered by ``+OK``."""
    pieces = [(at, min(at + AT_ONCE - 1, last)) for first, last in ranges for at in range(first, last + 1, AT_ONCE)]
    for first, last in pieces if len(pieces) > 1 else ():
        yield resp.encode(b"EVAL", SCRIPT, b"1", key, b"", first, last)
    yield resp.encode(b"EVAL", SCRIPT, b"1", key, value, *(bound for one in ranges for bound in one))
