"""Peak memory of the gateway's process (VmHWM), where memory could grow: many keys, one huge value, one huge hash, a target that hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from bench.data import big_hash
from bench.figures import Figure
from bench.gateway import GatewayProcess
from bench.load import Steady
from bench.options import BenchOptions
from bench.servers import Bench, Wire, detach, server, sync_through
from bench.waiting import until
from valkeep.wire.resp import encode

__all__ = ["measure"]

LIMIT: Final = 150.0
RATE: Final = 20_000
MB: Final = 1 << 20


def measure(options: BenchOptions) -> list[Figure]:
    figures = []
    for step in (_keys, _string, _hash, _stall):
        for name, peak, said in step(options):
            options.say(f"memory, {name}: {peak / MB:.1f} MB")
            figures.append(Figure(f"memory: {name}", peak / MB, "MB", LIMIT, said=said))
    return figures


Peak = tuple[str, int, str]


def _keys(options: BenchOptions) -> Iterator[Peak]:
    snapshots = options.snapshots
    with (
        server("valkey-9.1", folder=snapshots.place(snapshots.mixed("valkey-9.1", options.keys))) as source,
        server("valkey-9.1") as target,
        _gateway(source, "9.1") as gateway,
    ):
        sync_through(gateway, source, target)
        yield "keys", gateway.peak, f"full sync of {options.keys:,} keys"


def _string(options: BenchOptions) -> Iterator[Peak]:
    """Once in the snapshot, once in the stream, as it is (no compression)."""
    size = options.big_string
    with (
        server("redis-8.0", rdbcompression="no", proto_max_bulk_len="1gb") as source,
        server("valkey-9.1", proto_max_bulk_len="1gb", propagation_error_behavior="panic") as target,
        _gateway(source, "9.1") as gateway,
    ):
        source.client.setrange("large", size - 1, b"x")
        sync_through(gateway, source, target)
        yield "string in the snapshot", gateway.peak, f"one string of {size // MB} MB"
        _set(source, b"larger", size)
        until(lambda: target.client.strlen("larger") == size, 120, "the string to cross in the stream", every=0.05)
        yield "string in the stream", gateway.peak, f"SET of {size // MB} MB while the target follows"


def _set(source: Bench, key: bytes, size: int) -> None:
    whole = encode(b"SET", key, b"")
    head = whole[: whole.rindex(b"$0")] + b"$%d\r\n" % size
    piece = b"v" * MB
    with Wire(source.port, 120) as wire:
        wire.send(head)
        for start in range(0, size, MB):
            wire.send(piece[: min(MB, size - start)])
        wire.send(b"\r\n")
        if (answer := wire.reply()) != b"OK":
            raise RuntimeError(f"SET of {size} bytes: {answer!r}")


def _hash(options: BenchOptions) -> Iterator[Peak]:
    with server("redis-8.0") as source:
        big_hash(source.client, "large", options.big_fields)
        fields = source.client.hlen("large")
        for spec, version, policy, kept in (("valkey-9.1", "9.1", "keep-field", fields), ("valkey-8.1", "8.1", "drop-field", 1)):
            with server(spec) as target, _gateway(source, version, policy) as gateway:
                sync_through(gateway, source, target)
                found = target.client.hlen("large")
                if found != kept:
                    raise RuntimeError(f"{found} fields arrived instead of {kept}")
                what = "HASH_2" if version == "9.1" else policy
                yield f"hash, {what}", gateway.peak, f"{fields:,} fields with TTLs redis-8.0 → {spec}"


def _stall(options: BenchOptions) -> Iterator[Peak]:
    with (
        server("redis-8.0") as source,
        server("valkey-9.1", propagation_error_behavior="panic") as target,
        _gateway(source, "9.1") as gateway,
    ):
        source.client.set("before", 1)
        sync_through(gateway, source, target)
        with Steady(source.port, RATE) as load:
            target.process.pause()
            resume = threading.Timer(options.stall_seconds, target.process.resume)
            resume.start()
            try:
                time.sleep(options.stall_seconds)
            finally:
                resume.join()
        source.client.set("after", 1)
        until(lambda: bool(target.client.exists("after")), 120, "the target to catch up", every=0.05)
        if source.client.dbsize() != target.client.dbsize():
            raise RuntimeError("the target did not catch up")
        said = f"target hangs for {options.stall_seconds:.0f} s under {load.achieved:,.0f} writes/s, then catches up"
        yield "stalled target", gateway.peak, said
        detach(target, flush=False)


@contextmanager
def _gateway(source: Bench, version: str, policy: str = "keep-field") -> Iterator[GatewayProcess]:
    with GatewayProcess(source.url, version, policy) as gateway:
        yield gateway
