"""A full sync through the gateway against the same natively, Valkey 9.1 to 9.1, in pairs whose order alternates.

The clock: from REPLICAOF (natively), from the moment the gateway connects to the source (through it), until the target says ``master_link_status:up``; then
both sides must have the same number of keys. The gateway's interpreter is started before.
"""

from __future__ import annotations

from statistics import median

from bench.figures import Figure
from bench.gateway import GatewayProcess
from bench.options import Options
from bench.servers import detach, server, sync_native, sync_through

__all__ = ["measure"]

NATIVE = "valkey-9.1"


def measure(options: Options) -> list[Figure]:
    snapshot = options.snapshots.mixed(NATIVE, options.keys)
    native: list[float] = []
    through: list[float] = []
    with (
        server(NATIVE, folder=options.snapshots.place(snapshot)) as source,
        server(NATIVE, propagation_error_behavior="panic") as target,
    ):
        for pair in range(options.pairs + 1):
            with GatewayProcess(source.url, "9.1") as gateway:
                for way in ("native", "through") if pair % 2 else ("through", "native"):
                    if way == "native":
                        seconds = sync_native(source, target)
                    else:
                        seconds = sync_through(gateway, source, target)
                    detach(target)
                    if pair:  # the first pair warms caches up
                        (native if way == "native" else through).append(seconds)
            if pair:
                options.say(f"full-sync {pair}/{options.pairs}: native {native[-1]:.2f} s, through the gateway {through[-1]:.2f} s")
    ratio = median(one / other for one, other in zip(through, native, strict=True))
    said = f"{options.keys:,} keys {NATIVE} → {NATIVE}: native {median(native):.2f} s, through the gateway {median(through):.2f} s"
    return [Figure("full-sync", ratio, "x", 1.10, said=said, samples={"native": native, "through": through})]
