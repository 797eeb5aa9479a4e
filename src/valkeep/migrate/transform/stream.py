"""The replication stream, translated for one target: bytes in, bytes out, nothing skipped.

Most commands mean the same on both sides and are passed on as the bytes they came in: the compiled scanner steps over them and only
stops at names that need a look (``commands.attention``). What is looked at has one of five outcomes:

    Pass      the command's own bytes
    Replace   other commands with the same effect there (HPEXPIREAT under drop-field becomes HDEL)
    Drop      no effect on the target is wanted (HPERSIST under keep-field: the TTL never crossed)
    Recopy    its effect depends on state the target does not have, or on a command it does not know: the keys it writes are copied again
    Hold      it cannot cross at all: nothing after it is sent until a person removed the cause

**Recopy.** The caller reads the key at a known source offset O (``MULTI; DUMP k; PEXPIRETIME k; INFO replication; EXEC``) and hands the
value in. From the offending command up to O, commands on that key are absorbed (the copy already contains them); at O the copy is
sent as RESTORE … REPLACE ABSTTL; then the key flows again. A command that *reads* an absorbed key and writes another one (RENAME,
SUNIONSTORE) makes the other one wait for a copy too. O is always between commands, never inside a MULTI, because the source ran EXEC
as one. Commands on other keys are not delayed.

**Why it may stop.** A command that was passed over silently is lost for ever, and the target would not tell: a Valkey replica drops
what it does not know and keeps the link up. So unknown means Hold, at that offset, with the remedy.

What this does not do: no I/O, no clock; ``wants`` tells the caller what to fetch. Sources: facts gathered from running Redis 7.0-8.4
against Valkey 8.0-9.1 (docs/explanation/replication.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from valkeep.errors import LocalProtocolError, Refused, ValkeepError
from valkeep.migrate.transform import commands
from valkeep.migrate.transform.commands import Drop, Hold, Outcome, Pass, Recopy, Replace, Situation
from valkeep.migrate.transform.maybe import MaybeSet
from valkeep.migrate.transform.target import FieldTtl
from valkeep.wire.commands import keys_of
from valkeep.wire.rdb.convert import Reencoded, reencode_payload
from valkeep.wire.resp import encode
from valkeep.wire.stream import CommandScanner

if TYPE_CHECKING:
    from valkeep.migrate.ledger import Ledger
    from valkeep.migrate.transform.target import TargetFormat

__all__ = ["Copy", "StreamTransform", "Wanted"]

COMMAND_LIMIT = 64 << 20
"""A command that has to be looked at is collected whole; larger ones hold the stream (RESTORE of a huge value)."""

NEED_MORE, ATTENTION = 0, 1

_NAMES_DATABASE = frozenset({b"SELECT", b"SWAPDB", b"MOVE", b"COPY"})
_NO_WRITES = frozenset({b"PING", b"SELECT", b"REPLCONF"})

Place = tuple[int, bytes]
"""A key's place: (database, key)."""


@dataclass(frozen=True, slots=True)
class Copy:
    """One key as read at ``offset``: ``payload`` is a DUMP payload of the source (None: the key does not exist there), ``expire_ms``
    its absolute expiry in Unix milliseconds (-1: none)."""

    database: int
    key: bytes
    offset: int
    payload: bytes | None
    expire_ms: int = -1


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the stream waits for. ``places``: keys to be copied again (empty: no copy can help). ``hold``: why it cannot go on, or None while
    it only waits for copies. ``offset``: of the command that is waiting."""

    places: tuple[Place, ...]
    offset: int
    command: bytes
    hold: Hold | None = None


class StreamTransform:
    """Translate one source's stream for one target format; see the module's head.

    ``source_version``: (major, minor), and ``valkey``: whether it is one, decide which commands can be new. ``lost_fields``: keys that lost fields
    in the snapshot (drop-field). Feed it with ``feed``; when ``wants`` is not None, satisfy it with ``supply`` before feeding again.
    """

    def __init__(
        self,
        source_version: tuple[int, ...],
        target: TargetFormat,
        policy: FieldTtl,
        ledger: Ledger,
        *,
        database: int = 0,
        lost_fields: MaybeSet | None = None,
        valkey: bool = False,
    ) -> None:
        self.target = target
        self.policy = policy
        self.ledger = ledger
        self.database = database
        self.wants: Wanted | None = None
        self.acknowledge = False  # the source asked for an ACK (GETACK); the caller answers and clears it
        self._attended = 0
        self.lost_fields = lost_fields if lost_fields is not None else MaybeSet()
        self._scanner = CommandScanner(
            commands.verbatim(source_version, target, valkey=valkey, lossy=policy is FieldTtl.DROP_FIELD),
            commands.plain(source_version, target, valkey=valkey),
        )
        self._copies: dict[Place, Copy] = {}

    @property
    def writes(self) -> int:
        """Commands so far, without those that write nothing (PING, SELECT, REPLCONF)."""
        return self._scanner.commands + self._attended

    @property
    def copying(self) -> bool:
        """Whether commands are being absorbed: their effect is sent with the copies only."""
        return bool(self._copies)

    @property
    def at_boundary(self) -> bool:
        """Whether the last byte handed out ended a command, outside MULTI: other commands may be put in here."""
        return self._scanner.at_boundary and not self._scanner.in_multi

    @property
    def between_commands(self) -> bool:
        """Whether the last byte handed out ended a command, within MULTI or not."""
        return self._scanner.at_boundary

    def feed(self, buffer: bytearray, offset: int) -> tuple[int, bytearray | memoryview]:
        """Translate what is complete in ``buffer``, whose first byte is the source's stream byte after ``offset``.

        Returns (bytes consumed, bytes to send). The bytes to send may be a view of ``buffer``: write it before changing the buffer. What was not
        consumed has to be presented again with more behind it, after ``wants`` was satisfied if it is set. Raises ``RemoteProtocolError``.
        """
        if self.wants is not None:
            raise LocalProtocolError("fed while waiting for a copy", remedy="this is a bug of Valkeep: please report it")
        scanner = self._scanner
        view = memoryview(buffer)
        end = len(buffer)
        out: bytearray | None = None
        if not self._copies:
            position = scanner.scan(view, 0, end)
            if scanner.stop == NEED_MORE:
                return position, view[:position]
            out = bytearray(view[:position])
        else:
            position = 0
            out = bytearray()
        while True:
            if self._copies:
                self._send_due(offset + position, out)
            if not self._copies:
                start = position
                position = scanner.scan(view, position, end)
                out += view[start:position]
                if scanner.stop == NEED_MORE:
                    break
            else:
                # A long command may have begun to pass verbatim before the copy was asked for.
                start = position
                position = scanner.finish(view, position, end)
                out += view[start:position]
                if not scanner.at_boundary:
                    break
            parsed = scanner.command(view, position, end)
            if parsed is None:
                if end - position > COMMAND_LIMIT:
                    self.wants = self._too_long(offset + position)
                break
            args, after = parsed
            if not self._one(args, view[position:after], offset + position, out):
                break
            position = after
            name = args[0].upper()
            self._attended += name not in _NO_WRITES
            scanner.passed(name)
        view.release()
        return position, out

    def supply(self, copies: list[Copy]) -> None:
        """Hand in the copies that ``wants`` asked for. Raises ``Refused`` when a value cannot be sent to this target; the wish then stands."""
        if self.wants is None:
            raise LocalProtocolError("a copy was supplied that nobody asked for", remedy="this is a bug of Valkeep: please report it")
        for copy in copies:
            if copy.payload is not None:
                self._reencoded(copy)  # refuse before anything is absorbed
        for copy in copies:
            self._copies[copy.database, copy.key] = copy
        self.wants = None

    def demand(self, places: tuple[Place, ...], offset: int) -> None:
        """Copy these keys again although nothing in the stream asked for it (a repair). ``offset``: the source offset reached so far."""
        self.wants = Wanted(places, offset, b"repair")

    # -- one command ------------------------------------------------------------------------------------------------------------

    def _one(self, args: list[bytes], raw: memoryview, start: int, out: bytearray) -> bool:
        """Translate one whole command; False when the stream has to wait (``wants`` is set, nothing was sent for it)."""
        name = args[0].upper()
        if self._copies:
            absorbed = self._absorb(name, args, start)
            if absorbed is not None:
                return absorbed
        outcome = self._outcome(name, args, start)
        match outcome:
            case Pass():
                out += raw
            case Replace(instead, note, key):
                for command in instead:
                    out += encode(*command)
                self._note(note, key, start)
            case Drop(note, key):
                self._note(note, key, start)
            case Recopy(places):
                self.wants = Wanted(places, start, name)
                return False
            case Hold():
                self.wants = Wanted(outcome.places, start, name, outcome)
                return False
        if name == b"SELECT":
            self.database = int(args[1])
        elif name == b"SWAPDB":
            self.lost_fields.swap(int(args[1]), int(args[2]))
        elif name == b"REPLCONF":
            self.acknowledge = True
        return True

    def _outcome(self, name: bytes, args: list[bytes], start: int) -> Outcome:
        situation = Situation(self.database, self.target, self.policy, self.lost_fields)
        try:
            return commands.translate(name, args, situation)
        except ValkeepError as error:  # a payload that the target cannot take, or that is damaged
            keys = keys_of(args, self.database)
            places = () if keys is None else keys.written
            where = f"key {places[0][1]!r} in database {places[0][0]}: " if places else f"{name.decode('ascii', 'replace')}: "
            return Hold(where + error.message, error.remedy, places)
        except (IndexError, ValueError) as error:
            return Hold(
                f"{name.decode('ascii', 'replace')} at source offset {start} has arguments that Valkeep does not understand ({error})",
                "report the command to the maintainers; finish with a full sync after the cause is gone",
            )

    def _absorb(self, name: bytes, args: list[bytes], start: int) -> bool | None:
        """While copies are on their way: True when the command is contained in them, False when it has to wait, None when it is none of theirs."""
        if name in _NAMES_DATABASE:
            outcome = self._outcome(name, args, start)
            if isinstance(outcome, Hold):  # no copy of a key may be sent to a database that is not there
                self.wants = Wanted(outcome.places, start, name, outcome)
                return False
        keys = keys_of(args, self.database)
        if keys is None:
            return None
        if name == b"SWAPDB":
            swapped = set(keys.databases)
            places = tuple((db, key) for (at, key) in self._copies if at in swapped for db in swapped)
            if not places:
                return None
            if all(place in self._copies and self._copies[place].offset > start for place in places):
                # Copies were read after this swap already: only let the swap itself pass.
                return None
            self.wants = Wanted(places, start, name)
            return False
        touched = [place for place in (*keys.written, *keys.read) if place in self._copies]
        # SORT … BY and GET read keys that no argument names.
        if not touched and not (name == b"SORT" and any(b"*" in arg for arg in args[2:])):
            return None
        missing = tuple(place for place in keys.written if place not in self._copies)
        if missing:
            self.wants = Wanted(missing, start, name)
            return False
        return True

    def _send_due(self, reached: int, out: bytearray) -> None:
        """Send the copies whose offset the stream has reached."""
        due = [place for place, copy in self._copies.items() if copy.offset <= reached]
        for place in due:
            copy = self._copies.pop(place)
            if copy.database != self.database:
                out += encode(b"SELECT", copy.database)
            result = None if copy.payload is None else self._reencoded(copy)
            if result is None or result.empty:
                out += encode(b"DEL", copy.key)
            else:
                out += encode(b"RESTORE", copy.key, max(copy.expire_ms, 0), result.payload, b"REPLACE", b"ABSTTL")
            if copy.database != self.database:
                out += encode(b"SELECT", self.database)
            self.ledger.record(
                "recopied",
                "key",
                "a command on it could not be expressed for the target",
                policy="",
                key=copy.key,
                database=copy.database,
                source_offset=copy.offset,
            )
            if result is not None and result.fields_with_ttl and not self.target.field_ttl:
                self.ledger.record(
                    "degraded",
                    "field-ttl",
                    commands.WHY_FIELD_TTL[self.policy],
                    policy=str(self.policy),
                    key=copy.key,
                    database=copy.database,
                    source_offset=copy.offset,
                    count=result.fields_with_ttl,
                )

    def _reencoded(self, copy: Copy) -> Reencoded:
        """The copy's payload as the target takes it. Raises ``Refused``."""
        assert copy.payload is not None
        mode = commands.convert_mode(self.target, self.policy)
        try:
            result = reencode_payload(copy.payload, self.target.dialect, self.target.rdb_version, mode)
        except Refused as error:
            raise Refused(f"key {copy.key!r} in database {copy.database}: {error.message}", remedy=error.remedy, code=error.code) from error
        if result.fields_with_ttl and not self.target.field_ttl and self.policy is FieldTtl.REFUSE:
            raise Refused(
                f"key {copy.key!r} in database {copy.database} is a hash with {result.fields_with_ttl} field TTLs; Valkey "
                f"{self.target.display} has none, and --field-ttl is refuse",
                remedy="choose --field-ttl keep-field or drop-field, or a target of Valkey 9.0 or later, and start again",
                code="VK-FIELD-TTL",
            )
        if result.fields_dropped:
            self.lost_fields.add(copy.database, copy.key)
        return result

    def _note(self, note: commands.LedgerNote | None, key: bytes | None, offset: int) -> None:
        if note is not None:
            self.ledger.record(
                note.action,
                note.what,
                note.why,
                policy=str(self.policy),
                key=key,
                database=self.database,
                source_offset=offset,
                count=note.count,
            )

    def _too_long(self, offset: int) -> Wanted:
        hold = Hold(
            f"a command of more than {COMMAND_LIMIT} bytes at source offset {offset} has to be translated whole",
            "start again with a full sync: the snapshot carries the value without this limit",
        )
        return Wanted((), offset, b"", hold)
