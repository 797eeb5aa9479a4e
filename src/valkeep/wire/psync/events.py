"""What the two sides of the PSYNC conversation report, and the words that both use."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from valkeep.errors import ValkeepError

KEEP_ALIVE: Final = b"\n"
GETACK: Final = b"*3\r\n$8\r\nREPLCONF\r\n$6\r\nGETACK\r\n$1\r\n*\r\n"  # 37 bytes, which count in the stream's offset
MARK_SIZE: Final = 40
REPLID: Final = re.compile(r"[0-9a-fA-F]{40}")


@dataclass(frozen=True, slots=True)
class FullResync:
    """The source will send a snapshot; its stream goes on after ``offset`` of ``replid``."""

    replid: str
    offset: int


@dataclass(frozen=True, slots=True)
class Continue:
    """The source goes on where we asked; what follows is the stream. ``replid``: its new id, or None when it is the one we asked for."""

    replid: str | None


@dataclass(frozen=True, slots=True)
class PayloadStart:
    """The snapshot begins with the next byte: ``length`` bytes of it, or (None) all until the 40 bytes of ``mark``."""

    length: int | None
    mark: bytes | None


@dataclass(frozen=True, slots=True)
class Retry:
    """Not now: connect again after a pause. ``reason``: the source's own words."""

    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The conversation can't go on, and trying again would not help. Raise ``error`` or show it."""

    error: ValkeepError


@dataclass(frozen=True, slots=True)
class Replica:
    """What a replica said about itself. ``version``: () when it did not. ``unknown``: options that we refused."""

    listening_port: int = 0
    ip_address: str = ""
    capabilities: frozenset[str] = frozenset()
    version: tuple[int, ...] = ()
    node_id: str = ""
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PsyncRequest:
    """The target asks for the stream from byte ``offset`` of ``replid`` on; ``replid`` None: for a full sync (``? -1``). ``plain``: by SYNC; it need not
    acknowledge anything, and knows no ids."""

    replid: str | None
    offset: int
    replica: Replica
    plain: bool = False


@dataclass(frozen=True, slots=True)
class Ack:
    """The target has processed everything up to byte ``offset``; ``fack``: and has it on disk up to there."""

    offset: int
    fack: int | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """A request that is not part of the conversation (INFO, CONFIG, COMMAND, …): answer it with ``PrimarySide.reply``."""

    args: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class LoginFailed:
    """Somebody gave a wrong password, and was told so."""

    username: str


@dataclass(frozen=True, slots=True)
class Quit:
    """Somebody said good-bye, and got an answer: close the connection."""


ReplicaEvent = FullResync | Continue | PayloadStart | Retry | Failed
PrimaryEvent = PsyncRequest | Ack | Command | LoginFailed | Quit | Failed
