"""ElastiCache makes the target a replica of the gateway, and a primary again: a `Promoter` whose means are four calls.

    prepare    the gateway is asked what ElastiCache will ask; TestMigration, whose outcome is an event
    begin      StartMigration
    taken_up   instead of both, where a killed run had started it (`unfinished` says so): nothing is called
    watch      events and status: what AWS says is told, and a migration that it gave up is an error
    promote    CompleteMigration, never with Force: AWS looks itself whether the target has everything, and may say "data not in sync"
    undo       CompleteMigration with Force: there is no other way to end a migration that was started

Everything is asynchronous there. The words of most events are not published; a failure is told by "fail", "error", "unable" or "not in sync" in one that
speaks of a migration, and whatever is said is believed only as far as the group's status and the target's role agree.

**The pause.** From the fence until the target is a primary nobody can write. AWS says that completing takes "minutes"; we ask the target for its role
meanwhile, and return as soon as it is a primary, which may be long before the group's status says so.

**Whose migration it is.** AWS does not say where a group migrates from. A target that has the stream of our gateway, or looks for it at its address, is
migrated by us; one that has another stream by somebody else, who is left alone: nothing of theirs is ended.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final, Self

from valkeep.client.connection import Connection
from valkeep.client.server_info import parse_info
from valkeep.errors import ConnectionLost, Refused, ValkeepError
from valkeep.migrate.cutover.abort import to_the_end
from valkeep.migrate.elasticache.plane import Plane
from valkeep.migrate.elasticache.probe import ask, is_at, is_here, resolve
from valkeep.migrate.preflight.checks.elasticache.migration import objection

if TYPE_CHECKING:
    from valkeep.client.endpoint import Endpoint
    from valkeep.migrate.elasticache.address import GroupAddress
    from valkeep.migrate.journal import Journal

__all__ = ["ElastiCache"]

TEST_SECONDS: Final = 180.0
PROMOTION_SECONDS: Final = 900.0
UNDO_SECONDS: Final = 30.0
DOUBT_SECONDS: Final = 30.0  # for a group that is migrating although a failure was noted
ROLE_SECONDS: Final = 3.0
POLL_SECONDS: Final = 0.2
LONGEST_POLL: Final = 3.0
ATTEMPTS: Final = 3  # to complete, where data is not in sync yet

_ABOUT: Final = re.compile(r"migrat", re.IGNORECASE)
_FAILED: Final = re.compile(r"fail|error|unable|not in sync|unsuccessful|could not|cannot", re.IGNORECASE)


class ElastiCache:
    """``say(level, text)``: tells people. ``look``: asks the target for its INFO replication (empty where it does not answer). ``streams``: our
    replication ids. ``databases``: of the target, by its parameter group ("": not known). ``again``: a run that was killed may have asked for the same, and
    the outcome of that may come in the midst of this one's."""

    name = "ElastiCache"
    binding = True  # CompleteMigration cannot be taken back

    def __init__(
        self,
        plane: Plane,
        say: Callable[[str, str], None],
        look: Callable[[], Awaitable[Mapping[str, str]]],
        streams: Callable[[], Collection[str]],
        databases: str = "",
        seconds: float = PROMOTION_SECONDS,
        *,
        again: bool = False,
    ) -> None:
        self.seconds = seconds
        self.group = plane.address.group
        self.detach_by = f"aws elasticache complete-migration --replication-group-id {self.group} --force"
        self._plane = plane
        self._say = say
        self._look = look
        self._streams = streams
        self._databases = databases
        self._again = again
        self._gateway = ("", 0)
        self._seen: set[tuple[datetime, str]] = set()
        self._unread: list[str] = []
        self._started = False
        self._found = False  # it was started by a run before this one, it seems
        self._completing = False

    @classmethod
    def of(
        cls,
        address: GroupAddress,
        target: Endpoint,
        journal: Journal,
        streams: Callable[[], Collection[str]],
        databases: str,
        *,
        again: bool,
    ) -> Self:
        """``target``: its primary endpoint. Raises ``ValkeepError`` where AWS cannot be spoken to at all."""

        async def look() -> Mapping[str, str]:
            try:
                async with await Connection.open(target, timeout=ROLE_SECONDS, client_name="valkeep-migrate") as connection:
                    return parse_info(await connection.call("INFO", "replication"))
            except ValkeepError:
                return {}

        return cls(Plane(address), journal.say, look, streams, databases, again=again)

    # -- Promoter --------------------------------------------------------------------------------------------------------------------

    async def prepare(self, gateway: tuple[str, int]) -> None:
        await self._expect_answers(gateway)
        self._seen = set(await self._plane.events())
        await self._test(gateway)
        await self._available()

    async def begin(self, gateway: tuple[str, int]) -> None:
        self._gateway = gateway
        self._started = True  # whatever becomes of the call, it may have begun
        try:
            await to_the_end(self._plane.start(gateway))  # who stops us meanwhile ends what was begun, and not before it has
        except ConnectionLost as lost:
            if await self._plane.status() != "migrating":
                raise
            self._say("warning", f"{lost.message}; but the group is migrating")
        except Refused as refused:
            if refused.code != "VK-EC-UNDER-MIGRATION":
                self._started = False
                raise
            self._say("warning", f"{refused.message}: a first try of ours may have been carried out")
        self._say("info", f"StartMigration: {self.group} was told to replicate from {gateway[0]}:{gateway[1]}")

    async def taken_up(self, gateway: tuple[str, int]) -> None:
        events = await self._plane.events()
        self._seen = set(events)
        self._gateway = gateway
        self._started = self._found = True
        last = next((f"; the last that it said: {message}" for _, message in reversed(events) if _ABOUT.search(message)), "")
        self._say("info", f"{self.group} goes on replicating from {gateway[0]}:{gateway[1]}; StartMigration is not called again{last}")

    async def watch(self) -> None:
        migrating, said, since = self._found, "", 0.0
        pause = POLL_SECONDS
        while True:
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, LONGEST_POLL)
            await self._expect_ours()
            try:
                messages, status = await self._news(), await self._plane.status()
            except ValkeepError as error:
                self._say("warning", f"nobody knows what ElastiCache does at present: {error.message}")
                pause = LONGEST_POLL
                continue
            if self._completing:
                self._unread += messages  # for `promote`
                continue
            now = asyncio.get_running_loop().time()
            if messages:
                said, since = (messages[-1], since or now) if _says_failed(messages[-1]) else ("", 0.0)
            if said and (status != "migrating" or (now - since > DOUBT_SECONDS and not await self._is_ours())):
                raise ConnectionLost(
                    f"ElastiCache gave the migration of {self.group} up: {said}",
                    remedy="its words say why: a source that was not reachable (security groups), not accepted, or too slow. The gateway had its "
                    "snapshot ready: check the network, then start again",
                    code="VK-EC-GAVE-UP",
                )
            if migrating and status == "available":
                raise ConnectionLost(
                    f"the migration of {self.group} ended, and not by us: its status is available again",
                    remedy="see its events: somebody completed it, or AWS gave it up; then start again",
                    code="VK-EC-NOT-UNDER-MIGRATION",
                )
            migrating = migrating or status == "migrating"

    async def promote(self) -> None:
        self._completing = True
        for attempt in range(1, ATTEMPTS + 1):
            await self._complete()
            message = await self._outcome()
            if not message:
                return
            self._say("warning", f"CompleteMigration, try {attempt} of {ATTEMPTS}: {message}")
        self._completing = False
        raise Refused(
            f"ElastiCache did not complete the migration of {self.group}: {message}; it goes on replicating from the gateway",
            remedy="the target had acknowledged everything: does something stand between the gateway and ElastiCache that shows another offset (--announce)? "
            "See the group's events; a node that is being replaced delays it, too",
            code="VK-EC-SYNC",
        )

    async def undo(self) -> list[str]:
        if not self._started:
            return [f"StartMigration was not called: {self.group} is as it was"]
        if await self._has_other_stream() or (self._found and not await self._is_ours()):
            return [
                f"nothing was done to {self.group}: if a migration is under way there, it may be somebody else's; {self.detach_by} ends it"
            ]
        try:
            await self._plane.complete(force=True)
        except ValkeepError as error:
            if error.code == "VK-EC-NOT-UNDER-MIGRATION":
                return [f"ElastiCache had ended the migration of {self.group} already; the target keeps what was copied"]
            return [
                f"the migration of {self.group} could not be ended ({error.message}): it goes on replicating from a gateway that is gone; end it by "
                + self.detach_by
            ]
        if await self._role_within("master", UNDO_SECONDS):
            return [
                f"the migration of {self.group} was ended (CompleteMigration --force, the only way): the target is a primary with what was copied so far"
            ]
        return [f"the migration of {self.group} is being ended (CompleteMigration --force): see that its status becomes available"]

    # -- whose it is -----------------------------------------------------------------------------------------------------------------

    async def _role(self) -> str:
        return (await self._look()).get("role", "")

    async def _has_other_stream(self) -> bool:
        seen = await self._look()
        has_one = seen.get("role") == "slave" and seen.get("master_link_status") == "up"
        return has_one and seen.get("master_replid") not in self._streams()

    async def _is_ours(self) -> bool:
        """Whether the target has our stream, or looks for it where we are."""
        seen = await self._look()
        if seen.get("role") != "slave":
            return False
        return seen.get("master_replid") in self._streams() or await is_at(
            seen.get("master_host", ""), seen.get("master_port", ""), self._gateway
        )

    async def _expect_ours(self) -> None:
        if self._completing or not await self._has_other_stream():
            return
        seen = await self._look()
        raise Refused(
            f"{self.group} replicates from {seen.get('master_host', '?')}:{seen.get('master_port', '?')}, which is not our gateway: its migration is somebody "
            "else's",
            remedy="see its events, and who called StartMigration; nothing of theirs was touched",
            code="VK-EC-OTHER",
        )

    # -- parts -----------------------------------------------------------------------------------------------------------------------

    async def _expect_answers(self, gateway: tuple[str, int]) -> None:
        where = f"{gateway[0]}:{gateway[1]}"
        answers = await ask(gateway)
        if answers.reached and not is_here(await resolve(gateway[0])):
            self._say(
                "warning",
                f"from here nothing answers at {where}, which is what ElastiCache is told; TestMigration decides: {answers.reached}",
            )
            return
        found = objection(answers, self._databases, where)
        if found is not None:
            evidence = "; ".join(f"{name}: {value}" for name, value in found.evidence.items())
            raise Refused(
                f"ElastiCache would refuse the gateway at {where}: {found.title} [{evidence}]", remedy=found.remedy, code="VK-EC-PROBE"
            )

    async def _test(self, gateway: tuple[str, int]) -> None:
        await self._plane.test(gateway)
        loop = asyncio.get_running_loop()
        until, pause = loop.time() + TEST_SECONDS, POLL_SECONDS
        while loop.time() < until:
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, LONGEST_POLL)
            for message in await self._news():
                if _says_failed(message) and self._again:
                    self._say("warning", "that may be what a killed run had asked for: TestMigration is called once more")
                    self._again = False
                    await self._plane.test(gateway)
                    break
                if _says_failed(message):
                    raise Refused(
                        f"TestMigration: {message}",
                        remedy=f"its words say what AWS did not find right at {gateway[0]}:{gateway[1]}; security groups and routes (A-08 to A-11) first",
                        code="VK-EC-TEST",
                    )
                return
        self._say("warning", f"TestMigration said nothing within {TEST_SECONDS:.0f} s; the migration is started all the same")

    async def _available(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + TEST_SECONDS
        while (status := await self._plane.status()) != "available":
            if status == "migrating" or loop.time() > until:
                raise Refused(
                    f"the replication group {self.group} is {status}",
                    remedy="wait until its status is available; if it is migrating: " + self.detach_by,
                    code="VK-EC-STATE",
                )
            await asyncio.sleep(LONGEST_POLL)

    async def _complete(self) -> None:
        """Ask for it; again where no answer came, as long as the target is still a replica."""
        unanswered = 0
        while True:
            try:
                await self._plane.complete()
            except ConnectionLost as lost:
                if await self._role() == "master":
                    return
                unanswered += 1
                if unanswered == ATTEMPTS:
                    raise
                self._say("warning", f"{lost.message}; asked again")
            except Refused as refused:
                if refused.code == "VK-EC-NOT-UNDER-MIGRATION" and await self._role() == "master":
                    return  # an earlier try was carried out
                self._completing = False
                raise
            else:
                return

    async def _outcome(self) -> str:
        """ "" when the target is a primary, or nobody said anything in time; else why not."""
        loop = asyncio.get_running_loop()
        until, pause = loop.time() + self.seconds, POLL_SECONDS
        while loop.time() < until:
            if await self._role() == "master":
                return ""
            try:
                messages = await self._news()
                messages, self._unread = self._unread + messages, []
                for message in messages:
                    if _says_failed(message) and await self._role() != "master":
                        return message
            except ValkeepError as error:
                self._say("warning", f"nobody knows what ElastiCache does at present: {error.message}")
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, LONGEST_POLL)
        return ""

    async def _role_within(self, wanted: str, seconds: float) -> bool:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while loop.time() < until:
            if await self._role() == wanted:
                return True
            await asyncio.sleep(POLL_SECONDS)
        return False

    async def _news(self) -> list[str]:
        """Messages of events that are new, about a migration; all of them are told."""
        found = [event for event in await self._plane.events() if event not in self._seen]
        self._seen |= set(found)
        for _, message in found:
            self._say("info", f"ElastiCache: {message}")
        return [message for _, message in found if _ABOUT.search(message)]


def _says_failed(message: str) -> bool:
    return _FAILED.search(message) is not None
