"""Can this server go on where we are? Decided from what its INFO says, *before* it is asked: a server that cannot go on answers PSYNC with a full sync,
which forks it and sends all its data.

    ours       ───────────────────────────●                         we have everything up to here, under this id
    master_replid, the same id            ──[───────────●           its backlog begins at [, it has written up to ●
    master_replid2, promoted at | …       ───────[──|───●           our id is its second one: the histories parted at |

It goes on when our next byte is in its backlog, and not behind the parting. The rule is that of ``masterTryPartialResynchronization`` (Redis ≥ 4,
replication.c); before 4.0 the id is the process' run_id, and there is no second one.

What it cannot see: what happens between this look and the PSYNC. The link itself refuses a full sync then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from valkeep.client.replication import NotNow
from valkeep.migrate.feed import Position, ReplicationGap

__all__ = ["OtherSource", "Outage", "bytes_needed"]

MEGABYTE = 1 << 20
AGAIN = "start the migration again: it begins with a full sync"


class OtherSource(ReplicationGap):
    """Another server, or another data set, answers where the source was."""

    code = "VK-SOURCE-OTHER"


@dataclass(frozen=True, slots=True)
class Outage:
    """Whom we lost, and whom we ask. ``server``: as messages name who is asked; ``seconds``: since the link broke (0: not known); ``run_id``: of the process
    that we followed ("": not known)."""

    server: str
    seconds: float = 0.0
    run_id: str = ""


def bytes_needed(fields: Mapping[str, str], since: Position, outage: Outage) -> int:
    """How many bytes of its backlog we need, maybe none. ``fields``: of its whole INFO.

    Raises ``NotNow`` where it may go on later, `OtherSource` and ``ReplicationGap`` where it never will.
    """
    server = outage.server
    replica = fields.get("role") == "slave"
    if fields.get("loading") == "1":
        raise NotNow(f"{server} loads its data", remedy="wait until it has loaded them")
    first, second = fields.get("master_replid") or fields.get("run_id", "?"), fields.get("master_replid2", "")
    there = _number(fields, "master_repl_offset")
    if since.replid not in (first, second):
        if replica and fields.get("master_link_status") != "up":
            raise NotNow(f"{server} is a replica without a link to its primary", remedy="wait until it has its primary back")
        raise _other(fields, first, second, since, outage)
    parting = _number(fields, "second_repl_offset") - 1 if since.replid != first else None
    have = max(since.offset, since.reached)
    if parting is not None and have > parting:
        raise ReplicationGap(
            f"{server} was promoted at offset {parting} of {since.replid}, and we have that history up to {have}: the {have - parting} bytes "
            "between were acknowledged by the old primary and exist nowhere else but on the target",
            remedy=f"save what you need of them from the old primary or the target; then {AGAIN}",
        )
    if there < have:
        if replica:
            raise NotNow(f"{server} is a replica that is {have - there} bytes behind us", remedy="wait until it has caught up")
        raise ReplicationGap(
            f"{server} has written up to offset {there} of {first} only, and we have that history up to {have}: "
            f"the {have - there} bytes between exist nowhere else but on the target",
            remedy=f"was it restored from an older snapshot? Save what you need of them from the target; then {AGAIN}",
        )
    begins = _number(fields, "repl_backlog_first_byte_offset")
    if fields.get("repl_backlog_active") != "1" or since.offset + 1 < begins:
        raise _left_behind(fields, since, outage, begins, there)
    if replica and fields.get("master_link_status") != "up":
        raise NotNow(f"{server} is a replica without a link to its primary", remedy="wait until it has its primary back")
    return there - since.offset


def _other(fields: Mapping[str, str], first: str, second: str, since: Position, outage: Outage) -> OtherSource:
    ids = first if not second.strip("0") else f"{first} (before: {second})"
    what = f"{outage.server} has the history {ids} at offset {_number(fields, 'master_repl_offset')}, and ours is {since.replid} at offset {since.offset}"
    if outage.run_id and fields.get("run_id") == outage.run_id:
        return OtherSource(
            f"{what}: it is the same process, and began a new history (after repl-backlog-ttl seconds without a replica, or by a full sync of its own)",
            remedy=f"raise repl-backlog-ttl (0: for ever) where links may be broken for so long; {AGAIN}",
        )
    return OtherSource(
        f"{what}: another server or another data set answers at this address (run_id {fields.get('run_id', '?')}, before {outage.run_id or 'unknown'})",
        remedy="was the source restarted without its snapshot, or replaced by a failover that did not keep its history? Give the address of the server that "
        f"went on with ours, or of its sentinels (redis+sentinel://); else {AGAIN}",
    )


def _left_behind(fields: Mapping[str, str], since: Position, outage: Outage, begins: int, there: int) -> ReplicationGap:
    missed = max(there - since.offset, 0)
    size = _number(fields, "repl_backlog_size")
    if fields.get("repl_backlog_active") != "1":
        return ReplicationGap(
            f"offset {since.offset} left the source: {outage.server} keeps no backlog",
            remedy=f"set repl-backlog-size and repl-backlog-ttl 0 there; {AGAIN}",
        )
    rate = f", {missed / outage.seconds / 1e6:.2f} MB/s" if outage.seconds else ""
    during = f" in the {outage.seconds:.1f} s since the link broke" if outage.seconds else ""
    advice = MEGABYTE
    while advice < 2 * missed or advice <= size:
        advice *= 2
    return ReplicationGap(
        f"offset {since.offset} left the source's backlog, which begins at {begins} (of {size} bytes): {outage.server} wrote {missed} bytes{during}{rate}",
        remedy=f"raise repl-backlog-size there to {advice // MEGABYTE}mb, or allow a full sync by starting again",
    )


def _number(fields: Mapping[str, str], name: str) -> int:
    text = fields.get(name, "")
    return int(text) if text.lstrip("-").isdigit() else 0
