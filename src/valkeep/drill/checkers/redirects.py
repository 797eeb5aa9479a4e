"""MOVED and ASK: a client that is told where a slot is gets there.

Judged at the end: where a slot's last redirect is followed by attempts, one of them was acked; and clients were not sent around to the end,
each attempt answered by another redirect, for longer than half a second. How many redirects it takes in between is counted: while a failover
is under way, nodes name a dead one, and asking again is all that a client can do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from valkeep.drill.checkers.evidence import Evidence
from valkeep.drill.checkers.judgement import Findings, Judgement
from valkeep.drill.history import Outcome
from valkeep.topology.slots import key_slot

__all__ = ["Redirect", "Redirects", "check_redirects"]

CIRCLES: Final = 500_000_000
"""ns between the first redirect that no ack followed and the last attempt."""


class Redirect(NamedTuple):
    """A node said that the slot is elsewhere. ``at``: ns; ``kind``: MOVED or ASK; ``answered``: the node that said so; ``named``: where it is."""

    at: int
    kind: str
    answered: str
    named: str
    slot: int


@dataclass(frozen=True, slots=True)
class Redirects:
    """``followed``: redirects after which the slot's next ack came from the node that was named. ``hops``: the most nodes
    that passed a slot on, one to the next, without an ack in between."""

    moved: int
    asked: int
    followed: int
    hops: int

    def to_json(self) -> dict[str, object]:
        return {"moved": self.moved, "asked": self.asked, "followed": self.followed, "hops": self.hops}


def check_redirects(evidence: Evidence, redirects: Sequence[Redirect]) -> tuple[Redirects, Judgement]:
    """``redirects``: ascending in time."""
    findings = Findings("redirects", len(redirects))
    by_slot: dict[int, list[Redirect]] = {}
    for redirect in redirects:
        by_slot.setdefault(redirect.slot, []).append(redirect)
    followed = most = 0
    for slot, (acks, attempted) in _of_slots(evidence, by_slot).items():
        place, hops = 0, 0
        before: Redirect | None = None
        for redirect in by_slot[slot]:
            passed = place
            while place < len(acks) and acks[place][0] < redirect.at:
                place += 1
            if before is None or place > passed:
                hops = 1
            elif before[2:4] != redirect[2:4]:  # a batch, or several clients, are told the same
                hops += 1
            before = redirect
            most = max(most, hops)
            followed += place < len(acks) and acks[place][2] == redirect.named
        last = by_slot[slot][-1]
        acked = max((invoked for _, invoked, _ in acks), default=-1)
        since = next((redirect.at for redirect in by_slot[slot] if redirect.at > acked), attempted)
        if acked < last.at < attempted or attempted > since + CIRCLES:
            detail = f"{last.answered} said {last.kind} {slot} to {last.named}, and nothing that was sent after that was acked"
            if attempted <= last.at:
                detail = f"clients were sent around for {(attempted - since) / 1e6:.0f} ms, at last by {last.answered} to {last.named}"
            findings.add("unfollowed", b"", detail)
    moved = sum(redirect.kind == "MOVED" for redirect in redirects)
    found = Redirects(moved, len(redirects) - moved, followed, most)
    return found, findings.judgement(f"{len(redirects)} redirects, {followed} followed at once, {most} hops at most" if redirects else "")


def _of_slots(evidence: Evidence, wanted: dict[int, list[Redirect]]) -> dict[int, tuple[list[tuple[int, int, str]], int]]:
    """For each of these slots: acks as (returned, invoked, node), ascending, and when the last operation on it was sent."""
    columns, nodes = evidence.columns, evidence.nodes()
    slots = [key_slot(key) for key in evidence.history.keys.names]
    slots = [slot if slot in wanted else -1 for slot in slots]
    found: dict[int, tuple[list[tuple[int, int, str]], int]] = {slot: ([], -1) for slot in wanted}
    for key, outcome, node, invoked, returned in zip(
        columns.key, columns.outcome, columns.node, columns.invoked, columns.returned, strict=True
    ):
        slot = slots[key]
        if slot >= 0:
            acks, last = found[slot]
            if outcome == Outcome.OK:
                acks.append((returned, invoked, nodes[node]))
            found[slot] = (acks, max(last, invoked))
    for acks, _ in found.values():
        acks.sort()
    return found
