"""The keys whose copies are under way: read from the source at an offset that the stream has not reached yet.

From the command that made a copy necessary up to the copy's offset O, commands on that key are absorbed: the copy contains them. At O it is sent
as RESTORE … REPLACE ABSTTL (DEL, where the key is gone), and the key flows again. A command that *reads* an absorbed key and writes another one
(RENAME, SUNIONSTORE) makes the other one wait for a copy too, because the target has not yet what it would read. SWAPDB moves all of it.

O is always between commands, never inside a MULTI, because the source ran the copy's EXEC as one. Memory: three times a value that is copied, which
nothing can bound, because DUMP and RESTORE know no pieces.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from valkeep.errors import Refused
from valkeep.migrate.transform.notes import LedgerNote, TakeNote, field_ttls_lost
from valkeep.migrate.transform.target import FieldTtl, convert_mode
from valkeep.wire.commands import Place, keys_of
from valkeep.wire.rdb.convert import Reencoded, reencode_payload

if TYPE_CHECKING:
    from valkeep.migrate.transform.maybe import MaybeSet
    from valkeep.migrate.transform.target import TargetFormat
    from valkeep.migrate.transform.territory import Territory

__all__ = ["Copies", "Copy"]


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
class _Due:
    """A copy as it will be sent at ``offset``: ``value`` None: the key is not there. ``why``: for the ledger."""

    offset: int
    value: Reencoded | None
    expire_ms: int
    why: str


class Copies:
    """``lost_fields``: keys that lost fields on their way; those of copies are added. ``note`` takes what the ledger has to say. ``territory``: a copy is not
    sent whose slot is another lane's by then."""

    def __init__(
        self, target: TargetFormat, policy: FieldTtl, lost_fields: MaybeSet, note: TakeNote, territory: Territory | None = None
    ) -> None:
        self.under_way: dict[Place, _Due] = {}
        self._target = target
        self._policy = policy
        self._lost_fields = lost_fields
        self._note = note
        self._territory = territory

    def take(self, copies: list[Copy], why: str) -> None:
        """From now on these keys are absorbed. ``why`` they are copied: for the ledger. Raises ``Refused`` when one of them cannot be sent to this
        target; then none is taken."""
        due = [(copy, None if copy.payload is None else self._reencoded(copy, copy.payload)) for copy in copies]
        for copy, value in due:
            self.under_way[copy.database, copy.key] = _Due(copy.offset, value, copy.expire_ms, why)

    def missing(self, name: bytes, args: list[bytes], start: int, database: int) -> tuple[Place, ...] | None:
        """What has to be copied, too, before the stream can go on behind a command at source offset ``start``: nothing, because the copies contain the
        command; or these keys. None: it has nothing to do with them."""
        keys = keys_of(args, database)
        if keys is None:
            return None
        under_way = self.under_way
        if name == b"SWAPDB":
            swapped = set(keys.databases)
            places = tuple((db, key) for (at, key) in under_way if at in swapped for db in swapped)
            if all(place in under_way and under_way[place].offset > start for place in places):
                return None  # none is concerned, or they were read after this swap already: only let the swap itself pass
            return places
        touched = [place for place in (*keys.written, *keys.read) if place in under_way]
        # SORT … BY and GET read keys that no argument names.
        if not touched and not (name == b"SORT" and any(b"*" in arg for arg in args[2:])):
            return None
        return tuple(place for place in keys.written if place not in under_way)

    def due(self, reached: int, selected: int) -> Iterator[tuple[bytes, ...]]:
        """The commands by which the copies are sent whose offset the stream has reached. ``selected``: its database, before and after."""
        for place in [place for place, due in self.under_way.items() if due.offset <= reached]:
            due = self.under_way.pop(place)
            database, key = place
            if self._territory is not None and self._territory.foreign(key):
                continue
            value = due.value
            if due.why:
                self._note(LedgerNote("recopied", "key", due.why, "", key, database, due.offset))
            if value is not None and value.fields_with_ttl and not self._target.field_ttl:
                self._note(field_ttls_lost(self._policy, key, database, due.offset, value.fields_with_ttl))
            if value is not None and value.fields_dropped:
                self._lost_fields.add(database, key)  # now, and not when it was handed in: databases may have been swapped since
            if database != selected:
                yield b"SELECT", b"%d" % database
            if value is None or value.empty:
                yield b"DEL", key
            else:
                yield b"RESTORE", key, b"%d" % max(due.expire_ms, 0), value.payload, b"REPLACE", b"ABSTTL"
            if database != selected:
                yield b"SELECT", b"%d" % selected

    def _reencoded(self, copy: Copy, payload: bytes) -> Reencoded:
        """The copy's payload as the target takes it. Raises ``Refused``."""
        where = f"key {copy.key!r} in database {copy.database}"
        target = self._target
        try:
            result = reencode_payload(payload, target.dialect, target.rdb_version, convert_mode(target, self._policy))
        except Refused as error:
            raise error.saying(f"{where}: {error.message}") from error
        if result.fields_with_ttl and not target.field_ttl and self._policy is FieldTtl.REFUSE:
            raise Refused(
                f"{where} is a hash with {result.fields_with_ttl} field TTLs; {target.name} has none, and --field-ttl is refuse",
                remedy="choose --field-ttl keep-field or drop-field, or a target of Valkey 9.0 or later, and start again",
                code="VK-FIELD-TTL",
            )
        return result
