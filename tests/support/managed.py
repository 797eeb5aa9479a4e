"""A user as managed services give one: who may read and write everything, and neither replicate nor configure."""

from __future__ import annotations

from typing import Any

from valkeep.client.endpoint import Endpoint, Secret
from valkeep.runtime.node import Process

__all__ = ["MANAGED", "managed"]

MANAGED = ("-psync", "-sync", "-replconf", "-config", "-replicaof", "-debug")


def managed(client: Any, node: Process, *deny: str) -> Endpoint:
    """Make that user. ``deny``: ACL rules in place of the usual ones."""
    client(node).execute_command("ACL", "SETUSER", "managed", "on", ">pw", "+@all", "~*", "&*", *(deny or MANAGED))
    return Endpoint("127.0.0.1", node.port, username="managed", password=Secret("pw"))
