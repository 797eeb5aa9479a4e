"""What exactly is different about a key, in half a line: for the examples of a report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from valkeep.errors import ValkeepError
from valkeep.migrate.keyread import Seen
from valkeep.migrate.verify.mode import Mode
from valkeep.wire.rdb.opcodes import KIND_HASH, KIND_LIST, KIND_NAMES, KIND_SET, KIND_STREAM, KIND_STRING, KIND_ZSET
from valkeep.wire.rdb.record import Field, Group, Record, Stream, payload_record

__all__ = ["LARGE", "explain"]

LARGE = 4 << 20  # bytes of a value that is not taken apart for a detail


def explain(source: Seen | None, target: Seen | None, mode: Mode) -> str:
    """Compare two sightings by their logical values. "" when they agree (by now)."""
    if source is None or target is None:
        return "" if source is target else "only on the source" if target is None else "only on the target"
    if max(len(source.payload), len(target.payload)) > LARGE:
        return f"{len(source.payload)} bytes on the source, {len(target.payload)} on the target"
    try:
        one, other = payload_record(source.payload), payload_record(target.payload)
    except ValkeepError as error:
        return error.message
    detail = _values(one, other, mode)
    if source.expire_ms != target.expire_ms:
        ttl = f"expires at {_when(source.expire_ms)} on the source, at {_when(target.expire_ms)} on the target"
        detail = f"{detail}; {ttl}" if detail else ttl
    return detail


def _when(expire_ms: int) -> str:
    return "never" if expire_ms < 0 else f"{expire_ms} ms"


def _values(one: Record, other: Record, mode: Mode) -> str:
    if one.kind != other.kind:
        return f"a {KIND_NAMES[one.kind]} on the source, a {KIND_NAMES[other.kind]} on the target"
    return _BY_KIND.get(one.kind, _opaque)(one.value, other.value, mode)


def _short(value: bytes) -> str:
    text = value.decode("utf-8", "backslashreplace")
    return repr(text if len(text) <= 40 else text[:37] + "…")


def _opaque(one: Any, other: Any, _mode: Mode) -> str:
    return "" if one == other else "the value differs"


def _string(one: bytes, other: bytes, _mode: Mode) -> str:
    if one == other:
        return ""
    at = next((place for place, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), min(len(one), len(other)))
    return f"{len(one)} bytes and {len(other)}, first difference at byte {at}"


def _list(one: list[bytes], other: list[bytes], _mode: Mode) -> str:
    if one == other:
        return ""
    if len(one) != len(other):
        return f"{len(one)} items on the source, {len(other)} on the target"
    at = next(place for place, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1])
    return f"item {at} is {_short(one[at])} on the source, {_short(other[at])} on the target"


def _set(one: set[bytes], other: set[bytes], _mode: Mode) -> str:
    missing, extra = one - other, other - one
    if not missing and not extra:
        return ""
    example = f", for example {_short(min(missing or extra))}"
    return f"{len(missing)} members missing, {len(extra)} extra{example}"


def _zset(one: dict[bytes, float], other: dict[bytes, float], _mode: Mode) -> str:
    if one.keys() != other.keys():
        return _set(set(one), set(other), _mode)
    for member, score in one.items():
        if score != other[member]:
            return f"the score of {_short(member)} is {score!r} on the source, {other[member]!r} on the target"
    return ""


def _hash(one: dict[bytes, Field], other: dict[bytes, Field], mode: Mode) -> str:
    if mode is Mode.DROP_FIELD:
        one = {name: field for name, field in one.items() if field.expire_ms < 0}
    elif mode is Mode.KEEP_FIELD:
        one = {name: Field(field.value) for name, field in one.items()}
    if one.keys() != other.keys():
        missing, extra = one.keys() - other.keys(), other.keys() - one.keys()
        return f"{len(missing)} fields missing, {len(extra)} extra, for example {_short(min(missing or extra))}"
    for name, field in one.items():
        there = other[name]
        if field.value != there.value:
            return f"field {_short(name)} has another value"
        if field.expire_ms != there.expire_ms:
            return f"field {_short(name)} expires at {_when(field.expire_ms)} on the source, at {_when(there.expire_ms)} on the target"
    return ""


def _stream(one: Stream, other: Stream, _mode: Mode) -> str:
    if one.entries != other.entries:
        return f"{len(one.entries)} entries on the source, {len(other.entries)} on the target, and not the same"
    for name, here, there in (
        ("last id", one.last, other.last),
        ("entries added", one.entries_added, other.entries_added),
        ("largest deleted id", one.max_deleted, other.max_deleted),
        ("length", one.length, other.length),
    ):
        if here != there:
            return f"{name} is {here} on the source, {there} on the target"
    mine, theirs = {group.name: group for group in one.groups}, {group.name: group for group in other.groups}
    if mine.keys() != theirs.keys():
        return f"groups {sorted(mine)} on the source, {sorted(theirs)} on the target"
    for label, group in mine.items():
        if text := _group(group, theirs[label]):
            return f"group {_short(label)}: {text}"
    return ""


def _group(one: Group, other: Group) -> str:
    if one.last != other.last:
        return f"last id {one.last} on the source, {other.last} on the target"
    if one.entries_read != other.entries_read:
        return f"{one.entries_read} entries read on the source, {other.entries_read} on the target"
    mine, theirs = {entry.id: entry.delivery_count for entry in one.pending}, {entry.id: entry.delivery_count for entry in other.pending}
    if mine.keys() != theirs.keys():
        return f"{len(mine)} pending entries on the source, {len(theirs)} on the target"
    for entry, count in mine.items():
        if count != theirs[entry]:
            return f"entry {entry.ms}-{entry.seq} was delivered {count} times on the source, {theirs[entry]} on the target"
    if {one.name: one.owned for one in one.consumers if one.owned} != {one.name: one.owned for one in other.consumers if one.owned}:
        return "pending entries belong to other consumers"
    return ""


_BY_KIND: dict[int, Callable[[Any, Any, Mode], str]] = {
    KIND_STRING: _string,
    KIND_LIST: _list,
    KIND_SET: _set,
    KIND_ZSET: _zset,
    KIND_HASH: _hash,
    KIND_STREAM: _stream,
}
