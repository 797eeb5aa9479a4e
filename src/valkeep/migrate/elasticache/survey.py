"""Asks AWS for everything that is judged about a replication group. Reads only.

The group itself has to be readable; whatever else is not permitted becomes a fact (``denied``) with the name of the IAM action.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from valkeep.client.endpoint import Endpoint
from valkeep.client.server_info import version_of
from valkeep.errors import Refused, ValkeepError
from valkeep.migrate.elasticache.group import GroupFacts, NetworkFacts, Node, Route, Rule, SecurityGroup, Subnet
from valkeep.migrate.elasticache.plane import Plane

__all__ = ["primary_endpoint", "survey"]


class _Asking:
    """Calls that may be denied."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        self.denied: dict[str, str] = {}

    async def ask(self, service: str, operation: str, member: str, **parameters: Any) -> list[Mapping[str, Any]] | None:
        """The members of all pages; None where it is denied (or, on EC2, not known: an id of another account)."""
        found: list[Mapping[str, Any]] = []
        page: dict[str, Any] = {}
        token = "Marker" if service == "elasticache" else "NextToken"
        try:
            while True:
                reply = await self.plane.call(service, operation, **parameters, **page)
                found += reply.get(member, ())
                if not reply.get(token):
                    return found
                page = {token: reply[token]}
        except ValkeepError as error:
            if error.code not in ("VK-AWS-DENIED", "VK-AWS-ERROR"):
                raise
            self.denied[f"{service}:{''.join(word.capitalize() for word in operation.split('_'))}"] = error.message
            return None


async def primary_endpoint(plane: Plane) -> Endpoint:
    """Where the group's clients write to. Raises ``Refused`` in cluster mode, which has no such place."""
    group = await plane.group()
    shards = group.get("NodeGroups", ())
    found = shards[0].get("PrimaryEndpoint") if len(shards) == 1 else None
    if group.get("ClusterEnabled") or not found:
        name = plane.address.group
        raise Refused(
            f"the replication group {name} is in cluster mode ({len(shards)} shards), or has no primary endpoint",
            remedy="create a group with cluster mode disabled; into shards: `--deliver push` and the URL of the cluster",
            code="VK-EC-CLUSTER",
        )
    return Endpoint(str(found["Address"]), int(found["Port"]))


async def survey(plane: Plane, gateway: str) -> GroupFacts:
    """``gateway``: the address at which the target shall find the gateway ("" where it is not known yet). Raises ``ValkeepError`` where the group itself
    cannot be read."""
    group = await plane.group()
    asking = _Asking(plane)
    members = [str(name) for name in group.get("MemberClusters", ())]
    clusters, interfaces = await asyncio.gather(
        _clusters(asking, members),
        asking.ask(
            "ec2",
            "describe_network_interfaces",
            "NetworkInterfaces",
            Filters=[{"Name": "addresses.private-ip-address", "Values": [gateway]}],
        )
        if gateway
        else _nothing(),
    )
    first: Mapping[str, Any] = next(iter(clusters.values()), {})
    parameter_group = str(first.get("CacheParameterGroup", {}).get("CacheParameterGroupName", ""))
    (parameters, maxmemory), network = await asyncio.gather(
        _parameters(asking, parameter_group, str(group.get("CacheNodeType", ""))),
        _network(asking, first, (interfaces or [{}])[0] if interfaces else {}),
    )
    shards = group.get("NodeGroups", ())
    endpoint = (shards[0].get("PrimaryEndpoint") if shards else None) or None
    cluster_mode = bool(group.get("ClusterEnabled"))
    return GroupFacts(
        name=str(group["ReplicationGroupId"]),
        region=plane.region,
        status=str(group.get("Status", "")),
        engine=str(group.get("Engine") or first.get("Engine") or "redis"),
        version=version_of(str(first.get("EngineVersion", ""))),
        cluster_mode=cluster_mode,
        shards=len(shards),
        nodes=_nodes(shards, clusters),
        node_type=str(group.get("CacheNodeType", "")),
        multi_az=str(group.get("MultiAZ", "disabled")),
        automatic_failover=str(group.get("AutomaticFailover", "disabled")),
        transit_encryption=bool(group.get("TransitEncryptionEnabled")),
        at_rest_encryption=bool(group.get("AtRestEncryptionEnabled")),
        auth=bool(group.get("AuthTokenEnabled")),
        user_groups=tuple(group.get("UserGroupIds", ())),
        data_tiering=group.get("DataTiering") == "enabled",
        global_datastore=str(group.get("GlobalReplicationGroupInfo", {}).get("GlobalReplicationGroupId", "")),
        pending=tuple(sorted(name for name, value in group.get("PendingModifiedValues", {}).items() if value)),
        endpoint=(str(endpoint["Address"]), int(endpoint["Port"])) if endpoint and not cluster_mode else None,
        parameter_group=parameter_group,
        parameters=parameters,
        maxmemory=maxmemory,
        network=network,
        denied=asking.denied,
    )


async def _nothing() -> None:
    return None


async def _clusters(asking: _Asking, members: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    replies = await asyncio.gather(
        *(
            asking.ask("elasticache", "describe_cache_clusters", "CacheClusters", CacheClusterId=name, ShowCacheNodeInfo=True)
            for name in members
        )
    )
    return {name: reply[0] for name, reply in zip(members, replies, strict=True) if reply}


def _nodes(shards: Sequence[Mapping[str, Any]], clusters: Mapping[str, Mapping[str, Any]]) -> tuple[Node, ...]:
    found = []
    for member in (one for shard in shards for one in shard.get("NodeGroupMembers", ())):
        name = str(member.get("CacheClusterId", ""))
        cluster = clusters.get(name, {})
        found.append(
            Node(
                name,
                str(member.get("CurrentRole", "")),
                str(member.get("PreferredAvailabilityZone", "")),
                str(cluster.get("CacheClusterStatus", "")),
                str(cluster.get("EngineVersion", "")),
                str(member.get("ReadEndpoint", {}).get("Address", "")),
            )
        )
    return tuple(found)


async def _parameters(asking: _Asking, group: str, node_type: str) -> tuple[dict[str, str] | None, int | None]:
    """The group's parameters, and ``maxmemory`` of such a node less what ``reserved-memory-percent`` keeps."""
    if not group:
        return None, None
    values: dict[str, str] = {}
    by_type: dict[str, str] = {}
    marker: dict[str, Any] = {}
    while True:
        try:
            reply = await asking.plane.call("elasticache", "describe_cache_parameters", CacheParameterGroupName=group, **marker)
        except ValkeepError as error:
            if error.code != "VK-AWS-DENIED":
                raise
            asking.denied["elasticache:DescribeCacheParameters"] = error.message
            return None, None
        values |= {one["ParameterName"]: str(one.get("ParameterValue", "")) for one in reply.get("Parameters", ())}
        for one in reply.get("CacheNodeTypeSpecificParameters", ()):
            name = str(one["ParameterName"])
            for value in one.get("CacheNodeTypeSpecificValues", ()):
                if value.get("CacheNodeType") == node_type:
                    by_type[name] = str(value["Value"])
        if not reply.get("Marker"):
            break
        marker = {"Marker": reply["Marker"]}
    whole = by_type.get("maxmemory", "")
    percent = values.get("reserved-memory-percent", "0")
    if not whole.isdigit():
        return values, None
    return values, int(whole) * (100 - (int(percent) if percent.isdigit() else 0)) // 100


async def _network(asking: _Asking, cluster: Mapping[str, Any], interface: Mapping[str, Any]) -> NetworkFacts:
    names = [str(one["SecurityGroupId"]) for one in cluster.get("SecurityGroups", ())]
    ours = [str(one["GroupId"]) for one in interface.get("Groups", ())]
    subnet_group = str(cluster.get("CacheSubnetGroupName", ""))
    placed = (
        await asking.ask("elasticache", "describe_cache_subnet_groups", "CacheSubnetGroups", CacheSubnetGroupName=subnet_group)
        if subnet_group
        else None
    )
    vpc = str(placed[0].get("VpcId", "")) or None if placed else None
    subnet_ids = [str(one["SubnetIdentifier"]) for one in placed[0].get("Subnets", ())] if placed else []
    mine = str(interface.get("SubnetId", ""))
    groups, subnets, tables = await asyncio.gather(
        asking.ask("ec2", "describe_security_groups", "SecurityGroups", GroupIds=sorted({*names, *ours})) if names or ours else _nothing(),
        asking.ask("ec2", "describe_subnets", "Subnets", SubnetIds=sorted({*subnet_ids, *([mine] if mine else [])}))
        if subnet_ids or mine
        else _nothing(),
        asking.ask("ec2", "describe_route_tables", "RouteTables", Filters=[{"Name": "vpc-id", "Values": [vpc]}]) if vpc else _nothing(),
    )
    by_name = {str(one["GroupId"]): _security_group(one) for one in groups or ()}
    places = {
        str(one["SubnetId"]): Subnet(str(one["SubnetId"]), str(one.get("CidrBlock", "")), str(one.get("VpcId", "")))
        for one in subnets or ()
    }
    return NetworkFacts(
        vpc=vpc,
        subnets=None if subnets is None else tuple(places[name] for name in subnet_ids if name in places),
        groups=None if groups is None else tuple(by_name[name] for name in names if name in by_name),
        gateway_vpc=str(interface.get("VpcId", "")) or None,
        gateway_subnet=places.get(mine),
        gateway_groups=None if groups is None or not interface else tuple(by_name[name] for name in ours if name in by_name),
        routes=None if tables is None else {name: _routes(tables, name) for name in {*subnet_ids, mine} if name},
    )


def _security_group(one: Mapping[str, Any]) -> SecurityGroup:
    def rules(of: str) -> tuple[Rule, ...]:
        return tuple(
            Rule(
                str(rule.get("IpProtocol", "-1")),
                int(rule.get("FromPort", 0)),
                int(rule.get("ToPort", 65535)),
                frozenset(
                    {str(block["CidrIp"]) for block in rule.get("IpRanges", ())}
                    | {str(block["CidrIpv6"]) for block in rule.get("Ipv6Ranges", ())}
                    | {str(peer["GroupId"]) for peer in rule.get("UserIdGroupPairs", ())}
                    | {str(peer["PrefixListId"]) for peer in rule.get("PrefixListIds", ())}
                ),
            )
            for rule in one.get(of, ())
        )

    return SecurityGroup(str(one["GroupId"]), rules("IpPermissions"), rules("IpPermissionsEgress"))


def _routes(tables: Sequence[Mapping[str, Any]], subnet: str) -> tuple[Route, ...]:
    """Of the table that the subnet is associated with, else of the main one."""
    chosen: Mapping[str, Any] = {}
    for table in tables:
        links = table.get("Associations", ())
        if any(link.get("SubnetId") == subnet for link in links):
            chosen = table
            break
        if any(link.get("Main") for link in links):
            chosen = table
    return tuple(
        Route(
            str(route.get("DestinationCidrBlock", route.get("DestinationIpv6CidrBlock", ""))),
            str(
                next(
                    (route[name] for name in ("GatewayId", "NatGatewayId", "VpcPeeringConnectionId", "TransitGatewayId") if name in route),
                    "",
                )
            ),
            route.get("State", "active") == "active",
        )
        for route in chosen.get("Routes", ())
    )
