"""Partitions by the kernel's packet filter, in a network namespace of our own.

A cut is one rule: *drop what comes from these addresses and goes to those*. It holds for new and for established connections alike,
in one direction; packets of the other direction pass, but what they acknowledge was never seen, so TCP gets stuck there as well, as
it does on a real one-way link. After the heal, TCP sends again what was dropped, when its (doubling) timer says so: a connection
that was cut for 8 s may need some seconds more. That, too, is what real networks do.

Each change is one transaction of ``nft``: other processes see all of it or nothing. Rules hang on ``input``, not on ``output``: a packet
dropped there would show the sender an error that no wire gives.

There is no delay here: it needs the kernel module sch_netem, which many kernels of virtual machines do not have. The proxy delays.
"""

from __future__ import annotations

import asyncio
import functools
import shutil
import subprocess
from typing import Final

from valkeep.errors import Refused
from valkeep.runtime.network import namespace
from valkeep.runtime.network.addresses import Addresses
from valkeep.runtime.network.loopback import LoopbackNetwork

__all__ = ["NftNetwork", "check", "program"]

_OPEN: Final = """\
add table inet valkeep
add chain inet valkeep arriving { type filter hook input priority 0 ; }
"""
_CLOSE: Final = "add table inet valkeep\ndelete table inet valkeep\n"  # added first: deleting what is not there would be an error


@functools.lru_cache(maxsize=1)
def program() -> str:
    """Where it is. Raises ``Refused`` when it is nowhere."""
    found = shutil.which("nft") or shutil.which("nft", path="/usr/sbin:/sbin:/usr/local/sbin")
    if found is None:
        raise Refused("the program nft is not on this machine", remedy="apt-get install nftables; without it the proxy is used instead")
    return found


def _run(script: str) -> None:
    done = subprocess.run([program(), "-f", "-"], input=script, capture_output=True, text=True, check=False, timeout=20)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise Refused(f"nft can not filter packets here: {said[0] if said else 'no reason given'}", remedy="use the proxy instead")


def _rule(senders: list[str], receivers: list[str]) -> str:
    return f"add rule inet valkeep arriving ip saddr {{ {', '.join(senders)} }} ip daddr {{ {', '.join(receivers)} }} drop\n"


def check() -> None:
    """Whether rules can be written in this namespace; raises ``Refused`` where not. Leaves none."""
    _run(_OPEN + _rule(["127.0.1.1"], ["127.0.1.2"]) + _CLOSE)


class NftNetwork(LoopbackNetwork):
    """Of a process that has entered its namespace."""

    how = "namespace"
    abilities = frozenset({"partition"})

    def __init__(self, addresses: Addresses) -> None:
        if not namespace.entered():
            raise Refused(
                "packets are only filtered in a namespace of our own, and this process is in the system's",
                remedy="call namespace.enter() first",
            )
        super().__init__(addresses)

    async def cut(self, senders: frozenset[str], receivers: frozenset[str]) -> None:
        """In force when it returns. Cuts add up until `heal`."""
        if senders and receivers:
            rule = _rule(sorted(map(self.addresses.host, senders)), sorted(map(self.addresses.host, receivers)))
            await asyncio.to_thread(_run, _OPEN + rule)

    async def heal(self) -> None:
        await asyncio.to_thread(_run, _CLOSE)

    async def close(self) -> None:
        await self.heal()
        await super().close()
