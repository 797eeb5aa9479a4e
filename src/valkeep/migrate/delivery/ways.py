"""Which delivery it is that was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from valkeep.errors import Refused
from valkeep.migrate.delivery.external import External
from valkeep.migrate.delivery.native import Native
from valkeep.migrate.delivery.promoter import Person, Promoter
from valkeep.migrate.delivery.push import Push

if TYPE_CHECKING:
    from valkeep.migrate.delivery import Delivery, Parts
    from valkeep.migrate.outcome import RunOptions

__all__ = ["delivery_by", "delivery_of"]


def delivery_of(options: RunOptions, parts: Parts, promoter: Promoter | None) -> Delivery:
    """``promoter``: of a target that attaches by itself; None: a person. Raises ``Refused`` for what cannot be done with a cluster."""
    if parts.found.shards and (options.deliver != "push" or options.rollback):
        raise Refused(
            f"{options.target.address} is a node of a cluster, which is written to as by a client only, and has no way back",
            remedy="`--deliver push`, without --rollback",
            code="VK-TARGET-CLUSTER",
        )
    if options.deliver == "external":
        person = Person(options.target.address, lambda text: parts.journal.say("info", text), options.promote_seconds)
        return External(parts, promoter or person)
    return delivery_by(options.deliver, parts)


def delivery_by(name: str, parts: Parts) -> Delivery:
    """Those that need nobody else: "push", or "native"."""
    return Push(parts) if name == "push" else Native(parts)
