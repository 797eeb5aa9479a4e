"""The way back from its state alone: nobody keeps it any more (killed, interrupted), and somebody says commit or rollback.

What the files say was intended; what happened is asked of the servers::

    main      back        the old server is          so
    cutting   -           -                          the cut-over itself is not settled: where the target took over it is, else `abort` is asked for
    promoted  -           a primary, fenced          the way back was never begun: it can be, now
    promoted  attached    a replica                  it is gone on with
    promoted  cutting     a replica                  a rollback did not come to its promotion: the new server gets its writers back
    promoted  cutting     the promoted primary       it came to it: the old server's fence is lifted, and the rollback is complete
    promoted  cutting     a primary that restarted   nobody knows: a person has to look
    promoted  cutting     a primary, and the new     somebody else promoted it, or restarted the new one: a person has to look
                          one is not fenced
    committed             -                          the old server is let go, if that was not done yet
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from valkeep.client.connection import Connection
from valkeep.client.server_info import server_info
from valkeep.errors import ConnectionLost, Refused, ValkeepError
from valkeep.migrate import fence
from valkeep.migrate.back.decision import Decision
from valkeep.migrate.back.old import OldServer, old_endpoint
from valkeep.migrate.back.wayback import WayBack, let_go
from valkeep.migrate.control import Control, Lock, remove_socket
from valkeep.migrate.journal import Journal
from valkeep.migrate.outcome import WayBackResult
from valkeep.migrate.state import BACK, MigrationState, StateFile

if TYPE_CHECKING:
    from valkeep.migrate.outcome import RunOptions
    from valkeep.report.events import Emit

__all__ = ["commit", "roll_back"]


async def commit(options: RunOptions) -> WayBackResult:
    """Let the old server go. Raises ``ValkeepError``."""
    with Lock(options.state_directory):
        remove_socket(options.state_directory)
        main, old = await _settled(options)
        if _step(main) == "rolled-back":
            raise _already(main, "rolled back")
        main.step("committed")
        done = await old.release()
        let_go(main.directory / BACK)
        return WayBackResult("committed", tuple(done), 0)


async def roll_back(options: RunOptions, emit: Emit, clock: Callable[[], float]) -> WayBackResult:
    """Go on with the way back, and cut back as soon as the old server is current. Raises ``ValkeepError``."""
    with Lock(options.state_directory):
        remove_socket(options.state_directory)
        main, old = await _settled(options)
        if _step(main) == "rolled-back":
            return WayBackResult("rolled-back", tuple(await old.unfence()), 0)
        if _step(main) == "committed":
            raise _already(main, "committed")
        decision = Decision()
        way_back = WayBack(options, main, Journal(options.report, emit, clock), decision)
        answers = {"commit": decision.commit, "rollback": decision.rollback, "status": way_back.told}
        async with Control(options.state_directory, answers):
            keeping = asyncio.ensure_future(way_back.keep())
            asking = asyncio.ensure_future(_as_soon_as_it_stands(decision))
            try:
                await asyncio.wait({keeping, asking}, return_when=asyncio.FIRST_COMPLETED)
                if not keeping.done() and asking.exception() is not None:  # called off; who ran this is told, and nobody is left to keep it
                    await asking
                return await keeping
            finally:
                for task in (keeping, asking):
                    task.cancel()
                await asyncio.gather(keeping, asking, return_exceptions=True)


async def _as_soon_as_it_stands(decision: Decision) -> None:
    await decision.stands()
    await decision.rollback()


async def _settled(options: RunOptions) -> tuple[StateFile, OldServer]:
    """What is recorded, after what a kill left in the middle was brought to one of its ends."""
    main = StateFile(options.state_directory)
    found = main.read()
    if found is None:
        raise Refused(
            f"no migration is recorded in {main.directory}",
            remedy="give the --source and --target of the migration, or its --state folder",
            code="VK-ROLLBACK-NONE",
        )
    if found.step == "cutting":
        found = await _promoted(options, main)
    if found.step not in ("promoted", "committed", "rolled-back"):
        raise Refused(
            f"the migration to {found.target} was not cut over (it is {found.step}), so there is nothing to commit or to roll back",
            remedy="`valkeep migrate abort` undoes what it changed",
            code="VK-ROLLBACK-NONE",
        )
    if found.delivery == "push":
        raise Refused(
            "the target was written to as by a client: it has no history that a way back could begin from",
            remedy="migrate back: `valkeep migrate run` from the new server to the old one, where that is a Valkey",
            code="VK-ROLLBACK-NONE",
        )
    old = OldServer(old_endpoint(options, found.fence_at), found)
    back = StateFile(main.directory / BACK)
    rolling = back.read()
    if rolling is not None and rolling.channel != found.fence_token:  # of a migration before this one
        let_go(back.directory)
    elif found.step == "promoted" and rolling is not None and rolling.step in ("cutting", "promoted"):
        await _settle_rollback(options, main, back, rolling, old)
    return main, old


async def _promoted(options: RunOptions, main: StateFile) -> MigrationState:
    """The cut-over was killed: is the target what it shall become? Raises ``Refused`` where it is not."""
    assert main.current is not None
    async with await Connection.open(options.target, client_name="valkeep-migrate") as connection:
        info = await server_info(connection)
    if info.role != "primary" or info.run_id != main.current.target_run:
        raise Refused(
            f"the cut-over to {options.target.address} did not come to its end: it is a {info.role}, run_id {info.run_id}",
            remedy="`valkeep migrate abort`: it makes the source writable again, or says why not",
            code="VK-ROLLBACK-NONE",
        )
    where = old_endpoint(options, main.current.fence_at)
    async with await Connection.open(where, client_name="valkeep-migrate") as source:
        if not await fence.stands(source, main.current.fence_before, main.current.fence_token):
            raise Refused(
                f"{options.target.address} is a primary, but the cut-over's fence is not up on {where.address}: it did not come to its end, and somebody "
                "detached the target; or somebody took the fence away since",
                remedy="`valkeep migrate abort`, which says more",
                code="VK-ROLLBACK-NONE",
            )
    main.step("promoted")
    return main.current


async def _settle_rollback(options: RunOptions, main: StateFile, back: StateFile, rolling: MigrationState, old: OldServer) -> None:
    async with await Connection.open(old.endpoint, client_name="valkeep-migrate") as connection:
        info = await server_info(connection)
    if info.role == "primary":
        if rolling.step == "cutting" and info.run_id != rolling.target_run:
            raise ValkeepError(
                f"the old server {old.endpoint.address} is a primary, but not the process that the rollback was about to promote: it was restarted (run_id "
                f"{info.run_id}), may hold less, and nobody knows whether it had been promoted before",
                remedy="no side acknowledges writes now. Where no client wrote to the old server since, lift the new one's fence: "
                f"{fence.as_commands(rolling.fence_before)} on {options.target.address}",
                definite=False,
                code="VK-ROLLBACK-UNKNOWN",
            )
        await _expect_refusing(options, rolling, old)
        await old.unfence()
        main.step("rolled-back")
        return
    async with await Connection.open(options.target, client_name="valkeep-migrate") as connection:
        if rolling.fence_before:
            await fence.lift(connection, rolling.fence_before, rolling.fence_token)
    back.step("attached", fence_before={})


async def _expect_refusing(options: RunOptions, rolling: MigrationState, old: OldServer) -> None:
    """The old server gets no writers while the new one may have them: somebody else may have promoted the one, or restarted the other. Raises
    ``ValkeepError``."""
    try:
        async with await Connection.open(options.target, client_name="valkeep-migrate") as connection:
            if await fence.stands(connection, rolling.fence_before, rolling.fence_token):
                return
        seen = "is not fenced by the rollback: it may have writes that the old one lacks"
    except ConnectionLost as error:
        if rolling.step == "promoted":
            return
        seen = f"does not say whether it was fenced ({error.message})"
    raise ValkeepError(
        f"the old server {old.endpoint.address} is a primary, and the new server {options.target.address} {seen}",
        remedy="nothing was changed. See which of them has the newer writes before you move anybody; where that is the old one, lift its fence: "
        f"{fence.as_commands(old.fence_before)} there",
        definite=False,
        code="VK-ROLLBACK-UNKNOWN",
    )


def _step(main: StateFile) -> str:
    return main.current.step if main.current is not None else ""


def _already(main: StateFile, what: str) -> Refused:
    assert main.current is not None
    return Refused(
        f"the migration from {main.current.source} to {main.current.target} was {what} already",
        remedy="begin a new one: `valkeep migrate run`",
        code="VK-ROLLBACK-NONE",
    )
