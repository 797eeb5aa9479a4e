"""The network of a local deployment, and what is common to all three: addresses. Nothing stands between these nodes.

A deployment makes one with `network.make`, ``start``s it before its nodes (a proxy has to listen first), writes ``settings(name)`` into each
node's configuration, starts the server on ``listen(name)``, tells everybody else ``announced(name)``, and ``close``s it after them.
"""

from __future__ import annotations

from valkeep.errors import Refused
from valkeep.runtime.network.addresses import Address, Addresses

__all__ = ["LoopbackNetwork"]


class LoopbackNetwork:
    """A `runtime.deployment.Network` that can not cut anything. ``how``: what reports call it. ``abilities``: of partition, delay."""

    how = "none"
    abilities: frozenset[str] = frozenset()

    def __init__(self, addresses: Addresses) -> None:
        self.addresses = addresses

    def listen(self, name: str) -> Address:
        """Host and port that the node's server binds."""
        return self.addresses.listen(name)

    def announced(self, name: str) -> Address:
        """Host and port by which clients and other nodes know the node."""
        return self.addresses.announced(name)

    def settings(self, name: str) -> dict[str, str | int]:
        """The lines of the node's configuration that concern its address (bind, port, what it announces)."""
        return self.addresses.settings(name)

    def source(self, client: str) -> str:
        return self.addresses.source(client)

    async def start(self) -> None:
        """Before the first node starts."""

    async def close(self) -> None:
        """After the last node has ended: everything passes again, ports are given back. May be called twice."""
        self.addresses.release()

    async def cut(self, senders: frozenset[str], receivers: frozenset[str]) -> None:
        raise self._unable(f"drop what {_listed(senders)} send to {_listed(receivers)}")

    async def delay(self, names: frozenset[str], milliseconds: float) -> None:
        raise self._unable(f"make the packets of {_listed(names)} {milliseconds:g} ms late")

    async def heal(self) -> None:
        """All packets pass again, at once."""

    def _unable(self, what: str) -> Refused:
        return Refused(
            f"this network ({self.how}) can not {what}",
            remedy="on Linux, a network namespace (apt-get install nftables) partitions, and the proxy partitions and delays",
        )


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))
