"""The lookout: what the source says of itself while it is cut over, and who could still write there afterwards.

A promotion is right only if the source is, at that moment, the same process, still a primary, still fenced, and has written nothing that the target
lacks. So it is looked at again and again (``look``), and two looks are compared:

* ``objection``: restarted (the fence is gone with the process), demoted, the fence lowered, or a replica that left: it may have been promoted by
  a Sentinel, and would take writes that nobody sees here.
* ``wrote``: which commands that write were run between the two. When the offset did not move, none. When it did, ``INFO commandstats`` tells clients'
  commands from what the source does by itself: expiry and eviction put a DEL into the stream that looks like any other, but call no command. Which
  commands write is asked of the server (``COMMAND INFO``), so that commands of modules count too; one that it does not know counts as writing.

Only one cut-over at a time: two of them, by two Valkeeps, could take each other's fence for their own. Each says so by the name of its connection
before it looks for others (``enter``): whoever comes later sees the one before, two at once see each other, and a name goes with its process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from valkeep.client.server_info import identify, parse_info
from valkeep.errors import ServerError, ValkeepError
from valkeep.migrate import fence
from valkeep.migrate.fence import Aborted

if TYPE_CHECKING:
    from valkeep.client.connection import Connection

__all__ = ["Look", "Lookout", "Standing"]

CUTTING: Final = "valkeep-cutover"
IDLE: Final = "valkeep-migrate"
HELLO: Final = "__sentinel__:hello"
_OURS: Final = frozenset(
    ["auth", "client", "command", "config", "exec", "info", "multi", "ping", "psync", "pubsub", "replconf", "select"]
)  # we run them, and they write nothing


@dataclass(frozen=True, slots=True)
class Look:
    """The source at one moment. ``offset``: bytes of its stream, which has the id ``replid``; ``calls``: how often each command was run, counted no later than
    ``offset``;
    ``replicas``: address:port of those that follow its stream; ``settings``: of the fence's parameters, where they were asked for."""

    run_id: str
    role: str  # primary | replica
    primary: str  # whom it follows
    offset: int
    calls: Mapping[str, int]
    replicas: frozenset[str]
    settings: Mapping[str, str]
    scripts_pass: bool  # the fence, before Redis 7.0
    replid: str = ""
    counted: bool = True  # its offset moves with every write: before somebody follows, a server does not count


@dataclass(frozen=True, slots=True)
class Standing:
    """A node on the source's side after the cut-over. ``takes_writes``: None where it could not be found out; ``watched``: by Sentinels or its
    cluster, which promote."""

    node: str
    takes_writes: bool | None
    why: str
    watched: bool = False

    @property
    def worries(self) -> bool:
        """Whether a person should do something about it."""
        return self.takes_writes is not False or self.watched

    def to_json(self) -> dict[str, Any]:
        return {"node": self.node, "takes_writes": self.takes_writes, "watched": self.watched, "why": self.why}


class Lookout:
    """At one source (the one that is fenced). ``gateway_port``: where our own replica says that it listens."""

    def __init__(self, source: Connection, gateway_port: int = 0) -> None:
        self._source = source
        self._gateway_port = gateway_port
        self._address = ""  # ours, as the source sees it
        self._writing: dict[str, bool] = {}

    async def enter(self) -> bool:
        """Say that we cut over, and look whether somebody else does. Raises ``Aborted`` then; False where that cannot be seen (CLIENT LIST is denied)."""
        named, listed = await self._source.pipeline([("CLIENT", "SETNAME", CUTTING), ("CLIENT", "LIST")])
        if isinstance(named, ServerError) or isinstance(listed, ServerError):
            return False
        cutting = [client for client in _clients(listed) if client.get("name") == CUTTING]
        if len(cutting) > 1:
            others = ", ".join(client.get("addr", "?") for client in cutting)
            raise Aborted(
                f"another cut-over of this source is under way just now (connections named {CUTTING} from {others})",
                remedy="let that one end, or abort it; only one of them can have the writers",
                code="VK-CUTOVER-CONCURRENT",
            )
        self._address = cutting[0].get("addr", "").rpartition(":")[0].strip("[]") if cutting else ""
        return True

    @property
    def _own(self) -> str:
        """Our gateway, as the source lists it among its replicas."""
        return f"{self._address}:{self._gateway_port}"

    async def leave(self) -> None:
        """Our cut-over is over, however it ended."""
        with suppress(ValkeepError):
            await self._source.call("CLIENT", "SETNAME", IDLE)

    async def look(self, parameters: Iterable[str]) -> Look:
        """The source now. ``parameters``: those of the fence, by name. Raises ``ConnectionLost`` or ``ServerError``."""
        parameters = tuple(parameters)
        asked = [("INFO", "commandstats"), ("INFO", "server"), ("INFO", "replication"), *(("CONFIG", "GET", name) for name in parameters)]
        replies = await self._source.pipeline(asked)
        for reply in replies:
            if isinstance(reply, ServerError):
                raise reply
        stats, server, replication = (parse_info(reply) for reply in replies[:3])
        role, offset = ("primary", "master_repl_offset") if replication.get("role") == "master" else ("replica", "slave_repl_offset")
        return Look(
            run_id=server.get("run_id", ""),
            role=role,
            primary=f"{replication.get('master_host', '')}:{replication.get('master_port', '')}",
            offset=int(replication.get(offset, "0")),
            calls={name.removeprefix("cmdstat_"): int(_pairs(value).get("calls", "0")) for name, value in stats.items()},
            replicas=frozenset(
                f"{row.get('ip')}:{row.get('port')}"
                for name, value in replication.items()
                if name.startswith("slave")
                and name[5:].isdigit()
                and (row := _pairs(value)).get("state", "online") == "online"
                and row.get("port") != "0"  # no replica: it reads a snapshot
            ),
            settings={name: reply[1].decode() for name, reply in zip(parameters, replies[3:], strict=True) if reply},
            scripts_pass=(found := identify(server)).kind != "valkey" and found.version < (7, 0),
            replid=replication.get("master_replid", ""),
            counted=replication.get("repl_backlog_active") == "1" or replication.get("connected_slaves", "0") != "0",
        )

    def objection(self, first: Look, now: Look, *, token: str) -> Aborted | None:
        """Why the target must not be promoted, seen what has become of the source since ``first``. ``token``: of the fence that it has to have, if any."""
        where = self._source.endpoint.address
        if now.run_id != first.run_id:
            return Aborted(
                f"the source {where} was restarted in the middle of the cut-over (run_id {first.run_id}, now {now.run_id}): its fence went with it",
                remedy="see its log; start the migration again",
                code="VK-CUTOVER-RESTARTED",
            )
        if now.role != "primary":
            return Aborted(
                f"the source {where} is a replica of {now.primary}: its writers are somewhere else, and cannot be held here",
                remedy="give the primary: --source, or --source-primary where the source is its replica",
                code="VK-CUTOVER-ROLE",
            )
        if self._own in first.replicas - now.replicas:
            return Aborted(
                f"the gateway's own link to the source {where} broke in the middle of the cut-over",
                remedy="see the source's log; start the migration again",
                code="VK-SOURCE-LOST",
            )
        if left := first.replicas - now.replicas:
            return Aborted(
                f"{', '.join(sorted(left))} left the source {where} in the middle of the cut-over: a replica that was promoted would take writes that are lost",
                remedy="see whether a Sentinel or a person promoted it (ROLE there), and keep them from it until the writers have moved; then try again",
                code="VK-CUTOVER-REPLICA",
            )
        if token and not fence.is_ours(now.settings, token):
            return Aborted(
                f"somebody changed the fence of the source {where} in the middle of the cut-over ({fence.as_commands(now.settings)})",
                remedy="find out who sets min-replicas-to-write there (configuration management?), keep it from that, and try again",
                code="VK-CUTOVER-FENCE-LOST",
            )
        return None

    async def wrote(self, earlier: Look, later: Look) -> tuple[str, ...]:
        """The commands that clients wrote with between two looks; empty when surely nothing was written."""
        if later.offset == earlier.offset and earlier.counted and later.counted:
            return ()
        if any(later.calls.get(name, 0) < count for name, count in earlier.calls.items()):
            return ("any command (the statistics were reset: CONFIG RESETSTAT)",)
        grown = [name for name, count in later.calls.items() if count > earlier.calls.get(name, 0)]
        await self.learn(grown)
        return tuple(sorted(name.upper() for name in grown if self._writing[name]))

    async def learn(self, names: list[str]) -> None:
        """Ask which of these commands write; known ones are not asked again."""
        unknown = [name for name in names if name not in self._writing]
        if not unknown:
            return
        try:
            rows = await self._source.call("COMMAND", "INFO", *unknown)
        except ServerError:
            rows = [None] * len(unknown)
        for name, row in zip(unknown, rows, strict=True):
            known = row is not None and row[2]
            self._writing[name] = b"write" in row[2] if known else name.partition("|")[0] not in _OURS

    async def transactions(self) -> set[str]:
        """Addresses of clients that have queued commands in an open MULTI; none where CLIENT LIST is denied."""
        (listed,) = await self._source.pipeline([("CLIENT", "LIST")])
        if isinstance(listed, ServerError):
            return set()
        return {client.get("addr", "?") for client in _clients(listed) if int(client.get("multi", "-1")) > 0}

    async def remaining(self, first: Look, parameters: Iterable[str], *, kept: bool) -> tuple[Standing, ...]:
        """Who on the source's side could take writes now that the target is a primary. Never raises: the cut-over is complete.

        ``parameters``: of the fence, none where it was not ours to raise; ``kept``: it is in the configuration file.
        """
        where, parameters = self._source.endpoint.address, tuple(parameters)
        try:
            now = await self.look(parameters)
            watching, cluster = await self._source.pipeline([("PUBSUB", "NUMSUB", HELLO), ("CLUSTER", "MYID")])
        except ValkeepError as error:
            return (Standing(where, None, f"it did not answer after the promotion: {error.message}"),)
        fenced = fence.is_up(now.settings) and now.run_id == first.run_id
        if not parameters:
            source = Standing(where, True, "it was not fenced: whoever writes there gets an OK, and the write is not on the target")
        elif not fenced:
            source = Standing(where, True, "it is not fenced any more: what it acknowledged since the promotion is not on the target")
        elif now.scripts_pass:
            source = Standing(where, True, "fenced, but scripts pass the fence of a Redis before 7.0")
        else:
            lasting = "also when it is restarted" if kept else "until it is restarted"
            source = Standing(where, False, f"fenced (min-replicas-to-write {fence.UP}), {lasting} or somebody changes that")
        sentinels = isinstance(watching, list) and len(watching) == 2 and int(watching[1]) > 0
        promotes = "a Sentinel that watches the source, or a person, promotes it" if sentinels else "somebody promotes it"
        if not isinstance(cluster, ServerError):
            sentinels, promotes = True, "the cluster promotes it, should this primary fail (see cluster-replica-no-failover)"
        others = sorted(now.replicas - {self._own})
        return (
            source,
            *(
                Standing(one, False, f"a replica of the source: read-only until {promotes}; it is not fenced then", sentinels)
                for one in others
            ),
        )


def _clients(listed: bytes) -> list[dict[str, str]]:
    rows = listed.decode("utf-8", "replace").splitlines()
    return [dict(word.partition("=")[::2] for word in row.split(" ")) for row in rows]


def _pairs(text: str) -> dict[str, str]:
    """``a=1,b=2``"""
    return dict(part.partition("=")[::2] for part in text.split(","))
