"""Clients that write through a cut-over: ``python bench/writers.py SOURCE TARGET CLIENTS RATE`` until standard input ends; then one JSON line.

Each client numbers its writes and spreads them over 500 keys of its own, one write at a time, on a schedule. It starts at the source; when that refuses
(the fence), it turns to the target at once, over a connection that it has already, and tries the same write there until it is taken. What it saw is its
longest time from one acknowledged write to the next.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from typing import Any

__all__: list[str] = []

RETRY = 0.001
KEYS = 500  # of each client; cutover.py knows it too


@dataclass(slots=True)
class _Client:
    name: bytes
    acked: int = 0
    last: int = 0
    gap: float = 0.0
    moved: bool = False
    began: float = 0.0
    refusals: dict[str, int] = field(default_factory=dict)


class _Wire:
    """One command at a time; replies of one line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def call(self, command: bytes) -> bytes:
        self._writer.write(command)
        return await self._reader.readuntil(b"\r\n")


async def _write(client: _Client, source: _Wire, target: _Wire, period: float, offset: float, stop: asyncio.Event) -> None:
    from valkeep.wire.resp import encode

    clock = time.perf_counter
    at = source
    due = clock() + offset
    previous = 0.0
    client.began = due
    while not stop.is_set():
        wait = due - clock()
        if wait > 0:
            await asyncio.sleep(wait)
        due = max(due + period, clock() - 10 * period)  # what was missed is not made up for
        number = client.last + 1
        command = encode(b"SET", b"%s:%d" % (client.name, number % KEYS), number)
        while not stop.is_set():
            reply = await at.call(command)
            if reply.startswith(b"+"):
                break
            why = reply[1:].split(b" ", 1)[0].decode()
            client.refusals[why] = client.refusals.get(why, 0) + 1
            if at is source:
                at = target
                client.moved = True
            else:
                await asyncio.sleep(RETRY)
        else:
            return
        now = clock()
        client.last = number
        client.acked += 1
        if previous:
            client.gap = max(client.gap, now - previous)
        previous = now


async def _run(source: int, target: int, clients: int, rate: int) -> dict[str, Any]:
    async def connect(port: int) -> _Wire:
        return _Wire(*await asyncio.open_connection("127.0.0.1", port))

    all_of_them = [_Client(b"writer:%d" % number) for number in range(clients)]
    links = [(await connect(source), await connect(target)) for _ in all_of_them]
    stop = asyncio.Event()
    period = clients / rate
    asyncio.get_running_loop().add_reader(sys.stdin, stop.set)
    began = time.perf_counter()
    jobs = [
        asyncio.create_task(_write(client, *link, period, period * number / clients, stop))
        for number, (client, link) in enumerate(zip(all_of_them, links, strict=True))
    ]
    print("running", flush=True)
    await asyncio.gather(*jobs)
    seconds = time.perf_counter() - began
    refusals: dict[str, int] = {}
    for client in all_of_them:
        for why, count in client.refusals.items():
            refusals[why] = refusals.get(why, 0) + count
    return {
        "acked_per_second": sum(client.acked for client in all_of_them) / seconds,
        "moved": sum(client.moved for client in all_of_them),
        "gaps_ms": [client.gap * 1000 for client in all_of_them],
        "last": {client.name.decode(): client.last for client in all_of_them},
        "refusals": refusals,
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_run(*map(int, sys.argv[1:5])))))
