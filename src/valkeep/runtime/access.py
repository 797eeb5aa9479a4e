"""Who may do what on a topology with ACL: four users, each with a password of its own and no more rights than its job takes.

    valkeep-admin     everything; Valkeep itself: looking, canary, faults
    valkeep-replica   what a replica asks its primary for
    valkeep-sentinel  what a sentinel asks of data nodes; on sentinels, what they ask each other
    app               the application: every key and channel, nothing that administers

``default`` is off, so nobody gets in without a name. Sources of the lists: the manual's pages "ACL" (section "ACL rules for Sentinel and
replicas") and "Sentinel". Two that the manual does not have: COORDINATED of Valkey 9 sends ``failover`` and ``client pause``, and slots that
Valkey 9 moves by itself arrive as writes of the replicas' user. Without them both just fail.

Passwords are random and stand only in the nodes' own files (0600) and in files that `keep` writes (0600), never in arguments or logs.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from valkeep.client.endpoint import Secret
from valkeep.runtime.servers import ServerBinary
from valkeep.topology.spec import MONITORED

__all__ = ["ADMIN", "APP", "Access", "password_file"]

ADMIN, REPLICA, SENTINEL, APP = "valkeep-admin", "valkeep-replica", "valkeep-sentinel", "app"

_SENTINEL_ON_DATA: Final = (
    "&* +multi +exec +slaveof +replicaof +ping +info +role +publish +subscribe +config|rewrite +client|setname +client|kill +script|kill"
)
_COORDINATED: Final = " +failover +client|pause +client|unpause"
_REPLICA: Final = "+psync +replconf +ping"
_SLOTS: Final = " +cluster|syncslots ~* &* +@write +@transaction +select"
_SENTINEL_ON_SENTINEL: Final = "&* +ping +info +publish +subscribe +sentinel +client|setname"
_APP_ON_DATA: Final = "~* &* +@all -@admin -@dangerous +info +role"
_APP_ON_SENTINEL: Final = (
    "&* +auth +hello +ping +role +info +command +client|setname +client|id +client|getname"
    " +subscribe +psubscribe +unsubscribe +punsubscribe"
    " +sentinel|get-master-addr-by-name +sentinel|master +sentinel|masters +sentinel|replicas +sentinel|slaves +sentinel|sentinels +sentinel|myid"
)


@dataclass(frozen=True, slots=True)
class Access:
    """``passwords``: user → password. Make one with `fresh`."""

    passwords: dict[str, Secret]

    @classmethod
    def fresh(cls) -> Access:
        return cls({user: Secret(secrets.token_urlsafe(24)) for user in (ADMIN, REPLICA, SENTINEL, APP)})

    def data_lines(self, binary: ServerBinary, *, cluster: bool) -> dict[str, str | list[str]]:
        """What a data node's configuration says of users. A command that the server does not know would keep it from starting."""
        nine = binary.name == "valkey" and binary.version >= (9, 0, 0)
        replica = _REPLICA + (_SLOTS if nine and cluster else "")
        return {
            "user": [
                "default off",
                self._user(ADMIN, "~* &* +@all"),
                self._user(REPLICA, replica),
                self._user(SENTINEL, _SENTINEL_ON_DATA + (_COORDINATED if nine else "")),
                self._user(APP, _APP_ON_DATA),
            ],
            "masteruser": REPLICA,
            "masterauth": self.passwords[REPLICA].reveal(),
        }

    def sentinel_lines(self) -> dict[str, str | list[str]]:
        """What a sentinel's configuration says of users; after its ``monitor`` line."""
        return {
            "user": [
                "default off",
                self._user(ADMIN, "&* +@all"),
                self._user(SENTINEL, _SENTINEL_ON_SENTINEL),
                self._user(APP, _APP_ON_SENTINEL),
            ],
            "sentinel sentinel-user": SENTINEL,
            "sentinel sentinel-pass": self.passwords[SENTINEL].reveal(),
            f"sentinel auth-user {MONITORED}": SENTINEL,
            f"sentinel auth-pass {MONITORED}": self.passwords[SENTINEL].reveal(),
        }

    def _user(self, name: str, rights: str) -> str:
        digest = hashlib.sha256(self.passwords[name].reveal().encode()).hexdigest()
        return f"{name} on #{digest} {rights}"

    def keep(self, folder: Path) -> None:
        """``USER.password`` in ``folder``, for people and for other processes of this user."""
        for user in (ADMIN, APP):
            file = password_file(folder, user)
            file.touch(0o600)
            file.write_text(self.passwords[user].reveal() + "\n", encoding="utf-8")


def password_file(folder: Path, user: str) -> Path:
    """Where `Access.keep` leaves it."""
    return folder / f"{user}.password"
