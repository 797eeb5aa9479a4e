"""A topology for somebody's own tests: a deployment on an event loop of its own thread, driven by plain calls.

Tests are synchronous, asynchronous, threaded, or all of it; so nothing here needs an event loop of the caller, and nothing blocks one
that has (`AsyncFaults` waits in a thread). The watcher of a drill, which asks every node fifty times a second, runs only from the first
fault on.

A playground may serve several tests, one after the other: `renew` empties it, and says no when it can't be made as it was: a fault was
injected, a node is gone, a role, a slot or a setting is another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from valkeep.client.connection import Argument
from valkeep.client.endpoint import Endpoint
from valkeep.drill.faults import Injected, check, strike
from valkeep.drill.script import Load, Step, parse_schedule
from valkeep.drill.stage import Stage
from valkeep.drill.watch import Watch
from valkeep.errors import UsageError, ValkeepError
from valkeep.runtime import network as networks
from valkeep.runtime.access import APP
from valkeep.runtime.local import LocalDeployment
from valkeep.topology.plan import plan_for
from valkeep.topology.spec import MONITORED, Kind, TopologySpec

__all__ = ["AsyncFaults", "Faults", "Playground", "Struck", "Topology"]

T = TypeVar("T")
_PATIENCE: Final = 120.0  # seconds for a deployment to be ready
_CLEANUP: Final = 20.0  # seconds for what was interrupted to clean up


class Playground:
    """``how``: none or proxy (see `runtime.network`; a namespace would take the whole test process with it). ``needs``: as of a deployment.
    Raises what the deployment raises. ``close`` it."""

    def __init__(self, spec: TopologySpec, how: str = "none", needs: frozenset[str] = frozenset()) -> None:
        if how not in ("none", "proxy"):
            raise UsageError(f"{how!r} is no network for tests", remedy="none, or proxy to cut and delay")
        self.spec, self.how, self.needs = spec, how, needs
        self.dirty = False
        self.deployment: LocalDeployment
        self._stack = contextlib.AsyncExitStack()
        self._watch: Watch | None = None
        self._marks: dict[str, object] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="valkeep-playground", daemon=True)
        self._thread.start()
        try:
            self.do(self._open())
        except BaseException:
            self.close()
            raise

    def do(self, work: Coroutine[Any, Any, T], timeout: float = _PATIENCE) -> T:
        """Run it on the playground's loop and wait for it here. Should this caller be interrupted, it is cancelled, and has cleaned up before this returns."""
        ended = threading.Event()

        async def noted() -> T:
            try:
                return await work
            finally:
                ended.set()

        future = asyncio.run_coroutine_threadsafe(noted(), self._loop)
        try:
            return future.result(timeout)
        except BaseException:
            future.cancel()
            ended.wait(_CLEANUP)
            raise

    async def _open(self) -> None:
        network = networks.make(self.spec, self.how)
        self.deployment = await self._stack.enter_async_context(LocalDeployment(self.spec, network=network, needs=self.needs))
        await self._emptied()
        self._marks = await self._looked()

    def close(self) -> None:
        """Nothing is left. May be called twice."""
        if self._thread.is_alive():
            try:
                self.do(self._stack.aclose())
                self.do(self._loop.shutdown_default_executor())
            finally:
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._thread.join()
                self._loop.close()

    def renew(self) -> bool:
        """Emptied, and otherwise as at its start; False when it can't be."""
        return not self.dirty and self.do(self._renewed())

    async def _renewed(self) -> bool:
        with contextlib.suppress(ValkeepError):
            if await self._looked() == self._marks:
                await self._emptied()
                return True
        return False

    async def _looked(self) -> dict[str, object]:
        """What has to be the same for the next test: what is missing, and each node's role, slots, settings and users."""
        prober, deployment = self.deployment.prober, self.deployment
        view = await prober.look()
        marks: dict[str, object] = {"missing": plan_for(self.spec, view, deployment.addresses).missing}
        for name, node in view.nodes.items():
            said = [await prober.call(name, *words, timeout=5.0) for words in (("CONFIG", "GET", "*"), ("ACL", "LIST"))]
            marks[name] = (node.role, node.ranges, said)
        return marks

    async def _emptied(self) -> None:
        prober = self.deployment.prober
        for node in (await prober.look()).primaries():
            await prober.call(node.name, "FLUSHALL", timeout=10.0)
            await prober.call(node.name, "SCRIPT", "FLUSH")
            with contextlib.suppress(ValkeepError):  # before Redis 7 there are no functions
                await prober.call(node.name, "FUNCTION", "FLUSH")
            await prober.call(node.name, "WAIT", len(node.online), 2000, timeout=5.0)

    async def stage(self) -> Stage:
        """For faults; from now on it is watched, and not used again."""
        self.dirty = True
        deployment = self.deployment
        if self._watch is None:
            data = {one.spec.name: one.endpoint for one in deployment.of("primary", "replica")}
            sentinels = {one.spec.name: one.endpoint for one in deployment.of("sentinel")}
            self._watch = await self._stack.enter_async_context(Watch(self.spec.kind, data, sentinels))
            watch = self._watch
            await watch.until(lambda view: all(node.reached for node in view.nodes.values()) and (not sentinels or bool(watch.named)), 2.0)
        return Stage(deployment, self._watch, Load(), random.Random(1), lambda _event: None, time.monotonic_ns())

    async def primaries(self) -> dict[int, str]:
        """Shard → who reigns there now, where somebody does: whom most sentinels name and says so itself; who has the shard's slots."""
        deployment = self.deployment
        view = await deployment.prober.look()
        votes = Counter(seen.primary for seen in view.sentinels.values() if seen.reached and seen.primary)
        named = votes.most_common(1)[0][0] if votes else ""
        found: dict[int, str] = {}
        for node in sorted(view.primaries(), key=lambda node: node.epoch):
            if self.spec.kind is not Kind.SENTINEL or deployment.addresses[node.name] == named:
                found[deployment.machines[node.name].spec.shard] = node.name
        return found


class Topology:
    """What a test gets: where to connect, who is the primary, and a way to ask as an administrator.

    ``nodes``, ``sentinels``: (host, port) in the order of their names, as client libraries want them. ``urls``: what a client is given: the sentinels', or the
    nodes'. ``name``: what the sentinels call the primary. ``options``: what valkey-py and redis-py need beside the address: TLS, and the login of an
    application; empty without them.
    """

    def __init__(self, playground: Playground) -> None:
        self._playground = playground
        deployment = playground.deployment
        self.kind = playground.spec.kind.value
        self.name = MONITORED
        self.endpoints: list[Endpoint] = [deployment.endpoint(one.spec.name, APP) for one in deployment.of("primary", "replica")]
        self.nodes = [(one.host, one.port) for one in self.endpoints]
        watching = [deployment.endpoint(one.spec.name, APP) for one in deployment.of("sentinel")]
        self.options: dict[str, Any] = {}
        if deployment.certificate is not None:
            self.options |= {"ssl": True, "ssl_ca_certs": str(deployment.certificate.authority)}
        if deployment.access is not None:
            self.options |= {"username": APP, "password": deployment.access.passwords[APP].reveal()}
        self.sentinels = [(one.host, one.port) for one in watching]
        self.urls = [one.display for one in watching or self.endpoints]

    def __repr__(self) -> str:
        return f"<{self.kind} at {', '.join(self.urls)}>"

    @property
    def url(self) -> str:
        """Of a node that takes writes now: the primary, or a cluster's first one."""
        return self.primary().display

    def primary(self, shard: int = 1) -> Endpoint:
        """Who is the primary of this shard now. Raises ``ValkeepError`` when nobody is."""
        found = self._playground.do(self._playground.primaries())
        if shard - 1 not in found:
            raise ValkeepError(f"shard {shard} has no primary now", remedy="wait_whole() waits for it")
        return self._playground.deployment.endpoint(found[shard - 1], APP)

    def call(self, *words: Argument, node: str = "") -> Any:
        """One command to the node of this name (n1, s1, …; "": the first primary), as an administrator."""
        play = self._playground
        asked = node or play.do(play.primaries()).get(0, "n1")
        texts = [word if isinstance(word, str | bytes | int) else str(word) for word in words]
        return play.do(play.deployment.prober.call(asked, *texts, timeout=10.0))

    def wait_new_primary(self, old: Endpoint, timeout: float = 60.0) -> Endpoint:
        """Who is the primary instead of ``old``, as soon as there is one."""

        play = self._playground
        machines = play.deployment.machines.values()
        shard = next((one.spec.shard for one in machines if one.endpoint.address == old.address), 0)

        def successor() -> Endpoint | None:
            name = play.do(play.primaries()).get(shard)
            found = play.deployment.endpoint(name, APP) if name else None
            return found if found is not None and found.address != old.address else None

        found = self._wait(successor, timeout, f"{old.address} has no successor")
        assert found is not None
        return found

    def wait_whole(self, timeout: float = 60.0) -> None:
        """Returns when every node is back in its place: each shard has a primary and its replicas, sentinels and nodes agree, all slots are served."""
        play = self._playground
        missing: list[str] = []

        async def look() -> bool:
            view = await play.deployment.prober.look()
            missing[:] = plan_for(play.spec, view, play.deployment.addresses).missing
            return not missing

        self._wait(lambda: play.do(look()), timeout, lambda: "; ".join(missing[:4]))

    def _wait(self, condition: Callable[[], T], timeout: float, why: str | Callable[[], str]) -> T:
        deadline = time.monotonic() + timeout
        while not (came := condition()):
            if time.monotonic() > deadline:
                raise ValkeepError(
                    f"not within {timeout:g} s: {why if isinstance(why, str) else why()}",
                    remedy="heal the faults first, or give it more time; a failover takes the timeout and about two seconds more",
                )
            time.sleep(0.02)
        return came


@dataclass(frozen=True, slots=True)
class Struck:
    """A fault that is in force. ``nodes``: whom it met, by name; ``endpoints``: where they are."""

    nodes: tuple[str, ...]
    endpoints: tuple[Endpoint, ...]
    heal: Callable[[], None]
    """Ends it: starts, resumes, connects again. Does nothing where there is nothing to undo."""


class Faults:
    """Faults for tests. Targets as in drills: ``primary``, ``replica``, ``sentinel``, ``shard`` (each with ``:N`` or ``:*``), or names
    (``n1,n2``), meant as of now. Each method returns when the fault is in force. ``aio``: the same for asynchronous tests."""

    def __init__(self, playground: Callable[[], Playground]) -> None:
        self._playground = playground
        self._injected: list[tuple[Playground, Injected]] = []
        self.aio = AsyncFaults(self)

    def kill(self, target: str = "primary") -> Struck:
        """SIGKILL. Healed: started again."""
        return self._do("kill", target)

    def term(self, target: str = "primary") -> Struck:
        """SIGTERM. Healed: started again."""
        return self._do("term", target)

    def pause(self, target: str = "primary") -> Struck:
        """SIGSTOP: hangs, connections stay open. Healed: goes on."""
        return self._do("pause", target)

    def restart(self, target: str = "primary") -> Struck:
        """SIGTERM, and started again at once."""
        return self._do("restart", target)

    def promote(self, target: str = "primary", mode: str = "") -> Struck:
        """A failover on purpose; ``mode``: plain, coordinated (sentinel); cluster, cluster-force, takeover (cluster)."""
        return self._do("promote", target, **({"mode": mode} if mode else {}))

    def partition(self, target: str = "primary", way: str = "both") -> Struck:
        """Cut off from all other nodes. The test itself reaches both sides. Needs the network proxy."""
        return self._do("partition", target, way=way)

    def slow_link(self, target: str = "primary", ms: float = 100) -> Struck:
        """All that nodes send to and get from the targets is late, each way. Needs the network proxy."""
        return self._do("slow-link", target, ms=f"{ms:g}")

    def slot_migration(self, target: str = "primary:1", to: int | None = None, slots: str = "") -> Struck:
        """Slots (``"0-99"``; else the last half) of the target's shard go to another shard; returns when they are there."""
        options = {"to": str(to)} if to else {}
        return self._do("slot-migration", target, **options, **({"slots": slots} if slots else {}))

    def config(self, target: str = "primary", **settings: str | int) -> Struck:
        """CONFIG SET; ``_`` stands for ``-``. Healed: set back."""
        return self._do("config", target, **{name.replace("_", "-"): str(value) for name, value in settings.items()})

    def strike(self, text: str) -> Struck:
        """Any fault as a schedule's step writes it: ``"restart-empty:n2"``, ``"quorum-loss:sentinel"``; see the reference of faults."""
        (step,) = parse_schedule(text if "@" in text else f"{text}@0")
        return self._do(step.fault, step.target, **dict(step.options))

    def heal(self) -> None:
        """Ends all of them, the last one first."""
        while self._injected:
            playground, injected = self._injected.pop()
            playground.do(injected.heal())

    def _do(self, fault: str, target: str, **options: str) -> Struck:
        playground = self._playground()
        step = Step(fault, target, options=tuple(options.items()))
        check([step], playground.spec, Load(), playground.deployment.abilities)

        async def inject() -> Injected:
            return await strike(await playground.stage(), step)

        injected = playground.do(inject())
        self._injected.append((playground, injected))
        machines = playground.deployment.machines
        endpoints = tuple(playground.deployment.endpoint(name, APP) for name in injected.nodes if name in machines)
        return Struck(injected.nodes, endpoints, lambda: playground.do(injected.heal()))


class AsyncFaults:
    """The methods of `Faults`, awaited: ``await faults.aio.kill("primary")``."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        if name.startswith("_"):
            raise AttributeError(name)
        method = getattr(self._faults, name)

        async def awaited(*args: Any, **options: Any) -> Any:
            return await asyncio.to_thread(method, *args, **options)

        return awaited
