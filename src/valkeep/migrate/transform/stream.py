"""The replication stream, translated for one target: bytes in, bytes out, nothing skipped.

Most commands mean the same on both sides and are passed on as the bytes they came in: the compiled scanner steps over them and only
stops at names that need a look (``commands.attention``). What is looked at has one of five outcomes:

    Pass      the command's own bytes
    Replace   other commands with the same effect there (HPEXPIREAT under drop-field becomes HDEL)
    Drop      no effect on the target is wanted (HPERSIST under keep-field: the TTL never crossed)
    Recopy    its effect depends on state the target does not have, or on a command it does not know: the keys it writes are copied again
    Hold      it cannot cross at all: nothing after it is sent until a person removed the cause

**Recopy.** The caller reads the key at a known source offset O (``MULTI; DUMP k; PEXPIRETIME k; INFO replication; EXEC``) and hands the
value in. Up to O, commands on that key are absorbed, as the copy already contains them; there it is sent (`copies`). Commands on other keys
are not delayed.

**Large commands.** What passes streams through, whatever its size. What needs a look is collected whole, up to ``LARGE_COMMAND`` bytes and
``MANY_WORDS`` arguments; of a larger one only the head is kept. Nearly all of them write the one key that the head names: that key is copied again, and the
rest of the command goes by unseen, because the copy contains it. Where the head does not name all keys (MSETEX), it is collected up to
``LARGEST_COMMAND``, and beyond that the stream is held. Memory: four times a command that is translated, so that 16 MB stay well below what the gateway
may use.

**Why it may stop.** A command that was passed over silently is lost for ever, and the target would not tell: a Valkey replica drops
what it does not know and keeps the link up. So unknown means Hold, at that offset, with the remedy.

**Territory.** Of several lanes each carries a part of the slots (`territory`): the scanner stops at commands whose first key may not pass, and what is not
this lane's is left out before anything else is asked.

**Boundaries.** Where a command ended outside of MULTI, another translator could go on from what the `Boundary` holds: the database, and the keys
whose copies are under way (it would have them copied again). Each ``feed`` tells the last one that it passed.

What this does not do: no I/O, no clock; ``wants`` tells the caller what to fetch. Sources: facts gathered from running Redis 7.0-8.4
against Valkey 8.0-9.1 (docs/explanation/replication.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from valkeep.errors import LocalProtocolError, ValkeepError
from valkeep.migrate.transform import commands
from valkeep.migrate.transform.copies import Copies, Copy
from valkeep.migrate.transform.maybe import MaybeSet
from valkeep.migrate.transform.notes import TakeNote
from valkeep.migrate.transform.outcomes import Drop, Hold, Outcome, Pass, Recopy, Replace, Situation
from valkeep.migrate.transform.target import FieldTtl
from valkeep.migrate.transform.territory import repeatable, scanned
from valkeep.wire.commands import Place, keys_of, writes_first_argument_only
from valkeep.wire.stream import CommandScanner

if TYPE_CHECKING:
    from valkeep.migrate.transform.target import TargetFormat
    from valkeep.migrate.transform.territory import Territory

__all__ = ["REPAIR", "Boundary", "StreamTransform", "Wanted"]

LARGE_COMMAND = 16 << 20
"""Bytes up to which a command that has to be looked at is collected whole."""
MANY_WORDS = 1 << 18
"""Arguments up to which it is: each is an object of its own."""
LARGEST_COMMAND = 256 << 20
"""Bytes up to which it is where its head does not name its keys."""

NEED_MORE, ATTENTION = 0, 1

_NAMES_DATABASE = frozenset({b"SELECT", b"SWAPDB", b"MOVE", b"COPY"})
_NO_WRITES = frozenset({b"PING", b"SELECT", b"REPLCONF"})

_UNSAID = "a command on it could not be expressed for the target"
_TOO_LARGE = "a command on it was too large to be translated"
REPAIR = "a repair asked for it"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the stream waits for. ``places``: keys to be copied again (empty: no copy can help). ``hold``: why it cannot go on, or None while
    it only waits for copies. ``offset``: of the command that is waiting. ``why``: the copies are made, for the ledger."""

    places: tuple[Place, ...]
    offset: int
    command: bytes
    hold: Hold | None = None
    why: str = _UNSAID


class Boundary(NamedTuple):
    """A place from which the translation can begin anew: source offset ``source``, ``out`` bytes into what this ``feed`` handed out. ``copying``:
    keys whose copies were under way; ``beside``: what the witness said there."""

    source: int
    out: int
    database: int
    copying: tuple[Place, ...]
    beside: object


class StreamTransform:
    """Translate one source's stream for one target format; see the module's head.

    ``source_version``: (major, minor), and ``valkey``: whether it is one, decide which commands can be new. ``lost_fields``: keys that lost fields
    in the snapshot (drop-field); ``note`` takes what the ledger has to say; ``witness`` is asked at boundaries for what else belongs to them;
    ``territory``: of the slots that cross, None: all there is. It may change between two calls. Feed it with ``feed``; when ``wants`` is not None, satisfy it
    with ``supply`` before feeding again."""

    def __init__(
        self,
        source_version: tuple[int, ...],
        target: TargetFormat,
        policy: FieldTtl,
        note: TakeNote,
        *,
        database: int = 0,
        lost_fields: MaybeSet | None = None,
        valkey: bool = False,
        witness: Callable[[], object] = lambda: None,
        territory: Territory | None = None,
    ) -> None:
        self.target = target
        self.policy = policy
        self.boundary: Boundary | None = None  # the last one that the last feed passed
        self._reached: tuple[int, int] | None = None  # that of which nothing was said yet: source offset, bytes handed out
        self._witness = witness
        self._note = note
        self.database = database
        self.wants: Wanted | None = None
        self.acknowledge = False  # the source asked for an ACK (GETACK); the caller answers and clears it
        self._attended = 0
        self.lost_fields = lost_fields if lost_fields is not None else MaybeSet()
        verbatim = commands.verbatim(source_version, target, valkey=valkey, lossy=policy is FieldTtl.DROP_FIELD)
        plain = commands.plain(source_version, target, valkey=valkey, lossy=policy is FieldTtl.DROP_FIELD)
        self._territory = territory
        self._scanner = CommandScanner(verbatim, plain)
        if territory is not None:
            verbatim, plain, keyed = scanned(verbatim, plain)
            self._scanner = CommandScanner(verbatim, plain, owned=territory.owned, keyed=keyed)
        self._copies = Copies(target, policy, self.lost_fields, note, territory)
        self._under_way = self._copies.under_way  # the same: asked at each command
        self._passing_by = False  # a large command is under way that a copy contains

    @property
    def writes(self) -> int:
        """Commands so far, without those that write nothing (PING, SELECT, REPLCONF)."""
        return self._scanner.commands + self._attended

    @property
    def copying(self) -> bool:
        """Whether commands are being absorbed: their effect is sent with the copies only."""
        return bool(self._under_way)

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
        self.boundary = self._reached = None
        view, end, position = memoryview(buffer), len(buffer), 0
        if self._passing_by:
            position = scanner.finish(view, 0, end)
            if not scanner.at_boundary:
                return position, bytearray()
            self._passing_by = False
            self._pass(offset + position, 0)
        begin = position
        if not self._under_way:
            position = scanner.scan(view, position, end)
            self._scanned(offset, position, position - begin)
            if scanner.stop == NEED_MORE:
                self._tell_boundary()
                return position, view[begin:position]
        out = bytearray(view[begin:position])
        while True:
            start = position
            if self._under_way:
                # A long command may have begun to pass verbatim before the copy was asked for.
                position = scanner.finish(view, position, end)
                out += view[start:position]
                self._scanned(offset, position, len(out))
                if not scanner.at_boundary:
                    break
                start = position
                for command in self._copies.due(offset + position, self.database):
                    _put(out, *command)
                self._pass(offset + position, len(out))
            if not self._under_way:
                position = scanner.scan(view, position, end)
                out += view[start:position]
                self._scanned(offset, position, len(out))
                if scanner.stop == NEED_MORE:
                    break
            if self._territory is not None:
                start = position
                position = self._skip(view, position, end, offset, len(out))
                if self._passing_by:
                    break
                if position > start:
                    continue
            parsed = scanner.command(view, position, end)
            if parsed is None:
                if end - position > LARGE_COMMAND or scanner.words > MANY_WORDS:
                    position = self._large(view, position, end, offset, out)
                break
            args, after = parsed
            if scanner.in_multi:
                self._tell_boundary()  # what this command changes comes after it
            if not self._one(args, view[position:after], offset + position, out):
                break
            position = after
            name = args[0].upper()
            self._attended += name not in _NO_WRITES
            scanner.passed(name)
            self._pass(offset + position, len(out))
        self._tell_boundary()
        view.release()
        return position, out

    def supply(self, copies: list[Copy]) -> None:
        """Hand in the copies that ``wants`` asked for. Raises ``Refused`` when a value cannot be sent to this target; the wish then stands."""
        wanted = self.wants
        if wanted is None:
            raise LocalProtocolError("a copy was supplied that nobody asked for", remedy="this is a bug of Valkeep: please report it")
        self._copies.take(copies, wanted.why)
        self.wants = None

    def demand(self, places: tuple[Place, ...], offset: int, why: str = REPAIR) -> Wanted:
        """Copy these keys again although nothing in the stream asked for it. ``offset``: the source offset reached so far. ``why``: for the ledger; "": that is
        nothing for it."""
        self.wants = wanted = Wanted(places, offset, b"repair", why=why)
        return wanted

    def _skip(self, view: memoryview, position: int, end: int, offset: int, out: int) -> int:
        """Leave out what is foreign and need not be looked at; returns the position reached, maybe inside of such a command (``_passing_by``)."""
        scanner = self._scanner
        after = scanner.skip(view, position, end)
        if scanner.boundary > position:
            self._reached = offset + scanner.boundary, out
        self._passing_by = not scanner.at_boundary
        return after

    # -- boundaries -------------------------------------------------------------------------------------------------------------

    def _scanned(self, offset: int, position: int, out: int) -> None:
        """The scanner has passed verbatim up to ``position``, of which ``out`` bytes are handed out in all."""
        boundary = self._scanner.boundary
        if boundary >= 0:
            self._reached = offset + boundary, out - (position - boundary)

    def _pass(self, source: int, out: int) -> None:
        if not self._scanner.in_multi:
            self._reached = source, out

    def _tell_boundary(self) -> None:
        """Nothing has changed since the last one that was reached: now is the time to say what holds there."""
        if self._reached is not None:
            source, out = self._reached
            self._reached = None
            self.boundary = Boundary(source, out, self.database, tuple(self._under_way), self._witness())

    # -- one command ------------------------------------------------------------------------------------------------------------

    def _one(self, args: list[bytes], raw: memoryview, start: int, out: bytearray) -> bool:
        """Translate one whole command; False when the stream has to wait (``wants`` is set, nothing was sent for it)."""
        name = args[0].upper()
        outcome = self._judged(args, start)
        if outcome is None:
            if self._under_way:
                absorbed = self._absorb(name, args, start)
                if absorbed is not None:
                    return absorbed
            outcome = self._outcome(name, args, start)
        match outcome:
            case Pass():
                out += raw
            case Replace(instead, note):
                if note is not None:
                    self._note(note)
                for command in instead:
                    _put(out, *command)
            case Drop(note):
                if note is not None:
                    self._note(note)
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

    def _judged(self, args: list[bytes], start: int) -> Outcome | None:
        """What becomes of a command because not all of its keys are ours to carry; None: they are."""
        if self._territory is None:
            return None
        try:
            outcome = self._territory.judged(args, self.database)
        except (IndexError, ValueError) as error:
            return _senseless(args[0], start, error)
        if not isinstance(outcome, Recopy):
            return outcome
        missing = tuple(place for place in outcome.places if place not in self._under_way)
        return Recopy(missing) if missing else Drop()

    def _outcome(self, name: bytes, args: list[bytes], start: int) -> Outcome:
        situation = Situation(self.database, start, self.target, self.policy, self.lost_fields)
        try:
            outcome = commands.translate(name, args, situation)
            return repeatable(outcome, args) if self._territory is not None and name == b"FUNCTION" else outcome
        except ValkeepError as error:  # a payload that the target cannot take, or that is damaged
            keys = keys_of(args, self.database)
            places = () if keys is None else keys.written
            where = f"key {places[0][1]!r} in database {places[0][0]}: " if places else f"{name.decode('ascii', 'replace')}: "
            return Hold(where + error.message, error.remedy, places)
        except (IndexError, ValueError) as error:
            return _senseless(name, start, error)

    def _absorb(self, name: bytes, args: list[bytes], start: int) -> bool | None:
        """While copies are on their way: True when the command is contained in them, False when it has to wait, None when it is none of theirs."""
        if name in _NAMES_DATABASE:
            outcome = self._outcome(name, args, start)
            if isinstance(outcome, Hold):  # no copy of a key may be sent to a database that is not there
                self.wants = Wanted(outcome.places, start, name, outcome)
                return False
        missing = self._copies.missing(name, args, start, self.database)
        if missing:
            self.wants = Wanted(missing, start, name)
        return None if missing is None else not missing

    def _large(self, view: memoryview, position: int, end: int, offset: int, out: bytearray) -> int:
        """Go on with a command that is not all there and is not collected any further; returns the position reached."""
        scanner = self._scanner
        head = scanner.begun(view, position)
        name = head[0].upper() if head else b""
        if len(head) < 2 or not writes_first_argument_only(name):
            if end - position > LARGEST_COMMAND:
                self.wants = self._too_long(name, offset + position)
            return position
        place = (self.database, head[1])
        if self._elsewhere(head[1]) or place in self._under_way:
            self._passing_by = True
            return scanner.finish(view, scanner.enter(position), end)
        if self._under_way:
            after = scanner.scan(view, position, end)
            if after > position:  # it needs no look: it was only read because others are absorbed
                out += view[position:after]
                return after
        self.wants = Wanted((place,), offset + position, name, why=_TOO_LARGE)
        return position

    def _elsewhere(self, key: bytes) -> bool:
        """Whether a command that writes this key only is left out; then it is."""
        territory = self._territory
        if territory is None or territory.crosses(key):
            return False
        territory.left_out(key)
        return True

    @staticmethod
    def _too_long(name: bytes, offset: int) -> Wanted:
        hold = Hold(
            f"{name.decode('ascii', 'replace') or 'a command'} at source offset {offset} has more than {LARGEST_COMMAND >> 20} MB, needs to be "
            "translated, and does not name its keys at its beginning",
            "start again with a full sync: the snapshot carries its effect without this limit",
        )
        return Wanted((), offset, name, hold)


def _senseless(name: bytes, start: int, error: Exception) -> Hold:
    return Hold(
        f"{name.decode('ascii', 'replace')} at source offset {start} has arguments that Valkeep does not understand ({error})",
        "report the command to the maintainers; finish with a full sync after the cause is gone",
    )


def _put(out: bytearray, *words: bytes) -> None:
    """Append a command, word by word: a large one is not put together elsewhere first."""
    out += b"*%d\r\n" % len(words)
    for word in words:
        out += b"$%d\r\n" % len(word)
        out += word
        out += b"\r\n"
