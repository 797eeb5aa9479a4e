"""A run that was killed before its cut-over: whether this one goes on where that was, or puts back what it left and begins anew.

It goes on when the gateway of that run can (`resumption`) and the target is what it was: a replica of that gateway, which waits for it to come back. A
target that was promoted or follows somebody else is no copy any more, however little it was written to; it is named, and nothing is done to it. One that was
written to while it was a replica (``replica-read-only no``) looks like a copy: the verification, which begins again, finds what differs.

**Where somebody else tells the target** (ElastiCache), what they were going to be told stands in the state file before they are (``gateway``), and what became
of it is asked: the group's status says whether a migration is under way, and the target whose stream it has, or where it looks for one::

    the state says   status      the target is             this run
    not asked        available   as it was                 asks
    not asked        migrating   whatever                  refuses: somebody else's        (unless it has our stream)
    asked            available   as it was                 asks: nothing came of it
    asked            migrating   as it was, or comes to us goes on; if it then turns out to follow another, that is left alone (`delivery.elasticache`)
    attached         migrating   a replica, of our stream  goes on
    any              any         anything else             refuses, with what was found

Nothing is begun anew while a migration is under way, which nobody but a person can end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from enum import Enum
from typing import TYPE_CHECKING, Final

from valkeep.client.connection import Connection
from valkeep.client.server_info import ServerInfo, server_info
from valkeep.errors import Refused
from valkeep.migrate import marker
from valkeep.migrate.cutover import pushed
from valkeep.migrate.cutover.abort import restore_target
from valkeep.migrate.elasticache.plane import Plane
from valkeep.migrate.elasticache.probe import is_at
from valkeep.migrate.state import BACK, StateFile, expect_target

if TYPE_CHECKING:
    from pathlib import Path

    from valkeep.migrate.gateway.resumption import Resumption
    from valkeep.migrate.journal import Journal
    from valkeep.migrate.outcome import RunOptions
    from valkeep.migrate.state import MigrationState

__all__ = ["Footing", "expect_settled", "take_up"]

ANEW: Final = "--fresh --wipe-target"


class Footing(Enum):
    """What a run begins with: ``ANEW``: nothing. ``UNTOLD``: what the gateway of a killed run kept, for a target that knows nothing of it. ``TOLD``: the same,
    and the target follows, or will."""

    ANEW = "anew"
    UNTOLD = "untold"
    TOLD = "told"

    @property
    def goes_on(self) -> bool:
        return self is not Footing.ANEW


async def take_up(options: RunOptions, state: StateFile, resumptions: Sequence[Resumption], journal: Journal) -> Footing:
    """Whether this run goes on where a killed one was. ``resumptions``: one for each server of the source.

    Raises ``Refused`` where that was one to another target, where the target is no copy any more, and where what was kept cannot be believed."""
    left = state.read()
    if left is None and not options.fresh:
        _expect_no_service(resumptions[0])
    if left is None or left.step not in ("attaching", "attached"):
        return Footing.ANEW
    expect_target(left, options.target.display, options.group_name)
    status = await Plane(options.group).status() if options.group is not None else ""
    async with await Connection.open(options.target, client_name="valkeep-migrate") as target:
        same = (options.read, options.deliver, options.fresh) == ("psync", left.delivery, False)
        loaded = [one.load() for one in resumptions] if same else [False]
        ours = frozenset(replid for one in resumptions for replid in one.channels)
        footing = await _footing(target, left, ours, status, wipe=options.wipe_target) if all(loaded) else Footing.ANEW
        if footing.goes_on:
            if options.group is not None and left.gateway:
                await _expect_place(options, left, resumptions[0].listen)
            journal.say("info", _going_on(left, footing))
            return footing
        if options.group is not None:
            await _expect_over(target, left, status)
        done = await restore_target(target, left)
    state.step("aborted")
    journal.say("info", "; ".join([f"an earlier run (pid {left.pid}) was killed, and this one begins anew", *done]))
    return Footing.ANEW


def _expect_no_service(resumption: Resumption) -> None:
    """Raises ``Refused`` for the folder of a gateway that is no part of a run: its targets wait for what is kept there."""
    if resumption.load():
        folder = resumption.path.parent
        raise Refused(
            f"{folder} is the state folder of a `valkeep migrate gateway`, which can be gone on with",
            remedy="give another --state DIR; or, if that gateway is over, say --fresh",
            code="VK-STATE-OTHER",
        )


async def _footing(target: Connection, left: MigrationState, ours: AbstractSet[str], status: str, *, wipe: bool) -> Footing:
    """What a target permits of which something is kept. ``ours``: ids of the channels that we have; ``status``: of its replication group, "" where it is none.
    Raises ``Refused`` where it is no copy any more."""
    if left.delivery == "push":
        return Footing.TOLD if await _has_ours(target, left, ours) else Footing.ANEW
    found = await server_info(target)
    where = target.endpoint.address
    if found.role != "primary":
        await _expect_follower(where, found, left, ours, status)
        return Footing.TOLD
    if found.fields.get("master_replid2", "") in ours:
        parted = found.number("second_repl_offset") - 1
        written = found.number("master_repl_offset") - parted
        since = f"it was written to since, {written} bytes of commands" if written > 0 else "it was not written to since"
        raise _lost(f"the target {where} was promoted while nobody looked, at offset {parted} of our stream; {since}", left, status)
    as_it_was = not sum(found.keys.values()) or (wipe and left.delivery == "external")
    if left.step == "attached" or not as_it_was:
        raise _lost(f"the target {where} is a primary: it was restarted, or told so, while nobody looked", left, status)
    if status in ("", "available"):
        return Footing.UNTOLD
    if status == "migrating" and left.gateway:
        return Footing.TOLD  # it takes its time
    raise _others(f"the replication group {left.group} is {status}, and the run that was killed had not asked for it", left)


async def _expect_follower(where: str, found: ServerInfo, left: MigrationState, ours: AbstractSet[str], status: str) -> None:
    """Raises ``Refused`` where this replica is not our gateway's."""
    host, port = found.fields.get("master_host", "?"), found.fields.get("master_port", "?")
    follows = f"{host}:{port}"
    if left.delivery == "external" and found.replid in ours:  # others may have told it another address of the gateway
        known = True
    elif not left.group:
        known = follows == left.gateway or (left.delivery == "external" and left.step == "attaching")
    else:
        told, _, at = left.gateway.rpartition(":")
        known = left.gateway != "" and await is_at(host, port, (told, int(at)))
    if not known:
        gateway = f"the gateway at {left.gateway}" if left.gateway else "our gateway, of which it was not told"
        text = f"the target {where} follows {follows}, and not {gateway}"
        raise _others(text, left) if left.group else _lost(f"{text} any more", left, status)
    if status == "available":
        raise Refused(
            f"the target {where} follows {follows}, and {left.group} is available: no migration is under way that could be completed",
            remedy="look at its events, and again in a minute: its status may be late. If it stays so, ask AWS: nobody else can end its replication",
            code="VK-EC-STATE",
        )


async def _has_ours(target: Connection, left: MigrationState, ours: AbstractSet[str]) -> bool:
    """Whether a target that is written to says by its markers how far it is, each of its shards."""
    found = [None if value is None else marker.Marker.parse(value) for value in await pushed.marks(target, left)]
    said = Counter(one.replid for one in found if one is not None)  # also of lanes that are over
    return all(said[replid] == max(len(left.shards), 1) for replid in ours)


async def _expect_place(options: RunOptions, left: MigrationState, listened: tuple[str, int]) -> None:
    """Raises ``Refused`` where the gateway would be elsewhere than those who tell the target were told. ``listened``: where it was."""
    host, port = options.announce or (options.listen[0] or listened[0], options.listen[1] or listened[1])
    told, _, at = left.gateway.rpartition(":")
    if not await is_at(host, port, (told, int(at))):
        raise Refused(
            f"ElastiCache was told that the gateway is at {left.gateway}, and its primary looks for it there; this run would have it at {host}:{port}",
            remedy="give --listen and --announce as they were given to the run that was killed (without --announce, both may be left out). It can be told "
            f"another address only anew: {left.detach_by}; then {ANEW}",
            code="VK-EC-ADDRESS",
        )


async def _expect_over(target: Connection, left: MigrationState, status: str) -> None:
    """Before a replication group is begun anew with. Raises ``Refused`` where its migration is under way still."""
    if status == "available" and (await server_info(target)).role == "primary":
        return
    raise Refused(
        f"the migration of {left.group} that a killed run (pid {left.pid}) began is not over (its status is {status}): another cannot be begun",
        remedy=f"without --fresh the same command goes on with it, as long as what that run kept is there; else end it: {left.detach_by}; "
        f"and then begin anew with {ANEW}",
        code="VK-EC-UNDER-MIGRATION",
    )


def _going_on(left: MigrationState, footing: Footing) -> str:
    if left.delivery == "push":
        when = "it wrote to the target"
    elif footing is Footing.TOLD:
        when = "the target followed it"
    elif left.group and left.gateway:
        when = "it was calling StartMigration, of which nothing came"
    else:
        when = "the target did not follow it yet"
    return f"an earlier run (pid {left.pid}) was killed when {when}; this one goes on (--fresh begins anew)"


def _others(text: str, left: MigrationState) -> Refused:
    return Refused(
        f"{text}: the migration of {left.group} that is under way may be somebody else's",
        remedy="find out whose it is (its events; who called StartMigration), and let it end. Only if it may be lost: "
        f"{left.detach_by}; then run this again with {ANEW}",
        code="VK-EC-OTHER",
    )


def _lost(text: str, left: MigrationState, status: str) -> Refused:
    if status not in ("", "available"):
        remedy = (
            f"its group is {status}: see its events. Once ElastiCache has let it follow the gateway again, the same command goes on; or end the migration: "
            f"{left.detach_by}; then begin anew, which replaces what it has: {ANEW}"
        )
    else:
        remedy = (
            "if it is to stay a primary, fence the source and compare them: valkeep migrate verify; else start anew, which replaces what it has: "
            + ANEW
        )
    return Refused(text, remedy=remedy, code="VK-TARGET-LEFT")


def expect_settled(directory: Path) -> None:
    """Raises ``Refused`` where the migration of this state folder ended in its cut-over, or has a way back that nobody has decided about."""
    left = StateFile(directory).read()
    if left is not None and left.step == "promoted" and StateFile(directory / BACK).read() is not None:
        raise Refused(
            f"the migration from {left.source} to {left.target} is cut over, and nothing is decided about its way back",
            remedy="`valkeep migrate rollback` or `valkeep migrate commit` first",
            code="VK-STATE-UNFINISHED",
        )
    if left is not None and left.step == "cutting":
        raise Refused(
            f"a migration from {left.source} to {left.target} ended in the middle of its cut-over: the source may be fenced",
            remedy="run `valkeep migrate abort` first: it makes the source writable, or says that the target was promoted",
            code="VK-STATE-UNFINISHED",
        )
