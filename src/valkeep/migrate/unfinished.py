"""A run that was killed before its cut-over: whether this one goes on where that was, or puts back what it left and begins anew.

It goes on when the gateway of that run can (`resumption`) and the target is what it was: a replica of that gateway, which waits for it to come back. A
target that was promoted or follows somebody else is no copy any more, however little it was written to; it is named, and nothing is done to it. One that was
written to while it was a replica (``replica-read-only no``) looks like a copy: the verification, which begins again, finds what differs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from valkeep.client.connection import Connection
from valkeep.client.server_info import ServerInfo, server_info
from valkeep.errors import Refused
from valkeep.migrate import marker, pushed
from valkeep.migrate.abort import restore_target
from valkeep.migrate.state import expect_target

if TYPE_CHECKING:
    from valkeep.migrate.journal import Journal
    from valkeep.migrate.outcome import RunOptions
    from valkeep.migrate.resumption import Resumption
    from valkeep.migrate.state import MigrationState, StateFile

__all__ = ["take_up"]


async def take_up(options: RunOptions, state: StateFile, resumptions: Sequence[Resumption], journal: Journal) -> bool:
    """Whether this run goes on where a killed one was. ``resumptions``: one for each server of the source.

    Raises ``Refused`` where that was one to another target, where the target is no copy any more, and where what was kept cannot be believed."""
    left = state.read()
    if left is None and not options.fresh:
        _expect_no_service(resumptions[0])
    if left is None or left.step not in ("attaching", "attached"):
        return False
    expect_target(left, options.target.display)
    async with await Connection.open(options.target, client_name="valkeep-migrate") as target:
        same = (options.read, options.deliver, options.fresh) == ("psync", left.delivery, False)
        loaded = [one.load() for one in resumptions] if same else [False]
        if all(loaded) and await _stands(target, left, frozenset(replid for one in resumptions for replid in one.channels)):
            when = "it wrote to the target" if left.delivery == "push" else "the target followed it"
            journal.say("info", f"an earlier run (pid {left.pid}) was killed when {when}; this one goes on (--fresh begins anew)")
            return True
        done = await restore_target(target, left)
    state.step("aborted")
    journal.say("info", "; ".join([f"an earlier run (pid {left.pid}) was killed, and this one begins anew", *done]))
    return False


def _expect_no_service(resumption: Resumption) -> None:
    """Raises ``Refused`` for the folder of a gateway that is no part of a run: its targets wait for what is kept there."""
    if resumption.load():
        folder = resumption.path.parent
        raise Refused(
            f"{folder} is the state folder of a `valkeep migrate gateway`, which can be gone on with",
            remedy="give another --state DIR; or, if that gateway is over, say --fresh",
            code="VK-STATE-OTHER",
        )


async def _stands(target: Connection, left: MigrationState, ours: AbstractSet[str]) -> bool:
    """Whether the target can go on. ``ours``: ids of the channels that we have. Raises ``Refused`` where it is no copy any more."""
    if left.delivery == "push":
        return await _has_ours(target, left, ours)
    _expect_copy(target.endpoint.address, await server_info(target), left, ours)
    return True


async def _has_ours(target: Connection, left: MigrationState, ours: AbstractSet[str]) -> bool:
    """Whether a target that is written to says by its markers how far it is, each of its shards."""
    found = [None if value is None else marker.Marker.parse(value) for value in await pushed.marks(target, left)]
    said = Counter(one.replid for one in found if one is not None)  # also of lanes that are over
    return all(said[replid] == max(len(left.shards), 1) for replid in ours)


def _expect_copy(where: str, found: ServerInfo, left: MigrationState, ours: Iterable[str]) -> None:
    fields = found.fields
    if found.role != "primary":
        follows = f"{fields.get('master_host')}:{fields.get('master_port')}"
        # others may have told it another address of the gateway; by the stream it is seen whom it follows
        if follows == left.gateway or (left.delivery == "external" and (found.replid in ours or left.step == "attaching")):
            return
        raise _left(f"the target {where} follows {follows}, and not the gateway at {left.gateway} any more")
    if left.step == "attaching" and not sum(found.keys.values()):
        return  # it was not told yet
    if fields.get("master_replid2", "") not in ours:
        raise _left(f"the target {where} is a primary: it was restarted, or told so, while nobody looked")
    parted = found.number("second_repl_offset") - 1
    written = found.number("master_repl_offset") - parted
    since = f"it was written to since, {written} bytes of commands" if written > 0 else "it was not written to since"
    raise _left(f"the target {where} was promoted while nobody looked, at offset {parted} of our stream; {since}")


def _left(text: str) -> Refused:
    return Refused(
        text,
        remedy="if it is to stay a primary, fence the source and compare them: valkeep migrate verify; else start anew, which replaces what it has: "
        "--fresh --wipe-target",
        code="VK-TARGET-LEFT",
    )
