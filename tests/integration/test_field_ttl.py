"""Hashes with field expiry from a real Redis 8.0, converted, loaded by real Valkeys and read by ordinary commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server
from valkeep.runtime.node import Process
from valkeep.wire.checksum import crc64
from valkeep.wire.rdb import opcodes
from valkeep.wire.rdb.convert import DROP_FIELD, KEEP_FIELD, TO_HASH_2, HashConverter, RecordConverter, reencode_payload
from valkeep.wire.rdb.scan import ATTENTION, END, Scanner, parse_header, parse_record_prefix

REDIS, VALKEY = opcodes.DIALECT_REDIS, opcodes.DIALECT_VALKEY
SOON = 4_000_000_000_000  # ms: 2096
TARGETS = {"valkey-9.1": (VALKEY, 80), "valkey-8.1": (REDIS, 11), "valkey-8.0": (REDIS, 11)}

Hashes = dict[bytes, tuple[dict[bytes, bytes], dict[bytes, int]]]


def hashes() -> Hashes:
    """Key -> (fields, expiry in ms of those that have one): listpack and table, raw and compressed, integers and long values."""
    small = {b"name": b"ann", b"age": b"41", b"": b"", b"-7": b"1099511627776", b"long": b"x" * 60}
    wide = {b"field:%d" % i: b"%d" % (i * i) if i % 2 else b"value " * 3 for i in range(400)}
    large = {b"f%d" % i: b"v" * (i % 100) for i in range(3000)}
    big = {b"big": b"0123456789" * 50_000, b"small": b"1"}
    return {
        b"small": (small, {b"name": SOON, b"-7": SOON + 1}),
        b"wide": (wide, {b"field:%d" % i: SOON + i for i in range(0, 400, 3)}),
        b"large": (large, {b"f%d" % i: SOON + i * 1000 for i in range(0, 3000, 7)}),
        b"big": (big, {b"big": SOON + 5}),
        b"all": ({b"a": b"1", b"b": b"2"}, {b"a": SOON, b"b": SOON + 86_400_000}),
    }


def fill(redis: Any, made: Hashes) -> None:
    for key, (fields, expiries) in made.items():
        redis.hset(key, mapping=fields)
        for field, expiry in expiries.items():
            redis.execute_command("HPEXPIREAT", key, expiry, "FIELDS", 1, field)


def expected(made: Hashes, mode: int) -> Hashes:
    if mode == TO_HASH_2:
        return made
    kept = {
        key: ({f: v for f, v in fields.items() if mode == KEEP_FIELD or f not in expiries}, dict[bytes, int]())
        for key, (fields, expiries) in made.items()
    }
    return {key: value for key, value in kept.items() if value[0]}


def read(client: Any, key: bytes, *, with_expiry: bool) -> tuple[dict[bytes, bytes], dict[bytes, int]]:
    fields = client.hgetall(key)
    if not with_expiry or not fields:
        return fields, {}
    names = list(fields)
    times = client.execute_command("HPEXPIRETIME", key, "FIELDS", len(names), *names)
    return fields, {name: time for name, time in zip(names, times, strict=True) if time != -1}


def mode_of(spec: str, policy: int) -> int:
    return TO_HASH_2 if spec == "valkey-9.1" else policy


@pytest.mark.parametrize("spec", TARGETS)
@pytest.mark.parametrize("policy", [KEEP_FIELD, DROP_FIELD])
def test_a_payload_of_redis_8_is_restored_by_valkey(server: Server, client: Callable[..., Any], spec: str, policy: int) -> None:
    redis, valkey = client(server("redis-8.0")), client(server(spec))
    made = hashes()
    fill(redis, made)
    want = expected(made, mode_of(spec, policy))
    encodings = {redis.execute_command("OBJECT", "ENCODING", key) for key in made}
    assert encodings == {b"listpackex", b"hashtable"}
    for key in made:
        result = reencode_payload(redis.dump(key), *TARGETS[spec], policy)
        assert result.empty == (key not in want)
        assert result.fields_with_ttl == len(made[key][1])
        if not result.empty:
            valkey.restore(key, 0, result.payload)
    assert {key: read(valkey, key, with_expiry=spec == "valkey-9.1") for key in want} == want
    assert valkey.dbsize() == len(want)


def test_payloads_go_back_from_valkey_9_to_redis_8(server: Server, client: Callable[..., Any]) -> None:
    redis, valkey = client(server("redis-8.0")), client(server("valkey-9.1"))
    made = hashes()
    fill(valkey, made)
    valkey.rpush(b"list", *range(1000))
    for key in made:
        redis.restore(key, 0, reencode_payload(valkey.dump(key), REDIS, 12, KEEP_FIELD).payload)
    redis.restore(b"list", 0, reencode_payload(valkey.dump(b"list"), REDIS, 12, KEEP_FIELD).payload)
    assert {key: read(redis, key, with_expiry=True) for key in made} == made
    assert redis.lrange(b"list", 0, -1) == [b"%d" % i for i in range(1000)]


def snapshot_of(node: Process, redis: Any) -> bytes:
    redis.save()
    return Path(redis.config_get("dir")["dir"], redis.config_get("dbfilename")["dbfilename"]).read_bytes()


def translated(data: bytes, mode: int, chunk: int, *, stream: bool) -> bytes:
    """The snapshot as a gateway passes it on: whole small hashes in one call, the others in pieces (or all of them in pieces)."""
    header = parse_header(data)
    assert header is not None
    types = {22, 23, 24, 25, opcodes.OP_MODULE_AUX, opcodes.OP_SLOT_INFO}
    scanner = Scanner(bytes(number in types for number in range(256)), header.dialect, header.version)
    records = RecordConverter(header.dialect, mode)
    out = bytearray(b"VALKEY080" if mode == TO_HASH_2 else b"REDIS0011")
    pos, end = opcodes.HEADER_SIZE, min(len(data), opcodes.HEADER_SIZE + chunk)
    while True:
        if stream:
            after = scanner.scan(data, pos, end)
            out += data[pos:after]
            pos, stop = after, scanner.stop
        else:
            pos = records.translate(scanner, data, pos, end, out)
            stop = records.stop
        if stop == END:
            break
        if stop != ATTENTION:
            end = min(len(data), end + chunk)
            continue
        prefix = parse_record_prefix(data, pos, len(data))
        assert prefix is not None
        converter = HashConverter(prefix.type, header.dialect, mode)
        body = bytearray()
        value = at = prefix.value_pos
        while not converter.done:
            end = min(len(data), max(end, at) + chunk)
            at = converter.feed(data, at, end, body)
        kept = converter.fields - converter.fields_dropped
        if kept:
            out += data[pos : prefix.type_pos] + bytes([converter.out_type]) + data[prefix.type_pos + 1 : value]
            if not converter.count_known:
                out += b"\x80" + kept.to_bytes(4, "big")
            out += body
        scanner.resume_after(at - pos)
        pos = at
    out += b"\xff"
    return bytes(out) + crc64(out).to_bytes(8, "little")


@pytest.mark.parametrize("spec", TARGETS)
@pytest.mark.parametrize("policy", [KEEP_FIELD, DROP_FIELD])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "in pieces"])
def test_a_snapshot_of_redis_8_is_loaded_by_valkey(
    server: Server, client: Callable[..., Any], tmp_path: Path, spec: str, policy: int, stream: bool
) -> None:
    source = server("redis-8.0")
    redis = client(source)
    made = hashes()
    fill(redis, made)
    redis.set(b"with expiry", b"v", pxat=SOON)
    redis.pexpireat(b"wide", SOON + 9)
    client(source, db=3).sadd(b"other database", *range(100), b"member")
    mode = mode_of(spec, policy)
    (tmp_path / "dump.rdb").write_bytes(translated(snapshot_of(source, redis), mode, 5000, stream=stream))
    target = server(spec, dir=str(tmp_path))
    valkey = client(target)
    want = expected(made, mode)
    assert {key: read(valkey, key, with_expiry=spec == "valkey-9.1") for key in want} == want
    assert valkey.dbsize() == len(want) + 1
    assert valkey.pexpiretime(b"with expiry") == SOON
    assert valkey.pexpiretime(b"wide") == SOON + 9
    assert client(target, db=3).scard(b"other database") == 101
