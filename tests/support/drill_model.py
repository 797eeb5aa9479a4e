"""A tiny world for the checkers of drills: asynchronous replication, random cuts, stale primaries, late and lost replies; valid by construction.

A node's stream is a list of operations, and its state what replaying them gives. A failover gives the successor a prefix of it. The old
primary may go on (partition, failover) or not (kill), or be its own successor (restart), and a node may reign again later. Batches of a
client are executed in order, at any time between invocation and reply; when the reply is lost, at any time after, or never. Each
connection has a number of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from valkeep.drill.checkers.evidence import FinalState, FinalStream
from valkeep.drill.checkers.reigns import Bound, Cause, Deposition, Reign
from valkeep.drill.checkers.verdicts import Context
from valkeep.drill.history import History, Operation, Outcome

TAGS = (b"a", b"b")
STEP = 1000  # ns


@dataclass(slots=True)
class World:
    """What a node holds."""

    lists: dict[bytes, list[int]] = field(default_factory=dict)
    values: dict[bytes, int] = field(default_factory=dict)
    counts: dict[bytes, int] = field(default_factory=dict)
    sets: dict[bytes, set[int]] = field(default_factory=dict)
    entries: dict[bytes, list[int]] = field(default_factory=dict)
    delivered: dict[bytes, int] = field(default_factory=dict)
    pending: dict[bytes, set[int]] = field(default_factory=dict)

    def apply(self, function: str, key: bytes, value: int | None) -> int | None:
        """Execute; the reply as a history has it."""
        if function == "append":
            assert value is not None
            self.lists.setdefault(key, []).append(value)
            return len(self.lists[key])
        if function in ("write", "multi", "eval"):
            assert value is not None
            self.values[key] = value
            return None
        if function == "read":
            return self.values.get(key)
        if function == "delete":
            return int(self.values.pop(key, None) is not None)
        if function == "incr":
            self.counts[key] = self.counts.get(key, 0) + 1
            return self.counts[key]
        if function == "deliver":
            place, entries = self.delivered.get(key, 0), self.entries.get(key, [])
            if place == len(entries):
                return None
            self.delivered[key] = place + 1
            self.pending.setdefault(key, set()).add(entries[place])
            return entries[place]
        assert value is not None
        if function == "xadd":
            self.entries.setdefault(key, []).append(value)
            return None
        if function == "ack":
            there = value in self.pending.get(key, ())
            self.pending.get(key, set()).discard(value)
            return int(there)
        assert function == "add"
        self.sets.setdefault(key, set()).add(value)
        return 1


@dataclass(slots=True)
class Server:
    name: str
    stream: list[tuple[int, str, bytes, int | None]] = field(default_factory=list)  # number, function, key, value
    world: World = field(default_factory=World)
    dead: bool = False

    def execute(self, number: int, function: str, key: bytes, value: int | None) -> int | None:
        self.stream.append((number, function, key, value))
        return self.world.apply(function, key, value)

    def successor(self, name: str, length: int) -> Server:
        heir = Server(name)
        for step in self.stream[:length]:
            heir.execute(*step)
        return heir


@dataclass(slots=True)
class Batch:
    server: Server
    numbers: list[int]
    replies: list[int | None] = field(default_factory=list)
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """What a checker is given. ``kept``: the numbers of the operations in the last primary's stream, which is the truth about loss."""

    history: History
    final: FinalState
    context: Context
    kept: frozenset[int] = frozenset()


FUNCTIONS = ("append", "write", "write", "read", "read", "delete", "incr", "add", "multi", "eval", "xadd", "deliver", "ack")
CAUSES = (Cause.KILL, Cause.PARTITION, Cause.FAILOVER, Cause.RESTART)


class Simulation:
    """``reigns``: how many there are. ``maybe``: the chance that a batch's replies are lost."""

    def __init__(self, seed: int, *, reigns: int = 2, batches: int = 12, clients: int = 3, maybe: float = 0.1, size: int = 6) -> None:
        self.rng = Random(seed)
        self.history = History()
        self.now = STEP
        self.count = 0
        self.maybe, self.size = maybe, size
        self.primary = Server("n1")
        self.stale: list[Server] = []
        self.reigns = [Reign("n1")]
        self.open: dict[int, Batch] = {}
        self.late: list[Batch] = []
        self.follows = dict.fromkeys(range(1, clients + 1), self.primary)
        self.connections = {client: client for client in self.follows}
        self.got: dict[int, list[tuple[bytes, int]]] = {client: [] for client in self.follows}  # delivered, and not yet acked
        changes = sorted(self.rng.randrange(2, batches * 4) for _ in range(reigns - 1))
        for step in range(batches * 4):
            self.now += STEP
            while changes and changes[0] == step:
                changes.pop(0)
                self.depose()
            self.act(self.rng.choice(list(self.follows)))
            if self.late and self.rng.random() < 0.3:
                self.execute_late(self.rng.choice(self.late))
        for client in list(self.open):
            self.now += STEP
            self.reply(client)

    # --- the servers

    def depose(self) -> None:
        self.now = max(self.now, self.reigns[-1].begins + STEP)  # nobody dies before he was seen
        old, cause = self.primary, self.rng.choice(CAUSES)
        length = self.rng.randint(max(0, len(old.stream) - 15), len(old.stream))
        free = [name for name in ("n1", "n2", "n3") if name != old.name and name not in {server.name for server in self.stale}]
        heir = old.successor(old.name if cause is Cause.RESTART else self.rng.choice(free), length)
        self.primary = heir
        begins = self.now
        for server in self.stale:  # who was deposed before has heard of it by now
            server.dead = True
            place = max(place for place, reign in enumerate(self.reigns[:-1]) if reign.node == server.name)
            deposed = self.reigns[place].deposed
            assert deposed is not None
            self.reigns[place] = replace(self.reigns[place], deposed=replace(deposed, until=self.now))
        self.stale = []
        if cause in (Cause.KILL, Cause.RESTART):
            old.dead = True
            if cause is Cause.RESTART:
                begins += self.rng.randrange(4) * STEP  # it was looked at a little later
        else:
            self.stale.append(old)
        deposition = Deposition(cause, self.now, Bound(), promoted=begins, healed=self.now + 5 * STEP)
        self.reigns[-1] = replace(self.reigns[-1], deposed=deposition)
        self.reigns.append(Reign(heir.name, begins))
        self.now += STEP

    # --- the clients

    def act(self, client: int) -> None:
        batch = self.open.get(client)
        if batch is None:
            self.send(client)
        elif batch.server.dead:
            self.lose(client)
        elif len(batch.replies) < len(batch.numbers):
            for _ in range(self.rng.randint(1, len(batch.numbers) - len(batch.replies))):
                self.execute_next(batch)
        elif self.rng.random() < self.maybe:
            self.lose(client)
        else:
            self.reply(client)

    def send(self, client: int) -> None:
        server = self.follows[client]
        if server.dead or (server is not self.primary and self.rng.random() < 0.3):
            server = self.follows[client] = self.primary
            self.connect(client)
        tag = self.rng.choice(TAGS)
        middle = [self.rng.choice(FUNCTIONS) for _ in range(self.rng.randint(0, self.size - 2))]
        numbers = []
        for function in ("append", *middle, "append"):
            key, value = self.key(function, tag), None
            if function == "ack":
                if not self.got[client]:
                    continue
                key, value = self.got[client].pop(0)
            elif function in ("append", "write", "add", "multi", "eval", "xadd"):
                self.count += 1
                value = client << 40 | self.count
            numbers.append(self.history.invoke(self.connections[client], function, key, value, self.now))
        self.open[client] = Batch(server, numbers)

    def connect(self, client: int) -> None:
        self.connections[client] = max(self.connections.values()) + 1

    def key(self, function: str, tag: bytes) -> bytes:
        if function in ("write", "read", "delete"):
            return b"r:{%s}:%d" % (tag, self.rng.randrange(2))
        letter = {"append": b"j", "incr": b"c", "add": b"s", "multi": b"x", "eval": b"x"}.get(function, b"q")
        return b"%s:{%s}" % (letter, tag)

    def execute_next(self, batch: Batch) -> None:
        operation = self.history[batch.numbers[len(batch.replies)]]
        value = operation.value
        assert value is None or isinstance(value, int)
        batch.replies.append(batch.server.execute(operation.number, operation.function, operation.key, value))

    def execute_late(self, batch: Batch) -> None:
        if batch.server.dead or len(batch.replies) == len(batch.numbers):
            self.late.remove(batch)
        else:
            self.execute_next(batch)

    def reply(self, client: int) -> None:
        batch = self.open.pop(client)
        while not batch.server.dead and len(batch.replies) < len(batch.numbers):
            self.execute_next(batch)
        self.record(client, batch, len(batch.replies))

    def lose(self, client: int) -> None:
        batch = self.open.pop(client)
        self.record(client, batch, self.rng.randint(0, len(batch.replies)))
        self.late.append(batch)
        self.connect(client)

    def record(self, client: int, batch: Batch, answered: int) -> None:
        for place, number in enumerate(batch.numbers):
            if place >= answered:
                self.history.info(number, self.now, batch.server.name, "LOST")
                continue
            result = batch.replies[place]
            self.history.ok(number, self.now, batch.server.name, result)
            operation = self.history[number]
            if operation.function == "deliver" and result is not None:
                self.got[client].append((operation.key, result))

    # --- the end

    def final(self) -> FinalState:
        world = self.primary.world
        return FinalState(
            journals={key: tuple(found) for key, found in world.lists.items()},
            registers={key: value for key, value in world.values.items() if key.startswith(b"r:")},
            counters=dict(world.counts),
            sets={key: frozenset(found) for key, found in world.sets.items()},
            streams={
                key: FinalStream(tuple(found), frozenset(world.pending.get(key, ())), frozenset(found[world.delivered.get(key, 0) :]))
                for key, found in world.entries.items()
            },
            pairs={key: (value, value) for key, value in world.values.items() if key.startswith(b"x:")},
        )

    def case(self) -> Case:
        return Case(self.history, self.final(), Context(tuple(self.reigns)), frozenset(number for number, *_ in self.primary.stream))


def simulated(seed: int, **shape: Any) -> Case:
    """A valid run."""
    return Simulation(seed, **shape).case()


def edited(history: History, change: Callable[[Operation], Operation | None]) -> History:
    """A copy with each operation replaced by what ``change`` gives; None leaves it out."""
    made = History(history.origin_unix_ns)
    for operation in history:
        changed = change(operation)
        if changed is None:
            continue
        number = made.invoke(changed.process, changed.function, changed.key, changed.value, changed.invoked)
        if changed.outcome is Outcome.OK:
            made.ok(number, changed.returned, changed.node, changed.result)
        elif changed.outcome is Outcome.FAIL:
            made.fail(number, changed.returned, changed.node, changed.error)
        elif changed.returned >= 0:
            made.info(number, changed.returned, changed.node, changed.error)
    return made
