"""Redis 8.0 with field TTLs on 10% of its keys to Valkey 8.1 through the gateway (keep-field), which natively is impossible.

The reference is the native sync of the same keys without field TTLs. Two would do: Valkey 8.1 → 8.1 has the same target, Redis 8.0 → 8.0 the same source.
Loading on the target takes most of the time, so the one with the same target is the fair one; it is the figure's reference, and the other is told
beside it.
"""

from __future__ import annotations

from statistics import median

from bench.figures import Figure
from bench.gateway import GatewayProcess
from bench.options import Options
from bench.servers import detach, server, sync_native, sync_through

__all__ = ["measure"]

SOURCE = "redis-8.0"
TARGET = "valkey-8.1"


def measure(options: Options) -> list[Figure]:
    snapshots = options.snapshots
    converted = snapshots.mixed(SOURCE, options.keys, field_ttl=True)
    plain = snapshots.mixed(TARGET, options.keys)
    native: list[float] = []
    through: list[float] = []
    with (
        server(SOURCE, folder=snapshots.place(converted)) as source,
        server(TARGET, folder=snapshots.place(plain)) as reference,
        server(TARGET, propagation_error_behavior="panic") as target,
    ):
        for pair in range(options.pairs + 1):
            with GatewayProcess(source.url, "8.1") as gateway:
                for way in ("native", "through") if pair % 2 else ("through", "native"):
                    if way == "native":
                        seconds = sync_native(reference, target)
                    else:
                        seconds = sync_through(gateway, source, target)
                    detach(target)
                    if pair:
                        (native if way == "native" else through).append(seconds)
            if pair:
                options.say(f"convert {pair}/{options.pairs}: native {native[-1]:.2f} s, converted {through[-1]:.2f} s")
    other = _same_source(options)
    ratio = median(one / base for one, base in zip(through, native, strict=True))
    said = (
        f"{options.keys:,} keys {SOURCE} → {TARGET}, 10% with field TTLs: {median(through):.2f} s; native {TARGET} → {TARGET} without them "
        f"{median(native):.2f} s ({SOURCE} → {SOURCE}: {median(other):.2f} s)"
    )
    samples = {"native": native, "through": through, "native, same source": other}
    return [Figure("convert", ratio, "x", 1.3, said=said, samples=samples)]


def _same_source(options: Options) -> list[float]:
    """The other reference, for information: three syncs are enough."""
    snapshots = options.snapshots
    seconds = []
    with (
        server(SOURCE, folder=snapshots.place(snapshots.mixed(SOURCE, options.keys))) as source,
        server(SOURCE) as target,
    ):
        for _ in range(min(3, options.pairs)):
            seconds.append(sync_native(source, target))
            detach(target)
    return seconds
