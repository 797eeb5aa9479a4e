"""A client that asks one node does not see a register go back: neither behind what it read there, nor behind what it wrote there.

This holds on replicas too, where a value may be old but not older than the last one. What was lost with its primary may be seen and be
gone: only values whose writes survived count as seen. Between nodes no order is promised, and none is asked for.
"""

from __future__ import annotations

from typing import Final

from valkeep.drill.checkers.evidence import SURVIVED, Evidence
from valkeep.drill.checkers.judgement import Findings, Judgement
from valkeep.drill.history import NOTHING, Outcome

__all__ = ["check_monotonic"]

_OK: Final = int(Outcome.OK)


def check_monotonic(evidence: Evidence) -> Judgement:
    """An older value is one whose write had returned before the write of the newer one was sent, or was written before by the same process."""
    findings = Findings("monotonic")
    columns, fate, functions = evidence.columns, evidence.fate, evidence.history.functions.numbers
    value, result, outcome, process = columns.value, columns.result, columns.outcome, columns.process
    invoked, returned = columns.invoked, columns.returned
    write, read = functions.get("write", -1), functions.get("read", -1)
    written = {value[number]: number for numbers in evidence.numbers("write").values() for number in numbers}
    seen: dict[int, int] = {}  # process, node and key → the write of the newest value seen
    everything = zip(columns.function, outcome, process, columns.node, columns.key, strict=True)
    for number, (function, ended, who, node, key) in enumerate(everything):
        if ended != _OK:
            continue
        if function == write:
            if fate[number] == SURVIVED:
                seen[who << 40 | node << 32 | key] = number
        elif function == read and result[number] != NOTHING:
            findings.operations += 1
            source = written.get(result[number])
            if source is None:
                continue  # `linear` says so
            place = who << 40 | node << 32 | key
            newest = seen.get(place)
            if newest is not None and newest != source and outcome[source] == _OK:
                before = returned[source] < invoked[newest] or (process[source] == process[newest] and source < newest)
                if before:
                    name = evidence.history.keys.names[key]
                    where = f"operation {number} read {value[source]} at {evidence.nodes()[node]}"
                    detail = f"{where}, where the same client had seen the newer {value[newest]}"
                    findings.add("stale", name, detail, operation=number)
                    continue
            if outcome[source] == _OK and fate[source] == SURVIVED:
                seen[place] = source
    return findings.judgement()
