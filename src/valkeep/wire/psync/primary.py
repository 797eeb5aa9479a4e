"""We answer: the conversation with a target, which takes us for its primary. The package's head draws it."""

from __future__ import annotations

import hmac
import re
from enum import Enum
from typing import Final

from valkeep.errors import LocalProtocolError, RemoteProtocolError, ValkeepError

from .events import KEEP_ALIVE, MARK_SIZE, REPLID, Ack, Command, Failed, LoginFailed, PrimaryEvent, PsyncRequest, Quit, Replica
from .introduction import Introduction
from .replies import bulk_reply, error_reply, simple_reply
from .request import first_request

NO_AUTH: Final = "NOAUTH Authentication required."
NO_AUTH_HELLO: Final = (
    "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to "
    "authenticate the client and select the RESP protocol version at the same time"
)
BAD_LOGIN: Final = "WRONGPASS invalid username-password pair or user is disabled."
HTTP: Final = frozenset({b"POST", b"HOST:"})  # the first words by which servers recognise a browser that was made to talk to them


class Serving(Enum):
    """Where the primary side is."""

    LOCKED = "it has to log in"
    OPEN = "handshake"
    ASKED = "it asked to sync, and we have not answered"
    FULL = "full sync promised, snapshot not begun"
    SNAPSHOT = "the snapshot is on its way"
    LOADING = "the snapshot is sent, its first ACK has not come"
    STREAM = "the stream runs"
    OVER = "nothing more"


class Heard(Enum):
    """What the replica sent, or (in capitals with WE_) what we did."""

    PING = "PING"
    LOGIN = "AUTH, right"
    BAD_LOGIN = "AUTH, wrong"
    CONF = "REPLCONF …"
    ACK = "REPLCONF ACK"
    PSYNC = "PSYNC, SYNC"
    QUIT = "QUIT"
    RESET = "RESET, where a password is set"
    OTHER = "another command"
    WE_FULL = "+FULLRESYNC"
    WE_CONTINUE = "+CONTINUE"
    WE_REFUSE = "-…"
    WE_BEGIN = "$…"
    WE_ENDED_LENGTH = "last byte of a snapshot with a length"
    WE_ENDED_MARK = "end mark"


V, H = Serving, Heard

#: (state, what happened) → next state. What is not here breaks the protocol: theirs when they sent it, ours for WE_….
PRIMARY_TABLE: Final[dict[tuple[Serving, Heard], Serving]] = {
    (V.LOCKED, H.PING): V.LOCKED,  # all answered with -NOAUTH
    (V.LOCKED, H.CONF): V.LOCKED,
    (V.LOCKED, H.ACK): V.LOCKED,
    (V.LOCKED, H.PSYNC): V.LOCKED,
    (V.LOCKED, H.OTHER): V.LOCKED,
    (V.LOCKED, H.BAD_LOGIN): V.LOCKED,
    (V.LOCKED, H.LOGIN): V.OPEN,
    (V.LOCKED, H.RESET): V.LOCKED,
    (V.LOCKED, H.QUIT): V.OVER,
    (V.OPEN, H.RESET): V.LOCKED,
    (V.OPEN, H.QUIT): V.OVER,
    (V.OPEN, H.PING): V.OPEN,
    (V.OPEN, H.LOGIN): V.OPEN,
    (V.OPEN, H.BAD_LOGIN): V.LOCKED,
    (V.OPEN, H.CONF): V.OPEN,
    (V.OPEN, H.ACK): V.OPEN,
    (V.OPEN, H.OTHER): V.OPEN,
    (V.OPEN, H.PSYNC): V.ASKED,
    (V.ASKED, H.WE_FULL): V.FULL,
    (V.ASKED, H.WE_CONTINUE): V.STREAM,
    (V.ASKED, H.WE_REFUSE): V.OPEN,
    (V.FULL, H.WE_BEGIN): V.SNAPSHOT,
    (V.FULL, H.WE_REFUSE): V.OVER,
    (V.SNAPSHOT, H.ACK): V.SNAPSHOT,
    (V.SNAPSHOT, H.WE_ENDED_LENGTH): V.STREAM,
    (V.SNAPSHOT, H.WE_ENDED_MARK): V.LOADING,
    (V.LOADING, H.ACK): V.STREAM,
    (V.STREAM, H.ACK): V.STREAM,
    (V.STREAM, H.CONF): V.STREAM,  # unanswered: a reply would stand in the stream
}


class PrimarySide:
    """A target's conversation with us: ``receive`` what it sends, act on the events, send ``data_to_send()``.

    ``password``: what the target's ``primaryauth`` has to be; None lets everyone in, also those who send a password. ``username``: its
    ``primaryuser``. Snapshot and stream bytes are written by the caller itself, after what ``data_to_send`` gave.
    """

    def __init__(self, *, password: str | None = None, username: str = "default") -> None:
        self.state = V.LOCKED if password is not None else V.OPEN
        self._password = password
        self._username = username
        self._introduction = Introduction()
        self._buffer = b""
        self._out: list[bytes] = []
        self._mark: bytes | None = None
        self._plain = False  # it asked by SYNC: no ids, no offsets

    def __repr__(self) -> str:
        return f"<PrimarySide: {self.state.value}>"

    @property
    def replica(self) -> Replica:
        """What the target has said about itself so far."""
        return self._introduction.replica

    @property
    def may_stream(self) -> bool:
        """Whether stream bytes may be written now."""
        return self.state is V.STREAM

    def data_to_send(self) -> bytes:
        """Bytes for the target, once. Ask after each ``receive`` and after each of our own steps."""
        out = b"".join(self._out)
        self._out.clear()
        return out

    def receive(self, data: bytes | bytearray | memoryview) -> list[PrimaryEvent]:
        """What the target sent; any pieces. Stops behind a `Command`, so that its answer comes before those to what follows: reply, and call again with
        ``b""``, until there are no events."""
        self._buffer += bytes(data)
        events: list[PrimaryEvent] = []
        while self.state is not V.OVER:
            try:
                parsed = first_request(self._buffer)
            except RemoteProtocolError as error:
                self._out.append(error_reply(f"ERR Protocol error: {error.message}"))
                events.append(self._over(error))
                break
            if parsed is None:
                break
            args, used = parsed
            self._buffer = self._buffer[used:]
            if args and (event := self._heard(args)) is not None:
                events.append(event)
                if isinstance(event, Command):
                    break
        return events

    # --- our steps

    def full_resync(self, replid: str, offset: int) -> None:
        """Answer ``PsyncRequest``: a snapshot follows, then the stream from byte ``offset + 1`` of ``replid`` on. To SYNC nothing is said here."""
        if not REPLID.fullmatch(replid) or offset < 0:
            raise LocalProtocolError(
                f"{replid!r} {offset} is no replication id and offset", remedy="give 40 hex digits and a number from 0"
            )
        self._step(H.WE_FULL)
        if self._plain:
            return
        self._out.append(b"+FULLRESYNC %s %d\r\n" % (replid.encode(), offset))

    def continue_with(self, replid: str) -> None:
        """Answer ``PsyncRequest``: the stream goes on from the byte asked for; ``replid`` is our current id."""
        if not REPLID.fullmatch(replid):
            raise LocalProtocolError(f"{replid!r} is no replication id", remedy="give 40 hex digits")
        self._step(H.WE_CONTINUE)
        self._out.append(b"+CONTINUE %s\r\n" % replid.encode() if "psync2" in self._introduction.capabilities else b"+CONTINUE\r\n")

    def refuse(self, text: str = "NOMASTERLINK Can't SYNC while not connected with my master") -> None:
        """Answer ``PsyncRequest`` (or, after ``full_resync``, instead of a snapshot): not now. The default makes the target try again."""
        self._step(H.WE_REFUSE)
        self._out.append(error_reply(text))

    def keep_alive(self) -> None:
        """A newline that says we are there: only between ``PsyncRequest`` and the snapshot; nothing elsewhere."""
        if self.state in (V.ASKED, V.FULL):
            self._out.append(KEEP_ALIVE)

    def begin_payload(self, *, length: int | None = None, mark: bytes | None = None) -> None:
        """The snapshot's header: its ``length`` in bytes, or a ``mark`` of 40 random bytes (only if the target said ``capa eof``)."""
        if (length is None) == (mark is None) or (length is not None and length < 0):
            raise LocalProtocolError("a snapshot has a length or a mark", remedy="give one of the two")
        if mark is not None:
            if len(mark) != MARK_SIZE or b"\r" in mark or b"\n" in mark:
                raise LocalProtocolError("the mark has to be 40 bytes without line ends", remedy="give 40 hex digits")
            if "eof" not in self._introduction.capabilities:
                raise LocalProtocolError("this target knows no end mark (capa eof)", remedy="spool the snapshot and give its length")
        self._step(H.WE_BEGIN)
        self._mark = mark
        self._out.append(b"$EOF:%s\r\n" % mark if mark is not None else b"$%d\r\n" % (length or 0))

    def end_payload(self) -> None:
        """The caller has written the last byte of the snapshot. With a mark, the mark is sent now, and the stream waits for the first ACK."""
        if self._mark is None:
            self._step(H.WE_ENDED_LENGTH)
        else:
            self._step(H.WE_ENDED_MARK)
            self._out.append(self._mark)

    def reply(self, data: bytes) -> None:
        """The answer to a ``Command``, already encoded (``simple_reply``, ``error_reply``, ``bulk_reply``, …)."""
        if self.state not in (V.OPEN, V.LOCKED):
            raise LocalProtocolError("a reply would land in the snapshot or stream", remedy="answer commands before the sync only")
        self._out.append(data)

    # --- inside

    def _step(self, heard: Heard) -> None:
        following = PRIMARY_TABLE.get((self.state, heard))
        if following is None:
            raise LocalProtocolError(
                f"{heard.value!r} has no place where we are: {self.state.value}", remedy="this is a bug of Valkeep: please report it"
            )
        self.state = following

    def _over(self, error: ValkeepError) -> Failed:
        self.state = V.OVER
        self._buffer = b""
        return Failed(error)

    def _heard(self, args: list[bytes]) -> PrimaryEvent | None:
        name = args[0].upper()
        was = self.state
        heard = H.OTHER
        if name in HTTP and was in (V.LOCKED, V.OPEN):
            return self._over(RemoteProtocolError("an HTTP client", remedy="this port speaks the protocol of Redis and Valkey only"))
        if name == b"HELLO" and was in (V.LOCKED, V.OPEN):
            return self._hello(args)
        if name == b"AUTH":
            heard = H.LOGIN if self._right(args) else H.BAD_LOGIN
        elif name == b"PING" and len(args) <= 2:
            heard = H.PING
        elif name in (b"PSYNC", b"SYNC"):
            heard = H.PSYNC
        elif name == b"QUIT":
            heard = H.QUIT
        elif name == b"RESET" and self._password is not None:
            heard = H.RESET
        elif name == b"REPLCONF":
            heard = H.ACK if len(args) > 2 and args[1].lower() in (b"ack", b"fack") else H.CONF
        following = PRIMARY_TABLE.get((was, heard))
        if following is None:
            shown = name[:40].decode("ascii", "backslashreplace")
            return self._over(
                RemoteProtocolError(
                    f"the target sent {shown} where we are: {was.value}", remedy="let it connect again; is it a Valkey server?"
                )
            )
        if was is V.LOCKED and heard not in (H.LOGIN, H.BAD_LOGIN, H.QUIT, H.RESET):
            if heard is not H.ACK:
                self._out.append(error_reply(NO_AUTH))
            return None
        if heard is H.PSYNC:
            return self._psync(args) if name == b"PSYNC" else self._sync(args)
        if heard is H.ACK:
            return self._ack(args, following)
        self.state = following
        if heard is H.LOGIN:
            self._out.append(simple_reply("OK"))
        elif heard is H.BAD_LOGIN:
            return self._wrong(args[1] if len(args) == 3 else b"default")
        elif heard is H.QUIT:
            self._out.append(simple_reply("OK"))
            return Quit()
        elif heard is H.PING:
            self._out.append(bulk_reply(args[1]) if len(args) == 2 else simple_reply("PONG"))
        elif heard is H.CONF:
            answer = self._introduction.heard(args)
            if was is not V.STREAM:
                self._out.append(answer)
        else:
            return Command(tuple(args))
        return None

    def _wrong(self, username: bytes) -> LoginFailed:
        self._out.append(error_reply(BAD_LOGIN))
        return LoginFailed(username[:64].decode("utf-8", "backslashreplace"))

    def _hello(self, args: list[bytes]) -> PrimaryEvent | None:
        """Its login, if it has one; the rest is answered by the caller, who gets it without the password."""
        at = next((at for at, word in enumerate(args) if at >= 2 and word.upper() == b"AUTH" and len(args) > at + 2), 0)
        if at:
            right = self._right([b"AUTH", *args[at + 1 : at + 3]])
            self.state = PRIMARY_TABLE[self.state, H.LOGIN if right else H.BAD_LOGIN]
            if not right:
                return self._wrong(args[at + 1])
        elif self.state is V.LOCKED:
            self._out.append(error_reply(NO_AUTH_HELLO))
            return None
        return Command(tuple(args[:at] + args[at + 3 :]) if at else tuple(args))

    def _right(self, args: list[bytes]) -> bool:
        if len(args) not in (2, 3):
            return False
        if self._password is None:
            return True
        name = args[1] if len(args) == 3 else self._username.encode()
        # both are compared in any case, so that the time says nothing about either
        name_right = hmac.compare_digest(name, self._username.encode())
        password_right = hmac.compare_digest(args[-1], self._password.encode())
        return name_right and password_right

    def _psync(self, args: list[bytes]) -> PrimaryEvent | None:
        if len(args) != 3 or not re.fullmatch(rb"-?[0-9]{1,19}", args[2]):
            self._out.append(error_reply("ERR PSYNC is taken with a replication id and an offset only"))
            return None
        replid = args[1].decode("ascii", "replace")
        offset = int(args[2])
        if replid == "?" or not REPLID.fullmatch(replid) or offset < 0:
            if offset < -1:  # -2, -3: second connections of rdb-channel and dual-channel replication, which nobody offered
                self._out.append(error_reply("ERR one connection only"))
                return None
            request = PsyncRequest(None, -1, self.replica)
        else:
            request = PsyncRequest(replid, offset, self.replica)
        self.state = PRIMARY_TABLE[self.state, H.PSYNC]
        return request

    def _sync(self, args: list[bytes]) -> PrimaryEvent | None:
        """The old form: the snapshot comes without a word before it, and nothing can be continued."""
        if len(args) != 1:
            self._out.append(error_reply("ERR wrong number of arguments for 'sync' command"))
            return None
        self._plain = True
        self.state = PRIMARY_TABLE[self.state, H.PSYNC]
        return PsyncRequest(None, -1, self.replica, plain=True)

    def _ack(self, args: list[bytes], following: Serving) -> PrimaryEvent | None:
        numbers: dict[bytes, int] = {}
        for word, number in zip(args[1::2], args[2::2], strict=False):
            if re.fullmatch(rb"[0-9]{1,19}", number):
                numbers[word.lower()] = int(number)
        if b"ack" not in numbers:
            return None
        self.state = following
        return Ack(numbers[b"ack"], numbers.get(b"fack"))
