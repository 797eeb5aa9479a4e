"""A topology that somebody else runs, found from one URL: looked at and written to, never touched.

    found = await discover(Endpoint.parse("redis://10.0.0.5:26379"))       a sentinel, any node of a cluster, a primary or a replica
    async with RemoteDeployment(found) as deployment: …                    a Deployment whose machines refuse every verb

Discovery reads only: INFO, CLUSTER NODES and SLOTS, SENTINEL MASTERS, REPLICAS and SENTINELS, CONFIG GET. Every node that its own topology believes
to be alive has to answer from here, at the address that it announces: clients will be sent there. What is called failed is left out,
with a word about it. No node is named for a role that it may lose: n1 … are the primaries of now and then their replicas.

There are no logs, so who succeeded whom is read from INFO (see `drill.reigning`), and what the machines do about a fault is seen from
outside only.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NoReturn, Self

from valkeep.client.connection import Connection
from valkeep.client.endpoint import Endpoint
from valkeep.client.server_info import ServerInfo, server_info, text_of
from valkeep.errors import Refused, UsageError, ValkeepError
from valkeep.runtime.folder import temporary_folder
from valkeep.runtime.janitor import Janitor
from valkeep.topology.members import ClusterMember
from valkeep.topology.slots import SLOTS
from valkeep.topology.spec import STOCK_TIMEOUT_MS, FoundSpec, Kind, NodeSpec, Persistence, Slices, TopologySpec
from valkeep.topology.view import PROBES, data_view

__all__ = ["Found", "RemoteDeployment", "RemoteMachine", "RemoteNetwork", "discover"]

PATIENCE: Final = 5.0  # seconds for one node
_HOPS: Final = 8  # from a replica to its primary
_DOWN: Final = frozenset({"s_down", "o_down", "disconnected"})


@dataclass(frozen=True, slots=True)
class Found:
    """``nodes``: name → where it is, with its login. ``infos``: what each data node said. ``left_out``: members that were not reached for, and why."""

    spec: FoundSpec
    nodes: Mapping[str, Endpoint]
    infos: Mapping[str, ServerInfo]
    left_out: tuple[str, ...] = ()


async def discover(endpoint: Endpoint, *, login: Endpoint | None = None, monitored: str = "") -> Found:
    """What the server at ``endpoint`` is part of. ``login``: user and password of the data nodes where they are not those of ``endpoint`` (a sentinel);
    ``monitored``: which of the primaries that a sentinel watches, "" = the only one.

    Raises ``UsageError`` for a name that nobody watches, ``Refused`` for a topology that is not whole, and what connections raise."""
    place = endpoint.without_database()
    async with await Connection.open(place, PATIENCE, client_name="valkeep-discover") as connection:
        info = await server_info(connection)
        if info.mode == "sentinel":
            return await _watched(connection, replace(login or place, host="", db=0), monitored)
        if monitored:
            raise UsageError(f"{place.address} is no sentinel, so it watches nobody as {monitored!r}", remedy="name a sentinel's URL")
        if info.mode == "cluster":
            return await _cluster(connection)
    return await _replicated(place)


# ---------------------------------------------------------------------------------------------------------------- three kinds


async def _watched(connection: Connection, login: Endpoint, monitored: str) -> Found:
    me = connection.endpoint
    listed = [_pairs(one) for one in await connection.call("SENTINEL", "MASTERS")]
    names = ", ".join(one.get("name", "") for one in listed)
    if not monitored and len(listed) != 1:
        raise UsageError(f"{me.address} watches {len(listed)} primaries: {names or 'none'}", remedy="say which with --monitored NAME")
    primary = next((one for one in listed if not monitored or one.get("name") == monitored), None)
    if primary is None:
        raise UsageError(f"{me.address} watches no primary named {monitored!r}", remedy=f"it watches {names or 'none'}")
    name = primary["name"]
    others = [("replica", one) for one in map(_pairs, await connection.call("SENTINEL", "REPLICAS", name))]
    others += [("sentinel", one) for one in map(_pairs, await connection.call("SENTINEL", "SENTINELS", name))]
    if _DOWN & set(primary.get("flags", "").split(",")):
        raise Refused(f"{me.address} calls the primary of {name!r} down", remedy="wait until it has failed over")
    nodes, specs, left = {"n1": _at(login, primary)}, [NodeSpec("n1", "primary")], []
    nodes["s1"] = me
    for role, one in others:
        if down := _DOWN & set(one.get("flags", "").split(",")):
            left.append(f"{role} {one['ip']}:{one['port']}: {', '.join(sorted(down))}")
            continue
        letter = role[0] if role == "sentinel" else "n"
        number = sum(1 for known in nodes if known[0] == letter) + 1
        nodes[f"{letter}{number}"] = _at(me if role == "sentinel" else login, one)
        if role == "replica":
            specs.append(NodeSpec(f"n{number}", role, 0, "n1"))
    specs += [NodeSpec(known, "sentinel") for known in nodes if known[0] == "s"]
    return await _asked(
        Kind.SENTINEL, specs, nodes, left, called=name,
        timeout_ms=int(primary.get("down-after-milliseconds", 30_000)), failover_timeout_ms=int(primary.get("failover-timeout", 180_000)),
    )  # fmt: skip


async def _cluster(connection: Connection) -> Found:
    me = connection.endpoint
    seen = data_view("", await connection.pipeline(PROBES))
    members = [member for member in seen.members if not member.failing]
    primaries = sorted((one for one in members if "master" in one.flags and one.ranges), key=lambda one: one.ranges)
    served = sum(last - first + 1 for one in primaries for first, last in one.ranges)
    if served != SLOTS:
        raise Refused(
            f"{me.address} sees {served} of {SLOTS} slots served", remedy="'valkeep status' or CLUSTER NODES shows who is missing"
        )
    moving = [one.address for one in members if one.moving]
    if moving:
        raise Refused(f"slots are on the move at {', '.join(moving)}", remedy="wait until they have arrived")
    shard_of = {one.id: shard for shard, one in enumerate(primaries)}
    replicas = [one for one in members if "slave" in one.flags and one.primary_id in shard_of]
    specs = [NodeSpec(f"n{shard + 1}", "primary", shard) for shard in range(len(primaries))]
    for number, one in enumerate(replicas, len(primaries) + 1):
        specs.append(NodeSpec(f"n{number}", "replica", shard_of[one.primary_id], f"n{shard_of[one.primary_id] + 1}"))
    nodes = {spec.name: _member(me, one) for spec, one in zip(specs, [*primaries, *replicas], strict=True)}
    left = [f"{one.address}: {', '.join(sorted(one.flags))}" for one in seen.members if one.failing]
    timeout = await _setting(connection, "cluster-node-timeout")
    return await _asked(
        Kind.CLUSTER, specs, nodes, left, owned=tuple(one.ranges for one in primaries),
        timeout_ms=int(timeout or STOCK_TIMEOUT_MS[Kind.CLUSTER]),
    )  # fmt: skip


async def _replicated(place: Endpoint) -> Found:
    """A primary that nobody watches, and the replicas that it calls online."""
    for _ in range(_HOPS):
        async with await Connection.open(place, PATIENCE, client_name="valkeep-discover") as connection:
            info = await server_info(connection)
            seen = data_view("n1", await connection.pipeline(PROBES[:1]))
        if info.role != "replica":
            break
        place = _at(place, {"ip": info.fields.get("master_host", ""), "port": info.fields.get("master_port", "0")})
    else:
        raise Refused(f"{place.address} is a replica of a replica of … {_HOPS} times", remedy="name the primary's URL")
    nodes, specs = {"n1": place}, [NodeSpec("n1", "primary")]
    for number, address in enumerate(seen.online, 2):
        host, _, port = address.rpartition(":")
        nodes[f"n{number}"] = replace(place, host=host, port=int(port))
        specs.append(NodeSpec(f"n{number}", "replica", 0, "n1"))
    return await _asked(Kind.STANDALONE, specs, nodes, [], timeout_ms=0)


# -------------------------------------------------------------------------------------------------------------------- parts


async def _asked(
    kind: Kind,
    specs: Sequence[NodeSpec],
    nodes: Mapping[str, Endpoint],
    left: Sequence[str],
    *,
    timeout_ms: int,
    failover_timeout_ms: int = 0,
    owned: Slices = (),
    called: str = "",
) -> Found:
    """Every node answers, and the first primary says how it keeps its data."""
    infos: dict[str, ServerInfo] = {}
    persistence = Persistence.NONE
    for spec in specs:
        try:
            async with await Connection.open(nodes[spec.name], PATIENCE, client_name="valkeep-discover") as connection:
                infos[spec.name] = await server_info(connection)
                if spec.name == "n1":
                    persistence = await _persistence(connection, infos[spec.name])
        except ValkeepError as error:
            raise error.saying(
                f"{error.message} (its topology announces it as a {spec.role})",
                remedy="clients are sent to the addresses that nodes announce, so they have to be reached from here, and with this login",
            ) from error
    primaries = [spec for spec in specs if spec.role == "primary"]
    for one in primaries:
        if infos[one.name].role != "primary":
            raise Refused(f"{nodes[one.name].address} is called a primary and says that it is a replica", remedy="is a failover under way?")
    found = FoundSpec(
        kind,
        shards=len(primaries),
        replicas=max(sum(1 for one in specs if one.of == primary.name) for primary in primaries),
        sentinels=sum(1 for one in specs if one.role == "sentinel"),
        timeout_ms=timeout_ms,
        failover_timeout_ms=failover_timeout_ms,
        persistence=persistence,
        server=infos["n1"].name,
        found=tuple(specs),
        owned=owned or (((0, SLOTS - 1),),),
        called=called,
    )
    return Found(
        found, {one.name: nodes[one.name] for one in specs}, {name: one for name, one in infos.items() if name[0] == "n"}, tuple(left)
    )


async def _persistence(connection: Connection, info: ServerInfo) -> Persistence:
    """What survives the end of a process there; where it does not tell, the least that it can be."""
    if info.number("aof_enabled"):
        policy = await _setting(connection, "appendfsync")
        return {"always": Persistence.ALWAYS, "everysec": Persistence.EVERYSEC}.get(policy, Persistence.RDB)
    return Persistence.RDB if await _setting(connection, "save") else Persistence.NONE


async def _setting(connection: Connection, name: str) -> str:
    """ "" where it is empty, or CONFIG is not permitted."""
    (reply,) = await connection.pipeline([("CONFIG", "GET", name)])
    return text_of(reply[1]) if isinstance(reply, list) and len(reply) == 2 else ""


def _pairs(reply: Any) -> dict[str, str]:
    texts = [text_of(item) for item in reply]
    return dict(zip(texts[::2], texts[1::2], strict=False))


def _at(login: Endpoint, one: Mapping[str, str]) -> Endpoint:
    return replace(login, host=one["ip"], port=int(one["port"]))


def _member(me: Endpoint, member: ClusterMember) -> Endpoint:
    """Where a member is, as clients are told; who does not know its own address is where it was asked."""
    host, _, port = member.address.rpartition(":")
    return replace(me, host=host or me.host, port=int(port))


# --------------------------------------------------------------------------------------------------------------- deployment


class RemoteNetwork:
    """A `runtime.deployment.Network` that nobody here may cut."""

    how = "none"

    def source(self, client: str) -> str:  # noqa: ARG002 - one address for all
        return ""

    async def cut(self, senders: frozenset[str], receivers: frozenset[str]) -> None:  # noqa: ARG002
        raise _hands_off("its network")

    async def delay(self, names: frozenset[str], milliseconds: float) -> None:  # noqa: ARG002
        raise _hands_off("its network")

    async def heal(self) -> None:
        """Nothing was ever cut."""


class RemoteMachine:
    """A node of somebody else: it can be asked, and nothing else. Whether it runs only its owner knows, so it counts as ``alive``."""

    alive = True

    def __init__(self, spec: NodeSpec, endpoint: Endpoint) -> None:
        self.spec, self.endpoint = spec, endpoint

    def __repr__(self) -> str:
        return f"<RemoteMachine {self.spec.name} at {self.endpoint.address}>"

    def log(self) -> str:
        """Nothing: logs stay where they are."""
        return ""

    async def kill(self) -> None:
        self._refuse()

    async def stop(self, timeout: float = 10.0) -> None:  # noqa: ARG002
        self._refuse()

    async def start(self, timeout: float = 20.0) -> None:  # noqa: ARG002
        self._refuse()

    async def pause(self) -> None:
        self._refuse()

    async def resume(self) -> None:
        self._refuse()

    async def empty(self) -> None:
        self._refuse()

    async def crash(self) -> None:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise _hands_off(f"{self.spec.name} at {self.endpoint.address}")


def _hands_off(what: str) -> Refused:
    return Refused(
        f"{what} is not ours, and is not touched", remedy="break it yourself while the load runs, or drill a topology of this machine"
    )


class RemoteDeployment:
    """``async with RemoteDeployment(found)``: a `runtime.deployment.Deployment` of nodes that were there before and stay. ``folder`` is on this machine,
    for the recorder, and goes at the end."""

    runtime = "remote"
    abilities: frozenset[str] = frozenset()

    def __init__(self, found: Found) -> None:
        self.spec: TopologySpec = found.spec
        self.server = found.infos["n1"].name
        self.network = RemoteNetwork()
        self.machines = {spec.name: RemoteMachine(spec, found.nodes[spec.name]) for spec in found.spec.nodes()}
        self.folder = Path()
        self._janitor: Janitor | None = None

    async def ready(self) -> None:
        """It was found whole."""

    async def __aenter__(self) -> Self:
        self._janitor = await asyncio.to_thread(Janitor)
        self.folder = temporary_folder(self._janitor.remove)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(shutil.rmtree, self.folder, True)
        if self._janitor is not None:
            await asyncio.to_thread(self._janitor.dismiss)
