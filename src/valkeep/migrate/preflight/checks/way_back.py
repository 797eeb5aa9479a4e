"""Area *readiness*, with ``--rollback``: can the old server be kept current after the cut-over, and what would not get there as it is?"""

from __future__ import annotations

from typing import Final

from valkeep.migrate.preflight.checks.case import Case, Check, Findings, blocker, info, ok, warning
from valkeep.migrate.preflight.checks.source import needed
from valkeep.migrate.preflight.facts import ServerFacts, human
from valkeep.migrate.transform.target import OLDEST_REDIS, FieldTtl

__all__ = ["CHECKS"]

_BACKLOG_SECONDS: Final = 10  # from the promotion until the old server is a replica it takes one or two
_AS_REPLICA: Final = ("MULTI", "EXEC", "INFO", "REPLICAOF")
_FROM_NEW: Final = ("PSYNC", "REPLCONF")


def way_back(case: Case) -> Findings:
    if not case.options.rollback or case.source.mode == "cluster":
        return
    source, target = case.pair
    yield from _version(source)
    yield from _commands(source, target)
    yield from _field_ttls(case, source, target)
    yield from _backlog(source, target)
    if source.setting("tls-replication") == "yes" and not case.options.gateway_tls:
        yield blocker(
            "VK-ROLLBACK-TLS",
            "the source replicates over TLS only: as a replica of the way back it would want TLS from the gateway, too",
            "give the gateway a certificate that the source's CA signed: --gateway-cert FILE --gateway-key FILE",
            source="tls-replication yes",
        )
    here, there = source.databases, target.databases
    if here is not None and there is not None and there > here:
        yield info(
            "VK-ROLLBACK-DATABASES",
            f"the target has {there} databases, the source {here}: a write to a higher one would hold the way back",
            source=f"databases {here}",
            target=f"databases {there}",
        )


def _version(source: ServerFacts) -> Findings:
    fits = source.is_valkey or (source.kind == "redis" and source.version >= OLDEST_REDIS)
    if not fits:
        yield blocker(
            "VK-ROLLBACK-VERSION",
            f"there is no way back to {source.product}: it does not know what a Valkey writes",
            "migrate without --rollback, or upgrade the source to Redis 7.0 or later before",
            source=source.product,
        )
        return
    yield ok("VK-ROLLBACK-VERSION", f"{source.product} can be kept current after the cut-over", source=source.product)


def _commands(source: ServerFacts, target: ServerFacts) -> Findings:
    for side, facts, names in (("source", source, _AS_REPLICA), ("target", target, _FROM_NEW)):
        lacking, remedy = needed(facts, names)
        if lacking:
            state = ", ".join(f"{name} {permission}" for name, permission in lacking.items())
            yield blocker(
                "VK-ROLLBACK-DENIED",
                f"the {side} does not let this user do what the way back needs",
                f"{remedy}; or migrate without --rollback",
                **{side: f"user {facts.user or 'default'}: {state}"},
            )


def _field_ttls(case: Case, source: ServerFacts, target: ServerFacts) -> Findings:
    here = source.version >= ((9, 0) if source.is_valkey else (7, 4))
    if here or target.version < (9, 0):
        return
    evidence = {
        "source": f"{source.product} has no field TTLs",
        "target": f"{target.product} has",
        "--field-ttl": str(case.options.field_ttl),
    }
    if case.options.field_ttl is FieldTtl.REFUSE:
        yield warning(
            "VK-ROLLBACK-FIELD-TTL",
            "an application that gives a hash field a TTL on the new server holds the way back from there on",
            "use none before you commit, or say what the old server shall have instead: --field-ttl keep-field or drop-field",
            **evidence,
        )
    else:
        yield info("VK-ROLLBACK-FIELD-TTL", "TTLs of hash fields that the new server gets do not come back with their fields", **evidence)


def _backlog(source: ServerFacts, target: ServerFacts) -> Findings:
    size = target.number("repl_backlog_size")
    if size is None or source.rate is None:
        return
    rate = source.rate.bytes_per_second
    if rate >= 1 and size / rate < _BACKLOG_SECONDS:
        yield warning(
            "VK-ROLLBACK-BACKLOG",
            "the target's backlog is short for the write rate: what is written before the way back stands, or while its link is broken, may be gone",
            f"CONFIG SET repl-backlog-size {max(int(rate * 60), 16 << 20)} on the target",
            target=f"repl-backlog-size {human(size)}",
            source=f"write rate {human(rate)}/s",
        )


CHECKS: Final = (Check("way-back", "readiness", way_back, needs_target=True),)
