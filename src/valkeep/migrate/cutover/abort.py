"""The way back: a cut-over that is called off (``call_off``), and what ``valkeep migrate abort`` undoes from the state file (``abort``), also after a
kill -9, and when it must not.

The rule that decides: a source is made writable only when no promoted target can have taken its place. Who cannot be asked may have been promoted; a
target that was restarted since is a primary that may hold less than the source. ``--force`` is a person's word that they know better.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from valkeep.client.connection import Connection
from valkeep.client.server_info import server_info
from valkeep.errors import ConnectionLost, Refused, ServerError, ValkeepError
from valkeep.migrate import fence
from valkeep.migrate.cutover import pushed
from valkeep.migrate.gateway.resumption import discard
from valkeep.migrate.state import BACK

if TYPE_CHECKING:
    from valkeep.migrate.state import MigrationState, StateFile

__all__ = ["Paused", "Site", "abort", "call_off", "reopened", "restore_target", "to_the_end"]

RETURN_SECONDS = 10.0  # for a source to come back, to be put in order


@dataclass(frozen=True, slots=True)
class Paused:
    """A source that may be paused or fenced. ``client``: id of the connection that did it (0: unknown); ``run_id``: of its process then; ``before``: what
    the fence replaced; ``token``: of the fence."""

    source: Connection
    client: int
    run_id: str
    before: Mapping[str, str]
    token: str


@dataclass(frozen=True, slots=True)
class Site:
    """A server of the source that may be fenced, and the file that says so. ``source``: None where it does not answer."""

    source: Connection | None
    state: StateFile

    @property
    def found(self) -> MigrationState:
        assert self.state.current is not None  # it was read
        return self.state.current


async def call_off(paused: Paused | None, state: StateFile, cause: BaseException) -> None:
    """Make the source writable again: nothing was promoted, so nothing can be lost by that. None: nothing was done to it."""
    opened: Connection | None = None
    try:
        if paused is not None:
            source = paused.source
            if source.closed:
                source = opened = await reopened(source)
            if opened is None or await _is_same_process(opened, paused):
                await fence.lift(source, paused.before, paused.token)
    except ValkeepError as error:
        raise ValkeepError(
            f"the cut-over was called off ({cause}), but the source could not be made writable again: {error.message}",
            remedy="run `valkeep migrate abort` as soon as the source answers; the target was not promoted",
            definite=False,
            code="VK-CUTOVER-UNFENCE",
        ) from error
    finally:
        if opened is not None:
            await opened.close()
    state.step("attached", fence_before={})


async def reopened(source: Connection) -> Connection:
    """A new connection to a source whose last one broke; it may be starting again just now."""
    loop = asyncio.get_running_loop()
    until = loop.time() + RETURN_SECONDS
    while True:
        try:
            return await Connection.open(source.endpoint, client_name="valkeep-migrate")
        except ConnectionLost:
            if loop.time() > until:
                raise
        await asyncio.sleep(0.1)


async def _is_same_process(source: Connection, paused: Paused) -> bool:
    """Whether this is the process that we paused or fenced. If so, what was sent on the connection that broke takes no effect after this."""
    if (await server_info(source)).run_id != paused.run_id:
        return False  # its settings are those of its configuration file, and its clients are others
    await source.pipeline([("CLIENT", "KILL", "ID", paused.client)] if paused.client else [])
    return True


async def to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Do this although we are cancelled, also more than once: half done, it would leave the source fenced. Who said stop meanwhile is obeyed after it."""
    task = asyncio.ensure_future(work)
    stopped: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as stop:
            stopped = stop
    task.result()
    if stopped is not None:
        raise stopped


async def abort(sites: Sequence[Site], target: Connection | None, state: StateFile, *, force: bool = False) -> list[str]:
    """Undo what a migration changed, from its state file and from what the servers say now; returns what was done, in sentences. ``sites``: the source, with
    this same ``state``; of a cluster its shards, each with its own, without those that were not begun with.

    None stands for a server that does not answer: what can be done without it is done. Raises ``Refused`` when the target was promoted already (making the
    source writable then would let two primaries diverge) or when nobody can tell; ``force`` does it all the same.
    """
    found = state.current or state.read()
    if found is None:
        raise Refused(
            f"no migration is recorded in {state.directory}",
            remedy="give the --source and --target of the migration as `valkeep migrate status` lists them, or its --state folder",
        )
    if found.step == "aborted":
        return ["nothing is left to undo: this migration was aborted before"]
    if found.step == "rolled-back":
        return ["nothing is left to undo: this migration was rolled back, and the old server is the primary"]
    if found.step == "promoted" and (state.directory / BACK).is_dir():
        raise Refused(
            f"the target {found.target} is a primary already, and the source is kept current as its replica",
            remedy="`valkeep migrate rollback` makes the source the primary again, with every write; `valkeep migrate commit` lets it go",
            code="VK-ABORT-PROMOTED",
        )
    folders = {state.directory, *(site.state.directory for site in sites)}
    if found.step in ("attaching", "attached"):  # what else stands there is of a migration before
        sites = [site for site in sites if site.state is state or site.found.step == "cutting"]
    role = (await target.call("ROLE"))[0] if target is not None else b""
    took_over = await _took_over(target, found, role) if found.step == "cutting" and target is not None else False
    promoted = found.step in ("promoted", "committed") or took_over is True
    if target is not None and promoted and found.step == "cutting" and found.target_run and not force:
        run_id = await pushed.identity(target, found)
        if run_id != found.target_run:  # a replica that is started again is a primary, with what its last snapshot had
            raise Refused(
                f"the target {found.target} is a primary, but not the process that took the source's writes: it was restarted since (run_id {run_id}), may "
                "hold less than the source, and nobody knows whether it had been promoted before",
                remedy="do not move writers there; when no client wrote to it since the cut-over began, `--force` makes the source writable again",
                code="VK-ABORT-UNKNOWN",
            )
    if promoted and found.step == "cutting" and not force:
        for site in sites:
            await _expect_fenced(site.source, site.found)
    if promoted and found.source.startswith("file:"):
        return [f"nothing is left to undo: {found.target} has what the files hold, and is a primary"]
    if promoted and not force:
        raise Refused(
            f"the target {found.target} is a primary already: the cut-over is complete, and it has every write that the source acknowledged",
            remedy="move the writers to the target; `--force` makes the source writable too, and the two then diverge",
            code="VK-ABORT-PROMOTED",
        )
    if found.promotion and found.step == "cutting" and not promoted and not force:
        raise Refused(
            f"{found.promotion} was asked to promote the target {found.target}, which cannot be taken back: it may still become a primary",
            remedy="wait for it, then move the writers to the target; only when it surely will not be promoted, `--force` makes the source writable",
            code="VK-ABORT-UNKNOWN",
        )
    if (target is None or took_over is None) and found.step == "cutting" and not force:
        who = f"the target {found.target} does" if target is None else f"some of the shards of the target {found.target} do"
        raise Refused(
            f"{who} not answer, so nobody knows whether it was promoted",
            remedy="make it answer and try again; if it is lost, or surely no primary, `--force` makes the source writable",
            code="VK-ABORT-UNKNOWN",
        )
    done = await _reopen(sites, promoted=promoted, force=force)
    if not done and not found.source.startswith("file:"):
        done.append("the source was never fenced and accepts writes")
    if target is None:
        done.append("the target does not answer: when it does, abort again, or detach it with REPLICAOF NO ONE")
        return done
    if not promoted:
        if found.source_shards:  # before its markers go: without them it must not be taken for a promoted one
            state.step("attached", target_run="")
        try:
            done += await restore_target(target, found)
        except ConnectionLost as error:
            if not found.source_shards:
                raise
            done.append(f"{error.message}: when it answers, abort again")
            return done
    state.step("aborted")
    for folder in folders:
        discard(folder)
    return done


async def _reopen(sites: Sequence[Site], *, promoted: bool, force: bool) -> list[str]:
    """Every server of the source that may be fenced accepts writes again; what was done. Raises what went wrong at the first that could not be made to, after
    the others."""
    done: list[str] = []
    failed: ValkeepError | None = None
    for site in sites:
        found = site.found
        if not found.fence_before:
            continue
        where = f"the source's {found.fence_at}" if len(sites) > 1 else "the source"
        if site.source is None and force and len(sites) > 1:  # the cluster goes on without it, perhaps for ever
            site.state.step("attached", fence_before={})
            done.append(f"{where} does not answer, and was left as it is; should it come back: {fence.as_commands(found.fence_before)}")
            continue
        try:
            lifted = await _unfence(site.source, found, "" if force else found.fence_token)
        except ValkeepError as error:
            failed = failed or error
            continue
        if not promoted:  # before it is detached: a detached target is a primary, too, and must not be taken for a promoted one
            site.state.step("attached", fence_before={})
        if not lifted:
            done.append(
                f"{where} is fenced by somebody else, another cut-over perhaps: that fence is not this migration's, and was left alone"
            )
        else:
            before = ", ".join(f"{name} {old}" for name, old in found.fence_before.items())
            done.append(f"{where} accepts writes again ({before})")
        if lifted and found.fence_kept:
            done.append("its configuration file says so, too")
    if failed is not None:
        raise failed.saying(f"{failed.message}; {'; '.join(done)}") if done else failed
    return done


async def _unfence(source: Connection | None, found: MigrationState, token: str) -> bool:
    """Whether it was lifted, and is not somebody else's."""
    settings = fence.as_commands(found.fence_before)
    if source is None:
        raise ValkeepError(
            f"the source {found.fence_at or found.source} does not answer, so it could not be made writable",
            remedy=f"abort again when it answers (a restart of it ends the fence, too, unless --keep-fence was given: {settings})",
            definite=False,
            code="VK-CUTOVER-UNFENCE",
        )
    try:
        return await fence.lift(source, found.fence_before, token, kept=found.fence_kept)
    except (ServerError, Refused) as error:
        raise ValkeepError(
            f"the source could not be made writable: {error.message}",
            remedy=f"{settings} on the source, by a user who may" + ("; then CONFIG REWRITE" if found.fence_kept else ""),
            definite=False,
            code="VK-CUTOVER-UNFENCE",
        ) from error


async def _took_over(target: Connection, found: MigrationState, role: bytes) -> bool | None:
    """Whether a target that is in the middle of a cut-over is the primary already; None: nobody knows."""
    if found.delivery == "push":  # it was one all the time; the promotion is that the marker goes
        return await pushed.promoted(target, found)
    return role == b"master"


async def _expect_fenced(source: Connection | None, found: MigrationState) -> None:
    """We promote behind our fence only: without it a primary is a target that somebody detached, perhaps long before the source's last write."""
    if found.delivery == "push" and not found.fence_before:  # its marker is gone, which the promotion takes away
        return
    if not found.fence_before:
        seen = "was fenced by nobody (--fence external)"
    elif source is None:
        seen = "does not answer"
    elif await fence.stands(source, found.fence_before, found.fence_token):
        return
    else:
        seen = "is not fenced by this cut-over"
    raise Refused(
        f"the target {found.target} is a primary, and the source {found.fence_at or found.source} {seen}: either somebody detached the target before the "
        "cut-over came to its end, and the source went on, or it was promoted and somebody took the fence away since",
        remedy="move nobody before you know which of them has the newer writes (`valkeep migrate verify`); if that is the source, `--force` ends this "
        "migration and leaves the source writable",
        code="VK-ABORT-UNKNOWN",
    )


async def restore_target(target: Connection, found: MigrationState) -> list[str]:
    """Detach the target from the gateway, and put back what was set there (see ``delivery``)."""
    if found.delivery == "push":
        return await _restore_pushed(target, found)
    if found.detach_by:
        if (await server_info(target)).role == "primary":
            if not (found.group and found.gateway and found.step == "attaching"):
                return []
            return [f"ElastiCache may be migrating {found.group} still: if its status is migrating, {found.detach_by} ends that"]
        return [
            f"the target attached by itself, and was not detached by us: detach it by {found.detach_by}; it keeps what was copied so far"
        ]
    done: list[str] = []
    role = await target.call("ROLE")
    if role[0] != b"master" and (not found.gateway or found.gateway == f"{role[1].decode()}:{role[2]}"):
        await target.call("REPLICAOF", "NO", "ONE")
        done.append("the target is detached; it keeps what was copied so far")
    return done


async def _restore_pushed(target: Connection, found: MigrationState) -> list[str]:
    """A target that was written to: the marker away, its settings as they were."""
    done = await pushed.restore(target, found)
    if found.shards:
        return [*done, "nothing more is written to the target; it keeps the keys that it has now"]
    keys = sum((await server_info(target)).keys.values())
    return [*done, f"nothing more is written to the target; it keeps the {keys} keys that it has now"]
