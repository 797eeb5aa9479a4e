"""What a server means when it says no, and what to do about it: error replies as errors with a remedy."""

from __future__ import annotations

from typing import Final

from valkeep.client.endpoint import Endpoint
from valkeep.errors import ConnectionLost, Refused, ServerError, ValkeepError

__all__ = ["REMEDIES", "harmless", "hung_up", "login_refused"]

_ALIVE: Final = frozenset({"LOADING", "MASTERDOWN", "NOPERM", "BUSY", "READONLY", "MISCONF", "NOREPLICAS", "CLUSTERDOWN"})

#: An error's first word → what to do.
REMEDIES: Final = {
    "NOAUTH": "give the password: redis://[user]:password@…, a password file or the environment",
    "WRONGPASS": "check user name and password; an ACL user is given as redis://user:password@…",
    "NOPERM": "give this ACL user the permission that the message names (ACL SETUSER), or use another user",
    "READONLY": "this is a replica: use its primary's address",
    "MOVED": "this server is a cluster's node and another one has the key",
    "ASK": "this slot is being moved to another node: try again",
    "LOADING": "wait until the server has loaded its data, then try again",
    "MASTERDOWN": "the replica's link to its primary is down: wait for it, or ask the primary",
    "OOM": "the server is at maxmemory: raise it or free memory",
    "MISCONF": "the server can't save to disk and refuses writes: see its log, or stop-writes-on-bgsave-error",
    "NOREPLICAS": "too few replicas are connected for min-replicas-to-write",
    "BUSY": "a script is running: wait, or SCRIPT KILL / FUNCTION KILL",
    "CLUSTERDOWN": "the cluster does not serve all slots: see CLUSTER INFO",
    "WRONGTYPE": "the key holds a value of another type",
    "EXECABORT": "a command of the transaction was refused: see the error before this one",
    "UNBLOCKED": "somebody ended the blocking command (CLIENT UNBLOCK), or the server became a replica",
}


def harmless(name: str, error: ServerError) -> bool:
    """Whether an error reply during login still says "this is the server, and we are in"."""
    if name == "PING":
        return error.kind in _ALIVE or "unknown command" in error.text
    return name == "CLIENT" and error.kind not in {"NOAUTH", "DENIED"}


def login_refused(endpoint: Endpoint, name: str, error: ServerError) -> ValkeepError:
    where = endpoint.address
    said = error.message
    if error.kind == "DENIED" or "max number of clients" in error.text:
        return hung_up(where, error)
    if name == "AUTH":
        who = f"user {endpoint.username!r}" if endpoint.username else "the default user"
        if error.kind == "WRONGPASS" or "invalid password" in error.text or "invalid username-password" in error.text:
            return Refused(f"{where} did not accept the password of {who}: {said}", remedy=REMEDIES["WRONGPASS"])
        if "no password is set" in error.text or "without any password" in error.text:
            return Refused(
                f"{where} has no password, but one was given", remedy="leave the password out, or set one on the server (requirepass)"
            )
        if "wrong number of arguments" in error.text:
            return Refused(f"{where} does not know user names (ACL came with Redis 6)", remedy="leave the user out: redis://:password@…")
        return Refused(f"{where} refused to log in {who}: {said}", remedy="check that AUTH is not renamed, and the server's log")
    if error.kind == "NOAUTH":
        return Refused(f"{where} wants a password", remedy=REMEDIES["NOAUTH"])
    if name == "SELECT":
        if error.kind in {"LOADING", "MASTERDOWN"}:
            return Refused(f"{where} can't select database {endpoint.db} now: {said}", remedy=REMEDIES[error.kind])
        return Refused(
            f"{where} has no database {endpoint.db}: {said}",
            remedy="check the number at the URL's end against the server's databases setting",
        )
    return Refused(f"{where} refused {name}: {said}", remedy=error.remedy)


def hung_up(where: str, error: ServerError) -> ConnectionLost:
    """The server said why it does not want us."""
    if error.kind == "DENIED":
        return ConnectionLost(
            f"{where} is in protected mode and takes no connections from here",
            remedy="set a password on the server, or bind it to a private address and set protected-mode no",
        )
    if "max number of clients" in error.text:
        return ConnectionLost(f"{where} has no room for another client: {error.message}", remedy="raise maxclients, or end idle clients")
    return ConnectionLost(f"{where} hung up: {error.message}", remedy="see the server's message and its log", definite=False)
