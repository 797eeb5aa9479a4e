"""How long a write takes to be visible on the target, at 20,000 writes/s: marker keys, from the moment one is sent to the source until the target answers it.

ACKs come once a second and say nothing about it. The same is done with a native replica of the same source, one after the other, for comparison.
"""

from __future__ import annotations

import time
from statistics import quantiles
from typing import Final

from bench.figures import Figure
from bench.gateway import GatewayProcess
from bench.load import Steady
from bench.options import BenchOptions
from bench.servers import Wire, detach, server, sync_native, sync_through

__all__ = ["measure"]

RATE: Final = 20_000
EVERY: Final = 0.02
TIMEOUT: Final = 30.0
POLL: Final = 0.0002


def measure(options: BenchOptions) -> list[Figure]:
    with (
        server("redis-8.0") as source,
        server("valkey-9.1", propagation_error_behavior="panic") as target,
        server("redis-8.0") as replica,
        GatewayProcess(source.url, "9.1") as gateway,
    ):
        source.client.set("there", 1)
        sync_through(gateway, source, target)
        through, rate = _markers(source.port, target.port, options.lag_seconds)
        detach(target)
        gateway.close()
        sync_native(source, replica)
        native, _ = _markers(source.port, replica.port, options.lag_seconds / 2)
    p50, p99, worst = _percentiles(through)
    base50, base99, _ = _percentiles(native)
    said = f"p50 {p50:.2f} ms, worst {worst:.1f} ms of {len(through)} markers at {rate:,.0f} writes/s; native replica p50 {base50:.2f}, p99 {base99:.2f} ms"
    options.say(f"lag: p99 {p99:.2f} ms, {said}")
    return [Figure("lag, p99", p99, "ms", 50.0, said=said, samples={"p50": [p50], "p99": [p99], "native": [base50, base99]})]


def _percentiles(values: list[float]) -> tuple[float, float, float]:
    cuts = quantiles(values, n=100)
    return cuts[49], cuts[98], max(values)


def _markers(source: int, target: int, seconds: float) -> tuple[list[float], float]:
    """Milliseconds of each marker, and the writes per second that there were meanwhile."""
    found: list[float] = []
    with Wire(source) as here, Wire(target) as there, Steady(source, RATE) as load:
        begun = time.perf_counter()
        number = 0
        while time.perf_counter() - begun < seconds:
            number += 1
            marker = b"%d" % number
            sent = time.perf_counter()
            if here.call(b"SET", b"marker", marker) != b"OK":
                raise RuntimeError("the source did not take a marker")
            while there.call(b"GET", b"marker") != marker:
                if time.perf_counter() - sent > TIMEOUT:
                    raise RuntimeError("a marker did not arrive")
                time.sleep(POLL)
            found.append((time.perf_counter() - sent) * 1000)
            time.sleep(max(0.0, sent + EVERY - time.perf_counter()))
    return found, load.achieved
