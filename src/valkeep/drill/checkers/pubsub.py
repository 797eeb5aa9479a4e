"""PUBLISH: at most once, in each publisher's order, and nothing that nobody published. A lost message is no violation: nothing promises more.

Order and uniqueness hold for one connection to one node on both sides; who reconnects elsewhere may hear a message twice, or late.
"""

from __future__ import annotations

from typing import Final

from valkeep.drill.checkers.evidence import Evidence
from valkeep.drill.checkers.judgement import Findings, Judgement
from valkeep.drill.history import NOTHING, Outcome

__all__ = ["check_messages"]

_OK: Final = int(Outcome.OK)
_FAIL: Final = int(Outcome.FAIL)


def check_messages(evidence: Evidence) -> Judgement:
    """``publish``: value, and how many received it as its result. ``receive``: the message is its result, or its value where it has none."""
    findings = Findings("pubsub")
    columns = evidence.columns
    outcome, value, result, process, node = columns.outcome, columns.value, columns.result, columns.process, columns.node
    published = received = 0
    for key in sorted(evidence.numbers("publish").keys() | evidence.numbers("receive").keys()):
        sources = {value[number]: number for number in evidence.numbers("publish").get(key, ())}
        published += sum(outcome[number] == _OK for number in sources.values())
        heard: set[tuple[int, int, int]] = set()
        last: dict[tuple[int, int, int, int], int] = {}
        for number in evidence.numbers("receive").get(key, ()):
            message = value[number] if result[number] == NOTHING else result[number]
            if outcome[number] != _OK or message == NOTHING:
                continue
            received += 1
            source = sources.get(message, -1)
            if source < 0 or outcome[source] == _FAIL or columns.returned[number] < columns.invoked[source]:
                findings.add("phantom", key, f"{message} was received, and nobody had published it", operation=number)
                continue
            place = (process[number], node[number])
            if (*place, message) in heard:
                findings.add("duplicated", key, f"{message} was received twice by one subscriber", operation=number)
                continue
            heard.add((*place, message))
            if outcome[source] != _OK:
                continue  # nobody knows when, or where
            stream = (*place, process[source], node[source])
            before = last.get(stream, -1)
            if source < before:
                detail = f"{message} was received after {value[before]}, which the same publisher sent later"
                findings.add("reordered", key, detail, operation=number)
            else:
                last[stream] = source
    findings.operations = published + received
    return findings.judgement(f"{published} published, {received} received" if published else "")
