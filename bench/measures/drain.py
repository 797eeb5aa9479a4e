"""How fast a target catches up from the spool, against a native replica from the source's backlog.

One source, a native replica and a target behind the gateway, both stopped (SIGSTOP) while the source takes millions of plain commands; they wait in the
source's backlog for the one and on the spool for the other. When all is received, one is released at a time, the order alternating, and the clock runs until
the last command is visible.
"""

from __future__ import annotations

import time
from statistics import median

from bench.data import commands
from bench.figures import Figure
from bench.gateway import GatewayProcess
from bench.options import BenchOptions
from bench.servers import Bench, Wire, server, sync_native, sync_through

__all__ = ["measure"]

SPEC = "valkey-9.1"
TIMEOUT = 180.0
DISTINCT = 500_000


def measure(options: BenchOptions) -> list[Figure]:
    distinct = min(DISTINCT, options.drain_commands)
    times = max(1, options.drain_commands // distinct)
    pieces = commands(distinct)
    count = distinct * times
    rates: dict[str, list[float]] = {"native": [], "through": []}
    spooled: list[float] = []
    with (
        server(SPEC, repl_backlog_size="4gb") as source,
        server(SPEC) as replica,
        server(SPEC, propagation_error_behavior="panic") as target,
        GatewayProcess(source.url, "9.1", metrics=True) as gateway,
    ):
        source.client.set("there", 1)
        sync_through(gateway, source, target)
        sync_native(source, replica)
        for pair in range(1, options.drain_pairs + 1):
            spooled.append(count / _fill(source, (replica, target), gateway, pieces, times, pair))
            for way in ("native", "through") if pair % 2 else ("through", "native"):
                rates[way].append(count / _release(replica if way == "native" else target, pair))
            here = [one.client.dbsize() for one in (source, replica, target)]
            if len(set(here)) != 1:
                raise RuntimeError(f"keys differ: {here}")
            one, other = rates["native"][-1], rates["through"][-1]
            options.say(
                f"drain {pair}/{options.drain_pairs}: native {one:,.0f}/s, from the spool {other:,.0f}/s; spooled at {spooled[-1]:,.0f}/s"
            )
    ratio = median(one / other for one, other in zip(rates["through"], rates["native"], strict=True))
    said = (
        f"{count:,} commands: native {median(rates['native']):,.0f}/s, from the spool {median(rates['through']):,.0f}/s; "
        f"they came in at {median(spooled):,.0f}/s"
    )
    return [Figure("drain", ratio, "x", 0.7, least=True, said=said, samples=rates | {"spooled": spooled})]


def _fill(source: Bench, waiting: tuple[Bench, Bench], gateway: GatewayProcess, pieces: list[bytes], times: int, number: int) -> float:
    """Seconds that it took until the source had executed, and the gateway received and translated, everything."""
    for one in waiting:
        one.process.pause()
    started = time.perf_counter()
    with Wire(source.port, TIMEOUT) as wire:
        wire.blast(pieces, times)
        wire.call(b"SET", b"end", number)
    gateway.has_received(source.number("replication", "master_repl_offset"), TIMEOUT)
    return time.perf_counter() - started


def _release(one: Bench, number: int) -> float:
    """Seconds from SIGCONT until the last command is visible."""
    wanted = b"%d" % number
    with Wire(one.port, TIMEOUT) as wire:
        started = time.perf_counter()
        one.process.resume()
        while wire.call(b"GET", b"end") != wanted:
            if time.perf_counter() - started > TIMEOUT:
                raise RuntimeError("it did not catch up")
            time.sleep(0.005)
        return time.perf_counter() - started
