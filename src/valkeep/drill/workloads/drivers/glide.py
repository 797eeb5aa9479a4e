"""valkey-glide, as an application gets it: asyncio, every option with the library's default (a request waits for 250 ms, connections are made again for ever).

A cluster or one server; it has no Sentinel. Its core is compiled and says neither which node answered nor whether it tried before. So histories name no node
for its operations, and every error but two is in doubt. The two are about a stream's group, and nothing hangs on how often it was tried.
It does not take a certificate that is its own authority, which those of a drill are: with TLS it is told not to verify.
It can not be told to connect from a certain address: a partition can not tell its clients apart.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Sequence
from typing import Any, Final

from valkeep.client.endpoint import Endpoint
from valkeep.drill.script import ClientSpec
from valkeep.drill.workloads.driver import Answer, Session, Shown
from valkeep.drill.workloads.drivers.twins import missing
from valkeep.drill.workloads.mixes import Step
from valkeep.drill.workloads.targets import Targets
from valkeep.errors import Refused, ServerError
from valkeep.topology.spec import Kind

__all__ = ["DRIVER"]

_HARMLESS: Final = frozenset({"BUSYGROUP", "NOGROUP"})


class _Glide:
    name = "glide"

    @property
    def version(self) -> str:
        try:
            return importlib.metadata.version("valkey-glide")
        except importlib.metadata.PackageNotFoundError:
            raise missing("valkey-glide") from None

    async def open(self, client: ClientSpec, targets: Targets) -> Session:  # noqa: ARG002
        try:
            library = importlib.import_module("glide")
        except ImportError:
            raise missing("valkey-glide") from None
        if targets.kind is Kind.SENTINEL:
            raise Refused("GLIDE can not find a primary through Sentinel", remedy="drill it on a cluster or a standalone server")
        library.Logger.set_logger_config(library.LogLevel.OFF)  # it would write into our pipe
        clustered = targets.kind is Kind.CLUSTER
        endpoints = list(targets.nodes.values())[: None if clustered else 1]
        kind = "GlideClusterClient" if clustered else "GlideClient"
        make, configure, advanced = (getattr(library, name) for name in (kind, f"{kind}Configuration", f"Advanced{kind}Configuration"))
        addresses = [library.NodeAddress(endpoint.host, endpoint.port) for endpoint in endpoints]
        try:
            opened = await make.create(configure(addresses=addresses, **_login(library, advanced, endpoints[0])))
        except Exception as error:
            raise Shown(type(error).__name__, str(error), definite=True) from error
        return _Session(opened, library.ClusterBatch if clustered else library.Batch)


class _Session:
    def __init__(self, client: Any, batch: Any) -> None:
        self._client, self._batch = client, batch

    async def perform(self, step: Step) -> Answer:
        try:
            if len(step.commands) > 1:
                return Answer(await self._transaction(step))
            return Answer([_as_on_the_wire(step, await self._client.custom_command(_words(step.commands[0])))])
        except Exception as error:
            word = str(error).partition(":")[0]
            if word in _HARMLESS:
                return Answer([ServerError(word, str(error))])
            raise Shown(type(error).__name__, str(error), definite=False) from error

    async def close(self) -> None:
        await self._client.close()

    async def _transaction(self, step: Step) -> Sequence[Any]:
        batch = self._batch(is_atomic=True)
        for command in step.commands[1:-1]:
            batch.custom_command(_words(command))
        results = await self._client.exec(batch, raise_on_error=True)
        return [b"OK", *[b"QUEUED"] * (len(step.commands) - 2), results]


def _words(command: Sequence[bytes | int]) -> list[bytes]:
    return [word if isinstance(word, bytes) else b"%d" % word for word in command]


def _login(library: Any, advanced: Any, endpoint: Endpoint) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if endpoint.password is not None:
        options["credentials"] = library.ServerCredentials(endpoint.password.reveal(), endpoint.username)
    if endpoint.tls is not None:
        options |= {"use_tls": True, "advanced_config": advanced(tls_config=library.TlsAdvancedConfiguration(use_insecure_tls=True))}
    return options


def _as_on_the_wire(step: Step, reply: Any) -> Any:
    """XREADGROUP's answer is a map here: {stream: {id: [[field, value]]}}."""
    if step.function != "deliver":
        return reply
    if not reply:
        return None
    ((identifier, ((_, element),)),) = next(iter(reply.values())).items()
    return [[step.key, [[identifier, [b"n", element]]]]]


DRIVER: Final = _Glide()
