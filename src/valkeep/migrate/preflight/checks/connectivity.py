"""Area *connectivity*: who answers there, over which path, and what time is it?"""

from __future__ import annotations

from typing import Final

from valkeep.migrate.preflight.checks.case import Case, Check, Findings, blocker, info, ok, warning

__all__ = ["CHECKS"]

_SKEW_WARNS: Final = 1000.0  # ms
_SKEW_TELLS: Final = 100.0


def peer(case: Case) -> Findings:
    for side, facts in case.sides:
        if not facts.info:
            yield blocker(
                "VK-INFO-DENIED",
                f"the {side} does not let this user read INFO, without which nothing can be judged",
                "permit it: ACL SETUSER user +info, or undo its renaming",
                **{side: f"{facts.address} as {facts.user or 'default'}: {facts.unasked.get('INFO', 'no answer')}"},
            )
        elif facts.mode == "sentinel":
            yield blocker(
                "VK-PEER",
                f"the {side} is a Sentinel, not a server with data",
                "ask it for the server's address (SENTINEL GET-MASTER-ADDR-BY-NAME name) and give that",
                **{side: f"{facts.address}: {facts.product}"},
            )
        elif facts.kind == "other":
            yield blocker(
                "VK-PEER",
                f"the {side} is {facts.product}, which is neither Redis nor Valkey: its replication is its own",
                "Valkeep moves from Redis or Valkey to Valkey; for others use their own export",
                **{side: f"{facts.address}: {facts.product}"},
            )
        else:
            yield ok("VK-PEER", f"the {side} is {facts.product}", **{side: f"{facts.address}, {facts.mode}, {facts.role}"})


def one_server(case: Case) -> Findings:
    for side, facts in case.sides:
        if len(facts.run_ids) > 1:
            yield blocker(
                "VK-PROXY",
                f"two connections to the {side} reached different servers: a proxy or a load balancer stands in between",
                "give the address of the server itself: replication needs the same server each time",
                **{side: f"{facts.address}: run_id {', '.join(one[:12] for one in facts.run_ids)}"},
            )
        elif facts.run_ids:
            yield ok("VK-PROXY", f"the {side}'s address leads to one server", **{side: f"run_id {facts.run_ids[0][:12]}"})


def same_server(case: Case) -> Findings:
    source, target = case.pair
    if set(source.run_ids) & set(target.run_ids):
        yield blocker(
            "VK-SAME-SERVER",
            "source and target are the same server",
            "check the two addresses",
            source=source.address,
            target=f"{target.address}, the same run_id {source.run_ids[0][:12]}",
        )
    elif source.info.get("master_replid") and source.info.get("master_replid") == target.info.get("master_replid"):
        yield blocker(
            "VK-SAME-SERVER",
            "source and target belong to the same replication: one is a replica of the other, or both of a third",
            "choose a target of its own (REPLICAOF NO ONE on it first, if its data may go)",
            source=f"{source.address}, {source.role}",
            target=f"{target.address}, {target.role}, the same master_replid {source.info['master_replid'][:12]}",
        )
    else:
        yield ok("VK-SAME-SERVER", "source and target are two servers", source=source.address, target=target.address)


def plaintext(case: Case) -> Findings:
    for side, facts in case.sides:
        if facts.tls:
            yield ok("VK-PLAINTEXT", f"the connection to the {side} is encrypted", **{side: facts.display})
        elif facts.loopback:
            yield ok("VK-PLAINTEXT", f"the {side} is on this machine: nothing crosses a network", **{side: facts.display})
        else:
            yield warning(
                "VK-PLAINTEXT",
                f"the connection to the {side} is not encrypted: all data (and the password) crosses the network in clear",
                "use rediss:// or valkeys://, or acknowledge it for a network that you trust",
                **{side: facts.display},
            )


def replication_tls(case: Case) -> Findings:
    _, target = case.pair
    wanted = target.setting("tls-replication")
    if wanted is None or case.options.deliver == "push":
        return
    if wanted == "yes" and not case.options.gateway_tls:
        yield warning(
            "VK-REPLICATION-TLS",
            "the target replicates over TLS only: the gateway has to show it a certificate",
            "give the gateway a certificate that the target trusts, or CONFIG SET tls-replication no on the target for the move",
            target="tls-replication yes",
        )
    else:
        yield ok("VK-REPLICATION-TLS", "gateway and target agree on TLS", target=f"tls-replication {wanted}")


def protected_mode(case: Case) -> Findings:
    for side, facts in case.sides:
        mode = facts.setting("protected-mode")
        if mode is None:
            continue
        bind = facts.setting("bind") or "every address"
        state = f"protected-mode {mode}, bind {bind}, password {'set' if facts.requirepass else 'not set'}"
        local = all(one.lstrip("-") in ("127.0.0.1", "::1", "localhost") for one in bind.split())
        if mode == "no" and not facts.requirepass and not local:
            yield warning(
                "VK-PROTECTED-MODE",
                f"the {side} takes anybody's connection: protected-mode is off, and the default user has no password",
                "set a password, or acknowledge it where security groups alone keep others out (managed migrations ask for this)",
                **{side: state},
            )
        else:
            yield ok("VK-PROTECTED-MODE", f"the {side} is not open to everyone", **{side: state})


def clock_skew(case: Case) -> Findings:
    """Expiry times cross as absolute times: a target whose clock is ahead deletes early."""
    source, target = case.pair
    if source.clock is None or target.clock is None:
        return
    skew = target.clock.offset_ms - source.clock.offset_ms
    sure = max(abs(skew) - source.clock.uncertainty_ms - target.clock.uncertainty_ms, 0.0)
    evidence = {
        "source": f"TIME {source.clock.unix_ms} ms",
        "target": f"TIME {target.clock.unix_ms} ms",
        "skew": f"{skew:+.0f} ms (± {source.clock.uncertainty_ms + target.clock.uncertainty_ms:.1f} ms)",
    }
    if sure >= _SKEW_WARNS:
        what = "ahead: keys would expire too early" if skew > 0 else "behind: keys would live too long"
        yield warning(
            "VK-CLOCK-SKEW", f"the target's clock is {what}", "set both clocks by NTP (chronyc makestep), then look again", **evidence
        )
    elif sure >= _SKEW_TELLS:
        yield info("VK-CLOCK-SKEW", "the clocks differ a little; expiry times move by as much", "set both clocks by NTP", **evidence)
    else:
        yield ok("VK-CLOCK-SKEW", "the clocks agree", **evidence)


CHECKS: Final = (
    Check("a server of Redis or Valkey", "connectivity", peer, each=True),
    Check("no proxy in between", "connectivity", one_server, each=True),
    Check("two different servers", "connectivity", same_server, needs_target=True),
    Check("encryption in transit", "connectivity", plaintext, each=True),
    Check("TLS for replication", "connectivity", replication_tls, needs_target=True),
    Check("protected mode", "connectivity", protected_mode, each=True),
    Check("clock skew", "connectivity", clock_skew, needs_target=True),
)
