"""Servers for tests: a missing one is skipped aloud, and an error in continuous integration."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from valkeep.errors import ValkeepError
from valkeep.runtime import servers
from valkeep.runtime.node import Node, Starting
from valkeep.runtime.servers import ServerBinary

IN_CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")

Setting = str | int | Sequence[str]


def binary(spec: str) -> ServerBinary:
    """The server that ``spec`` asks for; skips the test when this machine has none, fails it in CI."""
    try:
        return servers.find(spec)
    except ValkeepError as error:
        if IN_CI:
            pytest.fail(f"CI has to have every server: {error.message}; {error.remedy}", pytrace=False)
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
