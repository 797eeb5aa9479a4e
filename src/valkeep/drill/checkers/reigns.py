"""Who was primary when, how each reign ended, and what its end may have cost.

A *reign* is the time in which one node takes the writes of one shard: from its promotion (or start) until it is deposed. It is also one
stream of writes, and what its successor begins with is a prefix of that stream::

    n1   w1 w2 w3 w4 w5 w6 w7           reign of n1; w6 and w7 were acked, and are lost
                     └─ cut
    n2   w1 w2 w3 w4 w5 │ x1 x2 x3      reign of n2: begins with a prefix of n1's stream

A node that restarts begins a new reign, also when it succeeds itself: what it had not on disk is cut off in the same way.

Two reigns of a shard may overlap in time: a deposed primary that has not heard of it goes on acking writes that are doomed. That is why
a reign ends twice: at ``Deposition.at`` (the fault) and at ``Deposition.until`` (from when on the node surely acked no write any more).

All times: ns on the history's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ["ALWAYS", "NEVER", "Bound", "Cause", "Deposition", "Loss", "Reign", "loss_of"]

ALWAYS: Final = -(1 << 62)
"""As ``Bound.since``: however early it was acked."""
NEVER: Final = 1 << 62
"""As ``Bound.since``: nothing may be lost. As ``Bound.until``: without end."""


class Cause(StrEnum):
    """What ended a reign.

    ``kill``, ``term``: the process ended, and another node took over. ``pause``: it hung, and went on later. ``partition``: it was cut off.
    ``failover``: a command that does not wait for replication (SENTINEL FAILOVER, CLUSTER FAILOVER FORCE or TAKEOVER). ``coordinated``: one
    that does (SENTINEL FAILOVER … COORDINATED, CLUSTER FAILOVER). ``crash``: the machine lost power and ``restart``: the process ended, and
    the same node came back as a primary with what was on its disk.
    """

    KILL = "kill"
    TERM = "term"
    PAUSE = "pause"
    PARTITION = "partition"
    FAILOVER = "failover"
    COORDINATED = "coordinated"
    CRASH = "crash"
    RESTART = "restart"


class Loss(StrEnum):
    """Why an acked write could be lost. ``asynchronous``: replication had not carried it when the fault came. ``partition``: acked while cut
    off. ``stale primary``: acked by a node that was deposed and did not know. ``crash``: not synced to disk. ``restart``: not on disk at all."""

    ASYNCHRONOUS = "asynchronous"
    PARTITION = "partition"
    STALE_PRIMARY = "stale primary"
    CRASH = "crash"
    RESTART = "restart"


@dataclass(frozen=True, slots=True)
class Bound:
    """What may be lost: writes whose ack came after ``since`` and that were sent at ``until`` or before. ``why``: in words, with the numbers.
    Made by `promise`."""

    since: int = ALWAYS
    until: int = NEVER
    why: str = "nothing bounds it"


@dataclass(frozen=True, slots=True)
class Deposition:
    """How a reign ended.

    ``at``: when the fault struck or the command was sent. ``until``: from then on the node surely acked no write as this reign's primary
    (its process was dead, or its log says that it became a replica); None when that was not seen. ``promoted``: when its successor began
    to take writes. ``healed``: when a partition or pause ended; None when it did not.
    """

    cause: Cause
    at: int
    bound: Bound
    until: int | None = None
    promoted: int | None = None
    healed: int | None = None


@dataclass(frozen=True, slots=True)
class Reign:
    """``begins``: no write was acked by this reign before; 0 for the reigns of the start. ``deposed``: None while it lasts.
    The reigns of a shard are listed in order of succession; each begins with a prefix of the one before. ``apart``: it is none of them, but
    a stream beside, of a node that came back as a primary while another one reigned; these come last. What it begins with is not known."""

    node: str
    begins: int = 0
    shard: int = 0
    deposed: Deposition | None = None
    apart: bool = False


def loss_of(deposition: Deposition, returned: int) -> Loss:
    """Why a write that was acked at ``returned`` and is lost could be lost.

    ==============  ==============================================================================================
    crash, restart  crash; restart
    kill, term      asynchronous, also for acks that were read after the end of the process
    partition       until it begins asynchronous, until it heals partition, from then on stale primary
    pause           until it begins asynchronous, then stale primary (who hangs acks nothing)
    failover        until the successor was promoted asynchronous, then stale primary; the same for coordinated
    ==============  ==============================================================================================
    """
    match deposition.cause:
        case Cause.CRASH:
            return Loss.CRASH
        case Cause.RESTART:
            return Loss.RESTART
        case Cause.KILL | Cause.TERM:
            return Loss.ASYNCHRONOUS
        case Cause.PARTITION:
            if returned <= deposition.at:
                return Loss.ASYNCHRONOUS
            return Loss.PARTITION if deposition.healed is None or returned <= deposition.healed else Loss.STALE_PRIMARY
        case Cause.PAUSE:
            return Loss.ASYNCHRONOUS if returned <= deposition.at else Loss.STALE_PRIMARY
        case _:
            return Loss.ASYNCHRONOUS if deposition.promoted is None or returned <= deposition.promoted else Loss.STALE_PRIMARY
