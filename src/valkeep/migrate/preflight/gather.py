"""Asks a server everything that preflight judges. Reads only; what is refused becomes a fact (`ServerFacts.unasked`), not an error.

Permissions are found out without doing anything: inside ``MULTI`` a server checks a command – does it exist, may this user run it – and only
queues it; ``DISCARD`` throws the queue away. That works on every version, for renamed commands and for users who may not ask ``ACL``; only PSYNC can't be
queued ("not allowed inside a transaction": so it exists), and is asked for by ``ACL DRYRUN`` or, where that is denied, ``redis.acl_check_cmd`` in a
script. Should the peer be a proxy that runs what it ought to queue, then still nothing happens: every probe is written so that running it
would fail or change nothing.

The write rate is the difference of ``master_repl_offset`` over about a second, the only wait in here. A primary that never
had a replica does not count; there the rate is estimated from its network input and the share of writes among its commands.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from valkeep.client.connection import Connection
from valkeep.client.endpoint import Endpoint
from valkeep.client.server_info import identify, parse_info, text_of
from valkeep.errors import ServerError
from valkeep.migrate.preflight.census import sample
from valkeep.migrate.preflight.facts import Clock, Permission, Rate, ServerFacts

__all__ = ["PROBES", "gather"]

_KEY: Final = "valkeep:preflight:no-such-key"

PROBES: Final[Mapping[str, tuple[str, ...]]] = {
    "REPLCONF": ("REPLCONF", "capa", "eof"),
    "CONFIG GET": ("CONFIG", "GET", "databases"),
    "CONFIG SET": ("CONFIG", "SET", "min-replicas-to-write", "not-a-number"),
    "CLIENT PAUSE": ("CLIENT", "PAUSE", "not-a-number"),
    "CLIENT UNPAUSE": ("CLIENT", "UNPAUSE"),
    "CLIENT LIST": ("CLIENT", "LIST"),
    "SELECT": ("SELECT", "0"),
    "SCAN": ("SCAN", "0"),
    "TYPE": ("TYPE", _KEY),
    "DUMP": ("DUMP", _KEY),
    "PTTL": ("PTTL", _KEY),
    "RESTORE": ("RESTORE", _KEY, "-1", ""),
    "DEL": ("DEL", _KEY),
    "ROLE": ("ROLE",),
    "INFO": ("INFO", "replication"),
    "REPLICAOF": ("REPLICAOF", "127.0.0.1", "not-a-port"),
    "CLUSTER NODES": ("CLUSTER", "NODES"),
    "CLUSTER COUNTKEYSINSLOT": ("CLUSTER", "COUNTKEYSINSLOT", "0"),
    "CLUSTER GETKEYSINSLOT": ("CLUSTER", "GETKEYSINSLOT", "0", "1"),
    "CLUSTER GETSLOTMIGRATIONS": ("CLUSTER", "GETSLOTMIGRATIONS"),
    "SLAVEOF": ("SLAVEOF", "127.0.0.1", "not-a-port"),
}
"""How each command is probed. None of them would change anything if it were run."""

_SECRET: Final = re.compile(r"pass|auth$|auth-|secret|masteruser|primaryuser|primaryauth|masterauth", re.IGNORECASE)
_SENTINEL: Final = re.compile(r"\bname=(sentinel-[0-9a-f]+-(?:cmd|pubsub))\b")


@dataclass(slots=True)
class _Asked:
    """What was refused, while it is being gathered."""

    refused: dict[str, str] = field(default_factory=dict)

    def value(self, name: str, reply: Any) -> Any:
        if isinstance(reply, ServerError):
            self.refused[name] = reply.message.splitlines()[0][:160]
            return None
        return reply


async def gather(endpoint: Endpoint, *, rate_seconds: float = 1.0, sample_keys: int = 20_000, timeout: float = 5.0) -> ServerFacts:
    """The facts of one server. ``rate_seconds``: how long the write rate is measured, 0: not; ``sample_keys``: at most so many keys are
    looked at, 0: none. Raises what ``Connection.open`` raises; a refused command raises nothing."""
    endpoint = endpoint.without_database()
    async with await Connection.open(endpoint, timeout=timeout, client_name="valkeep-preflight") as connection:
        asked = _Asked()
        facts, auth = await _identity(connection, endpoint, asked)
        if not facts.info:
            return replace(facts, unasked=asked.refused)
        if facts.mode == "sentinel" or facts.kind == "other":
            return replace(facts, unasked=asked.refused)
        facts = replace(facts, **_settings(connection, auth))
        measuring = asyncio.ensure_future(_rate(endpoint, rate_seconds, timeout))
        try:
            facts = replace(facts, **await _commands(connection, facts, asked))
            facts = replace(facts, **await _surroundings(connection, facts, asked), clock=await _clock(connection, asked))
            rate, run_id = await measuring  # before the census, whose questions would be counted as network input
            if sample_keys > 0:
                facts = replace(facts, census=await sample(connection, facts, sample_keys, asked.refused))
        finally:
            measuring.cancel()
            await asyncio.gather(measuring, return_exceptions=True)
        seen = tuple(dict.fromkeys(filter(None, (*facts.run_ids, run_id))))
        return replace(facts, rate=rate, run_ids=seen, unasked=dict(asked.refused))


async def _identity(connection: Connection, endpoint: Endpoint, asked: _Asked) -> tuple[ServerFacts, dict[str, str]]:
    replies = await connection.pipeline([("INFO",), ("CONFIG", "GET", "*"), ("ACL", "WHOAMI"), ("INFO", "commandstats")])
    raw = asked.value("INFO", replies[0])
    info = parse_info(raw) if isinstance(raw, bytes) else {}
    found = identify(info)
    config, auth = _config(asked.value("CONFIG GET", replies[1]))
    who = asked.value("ACL WHOAMI", replies[2]) if found.version >= (6, 0) or not found.version else None
    facts = ServerFacts(
        address=endpoint.address,
        display=endpoint.display,
        kind=found.kind,
        product=found.product,
        version=found.version,
        mode=found.mode,
        role=found.role,
        loopback=_is_loopback(endpoint.host),
        tls=endpoint.tls is not None,
        info=info,
        run_ids=(info["run_id"],) if info.get("run_id") else (),
        config=config,
        user=text_of(who) if who is not None else None,
        calls=_calls(replies[3]),
    )
    return facts, auth


def _calls(reply: Any) -> dict[str, int] | None:
    """``cmdstat_mset:calls=3,usec=…,failed_calls=1`` → ``{"mset": 2}``."""
    if not isinstance(reply, bytes):
        return None
    found = {}
    for name, value in parse_info(reply).items():
        counts = dict(pair.partition("=")[::2] for pair in value.split(","))
        if name.startswith("cmdstat_") and counts.get("calls", "").isdigit():
            found[name.removeprefix("cmdstat_")] = int(counts["calls"]) - int(counts.get("failed_calls", 0))
    return found


def _config(reply: Any) -> tuple[dict[str, str] | None, dict[str, str]]:
    """All settings without secrets, and the secrets apart (for two comparisons; they leave this module never)."""
    if not isinstance(reply, list) or len(reply) % 2:
        return None, {}
    every = {text_of(reply[i]).lower(): text_of(reply[i + 1]) for i in range(0, len(reply), 2)}
    secrets = {name: value for name, value in every.items() if _SECRET.search(name)}
    return {name: value for name, value in every.items() if name not in secrets}, secrets


def _settings(connection: Connection, secrets: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if secrets:
        requirepass = secrets.get("requirepass", "")
        primaryauth = secrets.get("primaryauth", secrets.get("masterauth", ""))
        found = {"requirepass": bool(requirepass), "primaryauth": bool(primaryauth), "primaryauth_fits": requirepass == primaryauth}
    else:
        found["requirepass"] = True if connection.endpoint.password is not None and not connection.endpoint.username else None
    return found


async def _commands(connection: Connection, facts: ServerFacts, asked: _Asked) -> dict[str, Any]:
    """Permissions of every command that the move may need; asked over a connection of its own, as in ``_rate``."""
    may: dict[str, Permission] = {"INFO": Permission.OK}
    names = list(PROBES)
    psync = Permission.UNKNOWN
    async with await Connection.open(connection.endpoint, connection.timeout, "valkeep-preflight") as asking:
        there, executed, opened = await asking.pipeline([("INFO", "server"), ("EXEC",), ("MULTI",)])
        began = not isinstance(opened, ServerError) and text_of(opened) == "OK"
        probes = [*PROBES.values(), ("PSYNC", "?", "-1")] if facts.version >= (6, 2) else list(PROBES.values())
        replies = await asking.pipeline(probes if began else [])
    may["EXEC"] = _exec(executed)
    if began:  # hanging up discards it, also for a user who may not DISCARD
        for name, reply in zip(names, replies, strict=False):
            may[name] = _permission(reply)
        may["MULTI"] = Permission.OK
        if len(replies) > len(names):
            psync = _permission(replies[-1])
    else:
        asked.value("MULTI", opened)
        may["MULTI"] = _permission(opened) if isinstance(opened, ServerError) else Permission.UNKNOWN
        for name, probe in PROBES.items():
            may[name] = await _dry_run(connection, facts.user, probe)
    if psync is Permission.MISSING:
        may["PSYNC"] = psync
    else:
        may["PSYNC"] = await _psync(connection, facts)
    if may["PSYNC"] is Permission.UNKNOWN:
        asked.refused["PSYNC"] = "whether this user may run it can't be found out without running it"
    users = None
    if facts.version >= (6, 0):
        (reply,) = await connection.pipeline([("ACL", "USERS")])
        listed = asked.value("ACL USERS", reply)
        users = tuple(sorted(text_of(name) for name in listed)) if isinstance(listed, list) else None
    run_id = parse_info(there).get("run_id", "") if isinstance(there, bytes) else ""
    return {"commands": may, "acl_users": users, "run_ids": (*facts.run_ids, run_id)}


def _permission(reply: Any) -> Permission:
    if not isinstance(reply, ServerError):
        return Permission.OK
    text = f"{reply.kind} {reply.text}".lower()
    if reply.kind == "NOPERM":
        return Permission.NO_KEYS if " key" in text else Permission.DENIED
    if "unknown command" in text or "unknown subcommand" in text or "unknown redis command" in text:
        return Permission.MISSING
    return Permission.UNKNOWN


def _exec(reply: Any) -> Permission:
    """EXEC can't be queued; without a MULTI it is an error for everybody, which says whether it would be permitted."""
    text = f"{reply.kind} {reply.text}" if isinstance(reply, ServerError) else ""
    if "without MULTI" in text:
        return Permission.OK
    return Permission.DENIED if "NOPERM" in text else _permission(reply)


async def _dry_run(connection: Connection, user: str | None, command: Sequence[str]) -> Permission:
    if user is None:
        return Permission.UNKNOWN
    (reply,) = await connection.pipeline([("ACL", "DRYRUN", user, *command)])
    if isinstance(reply, ServerError):
        return Permission.MISSING if "not found" in reply.text.lower() and "command" in reply.text.lower() else Permission.UNKNOWN
    return Permission.OK if text_of(reply) == "OK" else Permission.DENIED


async def _psync(connection: Connection, facts: ServerFacts) -> Permission:
    """PSYNC can't be queued. Before ACLs (Redis 6) whoever has logged in may run what exists."""
    (known,) = await connection.pipeline([("COMMAND", "INFO", "PSYNC")])
    exists = Permission.UNKNOWN
    if isinstance(known, list) and known:
        exists = Permission.OK if known[0] else Permission.MISSING
    if exists is Permission.MISSING or facts.version < (6, 0):
        return exists
    by_rule = await _dry_run(connection, facts.user, ("PSYNC", "?", "-1")) if facts.version >= (7, 0) else Permission.UNKNOWN
    if by_rule is not Permission.UNKNOWN:
        return by_rule
    if facts.version >= (7, 0):
        script = "return redis.acl_check_cmd('PSYNC','?','-1') and 1 or 0"
        (reply,) = await connection.pipeline([("EVAL", script, "0")])
        if isinstance(reply, int):
            return Permission.OK if reply else Permission.DENIED
    rules = None
    if facts.user is not None:
        (rules,) = await connection.pipeline([("ACL", "GETUSER", facts.user)])
    if isinstance(rules, list):
        words = {text_of(rules[i]): rules[i + 1] for i in range(0, len(rules) - 1, 2)}
        if isinstance(words.get("commands"), bytes):
            return by_rules(text_of(words["commands"]).split())
    return Permission.UNKNOWN


def by_rules(rules: Sequence[str]) -> Permission:
    """Whether ACL rules permit PSYNC (categories admin, slow, dangerous): the last rule that speaks of it wins."""
    allowed = False
    for rule in rules:
        if rule[1:].lower() in ("@all", "@admin", "@slow", "@dangerous", "psync"):
            allowed = rule.startswith("+")
    return Permission.OK if allowed else Permission.DENIED


async def _surroundings(connection: Connection, facts: ServerFacts, asked: _Asked) -> dict[str, Any]:
    """Modules, and Sentinels that watch: they hold a command connection with a telling name, and subscribe to their own channel."""
    replies = await connection.pipeline([("MODULE", "LIST"), ("CLIENT", "LIST"), ("PUBSUB", "NUMSUB", "__sentinel__:hello")])
    listed = replies[0]
    modules: tuple[str, ...] | None = None
    if isinstance(listed, list):
        modules = tuple(sorted(filter(None, (_module(entry) for entry in listed))))
    elif facts.version < (4, 0):
        modules = ()
    else:
        asked.value("MODULE LIST", listed)  # INFO names at least one of them
        named = facts.info.get("module", "").partition("name=")[2].partition(",")[0]
        modules = (named,) if named not in ("", "lua") else () if facts.version >= (6, 0) and not named else None
    clients = asked.value("CLIENT LIST", replies[1])
    sentinels = None if clients is None else tuple(sorted(set(_SENTINEL.findall(text_of(clients)))))
    counted = asked.value("PUBSUB NUMSUB", replies[2])
    hello = int(counted[1]) if isinstance(counted, list) and len(counted) == 2 else None
    return {"modules": modules, "sentinels": sentinels, "hello": hello}


def _module(entry: Any) -> str:
    if not isinstance(entry, list):
        return ""
    pairs = {text_of(entry[i]): entry[i + 1] for i in range(0, len(entry) - 1, 2)}
    name = text_of(pairs.get("name", ""))
    path = text_of(pairs.get("path", "")) if isinstance(pairs.get("path"), bytes) else ""
    return "" if name == "lua" and path in ("lua", "") else name  # Valkey's own script engine shows up as a module


async def _clock(connection: Connection, asked: _Asked) -> Clock | None:
    """The shortest of five round trips gives the best idea of the other clock."""
    loop = asyncio.get_running_loop()
    best: Clock | None = None
    for _ in range(5):
        sent = loop.time()
        (reply,) = await connection.pipeline([("TIME",)])
        came = loop.time()
        value = asked.value("TIME", reply)
        if not isinstance(value, list) or len(value) != 2:
            return None
        unix_ms = int(value[0]) * 1000 + int(value[1]) / 1000
        half = (came - sent) * 500
        if best is None or half < best.uncertainty_ms:
            best = Clock(unix_ms - (sent + came) * 500, half, int(unix_ms))
    return best


async def _rate(endpoint: Endpoint, seconds: float, timeout: float) -> tuple[Rate | None, str]:
    """Over a connection of its own: a load balancer in between shows itself by another run_id."""
    async with await Connection.open(endpoint, timeout=timeout, client_name="valkeep-preflight") as connection:
        loop = asyncio.get_running_loop()
        commands = [("INFO", section) for section in ("server", "replication", "stats", "persistence")]
        first = _merged(await connection.pipeline(commands))
        started = loop.time()
        if seconds <= 0:
            return None, first.get("run_id", "")
        await asyncio.sleep(seconds)
        second = _merged(await connection.pipeline(commands))
        elapsed = loop.time() - started
    return rate_between(first, second, elapsed), second.get("run_id", "")


def rate_between(first: Mapping[str, str], second: Mapping[str, str], seconds: float) -> Rate | None:
    """By the replication offset where it counts; else the share of the network's input that writes had."""

    def grown(name: str) -> int:
        return int(second[name]) - int(first[name])

    try:
        changes = grown("rdb_changes_since_last_save") if "rdb_changes_since_last_save" in second else -1
        rate = changes / seconds if changes >= 0 else None  # it fell: a save came in between
        if first.get("role") == "slave":
            return Rate(max(grown("slave_repl_offset"), 0) / seconds, True, seconds, rate)
        if first.get("repl_backlog_active") == "1":
            return Rate(max(grown("master_repl_offset"), 0) / seconds, True, seconds, rate)
        commands = max(grown("total_commands_processed"), 1)
        share = min(changes / commands, 1.0) if changes >= 0 else 1.0
        return Rate(max(grown("total_net_input_bytes"), 0) * share / seconds, False, seconds, rate)
    except (KeyError, ValueError):
        return None


def _merged(replies: list[Any]) -> dict[str, str]:
    return {name: value for reply in replies if isinstance(reply, bytes) for name, value in parse_info(reply).items()}


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
