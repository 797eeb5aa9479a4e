"""Area 5: the migration itself: instance, cluster, network, Redis running, basic commands, sync, completion."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import Final

from valkeep.migrate.elasticache.probe import NEWEST, Answers
from valkeep.migrate.preflight.checks.elasticache.case import GroupCase, NumberedCheck, blocker, info, ok, unknown, warning, worst
from valkeep.migrate.preflight.facts import human
from valkeep.migrate.preflight.finding import Finding, Severity

__all__ = ["CHECKS", "objection"]


def instance(case: GroupCase) -> Finding:
    data, free = case.source.data_bytes, case.gateway.free
    evidence = {
        "spool": case.gateway.spool,
        "free": human(free) if free is not None else None,
        "data": human(data) if data is not None else None,
    }
    if case.goes_on:
        return ok("the snapshot is spooled already, by the run that was killed", **evidence)
    if free is None or data is None:
        return unknown("whether the disk holds the spool is not known", "see --spool DIR; acknowledge it", **evidence)
    if free < 2 * data:
        return warning(
            "the disk under the spool has less than twice the source's data",
            "choose another folder (--spool DIR); snapshots are usually smaller than data, so acknowledge it if you know yours",
            **evidence,
        )
    return ok("the gateway's machine has disk for snapshot and stream", **evidence)


def cluster(case: GroupCase) -> Finding:
    if case.target is None:
        return blocker(
            "the target's primary endpoint does not answer from this machine, which reads there to verify",
            "check A-10 (security group) and that this machine is in the target's VPC",
            why=case.silent or "cluster mode has no primary endpoint",
        )
    seen = worst(case.taken)
    if seen is not None and seen.severity in (Severity.BLOCKER, Severity.WARNING):
        return seen
    if case.group.pending:
        return warning(
            "changes of the group are pending, and may be applied in the middle of the migration",
            "apply them first (--apply-immediately), or acknowledge it",
            pending=", ".join(case.group.pending),
        )
    return seen or ok("the target answers, and is empty", target=case.target.product)


def network(case: GroupCase) -> Finding:
    gateway = case.gateway
    evidence = {"gateway": gateway.display, "this machine": "has that address" if gateway.here else "does not have that address"}
    near = case.group.endpoint is not None and _is_loopback(case.group.endpoint[0])
    if gateway.host in ("", "0.0.0.0", "::") or (_is_loopback(gateway.host) and not near):
        return blocker(
            f"{gateway.host or 'nothing'} is no address at which the target could reach the gateway",
            "name this machine's address in the target's VPC: --gateway HOST:PORT here, --listen HOST:PORT when you run",
            **evidence,
        )
    if not gateway.port:
        return warning(
            "the gateway's port is not decided: security groups cannot be right for any port",
            "name it: --gateway HOST:PORT here, --listen HOST:PORT when you run; or acknowledge that every port is open",
            **evidence,
        )
    if not gateway.address:
        return blocker(f"the name {gateway.host} leads nowhere", "give an address, or a name that the target can resolve, too", **evidence)
    if not gateway.here and not gateway.runs:
        return warning(
            "nothing answers at the gateway's address yet, and it is none of this machine",
            "give an address of this machine; or acknowledge that what is there (NAT, a load balancer) leads to the gateway when it runs",
            **evidence,
        )
    return ok("the gateway has an address that the target can be told", **evidence)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def running(case: GroupCase) -> Finding:
    return worst(case.taken, source_is=f"{case.source.product}, {case.source.role}") or ok("the source answers")


def basic_commands(case: GroupCase) -> Finding:
    answers = case.gateway.answers
    if answers is None or not case.gateway.runs:
        return info(
            "the gateway does not run yet (or does not answer this machine, see its --allow): `valkeep migrate run` asks all this before ElastiCache does",
            gateway=case.gateway.display,
            asked=answers.reached if answers is not None else "no port is decided",
        )
    return objection(answers, (case.group.parameters or {}).get("databases", ""), case.gateway.display) or ok(
        "the gateway answers what ElastiCache asks, as a Redis 7.2 without AUTH",
        gateway=f"{case.gateway.display}: Redis {'.'.join(map(str, answers.version))}, {answers.role}, protected-mode {answers.protected}, "
        f"databases {answers.databases}, master_repl_offset {answers.offset}",
    )


def objection(answers: Answers, databases: str, where: str) -> Finding | None:
    """Why ElastiCache would refuse such a source; None where nothing speaks against it. ``databases``: of the target ("": not known)."""
    if answers.reached:
        return blocker(
            "nothing answers at the gateway's address", "check that it listens there, and --announce", gateway=f"{where}: {answers.reached}"
        )
    if answers.password:
        return blocker("the gateway asks for a password", "AWS takes a source without AUTH only: run it without a password", gateway=where)
    if answers.unanswered:
        return blocker(
            "the gateway does not answer everything that ElastiCache asks",
            "what stands between (a proxy, --announce) must pass every command on; AWS wants these answered under their own names",
            **dict(answers.unanswered),
        )
    if answers.missing:
        return blocker(
            f"commands are renamed or missing at the gateway's address: {', '.join(answers.missing)}",
            "AWS wants info, config, command, cluster, sync and psync under their own names",
            gateway=where,
        )
    if not answers.version or answers.version[:2] > NEWEST:
        return blocker(
            f"the gateway presents itself as {'.'.join(map(str, answers.version)) or 'no version'}; AWS takes sources up to Redis 7.2",
            "leave --present-as at 7.2.4",
            gateway=where,
        )
    if answers.role != "master" or answers.cluster:
        return blocker(
            "what answers at the gateway's address is no standalone primary",
            "check --announce: does it lead to the gateway?",
            gateway=f"{where}: role {answers.role or 'unsaid'}, cluster mode {'on' if answers.cluster else 'off'}",
        )
    if answers.protected != "no":
        return blocker(
            "protected-mode is on at the gateway's address: AWS refuses such a source",
            "check --announce: the gateway itself says no",
            gateway=f"{where}: protected-mode {answers.protected or 'unsaid'}",
        )
    if databases and answers.databases != int(databases):
        return blocker(
            f"the gateway says {answers.databases} databases, the target has {databases}: AWS wants them equal",
            f"start the gateway with --databases {databases}",
            gateway=where,
        )
    if answers.offset is None or answers.offset < 0:
        return blocker("the gateway shows no replication offset", "check --announce: does it lead to the gateway?", gateway=where)
    return None


def sync(case: GroupCase) -> Finding:
    ready = case.gateway.ready
    if ready == "":
        return ok("the whole snapshot is spooled: the target gets it at once", gateway=case.gateway.display)
    if ready is not None:
        return blocker("the snapshot is not spooled yet: a slow one makes ElastiCache give up", "wait for /ready of the gateway", why=ready)
    return info(
        "ElastiCache is told to start only when the whole snapshot is spooled; a slow source cannot make it give up",
        gateway=case.gateway.display,
    )


def completion(case: GroupCase) -> Finding:
    pause = "CompleteMigration takes minutes, AWS says; the source refuses writes meanwhile, and the report says for how long"
    seen = worst(case.taken, pause=pause)
    if seen is not None and seen.remedy:
        return seen
    if seen is None:
        return info("writers are kept out until the target is the primary", pause=pause)
    return replace(seen, severity=Severity.INFO, remedy="plan the cut-over for a quiet hour: --cutover manual waits for you")


CHECKS: Final[tuple[NumberedCheck, ...]] = (instance, cluster, network, running, basic_commands, sync, completion)
