"""valkey-py and redis-py: one is a fork of the other, and an application uses them alike. One session is one client object, used by one thread of its own.

As an application gets them: every option has the library's default, with one exception. ``socket_timeout`` is 5 s, which redis-py's own default is since
8.0; ``Valkey()`` has none at all, and a server that hangs would hang the session for ever.

                     valkey-py 6.2                                      redis-py 8.1
    standalone       no retries                                         10 retries, also after a reply was lost
    Sentinel         ``Sentinel(…).master_for(…)``: no retries          the same
    Cluster          3 retries, also after a reply was lost             10 retries, also after a reply was lost
    transaction      ``pipeline()``; in a cluster that of the key's     ``pipeline(transaction=True)``
                     node, because its cluster pipelines have none

A retry after a lost reply is what duplicates are made of, so it has to be seen. The library does not tell, its connections do: each is given a class that
looks at what passes (`_watched`): an operation's key in what is sent means one more attempt, an error reply means that this attempt surely did nothing. So a
refusal is definite when every attempt was refused, and any other error when nothing was sent. The same class knows which node answered, and binds the
connection to the client's own address.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import re
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from valkeep.client.endpoint import Endpoint
from valkeep.drill.script import ClientSpec
from valkeep.drill.workloads.driver import Answer, Session, Shown
from valkeep.drill.workloads.mixes import Step
from valkeep.drill.workloads.targets import Targets
from valkeep.errors import ServerError, ValkeepError
from valkeep.topology.spec import Kind

__all__ = ["Twin", "missing"]

SOCKET_TIMEOUT: Final = 5.0

#: Exceptions whose text has lost the server's first word.
_WORDS: Final = {
    "AskError": "ASK",
    "AuthenticationError": "NOAUTH",
    "BusyLoadingError": "LOADING",
    "ClusterCrossSlotError": "CROSSSLOT",
    "ClusterDownError": "CLUSTERDOWN",
    "ExecAbortError": "EXECABORT",
    "MasterDownError": "MASTERDOWN",
    "MovedError": "MOVED",
    "NoPermissionError": "NOPERM",
    "NoScriptError": "NOSCRIPT",
    "OutOfMemoryError": "OOM",
    "ReadOnlyError": "READONLY",
    "TryAgainError": "TRYAGAIN",
}
_FIRST_WORD: Final = re.compile(r"(?:.*caused error: )?([A-Z]+)\b", re.DOTALL)


def missing(library: str) -> ValkeepError:
    """The library is not installed."""
    return ValkeepError(f"the client library {library} is not installed", remedy="pip install 'valkeep[clients]'")


@dataclass(frozen=True, slots=True)
class Twin:
    """A driver. ``package``: its name on import and in the index; ``class_name``: of its client, which also prefixes the cluster's; ``node``: how its
    cluster calls the client of one node. ``cluster_transactions``: whether its cluster pipelines can be transactions."""

    name: str
    package: str
    class_name: str
    node: str
    cluster_transactions: bool

    @property
    def version(self) -> str:
        try:
            return importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            raise missing(self.name) from None

    async def open(self, client: ClientSpec, targets: Targets) -> Session:
        session = _Session(self, client, targets)
        try:
            await session.begin()
        except BaseException:
            await session.close()
            raise
        return session


class _Told:
    """What a session is told of its connections. ``key``: of the operation under way; ``doubtful``: attempts of it that were not refused;
    ``node``: who answered last."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.key = b""
        self.doubtful = 0
        self.node: tuple[str, int] = ("", 0)


def _watched(base: Any, plain: Any, refusals: tuple[type[Exception], ...], told: _Told) -> Any:
    """A connection class that does what ``base`` does, and tells. It stands directly above ``plain``, below what ``base`` makes of it."""

    class Watched(plain):  # type: ignore[misc]  # the library is imported when it is used
        _open = False

        def _connect(self) -> Any:
            if not told.source:
                return super()._connect()
            sock = socket.create_connection((self.host, self.port), self.socket_connect_timeout, (told.source, 0))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(self.socket_timeout)
            return sock

        def send_packed_command(self, command: Any, check_health: bool = True) -> None:
            if told.key in b"".join([part.encode() if isinstance(part, str) else bytes(part) for part in command]):
                told.doubtful += 1
                self._open = True
            super().send_packed_command(command, check_health)

        def read_response(self, *args: Any, **options: Any) -> Any:
            try:
                value = super().read_response(*args, **options)
            except refusals:
                if self._open:
                    told.doubtful -= 1
                self._open = False
                told.node = (self.host, self.port)
                raise
            if self._open:
                told.node = (self.host, self.port)
            return value

    return Watched if base is plain else type(base.__name__, (base, Watched), {})


class _Session:
    def __init__(self, twin: Twin, client: ClientSpec, targets: Targets) -> None:
        self._twin, self._targets = twin, targets
        self._told = _Told(client.source)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"{twin.name}-{client.name}")
        self._client: Any = None
        self._refusals: tuple[type[Exception], ...] = ()

    async def begin(self) -> None:
        await self._run(self._begin)

    async def perform(self, step: Step) -> Answer:
        replies: Sequence[Any] = await self._run(self._perform, step)
        host, port = self._told.node
        return Answer(replies, self._targets.place(host, port).name)

    async def close(self) -> None:
        if self._client is not None:
            await self._run(self._client.close)
        self._thread.shutdown(wait=False)

    async def _run(self, work: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *args)

    # ------------------------------------------------------------------------------------------------- in the session's thread

    def _begin(self) -> None:
        twin, targets = self._twin, self._targets
        try:
            library = importlib.import_module(twin.package)
        except ImportError:
            raise missing(twin.name) from None
        errors = library.exceptions
        self._refusals = (errors.ResponseError, errors.BusyLoadingError, errors.AuthenticationError)
        endpoint = next(iter(targets.nodes.values()))
        login = _login(endpoint) | {"socket_timeout": SOCKET_TIMEOUT}
        try:
            match targets.kind:
                case Kind.SENTINEL:
                    self._client = self._behind_sentinels(library, login)
                case Kind.CLUSTER:
                    self._client = self._of_cluster(library, login)
                case _:
                    self._client = getattr(library, twin.class_name)(host=endpoint.host, port=endpoint.port, **login)
                    self._watch(library, self._client, bool(endpoint.tls))
        except ValkeepError:
            raise
        except Exception as error:
            raise Shown(type(error).__name__, str(error), definite=True) from error

    def _behind_sentinels(self, library: Any, login: dict[str, Any]) -> Any:
        module = importlib.import_module(f"{self._twin.package}.sentinel")
        first = next(iter(self._targets.sentinels.values()))
        addresses = [(sentinel.host, sentinel.port) for sentinel in self._targets.sentinels.values()]
        theirs = _login(first) | {"socket_timeout": SOCKET_TIMEOUT}
        client = module.Sentinel(addresses, sentinel_kwargs=theirs, **login).master_for(self._targets.monitored)
        secured = "ssl" in login
        base = module.SentinelManagedSSLConnection if secured else module.SentinelManagedConnection
        client.connection_pool.connection_class = _watched(base, library.Connection, self._refusals, self._told)
        return client

    def _of_cluster(self, library: Any, login: dict[str, Any]) -> Any:
        twin = self._twin
        module = importlib.import_module(f"{twin.package}.cluster")
        seeds = [module.ClusterNode(node.host, node.port) for node in self._targets.nodes.values()]
        cluster = getattr(module, f"{twin.class_name}Cluster")(startup_nodes=seeds, **login)
        manager, maker = cluster.nodes_manager, f"create_{twin.node}_node"
        make = getattr(manager, maker)

        def made(*args: Any, **options: Any) -> Any:
            return self._watch(library, make(*args, **options), "ssl" in login)

        setattr(manager, maker, made)
        for node in cluster.get_nodes():
            one = getattr(node, f"{twin.node}_connection")
            if one is not None:
                self._watch(library, one, "ssl" in login)
        return cluster

    def _watch(self, library: Any, client: Any, secured: bool) -> Any:
        """Every connection that this client opens from now on tells."""
        pool = client.connection_pool
        pool.disconnect()
        pool.reset()
        base = library.SSLConnection if secured else library.Connection
        pool.connection_class = _watched(base, library.Connection, self._refusals, self._told)
        return client

    def _perform(self, step: Step) -> Sequence[Any]:
        told = self._told
        told.key, told.doubtful, told.node = step.key, 0, ("", 0)
        try:
            if len(step.commands) > 1:
                return self._transaction(step)
            name, *rest = step.commands[0]
            if name == b"XGROUP":  # the libraries' own form; a cluster finds the key only so
                name, rest = name + b" " + bytes(rest[0]), rest[1:]
            return [_as_on_the_wire(step, self._client.execute_command(_text(name), *rest))]
        except self._refusals as error:
            if told.doubtful > 0:
                raise Shown(type(error).__name__, str(error), definite=False) from error
            refusal = ServerError(_word(error), str(error))
            if len(step.commands) > 1:
                raise refusal from error
            return [refusal]
        except Exception as error:
            raise Shown(type(error).__name__, str(error), definite=told.doubtful == 0) from error

    def _transaction(self, step: Step) -> Sequence[Any]:
        client = self._client
        if self._targets.kind is Kind.CLUSTER and not self._twin.cluster_transactions:
            client = getattr(client, f"get_{self._twin.node}_connection")(client.get_node_from_key(step.key))
        with client.pipeline(transaction=True) as pipeline:
            for name, *rest in step.commands[1:-1]:
                pipeline.execute_command(_text(name), *rest)
            results = pipeline.execute()
        return [b"OK", *[b"QUEUED"] * (len(step.commands) - 2), list(results)]


def _login(endpoint: Endpoint) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if endpoint.password is not None:
        options["password"] = endpoint.password.reveal()
    if endpoint.username:
        options["username"] = endpoint.username
    if tls := endpoint.tls:
        options |= {"ssl": True, "ssl_cert_reqs": "none" if tls.verify == "none" else "required"}
        if tls.ca:
            options["ssl_ca_certs"] = tls.ca
        if tls.cert:
            options |= {"ssl_certfile": tls.cert, "ssl_keyfile": tls.key}
        if tls.verify != "full":
            options["ssl_check_hostname"] = False
    return options


def _text(name: bytes | int) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _word(error: Exception) -> str:
    """The server's first word."""
    known = _WORDS.get(type(error).__name__)
    found = _FIRST_WORD.match(str(error))
    return known or (found.group(1) if found else "ERR")


def _as_on_the_wire(step: Step, reply: Any) -> Any:
    """What XREADGROUP answers, whatever the library makes of it; all other replies pass as they are."""
    if step.function != "deliver":
        return reply
    if not reply:
        return None
    entries = next(iter(reply.values())) if isinstance(reply, dict) else reply[0][1]
    while isinstance(entries[0][0], (list, tuple)):
        entries = entries[0]
    identifier, fields = entries[0]
    element = next(iter(fields.values())) if isinstance(fields, dict) else fields[1]
    return [[step.key, [[identifier, [b"n", element]]]]]
