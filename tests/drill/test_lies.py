"""Drills on servers that lie: every lie makes the verdict invalid, and the checker that is made for it says so. An honest proxy changes nothing.

Each checker of a drill has a live lie here, but three:

* ``coverage`` asks the nodes themselves, beside the clients, so nobody stands between them; what it must catch is planted into its samples
  (tests/unit/drill/test_drill_checkers.py).
* ``availability`` measures and condemns nothing.
* ``host`` looks at the machine and not at servers: a recorder that is stopped stands for it here.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.drilled import unstalled
from tests.support.lying_network import lied_to
from tests.support.lying_pump import LIES
from valkeep.drill.catalogue import find
from valkeep.drill.drills.parts import EXPLAINED, NOTHING_LOST
from valkeep.drill.judging import judge
from valkeep.drill.outcome import DrillOutcome
from valkeep.drill.play import play
from valkeep.drill.script import ClientSpec, Drill, Load
from valkeep.report.events import Event, Phase
from valkeep.runtime.local import LocalDeployment
from valkeep.topology.spec import TopologySpec

pytestmark = pytest.mark.server

CAUGHT_BY = {
    "mixed": {
        "acks-appends-without-forwarding": {"loss", "journals"},
        "acks-writes-without-forwarding": {"registers", "monotonic"},
        "acks-deletes-without-forwarding": {"registers"},
        "acks-increments-without-forwarding": {"counters"},
        "acks-additions-without-forwarding": {"sets"},
        "answers-stale-reads": {"registers", "monotonic"},
        "does-half-of-a-transaction": {"pairs"},
        "doubles-appends": {"journals"},
        "doubles-increments": {"counters"},
        "reads-what-nobody-wrote": {"registers"},
        "refuses-additions-and-does-them": {"sets"},
        "refuses-appends-and-does-them": {"journals"},
        "refuses-writes-and-does-them": {"registers"},
        "reorders-appends": {"journals"},
        "resurrects-deleted-registers": {"registers"},
        "says-that-it-was-there": {"sets"},
    },
    "scripts": {"does-half-of-a-script": {"pairs"}},
    "streams": {
        "acks-acknowledgements-without-forwarding": {"streams"},
        "acks-entries-without-forwarding": {"streams"},
        "delivers-again": {"streams"},
        "doubles-entries": {"streams"},
        "passes-over-entries": {"streams"},
    },
    "pubsub": {"doubles-messages": {"pubsub"}, "publishes-by-itself": {"pubsub"}},
}
"""Mix of operations → lie → the checkers that say so. Of `monotonic` only: it needs one client to see both values."""
ELSEWHERE = {"goes-deaf", "sends-in-circles", "counts-replicas-that-have-nothing"}  # on topologies; the last in tests/soak/drills.py
TOLD = [(mix, lie) for mix, lies in CAUGHT_BY.items() for lie in lies]


def short(mix: str) -> Drill:
    return Drill(
        "lied-to",
        "What a server says, against what it did.",
        TopologySpec.standalone(),
        (),
        (EXPLAINED, NOTHING_LOST),
        load=Load(mix=mix, clients=(ClientSpec("c1"), ClientSpec("c2")), rate=6000),
        warm_up=0.3,
        warm_operations=6000,  # the rarest chance to lie comes once in 75
        settle=0.1,
    )


def condemned(outcome: DrillOutcome) -> set[str]:
    return {judgement.checker for judgement in outcome.judgements if judgement.verdict == "invalid"}


def test_every_lie_is_told_somewhere() -> None:
    assert {lie for _, lie in TOLD} | ELSEWHERE | {"honest"} == LIES.keys()


@pytest.mark.parametrize(("mix", "lie"), TOLD, ids=[lie for _, lie in TOLD])
def test_a_lie_makes_the_verdict_invalid(mix: str, lie: str) -> None:
    outcome = asyncio.run(lied_to(short(mix), lie))
    assert outcome.verdict == "invalid", outcome.reasons
    assert condemned(outcome) & CAUGHT_BY[mix][lie], outcome.reasons


@pytest.mark.parametrize("mix", [*CAUGHT_BY, "registers", "append"])
def test_an_honest_proxy_is_found_valid(mix: str) -> None:
    outcome = asyncio.run(lied_to(short(mix), "honest"))
    assert (outcome.verdict, outcome.reasons) == ("valid", ())


def test_a_primary_that_went_deaf_before_it_was_killed_is_found_out_although_what_it_lost_is_a_suffix() -> None:
    drill = find("sentinel-kill-primary")
    drill = replace(drill, load=replace(drill.load, mix="append", rate=6000), warm_operations=6000)
    outcome = unstalled(lambda: asyncio.run(lied_to(drill, "goes-deaf")), lambda one: [(one.verdict, str(one.reasons))])
    assert outcome.verdict == "invalid", outcome.reasons
    assert "loss" in condemned(outcome)
    assert outcome.loss["wrong"]["beyond"] > 100


def test_nodes_that_send_clients_in_circles_are_found_out() -> None:
    drill = find("cluster-distribution")
    load = replace(drill.load, mix="registers", rate=6000, tags=12)
    outcome = asyncio.run(lied_to(replace(drill, load=load, expects=(EXPLAINED,), warm_up=1.5, warm_operations=6000), "sends-in-circles"))
    assert (outcome.verdict, condemned(outcome)) == ("invalid", {"redirects"})


def recorder_of(folder: Path) -> int:
    """The process that made this folder's history: the one child of ours that works in it."""
    mine = str(os.getpid())
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            except OSError:
                continue
            if parent == mine and b"valkeep.drill.workloads.recorder_process" in words:
                return int(entry.name)
    raise AssertionError(f"no recorder for {folder}")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_machine_that_stood_still_makes_the_verdict_unknown_and_is_named() -> None:
    drill = replace(short("append"), topology=replace(TopologySpec.standalone(), timeout_ms=400), warm_up=1.0)

    async def main() -> DrillOutcome:
        async with LocalDeployment(drill.topology) as deployment:

            def emit(event: Event) -> None:
                if isinstance(event, Phase) and event.name == "settle" and not event.done:
                    recorder = recorder_of(deployment.folder)
                    os.kill(recorder, signal.SIGSTOP)
                    time.sleep(0.4)
                    os.kill(recorder, signal.SIGCONT)

            return judge(await play(drill, deployment, 1, emit))

    outcome = asyncio.run(main())
    assert outcome.verdict == "unknown"
    assert any("stood still" in reason for reason in outcome.reasons)
