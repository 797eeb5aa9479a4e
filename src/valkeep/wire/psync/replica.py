"""We ask: the conversation with a source, from PING to the first byte of its snapshot or stream. The package's head draws it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum
from typing import Final

from valkeep.errors import ConnectionLost, LocalProtocolError, Refused, RemoteProtocolError, ValkeepError

from ..resp import encode, looks_like
from .events import MARK_SIZE, REPLID, Continue, Failed, FullResync, PayloadStart, ReplicaEvent, Retry

MAX_LINE: Final = 8 * 1024  # bytes of a reply of the handshake


class ReplicationDenied(Refused):
    """This user may not replicate, or nobody may. The data can still be read by commands."""


class Asking(Enum):
    """Where the replica side is; a state is named for what we wait for."""

    START = "start"
    PONG = "the reply to PING"
    AUTH = "the reply to AUTH"
    PORT = "the reply to REPLCONF listening-port"
    ADDRESS = "the reply to REPLCONF ip-address"
    CAPA = "the reply to REPLCONF capa"
    VERSION = "the reply to REPLCONF version"
    PSYNC = "the reply to PSYNC"
    SNAPSHOT = "the snapshot"
    PAYLOAD = "the caller to read the snapshot"  # terminal: bytes are no longer ours
    STREAM = "the caller to read the stream"  # terminal
    OVER = "nothing more"  # terminal


class Said(Enum):
    """What the source said, sorted by what it means for us."""

    SKIP = "nothing: this step is not needed"
    YES = "+…"
    NO = "-ERR …"
    DENIED = "-NOAUTH, -WRONGPASS, -NOPERM"
    LATER = "-LOADING, -NOMASTERLINK, …"
    FULLRESYNC = "+FULLRESYNC"
    CONTINUE = "+CONTINUE"
    PAYLOAD = "$…"
    NEWLINE = "␊"


A, S = Asking, Said

#: (state, what the source said) → next state. What is not here breaks the protocol.
REPLICA_TABLE: Final[dict[tuple[Asking, Said], Asking]] = {
    (A.START, S.SKIP): A.PONG,
    (A.PONG, S.YES): A.AUTH,
    (A.PONG, S.DENIED): A.AUTH,  # it wants the password first, or this user may not PING
    (A.PONG, S.LATER): A.OVER,
    (A.PONG, S.NO): A.OVER,
    (A.AUTH, S.SKIP): A.PORT,
    (A.AUTH, S.YES): A.PORT,
    (A.AUTH, S.DENIED): A.OVER,
    (A.AUTH, S.NO): A.OVER,
    (A.AUTH, S.LATER): A.OVER,
    (A.PORT, S.YES): A.ADDRESS,
    (A.PORT, S.NO): A.ADDRESS,
    (A.PORT, S.DENIED): A.OVER,
    (A.PORT, S.LATER): A.OVER,
    (A.ADDRESS, S.SKIP): A.CAPA,
    (A.ADDRESS, S.YES): A.CAPA,
    (A.ADDRESS, S.NO): A.CAPA,
    (A.ADDRESS, S.LATER): A.OVER,
    (A.CAPA, S.YES): A.VERSION,
    (A.CAPA, S.NO): A.VERSION,
    (A.CAPA, S.LATER): A.OVER,
    (A.VERSION, S.SKIP): A.PSYNC,
    (A.VERSION, S.YES): A.PSYNC,
    (A.VERSION, S.NO): A.PSYNC,
    (A.VERSION, S.LATER): A.OVER,
    (A.PSYNC, S.NEWLINE): A.PSYNC,
    (A.PSYNC, S.FULLRESYNC): A.SNAPSHOT,
    (A.PSYNC, S.CONTINUE): A.STREAM,
    (A.PSYNC, S.LATER): A.OVER,
    (A.PSYNC, S.DENIED): A.OVER,
    (A.PSYNC, S.NO): A.OVER,
    (A.SNAPSHOT, S.NEWLINE): A.SNAPSHOT,
    (A.SNAPSHOT, S.PAYLOAD): A.PAYLOAD,
    (A.SNAPSHOT, S.NO): A.OVER,  # its fork or its disk failed
    (A.SNAPSHOT, S.LATER): A.OVER,
}

_LATER: Final = ("-LOADING", "-NOMASTERLINK", "-MASTERDOWN", "-BUSY", "-TRYAGAIN", "-UNBLOCKED", "-FAILOVER")
_DENIED: Final = ("-NOAUTH", "-WRONGPASS", "-NOPERM", "-ERR operation not permitted", "-ERR invalid password")


class ReplicaSide:
    """Our conversation with a source: from PING to the first byte of its snapshot or stream.

    ``name``: what messages call the server. ``password`` is text; it is sent once and kept in no message. ``psync``: (replication id, offset of
    the *next* byte wanted) to go on with, or None for a full sync. ``version``: what we say we are (a Valkey ≥ 9 source chooses its snapshot's
    version by it), "" to say nothing. After ``PayloadStart`` or ``Continue`` the bytes are the caller's: ``rest()`` hands over those that came
    with it.
    """

    def __init__(
        self,
        *,
        listening_port: int,
        name: str = "the source",
        username: str | None = None,
        password: str | None = None,
        ip_address: str | None = None,
        psync: tuple[str, int] | None = None,
        version: str = "7.2.4",
        capabilities: Sequence[str] = ("eof", "psync2"),
    ) -> None:
        for capability in capabilities:
            if capability in ("rdb-channel-repl", "dual-channel"):
                raise LocalProtocolError(f"capability {capability} needs a second connection", remedy="offer eof and psync2 only")
        self.state = Asking.START
        self._name = name
        self._username = username
        self._password = password
        self._asked = psync
        self._requests: dict[Asking, bytes | None] = {
            A.PONG: encode("PING"),
            A.AUTH: None if password is None else encode("AUTH", username, password) if username else encode("AUTH", password),
            A.PORT: encode("REPLCONF", "listening-port", listening_port),
            A.ADDRESS: encode("REPLCONF", "ip-address", ip_address) if ip_address else None,
            A.CAPA: encode("REPLCONF", *[word for capability in capabilities for word in ("capa", capability)]),
            A.VERSION: encode("REPLCONF", "version", version) if version else None,
            A.PSYNC: encode("PSYNC", psync[0], psync[1]) if psync else encode("PSYNC", "?", -1),
        }
        self._buffer = b""
        self._out: list[bytes] = []
        self._go(Said.SKIP)

    def __repr__(self) -> str:
        return f"<ReplicaSide waits for {self.state.value}>"

    def data_to_send(self) -> bytes:
        """Bytes for the source, once. Ask at the beginning and after each ``receive``."""
        out = b"".join(self._out)
        self._out.clear()
        return out

    def receive(self, data: bytes | bytearray | memoryview) -> list[ReplicaEvent]:
        """What the source sent; any pieces. No events: more bytes are needed (or ours have to be sent)."""
        self._buffer += bytes(data)
        events: list[ReplicaEvent] = []
        while self._buffer and self.state not in (A.PAYLOAD, A.STREAM, A.OVER):
            if self._buffer[:1] == b"\n":
                line, self._buffer = "", self._buffer.lstrip(b"\n")  # all at once: one by one costs the square
            else:
                if self._buffer[:1] not in (b"+", b"-", b"$"):
                    what, remedy = looks_like(self._buffer[:48])
                    events.append(self._broken(f"{self._name} is {what}: it answered {self._buffer[:48]!r}", remedy))
                    break
                raw, newline, rest = self._buffer.partition(b"\n")
                if not newline:
                    if len(raw) > MAX_LINE:
                        events.append(self._broken(f"{self._name} answered with more than {MAX_LINE} bytes in a line"))
                    break
                line, self._buffer = raw.rstrip(b"\r").decode("utf-8", "backslashreplace"), rest
            event = self._line(line)
            if event is not None:
                events.append(event)
        return events

    def rest(self) -> bytes:
        """The bytes after ``PayloadStart`` or ``Continue`` that have come already; they are the caller's."""
        rest, self._buffer = self._buffer, b""
        return rest

    def lost(self) -> Failed | Retry:
        """The source hung up: what that means where we are."""
        if self.state in (A.PONG, A.AUTH):
            return Failed(
                ConnectionLost(f"{self._name} hung up while we waited for {self.state.value}", remedy="see its log; is it Redis or Valkey?")
            )
        return Retry(f"{self._name} hung up while we waited for {self.state.value}")

    def _line(self, line: str) -> ReplicaEvent | None:
        was, said = self.state, _sort(line)
        if (was, said) not in REPLICA_TABLE and said in (S.FULLRESYNC, S.CONTINUE):
            said = S.YES  # only a word, then
        if (was, said) not in REPLICA_TABLE:
            return self._broken(f"{self._name} answered {line[:80]!r} while we waited for {was.value}")
        if said is S.FULLRESYNC:
            return self._full(line)
        if said is S.CONTINUE:
            return self._continue(line)
        if said is S.PAYLOAD:
            return self._payload(line)
        self._go(said)
        if self.state is not A.OVER:
            return None
        if said is S.LATER or was is A.SNAPSHOT or (was is A.PONG and not line.startswith("-DENIED")):
            return Retry(self._clean(line[1:]))
        return Failed(self._refused(was, self._clean(line[1:])))

    def _go(self, said: Said) -> None:
        """Follow the table, over steps that are not needed, and send the next request."""
        state = REPLICA_TABLE[self.state, said]
        while state in self._requests and (request := self._requests[state]) is None:
            state = REPLICA_TABLE[state, S.SKIP]
        if state is not self.state and (request := self._requests.get(state)) is not None:
            self._out.append(request)
        self.state = state

    def _full(self, line: str) -> ReplicaEvent:
        words = line.split()
        if len(words) != 3 or not REPLID.fullmatch(words[1]) or not re.fullmatch("[0-9]{1,19}", words[2]):
            return self._broken(f"{self._name} answered {line[:120]!r}, which names no replication id and offset")
        self._go(S.FULLRESYNC)
        return FullResync(words[1], int(words[2]))

    def _continue(self, line: str) -> ReplicaEvent:
        words = line.split()
        if self._asked is None:
            return self._broken(f"{self._name} goes on with a stream although we asked for a full sync")
        if len(words) > 2 or (len(words) == 2 and not REPLID.fullmatch(words[1])):
            return self._broken(f"{self._name} answered {line[:120]!r}, which names no replication id")
        self._go(S.CONTINUE)
        return Continue(words[1] if len(words) == 2 and words[1] != self._asked[0] else None)

    def _payload(self, line: str) -> ReplicaEvent:
        if line.startswith("$EOF:"):
            mark = line[5:].encode("utf-8", "replace")
            if len(mark) != MARK_SIZE:
                return self._broken(f"{self._name} announced a snapshot with {line[:80]!r}, whose end mark has not {MARK_SIZE} bytes")
            self._go(S.PAYLOAD)
            return PayloadStart(None, mark)
        if not re.fullmatch(r"\$[0-9]{1,19}", line):
            return self._broken(f"{self._name} announced a snapshot with {line[:80]!r}, which is no length")
        self._go(S.PAYLOAD)
        return PayloadStart(int(line[1:]), None)

    def _refused(self, was: Asking, text: str) -> ValkeepError:
        if was is A.AUTH:
            who = f"user {self._username!r}" if self._username else "the default user"
            return Refused(f"{self._name} did not accept the password of {who}: {text}", remedy="check user name and password")
        if text.startswith("DENIED"):
            return Refused(
                f"{self._name} is in protected mode and takes no connections from here",
                remedy="set a password on it, or bind it to a private address and set protected-mode no",
            )
        if text.startswith("NOAUTH"):
            return Refused(f"{self._name} wants a password", remedy="give it in the URL, from a file or from the environment")
        if text.startswith(("NOPERM", "ERR unknown command")) or "not permitted" in text:
            return ReplicationDenied(
                f"{self._name} does not let this user replicate: {text}",
                remedy="permit it: ACL SETUSER <user> on +psync +replconf +ping (or undo the renaming of these commands); "
                "a managed service may forbid PSYNC to everyone",
            )
        return Refused(
            f"{self._name} refused {was.value.removeprefix('the reply to ')}: {text}", remedy="see the server's message and its log"
        )

    def _broken(
        self, what: str, remedy: str = "check that host and port lead to a Redis or Valkey server, with no proxy in between"
    ) -> Failed:
        self.state = A.OVER
        self._buffer = b""
        return Failed(RemoteProtocolError(self._clean(what), remedy=remedy))

    def _clean(self, text: str) -> str:
        return text.replace(self._password, "***") if self._password else text


def _sort(line: str) -> Said:
    if not line:
        return S.NEWLINE
    if line.startswith("+FULLRESYNC"):
        return S.FULLRESYNC
    if line.startswith("+CONTINUE"):
        return S.CONTINUE
    if line[0] == "+":
        return S.YES
    if line[0] == "$":
        return S.PAYLOAD
    if line.startswith(_LATER):
        return S.LATER
    return S.DENIED if line.startswith(_DENIED) else S.NO


def ack(offset: int) -> bytes:
    """What a replica sends once a second, and when asked: it has processed everything up to byte ``offset``."""
    return encode("REPLCONF", "ACK", offset)
