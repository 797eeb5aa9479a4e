"""A full sync through the gateway against the same natively, Valkey 9.1 to 9.1 and 8.1 to 8.1, in pairs whose order alternates.

A Valkey 8 target takes the snapshot in its main thread, and is done when it is done: that figure needs few pairs. A Valkey 9 target writes the snapshot
to disk in a thread of its own, and its main thread looks once a second whether that is done: up to a second passes in which nothing happens, natively
as through the gateway. It decides single pairs, hence their number and the interval that is told with the ratio; and the ratio is also told without
that wait (as the target's log gives it), which is the sharper figure.

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

PAIRS: Final = {"valkey-9.1": 21, "valkey-8.1": 7}
TARGET: Final = 1.10


def measure(options: BenchOptions) -> list[Figure]:
    figures: list[Figure] = []
    for spec, count in PAIRS.items():
        figures += _measure(options, spec, options.pairs or count)
    return figures


def _measure(options: BenchOptions, spec: str, count: int) -> list[Figure]:
    pairs, sharp = Pairs(), Pairs()
    with (
        server(spec, folder=options.snapshots.place(options.snapshots.mixed(spec, options.keys))) as source,
        server(spec, propagation_error_behavior="panic") as target,
    ):
        for pair, way in alternating(count):
            seconds = sync_native(source, target) if way == "native" else _through(spec, source, target)
            if pair:
                pairs.add(way, seconds)
                sharp.add(way, seconds - timer_wait(target))
                options.say(f"full-sync {spec} {pair}/{count}, {way}: {seconds:.2f} s")
            detach(target)
    said = f"{options.keys:,} keys {spec} → {spec}: native {median(pairs.native):.2f} s, through the gateway {median(pairs.through):.2f} s"
    without = f"without the target's wait for its timer: native {median(sharp.native):.2f} s, through {median(sharp.through):.2f} s"
    name = f"full-sync, {spec}"
    figures = [Figure.ratio(name, pairs, TARGET, said)]
    if any(timed != whole for timed, whole in zip(sharp.native + sharp.through, pairs.native + pairs.through, strict=True)):
        figures.append(Figure.ratio(f"{name}, sharp", sharp, TARGET, without))
    return figures


def _through(spec: str, source: Bench, target: Bench) -> float:
    with GatewayProcess(source.url, spec.rpartition("-")[2]) as gateway:
        return sync_through(gateway, source, target)
