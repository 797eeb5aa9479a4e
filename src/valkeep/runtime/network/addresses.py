"""Where each node listens, what address it tells the others, and which configuration lines that takes.

Partitions need to know who sent a packet, so every node and every client gets a loopback address of its own wherever the system has
them (Linux owns all of 127.0.0.0/8, macOS only 127.0.0.1)::

    127.b.1.x   nodes n1, n2 …          127.b.3.x   sentinels s1, s2 …
    127.b.2.x   clients c1, c2 …        127.b.4.x / 127.b.5.x   what the proxy answers on, for nodes / sentinels

``x`` counts from 1 to 250, ``b`` is 0 for the first 250 of them, 1 for the next, and so on: n1 = 127.0.1.1, n251 = 127.1.1.1.

Servers bind what they connect *from* too (``bind-source-addr``, honoured by replication, the cluster bus and Sentinel alike), so a
source address names its sender. Four layouts:

    namespace   own addresses and the usual ports (7000, 26379): nobody else is in the namespace
    loopback    own addresses, reserved ports: the host's other programs are there too
    proxy       the same, and each node is announced by another address, on which the proxy answers
    ports       one address, reserved ports (macOS)

Valkeep itself connects from 127.0.0.1, which belongs to nobody and is never cut off.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from valkeep.errors import UsageError
from valkeep.runtime import ports
from valkeep.topology.spec import Kind, TopologySpec

__all__ = ["DATA_PORT", "LAYOUTS", "SENTINEL_PORT", "Address", "Addresses", "Seat", "client_address"]

DATA_PORT, SENTINEL_PORT = 7000, 26379
LAYOUTS: Final = ("namespace", "loopback", "proxy", "ports")
_NODES, _CLIENTS, _SENTINELS, _PROXIED = 1, 2, 3, {1: 4, 3: 5}
_EACH: Final = 250

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Seat:
    """Of one node. ``listen``: what the server binds; ``announced``: where everybody else is told to find it."""

    listen: Address
    announced: Address


def _host(block: int, number: int) -> str:
    """``number`` from 1."""
    return f"127.{(number - 1) // _EACH}.{block}.{(number - 1) % _EACH + 1}"


def client_address(client: str) -> str:
    """c7 → 127.0.2.7. Raises ``UsageError`` for a name that has no number."""
    match = re.fullmatch(r"[a-z]+([1-9]\d{0,4})", client)
    if match is None or int(match[1]) > _EACH * _EACH:
        raise UsageError(f"{client!r} is no name of a client", remedy="clients are c1, c2, …")
    return _host(_CLIENTS, int(match[1]))


class Addresses:
    """The seats of every node of ``spec`` in one ``layout``; holds the reservations of their ports until `release`."""

    def __init__(self, spec: TopologySpec, layout: str) -> None:
        if layout not in LAYOUTS:
            raise UsageError(f"{layout!r} is no layout of addresses", remedy=f"one of {', '.join(LAYOUTS)}")
        if layout in ("loopback", "proxy") and sys.platform != "linux":
            raise UsageError(f"the layout {layout} needs 127.0.0.0/8, which only Linux has", remedy="use the layout ports")
        self.spec, self.layout = spec, layout
        self._reserved: list[ports.Reservation] = []
        self._roles = {node.name: node.role for node in spec.nodes()}
        try:
            self.seats: Mapping[str, Seat] = {node.name: self._seat(node.name, node.role) for node in spec.nodes()}
        except BaseException:
            self.release()
            raise

    def listen(self, name: str) -> Address:
        return self.seats[name].listen

    def announced(self, name: str) -> Address:
        return self.seats[name].announced

    def source(self, client: str) -> str:
        """The address from which the client of this name connects; "" where all have the same."""
        return "" if self.layout == "ports" else client_address(client)

    def host(self, name: str) -> str:
        """The address that this node or client sends from. Raises ``UsageError`` for a name that is neither."""
        seat = self.seats.get(name)
        return seat.listen[0] if seat else client_address(name)

    def settings(self, name: str) -> dict[str, str | int]:
        """The lines of this node's configuration that concern its address."""
        seat, role = self.seats[name], self._roles[name]
        host, port = seat.listen
        lines: dict[str, str | int] = {"bind": host, "protected-mode": "no"}
        if self.spec.tls:
            lines |= {"port": 0, "tls-port": port}
        else:
            lines["port"] = port
        if self.layout != "ports":
            lines["bind-source-addr"] = host
        if seat.announced != seat.listen:
            lines |= self._announcing(role, *seat.announced)
        return lines

    def release(self) -> None:
        """Give the ports back."""
        for reservation in self._reserved:
            reservation.release()
        self._reserved.clear()

    def _announcing(self, role: str, host: str, port: int) -> dict[str, str | int]:
        if role == "sentinel":
            return {"sentinel announce-ip": host, "sentinel announce-port": port}
        if self.spec.kind is Kind.CLUSTER:
            of_clients = "cluster-announce-tls-port" if self.spec.tls else "cluster-announce-port"
            return {"cluster-announce-ip": host, of_clients: port, "cluster-announce-bus-port": port + ports.BUS}
        return {"replica-announce-ip": host, "replica-announce-port": port}

    def _seat(self, name: str, role: str) -> Seat:
        block = _SENTINELS if role == "sentinel" else _NODES
        number = int(name.lstrip("ns"))
        if self.layout == "namespace":
            own = (_host(block, number), SENTINEL_PORT if role == "sentinel" else DATA_PORT)
            return Seat(own, own)
        host = "127.0.0.1" if self.layout == "ports" else _host(block, number)
        reservation = ports.reserve(host=host)
        self._reserved.append(reservation)
        own = (host, reservation.port)
        return Seat(own, (_host(_PROXIED[block], number), reservation.port) if self.layout == "proxy" else own)
