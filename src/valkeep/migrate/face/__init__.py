"""What the gateway shows to those who look at it as at a server: probes of managed services, ``redis-cli``, monitoring, client libraries.

A target that is told to attach by somebody else is preceded by questions: the service's control plane asks INFO, CONFIG GET, COMMAND, CLUSTER, whether
SYNC and PSYNC are there, and refuses a source that answers none of it. So the gateway answers as a standalone primary of the release that it presents
(``present_as``, by default 7.2.4: the newest that every such service takes), in RESP2 and RESP3.

    guest.py       one connection: what it said about itself, and its next answer
    aspect.py      what there is to see at this moment: identity, offsets, replicas, guests
    answers.py     the dispatch table, a row a command, and its documentation
    connection.py  HELLO, CLIENT, SELECT: what concerns the connection itself
    info.py        INFO's sections
    settings.py    CONFIG GET
    catalogue.py   the commands of Redis 7.2, for COMMAND and for telling a refusal from an unknown name
    reply.py       values to bytes

**Never a wrong answer.** The gateway holds no keys. What would read or write one, and what would change it, is refused with an error that names what this
is; what nobody can know here (how much memory the data takes) is told as the source said it. The replication id and the offsets are the channel's own: what
INFO shows is what PSYNC will say.

Who may ask: the same addresses that may attach, with the same password (`wire.psync.PrimarySide` asks for it before anything comes here).

What it does not do: transactions, pub/sub, MONITOR, and asking the source anything. It is pure: bytes in, bytes out; clock and gateway are behind `Aspect`.
"""

from __future__ import annotations

from .answers import reply
from .aspect import Aspect, Keyspace, Seen
from .guest import Guest

__all__ = ["Aspect", "Guest", "Keyspace", "Seen", "reply"]
