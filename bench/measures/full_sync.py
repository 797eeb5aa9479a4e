"""A full sync through the gateway against the same natively, Valkey 9.1 to 9.1, in pairs whose order alternates.

A Valkey 9 target writes the snapshot to disk in a thread of its own, and its main thread looks once a second whether that is done: up to a second passes in
which nothing happens, natively as through the gateway. It blurs the ratio, the less the more pairs there are; so the ratio is also told without that wait (as
the target's log gives it), which is the sharper figure of the two.

The clock: from REPLICAOF (natively), from the moment the gateway connects to the source (through it), until the target says ``master_link_status:up``; then
both sides must have the same number of keys. The gateway's interpreter is started before.
"""

from __future__ import annotations

from statistics import median

from bench.figures import Figure
from bench.gateway import GatewayProcess
from bench.options import BenchOptions
from bench.servers import detach, server, sync_native, sync_through, timer_wait

__all__ = ["measure"]

NATIVE = "valkey-9.1"


def measure(options: BenchOptions) -> list[Figure]:
    snapshot = options.snapshots.mixed(NATIVE, options.keys)
    native: list[float] = []
    through: list[float] = []
    sharp: dict[str, list[float]] = {"native": [], "through": []}
    with (
        server(NATIVE, folder=options.snapshots.place(snapshot)) as source,
        server(NATIVE, propagation_error_behavior="panic") as target,
    ):
        for pair in range(options.pairs + 1):
            with GatewayProcess(source.url, "9.1") as gateway:
                for way in ("native", "through") if pair % 2 else ("through", "native"):
                    seconds = sync_native(source, target) if way == "native" else sync_through(gateway, source, target)
                    if pair:  # the first pair warms caches up
                        (native if way == "native" else through).append(seconds)
                        sharp[way].append(seconds - timer_wait(target))
                    detach(target)
            if pair:
                options.say(f"full-sync {pair}/{options.pairs}: native {native[-1]:.2f} s, through the gateway {through[-1]:.2f} s")
    said = f"{options.keys:,} keys {NATIVE} → {NATIVE}: native {median(native):.2f} s, through the gateway {median(through):.2f} s"
    without = f"without the target's wait for its timer: native {median(sharp['native']):.2f} s, through {median(sharp['through']):.2f} s"
    return [
        Figure("full-sync", _ratio(through, native), "x", 1.10, said=said, samples={"native": native, "through": through}),
        Figure("full-sync, sharp", _ratio(sharp["through"], sharp["native"]), "x", 1.10, said=without, samples=sharp),
    ]


def _ratio(through: list[float], native: list[float]) -> float:
    return median(one / other for one, other in zip(through, native, strict=True))
