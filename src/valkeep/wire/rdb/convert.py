"""Hashes whose fields expire, from the form that one server writes into a form that the other can load.

Redis 7.4 and Valkey 9.0 invented field expiry separately, and neither loads what the other writes; Valkey 7.2 to 8.1 has no such thing at all, and
*exits* when a snapshot contains it. The forms::

    24 REDIS    <8 LE least expiry> n (ttl field value)*        ttl 0: none, else expiry = least + ttl - 1
    25 REDIS    <8 LE least expiry> listpack of field, value, expiry; expiry 0: none
    22 REDIS    n (expiry field value)*                         7.4 release candidates; expiry 0: none
    23 REDIS    listpack of field, value, expiry                7.4 release candidates
    22 VALKEY   n (field value <8 LE expiry>)*                  HASH_2; expiry -1: none
     4 both     n (field value)*
    16 both     listpack of field, value

Modes: TO_HASH_2 keeps everything. KEEP_FIELD and DROP_FIELD are the policies for targets without field expiry: the field stays for ever, or it
is left out. TO_REDIS_EX is the way back, Valkey to Redis.

Two paths, because of what they cost. Nearly all such hashes are small and come whole: :class:`RecordConverter` converts a record in one
compiled call, and :meth:`RecordConverter.translate` a whole chunk of a snapshot. A hash of ten million fields does not come whole:
:class:`HashConverter` converts a value that comes in pieces, with memory for one piece. Both give the same bytes, but for what only knowing the
whole allows (see ``DROP_FIELD`` below).

Strings are copied as they stand (also compressed). Only a listpack has to be whole: it is one string, mostly compressed, of 64 MB at most here;
servers build them up to ``hash-max-listpack-entries`` (512) × ``-value`` (64 bytes) unless told otherwise. Under KEEP_FIELD a listpack stays
a listpack (16), without every third entry: the target loads it with one copy, where a plain hash (4) is built field by field.

Under DROP_FIELD the number of fields stands first and is known last. In pieces, the caller spools the body and writes the number itself.

Fields whose expiry has passed are converted like all others: the source still has them and will say HDEL when it removes them.

Sources: rdb.c and t_hash.c of Redis 7.4 and 8.0 (rdbLoadObject), rdb.c of Valkey 9.0.
"""

from __future__ import annotations

from dataclasses import dataclass

from valkeep.errors import Refused, RemoteProtocolError

from .dump import opened, sealed
from .hash_forms import DROP_FIELD, KEEP_FIELD, TO_HASH_2, TO_REDIS_EX
from .hash_pieces import HashConverter
from .hash_whole import Change, RecordConverter
from .opcodes import DIALECT_REDIS, DIALECT_VALKEY, OP_KEY_META, TYPE_MODULE_2, TYPE_MODULE_PRE_GA, name_of
from .scan import Scanner

__all__ = [
    "DROP_FIELD",
    "KEEP_FIELD",
    "TO_HASH_2",
    "TO_REDIS_EX",
    "Change",
    "HashConverter",
    "RecordConverter",
    "Reencoded",
    "reencode_payload",
]


@dataclass(frozen=True, slots=True)
class Reencoded:
    """A payload for RESTORE. ``empty``: nothing is left of it (DROP_FIELD); the payload is b"" then, and the key must not be there."""

    payload: bytes
    fields_with_ttl: int = 0
    fields_dropped: int = 0
    empty: bool = False


_HEAD_BYTES = 1 << 16
_OLDEST_FOR = {14: 7, 7: 8, 5: 8, 15: 9, 16: 10, 17: 10, 18: 10, 19: 10, 20: 11, 21: 11}  # type -> first RDB version that has it


def reencode_payload(payload: bytes, target_dialect: int, target_version: int, mode: int) -> Reencoded:
    """What DUMP gave or RESTORE was given (see dump.py), for a target of that dialect and RDB version.

    ``mode`` decides about field expiry where the target has none (KEEP_FIELD, DROP_FIELD); a target that has it gets all, whatever the mode.
    Raises RemoteProtocolError for a payload that is damaged, Refused for what the target can't take.
    """
    body, header = opened(payload)
    if len(body) < 2:
        raise RemoteProtocolError("a DUMP payload holds no value", remedy="take it again, and check the way it came")
    dialect, version, kind = header.dialect, header.version, body[0]
    if kind in (TYPE_MODULE_2, TYPE_MODULE_PRE_GA):
        raise Refused("a DUMP payload holds a module's value", remedy="replace it by a core type, or leave the key out")
    if kind == OP_KEY_META:
        raise Refused("a DUMP payload holds key metadata of a module", remedy="leave the key out, or restore it from its commands")
    field_ttl = kind == 22 or (22 <= kind <= 25 and dialect == DIALECT_REDIS)
    if not field_ttl and (kind > 21 or _OLDEST_FOR.get(kind, 1) > target_version):
        raise Refused(
            f"a DUMP payload of {name_of(dialect, kind)} (RDB {version}) can't be loaded by a target of RDB {target_version}",
            remedy="leave the key out, or write it with the target's own commands",
        )
    _check_one_value(body, dialect, version)
    if not field_ttl:
        return Reencoded(sealed(body, target_version))
    with_field_ttl = target_dialect == DIALECT_VALKEY or target_version >= 12
    if with_field_ttl and dialect == target_dialect:
        return Reencoded(sealed(body, target_version))
    if with_field_ttl:
        mode = TO_HASH_2 if target_dialect == DIALECT_VALKEY else TO_REDIS_EX
    converter = RecordConverter(dialect, mode)
    out = bytearray()
    data = b"".join((body[:1], b"\0", body[1:]))  # as a record with an empty key
    converter.convert(data, 0, len(data), out)
    if converter.empty:
        return Reencoded(b"", converter.fields_with_ttl, converter.fields_dropped, True)
    del out[1]  # the empty key
    return Reencoded(sealed(out, target_version), converter.fields_with_ttl, converter.fields_dropped)


def _check_one_value(body: memoryview, dialect: int, version: int) -> None:
    """The body holds one whole value. It is walked over as a record with an empty key, in place: values can be large."""
    step = Scanner(bytes(256), dialect, version, True)
    step.where = "DUMP payload, byte"
    step.offset = -1
    head = b"".join((body[:1], b"\0", body[1:_HEAD_BYTES]))
    at = max(step.scan(head, 0, len(head)) - 1, 0)  # in the body, which has no key
    if len(body) > _HEAD_BYTES:
        at = step.scan(body, at, len(body))
    if at != len(body) or step.inside or step.keys != 1:
        raise RemoteProtocolError("a DUMP payload does not hold exactly one value", remedy="take it again, and check the way it came")
