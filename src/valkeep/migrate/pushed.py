"""What a delivery by push has left in the target: its markers and its settings, in one server or in each shard of a cluster; by the state file.

A shard is asked at the address that it had. Where its marker's slot belongs to another node by now, that one is asked.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from valkeep.client.cluster import parse_redirect
from valkeep.client.connection import Connection, Value
from valkeep.client.server_info import server_info
from valkeep.errors import ServerError
from valkeep.migrate import marker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from valkeep.client.endpoint import Endpoint
    from valkeep.migrate.state import MigrationState

__all__ = ["identity", "marks", "restore"]


async def marks(target: Connection, found: MigrationState) -> list[bytes | None]:
    """The value of each marker; None where there is none."""
    if not found.shards:
        return [await marker.read(target)]
    asked = [(at, key) for at, one in found.shards.items() for key in one["marker"].split()]
    values = await asyncio.gather(*(_at(target.endpoint, at, "GET", key) for at, key in asked))
    return [None if value is None else bytes(value) for value in values]


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
    done = []
    for address, one in found.shards.items():
        await _at(target.endpoint, address, "DEL", *one["marker"].split())
        async with await Connection.open(_there(target.endpoint, address), client_name="valkeep-migrate") as connection:
            before = {name: value for name, value in one.items() if name not in ("marker", "run_id")}
            done += await _settings(connection, before, f"target's shard {address}")
    return done


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
                if moved is None:
                    raise
                endpoint = moved.owner
    raise ServerError("CLUSTERDOWN", "its slots move")


def _there(seed: Endpoint, address: str) -> Endpoint:
    """By the login of the node that was given."""
    host, _, port = address.rpartition(":")
    return replace(seed, host=host.strip("[]"), port=int(port))
