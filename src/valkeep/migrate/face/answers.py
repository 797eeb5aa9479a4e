"""The dispatch table: a row a command, with its documentation; and what is said to everything else.

    known here                       its row answers
    known to a Redis 7.2, writes     -READONLY …    names what this is
    known, reads keys, or the rest   -ERR …         the same
    known to nobody                  -ERR unknown command 'X', with args beginning with: …

``PING``, ``AUTH``, ``QUIT``, ``REPLCONF``, ``SYNC`` and ``PSYNC`` (and the login in ``HELLO``) belong to the conversation with a target: `wire.psync.primary`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from . import connection
from .aspect import Asked, Aspect
from .catalogue import COMMANDS, Known
from .guest import Guest
from .info import info
from .reply import OK, Prepared, Refusal, Reply, Several, Status, Text, encoded
from .settings import matching

__all__ = ["ROWS", "Row", "answer", "reply"]

WHAT: Final = "This is the gateway of a migration (Valkeep), not a database"
DISABLED: Final = Refusal("ERR This instance has cluster support disabled")
SHOWN: Final = 128  # letters of a name or an argument that an error repeats

Answer = Callable[[Asked], Reply]


@dataclass(frozen=True, slots=True)
class Row:
    """``name``: of the command, with ``|`` before a subcommand. ``arity``: number of words, negative: at least. ``summary``: what the answer says.
    ``answer``: None where `wire.psync` answers."""

    name: str
    arity: int
    summary: str
    answer: Answer | None


def reply(guest: Guest, args: tuple[bytes, ...], aspect: Aspect) -> bytes:
    """The bytes of the reply to a request."""
    guest.heard = aspect.now
    value = answer(Asked(guest, args, aspect))  # it may change how we speak
    return encoded(value, guest.proto)


def answer(asked: Asked) -> Reply:
    """The reply to a request."""
    args = asked.args
    name = _word(args[0]).lower()
    row = ROWS.get(name)
    known = COMMANDS.get(name)
    if known is None and row is None and name not in CONTAINERS:
        return Refusal(f"ERR unknown command '{_word(args[0])}', with args beginning with: {_beginning(args[1:])}")
    if known is not None and not known.takes(len(args)):
        return _wrong_number(name)
    if name in CONTAINERS and (row is None or len(args) > 1):
        if len(args) == 1:
            return _wrong_number(name)
        sub = _word(args[1]).lower()
        name, row = f"{name}|{sub}", ROWS.get(f"{name}|{sub}")
        if row is None and sub == "help":
            return _help(_word(args[0]).lower())
        if row is None and name not in REFUSED:
            return Refusal(f"ERR unknown subcommand '{_word(args[1])}'. Try {_word(args[0]).upper()} HELP.")
    asked.guest.command = name
    if row is None or row.answer is None:
        return _refused(name, known)
    if len(args) != row.arity if row.arity > 0 else len(args) < -row.arity:
        return _wrong_number(name)
    return row.answer(asked)


def _refused(name: str, known: Known | None) -> Refusal:
    if known is not None and "write" in known.flags:
        return Refusal(f"READONLY {WHAT}: it takes no writes, and '{name}' has to go to the source")
    if known is not None and known.has_keys:
        return Refusal(f"ERR {WHAT}: it holds no keys, and '{name}' has to go to the source or the target")
    return Refusal(f"ERR {WHAT}: it does not answer '{name}'")


def _wrong_number(name: str) -> Refusal:
    return Refusal(f"ERR wrong number of arguments for '{name}' command")


def _beginning(args: tuple[bytes, ...]) -> str:
    shown = ""
    for arg in args:
        if len(shown) >= SHOWN:
            break
        shown += f"'{_word(arg[: SHOWN - len(shown)])}' "
    return shown


def _word(word: bytes) -> str:
    return word[:SHOWN].decode("utf-8", "backslashreplace")


def _help(container: str) -> Reply:
    lines = [Status(f"{container.upper()} <subcommand> [<arg> ...]. Subcommands are:")]
    for row in ROWS.values():
        if row.name.startswith(f"{container}|"):
            lines += [Status(row.name.partition("|")[2].upper()), Status(f"    {row.summary}")]
    return lines


# -- about the server --------------------------------------------------------------------------------------------------------------------


def _echo(asked: Asked) -> Reply:
    return asked.args[1]


def _info(asked: Asked) -> Reply:
    return Text(info([_word(one) for one in asked.args[1:]], asked.aspect))


def _role(asked: Asked) -> Reply:
    return [
        "master",
        asked.aspect.offset,
        [[one.address, str(one.port), str(one.offset)] for one in asked.aspect.replicas if one.state == "online"],
    ]


def _dbsize(asked: Asked) -> Reply:
    return sum(one.keys for one in asked.aspect.keyspaces if one.database == asked.guest.database)


def _time(asked: Asked) -> Reply:
    seconds, micro = divmod(int(asked.aspect.now * 1_000_000), 1_000_000)
    return [str(seconds), str(micro)]


def _last_save(asked: Asked) -> Reply:
    return int(asked.aspect.started)


def _wait(asked: Asked) -> Reply:
    if not all(one.isdigit() and len(one) < 18 for one in asked.args[1:]):
        return Refusal("ERR value is not an integer or out of range")
    return sum(1 for one in asked.aspect.replicas if one.state == "online")


def _config_get(asked: Asked) -> Reply:
    return matching([_word(one) for one in asked.args[2:]], asked.aspect)


def _memory_stats(asked: Asked) -> Reply:
    keys = sum(one.keys for one in asked.aspect.keyspaces)
    return {
        "peak.allocated": asked.aspect.memory,
        "total.allocated": asked.aspect.memory,
        "startup.allocated": 0,
        "replication.backlog": asked.aspect.backlog,
        "keys.count": keys,
        "keys.bytes-per-key": asked.aspect.memory // keys if keys else 0,
        "dataset.bytes": asked.aspect.memory,
        "dataset.percentage": 100.0,
        "peak.percentage": 100.0,
        "fragmentation": 1.0,
    }


def _says(value: Reply) -> Answer:
    """Always the same."""
    return lambda _: value


# -- COMMAND -----------------------------------------------------------------------------------------------------------------------------


def _described(known: Known) -> Reply:
    return [
        known.name,
        known.arity,
        Several(Status(flag) for flag in known.flags),
        known.first,
        known.last,
        known.step,
        Several(Status(f"@{name}") for name in known.categories),
        Several(),
        Several(),
        Several(),
    ]


def _command(asked: Asked) -> Reply:
    return EVERYTHING if len(asked.args) == 1 else None


EVERYTHING: Final = Prepared(lambda: [_described(known) for known in COMMANDS.values()])


def _command_info(asked: Asked) -> Reply:
    """``config|get`` and the like: as their container, under their own name."""
    if len(asked.args) == 2:
        return EVERYTHING
    found: list[Reply] = []
    for name in [_word(one).lower() for one in asked.args[2:]]:
        known, row = COMMANDS.get(name.partition("|")[0]), ROWS.get(name)
        if known is None or ("|" in name and row is None):
            found.append(None)
        elif row is not None and "|" in name:
            found.append(_described(Known(name, row.arity, known.flags, known.first, known.last, known.step, known.categories)))
        else:
            found.append(_described(known))
    return found


def _command_list(asked: Asked) -> Reply:
    return list(COMMANDS) if len(asked.args) == 2 else Refusal("ERR syntax error")


def _command_docs(asked: Asked) -> Reply:
    """Only of what is answered here: the documentation of this table."""
    wanted = {_word(one).lower() for one in asked.args[2:]}
    return {
        row.name: {"summary": row.summary, "since": "1.0.0", "group": "server", "complexity": "O(1)"}
        for row in ROWS.values()
        if not wanted or row.name in wanted or ("|" not in row.name and row.name in wanted)
    }


CONTAINERS: Final = frozenset({"acl", "client", "cluster", "command", "config", "latency", "memory", "module", "slowlog"})

#: subcommands that a Redis 7.2 has and that are refused here, so that they are not called unknown
REFUSED: Final = frozenset(
    f"{container}|{name}"
    for container, names in {
        "acl": "cat deluser dryrun genpass getuser list load log save setuser",
        "client": "caching getredir kill pause reply tracking trackinginfo unblock unpause",
        "command": "getkeys getkeysandflags",
        "config": "rewrite set",
        "latency": "graph histogram",
        "memory": "malloc-stats purge usage",
        "module": "load loadex unload",
    }.items()
    for name in names.split()
)
_CLUSTER: Final = (
    "addslots addslotsrange bumpepoch count-failure-reports countkeysinslot delslots delslotsrange failover flushslots forget getkeysinslot "
    "info keyslot links meet myid myshardid nodes replicas replicate reset saveconfig set-config-epoch setslot shards slaves slots"
)
_HEALTHY: Final = Text("Hi Sam, this is the gateway of a migration (Valkeep): it has no memory to speak of.\n")

#: in the order of docs/reference/gateway-answers.md
ROWS: Final[dict[str, Row]] = {
    row.name: row
    for row in (
        # the conversation with a target, and logins
        Row("ping", -1, "PONG, or what was given.", None),
        Row("auth", -2, "Logs in, where the gateway has a password.", None),
        Row("quit", -1, "OK, and hangs up.", None),
        Row("replconf", -1, "What a replica says about itself; REPLCONF ACK: how far it is.", None),
        Row("psync", -3, "The snapshot and the stream of the channel that fits the replica's version.", None),
        Row("sync", 1, "The same in the old form: no replication id, no offset, nothing to be continued.", None),
        # the connection
        Row("hello", -1, "Who answers, in RESP2 or RESP3; logs in (AUTH) and names (SETNAME) the connection.", connection.hello),
        Row("reset", 1, "As if just connected: RESP2, database 0, no name, logged out.", connection.reset),
        Row("echo", 2, "What was given.", _echo),
        Row("select", 2, "OK for each of the target's databases.", connection.select),
        Row("client|id", 2, "The connection's number.", connection.client_id),
        Row("client|info", 2, "Its line of CLIENT LIST.", connection.client_info),
        Row("client|list", -2, "Who is connected and did not ask to sync; TYPE and ID choose.", connection.client_list),
        Row("client|getname", 2, "Its name, or nothing.", connection.client_getname),
        Row("client|setname", 3, "Names it. Who gives a sentinel's name (`sentinel-…`) is hung up on.", connection.client_setname),
        Row("client|setinfo", 4, "LIB-NAME and LIB-VER of its library.", connection.client_setinfo),
        Row("client|no-evict", 3, "OK: nothing is evicted here.", connection.client_no_evict),
        Row("client|no-touch", 3, "OK: nothing is touched here.", connection.client_no_evict),
        Row("acl|whoami", 2, "default.", _says("default")),
        Row("acl|users", 2, "default.", _says(["default"])),
        # what it is
        Row("info", -1, "The sections of a Redis 7.2, with the gateway's own replication id and offsets.", _info),
        Row("role", 1, "master, the offset, and the replicas that are online.", _role),
        Row(
            "config|get",
            -3,
            "The parameters that match: the target's number of databases, no protection, no limits, else defaults.",
            _config_get,
        ),
        Row("config|resetstat", 2, "OK.", _says(OK)),
        Row("command", -1, "The commands of Redis 7.2, whether they are answered or not.", _command),
        Row("command|count", 2, "How many.", _says(len(COMMANDS))),
        Row("command|info", -2, "Those that are named, or all.", _command_info),
        Row("command|list", -2, "Their names.", _command_list),
        Row("command|docs", -2, "This table.", _command_docs),
        *(Row(f"cluster|{name}", -2, "An error: cluster support is disabled.", _says(DISABLED)) for name in _CLUSTER.split()),
        Row("asking", 1, "The same error.", _says(DISABLED)),
        Row("readonly", 1, "The same error.", _says(DISABLED)),
        Row("readwrite", 1, "The same error.", _says(DISABLED)),
        Row("dbsize", 1, "Keys of the selected database, as the source said when the gateway started.", _dbsize),
        Row("time", 1, "The clock of the gateway's machine.", _time),
        Row("lastsave", 1, "When the gateway started.", _last_save),
        Row("wait", 3, "How many replicas are online: nothing is written here that they could lack.", _wait),
        Row("module|list", 2, "None.", _says([])),
        # what monitoring asks
        Row("memory|doctor", 2, "Nothing to complain about.", _says(_HEALTHY)),
        Row("memory|stats", 2, "A part of the numbers; memory as the source said it.", _memory_stats),
        Row("latency|latest", 2, "None.", _says([])),
        Row("latency|history", 3, "None.", _says([])),
        Row("latency|reset", -2, "0.", _says(0)),
        Row("latency|doctor", 2, "Nothing to complain about.", _says(_HEALTHY)),
        Row("slowlog|get", -2, "None.", _says([])),
        Row("slowlog|len", 2, "0.", _says(0)),
        Row("slowlog|reset", 2, "OK.", _says(OK)),
    )
}
