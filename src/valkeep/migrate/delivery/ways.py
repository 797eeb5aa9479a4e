"""Which delivery it is that was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from valkeep.errors import Refused
from valkeep.migrate.delivery.external import External
from valkeep.migrate.delivery.native import Native
from valkeep.migrate.delivery.promoter import Person, Promoter
from valkeep.migrate.delivery.push import Push

if TYPE_CHECKING:
    from valkeep.client.connection import Connection
    from valkeep.migrate.delivery import Delivery
    from valkeep.migrate.delivery.target import TargetFound
    from valkeep.migrate.gateway import Gateway
    from valkeep.migrate.journal import Journal
    from valkeep.migrate.outcome import RunOptions
    from valkeep.migrate.state import StateFile

__all__ = ["delivery_of"]


def delivery_of(
    options: RunOptions,
    gateway: Gateway,
    target: Connection,
    found: TargetFound,
    state: StateFile,
    journal: Journal,
    undone: list[str],
    promoter: Promoter | None,
) -> Delivery:
    """``promoter``: of a target that attaches by itself; None: a person. Raises ``Refused`` for what cannot be done with a cluster."""
    if found.shards and (options.deliver != "push" or options.rollback):
        raise Refused(
            f"{options.target.address} is a node of a cluster, which is written to as by a client only, and has no way back",
            remedy="`--deliver push`, without --rollback",
            code="VK-TARGET-CLUSTER",
        )
    if options.deliver == "external":
        person = Person(options.target.address, lambda text: journal.say("info", text), options.promote_seconds)
        return External(options, gateway, target, found, state, journal, undone, promoter or person)
    way = Push if options.deliver == "push" else Native
    return way(options, gateway, target, found, state, journal, undone)
