"""A full sync through the gateway against the same natively, Valkey 9.1 to 9.1, in pairs whose order alternates.

A Valkey 9 target writes the snapshot to disk in a thread of its own, and its main thread looks once a second whether that is done: up to a second
passes in which nothing happens, natively as through the gateway. It decides single pairs, hence their number and the interval that is told with the
ratio; and the ratio is also told without that wait (as the target's log gives it), which is the sharper figure of the two.

The clock: from REPLICAOF (natively), from the moment the gateway connects to the source (through it), until the target says
``master_link_status:up``; then both sides must have the same number of keys. The gateway's interpreter is started before.
"""

from __future__ import annotations

from statistics import median
from typing import Final

from bench.figures import Figure
from bench.gateway import GatewayProcess
from bench.options import BenchOptions
from bench.pairs import Pairs, alternating
from bench.servers import Bench, detach, server, sync_native, sync_through, timer_wait

__all__ = ["measure"]

SERVER: Final = "valkey-9.1"
PAIRS: Final = 21
TARGET: Final = 1.10


def measure(options: BenchOptions) -> list[Figure]:
    count = options.pairs or PAIRS
    pairs, sharp = Pairs(), Pairs()
    with (
        server(SERVER, folder=options.snapshots.place(options.snapshots.mixed(SERVER, options.keys))) as source,
        server(SERVER, propagation_error_behavior="panic") as target,
    ):
        for pair, way in alternating(count):
            seconds = sync_native(source, target) if way == "native" else _through(source, target)
            if pair:
                pairs.add(way, seconds)
                sharp.add(way, seconds - timer_wait(target))
                options.say(f"full-sync {pair}/{count}, {way}: {seconds:.2f} s")
            detach(target)
    said = (
        f"{options.keys:,} keys {SERVER} → {SERVER}: native {median(pairs.native):.2f} s, through the gateway {median(pairs.through):.2f} s"
    )
    without = f"without the target's wait for its timer: native {median(sharp.native):.2f} s, through {median(sharp.through):.2f} s"
    return [Figure.ratio("full-sync", pairs, TARGET, said), Figure.ratio("full-sync, sharp", sharp, TARGET, without)]


def _through(source: Bench, target: Bench) -> float:
    with GatewayProcess(source.url, SERVER.rpartition("-")[2]) as gateway:
        return sync_through(gateway, source, target)
