"""Preflight of a move into a replication group of ElastiCache: the general checks of the pair, and the 31 numbered ones.

The target is looked at twice: as AWS describes it, and as its endpoint answers. What its users may not ask there (CONFIG) is taken from its parameter
group. An endpoint that does not answer is a finding, and no error: the other thirty are told all the same.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from pathlib import Path

from valkeep.client.endpoint import Endpoint
from valkeep.errors import ValkeepError
from valkeep.migrate import fence
from valkeep.migrate.elasticache.address import GroupAddress
from valkeep.migrate.elasticache.group import GroupFacts
from valkeep.migrate.elasticache.plane import Plane
from valkeep.migrate.elasticache.probe import GatewayFacts, facing, look_at_gateway
from valkeep.migrate.elasticache.survey import survey
from valkeep.migrate.preflight.checks import Case, judge
from valkeep.migrate.preflight.checks.elasticache import GroupCase, judge_group
from valkeep.migrate.preflight.facts import ServerFacts
from valkeep.migrate.preflight.gather import gather
from valkeep.migrate.preflight.options import PreflightOptions
from valkeep.migrate.preflight.report import PreflightReport
from valkeep.report.events import Emit, Phase, VerdictEvent

__all__ = ["GatewayPlace", "preflight_group"]


@dataclass(frozen=True, slots=True)
class GatewayPlace:
    """Where the gateway is, or will be: what ElastiCache is told (host "": the address that faces the target; port 0: not decided), and the folder of
    its spool."""

    address: tuple[str, int]
    spool: Path


async def preflight_group(
    source: Endpoint, address: GroupAddress, place: GatewayPlace, options: PreflightOptions, emit: Emit
) -> PreflightReport:
    """Look at the source, the group, its network and the gateway, and judge. Reads only. Raises ``ValkeepError`` where the source or the group cannot be
    looked at: nothing was judged then."""
    started = time.monotonic()
    emit(Phase(0.0, "preflight"))
    options = replace(options, attached_by="ElastiCache")
    plane = Plane(address)
    sample_keys = 0 if options.full_census else options.sample_keys
    here, (group, there, silent, gateway) = await asyncio.gather(
        gather(source, rate_seconds=options.rate_seconds, sample_keys=sample_keys, timeout=options.timeout),
        _target(plane, place, options),
    )
    if options.full_census:
        from valkeep.migrate.preflight.snapshot import counted

        here = await counted(source, here, emit, lambda: time.monotonic() - started)
    general = judge(Case(here, there, options))
    findings = judge_group(GroupCase(group, here, there, gateway, silent, goes_on=options.goes_on), general)
    report = PreflightReport(findings, here, there, options, fence.decide(here), time.monotonic() - started, group)
    emit(Phase(report.elapsed_seconds, "preflight", done=True))
    said = {"of": "preflight", "blockers": list(report.blockers), "conditions": list(report.conditions)}
    emit(VerdictEvent(report.elapsed_seconds, str(report.verdict), said))
    return report


async def _target(plane: Plane, place: GatewayPlace, options: PreflightOptions) -> tuple[GroupFacts, ServerFacts | None, str, GatewayFacts]:
    host, port = place.address
    if not host:
        shards = (await plane.group()).get("NodeGroups") or [{}]
        endpoint = shards[0].get("PrimaryEndpoint") or {}
        host = facing(str(endpoint.get("Address", "")), int(endpoint.get("Port", 0))) if endpoint else ""
    gateway = await look_at_gateway((host, port), place.spool)
    group = await survey(plane, gateway.address)
    there, silent = await _endpoint(group, options)
    return group, there, silent, gateway


async def _endpoint(group: GroupFacts, options: PreflightOptions) -> tuple[ServerFacts | None, str]:
    """What answers at the group's primary endpoint, and why nothing did."""
    if group.endpoint is None:
        return None, "it is in cluster mode, which has no primary endpoint"
    host, port = group.endpoint
    try:
        found = await gather(Endpoint(host, port), rate_seconds=0, sample_keys=0, timeout=options.timeout)
    except ValkeepError as error:
        return None, error.message
    if group.parameters is None or found.config is not None:
        return found, ""
    unasked = {name: why for name, why in found.unasked.items() if name not in ("CONFIG GET", "MODULE LIST")}  # there are none to be loaded
    return replace(found, config=dict(group.parameters), unasked=unasked), ""
