"""Servers for tests: a missing one is skipped aloud (see ``skips``)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from valkeep.errors import ValkeepError
from valkeep.runtime import servers
from valkeep.runtime.node import Node, Starting
from valkeep.runtime.servers import ServerBinary

Setting = str | int | Sequence[str]


def binary(spec: str) -> ServerBinary:
    """The server that ``spec`` asks for; skips the test when this machine has none."""
    try:
        return servers.find(spec)
    except ValkeepError as error:
        pytest.skip(f"{error.message}; {error.remedy}")


def knows_panic(server: ServerBinary) -> bool:
    """Whether the server has ``propagation-error-behavior``: Redis from 7.0 on, every Valkey."""
    return server.name == "valkey" or server.version >= (7, 0, 0)


def start(spec: str | ServerBinary, config: dict[str, Setting] | None = None) -> Starting:
    """A server that panics where it would silently drop a replicated command, and syncs replicas without delay."""
    server = spec if isinstance(spec, ServerBinary) else binary(spec)
    settings: dict[str, Setting] = {"repl-diskless-sync-delay": 0}
    if knows_panic(server):
        settings["propagation-error-behavior"] = "panic"
    return Node.start(server, settings | (config or {}))
