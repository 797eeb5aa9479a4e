"""What ordinary commands of a server say about a key, in the shape of `valkeep.wire.rdb.record`, so that it can be compared with a decoded one."""

from __future__ import annotations

from typing import Any

from valkeep.wire.rdb import opcodes
from valkeep.wire.rdb.record import Consumer, Entry, Field, Group, Id, Pending, Record, Stream


def said(client: Any, key: bytes, *, database: int = 0, field_ttl: bool = False) -> Record:
    """`client`: valkey-py, connected to `database`. `field_ttl`: the server knows HPEXPIRETIME."""
    kind = opcodes.KIND_NAMES.index(client.type(key).decode())
    expire = client.execute_command("PEXPIRETIME", key)
    return Record(database, key, expire, kind, _value(client, key, kind, field_ttl))


def _value(client: Any, key: bytes, kind: int, field_ttl: bool) -> Any:
    if kind == opcodes.KIND_STRING:
        return client.get(key)
    if kind == opcodes.KIND_LIST:
        return client.lrange(key, 0, -1)
    if kind == opcodes.KIND_SET:
        return set(client.smembers(key))
    if kind == opcodes.KIND_ZSET:
        return dict(client.zrange(key, 0, -1, withscores=True))
    if kind == opcodes.KIND_HASH:
        return _hash(client, key, field_ttl)
    return _stream(client, key)


def _hash(client: Any, key: bytes, field_ttl: bool) -> dict[bytes, Field]:
    pairs = client.hgetall(key)
    if not field_ttl:
        return {name: Field(value) for name, value in pairs.items()}
    names = list(pairs)
    times = client.execute_command("HPEXPIRETIME", key, "FIELDS", len(names), *names)
    return {name: Field(pairs[name], time) for name, time in zip(names, times, strict=True)}


def _id(text: bytes) -> Id:
    ms, seq = text.split(b"-")
    return Id(int(ms), int(seq))


def _map(flat: list[Any]) -> dict[str, Any]:
    return {name.decode(): value for name, value in zip(flat[0::2], flat[1::2], strict=True)}


def _stream(client: Any, key: bytes) -> Stream:
    full = _map(client.execute_command("XINFO", "STREAM", key, "FULL", "COUNT", "0"))
    groups = []
    for each in full["groups"]:
        group = _map(each)
        pending = [Pending(_id(entry), time, count) for entry, _name, time, count in group["pending"]]
        consumers = []
        for row in group["consumers"]:
            consumer = _map(row)
            seen = consumer["seen-time"]
            owned = [_id(entry[0]) for entry in consumer["pending"]]
            consumers.append(Consumer(consumer["name"], seen, consumer.get("active-time", seen), owned))
        read = group["entries-read"]
        groups.append(Group(group["name"], _id(group["last-delivered-id"]), -1 if read is None else read, pending, consumers))
    return Stream(
        [Entry(_id(name), fields) for name, fields in full["entries"]],
        full["length"],
        _id(full["last-generated-id"]),
        _id(full["recorded-first-entry-id"]),
        _id(full["max-deleted-entry-id"]),
        full["entries-added"],
        groups,
    )
