"""The PSYNC conversation, both sides of it, as state tables. Sans-IO: ``receive(bytes) -> events``, ``data_to_send() -> bytes``.

``ReplicaSide`` is us in front of a source; ``PrimarySide`` is us in front of a target. What passes between them::

    replica                                   primary
    PING                                      +PONG            (-NOAUTH: log in first)
    AUTH [user] password                      +OK
    REPLCONF listening-port N                 +OK
    REPLCONF ip-address A                     +OK
    REPLCONF capa eof capa psync2             +OK              (-ERR to any REPLCONF is not fatal)
    REPLCONF version 8.1.1                    +OK
    PSYNC <replid> <offset>  |  PSYNC ? -1    +FULLRESYNC <replid> <offset>  |  +CONTINUE [<replid>]  |  -LOADING, -NOMASTERLINK …
                                              ␊ ␊ ␊            (keep-alives while the snapshot is prepared)
                                              $<length>␍␊<snapshot>  |  $EOF:<40 bytes>␍␊<snapshot><the 40 bytes>
    ␊ ␊ ␊  (while it loads)                   the command stream
    REPLCONF ACK <offset> [FACK <offset>]     REPLCONF GETACK *

Traps that are built in here. After a snapshot of the ``$EOF`` form the stream must not begin before the replica's first ACK: it takes up to
40 bytes behind the mark for the mark itself, or drops them with its buffer (``PrimarySide.may_stream``). ``capa rdb-channel-repl`` and
``dual-channel`` are never offered and never taken: they open a second connection. ``+CONTINUE`` names its id only to a replica that knows
psync2. A reply to anything would land in the middle of the stream once it runs, so a replica that asks then is cut off.

``SYNC`` is the old form of ``PSYNC ? -1``: the snapshot follows without ``+FULLRESYNC``, and nothing is acknowledged.

Offsets: bytes since the replication id began. ``PSYNC replid n`` asks for the stream *from byte n on*, which is one more than the last byte
processed; ``ACK n`` and FULLRESYNC's number are the last byte processed.

Source: Valkey 9.1 ``src/replication.c`` (syncWithPrimary, syncCommand, replconfCommand); Redis 7.0 and 8.0 the same file.
"""

from __future__ import annotations

from .events import (
    GETACK,
    KEEP_ALIVE,
    Ack,
    Command,
    Continue,
    Failed,
    FullResync,
    LoginFailed,
    PayloadStart,
    PrimaryEvent,
    PsyncRequest,
    Quit,
    Replica,
    ReplicaEvent,
    Retry,
)
from .payload import Payload
from .primary import PRIMARY_TABLE, Heard, PrimarySide, Serving
from .replica import REPLICA_TABLE, Asking, ReplicaSide, ReplicationDenied, Said, ack
from .replies import bulk_reply, error_reply, simple_reply

__all__ = [
    "GETACK",
    "KEEP_ALIVE",
    "PRIMARY_TABLE",
    "REPLICA_TABLE",
    "Ack",
    "Asking",
    "Command",
    "Continue",
    "Failed",
    "FullResync",
    "Heard",
    "LoginFailed",
    "Payload",
    "PayloadStart",
    "PrimaryEvent",
    "PrimarySide",
    "PsyncRequest",
    "Quit",
    "Replica",
    "ReplicaEvent",
    "ReplicaSide",
    "ReplicationDenied",
    "Retry",
    "Said",
    "Serving",
    "ack",
    "bulk_reply",
    "error_reply",
    "simple_reply",
]
