"""What every network that can partition has to do, whatever it is made of: run in a process of its own, because a namespace is entered for good.

python -m tests.support.network_contract namespace|proxy CASE
"""

from __future__ import annotations

import asyncio
import math
import socket
import sys
import time
from collections.abc import Awaitable, Callable

from valkeep.client.connection import Connection
from valkeep.runtime import network as networks
from valkeep.runtime.local import LocalDeployment
from valkeep.topology.spec import Kind, TopologySpec

CASES: dict[str, Callable[[LocalDeployment], Awaitable[None]]] = {}


def case(check: Callable[[LocalDeployment], Awaitable[None]]) -> Callable[[LocalDeployment], Awaitable[None]]:
    CASES[check.__name__] = check
    return check


def names(text: str) -> frozenset[str]:
    return frozenset(text.split(","))


class Caller:
    """A client with an address of its own, on a plain socket: what it does not get, it did not get."""

    def __init__(self, deployment: LocalDeployment, name: str, node: str, timeout: float = 10.0) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(timeout)
        self.socket.bind((deployment.network.source(name), 0))
        self.socket.connect(deployment.network.announced(node))

    def say(self, line: str) -> None:
        self.socket.sendall(line.encode() + b"\r\n")

    def hear(self, timeout: float = 10.0) -> str:
        """One reply; "" when none comes within ``timeout`` seconds."""
        self.socket.settimeout(timeout)
        try:
            return self.socket.recv(4096).decode()
        except TimeoutError:
            return ""

    def ask(self, line: str, timeout: float = 10.0) -> str:
        self.say(line)
        return self.hear(timeout)


def connects(deployment: LocalDeployment, name: str, node: str, timeout: float = 10.0) -> bool:
    """Whether a new connection of this client gets an answer within ``timeout`` seconds."""
    try:
        caller = Caller(deployment, name, node, timeout)
    except TimeoutError:
        return False
    with caller.socket:
        return caller.ask("PING", timeout) != ""


@case
async def a_cut_stops_replication_and_the_heal_lets_it_go_on(deployment: LocalDeployment) -> None:
    primary = await Connection.open(deployment.machines["n1"].endpoint)
    await primary.call("SET", "k", "1")
    assert await primary.call("WAIT", 1, 10_000, timeout=20) == 1
    await deployment.network.cut(names("n1"), names("n2"))
    await primary.call("SET", "k", "2")
    assert await primary.call("WAIT", 1, 400, timeout=10) == 0
    await deployment.network.heal()
    assert await primary.call("WAIT", 1, 10_000, timeout=20) == 1
    await primary.close()


@case
async def a_cut_client_hears_nothing_on_old_and_new_connections_and_others_do(deployment: LocalDeployment) -> None:
    cut_off, other = Caller(deployment, "c1", "n1"), Caller(deployment, "c2", "n1")
    assert cut_off.ask("PING") == other.ask("PING") == "+PONG\r\n"
    await deployment.network.cut(names("c1"), names("n1"))
    await deployment.network.cut(names("n1"), names("c1"))
    assert cut_off.ask("SET k 1", 0.4) == ""
    assert not await asyncio.to_thread(connects, deployment, "c1", "n1", 0.5)
    assert other.ask("GET k") == "$-1\r\n"
    assert connects(deployment, "c2", "n1")
    assert connects(deployment, "c1", "n2")
    await deployment.network.heal()
    assert cut_off.hear() == "+OK\r\n", "what was on its way arrives after the heal, as TCP sends it again"
    assert connects(deployment, "c1", "n1")


@case
async def a_one_way_cut_lets_the_write_through_and_holds_its_reply(deployment: LocalDeployment) -> None:
    cut_off, other = Caller(deployment, "c1", "n1"), Caller(deployment, "c2", "n1")
    assert cut_off.ask("PING") == "+PONG\r\n"
    await deployment.network.cut(names("n1"), names("c1"))
    assert cut_off.ask("SET k 1", 0.4) == ""
    assert other.ask("GET k") == "$1\r\n1\r\n"
    await deployment.network.heal()
    assert cut_off.hear() == "+OK\r\n"


@case
async def delay_makes_both_ways_slow_until_the_heal(deployment: LocalDeployment) -> None:
    if "delay" not in deployment.network.abilities:
        return
    caller, other = Caller(deployment, "c1", "n1"), Caller(deployment, "c2", "n1")

    def took(one: Caller) -> float:
        """At best: a busy machine makes single ones slower, and none faster."""
        best = math.inf
        for _ in range(5):
            begun = time.monotonic()
            assert one.ask("PING") == "+PONG\r\n"
            best = min(best, time.monotonic() - begun)
        return best

    assert took(caller) < 0.1
    await deployment.network.delay(names("c1"), 150)
    assert 0.3 <= took(caller) < 0.5
    assert took(other) < 0.1
    await deployment.network.heal()
    assert took(caller) < 0.1


async def main(how: str, name: str) -> None:
    networks.prepare(how)
    spec = TopologySpec(Kind.STANDALONE, replicas=1, timeout_ms=0)
    async with LocalDeployment(spec, network=networks.make(spec, how)) as deployment:
        assert deployment.network.how == how
        await CASES[name](deployment)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
