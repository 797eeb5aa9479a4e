"""Area *readiness*: does everything that is there have a place on the target, and how will the cut-over go?"""

from __future__ import annotations

from typing import Final

from valkeep.migrate import fence
from valkeep.migrate.fence import FenceMode
from valkeep.migrate.preflight.checks.case import Case, Check, Findings, blocker, info, ok, warning
from valkeep.migrate.preflight.checks.source import needed
from valkeep.migrate.preflight.formats import has_field_ttl, native, rdb_version, signature
from valkeep.migrate.transform.target import FieldTtl

__all__ = ["CHECKS"]


def rdb_pair(case: Case) -> Findings:
    """The user's failure, explained before it happens."""
    source, target = case.pair
    number = rdb_version(source.kind, source.version)
    if number is None or not target.is_valkey or target.mode == "cluster":  # to which nothing replicates natively
        return
    check = target.setting("rdb-version-check")
    natively = native(source.kind, number, target.version, check, source.field_ttl_hashes)
    evidence = {
        "source": f"{source.product} writes {signature(source.kind, number)}",
        "target": f"{target.product} reads up to {signature('valkey', rdb_version('valkey', target.version) or 81)}"
        + (f", rdb-version-check {check}" if check else ""),
        "native replication": natively.why,
    }
    if natively.works:
        yield ok(
            "VK-RDB-PAIR",
            "native replication would take this snapshot too; the gateway adds checks, verification and the fence",
            **evidence,
        )
    else:
        yield info("VK-RDB-PAIR", "native replication would fail for this pair; the gateway converts the snapshot on the way", **evidence)


def databases(case: Case) -> Findings:
    source, target = case.pair
    used = max((database for database, counts in source.keyspace.items() if counts.get("keys")), default=0)
    here, there = source.databases, target.databases
    evidence = {"source": f"databases {here or 'not known'}, highest in use {used}", "target": f"databases {there or 'not known'}"}
    if there is None or target.mode == "cluster":  # see `cluster.databases`
        return
    if used >= there:
        yield blocker(
            "VK-DATABASES",
            f"the source uses database {used}, the target has {there} databases: sent there, its records would end the target's process",
            f"set databases {max(used + 1, here or 0)} in the target's configuration and restart it",
            **evidence,
        )
    elif here is not None and here > there:
        yield warning(
            "VK-DATABASES",
            "the target has fewer databases than the source: a write to a higher one during the move stops it there",
            f"set databases {here} in the target's configuration and restart it, or acknowledge that nobody uses them",
            **evidence,
        )
    else:
        yield ok("VK-DATABASES", "the target has as many databases as the source, or more", **evidence)


def census(case: Case) -> Findings:
    """Sampling never claims absence."""
    one = case.source.census
    broken = case.source.unasked.get("SNAPSHOT")
    if broken is not None:
        yield blocker(
            "VK-SNAPSHOT",
            "the source's snapshot has something in it that Valkeep can't step over: the gateway would refuse it",
            "look at the place that the message names; a newer Valkeep may know it, a damaged snapshot needs the source's log and memory looked at",
            source=broken,
        )
        return
    if one is None:
        asked = ("SCAN", "TYPE", "SELECT", "PSYNC FOR CENSUS")
        yield warning(
            "VK-CENSUS-MISSING",
            "no key of the source could be looked at: kinds of values are not known",
            "permit SCAN, TYPE and OBJECT to this user, or read a snapshot: --census full",
            source="; ".join(f"{name}: {why}" for name, why in case.source.unasked.items() if name in asked) or "no census",
        )
        return
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(one.kinds.items(), key=lambda pair: -pair[1])) or "none"
    evidence = {"source": f"{one.seen} of {one.total} keys looked at", "types": kinds}
    if one.snapshot_version is not None:
        evidence["snapshot"] = f"RDB {one.snapshot_version}, {one.snapshot_bytes} bytes, {one.seconds:.1f} s"
    if one.complete:
        yield ok("VK-CENSUS-SAMPLED", "every key was looked at", **evidence)
    else:
        yield warning(
            "VK-CENSUS-SAMPLED",
            "only a sample of the keys was looked at: what was not met may be there all the same",
            "acknowledge it (the gateway looks at every record, and stops before it sends what can't cross), or --census full",
            **evidence,
        )


def module_values(case: Case) -> Findings:
    source = case.source
    one = source.census
    if one is not None and one.modules:
        met = ", ".join(f"{count} of {name}" for name, count in sorted(one.modules.items()))
        keys = ", ".join(name for what, names in sorted(one.examples.items()) if what.startswith("module:") for name in names)
        yield blocker(
            "VK-MODULE-VALUES",
            "there are values of modules, which no Valkey without that module can load",
            "delete them, or move them by the application; values of modules can't cross",
            source=met,
            examples=keys,
        )
    elif source.modules:
        every = one is not None and one.complete
        yield info(
            "VK-MODULES",
            "the source has modules loaded; their values could not cross" + ("" if every else ", and not every key was looked at"),
            "" if every else "--census full looks at every key",
            source=", ".join(source.modules),
            found="none" if every else "not known" if one is None else "none in the sample",
        )
    elif source.modules is not None:
        yield ok("VK-MODULES", "the source has no modules", source="MODULE LIST is empty")


def field_ttl(case: Case) -> Findings:
    source, target = case.pair
    if not has_field_ttl(source.kind, source.version):
        yield ok("VK-FIELD-TTL", "this source has no TTLs on hash fields", source=source.product)
        return
    counted = source.field_ttl_hashes
    sampled = source.census.field_ttl_hashes if source.census is not None else 0
    full = source.census is not None and source.census.mode == "full"
    many = counted if counted is not None and full else max(counted or 0, sampled)  # a snapshot may have the encoding without a TTL left
    examples = ", ".join(source.census.examples.get("field-ttl", ())) if source.census is not None else ""
    evidence = {
        "source": f"{many} hashes with TTLs on fields" + (" (counted by INFO)" if counted is not None else " seen"),
        "target": f"{target.product} {'has' if has_field_ttl('valkey', target.version) else 'has no'} field TTLs",
        "policy": str(case.options.field_ttl),
    }
    if examples:
        evidence["examples"] = examples
    if has_field_ttl("valkey", target.version):
        yield ok("VK-FIELD-TTL", "TTLs on hash fields cross as they are", **evidence)
    elif many == 0:
        yield info(
            "VK-FIELD-TTL",
            "no hash has TTLs on fields now; should one appear during the move, the policy applies",
            ""
            if case.options.field_ttl is not FieldTtl.REFUSE
            else "with 'refuse' the move would stop there: consider --field-ttl keep-field",
            **evidence,
        )
    elif case.options.field_ttl is FieldTtl.REFUSE:
        yield blocker(
            "VK-FIELD-TTL",
            "hashes have TTLs on fields, which the target does not have, and the policy is to refuse",
            "choose --field-ttl keep-field (fields stay, their TTLs go) or drop-field (such fields do not cross), or a target of Valkey 9",
            **evidence,
        )
    else:
        loss = "the fields stay for ever" if case.options.field_ttl is FieldTtl.KEEP_FIELD else "the fields with a TTL do not cross"
        yield warning(
            "VK-FIELD-TTL",
            f"hashes have TTLs on fields, which the target does not have: {loss}",
            "acknowledge it, or choose a target of Valkey 9, which has field TTLs",
            **evidence,
        )


def cutover(case: Case) -> Findings:
    source = case.source
    if source.role == "replica":
        yield info("VK-CUTOVER", "how writers are kept out is found out at the source's primary when the time comes", source=source.product)
        return
    mode = fence.decide(source)
    names = ("CLIENT PAUSE", "CLIENT UNPAUSE", "CONFIG GET", "CONFIG SET", "MULTI", "EXEC")
    state = ", ".join(f"{name} {source.may(name)}" for name in names)
    evidence = {"source": f"{source.product}, {source.role}; {state}", "variant": mode.variant}
    leaky = not source.is_valkey and source.version < (7, 0) and source.info.get("number_of_cached_scripts") != "0"
    if mode is not FenceMode.EXTERNAL and leaky:  # redis #9993
        yield warning(
            "VK-CUTOVER",
            "the fence does not hold scripts: before Redis 7.0, EVAL writes in spite of min-replicas-to-write, also after the cut-over",
            "stop the writers that use EVAL and EVALSHA before the cut-over (INFO commandstats counts their calls), and acknowledge it",
            cached_scripts=source.info.get("number_of_cached_scripts", "not known"),
            **evidence,
        )
        return
    if mode is FenceMode.PAUSE:
        yield ok("VK-CUTOVER", "writers can be held and fenced at the cut-over", **evidence)
        return
    _, remedy = needed(source, names)
    if mode is FenceMode.DIRECT:
        yield info(
            "VK-CUTOVER",
            "writers can be fenced but not held at the cut-over: they see errors (NOREPLICAS) for a moment instead of a pause",
            remedy or "CLIENT PAUSE WRITE needs Redis 6.2 or later",
            **evidence,
        )
    else:
        yield warning(
            "VK-CUTOVER",
            "nothing on the source can keep writers out at the cut-over: you have to stop them yourself",
            (remedy + "; " if remedy else "") + "or acknowledge that you stop the writers before the cut-over",
            **evidence,
        )


def comparing(case: Case) -> Findings:
    """Keys written during verification are compared by DUMP and their TTL; a key that the stream can't express is copied again by DUMP."""
    for side, facts in case.sides:
        names: tuple[str, ...] = (
            ("DUMP", "PTTL", "SELECT", "MULTI", "EXEC")
            if side == "source"
            else ("DUMP", "PTTL", "SELECT", "SCAN", "TYPE")  # it is read as a client may
            if case.options.attached_by
            else ("DUMP", "PTTL", "SELECT", "RESTORE", "DEL", "PSYNC", "REPLCONF", "CONFIG SET")
        )
        if facts.mode == "cluster":
            names += ("CLUSTER NODES", "CLUSTER COUNTKEYSINSLOT", "CLUSTER GETKEYSINSLOT")
        lacking, remedy = needed(facts, names)
        if lacking:
            yield warning(
                "VK-COMPARE-COMMANDS",
                f"commands that verification, repair or a second copy of a key need are not permitted on the {side}",
                remedy + "; or acknowledge that the result can't be proven in full",
                **{side: f"user {facts.user or 'default'}: " + ", ".join(f"{name} {state}" for name, state in lacking.items())},
            )
        else:
            yield ok(
                "VK-COMPARE-COMMANDS", f"what verification needs is permitted on the {side}", **{side: f"user {facts.user or 'default'}"}
            )


_CARRIED_BY_NOBODY: Final = (
    "notify-keyspace-events",
    "timeout",
    "maxmemory-samples",
    "lua-time-limit",
    "busy-reply-threshold",
    "maxclients",
)


def not_carried(case: Case) -> Findings:
    """Replication carries data and functions; the rest has to be set up by hand."""
    source, target = case.source, case.target
    users = [name for name in source.acl_users or () if name != "default"]
    lacking = [name for name in users if target is None or name not in (target.acl_users or ())]
    text = "not known (ACL USERS is denied)" if source.acl_users is None else f"{len(users)} besides default"
    if users and target is not None and target.acl_users is not None:
        text += f", {len(lacking)} of them not on the target" + (f": {', '.join(lacking[:5])}" if lacking else "")
    differing = [
        f"{name} {source.setting(name)!r} → {target.setting(name)!r}"
        for name in _CARRIED_BY_NOBODY
        if target is not None
        and source.setting(name) is not None
        and source.setting(name) != target.setting(name)
        and target.setting(name) is not None
    ]
    yield info(
        "VK-NOT-CARRIED",
        "replication carries data and functions, not users, settings or cached scripts",
        "create the users on the target (ACL LIST, ACL SETUSER), set what differs; applications load scripts again (EVALSHA → NOSCRIPT → EVAL)",
        acl_users=text,
        settings="; ".join(differing)
        or ("not compared" if target is None or source.config is None or target.config is None else "none of note differ"),
        cached_scripts=source.info.get("number_of_cached_scripts", "not known"),
        functions=f"{source.info.get('number_of_functions', '0')} (they cross)",
    )


_MEANS: Final = {
    "CONFIG GET": "number of databases, output-buffer limit, RDB persistence, TLS for replication, protected mode, settings that differ",
    "SCAN": "types of values",
    "TYPE": "types of values",
    "SELECT": "values of some databases",
    "HPEXPIRETIME": "TTLs on hash fields, beyond what INFO counts",
    "CLIENT LIST": "Sentinels by the names of their connections",
    "PUBSUB NUMSUB": "Sentinels by their subscriptions",
    "MODULE LIST": "loaded modules",
    "TIME": "clock skew",
    "PSYNC": "whether this user may replicate",
    "MULTI": "which commands this user may run",
    "ACL USERS": "users that the target lacks",
    "ACL WHOAMI": "the name of this user",
}


def unchecked(case: Case) -> Findings:
    """What could not be asked is said, and counts as a condition where it may hide a reason to stop."""
    for side, facts in case.sides:
        if not facts.info:
            continue
        missed = {name: why for name, why in facts.unasked.items() if name in _MEANS}
        if side == "target":
            missed.pop("PSYNC", None)
        if facts.census is not None and facts.census.mode == "full":
            for name in ("SCAN", "TYPE", "HPEXPIRETIME"):
                missed.pop(name, None)
        grave = {
            name
            for name in missed
            if name in ("CONFIG GET", "SCAN", "TYPE", "TIME", "PSYNC", "MULTI")
            or (name in ("CLIENT LIST", "PUBSUB NUMSUB") and facts.sentinels is None and facts.hello is None)
        }
        code = f"VK-UNCHECKED-{side.upper()}"
        evidence = {name: f"{_MEANS[name]} ({why})" for name, why in missed.items()}
        if grave:
            yield warning(
                code,
                f"some things could not be checked on the {side}: {', '.join(sorted(grave))} refused",
                f"permit them to user {facts.user or 'default'} for the time of the move, or acknowledge that they are as they should be",
                **evidence,
            )
        elif missed:
            yield info(code, f"some details could not be read on the {side}", "", **evidence)
        else:
            yield ok(code, f"everything could be asked on the {side}")


def no_target(case: Case) -> Findings:
    if case.target is None:
        yield info("VK-NO-TARGET", "no target was given: only the source was judged", "give --target URL to judge the pair")


CHECKS: Final = (
    Check("snapshot formats", "readiness", rdb_pair, needs_target=True),
    Check("number of databases", "readiness", databases, needs_target=True),
    Check("types of values", "readiness", census),
    Check("modules", "readiness", module_values),
    Check("TTLs on hash fields", "readiness", field_ttl, needs_target=True),
    Check("cut-over", "readiness", cutover),
    Check("commands for verification", "readiness", comparing, each=True),
    Check("what replication does not carry", "readiness", not_carried),
    Check("what could not be checked", "readiness", unchecked, each=True),
    Check("a target is given", "readiness", no_target, whole=True),
)
