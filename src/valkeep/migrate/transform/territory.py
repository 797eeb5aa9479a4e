"""Which slots' keys cross here: of several lanes, each of which carries the stream of one shard of a cluster that is the source.

Two lanes must never both write a slot to the target, because their streams are not ordered to each other. While a cluster moves a slot, both shards speak of
it: ``RESTORE-ASKING k`` in the stream of the shard that takes it, ``DEL k`` in that of the one that gives it away. So each slot is one lane's at a time, and
what another says of it is left out. What is left out is not lost: who takes a slot over has each of its keys copied again.

    foreign     nothing of it crosses. Where it is *noted*, the keys that are written meanwhile are remembered
    owned       it crosses
    pending     a key of an owned slot of which the target may have an older value, until it *arrives*: its copy was asked for at this very place of the
                stream, and from there on the copy contains what the stream says of it (`copies`)

What becomes of a command, by the keys that it names:

    all of them cross                                as if there were no territory
    it writes such as do not cross only              left out
    it also writes others (SUNIONSTORE from a pending key)       those are copied again: the target has not what it would read
    it empties the shard (FLUSHALL, FLUSHDB)         ``VALKEEP.FLUSHSLOTS 0-5460 5462-5462``: other shards' keys stay. No server knows it, delivery by push does
    CLUSTER FLUSHSLOT, TRIMSLOTS                     the same, for these slots
    CLUSTER SETSLOT, SYNCSLOTS                       left out: between the servers (facts: docs/explanation/replication.md, "A cluster's streams")
    FUNCTION                                         so that it may be said again: every shard of the source says it

Whoever moves slots from lane to lane does so between two pieces of the stream; the order that makes it right is his (docs/explanation/replication.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from valkeep.errors import LocalProtocolError
from valkeep.migrate.transform.outcomes import Drop, Outcome, Pass, Recopy, Replace
from valkeep.topology.slots import SLOTS, key_slot, ranges_of, slots_of
from valkeep.wire.commands import Place, keys_of, writes_first_argument_only
from valkeep.wire.stream import LEFT_OUT, PASSES

__all__ = ["FLUSH_SLOTS", "FOREIGN", "NOTED", "OWNED", "OWNED_PENDING", "Territory", "repeatable", "scanned"]

FLUSH_SLOTS: Final = b"VALKEEP.FLUSHSLOTS"

FOREIGN: Final = LEFT_OUT  # the scanner's words for them
OWNED: Final = PASSES
OWNED_PENDING: Final = 2
NOTED: Final = 3

_EMPTIES: Final = frozenset({b"FLUSHALL", b"FLUSHDB"})
_KEYS_ONLY: Final = frozenset({b"DEL", b"UNLINK"})
_KEYLESS: Final = frozenset({b"PING", b"MULTI", b"EXEC", b"PUBLISH", b"SPUBLISH", b"SCRIPT"})
_BETWEEN_SERVERS: Final = frozenset({b"SETSLOT", b"SYNCSLOTS"})


class Territory:
    """``slots``: 0 … 16383, that cross from the beginning. ``owned``: of each slot FOREIGN, NOTED (foreign, too), OWNED or OWNED_PENDING; the scanner reads
    this very object, so it changes in place."""

    def __init__(self, slots: Iterable[int]) -> None:
        self.owned: Final = bytearray(SLOTS)
        self._pending: dict[int, set[bytes]] = {}
        self._noted: dict[int, set[bytes]] = {}
        for slot in slots:
            self.owned[_checked(slot)] = OWNED

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """Of the slots that cross, inclusive."""
        return ranges_of(slot for slot in range(SLOTS) if self._ours(slot))

    @property
    def carried(self) -> bytes:
        """Of each slot, not 0 where it crosses now."""
        return bytes(map(self._ours, range(SLOTS)))

    def crosses(self, key: bytes) -> bool:
        """Whether what the stream says of this key does now."""
        slot = key_slot(key)
        state = self.owned[slot]
        return state == OWNED or (state == OWNED_PENDING and key not in self._pending[slot])

    def foreign(self, key: bytes) -> bool:
        """Whether nothing of this key's slot crosses."""
        return not self._ours(key_slot(key))

    def _ours(self, slot: int) -> bool:
        return self.owned[slot] in (OWNED, OWNED_PENDING)

    # -- from lane to lane -----------------------------------------------------------------------------------------------------------

    def note(self, slot: int) -> None:
        """From now on the keys of this slot are remembered that commands write which are left out. Notes of an earlier time are kept."""
        self._noted.setdefault(_checked(slot), set())
        if not self._ours(slot):
            self.owned[slot] = NOTED

    def leave(self, slot: int) -> None:
        """Nothing of it crosses any more; nothing of it is noted either."""
        self.owned[_checked(slot)] = FOREIGN
        self._pending.pop(slot, None)
        self._noted.pop(slot, None)

    def enter(self, slot: int, keys: Iterable[bytes]) -> None:
        """It crosses from now on, but for these keys and the noted ones, which are pending (and for those that are already).

        ``keys``: all that the slot has in the source, and in the target, listed after `note`; and the lane's translation has come to the source's offset
        behind that list. Else a command could cross on a key that is in neither list: created and removed again before they were made."""
        pending = self._pending.pop(_checked(slot), set()) | self._noted.pop(slot, set())
        pending.update(keys)
        for key in pending:
            if key_slot(key) != slot:
                raise LocalProtocolError(f"key {key[:60]!r} is not in slot {slot}", remedy="this is a bug of Valkeep: please report it")
        if pending:
            self._pending[slot] = pending
        self.owned[slot] = OWNED_PENDING if pending else OWNED

    def pending(self, slot: int) -> frozenset[bytes]:
        return frozenset(self._pending.get(slot, ()))

    def arrive(self, keys: Iterable[bytes]) -> None:
        """These are pending no more: a copy of each was asked for at this very place of the stream."""
        for key in keys:
            slot = key_slot(key)
            waiting = self._pending.get(slot)
            if waiting is None:
                continue
            waiting.discard(key)
            if not waiting:
                del self._pending[slot]
                self.owned[slot] = OWNED

    # -- commands --------------------------------------------------------------------------------------------------------------------

    def judged(self, args: list[bytes], database: int) -> Drop | Recopy | Replace | None:
        """What becomes of this command because of its slots; None: they do not matter. Notes what is left out. Raises IndexError or ValueError on
        arguments that make no sense."""
        name = args[0].upper()
        if name in _EMPTIES:
            return _emptied(self.ranges)
        if name == b"TRIMSLOTS":  # RANGES n first last …: what a Redis 8.4 has given away as a whole
            bounds = [int(word) for word in args[3:]]
            said = slots_of(zip(bounds[::2], bounds[1::2], strict=True))
            return _emptied(ranges_of(slot for slot in said if self._ours(slot)))
        if name == b"CLUSTER":
            word = args[1].upper()
            if word == b"FLUSHSLOT":
                slot = int(args[2])
                if not 0 <= slot < SLOTS:
                    raise ValueError(f"slot {slot}")
                return _emptied(((slot, slot),) if self._ours(slot) else ())
            return Drop() if word in _BETWEEN_SERVERS else None
        keys = keys_of(args, database)
        if keys is None:  # nobody knows its keys
            return None
        held = [place for place in (*keys.written, *keys.read) if not self.crosses(place[1])]
        if not held:
            return None
        rest: list[Place] = []
        for place in keys.written:
            if self.crosses(place[1]):
                rest.append(place)
            else:
                self.left_out(place[1])
        return Recopy(tuple(rest)) if rest else Drop()

    def left_out(self, key: bytes) -> None:
        """A command that writes this key is left out."""
        noted = self._noted.get(key_slot(key))
        if noted is not None:
            noted.add(key)


def scanned(verbatim: frozenset[bytes], plain: Mapping[bytes, int]) -> tuple[frozenset[bytes], dict[bytes, int], frozenset[bytes]]:
    """Of names that may pass without a look (see `CommandScanner`): those of which the first argument says all that a territory has to know, or that name no
    key and are none of its business; and which of them have one."""
    some = {name: words for name, words in plain.items() if writes_first_argument_only(name) or (name in _KEYS_ONLY and words == 2)}
    keyed = frozenset(name for name in verbatim if writes_first_argument_only(name))
    return keyed | (verbatim & _KEYLESS), some, keyed | some.keys()


def repeatable(outcome: Outcome, args: list[bytes]) -> Outcome:
    """The same for FUNCTION, but right also where another lane has said it already. Raises IndexError for one without a subcommand."""
    word = args[1].upper()
    commands = outcome.instead if isinstance(outcome, Replace) else (tuple(args),) if isinstance(outcome, Pass) else ()
    if word not in (b"LOAD", b"RESTORE") or len(commands) != 1:
        return outcome
    (said,) = commands
    if word == b"LOAD":
        return Replace(((said[0], b"LOAD", b"REPLACE", said[-1]),))
    policy = said[3].upper() if len(said) > 3 else b"APPEND"
    return Replace(((*said[:3], b"REPLACE" if policy == b"APPEND" else policy),))


def _emptied(ranges: tuple[tuple[int, int], ...]) -> Drop | Replace:
    return Replace(((FLUSH_SLOTS, *(b"%d-%d" % one for one in ranges)),)) if ranges else Drop()


def _checked(slot: int) -> int:
    if not 0 <= slot < SLOTS:
        raise LocalProtocolError(f"{slot} is no slot", remedy="this is a bug of Valkeep: please report it")
    return slot
