"""Area 2: do gateway and target get through to each other, and nobody else?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from valkeep.migrate.elasticache.group import Rule, SecurityGroup, permits
from valkeep.migrate.preflight.checks.elasticache.case import GroupCase, NumberedCheck, blocker, ok, unknown, warning
from valkeep.migrate.preflight.finding import Finding

__all__ = ["CHECKS"]

_EVERYBODY: Final = frozenset({"0.0.0.0/0", "::/0"})
_GROUPS: Final = "ec2:DescribeSecurityGroups"
_INTERFACES: Final = "ec2:DescribeNetworkInterfaces"
_SUBNETS: Final = "ec2:DescribeSubnets"


def _not_looked(case: GroupCase, what: str, *actions: str) -> Finding:
    denied = case.denied(*actions)
    why = (
        f"permit {denied}, or acknowledge that you looked yourself"
        if denied
        else f"no network interface of this account has the address {case.gateway.host}; acknowledge that you looked yourself"
    )
    return unknown(f"{what} is not known", why, gateway=case.gateway.display)


def vpc(case: GroupCase) -> Finding:
    network = case.network
    evidence = {"target": network.vpc, "gateway": f"{case.gateway.host} in {network.gateway_vpc or 'no VPC that is known'}"}
    if network.vpc is None:
        return _not_looked(case, "the target's VPC", "elasticache:DescribeCacheSubnetGroups", "elasticache:DescribeCacheClusters")
    if network.gateway_vpc is None:
        return _not_looked(case, "the gateway's VPC", _INTERFACES)
    if network.gateway_vpc != network.vpc:
        return warning(
            "the gateway is in another VPC than the target",
            "run Valkeep in the target's VPC, or acknowledge that the two are peered, and that AWS' documents speak of one VPC only",
            **evidence,
        )
    return ok("gateway and target are in one VPC", **evidence)


def target_out(case: GroupCase) -> Finding:
    groups = case.network.groups
    if groups is None:
        return _not_looked(case, "what the target's security groups let out", _GROUPS, "elasticache:DescribeCacheClusters")
    return _through(
        case,
        groups,
        _rules(groups, "egress"),
        "the target's security groups let it out to the gateway",
        "egress",
        case.gateway.address,
        _ours(case),
    )


def gateway_in(case: GroupCase) -> Finding:
    groups = case.network.gateway_groups
    if groups is None or case.network.subnets is None:
        return _not_looked(case, "what the gateway's security groups let in", _GROUPS, _INTERFACES, _SUBNETS)
    theirs = [one.name for one in case.network.groups or ()]
    rules = _rules(groups, "ingress")
    verdicts = [permits(rules, case.gateway.port, _inside(subnet.block), theirs) for subnet in case.network.subnets]
    title = "the gateway's security groups let the target in"
    return _verdict(case, groups, rules, title, "ingress", None if None in verdicts and False not in verdicts else all(verdicts))


def machine_in(case: GroupCase) -> Finding:
    groups = case.network.groups
    if groups is None or case.group.endpoint is None:
        return _not_looked(case, "what the target's security groups let in", _GROUPS, "elasticache:DescribeCacheClusters")
    rules = _rules(groups, "ingress")
    let = permits(rules, case.group.endpoint[1], case.gateway.address, _ours(case)) if case.gateway.here else None
    evidence = {"port": case.group.endpoint[1], "rules": _shown(rules)}
    title = "the target's security groups let this machine in, which reads there to verify"
    if let is None:
        why = "a prefix list is named" if case.gateway.here else "the gateway's address is none of this machine"
        return unknown(f"whether {title} is not known: {why}", "look into it, and acknowledge that it holds", **evidence)
    if not let:
        return blocker(
            f"not true: {title}",
            f"permit ingress tcp {case.group.endpoint[1]} from {case.gateway.host}/32 (or its security group) in {_named(groups)}",
            **evidence,
        )
    return ok(title, **evidence)


def routes(case: GroupCase) -> Finding:
    network = case.network
    if network.routes is None or network.subnets is None:
        return _not_looked(case, "how the target's subnets are routed", "ec2:DescribeRouteTables", _SUBNETS)
    lost = [
        subnet.name
        for subnet in network.subnets
        if not any(route.leads_to(case.gateway.address) for route in network.routes.get(subnet.name, ()))
    ]
    shown = "; ".join(
        f"{subnet.name}: " + ", ".join(f"{route.block} → {route.via}" for route in network.routes.get(subnet.name, ()))
        for subnet in network.subnets
    )
    if lost:
        return blocker(
            f"subnets of the target have no route to the gateway: {', '.join(lost)}",
            f"add an active route to {case.gateway.host} in their route tables, or run Valkeep in the target's VPC",
            routes=shown,
        )
    return ok("the target's subnets have a route to the gateway", routes=shown)


def open_to_all(case: GroupCase) -> Finding:
    groups = (*(case.network.groups or ()), *(case.network.gateway_groups or ()))
    if case.network.groups is None:
        return _not_looked(case, "whether a security group is open to everybody", _GROUPS, "elasticache:DescribeCacheClusters")
    wide = [f"{one.name}: {rule.display}" for one in groups for rule in one.ingress if rule.peers & _EVERYBODY]
    if wide:
        return warning(
            "security groups admit everybody (a lab's)",
            "admit the addresses of gateway, source and applications only; or acknowledge it for a lab",
            rules="; ".join(wide),
        )
    return ok("no security group admits everybody", groups=_named(groups))


def _through(
    case: GroupCase, groups: tuple[SecurityGroup, ...], rules: list[Rule], title: str, way: str, address: str, members: Iterable[str]
) -> Finding:
    return _verdict(case, groups, rules, title, way, permits(rules, case.gateway.port, address, members))


def _verdict(case: GroupCase, groups: tuple[SecurityGroup, ...], rules: list[Rule], title: str, way: str, let: bool | None) -> Finding:
    evidence = {"gateway": case.gateway.display, "rules": _shown(rules)}
    if not case.gateway.port:
        return unknown(
            f"whether {title} is not known: the gateway's port is not decided",
            "name it: --gateway HOST:PORT here, --listen HOST:PORT when you run",
            **evidence,
        )
    if let is None:
        return unknown(f"whether {title} is not known: a prefix list is named", "look into it, and acknowledge that it holds", **evidence)
    if not let:
        return blocker(f"not true: {title}", f"permit {way} tcp {case.gateway.port} in {_named(groups)}", **evidence)
    return ok(title, **evidence)


def _rules(groups: Iterable[SecurityGroup], way: str) -> list[Rule]:
    return [rule for one in groups for rule in (one.egress if way == "egress" else one.ingress)]


def _ours(case: GroupCase) -> list[str]:
    return [one.name for one in case.network.gateway_groups or ()]


def _named(groups: Iterable[SecurityGroup]) -> str:
    return ", ".join(dict.fromkeys(one.name for one in groups)) or "no security group"


def _shown(rules: Iterable[Rule]) -> str:
    return "; ".join(rule.display for rule in rules) or "none"


def _inside(block: str) -> str:
    """An address of a subnet: its first."""
    return block.partition("/")[0]


CHECKS: Final[tuple[NumberedCheck, ...]] = (vpc, target_out, gateway_in, machine_in, routes, open_to_all)
