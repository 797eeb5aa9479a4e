"""Drills on one server."""

from __future__ import annotations

from dataclasses import replace

from valkeep.drill.drills.parts import EXPLAINED, NOTHING_LOST
from valkeep.drill.script import Drill, Expectation, Step
from valkeep.topology.spec import Persistence, TopologySpec


def machine_crash(timeout: int) -> Drill:  # noqa: ARG001 - a standalone server has no timeout
    return Drill(
        "standalone-machine-crash",
        "Power loss with appendfsync everysec: what was not synced yet is gone, up to two seconds of acked writes.",
        replace(TopologySpec.standalone(), persistence=Persistence.EVERYSEC),
        (Step("crash", "primary", lasts=0.2, until="recovered"),),
        (
            Expectation("lost", 1, None, "acked, and not on the disk"),
            Expectation("lost_crash", 1, None, "and this is why"),
            EXPLAINED,
            Expectation("loss_window_ms", None, 2000, "everysec: one second, two when the disk is slow"),
        ),
    )


def machine_crash_always(timeout: int) -> Drill:  # noqa: ARG001
    return Drill(
        "standalone-machine-crash-always",
        "The same power loss with appendfsync always: every ack waited for the disk, and nothing is gone.",
        replace(TopologySpec.standalone(), persistence=Persistence.ALWAYS),
        (Step("crash", "primary", lasts=0.2, until="recovered"),),
        (NOTHING_LOST, EXPLAINED),
    )
