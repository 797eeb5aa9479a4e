"""What a delivery by push has left in the target: its markers and its settings, in one server or in each shard of a cluster; by the state file.

A shard is asked at the address that it had. Where its marker's slot belongs to another node by now, that one is asked.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from valkeep.client.cluster import parse_redirect
from valkeep.client.connection import Connection, Value
from valkeep.client.server_info import server_info
from valkeep.errors import ConnectionLost, ServerError
from valkeep.migrate import marker
from valkeep.topology.slots import key_slot

if TYPE_CHECKING:
    from collections.abc import Mapping

    from valkeep.client.endpoint import Endpoint
    from valkeep.migrate.state import MigrationState

__all__ = ["identity", "marks", "places", "promoted", "restore"]

SPARE: Final = 100  # keys more than there were


async def marks(target: Connection, found: MigrationState) -> list[bytes | None]:
    """The value of each marker; None where there is none."""
    if not found.shards:
        return [await marker.read(target)]
    return list(await asyncio.gather(*(_mark(target.endpoint, at, key) for at, key in _asked(found))))


async def promoted(target: Connection, found: MigrationState) -> bool | None:
    """Whether all markers are gone, as the promotion leaves it; None where somebody does not answer, and the others have none."""
    if not found.shards:
        return await marker.read(target) is None
    values = await asyncio.gather(*(_stands(target.endpoint, at, key) for at, key in _asked(found)))
    return False if True in values else None if None in values else True


def places(target: Endpoint, found: MigrationState) -> list[Endpoint]:
    """Where the target may be asked: as it was given, and its shards."""
    return [target, *(_there(target, address) for address in found.shards)]


def _asked(found: MigrationState) -> list[tuple[str, str]]:
    return [(at, key) for at, one in found.shards.items() for key in one["marker"].split()]


async def _mark(seed: Endpoint, at: str, key: str) -> bytes | None:
    value = await _at(seed, at, "GET", key)
    return None if value is None else bytes(value)


async def identity(target: Connection, found: MigrationState) -> str:
    """The run_id of the target's process; of all shards, where it is a cluster."""
    if not found.shards:
        return (await server_info(target)).run_id
    return "+".join([(await _info(_there(target.endpoint, address))) for address in found.shards])


async def restore(target: Connection, found: MigrationState) -> list[str]:
    """The markers away, settings as they were; what was done, in sentences."""
    if not found.shards:
        await target.execute([("SELECT", marker.DATABASE), ("DEL", marker.KEY)])
        return await _settings(target, found.target_before, "target")
    done: list[str] = []
    away: ConnectionLost | None = None
    for address, one in found.shards.items():
        try:
            await _at(target.endpoint, address, "DEL", *one["marker"].split())
            async with await Connection.open(_there(target.endpoint, address), client_name="valkeep-migrate") as connection:
                before = {name: value for name, value in one.items() if name not in ("marker", "run_id")}
                done += await _settings(connection, before, f"target's shard {address}")
        except ConnectionLost as error:  # the others, all the same
            away = away or error
    if away is not None:
        raise away.saying("; ".join([away.message, *done]))
    return done


async def _stands(seed: Endpoint, at: str, key: str) -> bool | None:
    """Whether this marker is there; None where nobody answers. A cluster of which a node is away serves no keys, and says their names."""
    try:
        return bool(await _at(seed, at, "EXISTS", key) == 1)
    except ConnectionLost:
        pass
    slot = key_slot(key.encode())
    try:
        async with await Connection.open(_there(seed, at), client_name="valkeep-migrate") as connection:
            count = await connection.call("CLUSTER", "COUNTKEYSINSLOT", slot)
            assert isinstance(count, int)
            names = await connection.call("CLUSTER", "GETKEYSINSLOT", slot, count + SPARE)
            assert isinstance(names, list)
    except ConnectionLost:
        return None
    return True if key.encode() in names else None  # the slot may be another's by now


async def _settings(connection: Connection, before: Mapping[str, str], whose: str) -> list[str]:
    done = []
    for name, value in before.items():
        await connection.call("CONFIG", "SET", name, value)
        done.append(f"the {whose}'s {name} is {value} again")
    return done


async def _info(endpoint: Endpoint) -> str:
    async with await Connection.open(endpoint, client_name="valkeep-migrate") as connection:
        return (await server_info(connection)).run_id


async def _at(seed: Endpoint, address: str, *command: str) -> Value:
    endpoint = _there(seed, address)
    for _ in range(3):
        async with await Connection.open(endpoint, client_name="valkeep-migrate") as connection:
            try:
                return await connection.call(*command)
            except ServerError as error:
                moved = parse_redirect(error, endpoint)
                if error.kind == "CLUSTERDOWN":
                    raise ConnectionLost(f"{endpoint.address} is in a cluster that is not complete", remedy=error.remedy) from None
                if moved is None:
                    raise
                endpoint = moved.owner
    raise ServerError("CLUSTERDOWN", "its slots move")


def _there(seed: Endpoint, address: str) -> Endpoint:
    """By the login of the node that was given."""
    host, _, port = address.rpartition(":")
    return replace(seed, host=host.strip("[]"), port=int(port))
