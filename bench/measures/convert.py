"""Redis 8.0 with field TTLs on 10% of its keys to Valkey 8.1 through the gateway (keep-field), which natively is impossible.

*Native* is Redis 8.0 → Redis 8.0: the same source with the same data, because writing the snapshot takes most of the time (processor time for 2
million keys, as packaged by Debian: Redis 8.0 writes 5.8 s and loads 2.8 s, Valkey 8.1 writes 3.6 s and loads 1.2 s), and that is the source's work,
which no gateway can spare. No native pair has both this source and this target. The second reference, for information, has the same target and a
source that writes faster, with the same keys but no field TTLs, which it does not know: Valkey 8.1 → 8.1. The third is the gateway with the same
source and nothing to convert: what the conversion costs.
"""

from __future__ import annotations

from statistics import median
from typing import Final

from bench.figures import Figure
from bench.gateway import GatewayProcess
from bench.options import BenchOptions
from bench.pairs import Pairs, alternating
from bench.servers import Bench, detach, server, sync_native, sync_through

__all__ = ["measure"]

SOURCE: Final = "redis-8.0"
TARGET: Final = "valkey-8.1"
PAIRS: Final = 7
OTHERS: Final = 3  # rounds of what is for information only


def measure(options: BenchOptions) -> list[Figure]:
    snapshots = options.snapshots
    keys = options.keys // 2  # Redis 8.0 takes its time: this keeps the whole run short
    count = options.pairs or PAIRS
    others = range(min(OTHERS, count))
    pairs = Pairs()
    with server(TARGET, propagation_error_behavior="panic") as target:
        with server(SOURCE, folder=snapshots.place(snapshots.mixed(SOURCE, keys, field_ttl=True))) as source, server(SOURCE) as replica:
            for pair, way in alternating(count):
                seconds = _native(source, replica) if way == "native" else _through(source, target)
                if pair:
                    pairs.add(way, seconds)
                    options.say(f"convert {pair}/{count}, {way}: {seconds:.2f} s")
        with server(SOURCE, folder=snapshots.place(snapshots.mixed(SOURCE, keys))) as plain:
            unconverted = [_through(plain, target) for _ in others]
        with server(TARGET, folder=snapshots.place(snapshots.mixed(TARGET, keys))) as other:
            same_target = [_native(other, target) for _ in others]
    through = median(pairs.through)
    said = (
        f"{keys:,} keys, 10% with field TTLs: {SOURCE} → {TARGET} {through:.2f} s; native {SOURCE} → {SOURCE} {median(pairs.native):.2f} s"
    )
    beside = f"second reference, for information: native {TARGET} → {TARGET}, no field TTLs, {median(same_target):.2f} s"
    cost = f"for information: against the gateway with nothing to convert, {median(unconverted):.2f} s"
    return [
        Figure.ratio("convert", pairs, 1.3, said),
        Figure("convert, same target", through / median(same_target), "x", said=beside, samples={"native": same_target}),
        Figure("convert, conversion alone", through / median(unconverted), "x", said=cost, samples={"through": unconverted}),
    ]


def _native(source: Bench, target: Bench) -> float:
    seconds = sync_native(source, target)
    detach(target)
    return seconds


def _through(source: Bench, target: Bench) -> float:
    with GatewayProcess(source.url, TARGET.rpartition("-")[2]) as gateway:
        seconds = sync_through(gateway, source, target)
        detach(target)
        return seconds
