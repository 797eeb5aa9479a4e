"""Area *target*: is it a Valkey that may become a replica now, and a primary later?"""

from __future__ import annotations

from typing import Final

from valkeep.migrate.preflight.checks.case import Case, Check, Findings, blocker, info, ok, warning
from valkeep.migrate.preflight.checks.source import needed, persistence_of
from valkeep.migrate.preflight.facts import ServerFacts
from valkeep.migrate.preflight.formats import NEWEST_TESTED_VALKEY

__all__ = ["CHECKS"]

_OLDEST: Final = (7, 2)


def version(case: Case) -> Findings:
    _, target = case.pair
    if not target.is_valkey or target.version < _OLDEST:
        yield blocker(
            "VK-TARGET-VERSION",
            f"the target is {target.product}; Valkeep moves to Valkey 7.2 and later",
            "choose a Valkey target of version 7.2 or later",
            target=target.product,
        )
    elif target.version[:2] > NEWEST_TESTED_VALKEY:
        yield warning(
            "VK-TARGET-VERSION",
            "the target is newer than what this Valkeep was tested with; it is addressed as Valkey 9.1",
            "acknowledge it (the gateway sends RDB 80, which later releases read), or choose a tested version",
            target=target.product,
            tested=f"up to {'.'.join(map(str, NEWEST_TESTED_VALKEY))}",
        )
    else:
        yield ok("VK-TARGET-VERSION", "the target's version is supported", target=target.product)


def role(case: Case) -> Findings:
    _, target = case.pair
    if case.options.goes_on and (target.role == "replica" or case.options.deliver == "push"):
        yield ok("VK-TARGET-REPLICA", "the target is a killed run's own, which this one goes on with", target=target.address)
    elif target.role == "replica":
        primary = f"{target.info.get('master_host', '?')}:{target.info.get('master_port', '?')}"
        yield blocker(
            "VK-TARGET-REPLICA",
            "the target is a replica already",
            "give its primary as the target, or REPLICAOF NO ONE on it, if its data may go",
            target=f"{target.address} replicates {primary}",
        )
    else:
        replicas = target.info.get("connected_slaves", "0")
        yield ok("VK-TARGET-REPLICA", "the target is a primary", target=f"{target.address}, {replicas} replicas (they follow it)")


def sentinel(case: Case) -> Findings:
    """Seen: a Sentinel promoted the target's replica 33 s after REPLICAOF, and pulled the target away from the source at 54 s (valkey #845)."""
    _, target = case.pair
    if (target.sentinels or target.hello) and case.options.deliver == "push":
        yield warning(
            "VK-TARGET-SENTINEL",
            "a Sentinel watches the target: a failover of it during the move ends the move",
            "SENTINEL REMOVE name on every Sentinel before the move and SENTINEL MONITOR after it, or acknowledge it",
            target=f"{target.hello or 0} subscribers of __sentinel__:hello; {', '.join(target.sentinels or ()) or 'no named connections'}",
        )
    elif target.sentinels or target.hello:
        yield blocker(
            "VK-TARGET-SENTINEL",
            "a Sentinel watches the target: it would take the target's new role for a failure, and end the replication by a failover",
            "SENTINEL REMOVE name on every Sentinel before the move; SENTINEL MONITOR again after it",
            target=f"{target.hello or 0} subscribers of __sentinel__:hello; {', '.join(target.sentinels or ()) or 'no named connections'}",
        )
    elif target.hello is not None or target.sentinels is not None:
        yield ok("VK-TARGET-SENTINEL", "no Sentinel watches the target", target="no subscriber of __sentinel__:hello")


def empty(case: Case) -> Findings:
    _, target = case.pair
    if target.keys == 0:
        yield ok("VK-TARGET-NOT-EMPTY", "the target is empty", target="0 keys")
        return
    where = ", ".join(f"db{database}: {counts.get('keys', 0)}" for database, counts in sorted(target.keyspace.items()))
    if case.options.goes_on and (target.role == "replica" or case.options.deliver == "push"):
        yield ok("VK-TARGET-NOT-EMPTY", "the target has what a killed run copied, which this one goes on with", target=where)
    elif case.options.wipe_target:
        yield info("VK-TARGET-NOT-EMPTY", "the target has keys; all of them will be deleted, as --wipe-target says", target=where)
    else:
        yield blocker(
            "VK-TARGET-NOT-EMPTY",
            "the target has keys: a full sync deletes all of them",
            "choose an empty target, or say --wipe-target",
            target=f"{target.keys} keys ({where})",
        )


def commands(case: Case) -> Findings:
    _, target = case.pair
    user = f"user {target.user or 'default'}"
    if case.options.deliver == "push":
        yield from _written_to(target, user)
        return
    lacking, remedy = needed(target, ("REPLICAOF",))
    if case.options.attached_by:
        yield ok("VK-TARGET-COMMANDS", f"{case.options.attached_by} makes the target a replica, and a primary again", target=user)
    elif lacking:
        yield blocker(
            "VK-TARGET-COMMANDS",
            "the target does not let this user make it a replica, or a primary again",
            remedy + "; on ElastiCache say --target elasticache:ID; on other managed services --attach external or --deliver push",
            target=f"{user}: REPLICAOF {lacking['REPLICAOF']}",
        )
    else:
        yield ok("VK-TARGET-COMMANDS", "this user may make the target a replica", target=f"{user}: REPLICAOF {target.may('REPLICAOF')}")


def _written_to(target: ServerFacts, user: str) -> Findings:
    lacking, remedy = needed(target, ("RESTORE", "DEL", "SELECT"))
    state = ", ".join(f"{name} {permission}" for name, permission in lacking.items())
    if lacking:
        yield blocker(
            "VK-TARGET-COMMANDS",
            "the target does not let this user write to it what a copy needs",
            remedy + "; the stream needs every command that writes, on all keys",
            target=f"{user}: {state}",
        )
    else:
        yield ok("VK-TARGET-COMMANDS", "this user may write to the target", target=f"{user}: RESTORE, DEL, SELECT")


def early_expiry(case: Case) -> Findings:
    """Only where the target is written to: a replica expires nothing by itself."""
    _, target = case.pair
    if case.options.deliver != "push":
        return
    may = target.setting("import-mode") is not None and target.allows("CONFIG SET")
    state = f"{target.product}, CONFIG SET {target.may('CONFIG SET')}"
    if may:
        yield ok("VK-PUSH-EXPIRY", "nothing expires on the target before the promotion (import-mode)", target=state)
    else:
        yield info(
            "VK-PUSH-EXPIRY",
            "the target expires keys by its own clock during the move: keys whose renewal comes too late are copied again",
            "Valkey 8.1 or later, and CONFIG SET permitted to this user, avoid it (import-mode)",
            target=state,
        )


def persistence(case: Case) -> Findings:
    source, target = case.pair
    keeps, how = persistence_of(target)
    both = {"source": persistence_of(source)[1], "target": how}
    if keeps is False:
        yield warning(
            "VK-TARGET-PERSISTENCE",
            "the target writes its data to no disk: a restart as a primary begins empty, and empties its replicas",
            "CONFIG SET appendonly yes (or save) on the target, or acknowledge that it is a cache",
            **both,
        )
    elif keeps:
        yield ok("VK-TARGET-PERSISTENCE", "the target writes its data to a disk", **both)


def authentication(case: Case) -> Findings:
    """Whether a value is set; never the value."""
    _, target = case.pair
    if target.primaryauth is None or target.requirepass is None:
        return
    words = {True: "set", False: "not set"}
    state = f"primaryauth {words[target.primaryauth]}, requirepass {words[target.requirepass]}"
    if target.requirepass and not target.primaryauth_fits:
        yield info(
            "VK-PRIMARYAUTH",
            "the target's primaryauth is not its own password: after a failover it could not follow its former replicas",
            "CONFIG SET primaryauth on the target to its own password after the move",
            target=state,
        )
    elif target.primaryauth:
        yield info("VK-PRIMARYAUTH", "the target logs in to its primary: the gateway has to know that password", target=state)
    else:
        yield ok("VK-PRIMARYAUTH", "the target does not log in to its primary", target=state)


def replicas_wanted(case: Case) -> Findings:
    """A new primary that wants more replicas than it has refuses every write."""
    _, target = case.pair
    wanted = target.setting_number("min-replicas-to-write", "min-slaves-to-write")
    have = target.number("connected_slaves")
    if not wanted or have is None:
        return
    state = f"min-replicas-to-write {wanted}, {have} replicas connected"
    if have < wanted:
        yield warning(
            "VK-TARGET-MIN-REPLICAS",
            "the target wants more replicas than it has: promoted, it would refuse every write (NOREPLICAS)",
            f"attach {wanted - have} more, or CONFIG SET min-replicas-to-write {have} on the target",
            target=state,
        )
    else:
        yield ok("VK-TARGET-MIN-REPLICAS", "the target has the replicas that it wants", target=state)


def dropped_commands(case: Case) -> Findings:
    """A Valkey that does not know a replicated command drops it and keeps the link (propagation-error-behavior ignore)."""
    _, target = case.pair
    errors = target.number("unexpected_error_replies")
    if errors:
        yield info(
            "VK-TARGET-ERRORS",
            "the target has dropped replicated commands before; the move expects this counter to stay where it is",
            "CONFIG RESETSTAT on the target makes it 0",
            target=f"unexpected_error_replies {errors}",
        )


CHECKS: Final = (
    Check("target's version", "target", version, needs_target=True),
    Check("target is a primary", "target", role, needs_target=True),
    Check("Sentinels of the target", "target", sentinel, needs_target=True),
    Check("target is empty", "target", empty, needs_target=True),
    Check("commands on the target", "target", commands, needs_target=True),
    Check("early expiry on the target", "target", early_expiry, needs_target=True),
    Check("target's persistence", "target", persistence, needs_target=True),
    Check("target's authentication", "target", authentication, needs_target=True),
    Check("replicas of the target", "target", replicas_wanted, needs_target=True),
    Check("target's error counter", "target", dropped_commands, needs_target=True),
)
