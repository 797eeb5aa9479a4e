"""RPUSH and XADD: every acked element is there, exactly once, and each writer's elements stand in the order in which it wrote them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from valkeep.drill.checkers.judgement import Findings, Judgement
from valkeep.drill.checkers.registers import by_key
from valkeep.drill.history import Datum, Operation, Outcome

__all__ = ["check_sequences", "check_streams", "pack_id"]


def pack_id(identifier: bytes) -> int:
    """A stream id ``ms-seq`` as one integer that sorts alike (ms below 2^43, seq below 2^20)."""
    ms, _, seq = identifier.partition(b"-")
    return int(ms) << 20 | int(seq or b"0")


def check_sequences(operations: Iterable[Operation], final: Mapping[bytes, Sequence[Datum]], *, checker: str = "rpush") -> Judgement:
    """``final``: each key's elements as read. Elements are unique over all writers of a key."""
    findings = Findings(checker)
    for key, listed in by_key(operations).items():
        _check_one(findings, key, listed, final.get(key, ()))
    return findings.judgement()


def _check_one(findings: Findings, key: bytes, listed: list[Operation], elements: Sequence[Datum]) -> None:
    written = {operation.value: operation for operation in listed}
    place: dict[Datum, int] = {}
    for position, element in enumerate(elements):
        operation = written.get(element)
        if element in place:
            findings.add("duplicated", key, f"{element!r} stands at {place[element]} and at {position}")
            continue
        place[element] = position
        if operation is None:
            findings.add("phantom", key, f"{element!r} at {position} was written by nobody")
        elif operation.outcome is Outcome.FAIL:
            findings.add("phantom", key, f"{element!r} at {position} was refused ({operation.error})", operation=operation.number)
    furthest: dict[int, tuple[int, Operation]] = {}
    for operation in listed:
        if operation.outcome is Outcome.OK:
            findings.operations += 1
            if operation.value not in place:
                findings.add("lost", key, f"{operation.value!r}, acked at {operation.node}, is missing", lost=1, operation=operation.number)
        # an indefinite element may come late, after what was written later
        if operation.outcome is not Outcome.OK or operation.value not in place:
            continue
        position = place[operation.value]
        before = furthest.get(operation.process)
        if before is not None and position < before[0]:
            detail = f"{operation.value!r} stands at {position}, before the earlier {before[1].value!r} at {before[0]}"
            findings.add("reordered", key, detail, operation=operation.number)
        else:
            furthest[operation.process] = (position, operation)


def check_streams(operations: Iterable[Operation], final: Mapping[bytes, Sequence[tuple[int, Datum]]]) -> Judgement:
    """As sequences; and each element has the id that the server answered. ``final``: (packed id, element) as read."""
    findings = Findings("xadd")
    for key, listed in by_key(operations).items():
        entries = final.get(key, ())
        _check_one(findings, key, listed, [element for _, element in entries])
        identifiers = {element: identifier for identifier, element in entries}
        for operation in listed:
            found = identifiers.get(operation.value)
            if operation.outcome is Outcome.OK and found is not None and found != operation.result:
                detail = f"{operation.value!r} was answered id {_shown(operation.result)} and has {_shown(found)}"
                findings.add("changed", key, detail, operation=operation.number)
    return findings.judgement()


def _shown(packed: Datum) -> str:
    return f"{packed >> 20}-{packed & 0xFFFFF}" if isinstance(packed, int) else repr(packed)
