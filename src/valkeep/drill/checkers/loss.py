"""Loss must be explained: every acked write that is gone names the node that acked it and the reason why it could go.

Under the servers' defaults the loss that a failover may cost is unbounded, so "within the promise" says nothing. What can be judged is
its shape. The journals give it: every append was answered its place in the stream, so the final list shows which survived::

    answered  1 2 3 4 5 6 7 8        acked by n1; deposed later
    final     a b c d e x y z        a … e survived; 6, 7 and 8 were acked to others by the successor

Four rules, under any configuration:

1. Who acked a lost write was deposed later. Else the loss is *unexplained*.
2. What one reign lost is a suffix of its stream: by place within a journal, by program order within a connection, by time between
   connections. A lost write before a surviving one is a *hole*.
3. The loss lies within the window that the live configuration promises (`promise`), and before the node had stopped. Else it is *beyond*.
4. What is there was written, once, in order, and where the server said: no *duplicated*, *phantom*, *resurrected*, *reordered* element.

The other functions of a drill leave less of a trace. Their fate follows from the appends around them (see `evidence`), and is written
into ``Evidence.fate`` here for the other checkers.

Not seen here: a write that was lost and that no append stood behind, for then its fate is ``maybe``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from valkeep.drill.checkers.evidence import ELSEWHERE, LOST, MAYBE, WRITES, Evidence
from valkeep.drill.checkers.journals import check_journals
from valkeep.drill.checkers.judgement import EXAMPLES, Findings, Judgement
from valkeep.drill.checkers.reigns import ALWAYS, NEVER, loss_of
from valkeep.drill.history import NOTHING, Outcome
from valkeep.topology.slots import key_slot

__all__ = ["LossReport", "LostWrite", "NodeLoss", "explain_loss"]

_OK: Final = int(Outcome.OK)
UNEXPLAINED: Final = "unexplained"


@dataclass(frozen=True, slots=True)
class LostWrite:
    """One acked write that is gone. ``cause``: a `Loss`, or "unexplained". ``wrong``: "" or hole, beyond, unexplained."""

    operation: int
    function: str
    key: bytes
    value: int | None
    node: str
    cause: str
    acked_at: int
    wrong: str = ""

    def to_json(self) -> dict[str, object]:
        return {
            "operation": self.operation,
            "function": self.function,
            "key": self.key.decode("utf-8", "backslashreplace"),
            "value": self.value,
            "node": self.node,
            "cause": self.cause,
            "acked_at": self.acked_at,
            "wrong": self.wrong,
        }


@dataclass(frozen=True, slots=True)
class NodeLoss:
    """What one reign lost. ``first``, ``last``: ns, when the first and the last of them were acked. ``allowed``: the window in ms that the
    configuration promises, None where it is open. ``before_ms``: how long before the fault the first was acked (0: none before);
    ``after_ms``: how long after the fault the last was."""

    node: str
    shard: int
    deposed_by: str
    lost: int
    by_cause: dict[str, int]
    first: int
    last: int
    window_ms: float
    before_ms: float
    after_ms: float
    allowed_ms: float | None
    because: str

    def to_json(self) -> dict[str, object]:
        return {
            "node": self.node,
            "shard": self.shard,
            "deposed_by": self.deposed_by,
            "lost": self.lost,
            "by_cause": dict(self.by_cause),
            "first": self.first,
            "last": self.last,
            "window_ms": self.window_ms,
            "before_ms": self.before_ms,
            "after_ms": self.after_ms,
            "allowed_ms": self.allowed_ms,
            "because": self.because,
        }


@dataclass(frozen=True, slots=True)
class LossReport:
    """``acked``: writes acked, of all functions. ``lost``: those that are surely gone; ``maybe``: those whose fate nothing shows.
    ``explained``: of the lost, how many for each `Loss`. ``wrong``: of the lost, how many are unexplained, a hole or beyond the promise
    (each counted once, the first that applies). ``by_function``: of the lost. ``nodes``: for each reign that lost something."""

    acked: int = 0
    lost: int = 0
    maybe: int = 0
    explained: dict[str, int] = field(default_factory=dict)
    wrong: dict[str, int] = field(default_factory=dict)
    by_function: dict[str, int] = field(default_factory=dict)
    nodes: tuple[NodeLoss, ...] = ()
    examples: tuple[LostWrite, ...] = ()

    @property
    def unexplained(self) -> int:
        """Lost writes that nothing excuses: unexplained, holes and beyond the promise."""
        return sum(self.wrong.values())

    def to_json(self) -> dict[str, object]:
        return {
            "acked": self.acked,
            "lost": self.lost,
            "maybe": self.maybe,
            "explained": dict(self.explained),
            "wrong": dict(self.wrong),
            "by_function": dict(self.by_function),
            "nodes": [node.to_json() for node in self.nodes],
            "examples": [example.to_json() for example in self.examples],
        }

    def __str__(self) -> str:
        if not self.lost:
            return f"none of {self.acked} acked writes was lost"
        causes = ", ".join(f"{count} {cause}" for cause, count in {**self.explained, **self.wrong}.items())
        return f"{self.lost} of {self.acked} acked writes were lost: {causes}"


def explain_loss(evidence: Evidence, journals: Mapping[bytes, Sequence[int]]) -> tuple[LossReport, Judgement, Judgement]:
    """Judge the journals as read at the end, give every operation its fate, and explain what is lost. The judgements: loss, journals."""
    missing, written = check_journals(evidence, journals)
    for number in missing.lost:
        evidence.fate[number] = LOST
    streams = _Streams(evidence)
    missing.holes.update(number for number in missing.lost if streams.hole(number))
    streams.give_fates()
    report, judgement = _Account(evidence, missing.holes).report()
    return report, judgement, written


class _Streams:
    """What the appends of each connection and reign show about what lies between them."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._deposed = bytearray(256)
        for number, reign in enumerate(evidence.reigns):
            self._deposed[number] = reign.deposed is not None
        moved = evidence.moved_slots()
        # keys that changed shards tell nothing about the rest of a node's stream
        self._apart = bytearray(key_slot(key) in moved for key in evidence.history.keys.names) if moved else b""
        # by process << 8 | reign: numbers of appends
        self._first_acked: dict[int, int] = {}
        self._last_acked: dict[int, int] = {}
        self._last_survivor: dict[int, int] = {}
        self._first_lost: dict[int, int] = {}
        # by reign: ns
        self._survivor_sent: dict[int, int] = {}
        self._lost_acked: dict[int, int] = {}
        self._read()

    def _read(self) -> None:
        evidence, deposed, apart = self._evidence, self._deposed, self._apart
        columns, fate = evidence.columns, evidence.fate
        invoked, returned = columns.invoked, columns.returned
        append = evidence.history.functions.numbers.get("append", -1)
        everything = zip(columns.function, columns.outcome, columns.process, evidence.reign, columns.key, strict=True)
        for number, (function, outcome, process, reign, key) in enumerate(everything):
            if function != append or outcome != _OK:
                continue
            who = process << 8 | reign
            if who not in self._first_acked:
                self._first_acked[who] = number
            self._last_acked[who] = number
            if not deposed[reign] or (apart and apart[key]):
                continue
            if fate[number]:
                self._first_lost.setdefault(who, number)
                if returned[number] < self._lost_acked.get(reign, NEVER):
                    self._lost_acked[reign] = returned[number]
            else:
                self._last_survivor[who] = number
                if invoked[number] > self._survivor_sent.get(reign, -1):
                    self._survivor_sent[reign] = invoked[number]

    def hole(self, number: int) -> bool:
        """Whether a survivor of the same reign surely came after this lost append."""
        columns, reign = self._evidence.columns, self._evidence.reign[number]
        if self._apart and self._apart[columns.key[number]]:
            return False
        later = self._last_survivor.get(columns.process[number] << 8 | reign, -1)
        return number < later or columns.returned[number] < self._survivor_sent.get(reign, -1)

    def give_fates(self) -> None:
        """To everything but appends. A read stays in a reign only between two appends of its connection that the reign acked: who answered
        it was the primary then."""
        evidence, deposed, apart = self._evidence, self._deposed, self._apart
        columns, fate, reigns = evidence.columns, evidence.fate, evidence.reign
        invoked, returned = columns.invoked, columns.returned
        functions = evidence.history.functions.numbers
        append, read = functions.get("append", -1), functions.get("read", -1)
        everything = zip(columns.function, columns.outcome, columns.process, bytes(reigns), columns.key, strict=True)
        for number, (function, outcome, process, reign, key) in enumerate(everything):
            if outcome != _OK or function == append:
                continue
            if not deposed[reign]:
                if function == read and number < self._first_acked.get(process << 8 | reign, NEVER):
                    reigns[number] = ELSEWHERE
                continue
            who = process << 8 | reign
            if function == read and not self._first_acked.get(who, NEVER) < number < self._last_acked.get(who, -1):
                reigns[number] = ELSEWHERE
            elif apart and apart[key]:
                fate[number] = MAYBE
            elif number < self._last_survivor.get(who, -1):
                pass
            elif number > self._first_lost.get(who, NEVER):
                fate[number] = LOST
            elif returned[number] < self._survivor_sent.get(reign, -1):
                pass
            elif invoked[number] > self._lost_acked.get(reign, NEVER):
                fate[number] = LOST
            else:
                fate[number] = MAYBE


class _Account:
    """Counts what is lost, and why it could be."""

    def __init__(self, evidence: Evidence, holes: set[int]) -> None:
        self._evidence, self._holes = evidence, holes
        self._findings = Findings("loss")
        self._lost: dict[int, list[int]] = {}  # by reign
        self._by_cause: dict[int, Counter[str]] = {}
        self._explained: Counter[str] = Counter()
        self._wrong: Counter[str] = Counter()
        self._by_function: Counter[str] = Counter()
        self._examples: list[LostWrite] = []

    def report(self) -> tuple[LossReport, Judgement]:
        evidence = self._evidence
        columns, fates = evidence.columns, evidence.fate
        names = evidence.history.functions.names
        writes = bytearray(256)
        for number, name in enumerate(names):
            writes[number] = name in WRITES
        acked = maybe = 0
        for number, (function, outcome, fate) in enumerate(zip(columns.function, columns.outcome, fates, strict=True)):
            if outcome == _OK and writes[function]:
                acked += 1
                if fate == MAYBE:
                    maybe += 1
                elif fate == LOST:
                    self._count(number, names[function])
        nodes = tuple(self._of(reign, numbers) for reign, numbers in sorted(self._lost.items()))
        lost = sum(self._by_function.values())
        report = LossReport(
            acked, lost, maybe, dict(self._explained), dict(self._wrong), dict(self._by_function), nodes, tuple(self._examples)
        )
        self._findings.operations = acked
        return report, self._findings.judgement(str(report))

    def _count(self, number: int, function: str) -> None:
        columns, reign = self._evidence.columns, self._evidence.reign[number]
        cause, wrong, detail = self._why(number, reign)
        key = self._evidence.history.keys.names[columns.key[number]]
        node = self._evidence.nodes()[columns.node[number]] or (self._evidence.reigns[reign].node if reign != ELSEWHERE else "a node")
        self._lost.setdefault(reign, []).append(number)
        self._by_cause.setdefault(reign, Counter())[wrong or cause] += 1
        self._by_function[function] += 1
        if wrong:
            self._wrong[wrong] += 1
            self._findings.add(wrong, key, f"{function} {columns.value[number]}, acked by {node}, {detail}", lost=1, operation=number)
        else:
            self._explained[cause] += 1
        if len(self._examples) < EXAMPLES:
            value = None if columns.value[number] == NOTHING else columns.value[number]
            self._examples.append(LostWrite(number, function, key, value, node, cause, columns.returned[number], wrong))

    def _why(self, number: int, reign: int) -> tuple[str, str, str]:
        """Its cause; "" or what is wrong with it; in words."""
        deposition = None if reign == ELSEWHERE else self._evidence.reigns[reign].deposed
        if deposition is None:
            known = "is not known as a primary" if reign == ELSEWHERE else "was never deposed"
            return UNEXPLAINED, UNEXPLAINED, f"is gone, and that node {known}"
        invoked, returned = self._evidence.columns.invoked[number], self._evidence.columns.returned[number]
        bound, cause = deposition.bound, str(loss_of(deposition, returned))
        if number in self._holes:
            return cause, "hole", "is gone, and a later write of the same reign is there"
        if bound.since == NEVER:
            return cause, "beyond", f"is gone; {bound.why}"
        if returned <= bound.since:
            return (
                cause,
                "beyond",
                f"is gone, though acked {(bound.since - returned) / 1e6:.1f} ms before any loss is allowed ({bound.why})",
            )
        end = bound.until if deposition.until is None else min(bound.until, deposition.until)
        if invoked > end:
            return cause, "beyond", f"was sent {(invoked - end) / 1e6:.1f} ms after the last loss that is allowed ({bound.why})"
        return cause, "", ""

    def _of(self, number: int, lost: Sequence[int]) -> NodeLoss:
        returned = self._evidence.columns.returned
        times = [returned[operation] for operation in lost]
        first, last = min(times), max(times)
        by_cause = dict(self._by_cause[number])
        window = (last - first) / 1e6
        deposition = None if number == ELSEWHERE else self._evidence.reigns[number].deposed
        if deposition is None:
            node = self._evidence.nodes()[self._evidence.columns.node[lost[0]]]
            shard = 0 if number == ELSEWHERE else self._evidence.reigns[number].shard
            return NodeLoss(node, shard, "", len(lost), by_cause, first, last, window, 0.0, 0.0, None, "it was never deposed")
        bound, at, reign = deposition.bound, deposition.at, self._evidence.reigns[number]
        allowed: float | None = None
        if bound.since == NEVER:
            allowed = 0.0
        elif bound.since != ALWAYS and bound.until != NEVER:
            allowed = (bound.until - bound.since) / 1e6
        before, after = max(0.0, (at - first) / 1e6), max(0.0, (last - at) / 1e6)
        cause = str(deposition.cause)
        return NodeLoss(reign.node, reign.shard, cause, len(lost), by_cause, first, last, window, before, after, allowed, bound.why)
