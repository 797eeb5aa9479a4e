"""Rules for what depends on the TTLs of hash fields. Valkey has them from 9.0 on; for an older target a policy says what becomes of them.

Under ``drop-field`` the target's hash is not the source's: a field with a TTL is not there, and a hash of such fields only is no key at all. So every
command whose effect depends on such a field (a count, a rename, a store that brings the key back) asks ``lost_fields``, and copies the key again where
something may have been left behind.
"""

from __future__ import annotations

from valkeep.migrate.transform.notes import LedgerNote, field_ttls_lost
from valkeep.migrate.transform.outcomes import PASS, Drop, Hold, Outcome, Replace, Rule, Situation
from valkeep.migrate.transform.target import FieldTtl
from valkeep.migrate.transform.unsayable import known, recopy

__all__ = [
    "depends_on_fields",
    "hgetdel",
    "hpersist",
    "hpexpireat",
    "hsetex",
    "lost_here",
    "lossy_rule",
    "note",
    "refused",
    "sort",
    "ttl_rule",
]


def ttl_rule(rule: Rule) -> Rule:
    """A rule for commands on field TTLs: they pass where the target has field TTLs and knows the command."""

    def decide(args: list[bytes], situation: Situation) -> Outcome:
        if situation.target.field_ttl:
            return recopy(args, situation) if _valkeys_own(args, situation) else PASS
        return rule(args, situation)

    return decide


def _valkeys_own(args: list[bytes], situation: Situation) -> bool:
    """HSETEX … NX|XX is Valkey's; a Redis has FNX and FXX only."""
    return not situation.target.valkey and args[0].upper() == b"HSETEX" and not {b"NX", b"XX"}.isdisjoint(arg.upper() for arg in args[2:4])


def lossy_rule(rule: Rule) -> Rule:
    """A rule that only matters where fields can have been left behind."""

    def decide(args: list[bytes], situation: Situation) -> Outcome:
        return rule(args, situation) if situation.policy is FieldTtl.DROP_FIELD and not situation.target.field_ttl else PASS

    return decide


def lost_here(situation: Situation, key: bytes) -> bool:
    """Whether fields of this key may have been left behind."""
    return (situation.database, key) in situation.lost_fields


def note(situation: Situation, key: bytes, count: int) -> LedgerNote:
    return field_ttls_lost(situation.policy, key, situation.database, situation.offset, count)


def refused(args: list[bytes], situation: Situation) -> Hold:
    name = args[0].upper().decode("ascii", "replace")
    return Hold(
        f"{name} gives a hash field a TTL; {situation.target.name} has none, and --field-ttl is refuse",
        "choose --field-ttl keep-field or drop-field, or a target of Valkey 9.0 or later, and start again",
    )


# -- rules -----------------------------------------------------------------------------------------------------------------------


def _fields(args: list[bytes]) -> list[bytes]:
    """The field names of ``… FIELDS n f f …``."""
    at = next((i for i, arg in enumerate(args) if i >= 2 and arg.upper() == b"FIELDS"), len(args))
    count = int(args[at + 1])
    fields = args[at + 2 : at + 2 + count]
    if not fields or len(fields) != count:
        raise ValueError("FIELDS count")
    return fields


def hpexpireat(args: list[bytes], situation: Situation) -> Outcome:
    """HPEXPIREAT k ms [NX|XX|GT|LT] FIELDS n f …"""
    fields, key = _fields(args), args[1]
    match situation.policy:
        case FieldTtl.KEEP_FIELD:
            return Drop(note(situation, key, len(fields)))
        case FieldTtl.DROP_FIELD if args[3].upper() != b"FIELDS":
            # A Valkey replicates all fields that were named, also those that the condition spared: which lost theirs, only the source knows.
            return recopy(args, situation)
        case FieldTtl.DROP_FIELD:
            situation.lost_fields.add(situation.database, key)
            return Replace(((b"HDEL", key, *fields),), note(situation, key, len(fields)))
        case FieldTtl.REFUSE:
            return refused(args, situation)


def hgetdel(args: list[bytes], situation: Situation) -> Outcome:
    """HGETDEL k FIELDS n f …, which a Valkey 9.1 replicates as it is"""
    return PASS if b"HGETDEL" in known(situation.target) else Replace(((b"HDEL", args[1], *_fields(args)),))


def hpersist(args: list[bytes], situation: Situation) -> Outcome:
    if situation.policy is FieldTtl.DROP_FIELD and lost_here(situation, args[1]):
        return recopy(args, situation)
    return Drop()


def hsetex(args: list[bytes], situation: Situation) -> Outcome:
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
        if situation.policy is FieldTtl.DROP_FIELD and lost_here(situation, key):
            return recopy(args, situation)
        return Replace((store,))
    match situation.policy:
        case FieldTtl.KEEP_FIELD:
            return Replace((store,), note(situation, key, len(pairs) // 2))
        case FieldTtl.DROP_FIELD:
            situation.lost_fields.add(situation.database, key)
            return Replace(((b"HDEL", key, *pairs[::2]),), note(situation, key, len(pairs) // 2))
        case FieldTtl.REFUSE:
            return refused(args, situation)


def depends_on_fields(args: list[bytes], situation: Situation) -> Outcome:
    """HINCRBY counts from what the field holds, and HSET may bring a key back that has lost all of its fields, without the key's own TTL."""
    return recopy(args, situation) if lost_here(situation, args[1]) else PASS


def sort(args: list[bytes], situation: Situation) -> Outcome:
    """SORT … BY/GET pattern->field STORE d may read fields that were left behind."""
    if any(arg.upper() == b"STORE" for arg in args[2:]) and any(b"->" in arg for arg in args[2:]):
        return recopy(args, situation)
    return PASS
