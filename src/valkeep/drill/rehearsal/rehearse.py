"""The whole story on servers of this machine: a live Redis becomes a live Valkey, and a history of every acked write proves it.

    load ─► failure ─► writers start ─► preflight ► sync ► verify ► cut-over ─► checkpoint ─► kill ► promote ─► judge
            (native     (until the end, at ≥ 5,000 acked writes/s)               (judges       (the new primary)
             sync is                                                              the move)
             refused)

The servers are real, the writers are a process of their own, and the judgement comes from what ordinary commands read at the end.
The checkpoint separates two questions that a single look at the end would mix: whether the *move* lost or changed anything (it
must not, at all), and what the *failover* lost (asynchronous replication may lose the end of the dead primary's stream).

Nothing stays behind: servers die with this process (also on kill -9), the writers' process removes the folder then.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from valkeep.client.connection import Connection
from valkeep.client.endpoint import Endpoint
from valkeep.client.server_info import server_info
from valkeep.drill.rehearsal.dataset import Abilities, dataset
from valkeep.drill.rehearsal.end_state import EndState, read_end_state
from valkeep.drill.rehearsal.failover import Failover, kill_and_promote
from valkeep.drill.rehearsal.judge import judge_failover, judge_move
from valkeep.drill.rehearsal.move import Move, MoveRequest, through_gateway
from valkeep.drill.rehearsal.operations import prepare
from valkeep.drill.rehearsal.outcome import FailureShown, Rehearsal, Role
from valkeep.drill.rehearsal.spotcheck import sample_keys, spot_check
from valkeep.drill.rehearsal.writers import WriterProcess
from valkeep.drill.rehearsal.writers_process import WriterSettings, writers_of
from valkeep.errors import ServerError, ValkeepError
from valkeep.migrate.preflight import formats
from valkeep.report.events import Emit, Event, Note, Phase, Progress, VerdictEvent
from valkeep.report.rate import Rate
from valkeep.runtime import servers
from valkeep.runtime.node import Node
from valkeep.runtime.servers import ServerBinary

__all__ = ["Kill", "RehearsalOptions", "choose_servers", "rehearse"]

DATABASES: Final = (0, 1, 2)
_REFUSED: Final = re.compile(r"Can't handle RDB format version \d+")


@dataclass(frozen=True, slots=True)
class RehearsalOptions:
    """``source_server``/``target_server``: specs or paths ("" = the best to be found). ``representative_only``: a source whose
    snapshots Valkey takes natively is an error (continuous integration). ``report``: where the move's own files are kept, else nowhere."""

    source_server: str = ""
    target_server: str = ""
    field_ttl: str = "keep-field"
    keys: int = 200_000
    rate: int = 6500
    writers: int = 8
    seed: int = 1
    representative_only: bool = False
    report: Path | None = None
    warm_up: float = 2.0
    settle: float = 2.5


@dataclass(frozen=True, slots=True)
class Servers:
    """``naive``: who is told REPLICAOF the source first, to show what happens."""

    source: ServerBinary
    target: ServerBinary
    naive: ServerBinary


def rdb_version(server: ServerBinary) -> int:
    """The version in the header of the snapshots that this server writes; 0 for a release that is newer than what is known."""
    return formats.rdb_version(server.name, server.version) or 0


def choose_servers(options: RehearsalOptions) -> Servers:
    """Find the programs. Raises ``ValkeepError`` where one is missing, or the rehearsal would prove less than was asked for."""
    source = _source(options.source_server)
    target = servers.find(options.target_server or _newest_valkey())
    if target.name != "valkey":
        raise ValkeepError(f"the target {target} is no Valkey", remedy="--target-server valkey-9.1, or the path of a valkey-server")
    naive = target
    with contextlib.suppress(ValkeepError):
        if not options.target_server:
            naive = servers.find("valkey-8.1")
    if options.representative_only and not representative(source):
        raise ValkeepError(
            f"the source would be {source}, whose snapshots (RDB {rdb_version(source)}) Valkey takes natively: that proves little",
            remedy="valkeep servers --fetch redis-8.0 (on Debian), or --source-server PATH of a Redis 7.4 or newer",
        )
    return Servers(source, target, naive)


def representative(source: ServerBinary) -> bool:
    """Whether this source is of the kind that Valkey refuses (RDB 12 and later of Redis)."""
    return source.name == "redis" and source.version >= (7, 4)


def _source(spec: str) -> ServerBinary:
    if spec:
        return servers.find(spec)
    for candidate in ("newest-redis", "newest-valkey"):
        with contextlib.suppress(servers.ServerMissing):
            return servers.find(candidate)
    return servers.find("newest-valkey")  # raises, with what there is and the remedy


def _newest_valkey() -> str:
    with contextlib.suppress(servers.ServerMissing):
        return str(servers.find("valkey-9.1").path)
    return "newest-valkey"


# -------------------------------------------------------------------------------------------------------------------- the story


Kill = Callable[[Node, Node], Awaitable[Failover]]


async def rehearse(options: RehearsalOptions, emit: Emit, *, move: Move = through_gateway, kill: Kill = kill_and_promote) -> Rehearsal:
    """Run the story. Raises ``ValkeepError`` where it can't go on; a bad outcome is a verdict, not an error.

    ``move`` and ``kill``: how the data gets across, and how the new primary ends (primary, replica); tests put damage there.
    """
    story = _Story(options, await asyncio.to_thread(choose_servers, options), emit)
    return await story.run(move, kill)


class _Story:
    def __init__(self, options: RehearsalOptions, chosen: Servers, emit: Emit) -> None:
        self.options, self.servers = options, chosen
        self.origin = time.monotonic()
        self._emit = emit
        self._last = (0.0, 0)
        self.phases: list[tuple[str, float, float]] = []

    def now(self) -> float:
        return time.monotonic() - self.origin

    def emit(self, event: Event) -> None:
        """Everything is shown on the rehearsal's clock, also what the move says."""
        self._emit(replace(event, at=self.now()))

    @contextlib.asynccontextmanager
    async def phase(self, name: str, detail: str = "") -> AsyncIterator[None]:
        began = self.now()
        self.emit(Phase(began, name, detail=detail))
        yield
        self.phases.append((name, began, self.now()))
        self.emit(Phase(self.now(), name, done=True))

    def note(self, text: str, level: str = "info") -> None:
        self.emit(Note(self.now(), level, text))

    async def run(self, move: Move, kill: Kill) -> Rehearsal:
        workdir = Path(tempfile.gettempdir()) / f"valkeep-rehearsal-{secrets.token_hex(6)}"
        try:
            async with WriterProcess(workdir, self._acked) as writers:
                return await self._run(move, kill, workdir, writers)
        finally:
            await asyncio.to_thread(shutil.rmtree, workdir, ignore_errors=True)

    async def _run(self, move: Move, kill: Kill, workdir: Path, writers: WriterProcess) -> Rehearsal:
        options, chosen = self.options, self.servers
        if not representative(chosen.source):
            self.note(
                f"the source is {chosen.source} (RDB {rdb_version(chosen.source)}): Valkey takes that natively; not representative",
                "warning",
            )
        async with contextlib.AsyncExitStack() as stack:
            async with self.phase("start", f"{chosen.source} → {chosen.target} with a replica"):
                source, target = await asyncio.gather(
                    stack.enter_async_context(self._node(chosen.source, workdir / "source", {"repl-backlog-size": "64mb"})),
                    stack.enter_async_context(self._node(chosen.target, workdir / "target", {"repl-backlog-size": "64mb"})),
                )
                replica = await stack.enter_async_context(
                    self._node(chosen.target, workdir / "replica", {"replicaof": f"{target.host} {target.port}"})
                )
            settings = WriterSettings(
                (("source", source.endpoint), ("target", target.endpoint), ("replica", replica.endpoint)),
                writers=options.writers, databases=DATABASES, seed=options.seed, rate=options.rate,
            )  # fmt: skip
            writers.prepare(settings)
            async with self.phase("load", f"{options.keys:,} keys of every type in {len(DATABASES)} databases"):
                keys = await self._load(source, settings)
            failure = FailureShown(False, str(chosen.naive), "")
            if representative(chosen.source):
                async with self.phase("failure", f"{chosen.naive} told REPLICAOF {chosen.source}"):
                    failure = await self._show_failure(source, workdir)
            async with self.phase("warm-up", f"{options.writers} writers, {options.rate:,} writes/s"):
                writers.start()
                await asyncio.sleep(options.warm_up)
            sample = await sample_keys(Endpoint.parse(source.endpoint), random.Random(options.seed), DATABASES)
            began = self.now()
            moved = await move(
                MoveRequest(
                    source=Endpoint.parse(source.endpoint),
                    target=Endpoint.parse(target.endpoint),
                    field_ttl=options.field_ttl,
                    report=options.report or workdir / "report",
                    work=workdir,
                    clock=self.now,
                ),
                self.emit,
            )  # fmt: skip
            cut = self.now()
            self.phases.append(("move", began, cut))
            async with self.phase("settle", "writers on the target"):
                await asyncio.sleep(options.settle)
            async with self.phase("checkpoint", "writers rest; the target is read by ordinary commands"):
                stop, touched = await writers.pause()
                await self._replicated(target)
                end = await self._end_state(target, touched)
                spot = await spot_check(
                    Endpoint.parse(source.endpoint), Endpoint.parse(target.endpoint), sample, field_ttl=options.field_ttl,
                    target_has_field_ttl=chosen.target.version >= (9, 0, 0),
                )  # fmt: skip
                errors = [await _unexpected_errors(node) for node in (target, replica)]
            async with self.phase("failover", "the new primary is killed"):
                writers.start()
                await asyncio.sleep(options.settle)
                failover = await kill(target, replica)
                await asyncio.sleep(options.settle)
            async with self.phase("judge", "the history against what is on the promoted replica"):
                _, touched = await writers.pause()
                final = await self._end_state(replica, touched)
                errors.append(await _unexpected_errors(replica))
                history = await writers.finish()
                move_judgement, failover_judgement = await asyncio.to_thread(
                    lambda: (
                        judge_move(history, end, stop=stop),
                        judge_failover(history, final, killed="target", promised_until=failover.promised_until),
                    )
                )
            exited = tuple(name for name, node in (("source", source), ("replica", replica)) if not node.alive)
        outcome = Rehearsal(
            field_ttl=options.field_ttl,
            seed=options.seed,
            representative=representative(chosen.source),
            source=Role(str(chosen.source), rdb_version(chosen.source)),
            target=Role(str(chosen.target), rdb_version(chosen.target)),
            failure=failure,
            keys=keys,
            moved=moved,
            move=move_judgement,
            failover=failover_judgement,
            events=failover,
            spot=spot,
            unexpected_error_replies=max(moved.unexpected_error_replies, *errors),
            exited=exited,
            history=history,
            phases=tuple(self.phases),
            origin_ns=int(self.origin * 1e9),
            elapsed=self.now(),
        )
        self.emit(VerdictEvent(self.now(), outcome.verdict))
        return outcome

    # ------------------------------------------------------------------------------------------------------------------ steps

    def _node(self, binary: ServerBinary, directory: Path, config: dict[str, str]) -> contextlib.AbstractAsyncContextManager[Node]:
        settings = dict(config)
        if binary.name == "valkey" or binary.version >= (7, 0, 0):
            settings["propagation-error-behavior"] = "panic"  # a command that is dropped silently ends the server instead
        return Node.start(binary, settings, directory=directory)

    def _acked(self, at: int, acked: int, node: str) -> None:
        moment = at / 1e9 - self.origin
        before, count = self._last
        self._last = (moment, acked)
        if moment > before:
            self._emit(Rate(moment, acked, (acked - count) / (moment - before), node))

    async def _load(self, source: Node, settings: WriterSettings) -> int:
        keys = 0
        async with contextlib.AsyncExitStack() as stack:
            connections = {
                database: await stack.enter_async_context(
                    await Connection.open(Endpoint.parse(f"{source.endpoint}/{database}"), timeout=20.0)
                )
                for database in DATABASES
            }
            known = await connections[0].pipeline([("COMMAND", "INFO", "HPEXPIREAT", "FUNCTION")])
            abilities = Abilities(*[bool(one) for one in known[0]])
            rng = random.Random(self.options.seed)
            wall = time.time_ns() // 1_000_000
            for block in dataset(rng, self.options.keys, abilities, now_ms=wall, databases=DATABASES):
                await _all_good(connections[block.database], block.commands)
                keys += block.keys
                self.emit(Progress(0, "load", keys=keys, total_keys=self.options.keys))
            for database, commands in prepare(writers_of(settings)):
                await _all_good(connections[database], commands)
            info = await server_info(connections[0])
        return sum(info.keys.values())

    async def _show_failure(self, source: Node, workdir: Path) -> FailureShown:
        """A Valkey told to replicate from the source: its log line. It retries for ever; we look until it has said why."""
        async with (
            Node.start(self.servers.naive, {}, directory=workdir / "naive") as naive,
            await Connection.open(Endpoint.parse(naive.endpoint)) as connection,
        ):
            await connection.call("REPLICAOF", source.host, source.port)
            deadline = time.monotonic() + 8.0
            while time.monotonic() < deadline and naive.alive:
                line = next((line for line in naive.log().splitlines() if _REFUSED.search(line)), "")
                if line:
                    said = line[line.index("Can't handle") :].strip()
                    self.note(f"{self.servers.naive} refuses the source's snapshot: {said}", "warning")
                    return FailureShown(True, str(self.servers.naive), said)
                await asyncio.sleep(0.02)
            self.note(f"{self.servers.naive} did not refuse the source's snapshot within 8 s", "warning")
            return FailureShown(False, str(self.servers.naive), "")

    async def _replicated(self, target: Node) -> None:
        """The replica has what the target has: from here on its offset bounds what a failover may lose."""
        async with await Connection.open(Endpoint.parse(target.endpoint)) as connection:
            deadline = time.monotonic() + 15.0
            while time.monotonic() < deadline:
                _, acked = await connection.pipeline([("SET", "valkeep:canary", "1", "PX", "60000"), ("WAIT", "1", "1000")], timeout=5.0)
                if acked == 1:
                    return
        raise ValkeepError("the target's replica did not catch up within 15 s", remedy="run again; if it stays so, its log says why")

    async def _end_state(self, node: Node, touched: dict[str, list[bytes]]) -> EndState:
        return await read_end_state(Endpoint.parse(node.endpoint), touched, now_ms=time.time_ns() // 1_000_000)


async def _all_good(connection: Connection, commands: Sequence[Sequence[bytes | int]]) -> None:
    for command, reply in zip(commands, await connection.pipeline(commands), strict=True):
        if isinstance(reply, ServerError):
            raise ValkeepError(
                f"loading the source failed at {command[0]!r}: {reply.message}",
                remedy="is --source-server a Redis or Valkey of version 5 or later?",
            )


async def _unexpected_errors(node: Node) -> int:
    async with await Connection.open(Endpoint.parse(node.endpoint)) as connection:
        return (await server_info(connection)).number("unexpected_error_replies")
