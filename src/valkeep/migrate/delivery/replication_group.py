"""What a run does otherwise when its target is a replication group of ElastiCache: who promotes it, who may come to the gateway, and what is not promised."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from valkeep.errors import ConnectionLost
from valkeep.migrate.delivery.elasticache import ElastiCache
from valkeep.migrate.delivery.target import addresses, facing

if TYPE_CHECKING:
    from valkeep.migrate.elasticache.group import GroupFacts
    from valkeep.migrate.journal import Journal
    from valkeep.migrate.outcome import RunOptions

__all__ = ["NOT_AWS", "promoter_of", "visitors"]

NOT_AWS: Final = "ElastiCache's side was tested against a control plane of Valkeep's own tests, never against AWS itself"


def promoter_of(options: RunOptions, facts: GroupFacts | None, journal: Journal) -> ElastiCache | None:
    """None where the target is no group. ``facts``: what preflight found."""
    if options.group is None or facts is None:
        return None
    databases = (facts.parameters or {}).get("databases", "")
    return ElastiCache.of(options.group, options.target, journal, databases)


async def visitors(options: RunOptions, facts: GroupFacts | None) -> frozenset[str]:
    """Addresses of a group's nodes besides its primary's, any of which may come; and our own, because we ask the gateway before ElastiCache does."""
    if options.group is None:
        return frozenset()
    found = {options.listen[0], await facing(options.target)} - {""}
    members = [node.host for node in facts.nodes if node.host] if facts is not None else []
    for name in (*members, *([options.announce[0]] if options.announce is not None else [])):
        with contextlib.suppress(ConnectionLost):
            found |= await addresses(name)
    return frozenset(found)
