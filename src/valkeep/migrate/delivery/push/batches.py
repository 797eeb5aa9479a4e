"""A channel's stream, cut into batches that the target takes whole or not at all. Pure: bytes in, bytes to be written out.

    MULTI
    SELECT <the stream's database>
    <whole commands, as they stand in the stream; never a part of a source's transaction, whose own MULTI and EXEC are left out>
    SELECT 0
    SET valkeep:push:offset <replication id>:<offset behind the last command>:<the stream's database there>
    EXEC

Bytes are given out as they come, long before the batch is closed: until EXEC the target only collects them, so a command of any size passes through, and
nothing of a batch that breaks has happened. When a batch may be closed is said by ``may_close``: between two commands, outside of a source's transaction.

Left out: PING and REPLCONF, which are the link's own talk. SWAPDB of the marker's database takes the marker along; so it is removed before.

How a batch is made atomic with its marker is `Seal`. Where one transaction cannot hold all of it (several slots of a cluster), `sharded.ShardBatches`
takes the place of both; `Cut` is what they have in common.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from valkeep.errors import ServerError
from valkeep.migrate import marker
from valkeep.migrate.marker import Marker
from valkeep.wire import resp
from valkeep.wire.commands import VALKEY_COMMANDS
from valkeep.wire.stream import ATTENTION, CommandScanner

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from valkeep.client.bulk import Odd

__all__ = ["RENEWALS", "Batches", "Batching", "Closed", "Cut", "Renewal", "Seal", "Whole", "commands_in"]

MOST_COMMANDS: Final = 16_384  # in one batch, about
MOST_BYTES: Final = 4 << 20

_TALK: Final = frozenset({b"PING", b"REPLCONF"})
_FRAME: Final = frozenset({b"MULTI", b"EXEC"})
RENEWALS: Final = frozenset({b"EXPIRE", b"EXPIREAT", b"PEXPIRE", b"PEXPIREAT", b"PERSIST", b"HPEXPIREAT", b"HPERSIST"})
_SPECIAL: Final = _TALK | _FRAME | {b"SELECT", b"SWAPDB"}


@dataclass(frozen=True, slots=True)
class Renewal:
    """A command that renews a key's time; ``place``: of its reply among those of the batch."""

    place: int
    database: int
    key: bytes


@dataclass(frozen=True, slots=True)
class Closed:
    """A batch that was given out whole: of the stream from ``start`` to ``end``, which begins in ``database``. ``replies``: to what was written for it;
    ``scripted``: it is one call of a script."""

    start: int
    end: int
    database: int
    replies: int
    renewals: tuple[Renewal, ...]
    scripted: bool = False


class Batching(Protocol):
    """Batches of a stream, one after the other; see `Batches`."""

    database: int

    @property
    def offset(self) -> int: ...

    @property
    def commands(self) -> int: ...

    @property
    def full(self) -> bool: ...

    @property
    def may_close(self) -> bool: ...

    @property
    def idle(self) -> bool: ...

    def feed(self, data: memoryview, out: bytearray, *, only_this: bool = False) -> int: ...

    def close(self, out: bytearray) -> Closed: ...


class Cut(Protocol):
    """How a stream is cut for one server of the target. ``key``: of its marker there."""

    @property
    def key(self) -> bytes: ...

    def batches(self, offset: int, database: int, *, renewals: bool) -> Batching: ...

    def commands_in(self, data: bytes, database: int) -> Iterator[tuple[int, int, list[bytes]]]:
        """The commands of a batch's piece of the stream that this server gets: (place of its answer, database, command)."""
        ...

    def answers(self, closed: Closed, odd: Iterable[Odd]) -> Mapping[int, resp.Value]:
        """By their places: at least all errors, and what renewals answered. Place 0: of the batch."""
        ...


class Whole:
    """A `Cut`: this server gets all of it."""

    key: Final = marker.KEY

    def __init__(self, replid: str) -> None:
        self._replid = replid

    def batches(self, offset: int, database: int, *, renewals: bool) -> Batches:
        return Batches(offset, database, Seal(self._replid), renewals=renewals)

    def commands_in(self, data: bytes, database: int) -> Iterator[tuple[int, int, list[bytes]]]:
        return commands_in(data, database)

    def answers(self, closed: Closed, odd: Iterable[Odd]) -> Mapping[int, resp.Value]:
        del closed
        found: dict[int, resp.Value] = {}
        for place, reply in odd:
            if isinstance(reply, ServerError):  # it was not even collected: nothing of the batch was executed
                return {place - Seal.OPENING + 1: reply}
            assert isinstance(reply, list)
            found |= enumerate(reply)
        return found


class Seal:
    """Makes a batch and its marker one transaction. ``OPENING``: how many replies ``open`` brings, before those of the commands."""

    OPENING: Final = 2

    def __init__(self, replid: str) -> None:
        self._replid = replid

    def open(self, database: int) -> bytes:
        return resp.encode(b"MULTI") + resp.encode(b"SELECT", database)

    def close(self, offset: int, database: int) -> tuple[bytes, int]:
        """The bytes, and how many replies they bring."""
        here = resp.encode(b"SELECT", marker.DATABASE) + resp.encode(b"SET", marker.KEY, Marker(self._replid, offset, database).value)
        return here + resp.encode(b"EXEC"), 3

    def without_marker(self, database: int) -> tuple[bytes, int]:
        """Within a batch: the marker away, back to ``database``."""
        there = resp.encode(b"SELECT", marker.DATABASE) + resp.encode(b"DEL", marker.KEY)
        return there + resp.encode(b"SELECT", database), 3


class Batches:
    """``offset``: of the next byte of the stream to be fed, at a boundary; ``database``: selected there. ``renewals``: whether they are to be told.

    ``database`` goes along with the stream. ``commands``, ``size``: of the batch under way, 0 where there is none.
    """

    def __init__(self, offset: int, database: int, seal: Seal, *, renewals: bool) -> None:
        known = max(VALKEY_COMMANDS)
        self._scanner = CommandScanner(VALKEY_COMMANDS[known] - _SPECIAL - (RENEWALS if renewals else frozenset()))
        self._renewing = RENEWALS if renewals else frozenset()
        self._seal = seal
        self._offset = offset  # behind the last byte consumed
        self.database = database
        self._open = False
        self._start = offset
        self._start_database = database
        self._before = 0  # the scanner's count at the batch's begin
        self._attended = 0
        self._extra = 0  # commands of our own
        self._renewals: list[Renewal] = []
        self.size = 0

    @property
    def offset(self) -> int:
        return self._offset

    @property
    def commands(self) -> int:
        return self._scanner.commands - self._before + self._attended if self._open else 0

    @property
    def full(self) -> bool:
        return self.commands >= MOST_COMMANDS or self.size >= MOST_BYTES

    @property
    def may_close(self) -> bool:
        return self._open and self._scanner.at_boundary and not self._scanner.in_multi

    @property
    def idle(self) -> bool:
        """No batch is under way, and the stream is between two commands."""
        return not self._open and self._scanner.at_boundary and not self._scanner.in_multi

    def feed(self, data: memoryview, out: bytearray, *, only_this: bool = False) -> int:
        """What may be written of ``data`` goes to ``out``; returns how much was consumed. The rest has to be presented again, with more behind it.
        ``only_this``: stop behind the command that is under way, so that the batch can be closed."""
        scanner, end, pos = self._scanner, len(data), 0
        while True:
            begin, before = pos, scanner.commands
            stop_behind_it = only_this and not scanner.at_boundary
            pos = scanner.finish(data, pos, end) if stop_behind_it else scanner.scan(data, pos, end)
            if pos > begin:
                self._begin(out, before)
                out += data[begin:pos]
                self.size += pos - begin
                self._offset += pos - begin
            if stop_behind_it or scanner.stop != ATTENTION:
                return pos
            parsed = scanner.command(data, pos, end)
            if parsed is None:
                return pos
            args, after = parsed
            self._attend(args, data[pos:after], out)
            self._offset += after - pos
            pos = after

    def close(self, out: bytearray) -> Closed:
        """The batch ends here (``may_close``)."""
        sealing, replies = self._seal.close(self._offset, self.database)
        out += sealing
        closed = Closed(
            self._start,
            self._offset,
            self._start_database,
            self._seal.OPENING + self.commands + self._extra + replies,
            tuple(self._renewals),
        )
        self._open = False
        return closed

    def _begin(self, out: bytearray, before: int) -> None:
        if self._open:
            return
        out += self._seal.open(self.database)
        self._open = True
        self._start = self._offset
        self._start_database = self.database
        self._before = before
        self._attended = self._extra = self.size = 0
        self._renewals = []

    def _attend(self, args: list[bytes], raw: memoryview, out: bytearray) -> None:
        """One whole command that needs a look."""
        name = args[0].upper()
        if name in _FRAME or name in _TALK:
            self._scanner.passed(name)
            return
        self._begin(out, self._scanner.commands)
        if name == b"SWAPDB" and b"%d" % marker.DATABASE in args[1:]:
            away, extra = self._seal.without_marker(self.database)
            out += away
            self._extra += extra
        elif name in self._renewing:
            self._renewals.append(Renewal(self.commands + self._extra + 1, self.database, args[1]))
        out += raw
        self.size += len(raw)
        self._attended += 1
        self._scanner.passed(name)
        if name == b"SELECT":
            self.database = int(args[1])


def commands_in(data: bytes, database: int) -> Iterator[tuple[int, int, list[bytes]]]:
    """The commands of a batch's piece of the stream, as ``Batches`` writes them: (place of its answer in EXEC's, database, command)."""
    parser = resp.Parser()
    parser.feed(data)
    place = 1
    for command in parser:
        if not isinstance(command, list):
            continue
        name = command[0].upper()
        if name in _FRAME or name in _TALK:
            continue
        if name == b"SWAPDB" and b"%d" % marker.DATABASE in command[1:]:
            place += 3
        yield place, database, command
        if name == b"SELECT":
            database = int(command[1])
        place += 1
