"""The stream, cut for one shard of a cluster: what lies in its slots, in batches that it takes whole or not at all.

A transaction of a cluster holds keys of one slot. A script that says so (``allow-cross-slot-keys``) may touch all slots of its node, and nothing comes between
its commands, so a batch is one call of it::

    EVAL <script> 1 <marker's key> <marker's value>  <words> <command …>  <words> <command …>  …

It answers with the errors of its commands (pairs of place and reply), and with the replies of those whose count of words is negative (`expiry`). The marker's
key lies in a slot of this shard: a node that does not own it any more answers MOVED, and has done nothing. A command whose slot has gone elsewhere
meanwhile is an error, and where there is any error the marker says so, too (``…:error``): whoever looks at it later does not go on from there.

    FUNCTION, SCRIPT             no script may call them: alone in a transaction with the marker, which is their only key
    FLUSHALL, FLUSHDB            every shard
    VALKEEP.FLUSHSLOTS           every shard that has some of those slots: alone in a batch, which may be done twice (`emptying`)
    PUBLISH                      one shard: a cluster tells all nodes
    SELECT, PING, REPLCONF       left out. The stream of a channel for a cluster stays in database 0 (`transform.crossing`)
    MULTI, EXEC                  left out; what stands between them is one batch on each shard up to ``TOGETHER``, but not one for all shards

**A command of two slots** never comes here. Valkey 9.1 answers every script of the node with an error after one was tried; so it is refused before.

What is other shards' is stepped over by the compiled scanner: each of them reads the whole stream.

Memory: a batch, and the command under way, because the number of words stands before them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from valkeep.errors import LocalProtocolError, ServerError
from valkeep.migrate.delivery.push.batches import MOST_BYTES, MOST_COMMANDS, RENEWALS, Closed, Renewal
from valkeep.migrate.delivery.push.emptying import calls, ranges_in
from valkeep.migrate.marker import Marker
from valkeep.migrate.transform.territory import FLUSH_SLOTS
from valkeep.topology.slots import SLOTS, key_slot, slots_of
from valkeep.wire import resp
from valkeep.wire.commands import keys_of, named_by_a_key, writes_first_argument_only
from valkeep.wire.stream import ATTENTION, CommandScanner

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from valkeep.client.bulk import Odd

__all__ = ["SCRIPT", "Share", "ShardBatches"]

TOGETHER: Final = 32 << 20  # bytes of a source's transaction

SCRIPT: Final = b"""#!lua flags=allow-cross-slot-keys
local found, at, place, failed = {}, 2, 0, false
redis.call('GET', KEYS[1])
while at <= #ARGV do
  local words = tonumber(ARGV[at])
  local wanted = words < 0
  if wanted then words = -words end
  place = place + 1
  local reply = redis.pcall(unpack(ARGV, at + 1, at + words))
  local wrong = type(reply) == 'table' and reply.err
  failed = failed or wrong
  if wanted or wrong then
    found[#found + 1] = place
    found[#found + 1] = reply
  end
  at = at + words + 1
end
redis.call('SET', KEYS[1], failed and ARGV[1] .. ':error' or ARGV[1])
return found
"""

_SILENT: Final = frozenset({b"PING", b"REPLCONF", b"SELECT", b"MULTI", b"EXEC"})
_EVERYWHERE: Final = frozenset({b"FLUSHALL", b"FLUSHDB"})
_ALONE: Final = frozenset({b"FUNCTION", b"SCRIPT", FLUSH_SLOTS})
_KEYED: Final = named_by_a_key()


class Share:
    """A `batches.Cut`: what one shard gets. ``ranges``: of its slots; ``key``: of its marker, in one of them; ``first``: it gets what one shard only has to
    get."""

    def __init__(self, replid: str, ranges: Iterable[tuple[int, int]], key: bytes, *, first: bool) -> None:
        slots = frozenset(slots_of(ranges))
        self.owned: Final = bytes(slot in slots for slot in range(SLOTS))
        self.key: Final = key
        self._replid = replid
        self._first = first

    def batches(self, offset: int, database: int, *, renewals: bool) -> ShardBatches:
        del database
        return ShardBatches(offset, self, renewals=renewals)

    def commands_in(self, data: bytes, database: int) -> Iterator[tuple[int, int, list[bytes]]]:
        parser = resp.Parser()
        parser.feed(data)
        place = 0
        for command in parser:
            if isinstance(command, list) and self.takes(command[0].upper(), command):
                place += 1
                yield place, database, command

    def answers(self, closed: Closed, odd: Iterable[Odd]) -> Mapping[int, resp.Value]:
        found: dict[int, resp.Value] = {}
        for _, reply in odd:
            if isinstance(reply, ServerError):
                return {0 if closed.scripted else 1: reply}
            assert isinstance(reply, list)
            if closed.scripted:
                found |= zip(reply[::2], reply[1::2], strict=True)
            else:
                found |= {place: one for place, one in enumerate(reply, 1) if not _gone_already(one)}
        return found

    def takes(self, name: bytes, command: list[bytes]) -> bool:
        """Whether this shard gets it. Raises ``LocalProtocolError`` for one that no shard can get."""
        if name in _SILENT:
            return False
        if name == FLUSH_SLOTS:
            return bool(ranges_in(command[1:], self.owned))
        if name in _EVERYWHERE or name in _ALONE:
            return True
        if name == b"PUBLISH":
            return self._first
        if writes_first_argument_only(name) or name == b"SPUBLISH":
            return self.owned[key_slot(command[1])] != 0
        keys = keys_of(command)
        slots = set() if keys is None else {key_slot(key) for _, key in (*keys.written, *keys.read)}
        if len(slots) != 1:
            raise LocalProtocolError(
                f"{name.decode('ascii', 'replace')} is in the stream of a cluster, and has keys of {len(slots)} slots",
                remedy="this is a bug of Valkeep: please report it",
            )
        return self.owned[slots.pop()] != 0

    def marked(self, offset: int) -> bytes:
        return Marker(self._replid, offset).value


def _gone_already(reply: resp.Value) -> bool:
    """FUNCTION DELETE of a library that is not there: where the source is a cluster, each of its shards says so."""
    return isinstance(reply, ServerError) and reply.text == "Library not found"


class ShardBatches:
    """As `batches.Batches`, for one shard: ``out`` gets a batch when it is closed."""

    database: int = 0

    def __init__(self, offset: int, share: Share, *, renewals: bool) -> None:
        self.commands = 0
        self.size = 0
        self._scanner = CommandScanner(_KEYED, owned=bytearray(share.owned), keyed=_KEYED)
        self._share = share
        self._renewing = RENEWALS if renewals else frozenset()
        self._offset = offset
        self._open = False
        self._alone: bytes = b""  # the only command of this batch, where it is one that has to be alone
        self._emptied: tuple[tuple[int, int], ...] = ()  # ranges of slots, which is all that this batch does
        self._ended = False  # the next command has to be in another batch
        self._start = self._last_end = offset
        self._body = bytearray()
        self._words = 0
        self._renewals: list[Renewal] = []

    @property
    def offset(self) -> int:
        return self._offset

    @property
    def full(self) -> bool:
        return self._ended or self.commands >= MOST_COMMANDS or self.size >= MOST_BYTES

    @property
    def may_close(self) -> bool:
        return self._open and self._scanner.at_boundary and (not self._scanner.in_multi or self._ended or self.size >= TOGETHER)

    @property
    def idle(self) -> bool:
        return not self._open and self._scanner.at_boundary and not self._scanner.in_multi

    def feed(self, data: memoryview, out: bytearray, *, only_this: bool = False) -> int:
        """Returns how much of ``data`` was consumed; less than all where a batch is full, too."""
        del out, only_this
        scanner, end, pos = self._scanner, len(data), 0
        while pos < end and not (self.full and self.may_close):
            reached = self._others(data, pos, end)
            self._offset += reached - pos
            pos = reached
            if not scanner.at_boundary:
                break
            if not self._open and not scanner.in_multi and self._offset - self._last_end >= MOST_BYTES:
                self._begin(self._offset)  # nothing for this shard in all that: its marker goes on all the same
                self._ended = True
                continue
            parsed = scanner.command(data, pos, end) if scanner.stop == ATTENTION else None
            if parsed is None:
                break
            args, after = parsed
            name = args[0].upper()
            if self._share.takes(name, args):
                if name in _ALONE and self.commands:
                    self._ended = True
                    break
                self._take(name, args, data[pos:after])
            scanner.passed(name)
            self._offset += after - pos
            pos = after
        return pos

    def _others(self, data: memoryview, pos: int, end: int) -> int:
        """Behind what is other shards', as far as the first argument says so; maybe inside of such a command."""
        scanner = self._scanner
        if not scanner.at_boundary:
            pos = scanner.finish(data, pos, end)
        return scanner.skip(data, pos, end) if scanner.at_boundary else pos

    def close(self, out: bytearray) -> Closed:
        value = self._share.marked(self._offset)
        if self._emptied:
            commands = [*calls(self._emptied, self._share.key, value)]
            out += b"".join(commands)
            replies = len(commands)
        elif self._alone:
            out += resp.encode(b"MULTI") + self._alone + resp.encode(b"SET", self._share.key, value) + resp.encode(b"EXEC")
            replies = 4
        else:
            out += b"*%d\r\n" % (self._words + 5)
            for word in (b"EVAL", SCRIPT, b"1", self._share.key, value):
                out += b"$%d\r\n%s\r\n" % (len(word), word)
            out += self._body
            replies = 1
        scripted = not (self._alone or self._emptied)
        closed = Closed(self._start, self._offset, 0, replies, tuple(self._renewals), scripted=scripted)
        self._last_end = self._offset
        self._open = self._ended = False
        self.commands = self.size = 0
        return closed

    def _begin(self, start: int) -> None:
        if self._open:
            return
        self._open = True
        self._start = start
        self._alone = b""
        self._emptied = ()
        self.commands = self.size = self._words = 0
        self._body.clear()
        self._renewals = []

    def _take(self, name: bytes, args: list[bytes], raw: memoryview) -> None:
        if not self._open:
            self._begin(self._offset)
        self.commands += 1
        self.size += len(raw)
        if name in _ALONE:
            self._ended = True
            if name == FLUSH_SLOTS:
                self._emptied = ranges_in(args[1:], self._share.owned)
            else:
                self._alone = bytes(raw)
            return
        wanted = name in self._renewing
        if wanted:
            self._renewals.append(Renewal(self.commands, 0, args[1]))
        count = b"%d" % (-len(args) if wanted else len(args))
        self._words += len(args) + 1
        self._body += b"$%d\r\n%s\r\n" % (len(count), count)
        self._body += raw[bytes(raw[:32]).index(b"$") :]  # behind the number of words
