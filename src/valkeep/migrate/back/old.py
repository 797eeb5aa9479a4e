"""The old server: made a replica of the way back, promoted again by a rollback, let go by a commit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from valkeep.client.connection import Connection
from valkeep.client.endpoint import Endpoint
from valkeep.client.server_info import parse_info, server_info
from valkeep.errors import ConnectionLost, Refused, ServerError, ValkeepError
from valkeep.migrate import fence
from valkeep.migrate.gateway.channel import Joined

if TYPE_CHECKING:
    from valkeep.migrate.outcome import RunOptions
    from valkeep.migrate.state import MigrationState

__all__ = ["OldServer", "lost", "old_endpoint"]


def old_endpoint(options: RunOptions, fence_at: str) -> Endpoint:
    """Where the writers were, by the state file, with the access that the user gave."""
    at = Endpoint.parse(fence_at)
    return (options.source_primary or options.source).at(at.host, at.port)


def lost(what: str) -> ConnectionLost:
    """There is no way back any more; the new server goes on."""
    error = ConnectionLost(
        f"there is no way back any more: {what}",
        remedy="the new server has everything and goes on; end this with `valkeep migrate commit`. The old server's data is that of an earlier moment: "
        "move no writers there",
        definite=False,
        code="VK-ROLLBACK-LOST",
    )
    error.changed = "the cut-over is complete and stays; the old server is no copy of the new one any more"
    return error


class OldServer:
    """``endpoint``: where the fence was raised. ``state``: of the cut-over that it was the source of."""

    def __init__(self, endpoint: Endpoint, state: MigrationState) -> None:
        self.endpoint = endpoint
        self._state = state

    @property
    def fence_before(self) -> Mapping[str, str]:
        """What the cut-over's fence replaced there."""
        return self._state.fence_before

    async def attach(self, gateway: tuple[str, int], known: frozenset[str]) -> Joined:
        """Make it a replica of the gateway; where it stood at that moment. ``known``: histories of ours that it may follow already. Raises
        ``VK-ROLLBACK-LOST`` where it is not any more what it was."""
        state, where = self._state, self.endpoint.address
        async with await Connection.open(self.endpoint, client_name="valkeep-migrate") as connection:
            info = await server_info(connection)
            if info.replid not in known | {state.source_replid}:
                raise lost(
                    f"the old server {where} has another history ({info.replid}, and {state.source_replid} at the cut-over): it was restarted, or promoted"
                )
            if info.role == "primary" and not await fence.stands(connection, state.fence_before, state.fence_token):
                raise lost(f"the old server {where} is not fenced any more, and may have taken writes")
            try:
                said, told = await connection.execute([("INFO", "replication"), ("REPLICAOF", *gateway)])
            except ServerError as error:
                said, told = error, error
            refused = next((one for one in (said, told) if isinstance(one, ServerError)), None)
            if refused is not None:
                raise Refused(
                    f"the old server {where} cannot be made a replica: {refused.message}",
                    remedy="permit MULTI, EXEC, INFO and REPLICAOF to this user there",
                    code="VK-ROLLBACK-DENIED",
                )
        fields = parse_info(said)
        offset = "master_repl_offset" if info.role == "primary" else "slave_repl_offset"
        return Joined(fields.get("master_replid", ""), int(fields.get(offset, "0")))

    async def left(self) -> str:
        """Why it does not follow the gateway any more, for good; "" while it may come back."""
        try:
            async with await Connection.open(self.endpoint, 5.0, client_name="valkeep-guard") as connection:
                info = await server_info(connection)
        except ValkeepError:
            return ""
        return f"the old server {self.endpoint.address} is a primary: it was restarted, or told so" if info.role == "primary" else ""

    async def release(self) -> list[str]:
        """Detach it: it stays as it is, fenced by what the cut-over set. In sentences what was done."""
        async with await Connection.open(self.endpoint, client_name="valkeep-migrate") as connection:
            if (await connection.call("ROLE"))[0] == b"master":
                return [f"the old server {self.endpoint.address} was detached already"]
            await connection.call("REPLICAOF", "NO", "ONE")
            fenced = self._state.fence_before and fence.is_ours(await fence.settings(connection), self._state.fence_token)
        answers = "refuses writes until it is restarted" if fenced else "TAKES WRITES: nothing fences it"
        return [f"the old server {self.endpoint.address} is detached; it keeps the data of this moment, and {answers}"]

    async def unfence(self) -> list[str]:
        """Lift the cut-over's fence: it is the primary again. Raises ``ValkeepError`` (indefinite) where that did not work."""
        state = self._state
        if not state.fence_before:
            return []
        try:
            async with await Connection.open(self.endpoint, client_name="valkeep-migrate") as connection:
                lifted = await fence.lift(connection, state.fence_before, state.fence_token, kept=state.fence_kept)
        except ValkeepError as error:
            raise ValkeepError(
                f"the old server {self.endpoint.address} is promoted, but refuses writes still: {error.message}",
                remedy=f"`valkeep migrate rollback` again when it answers, or {fence.as_commands(state.fence_before)} there",
                definite=False,
                code="VK-ROLLBACK-UNFENCE",
            ) from error
        if not lifted:
            return [f"the old server {self.endpoint.address} is fenced by somebody else: that fence was left alone"]
        return [f"the old server {self.endpoint.address} accepts writes again"]
