"""What each replicated command needs on its way to a Valkey target: the table behind the stream translation.

``verbatim`` gives the names that may pass as bytes; every other name is looked up in ``_RULES`` by ``translate``. A name that neither
knows is copied (when it is known which keys it writes) or holds the stream. Which names are looked at depends on both versions: SET
needs a look only where the source can replicate ``SET … IFEQ``, so that a Redis 7 or 8.0 source streams its SETs at full speed.

A command is replicated only when it changed something. That is why a condition (IFEQ, FNX) can be taken off: it held on the source, and
the target is at the same state.

Facts and where they were seen: docs/explanation/replication.md ("The command stream after the snapshot").
"""

from __future__ import annotations

from collections.abc import Mapping

from valkeep.migrate.transform import crossing, field_ttls
from valkeep.migrate.transform.field_ttls import lossy_rule, ttl_rule
from valkeep.migrate.transform.outcomes import PASS, Drop, Hold, Outcome, Pass, Replace, Rule, Situation
from valkeep.migrate.transform.target import FieldTtl, TargetFormat, convert_mode
from valkeep.migrate.transform.unsayable import known, recopy
from valkeep.wire.rdb import convert
from valkeep.wire.rdb.dump import opened, sealed

__all__ = ["plain", "translate", "verbatim"]


def translate(name: bytes, args: list[bytes], situation: Situation) -> Outcome:
    """What to send for this command. ``name``: ``args[0]`` in upper case. Raises IndexError or ValueError on arguments that make no sense."""
    rule = _RULES.get(name)
    outcome = rule(args, situation) if rule is not None else PASS
    if isinstance(outcome, Pass) and name not in known(situation.target):
        return recopy(args, situation)
    return crossing.crossed(outcome, args, situation) if situation.target.cluster else outcome


def verbatim(source_version: tuple[int, ...], target: TargetFormat, *, valkey: bool = False, lossy: bool = False) -> frozenset[bytes]:
    """Names that pass without a look, for this pair of versions. ``valkey``: the source is a Valkey, and ``source_version`` its own. ``lossy``: fields
    with TTLs are left behind (drop-field)."""
    looked_at = set(_ALWAYS)
    if valkey:
        if source_version >= (8, 1) and not (target.valkey and target.version >= (8, 1)):  # SET … IFEQ
            looked_at.add(b"SET")
        if not target.valkey or target.version < (9, 0):
            looked_at |= _VALKEY_9
    else:
        looked_at |= {name for name, since in _SINCE_REDIS.items() if source_version >= since}
    if lossy and not target.field_ttl and source_version >= (7, 4):
        looked_at |= _FIELD_SENSITIVE
    passing = known(target) - looked_at
    return passing & crossing.SINGLE if target.cluster else passing


def plain(source_version: tuple[int, ...], target: TargetFormat, *, valkey: bool = False, lossy: bool = False) -> Mapping[bytes, int]:
    """Names that need a look, but not with so many words: a SET without options is what most streams are made of."""
    few = {} if b"SET" in verbatim(source_version, target, valkey=valkey) else {b"SET": 3}
    if target.cluster:
        few |= {name: words for name, words in crossing.PLAIN.items() if not (lossy and name in _FIELD_SENSITIVE)}
    return few


# -- rules -----------------------------------------------------------------------------------------------------------------------


def _database(number: bytes, situation: Situation) -> Hold | None:
    if not number.isdigit() or (number[:1] == b"0" and number != b"0"):  # int() takes more than a server does: "-1", " 1", "1_0"
        raise ValueError(f"{number[:20]!r} is no database")
    if int(number) < situation.target.databases:
        return None
    if situation.target.cluster:
        why, remedy = crossing.NO_DATABASE
        return Hold(f"the source writes to database {int(number)}; {why}", remedy)
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
    if field_ttls.lost_here(situation, key):
        situation.lost_fields.add(to_database, to_key)
        return recopy(args, situation)
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
            return recopy(args, situation)
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
        return recopy(args, situation)
    if b"KEEPREF" in options:
        return Replace((tuple(arg for arg in args if arg.upper() != b"KEEPREF" or arg is args[1]),))
    return PASS


def _bitop(args: list[bytes], situation: Situation) -> Outcome:
    return PASS if args[1].upper() in {b"AND", b"OR", b"XOR", b"NOT"} else recopy(args, situation)


def _geo(args: list[bytes], situation: Situation) -> Outcome:
    """GEOSEARCHSTORE … BYPOLYGON is Valkey's (9.0)."""
    new = situation.target.valkey and situation.target.version >= (9, 0)
    polygon = not new and any(arg.upper() == b"BYPOLYGON" for arg in args[3:])
    return recopy(args, situation) if polygon else PASS


def _delete(args: list[bytes], situation: Situation) -> Outcome:
    """DELEX, DELIFEQ: replicated when the key was deleted."""
    del situation
    return Replace(((b"DEL", args[1]),))


def _restore(args: list[bytes], situation: Situation) -> Outcome:
    """RESTORE k ttl payload …: the payload's footer names the source's RDB version, which the target would refuse."""
    target, policy, key = situation.target, situation.policy, args[1]
    result = convert.reencode_payload(args[3], target.dialect, target.rdb_version, convert_mode(target, policy))
    note = None
    if result.fields_with_ttl and not target.field_ttl:
        if policy is FieldTtl.REFUSE:
            return field_ttls.refused(args, situation)
        note = field_ttls.note(situation, key, result.fields_with_ttl)
    if result.fields_dropped:
        situation.lost_fields.add(situation.database, key)
    if result.empty:
        return Replace(((b"DEL", key),), note)
    return Replace(((*args[:3], result.payload, *args[4:]),), note)


def _restore_asking(args: list[bytes], situation: Situation) -> Outcome:
    """RESTORE-ASKING k ttl payload [REPLACE] [ABSTTL] …: the shard of a cluster that takes a slot is given its keys so, where a client says RESTORE. Without
    REPLACE the key was not there: then it is right on the target, too."""
    outcome = _restore(args, situation)
    if not isinstance(outcome, Replace) or outcome.instead[0][0] == b"DEL":
        return outcome
    ((_, *words),) = outcome.instead
    replace = () if any(word.upper() == b"REPLACE" for word in words[3:]) else (b"REPLACE",)
    return Replace(((b"RESTORE", *words, *replace),), outcome.note)


def _function(args: list[bytes], situation: Situation) -> Outcome:
    if args[1].upper() != b"RESTORE":
        return PASS
    # A dump of functions is opcodes and code, the same in every version; only the footer (version, CRC64) differs.
    body, _ = opened(args[2])
    return Replace(((args[0], args[1], sealed(body, situation.target.rdb_version), *args[3:]),))


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
    b"RESTORE-ASKING": _restore_asking,
    b"FUNCTION": _function,
    # new options of old commands
    b"SET": _set,
    b"XADD": _xadd,
    b"XTRIM": _xtrim,
    b"BITOP": _bitop,
    b"GEOSEARCHSTORE": _geo,
    # conditional deletes
    b"DELEX": _delete,
    b"DELIFEQ": _delete,
    # field TTLs
    b"HPEXPIREAT": ttl_rule(field_ttls.hpexpireat),
    b"HEXPIREAT": ttl_rule(field_ttls.hpexpireat),
    b"HPEXPIRE": ttl_rule(field_ttls.hpexpireat),
    b"HEXPIRE": ttl_rule(field_ttls.hpexpireat),
    b"HGETDEL": field_ttls.hgetdel,
    b"HPERSIST": ttl_rule(field_ttls.hpersist),
    b"HSETEX": ttl_rule(field_ttls.hsetex),
    b"HINCRBY": lossy_rule(field_ttls.depends_on_fields),
    b"HINCRBYFLOAT": lossy_rule(field_ttls.depends_on_fields),
    b"HSETNX": lossy_rule(field_ttls.depends_on_fields),
    b"HSET": lossy_rule(field_ttls.depends_on_fields),  # a hash that lost its last field is gone, and its key's TTL with it
    b"HMSET": lossy_rule(field_ttls.depends_on_fields),
    b"SORT": lossy_rule(field_ttls.sort),
    # effects on state that a stream cannot express there
    b"XDELEX": recopy,
    b"XACKDEL": recopy,
}

_ALWAYS = frozenset({b"PING", b"SELECT", b"SWAPDB", b"MOVE", b"COPY", b"REPLCONF", b"RESTORE", b"RESTORE-ASKING", b"FUNCTION", b"DELIFEQ"})

_SINCE_REDIS: Mapping[bytes, tuple[int, int]] = {
    # from which Redis version on a name that Valkey knows can have options that it does not
    **dict.fromkeys((b"XADD", b"XTRIM", b"BITOP", b"XDELEX", b"XACKDEL"), (8, 2)),
    b"SET": (8, 4),
}

_VALKEY_9 = frozenset({b"GEOSEARCHSTORE", b"HSETEX"})
"""Names that others may know, with options of Valkey 9 that they do not."""

_FIELD_SENSITIVE = frozenset({b"HSET", b"HMSET", b"HINCRBY", b"HINCRBYFLOAT", b"HSETNX", b"SORT", b"RENAME", b"RENAMENX"})
