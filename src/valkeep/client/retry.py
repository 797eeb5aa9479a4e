"""When a request may be made again, and after how long. Pure but for the dice, which are the caller's.

Three outcomes of an attempt lead to another one:

    definite     it surely did not happen (no connection; the server refused before doing anything): again, whatever the command is
    in doubt     the reply was lost: again only when the command may be repeated (`commands.may_be_repeated`, or the caller says so)
    redirected   the node says who has the slot: there, at once

Waiting is "full jitter": a random time between nothing and a bound that doubles with each attempt. Clients that failed together then do not come back
together. Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

from valkeep.errors import ConnectionLost, ServerError, ValkeepError

__all__ = ["Counts", "InDoubt", "OutOfTime", "Patience", "passes"]

#: Refusals of a server that did nothing, and that pass: the first word → whether another node may be the right one by now.
_PASSING: Final = {
    "READONLY": True,  # a replica, or a primary that has become one
    "MASTERDOWN": True,  # a replica without its primary
    "CLUSTERDOWN": True,  # the node is cut off, or nobody serves the slot yet
    "NOREPLICAS": True,  # maybe a primary on the lost side of a partition
    "LOADING": True,  # it restarts; a replica may be promoted meanwhile
    "UNBLOCKED": True,  # a blocking command on a node that became a replica
    "TRYAGAIN": False,  # keys of one command are on both sides of a slot that is being moved
}


class InDoubt(ConnectionLost):
    """The reply to a write was lost, and it was not made again. ``definite`` is False."""


class OutOfTime(ValkeepError):
    """The deadline passed. ``definite``: whether it surely was not done by any of the attempts."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a client waits, in seconds. ``call``: for a call with all its attempts, unless the call says otherwise. ``node``: until a node that says
    nothing is taken for gone, both when connecting and when a reply is due (blocking commands have the whole time of their call).
    ``first``, ``most``: the pause after the first failure is at most ``first``, each further one at most twice the one before, none above ``most``."""

    call: float = 10.0
    node: float = 1.0
    first: float = 0.01
    most: float = 0.25

    def pause(self, failures: int, rng: Random) -> float:
        """Before the next attempt, after so many (≥ 1) have failed."""
        return rng.uniform(0.0, min(self.most, self.first * 2.0 ** min(failures - 1, 30)))


@dataclass(slots=True)
class Counts:
    """What a client did beyond sending each request once. ``retries``: attempts after a failure; ``redirects``: MOVED and ASK followed; ``switches``:
    a primary replaced by another one, as sentinels told; ``in_doubt``: requests that ended with `InDoubt`; ``connections``: opened."""

    calls: int = 0
    retries: int = 0
    redirects: int = 0
    switches: int = 0
    in_doubt: int = 0
    connections: int = 0


def passes(error: ValkeepError) -> bool | None:
    """Whether it is worth to try again after this *definite* failure: None when not; else whether to look for the node again."""
    if isinstance(error, ServerError):
        return _PASSING.get(error.kind)
    return True if isinstance(error, ConnectionLost) else None
