"""The lookout: each reason not to promote is planted, and what writes is told from what the source does by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from valkeep.client.connection import Connection
from valkeep.errors import ServerError
from valkeep.migrate.cutover.lookout import CUTTING, Look, Lookout
from valkeep.migrate.fence import Aborted

TOKEN = "7654321"
UP = {"min-replicas-to-write": "255", "min-replicas-max-lag": TOKEN}
DOWN = {**UP, "min-replicas-to-write": "0"}
FIRST = Look("1" * 40, "primary", ":", 100, {"set": 5, "get": 7}, frozenset({"10.0.0.2:6379"}), DOWN, scripts_pass=False)
FLAGS = {"set": [b"write", b"denyoom"], "get": [b"readonly"], "del": [b"write"]}


class Source:
    """Answers COMMAND INFO, and what it is given in ``answers`` (by the first word)."""

    endpoint = SimpleNamespace(address="10.0.0.1:6379")

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[Sequence[str]] = []

    async def call(self, *command: str) -> Any:
        self.asked.append(command)
        assert command[:2] == ("COMMAND", "INFO")
        return [[name, 1, FLAGS[name]] if name in FLAGS else None for name in command[2:]]

    async def pipeline(self, commands: Iterable[Sequence[str]]) -> list[Any]:
        return [self.answers["_".join(command[:2])] for command in commands]


def lookout(**answers: Any) -> Lookout:
    return Lookout(cast("Connection", Source(**answers)), 7000)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"run_id": "2" * 40}, "VK-CUTOVER-RESTARTED"),
        ({"role": "replica", "primary": "10.0.0.2:6379"}, "VK-CUTOVER-ROLE"),
        ({"replicas": frozenset()}, "VK-CUTOVER-REPLICA"),
        ({"settings": DOWN}, "VK-CUTOVER-FENCE-LOST"),
        ({"settings": {**UP, "min-replicas-max-lag": "10"}}, "VK-CUTOVER-FENCE-LOST"),
        ({}, ""),
        ({"replicas": frozenset({"10.0.0.2:6379", "10.0.0.3:6379"}), "offset": 900}, ""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_source_that_is_not_what_it_was_is_not_given_up(change: dict[str, Any], code: str) -> None:
    found = lookout().objection(FIRST, replace(replace(FIRST, settings=UP), **change), token=TOKEN)
    assert (found.code if found is not None else "") == code


def test_a_source_that_was_not_fenced_yet_need_not_be() -> None:
    assert lookout().objection(FIRST, FIRST, token="") is None


def test_the_loss_of_our_own_link_is_not_taken_for_a_promoted_replica() -> None:
    look = lookout(CLIENT_SETNAME=b"OK", CLIENT_LIST=b"id=3 addr=10.0.0.9:41000 name=%b multi=-1\n" % CUTTING.encode())
    assert asyncio.run(look.enter())
    found = look.objection(replace(FIRST, replicas=frozenset({"10.0.0.9:7000"})), replace(FIRST, replicas=frozenset()), token="")
    assert found is not None
    assert found.code == "VK-SOURCE-LOST"


@pytest.mark.parametrize(
    ("offset", "calls", "wrote"),
    [
        (100, {"set": 6}, ()),  # the offset did not move: refused, or without effect
        (170, {}, ()),  # a PING, or the DEL of a key that expired
        (170, {"get": 99}, ()),
        (170, {"set": 6, "del": 1, "get": 99}, ("DEL", "SET")),
        (170, {"vset": 1, "info": 3, "config|get": 4}, ("VSET",)),  # who knows; but we know what we run ourselves
        (170, {"set": 1}, ("any command (the statistics were reset: CONFIG RESETSTAT)",)),
    ],
)
def test_clients_writes_are_told_from_expiry(offset: int, calls: dict[str, int], wrote: tuple[str, ...]) -> None:
    later = replace(FIRST, offset=offset, calls={**FIRST.calls, **calls})
    assert asyncio.run(lookout().wrote(FIRST, later)) == wrote


def test_a_second_cut_over_of_one_source_is_refused_whoever_looks() -> None:
    rows = b"id=3 addr=10.0.0.9:41000 name=valkeep-cutover multi=-1\nid=4 addr=10.0.0.8:41000 name=valkeep-cutover multi=-1\n"
    with pytest.raises(Aborted) as refused:
        asyncio.run(lookout(CLIENT_SETNAME=b"OK", CLIENT_LIST=rows).enter())
    assert refused.value.code == "VK-CUTOVER-CONCURRENT"
    assert "10.0.0.8:41000" in refused.value.message


def test_who_may_not_look_says_so() -> None:
    assert not asyncio.run(lookout(CLIENT_SETNAME=b"OK", CLIENT_LIST=ServerError("NOPERM", "no")).enter())


def test_open_transactions_are_those_with_something_queued() -> None:
    rows = b"id=3 addr=a:1 multi=2\nid=4 addr=b:1 multi=0\nid=5 addr=c:1 multi=-1\n"
    assert asyncio.run(lookout(CLIENT_LIST=rows).transactions()) == {"a:1"}


class Promoted(Source):
    """The source after the promotion, with one replica. ``settings``: its parameters."""

    def __init__(self, version: str, run_id: str, settings: dict[str, str], watchers: int, *, cluster: bool) -> None:
        super().__init__(
            INFO_commandstats=b"",
            INFO_server=f"redis_version:{version}\r\nrun_id:{run_id}\r\n".encode(),
            INFO_replication=b"role:master\r\nmaster_repl_offset:9\r\nslave0:ip=10.0.0.2,port=6379,state=online,offset=9,lag=0\r\n",
            PUBSUB_NUMSUB=[b"__sentinel__:hello", watchers],
            CLUSTER_MYID=b"e7d1" if cluster else ServerError("ERR", "This instance has cluster support disabled"),
        )
        self.settings = settings

    async def pipeline(self, commands: Iterable[Sequence[str]]) -> list[Any]:
        every = []
        for command in commands:
            if command[0] == "CONFIG":
                every.append([command[2].encode(), self.settings[command[2]].encode()])
            else:
                every += await super().pipeline([command])
        return every


def standing(
    version: str = "7.2.4",
    run_id: str = FIRST.run_id,
    settings: dict[str, str] = UP,
    watchers: int = 0,
    parameters: Iterable[str] = UP,
    kept: bool = False,
    cluster: bool = False,
) -> list[tuple[bool | None, str]]:
    """What is said of the source and of its replica: whether it takes writes, and why."""
    look = Lookout(cast("Connection", Promoted(version, run_id, settings, watchers, cluster=cluster)), 7000)
    return [(one.takes_writes, one.why) for one in asyncio.run(look.remaining(FIRST, parameters, kept=kept))]


@pytest.mark.parametrize(
    ("how", "takes_writes", "words"),
    [
        ({}, False, "until it is restarted"),
        ({"kept": True}, False, "also when it is restarted"),
        ({"settings": DOWN}, True, "not fenced any more"),
        ({"run_id": "2" * 40}, True, "not fenced any more"),
        ({"parameters": ()}, True, "it was not fenced"),
        ({"version": "6.2.14"}, True, "scripts pass the fence"),
    ],
)
def test_whether_the_source_takes_writes_after_the_promotion_is_said_with_the_reason(
    how: dict[str, Any], takes_writes: bool, words: str
) -> None:
    (found, why), (replica, _) = standing(**how)
    assert found is takes_writes
    assert words in why
    assert replica is False


@pytest.mark.parametrize(
    ("watchers", "cluster", "words"), [(0, False, "somebody promotes it"), (2, False, "a Sentinel"), (0, True, "the cluster promotes it")]
)
def test_a_replica_of_the_source_is_named_with_who_may_promote_it(watchers: int, cluster: bool, words: str) -> None:
    _, (_, why) = standing(watchers=watchers, cluster=cluster)
    assert words in why
