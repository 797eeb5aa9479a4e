"""What stands between the nodes of a local deployment: nothing, a namespace's packet filter, or a proxy.

Two steps, because the second can't be taken back and has to come before any thread:

    how = choose(needs)          what this machine can do for these needs: namespace | proxy | none
    prepare(how)                 moves this process into its namespace, where that is how
    network = make(spec, how)    addresses of every node, and the verbs cut, delay, heal
"""

from __future__ import annotations

import sys

from valkeep.errors import UsageError
from valkeep.runtime.network import namespace
from valkeep.runtime.network.addresses import Addresses
from valkeep.runtime.network.loopback import LoopbackNetwork
from valkeep.runtime.network.nft import NftNetwork
from valkeep.runtime.network.proxy import ProxyNetwork
from valkeep.topology.spec import TopologySpec

__all__ = ["WAYS", "choose", "make", "prepare"]

WAYS = ("namespace", "proxy", "none")


def choose(needs: frozenset[str], wanted: str = "") -> str:
    """How nodes are connected. ``needs``: of the drill (partition, delay, full-disk, …). ``wanted``: a person's choice, which wins.

    A namespace where there can be one and no delay is needed, else the proxy where something has to be cut or delayed, else nothing.
    """
    if wanted:
        if wanted not in WAYS:
            raise UsageError(f"{wanted!r} is no way to connect nodes", remedy=f"one of {', '.join(WAYS)}")
        return wanted
    if "delay" not in needs and not namespace.possible():
        return "namespace"
    if sys.platform == "linux" and needs & {"partition", "delay"}:
        return "proxy"
    return "none"


def prepare(how: str) -> None:
    """Enter the namespace, where that is ``how``. Once for each process, while it has one thread; raises ``Refused``."""
    if how == "namespace":
        namespace.enter()


def make(spec: TopologySpec, how: str) -> LoopbackNetwork:
    """The network for the nodes of ``spec``; not started yet. Its ``close`` gives the ports back."""
    if how == "namespace":
        return NftNetwork(Addresses(spec, "namespace"))
    if how == "proxy":
        return ProxyNetwork(Addresses(spec, "proxy"))
    return LoopbackNetwork(Addresses(spec, "loopback" if sys.platform == "linux" else "ports"))
