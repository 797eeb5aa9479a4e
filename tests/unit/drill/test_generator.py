"""Random schedules fit their topology, are the same for a seed, and are fair."""

from __future__ import annotations

from random import Random

import pytest

from valkeep.drill import faults
from valkeep.drill.catalogue import drills, find, random_drills
from valkeep.drill.drills import RANDOM
from valkeep.drill.generator import random_steps
from valkeep.drill.script import HEAL, Load, Step, parse_schedule, schedule_text
from valkeep.topology.spec import Kind, TopologySpec

TOPOLOGIES = [
    TopologySpec.sentinel(),
    TopologySpec.sentinel(replicas=1, sentinels=1),
    TopologySpec.sentinel(replicas=4, sentinels=5),
    TopologySpec.cluster(),
    TopologySpec.cluster(shards=5, replicas=2),
    TopologySpec.standalone(),
    TopologySpec(Kind.STANDALONE, replicas=2, timeout_ms=0),
]
SEEDS = range(200)


@pytest.mark.parametrize("spec", TOPOLOGIES, ids=lambda spec: spec.described)
def test_every_schedule_can_be_done_on_its_topology(spec: TopologySpec) -> None:
    for seed in SEEDS:
        steps = random_steps(spec, Random(seed), 6)
        faults.check(steps, spec, Load(), frozenset({"partition"}))
        assert sum(step.fault != HEAL for step in steps) == 6


@pytest.mark.parametrize("spec", TOPOLOGIES[:4], ids=lambda spec: spec.described)
def test_the_same_seed_makes_the_same_schedule_and_another_seed_another(spec: TopologySpec) -> None:
    schedules = [schedule_text(random_steps(spec, Random(seed))) for seed in SEEDS]
    assert schedules == [schedule_text(random_steps(spec, Random(seed))) for seed in SEEDS]
    assert len(set(schedules)) == len(SEEDS)


@pytest.mark.parametrize("spec", TOPOLOGIES, ids=lambda spec: spec.described)
def test_a_schedule_survives_its_one_line(spec: TopologySpec) -> None:
    for seed in SEEDS:
        steps = random_steps(spec, Random(seed))
        assert parse_schedule(schedule_text(steps)) == steps


@pytest.mark.parametrize("spec", TOPOLOGIES, ids=lambda spec: spec.described)
def test_a_schedule_is_fair(spec: TopologySpec) -> None:
    """Whoever was killed is started again; all is healed and redundant at the end; failovers on purpose come first."""
    for seed in SEEDS:
        steps = random_steps(spec, Random(seed), 5)
        for step, after in zip(steps, [*steps[1:], None], strict=True):
            if step.until == "moved":
                assert (step.fault in ("kill", "term"), step.lasts) == (True, 0.0)
                assert after is not None
                assert (after.fault, after.target, after.until) == (HEAL, step.fault, "redundant")
            elif step.fault in ("kill", "term", "pause", "partition", "isolate", "sentinel-loss"):
                assert step.lasts > 0
        assert steps[-1].until == "redundant"
        assert all(step.fault != "promote" for step in steps[1:])


def test_every_fault_that_can_be_drawn_is_drawn_at_last() -> None:
    def drawn(spec: TopologySpec) -> set[str]:
        return {step.fault for seed in SEEDS for step in random_steps(spec, Random(seed))}

    both = {HEAL, "kill", "term", "pause", "partition", "isolate", "restart", "promote"}
    assert drawn(TopologySpec.cluster()) == both
    assert drawn(TopologySpec.sentinel()) == both | {"sentinel-loss"}
    assert drawn(TopologySpec.standalone()) == {"pause"}


def test_random_drills_are_found_by_name_and_no_part_of_all() -> None:
    assert set(random_drills()) == {"sentinel-random", "cluster-random"}
    assert not set(random_drills()) & set(drills())
    for maker in RANDOM:
        drill = maker(700)
        assert find(drill.name, 700) == drill
        assert drill.random >= 3
        assert drill.steps == ()
        assert Step("kill", "primary") not in drill.steps
