"""The fence: what makes the source refuse writes, so that at most one side acknowledges them.

``min-replicas-to-write 255`` is what every Redis since 2.8 has for that. Beside it stands ``min-replicas-max-lag``, which means nothing while 255
replicas are wanted (but must not be 0, which would switch the fence off): there we write a number of our own, the fence's *token*. So a fence says whose
it is, and nobody lifts the fence of another cut-over: not the abort of a migration that was killed long before, either.

It is raised in one transaction that also ends a pause, so that no held writer slips through, and that reads what was there at that very moment:
what is put back later is what we replaced.

Which way the writers can be kept out is decided here and nowhere else (``decide``), from facts that preflight gathered.

What the fence does not hold, and who looks after it: a restart of the source ends it (``persist``, ``lookout``); replicas of the source are
read-only until somebody promotes them; scripts pass it before Redis 7.0, and a transaction whose writes were queued before it was raised passes
it before 6.0 (``Cutover`` waits for those).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol

from valkeep.errors import ExitCode, Refused, ServerError, ValkeepError

if TYPE_CHECKING:
    from valkeep.client.connection import Connection

__all__ = [
    "Aborted",
    "FenceMode",
    "already_up",
    "as_commands",
    "decide",
    "expect_down",
    "is_ours",
    "is_up",
    "lift",
    "new_token",
    "persist",
    "raise_up",
    "settings",
    "stands",
    "weakest",
]

UP: Final = "255"
_NAMES: Final = (("min-replicas-to-write", "min-slaves-to-write"), ("min-replicas-max-lag", "min-slaves-max-lag"))
_RESTORES: Final = 3
_CONFIG = tuple[str, str, str, str]


class Aborted(ValkeepError):
    """The cut-over was called off; the source goes on writing."""

    exit_code = ExitCode.JUDGED_BAD


class FenceMode(StrEnum):
    """How the source is kept from writing while the last bytes cross. ``variant``: the name that preflight's report has for it."""

    PAUSE = "pause"  # CLIENT PAUSE WRITE, drain, then the fence
    DIRECT = "direct"  # no PAUSE WRITE (before 6.2, or denied): the fence at once, writers get errors
    EXTERNAL = "external"  # no CONFIG SET, MULTI or EXEC: nothing can keep a writer out but its owner

    @property
    def variant(self) -> str:
        return {FenceMode.PAUSE: "pause-and-fence", FenceMode.DIRECT: "fence-only", FenceMode.EXTERNAL: "stop-writers"}[self]


class _Facts(Protocol):
    """What preflight knows about a server (`ServerFacts`); ``allows``: whether this user surely may run a command there."""

    @property
    def role(self) -> str: ...
    @property
    def is_valkey(self) -> bool: ...
    @property
    def version(self) -> tuple[int, ...]: ...
    def allows(self, command: str) -> bool: ...


def decide(source: _Facts) -> FenceMode:
    """The safest mode that this user may run there. What is not known counts as permitted only if it can be tried safely: it can't."""
    if source.role == "replica" or not all(source.allows(name) for name in ("CONFIG GET", "CONFIG SET", "MULTI", "EXEC")):
        return FenceMode.EXTERNAL
    knows_pause = source.is_valkey or source.version >= (6, 2)
    if knows_pause and source.allows("CLIENT PAUSE") and source.allows("CLIENT UNPAUSE"):
        return FenceMode.PAUSE
    return FenceMode.DIRECT


def weakest(modes: Iterable[FenceMode]) -> FenceMode:
    """The one that holds of several sources: what the least of them permits."""
    order = list(FenceMode)
    return max(modes, key=order.index)


def is_up(values: Mapping[str, str]) -> bool:
    """Whether these settings are a fence, ours or somebody else's."""
    return any(value == UP for name, value in values.items() if name.endswith("-to-write"))


def is_ours(values: Mapping[str, str], token: str) -> bool:
    """Whether these settings are the fence with this token."""
    return is_up(values) and any(value == token for name, value in values.items() if name.endswith("-max-lag"))


def new_token() -> str:
    """Seconds of a lag that nobody sets by hand: 12 days to 34 years."""
    return str(1_000_000 + secrets.randbelow(1_000_000_000))


async def settings(source: Connection) -> dict[str, str]:
    """The parameters that the fence sets, by the name this server knows, with their present values. Raises ``Refused`` where there is no fence to be had."""
    found: dict[str, str] = {}
    for names in _NAMES:
        for known in names:
            try:
                reply = await source.call("CONFIG", "GET", known)
            except ServerError as error:
                raise Refused(
                    f"the source may not be fenced by this user: {error.message}",
                    remedy="permit CONFIG GET and SET to this user, or stop the writers yourself and use --fence external",
                    code="VK-CUTOVER-FENCE",
                ) from error
            if reply:
                found[known] = reply[1].decode()
                break
        else:  # without either of them there is no fence, and UNPAUSE alone would let the writers go on
            raise Refused(
                f"the source has no parameter {names[0]} (or {names[1]}), so it cannot be fenced",
                remedy="is a proxy in between, or is it no Redis? Stop the writers yourself and use --fence external",
                code="VK-CUTOVER-FENCE",
            )
    return found


def already_up() -> Refused:
    return Refused(
        f"the source is fenced already (min-replicas-to-write {UP}): a cut-over before this one was completed, or neither completed nor aborted",
        remedy="if it was completed, its target has the newer data, and another copy would replace that. `valkeep migrate abort` undoes what was not completed "
        "(`--force`: whatever it was), or set min-replicas-to-write on the source to what it shall be; then start again",
        code="VK-CUTOVER-FENCED",
    )


async def stands(server: Connection, before: Mapping[str, str], token: str) -> bool:
    """Whether this cut-over's fence is up there; also where none could be raised (nothing was to be replaced: ``before``)."""
    return not before or is_ours(await settings(server), token)


async def expect_down(source: Connection) -> None:
    """Raise ``Refused`` where a fence stands; what cannot be asked is none of ours."""
    try:
        found = await settings(source)
    except Refused:
        return
    if is_up(found):
        raise already_up()


async def raise_up(source: Connection, expected: Mapping[str, str], token: str, *, unpause: bool) -> dict[str, str]:
    """Fence the source under this token, in one transaction that also ends a pause; returns what the parameters were at that moment: when they
    ``is_up`` already, it was somebody else. ``expected``: what they were a moment ago. Raises ``Aborted`` where it could not be done."""
    commands: list[tuple[str, ...]] = [("CONFIG", "GET", name) for name in expected]
    commands += _sets({name: token if name.endswith("-max-lag") else UP for name in expected})
    if unpause:
        commands.append(("CLIENT", "UNPAUSE"))
    try:
        replies = await source.execute(commands)
    except ServerError as refused:
        replies = [refused]
    failed = next((reply for reply in replies if isinstance(reply, ServerError)), None)
    if failed is not None:
        raise Aborted(
            f"the source could not be fenced: {failed.message}",
            remedy="permit MULTI, EXEC and CONFIG SET to this user, or stop the writers yourself and use --fence external",
            code="VK-CUTOVER-FENCE",
        )
    return {name: reply[1].decode() for name, reply in zip(expected, replies, strict=False)}


async def lift(source: Connection, before: Mapping[str, str], token: str, *, kept: bool = False) -> bool:
    """Put back what was there, and end a pause; False when the source has the fence of somebody else, which is left alone (``token`` "": is not).

    ``kept``: its configuration file has the fence, too (``persist``), and is written again. Raises ``ServerError`` or ``Refused`` when the source is not as
    it was then.
    """
    now = await settings(source)
    if token and is_up(now) and not is_ours(now, token) and now != before:
        return False
    refused: ServerError | None = None
    for _ in range(_RESTORES):  # a fence that a killed Valkeep had sent may only arrive between two of our commands
        *replies, _unpaused = await source.pipeline([*_sets(before), ("CLIENT", "UNPAUSE")])  # before 6.2 there is none
        refused = next((reply for reply in replies if isinstance(reply, ServerError)), None)
        now = await settings(source)
        if now == before:
            if kept:
                await persist(source)
            return True
        if refused is not None:
            raise refused
    raise Refused(
        "somebody else sets them at the same time: " + as_commands(now),
        remedy=f"{as_commands(before)} on the source",
        code="VK-CUTOVER-UNFENCE",
    )


async def persist(source: Connection) -> None:
    """Write the settings as they are now into the source's configuration file: they survive its restart. Raises ``ServerError``."""
    await source.call("CONFIG", "REWRITE")


def as_commands(values: Mapping[str, str]) -> str:
    """For people: what to type."""
    return "; ".join(" ".join(command) for command in _sets(values))


def _sets(values: Mapping[str, str]) -> list[_CONFIG]:
    return [("CONFIG", "SET", name, value) for name, value in values.items()]
