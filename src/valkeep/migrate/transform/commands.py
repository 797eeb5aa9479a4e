"""What each replicated command needs on its way to a Valkey target: the table behind the stream translation.

``verbatim`` gives the names that may pass as bytes; every other name is looked up in ``_RULES`` by ``translate``. A name that neither
knows is copied (when it is known which keys it writes) or holds the stream. Which names are looked at depends on both versions: SET
needs a look only where the source can replicate ``SET … IFEQ``, so that a Redis 7 or 8.0 source streams its SETs at full speed.

A command is replicated only when it changed something. That is why a condition (IFEQ, FNX) can be taken off: it held on the source, and
the target is at the same state.

Facts and where they were seen: docs/explanation/replication.md ("The command stream after the snapshot").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from valkeep.migrate.transform.target import FieldTtl, TargetFormat
from valkeep.wire.commands import VALKEY_COMMANDS, keys_of
from valkeep.wire.rdb import convert
from valkeep.wire.rdb.dump import opened, sealed

if TYPE_CHECKING:
    from valkeep.migrate.transform.maybe import MaybeSet

__all__ = [
    "WHY_FIELD_TTL",
    "Drop",
    "Hold",
    "LedgerNote",
    "Outcome",
    "Pass",
    "Recopy",
    "Replace",
    "Situation",
    "convert_mode",
    "plain",
    "translate",
    "verbatim",
]

Place = tuple[int, bytes]


@dataclass(frozen=True, slots=True)
class LedgerNote:
    """What the ledger says of it, apart from key, database and offset."""

    action: str
    what: str
    why: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Pass:
    """The command's own bytes."""


@dataclass(frozen=True, slots=True)
class Replace:
    """These commands instead."""

    instead: tuple[tuple[bytes, ...], ...]
    note: LedgerNote | None = None
    key: bytes | None = None


@dataclass(frozen=True, slots=True)
class Drop:
    """Nothing is sent, and nothing is missing."""

    note: LedgerNote | None = None
    key: bytes | None = None


@dataclass(frozen=True, slots=True)
class Recopy:
    """These keys are copied again at a later, known offset."""

    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Hold:
    """Nothing more can be sent. ``why`` names the command and both versions; ``remedy`` what a person can do; ``places``: keys whose copy would free it."""

    why: str
    remedy: str
    places: tuple[Place, ...] = ()


Outcome = Pass | Replace | Drop | Recopy | Hold


@dataclass(frozen=True, slots=True)
class Situation:
    """What a rule may look at besides the arguments. ``database``: the one selected in the stream."""

    database: int
    target: TargetFormat
    policy: FieldTtl
    lost_fields: MaybeSet


Rule = Callable[[list[bytes], Situation], Outcome]

PASS = Pass()
WHY_FIELD_TTL: Mapping[FieldTtl, str] = {
    FieldTtl.KEEP_FIELD: "Valkey before 9.0 has no field TTLs: the field stays until the application deletes it or the source expires it",
    FieldTtl.DROP_FIELD: "Valkey before 9.0 has no field TTLs: fields with a TTL do not cross",
    FieldTtl.REFUSE: "Valkey before 9.0 has no field TTLs",
}


def convert_mode(target: TargetFormat, policy: FieldTtl) -> int:
    """How hashes with field TTLs are rewritten for this target (a mode of ``wire.rdb.convert``)."""
    if target.field_ttl:
        return convert.TO_HASH_2
    return convert.DROP_FIELD if policy is FieldTtl.DROP_FIELD else convert.KEEP_FIELD


def translate(name: bytes, args: list[bytes], situation: Situation) -> Outcome:
    """What to send for this command. ``name``: ``args[0]`` in upper case. Raises IndexError or ValueError on arguments that make no sense."""
    rule = _RULES.get(name)
    if rule is not None:
        return rule(args, situation)
    if name in VALKEY_COMMANDS[_known(situation.target)]:
        return PASS
    return _unknown(args, situation)


def verbatim(source_version: tuple[int, ...], target: TargetFormat, *, valkey: bool = False, lossy: bool = False) -> frozenset[bytes]:
    """Names that pass without a look, for this pair of versions. ``valkey``: the source is a Valkey, and ``source_version`` its own. ``lossy``: fields
    with TTLs are left behind (drop-field)."""
    looked_at = set(_ALWAYS)
    if valkey:
        if source_version >= (8, 1) > target.version:  # SET … IFEQ
            looked_at.add(b"SET")
    else:
        looked_at |= {name for name, since in _SINCE_REDIS.items() if source_version >= since}
    if lossy and not target.field_ttl and source_version >= (7, 4):
        looked_at |= _FIELD_SENSITIVE
    return VALKEY_COMMANDS[_known(target)] - looked_at


def plain(source_version: tuple[int, ...], target: TargetFormat, *, valkey: bool = False) -> Mapping[bytes, int]:
    """Names that need a look, but not with so many words: a SET without options is what most streams are made of."""
    return {} if b"SET" in verbatim(source_version, target, valkey=valkey) else {b"SET": 3}


def _known(target: TargetFormat) -> tuple[int, int]:
    """The newest command table that is not newer than the target."""
    return max(version for version in VALKEY_COMMANDS if version <= target.version[:2])


# -- rules -----------------------------------------------------------------------------------------------------------------------


def _unknown(args: list[bytes], situation: Situation) -> Outcome:
    name = args[0].upper()
    keys = keys_of(args, situation.database)
    if keys is not None and keys.written:
        return Recopy(keys.written)
    return Hold(
        f"{name.decode('ascii', 'replace')} is not known to Valkey {situation.target.display}, and the keys it writes are not known to Valkeep",
        "move to a Valkey version or with a module that has this command, or stop using it on the source and start again with a full sync",
    )


def _recopy(args: list[bytes], situation: Situation) -> Outcome:
    keys = keys_of(args, situation.database)
    if keys is None or not keys.written:
        return _unknown(args, situation)
    return Recopy(keys.written)


def _database(number: bytes, situation: Situation) -> Hold | None:
    if not number.isdigit() or (number[:1] == b"0" and number != b"0"):  # int() takes more than a server does: "-1", " 1", "1_0"
        raise ValueError(f"{number[:20]!r} is no database")
    if int(number) < situation.target.databases:
        return None
    return Hold(
        f"the source writes to database {int(number)}; the target has {situation.target.databases} (0 … {situation.target.databases - 1})",
        "set `databases` on the target to at least the source's number and start it again, then start the migration again",
    )


def _select(args: list[bytes], situation: Situation) -> Outcome:
    return _database(args[1], situation) or PASS


def _swapdb(args: list[bytes], situation: Situation) -> Outcome:
    return _database(args[1], situation) or _database(args[2], situation) or PASS


def _move(args: list[bytes], situation: Situation) -> Outcome:
    held = _database(args[2], situation)
    return held or _renamed(args[1], int(args[2]), args[1], args, situation)


def _copy(args: list[bytes], situation: Situation) -> Outcome:
    to = situation.database
    options = [arg.upper() for arg in args[3:]]
    if b"DB" in options:
        number = args[3 + options.index(b"DB") + 1]
        held = _database(number, situation)
        if held:
            return held
        to = int(number)
    return _renamed(args[1], to, args[2], args, situation)


def _rename(args: list[bytes], situation: Situation) -> Outcome:
    return _renamed(args[1], situation.database, args[2], args, situation)


def _renamed(key: bytes, to_database: int, to_key: bytes, args: list[bytes], situation: Situation) -> Outcome:
    """A key that lost fields may be missing on the target, where RENAME would be an error: both names are copied."""
    if (situation.database, key) in situation.lost_fields:
        situation.lost_fields.add(to_database, to_key)
        return _recopy(args, situation)
    return PASS


def _replconf(args: list[bytes], situation: Situation) -> Outcome:
    """GETACK asks us, not the target; the gateway asks its targets in its own offset space."""
    del args, situation
    return Drop()


def _set(args: list[bytes], situation: Situation) -> Outcome:
    """SET k v [IFEQ|IFNE|IFDEQ|IFDNE x] [PXAT ms|KEEPTTL|…]: the condition held on the source."""
    del situation
    plain = [b"SET", args[1], args[2]]
    position, changed = 3, False
    while position < len(args):
        option = args[position].upper()
        if option in {b"IFEQ", b"IFNE", b"IFDEQ", b"IFDNE"}:
            position, changed = position + 2, True
        elif option in {b"EX", b"PX", b"EXAT", b"PXAT"}:
            plain += [option, args[position + 1]]
            position += 2
        elif option in {b"NX", b"XX", b"GET", b"KEEPTTL"}:
            plain.append(option)
            position += 1
        else:
            raise ValueError(f"SET … {option.decode('ascii', 'replace')}")
    return Replace((tuple(plain),)) if changed else PASS


def _xadd(args: list[bytes], situation: Situation) -> Outcome:
    """XADD k [NOMKSTREAM] [KEEPREF|DELREF|ACKED] [MAXLEN|MINID [=|~] n [LIMIT n]] id f v …: reference options of Redis 8.2."""
    plain, position = [b"XADD", args[1]], 2
    while position < len(args):
        option = args[position].upper()
        if option == b"NOMKSTREAM":
            plain.append(option)
            position += 1
        elif option == b"KEEPREF":  # what a stream always did
            position += 1
        elif option in {b"DELREF", b"ACKED", b"IDMP", b"IDMPAUTO"}:
            return _recopy(args, situation)
        elif option in {b"MAXLEN", b"MINID"}:
            width = 3 if args[position + 1] in {b"=", b"~"} else 2
            plain += args[position : position + width]
            position += width
            if position < len(args) and args[position].upper() == b"LIMIT":
                plain += args[position : position + 2]
                position += 2
        else:
            break
    plain += args[position:]
    return PASS if len(plain) == len(args) else Replace((tuple(plain),))


def _xtrim(args: list[bytes], situation: Situation) -> Outcome:
    options = {arg.upper() for arg in args[2:]}
    if options & {b"DELREF", b"ACKED"}:
        return _recopy(args, situation)
    if b"KEEPREF" in options:
        return Replace((tuple(arg for arg in args if arg.upper() != b"KEEPREF" or arg is args[1]),))
    return PASS


def _bitop(args: list[bytes], situation: Situation) -> Outcome:
    return PASS if args[1].upper() in {b"AND", b"OR", b"XOR", b"NOT"} else _recopy(args, situation)


def _delete(args: list[bytes], situation: Situation) -> Outcome:
    """DELEX, DELIFEQ: replicated when the key was deleted."""
    del situation
    return Replace(((b"DEL", args[1]),))


def _restore(args: list[bytes], situation: Situation) -> Outcome:
    """RESTORE k ttl payload …: the payload's footer names the source's RDB version, which the target would refuse."""
    result = convert.reencode_payload(
        args[3], situation.target.dialect, situation.target.rdb_version, convert_mode(situation.target, situation.policy)
    )
    key = args[1]
    note = _field_note(situation, result.fields_with_ttl) if not situation.target.field_ttl and result.fields_with_ttl else None
    if result.fields_with_ttl and not situation.target.field_ttl and situation.policy is FieldTtl.REFUSE:
        return _refuse_field_ttl(args, situation)
    if result.fields_dropped:
        situation.lost_fields.add(situation.database, key)
    if result.empty:
        return Replace(((b"DEL", key),), note, key)
    return Replace(((*args[:3], result.payload, *args[4:]),), note, key)


def _function(args: list[bytes], situation: Situation) -> Outcome:
    if args[1].upper() != b"RESTORE":
        return PASS
    # A dump of functions is opcodes and code, the same in every version; only the footer (version, CRC64) differs.
    body, _ = opened(args[2])
    return Replace(((args[0], args[1], sealed(body, situation.target.rdb_version), *args[3:]),))


def _field_note(situation: Situation, count: int) -> LedgerNote:
    return LedgerNote("degraded", "field-ttl", WHY_FIELD_TTL[situation.policy], count)


def _refuse_field_ttl(args: list[bytes], situation: Situation) -> Hold:
    name = args[0].upper().decode("ascii", "replace")
    return Hold(
        f"{name} gives a hash field a TTL; Valkey {situation.target.display} has none, and --field-ttl is refuse",
        "choose --field-ttl keep-field or drop-field, or a target of Valkey 9.0 or later, and start again",
    )


def _fields(args: list[bytes]) -> list[bytes]:
    """The field names of ``… FIELDS n f f …``."""
    at = next((i for i, arg in enumerate(args) if i >= 2 and arg.upper() == b"FIELDS"), len(args))
    count = int(args[at + 1])
    fields = args[at + 2 : at + 2 + count]
    if not fields or len(fields) != count:
        raise ValueError("FIELDS count")
    return fields


def _hpexpireat(args: list[bytes], situation: Situation) -> Outcome:
    fields, key = _fields(args), args[1]
    match situation.policy:
        case FieldTtl.KEEP_FIELD:
            return Drop(_field_note(situation, len(fields)), key)
        case FieldTtl.DROP_FIELD:
            situation.lost_fields.add(situation.database, key)
            return Replace(((b"HDEL", key, *fields),), _field_note(situation, len(fields)), key)
        case FieldTtl.REFUSE:
            return _refuse_field_ttl(args, situation)


def _hpersist(args: list[bytes], situation: Situation) -> Outcome:
    if situation.policy is FieldTtl.DROP_FIELD and (situation.database, args[1]) in situation.lost_fields:
        return _recopy(args, situation)
    return Drop()


def _hsetex(args: list[bytes], situation: Situation) -> Outcome:
    """HSETEX k [FNX|FXX] [EX|PX|EXAT|PXAT t|KEEPTTL] FIELDS n f v …"""
    key, position, expires = args[1], 2, False
    while (option := args[position].upper()) != b"FIELDS":
        if option in {b"EX", b"PX", b"EXAT", b"PXAT"}:
            expires = True
            position += 2
        elif option in {b"FNX", b"FXX", b"NX", b"XX", b"KEEPTTL"}:
            position += 1
        else:
            raise ValueError(f"HSETEX … {option.decode('ascii', 'replace')}")
    pairs = args[position + 2 :]
    if not pairs or len(pairs) != 2 * int(args[position + 1]):
        raise ValueError("HSETEX FIELDS count")
    store = (b"HSET", key, *pairs)
    if not expires:
        if situation.policy is FieldTtl.DROP_FIELD and (situation.database, key) in situation.lost_fields:
            return _recopy(args, situation)
        return Replace((store,))
    match situation.policy:
        case FieldTtl.KEEP_FIELD:
            return Replace((store,), _field_note(situation, len(pairs) // 2), key)
        case FieldTtl.DROP_FIELD:
            situation.lost_fields.add(situation.database, key)
            return Replace(((b"HDEL", key, *pairs[::2]),), _field_note(situation, len(pairs) // 2), key)
        case FieldTtl.REFUSE:
            return _refuse_field_ttl(args, situation)


def _counts_on_a_field(args: list[bytes], situation: Situation) -> Outcome:
    """HINCRBY counts from what the field holds, and HSET may bring a key back that has lost all of its fields: copied when some were left behind."""
    if situation.policy is FieldTtl.DROP_FIELD and (situation.database, args[1]) in situation.lost_fields:
        return _recopy(args, situation)
    return PASS


def _sort(args: list[bytes], situation: Situation) -> Outcome:
    """SORT … BY/GET pattern->field STORE d may read fields that were left behind."""
    options = [arg.upper() for arg in args[2:]]
    if situation.policy is FieldTtl.DROP_FIELD and b"STORE" in options and any(b"->" in arg for arg in args[2:]):
        return _recopy(args, situation)
    return PASS


def _ttl_rule(rule: Rule) -> Rule:
    """A rule for commands on field TTLs: they pass where the target has field TTLs and knows the command."""

    def decide(args: list[bytes], situation: Situation) -> Outcome:
        if situation.target.field_ttl:
            known = args[0].upper() in VALKEY_COMMANDS[_known(situation.target)]
            return PASS if known else _unknown(args, situation)
        return rule(args, situation)

    return decide


def _lossy_rule(rule: Rule) -> Rule:
    """A rule that only matters where fields can have been left behind."""

    def decide(args: list[bytes], situation: Situation) -> Outcome:
        return PASS if situation.target.field_ttl else rule(args, situation)

    return decide


_RULES: Mapping[bytes, Rule] = {
    # database numbers, which the target may not have
    b"SELECT": _select,
    b"SWAPDB": _swapdb,
    b"MOVE": _move,
    b"COPY": _copy,
    b"RENAME": _rename,
    b"RENAMENX": _rename,
    # between the servers, not for the target
    b"REPLCONF": _replconf,
    # payloads with the source's RDB version in them
    b"RESTORE": _restore,
    b"RESTORE-ASKING": _restore,
    b"FUNCTION": _function,
    # new options of old commands
    b"SET": _set,
    b"XADD": _xadd,
    b"XTRIM": _xtrim,
    b"BITOP": _bitop,
    # conditional deletes
    b"DELEX": _delete,
    b"DELIFEQ": _delete,
    # field TTLs
    b"HPEXPIREAT": _ttl_rule(_hpexpireat),
    b"HEXPIREAT": _ttl_rule(_hpexpireat),
    b"HPEXPIRE": _ttl_rule(_hpexpireat),
    b"HEXPIRE": _ttl_rule(_hpexpireat),
    b"HPERSIST": _ttl_rule(_hpersist),
    b"HSETEX": _ttl_rule(_hsetex),
    b"HINCRBY": _lossy_rule(_counts_on_a_field),
    b"HINCRBYFLOAT": _lossy_rule(_counts_on_a_field),
    b"HSETNX": _lossy_rule(_counts_on_a_field),
    b"HSET": _lossy_rule(_counts_on_a_field),  # a hash that lost its last field is gone, and its key's TTL with it
    b"HMSET": _lossy_rule(_counts_on_a_field),
    b"SORT": _lossy_rule(_sort),
    # effects on state that a stream cannot express there
    b"XDELEX": _recopy,
    b"XACKDEL": _recopy,
}

_ALWAYS = frozenset({b"PING", b"SELECT", b"SWAPDB", b"MOVE", b"COPY", b"REPLCONF", b"RESTORE", b"RESTORE-ASKING", b"FUNCTION", b"DELIFEQ"})

_SINCE_REDIS: Mapping[bytes, tuple[int, int]] = {
    # from which Redis version on a name that Valkey knows can have options that it does not
    **dict.fromkeys((b"XADD", b"XTRIM", b"BITOP", b"XDELEX", b"XACKDEL"), (8, 2)),
    b"SET": (8, 4),
}

_FIELD_SENSITIVE = frozenset({b"HSET", b"HMSET", b"HINCRBY", b"HINCRBYFLOAT", b"HSETNX", b"SORT", b"RENAME", b"RENAMENX"})
