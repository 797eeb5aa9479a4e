"""Redis 8.0 with field TTLs on 10% of its keys to Valkey 8.1 through the gateway (keep-field), which natively is impossible.

The reference is a native sync of the same keys without field TTLs; natively no server pair has both this source and this target, so there are two. Writing the
snapshot takes most of the time (processor time for 2 million keys, as packaged by Debian: Redis 8.0 writes 5.8 s and loads 2.8 s, Valkey 8.1 writes 3.6 s and
loads 1.2 s), and that is the source's work, which no gateway can spare. So Redis 8.0 → 8.0, with the same source, is the figure's reference. The other one,
Valkey 8.1 → 8.1, is told beside it, and as a third the gateway with the same source without field TTLs: what the conversion itself costs.
"""

from __future__ import annotations

from statistics import median

from bench.figures import Figure
from bench.gateway import GatewayProcess
from bench.options import BenchOptions
from bench.servers import Bench, detach, server, sync_native, sync_through

__all__ = ["measure"]

SOURCE = "redis-8.0"
TARGET = "valkey-8.1"
OTHERS = 3  # rounds of what is for information only


def measure(options: BenchOptions) -> list[Figure]:
    snapshots = options.snapshots
    keys = options.keys // 2  # Redis 8.0 takes its time: this keeps the whole run short
    plain = snapshots.mixed(SOURCE, keys)
    with (
        server(SOURCE, folder=snapshots.place(plain)) as reference,
        server(TARGET, propagation_error_behavior="panic") as target,
    ):
        native: list[float] = []
        through: list[float] = []
        with (
            server(SOURCE, folder=snapshots.place(snapshots.mixed(SOURCE, keys, field_ttl=True))) as source,
            server(SOURCE) as replica,
        ):
            for pair in range(options.pairs + 1):
                for way in ("native", "through") if pair % 2 else ("through", "native"):
                    seconds = _native(reference, replica) if way == "native" else _through(source, target)
                    if pair:  # the first pair warms caches up
                        (native if way == "native" else through).append(seconds)
                if pair:
                    options.say(f"convert {pair}/{options.pairs}: native {native[-1]:.2f} s, converted {through[-1]:.2f} s")
        unconverted = [_through(reference, target) for _ in range(min(OTHERS, options.pairs))]
        with server(TARGET, folder=snapshots.place(snapshots.mixed(TARGET, keys))) as other:
            same_target = [_native(other, target) for _ in range(min(OTHERS, options.pairs))]
    ratio = median(one / base for one, base in zip(through, native, strict=True))
    said = (
        f"{keys:,} keys {SOURCE} → {TARGET}, 10% with field TTLs: {median(through):.2f} s; native {SOURCE} → {SOURCE} without them "
        f"{median(native):.2f} s"
    )
    beside = f"for information: against native {TARGET} → {TARGET} ({median(same_target):.2f} s)"
    cost = f"for information: against the gateway without anything to convert ({median(unconverted):.2f} s)"
    samples = {"native": native, "through": through, "native, same target": same_target, "through, nothing to convert": unconverted}
    return [
        Figure("convert", ratio, "x", 1.3, said=said, samples=samples),
        Figure("convert, same target", median(through) / median(same_target), "x", said=beside),
        Figure("convert, conversion alone", median(through) / median(unconverted), "x", said=cost),
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
