"""Partitions and delay without any privilege: every connection between nodes and clients goes through a proxy of ours.

Each node listens on its own address and *announces* another one, on which the proxy's process (`pump`) answers for it. Where this differs
from packets that the kernel drops:

* A new connection across a cut is accepted and gets silence, where a real one would not be made: a client waits for its reply instead of
  for its connection. Sentinel and the cluster bus do not notice the difference; both go by the missing reply.
* A one-way cut leaves the other way in order. On a real wire it stalls after some kilobytes, for want of acknowledgements.
* After the heal bytes flow at once; TCP proper may take seconds, until its timer expires.
* A node that was killed: connections are accepted, then reset, where they would be refused.
* Bytes cost some 50 µs more on each way, and one core carries some thousand megabits.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from valkeep.errors import Refused, ValkeepError
from valkeep.runtime import ports
from valkeep.runtime.network import pump
from valkeep.runtime.network.addresses import Addresses
from valkeep.runtime.network.loopback import LoopbackNetwork
from valkeep.topology.spec import Kind

__all__ = ["ProxyNetwork"]


class ProxyNetwork(LoopbackNetwork):
    """``addresses`` in the layout ``proxy``."""

    how = "proxy"
    abilities = frozenset({"partition", "delay"})

    def __init__(self, addresses: Addresses) -> None:
        super().__init__(addresses)
        self._pump: subprocess.Popen[bytes] | None = None
        self._guard = threading.Lock()

    async def start(self) -> None:
        await asyncio.to_thread(self._launch)
        doors: list[Any] = []
        for seat in self.addresses.seats.values():
            doors.append((seat.announced, seat.listen))
            if self.addresses.spec.kind is Kind.CLUSTER:
                doors.append([(host, port + ports.BUS) for host, port in (seat.announced, seat.listen)])
        await self._order(doors=doors)

    async def close(self) -> None:
        await asyncio.to_thread(self._end)
        await super().close()

    async def cut(self, senders: frozenset[str], receivers: frozenset[str]) -> None:
        """In force when it returns. Cuts add up until `heal`."""
        await self._order(cut=[[*map(self.addresses.host, senders)], [*map(self.addresses.host, receivers)]])

    async def delay(self, names: frozenset[str], milliseconds: float) -> None:
        """Between two that are late the greater delay counts, once."""
        await self._order(late=[[*map(self.addresses.host, names)], milliseconds / 1000])

    async def heal(self) -> None:
        if self._pump is not None:
            await self._order(heal=True)

    async def _order(self, **order: Any) -> None:
        await asyncio.to_thread(self._ask, order)

    def _launch(self) -> None:
        self._pump = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(pump.__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _ask(self, order: dict[str, Any]) -> None:
        child = self._pump
        if child is None:
            raise Refused("the proxy does not run", remedy="start() the network first")
        assert child.stdin is not None
        assert child.stdout is not None
        with self._guard:
            try:
                child.stdin.write(json.dumps(order).encode() + b"\n")
                child.stdin.flush()
                reply = child.stdout.readline()
            except OSError:
                reply = b""
        if not reply:
            raise ValkeepError(
                "the proxy between the nodes has died", remedy="run it again; look for an out-of-memory kill in the system's log"
            )
        error = json.loads(reply).get("error")
        if error:
            raise Refused(
                f"the proxy between the nodes can not do that: {error}", remedy="see what listens on 127.0.4.x and 127.0.5.x (ss -ltnp)"
            )

    def _end(self) -> None:
        child, self._pump = self._pump, None
        if child is None:
            return
        assert child.stdin is not None
        assert child.stdout is not None
        with self._guard:
            child.stdin.close()
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            child.stdout.close()
