"""HELLO, CLIENT, SELECT, RESET: what concerns the connection itself."""

from __future__ import annotations

import re
from typing import Final

from .aspect import Asked
from .reply import OK, Refusal, Reply, Status, Text

__all__ = [
    "client_getname",
    "client_id",
    "client_info",
    "client_list",
    "client_no_evict",
    "client_setinfo",
    "client_setname",
    "hello",
    "reset",
    "select",
]

NAME: Final = re.compile(rb"[!-~]*")
SYNTAX: Final = Refusal("ERR syntax error")
NOT_A_NAME: Final = Refusal("ERR Client names cannot contain spaces, newlines or special characters.")
LONGEST: Final = 256  # letters of a name
SENTINEL: Final = "sentinel-"
"""A sentinel names each of its links so, before it asks anything (``sentinel-<id>-cmd``, ``-pubsub``; sentinel.c: sentinelSetClientName).

The source lists the gateway among its replicas, so the source's sentinels come and look, as they do at any replica. Were they answered, they would see one
that is alive, and could promote it when the source dies: INFO says ``role:master``, which a sentinel that fails over takes for a promotion that worked.
Who is hung up on never learns anything, and promotes nobody of whom it knows nothing."""


def hello(asked: Asked) -> Reply:
    proto, name, at = asked.guest.proto, asked.guest.name, 2
    if len(asked.args) > 1:
        if not re.fullmatch(rb"[0-9]{1,9}", asked.args[1]):
            return Refusal("ERR Protocol version is not an integer or out of range")
        proto = int(asked.args[1])
        if proto not in (2, 3):
            return Refusal("NOPROTO unsupported protocol version")
    while at < len(asked.args):
        if asked.args[at].upper() != b"SETNAME" or at + 1 >= len(asked.args):
            return Refusal(f"ERR Syntax error in HELLO option '{_shown(asked.args[at])}'")
        if not NAME.fullmatch(asked.args[at + 1]):
            return NOT_A_NAME
        name, at = _shown(asked.args[at + 1]), at + 2
    asked.guest.proto, asked.guest.name = proto, name
    return {
        "server": "redis",
        "version": asked.aspect.version,
        "proto": proto,
        "id": asked.guest.number,
        "mode": "standalone",
        "role": "master",
        "modules": [],
    }


def reset(asked: Asked) -> Reply:
    asked.guest.reset()
    return Status("RESET")


def select(asked: Asked) -> Reply:
    if not re.fullmatch(rb"-?[0-9]{1,18}", asked.args[1]):
        return Refusal("ERR value is not an integer or out of range")
    if not 0 <= int(asked.args[1]) < asked.aspect.databases:
        return Refusal("ERR DB index is out of range")
    asked.guest.database = int(asked.args[1])
    return OK


def client_id(asked: Asked) -> Reply:
    return asked.guest.number


def client_info(asked: Asked) -> Reply:
    return Text(asked.guest.line(asked.aspect.now))


def client_list(asked: Asked) -> Reply:
    """``TYPE normal``: guests; the other types have none. Replicas are in INFO replication and ROLE."""
    option = asked.args[2].upper() if len(asked.args) > 2 else b""
    shown = list(asked.aspect.guests)
    if option == b"TYPE" and len(asked.args) == 4:
        kind = asked.args[3].lower()
        if kind not in (b"normal", b"master", b"primary", b"replica", b"slave", b"pubsub"):
            return Refusal(f"ERR Unknown client type '{_shown(asked.args[3])}'")
        shown = shown if kind == b"normal" else []
    elif option == b"ID" and len(asked.args) > 3:
        if not all(re.fullmatch(rb"[0-9]{1,18}", one) for one in asked.args[3:]):
            return Refusal("ERR Invalid client ID")
        wanted = {int(one) for one in asked.args[3:]}
        shown = [one for one in shown if one.number in wanted]
    elif option:
        return SYNTAX
    return Text("".join(one.line(asked.aspect.now) for one in shown))


def client_getname(asked: Asked) -> Reply:
    return asked.guest.name or None


def client_setname(asked: Asked) -> Reply:
    if not NAME.fullmatch(asked.args[2]):
        return NOT_A_NAME
    asked.guest.name = _shown(asked.args[2])
    if asked.guest.name.startswith(SENTINEL):
        asked.guest.unwelcome = "it is a sentinel, for which the gateway is no replica"
    return OK


def client_setinfo(asked: Asked) -> Reply:
    option = asked.args[2].decode("ascii", "backslashreplace").lower()
    if option not in asked.guest.library:
        return Refusal(f"ERR Unrecognized option '{_shown(asked.args[2])}'")
    if not NAME.fullmatch(asked.args[3]):
        return Refusal(f"ERR {option} cannot contain spaces, newlines or special characters.")
    asked.guest.library[option] = _shown(asked.args[3])
    return OK


def client_no_evict(asked: Asked) -> Reply:
    """Also NO-TOUCH: nothing is evicted or touched here."""
    return OK if asked.args[2].lower() in (b"on", b"off") else SYNTAX


def _shown(word: bytes) -> str:
    return word[:LONGEST].decode("ascii", "backslashreplace")
