"""Area *source*: can it be replicated from, and does its replication hold while the snapshot crosses?"""

from __future__ import annotations

from typing import Final

from valkeep.migrate.preflight.checks.case import Case, Check, Findings, blocker, info, ok, warning
from valkeep.migrate.preflight.facts import Permission, ServerFacts, human
from valkeep.migrate.preflight.finding import Finding
from valkeep.migrate.preflight.formats import (
    NEWEST_TESTED_REDIS,
    NEWEST_TESTED_VALKEY,
    OLDEST_SOURCE,
    OLDEST_TESTED,
    rdb_version,
    signature,
)

__all__ = ["CHECKS"]

_BACKLOG_SECONDS: Final = 10.0  # a broken link should be back by then
_SYNC_BYTES_PER_SECOND: Final = 50e6  # what a full sync makes at least, on ordinary machines


def version(case: Case) -> Findings:
    source = case.source
    if source.version < OLDEST_SOURCE:
        yield blocker(
            "VK-SOURCE-VERSION",
            "the source is too old: it does not speak PSYNC, which came with Redis 2.8",
            "upgrade the source to Redis 2.8 or later first (2.8 reads its data files)",
            source=source.product,
        )
        return
    number = rdb_version(source.kind, source.version)
    newest = NEWEST_TESTED_VALKEY if source.is_valkey else NEWEST_TESTED_REDIS
    if number is None:
        yield blocker(
            "VK-SOURCE-VERSION",
            "the source is newer than this Valkeep: the format of its snapshots is not known",
            "use a newer Valkeep, or a source of an older version",
            source=source.product,
            known=f"up to Redis 8.10 (RDB 15) and Valkey 9.2 (RDB 81); tested up to {'.'.join(map(str, newest))}",
        )
    elif source.version[:2] > newest:
        yield warning(
            "VK-SOURCE-VERSION",
            f"the source writes RDB {number}, which is known only in part: new kinds of values are refused before anything is sent",
            "acknowledge it and use --census full, which reads a whole snapshot, or wait for a Valkeep that was tested with it",
            source=f"{source.product}, {signature(source.kind, number)}",
            tested=f"up to {'.'.join(map(str, newest))}",
        )
    elif not source.is_valkey and source.version < OLDEST_TESTED:
        yield warning(
            "VK-SOURCE-VERSION",
            "the source is older than what this Valkeep was tested with: before Redis 7.0 expiries are replicated as relative times, "
            "so that TTLs may move by the time that a write waits on the way, and verification then says so",
            "upgrade the source to Redis 7.0 or later first, or acknowledge it, rehearse with a copy, and keep the lag small",
            source=f"{source.product}, {signature(source.kind, number)}",
            tested=f"from Redis {'.'.join(map(str, OLDEST_TESTED))}",
        )
    else:
        yield ok("VK-SOURCE-VERSION", "the source's version is supported", source=f"{source.product}, {signature(source.kind, number)}")


def loading(case: Case) -> Findings:
    for side, facts in case.sides:
        if facts.info.get("loading") == "1" or facts.info.get("async_loading") == "1":
            yield blocker(
                "VK-LOADING",
                f"the {side} is still loading its data",
                "wait until it has loaded (INFO persistence: loading 0), then look again",
                **{side: f"loading 1, eta {facts.info.get('loading_eta_seconds', '?')} s"},
            )
        else:
            yield ok("VK-LOADING", f"the {side} has loaded its data", **{side: "loading 0"})


def saving(case: Case) -> Findings:
    source = case.source
    busy = [
        name
        for name in ("rdb_bgsave_in_progress", "aof_rewrite_in_progress", "aof_rewrite_scheduled", "module_fork_in_progress")
        if source.info.get(name) == "1"
    ]
    failed = [name for name in ("rdb_last_bgsave_status", "aof_last_write_status") if source.info.get(name, "ok") != "ok"]
    if failed:
        yield warning(
            "VK-SOURCE-SAVE-FAILED",
            "the source could not save lately: a full sync forks and writes the same way, and may fail too",
            "see the source's log; most often its disk is full or its machine has no memory for a fork (vm.overcommit_memory)",
            source=", ".join(f"{name} {source.info[name]}" for name in failed),
        )
    if busy:
        yield info(
            "VK-SOURCE-BUSY", "the source is saving now: the full sync has to wait for it", "wait until it is done", source=", ".join(busy)
        )
    if not failed and not busy:
        yield ok("VK-SOURCE-BUSY", "the source is not saving now, and its last save was good")


def replica_source(case: Case) -> Findings:
    source = case.source
    if source.role != "replica":
        yield ok("VK-SOURCE-REPLICA", "the source is a primary", source=source.address)
        return
    primary = f"{source.info.get('master_host', '?')}:{source.info.get('master_port', '?')}"
    if source.info.get("master_link_status") != "up":
        yield blocker(
            "VK-SOURCE-LINK-DOWN",
            "the source is a replica that has lost its primary: its data is old, and it serves no full sync",
            "restore the link, or give the primary as the source",
            source=f"master_link_status {source.info.get('master_link_status', '?')}, primary {primary}",
        )
    yield warning(
        "VK-SOURCE-REPLICA",
        "the source is a replica: the cut-over holds and fences the writers at its primary, over a connection of its own",
        "give the primary as the source, or acknowledge it; --source-primary URL says where the primary is, if not where the source says",
        source=f"{source.address} replicates {primary}",
    )


_REMEDY: Final = {
    Permission.DENIED: "permit it: ACL SETUSER {user} +{command}",
    Permission.NO_KEYS: "permit all keys: ACL SETUSER {user} ~*",
    Permission.MISSING: "undo its renaming (rename-command) on that server",
}


def needed(facts: ServerFacts, names: tuple[str, ...]) -> tuple[dict[str, Permission], str]:
    """Those of ``names`` that are not permitted for sure, and what to do about it."""
    lacking = {name: facts.may(name) for name in names if facts.may(name) in _REMEDY}
    remedies = []
    for state in _REMEDY:
        of_state = [name for name, found in lacking.items() if found is state]
        if of_state:
            words = " +".join(name.lower().replace(" ", "|") for name in of_state)
            remedies.append(_REMEDY[state].format(user=facts.user or "default", command=words))
    return lacking, "; ".join(remedies)


def commands(case: Case) -> Findings:
    source = case.source
    if case.options.read == "scan":
        yield _by_scan(source)
        return
    of_cluster: tuple[str, ...] = ("CLUSTER NODES", "CLUSTER GETKEYSINSLOT") if source.mode == "cluster" else ()
    if of_cluster and source.is_valkey and source.version >= (9, 0):
        of_cluster += ("CLUSTER GETSLOTMIGRATIONS",)
    lacking, remedy = needed(source, ("PSYNC", "REPLCONF", *of_cluster))
    state = ", ".join(f"{name} {permission}" for name, permission in lacking.items())
    if lacking:
        yield blocker(
            "VK-SOURCE-COMMANDS",
            "the source does not let this user replicate from it",
            remedy + ("" if of_cluster else "; what a managed service does not let us replicate can be read by SCAN: --read scan"),
            source=f"user {source.user or 'default'}: {state}",
        )
    elif source.may("PSYNC") is Permission.OK:
        yield ok(
            "VK-SOURCE-COMMANDS",
            "this user may replicate from the source",
            source=f"user {source.user or 'default'}: " + ", ".join(("PSYNC", "REPLCONF", *of_cluster)),
        )


def _by_scan(source: ServerFacts) -> Finding:
    lacking, remedy = needed(source, ("SCAN", "DUMP", "PTTL", "SELECT"))
    user = f"user {source.user or 'default'}"
    if lacking:
        state = ", ".join(f"{name} {permission}" for name, permission in lacking.items())
        return blocker("VK-SOURCE-COMMANDS", "the source does not let this user read its keys", remedy, source=f"{user}: {state}")
    return ok("VK-SOURCE-COMMANDS", "this user may read the source's keys", source=f"{user}: SCAN, DUMP, PTTL, SELECT")


def backlog(case: Case) -> Findings:
    if case.options.read == "scan":
        return
    source = case.source
    size = source.number("repl_backlog_size")
    if size is None or source.rate is None:
        return
    rate = source.rate.bytes_per_second
    evidence = {
        "repl-backlog-size": human(size),
        "write rate": f"{human(rate)}/s{'' if source.rate.exact else ' (estimated from the network input)'}",
        "covers": f"{size / rate:.0f} s" if rate >= 1 else "any break at this rate",
    }
    if rate >= 1 and size / rate < _BACKLOG_SECONDS:
        yield warning(
            "VK-BACKLOG",
            "the source's backlog is short for its write rate: a link that breaks for a moment costs another full sync",
            f"CONFIG SET repl-backlog-size {_round_up(int(rate * 60))} on the source (a minute of writes)",
            **evidence,
        )
    else:
        yield ok("VK-BACKLOG", "the source's backlog covers a broken link", **evidence)


def output_buffer(case: Case) -> Findings:
    """While the snapshot crosses, the source keeps what is written for us in our output buffer, up to this limit."""
    if case.options.read == "scan":
        return
    source = case.source
    limits = source.setting("client-output-buffer-limit")
    data = source.data_bytes
    if limits is None or source.rate is None or data is None:
        return
    words = limits.split()
    try:
        at = next(i for i, word in enumerate(words) if word in ("slave", "replica"))
        hard, soft, seconds = (int(word) for word in words[at + 1 : at + 4])
    except (StopIteration, ValueError):
        return
    duration = 1 + data / _SYNC_BYTES_PER_SECOND
    expected = source.rate.bytes_per_second * duration
    evidence = {
        "client-output-buffer-limit": f"replica {human(hard)} hard, {human(soft)} soft for {seconds} s",
        "write rate": f"{human(source.rate.bytes_per_second)}/s{'' if source.rate.exact else ' (estimated from the network input)'}",
        "expected": f"{human(expected)} in a full sync of about {duration:.0f} s",
    }
    over = (hard and expected > hard / 2) or (soft and duration > seconds and expected > soft / 2)
    if over:
        need = _round_up(int(expected * 4))
        yield warning(
            "VK-OUTPUT-BUFFER",
            "the source may cut the link during the full sync: what is written meanwhile comes near its output buffer's limit for replicas",
            f'CONFIG SET client-output-buffer-limit "replica {need} {need} 0" on the source for the move',
            **evidence,
        )
    else:
        yield ok("VK-OUTPUT-BUFFER", "the output buffer's limit for replicas holds a full sync", **evidence)


def timing(case: Case) -> Findings:
    source = case.source
    seconds = source.setting_number("repl-timeout")
    if seconds is not None:
        if seconds < 10:
            yield warning(
                "VK-REPL-TIMEOUT",
                "the source drops replicas that are silent for a moment",
                "CONFIG SET repl-timeout 60 on the source",
                source=f"repl-timeout {seconds} s",
            )
        else:
            yield ok("VK-REPL-TIMEOUT", "the source is patient with replicas", source=f"repl-timeout {seconds} s")
    diskless = source.setting("repl-diskless-sync")
    if diskless is not None:
        delay = source.setting("repl-diskless-sync-delay") or "?"
        text = f"waits {delay} s before it forks" if diskless == "yes" else "writes the snapshot to its disk first"
        yield info("VK-DISKLESS", f"for the full sync the source {text}", source=f"repl-diskless-sync {diskless}, delay {delay} s")


def persistence(case: Case) -> Findings:
    yield info("VK-SOURCE-PERSISTENCE", "how the source keeps its data", source=persistence_of(case.source)[1])


def persistence_of(facts: ServerFacts) -> tuple[bool | None, str]:
    """Whether the server writes its data to a disk, and how; None where it can't be known."""
    aof = facts.info.get("aof_enabled")
    save = facts.setting("save")
    text = f"AOF {'on' if aof == '1' else 'off'}, RDB {'not known' if save is None else repr(save) if save else 'off'}"
    if aof == "1":
        return True, text
    return (None if save is None else bool(save)), text


def sentinel(case: Case) -> Findings:
    source = case.source
    if source.sentinels or source.hello:
        yield warning(
            "VK-SOURCE-SENTINEL",
            "Sentinels watch the source: a failover makes a replica of it a primary that no fence keeps from writing, also after the cut-over",
            "SENTINEL REMOVE on each of them before the cut-over, with a redis+sentinel:// source right after it (and SENTINEL MONITOR the target "
            "then), or acknowledge that nobody writes where they point to",
            source=f"{source.hello or 0} subscribers of __sentinel__:hello; {', '.join(source.sentinels or ()) or 'no named connections'}",
        )


def replicas(case: Case) -> Findings:
    """Read-only as long as they are replicas, and not fenced when they are not."""
    source = case.source
    rows = [
        value for name, value in sorted(source.info.items()) if name.startswith("slave") and name[5:].isdigit() and "port=0," not in value
    ]
    if rows:
        yield info(
            "VK-SOURCE-REPLICAS",
            "the source has replicas: they are read-only, and not fenced should somebody promote one",
            "promote none of them until they are retired; the cut-over is called off when one leaves the source in the middle of it",
            source="; ".join(rows),
        )


def _round_up(count: int) -> int:
    return 1 << max(count - 1, 1 << 20).bit_length()


CHECKS: Final = (
    Check("source's version", "source", version),
    Check("data is loaded", "source", loading, each=True),
    Check("saves", "source", saving),
    Check("primary or replica", "source", replica_source),
    Check("commands for replication", "source", commands),
    Check("replication backlog", "source", backlog),
    Check("output buffer for replicas", "source", output_buffer),
    Check("replication settings", "source", timing),
    Check("source's persistence", "source", persistence),
    Check("Sentinels of the source", "source", sentinel),
    Check("replicas of the source", "source", replicas),
)
