"""What a run does otherwise when its target is a replication group of ElastiCache: who promotes it, who may come to the gateway, and what is not promised."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from valkeep.errors import ConnectionLost
from valkeep.migrate.delivery.elasticache import ElastiCache
from valkeep.migrate.delivery.target import addresses, facing
from valkeep.migrate.preflight.managed import GatewayPlace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from valkeep.migrate.elasticache.group import GroupFacts
    from valkeep.migrate.gateway.gateway import Gateway
    from valkeep.migrate.journal import Journal
    from valkeep.migrate.outcome import RunOptions

__all__ = ["NOT_AWS", "place_of", "promoter_of", "visitors"]

NOT_AWS: Final = "ElastiCache's side was tested against a control plane of Valkeep's own tests, never against AWS itself"


def place_of(options: RunOptions, kept: tuple[str, int]) -> GatewayPlace:
    """``kept``: where the gateway of a killed run was, which is gone on with ("" and 0: none is)."""
    at = options.listen[0] or kept[0], options.listen[1] or kept[1]
    return GatewayPlace(options.announce or at, options.spool or options.state_directory)


def promoter_of(
    options: RunOptions, facts: GroupFacts | None, gateways: Mapping[str, Gateway], journal: Journal, *, again: bool
) -> ElastiCache | None:
    """None where the target is no group. ``facts``: what preflight found. ``gateways``: by lane. ``again``: a killed run is gone on with."""
    if options.group is None or facts is None:
        return None
    databases = (facts.parameters or {}).get("databases", "")

    def streams() -> frozenset[str]:
        return frozenset(channel.replid for gateway in gateways.values() for channel in gateway.channels)

    return ElastiCache.of(options.group, options.target, journal, streams, databases, again=again)


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
