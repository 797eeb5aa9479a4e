"""The rehearsal's two questions, as pure functions of its history and of what was read.

1. *The move*: every write acked before the checkpoint (on the source, or on the target after the cut) is on the target, unchanged.
   The checkpoint is read while the writers rest, before anything is killed, so no loss is excused.
2. *The failover*: what the killed primary acked and its replica never got is a suffix of its stream, acked after the replica's
   last offset. With that suffix as maybes, everything else must be on the promoted replica, unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from valkeep.drill.checkers.counters import check_counters
from valkeep.drill.checkers.expiry import ABSENT, PERSISTENT, check_expiries, is_from
from valkeep.drill.checkers.failover import Survival, check_suffix, lost_suffix
from valkeep.drill.checkers.judgement import Judgement, judged, worst
from valkeep.drill.checkers.registers import by_key, check_registers
from valkeep.drill.checkers.sequences import check_sequences, check_streams
from valkeep.drill.checkers.sets import check_pools
from valkeep.drill.checkers.transactions import check_transactions
from valkeep.drill.history import Datum, History, Operation, Outcome, doubting
from valkeep.drill.rehearsal.end_state import EndState
from valkeep.drill.rehearsal.operations import POOL

__all__ = ["FailoverJudgement", "MoveJudgement", "judge_failover", "judge_move", "survival_at"]

_FULL_POOL: Final = frozenset(range(POOL))


@dataclass(frozen=True, slots=True)
class MoveJudgement:
    """``lost``: acked writes that are gone; ``wrong``: everything else that is not as acked (changed, duplicated, reordered, …)."""

    verdict: str
    acked: int
    lost: int
    wrong: int
    judgements: tuple[Judgement, ...]


@dataclass(frozen=True, slots=True)
class FailoverJudgement:
    """``lost``: acked writes gone with the primary; ``allowed``: how many of them asynchronous replication explains."""

    verdict: str
    lost: int
    allowed: int
    judgements: tuple[Judgement, ...]


def _check_all(history: History, end: EndState, doubtful: frozenset[int], stop: int | None) -> tuple[Judgement, ...]:
    def of(function: str) -> list[Operation]:
        return list(doubting(history.of(function, stop=stop), doubtful))

    pools = {operation.key: _FULL_POOL for operation in history.of("spop", stop=stop)}
    checks: dict[str, Callable[[], Judgement]] = {
        "set": lambda: check_registers(of("set"), end.registers),
        "incr": lambda: check_counters(of("incr"), end.counters),
        "rpush": lambda: check_sequences(of("rpush"), end.lists),
        "xadd": lambda: check_streams(of("xadd"), end.streams),
        "spop": lambda: check_pools(of("spop"), end.pools, initial=pools),
        "multi": lambda: check_transactions(of("multi"), end.groups),
        "expire": lambda: check_expiries(of("expire"), end.expiries, origin_unix_ns=history.origin_unix_ns),
    }
    return tuple(judged(name, check) for name, check in checks.items())


def judge_move(history: History, end: EndState, *, stop: int) -> MoveJudgement:
    """``stop``: the number of operations at the checkpoint, where ``end`` was read."""
    judgements = _check_all(history, end, frozenset(), stop)
    lost = sum(judgement.lost for judgement in judgements)
    anomalies = sum(count for judgement in judgements for kind, count in judgement.counts.items() if kind not in ("lost", "resurrected"))
    acked = sum(judgement.operations for judgement in judgements)
    return MoveJudgement(worst(judgements), acked, lost, anomalies, judgements)


def judge_failover(history: History, end: EndState, *, killed: str, promised_until: int | None) -> FailoverJudgement:
    """``killed``: the name of the dead primary; ``end``: read from the promoted replica at the very end."""
    listed = list(history)
    survival = survival_at(history, end, killed)
    gone = lost_suffix(listed, killed, survival)
    suffix = judged("failover", lambda: check_suffix(listed, killed, survival, promised_until=promised_until))
    judgements = (suffix, *_check_all(history, end, gone, None))
    allowed = len(gone) - suffix.lost if suffix.verdict != "unknown" else 0
    return FailoverJudgement(worst(judgements), len(gone), allowed, judgements)


def survival_at(history: History, end: EndState, node: str) -> Survival:
    """Of which operations that ``node`` acked the end state shows that they survived, and of which that they did not."""
    survived: set[int] = set()
    lost: set[int] = set()

    def sort(operation: Operation, *, there: bool) -> None:
        (survived if there else lost).add(operation.number)

    def mine(function: str) -> list[Operation]:
        return [operation for operation in history.of(function) if operation.outcome is Outcome.OK and operation.node == node]

    elements: Mapping[str, Mapping[bytes, set[Datum]]] = {
        "rpush": {key: set(found) for key, found in end.lists.items()},
        "xadd": {key: {element for _, element in found} for key, found in end.streams.items()},
        "multi": {key: set(group.written) for key, group in end.groups.items()},
    }
    for function, found in elements.items():
        for operation in mine(function):
            sort(operation, there=operation.value in found.get(operation.key, ()))
    popped_elsewhere = {
        (operation.key, operation.result) for operation in history.of("spop") if operation.outcome is Outcome.OK and operation.node != node
    }
    for operation in mine("spop"):
        if operation.result is not None:
            back = operation.result in end.pools.get(operation.key, ()) or (operation.key, operation.result) in popped_elsewhere
            sort(operation, there=not back)
    for key, listed in by_key(history.of("incr")).items():
        final = end.counters.get(key)
        after = max((operation.number for operation in listed if operation.node == node), default=-1)
        later = [o.result for o in listed if o.outcome is Outcome.OK and o.node != node and o.number > after and isinstance(o.result, int)]
        limit = min(later) - 1 if later else final if isinstance(final, int) else 0
        for operation in listed:
            if operation.outcome is Outcome.OK and operation.node == node and isinstance(operation.result, int):
                sort(operation, there=operation.result <= limit)
    for key, listed in by_key(history.of("set")).items():
        value = end.registers.get(key)
        _sort_by_the_last(listed, node, sort, [operation.value == value for operation in listed], untouched=value is None)
    for key, listed in by_key(history.of("expire")).items():
        until = end.expiries.get(key, ABSENT)
        left = [is_from(operation, until, history.origin_unix_ns) for operation in listed]
        _sort_by_the_last(listed, node, sort, left, untouched=until == PERSISTENT)
    return Survival(frozenset(survived), frozenset(lost))


def _sort_by_the_last(listed: list[Operation], node: str, sort: Callable[..., None], found: list[bool], *, untouched: bool) -> None:
    """Of what each operation overwrites. ``found``: what of it stands there now; ``untouched``: as before the first. Where others wrote since, or something
    indefinite stands there, nothing shows; what is wrong is found by the checkers."""
    acked = [(operation, there) for operation, there in zip(listed, found, strict=True) if operation.outcome is Outcome.OK]
    if not acked or acked[-1][0].node != node:
        return
    place = next((at for at in range(len(acked) - 1, -1, -1) if acked[at][1]), -1)
    if place < 0 and not untouched:
        return
    for at, (operation, _) in enumerate(acked):
        if operation.node == node and at >= place:
            sort(operation, there=at == place)
