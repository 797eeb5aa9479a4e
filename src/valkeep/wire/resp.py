"""RESP2 and RESP3: the protocol in which Redis and Valkey talk to clients.

Both are one grammar: a type byte, a line, and for some types a body. RESP3 adds types and takes nothing away, so one parser reads
both and the peer decides (we never send HELLO 3 ourselves; a proxy in between may)::

    +OK␍␊                       simple string            *2␍␊ … …        array (``*-1`` is RESP2's null)
    -ERR text␍␊                 error                    %1␍␊ k v        map
    :42␍␊                       integer                  ~2␍␊ … …        set
    $5␍␊hello␍␊                 bulk string ($-1: null)  >3␍␊ … … …      push (out of band)
    _␍␊  #t␍␊  ,3.14␍␊  (123␍␊  null, boolean, double, big number
    !9␍␊ERR wrong␍␊             error with a body        |1␍␊ k v        attribute: belongs to the next value; dropped here
    =7␍␊txt:abc␍␊               verbatim string

How the parser holds bytes: what ``feed`` is given waits in a list and is joined only when the value under way can be finished
(``_want``: bytes that must be there before looking again is worth anything). A 512 MB string that comes in 64 KiB pieces is
therefore copied once, and a length that lies costs nothing: memory follows the bytes received, never a claim.

What it does not do: RESP3's streamed strings and aggregates (``$?``, ``*?``; no server sends them) and inline commands.
Source: https://valkey.io/topics/protocol/ ; Valkey ``src/networking.c``, ``src/resp_parser.c``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, NoReturn

from valkeep.errors import LocalProtocolError, RemoteProtocolError, ServerError

__all__ = ["MAX_BULK", "MAX_DEPTH", "NEED_MORE", "Argument", "NeedMore", "Parser", "Push", "Value", "encode", "encode_many"]

Argument = bytes | bytearray | memoryview | str | int | float
Value = Any  # bytes, int, float, bool, None, list, dict, set, Push, ServerError: what the peer chose


class NeedMore:
    """The type of ``NEED_MORE``: no whole value is there yet."""

    def __repr__(self) -> str:
        return "NEED_MORE"

    def __bool__(self) -> bool:
        return False


class Push(list[Any]):
    """A RESP3 push frame: comes between replies and answers nothing."""


NEED_MORE: Final = NeedMore()
_NOTHING: Final = NeedMore()  # a step that finished no value: an aggregate was opened, an attribute was dropped

MAX_DEPTH: Final = 32  # aggregates inside aggregates; COMMAND DOCS, the deepest reply known, has 7
MAX_BULK: Final = 1 << 30  # bytes; servers stop at proto-max-bulk-len, 512 MB by default
MAX_ITEMS: Final = (1 << 31) - 1
MAX_LINE: Final = 64 * 1024  # bytes of a line without body: simple strings, errors, numbers
MAX_DIGITS: Final = 4096  # of a big number

_DOUBLE = re.compile(rb"[+-]?(?:inf|nan|[0-9]+\.?[0-9]*(?:[eE][+-]?[0-9]+)?|\.[0-9]+(?:[eE][+-]?[0-9]+)?)", re.IGNORECASE)
_INTEGER = re.compile(rb"[+-]?[0-9]+")


def encode(*args: Argument) -> bytes:
    """One command as the array of bulk strings that every server since 1.2 takes. Text goes as UTF-8, floats by ``repr``."""
    return b"".join(_pieces(args))


def encode_many(commands: Iterable[Iterable[Argument]]) -> bytes:
    """Several commands in one block of bytes: one write, one reply each."""
    pieces: list[bytes] = []
    for command in commands:
        pieces += _pieces(tuple(command))
    return b"".join(pieces)


def _pieces(args: tuple[Argument, ...]) -> list[bytes]:
    if not args:
        raise LocalProtocolError("an empty command", remedy="give at least the command's name")
    pieces = [b"*%d\r\n" % len(args)]
    for arg in args:
        if isinstance(arg, str):
            data = arg.encode("utf-8", "surrogateescape")
        elif isinstance(arg, bytes):
            data = arg
        elif isinstance(arg, bool):
            raise LocalProtocolError("True and False have no form in a command", remedy="say 1 or 0, 'yes' or 'no'")
        elif isinstance(arg, int):
            data = b"%d" % arg
        elif isinstance(arg, float):
            data = repr(arg).encode()
        elif isinstance(arg, (bytearray, memoryview)):
            data = bytes(arg)
        else:
            raise LocalProtocolError(f"a {type(arg).__name__} has no form in a command", remedy="give bytes, str, int or float")
        pieces.append(b"$%d\r\n" % len(data))
        pieces.append(data)
        pieces.append(b"\r\n")
    return pieces


def looks_like(data: bytes) -> tuple[str, str]:
    """What a peer that does not speak RESP probably is, from its first bytes: (description, remedy)."""
    if data[:5] == b"HTTP/" or data[:1] == b"<":
        return "an HTTP server", "check host and port: this is a web server, not Redis or Valkey"
    if data[:1] in (b"\x15", b"\x16") and data[1:2] in (b"", b"\x03"):
        return "a TLS server", "the port expects TLS: use rediss:// or valkeys://"
    if data[:4] == b"SSH-":
        return "an SSH server", "check host and port: this is SSH, not Redis or Valkey"
    return "not a Redis or Valkey server", "check host and port (and rediss:// or valkeys:// if the port expects TLS)"


class Parser:
    """Bytes in, values out. ``feed`` what arrived, then take values until ``next()`` says ``NEED_MORE`` (or iterate).

    Simple, bulk and verbatim strings come as ``bytes``; errors as ``ServerError`` *values* (not raised: a pipeline has replies after
    it); maps as ``dict``, sets as ``set`` – members and keys that Python can't hash are frozen to tuples first; RESP2's and RESP3's
    nulls as ``None``. After a ``RemoteProtocolError`` the parser is unusable and raises the same error again.
    """

    def __init__(self, max_bulk: int = MAX_BULK) -> None:
        self.max_bulk = max_bulk
        self._buffer = b""
        self._pos = 0
        self._chunks: list[bytes] = []
        self._waiting = 0  # bytes in _chunks
        self._want = 1  # bytes from _pos on without which nothing can go on
        self._kinds: list[int] = []  # the open aggregates: type byte,
        self._left: list[int] = []  # values still to come,
        self._items: list[list[Any]] = []  # values so far
        self._began = False  # whether a first value was ever read (before that, garbage means "not a Redis server")
        self._error: RemoteProtocolError | None = None

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take what arrived (it is copied unless it is ``bytes``)."""
        chunk = bytes(data)
        if chunk:
            self._chunks.append(chunk)
            self._waiting += len(chunk)

    def __iter__(self) -> Iterator[Value]:
        while True:
            value = self.next()
            if value is NEED_MORE:
                return
            yield value

    @property
    def pending(self) -> bool:
        """Whether bytes of an unfinished value are held."""
        return bool(self._kinds) or len(self._buffer) - self._pos + self._waiting > 0

    def take_rest(self) -> bytes:
        """Hand over the bytes not yet parsed, and forget them: what follows is not RESP (a snapshot after ``$EOF:``)."""
        rest = self._buffer[self._pos :] + b"".join(self._chunks)
        self._buffer = b""
        self._pos = 0
        self._chunks = []
        self._waiting = 0
        self._want = 1
        return rest

    def next(self) -> Value:
        """The next whole value, or ``NEED_MORE``."""
        if self._error is not None:
            raise self._error
        while True:
            if len(self._buffer) - self._pos < self._want:
                if len(self._buffer) - self._pos + self._waiting < self._want:
                    return NEED_MORE
                self._join()
            value = self._step()
            if value is NEED_MORE or value is _NOTHING:
                continue  # _want has grown, or an aggregate was opened
            while self._kinds:
                top = len(self._kinds) - 1
                items = self._items[top]
                items.append(value)
                left = self._left[top] - 1
                if left > 0:
                    self._left[top] = left
                    value = _NOTHING
                    break
                kind = self._kinds.pop()
                self._left.pop()
                self._items.pop()
                value = _finish(kind, items)
                if value is _NOTHING:
                    break
            if value is not _NOTHING:
                self._began = True
                return value

    def _join(self) -> None:
        if self._pos >= len(self._buffer) and len(self._chunks) == 1:
            self._buffer = self._chunks[0]
        else:
            self._chunks.insert(0, self._buffer[self._pos :])
            self._buffer = b"".join(self._chunks)
        self._pos = 0
        self._chunks = []
        self._waiting = 0

    def _step(self) -> Value:
        """One line and its body: a value, ``_NOTHING`` (opened an aggregate) or ``NEED_MORE`` (``_want`` says how much)."""
        buffer = self._buffer
        pos = self._pos
        kind = buffer[pos]
        eol = buffer.find(b"\r\n", pos + 1)
        if eol < 0:
            if kind not in b"+-:$*_#,(!=%~>|":
                self._fail_kind()
            held = len(buffer) - pos
            if held > MAX_LINE:
                self._fail(f"a line of more than {MAX_LINE} bytes")
            self._want = held + 1
            return NEED_MORE
        if eol - pos > MAX_LINE:
            self._fail(f"a line of more than {MAX_LINE} bytes")
        after = eol + 2
        if kind == 0x24 or kind == 0x21 or kind == 0x3D:  # $ ! =
            size = self._length(pos + 1, eol, self.max_bulk)
            if size < 0:
                if kind != 0x24:
                    self._fail("a negative length")
                self._advance(after)
                return None
            whole = after + size + 2
            if whole > len(buffer):
                self._want = whole - pos
                return NEED_MORE
            if buffer[after + size] != 0x0D or buffer[after + size + 1] != 0x0A:
                self._fail(f"a string of {size} bytes does not end where its length says")
            body = buffer[after : after + size]
            self._advance(whole)
            if kind == 0x24:
                return body
            if kind == 0x21:
                return _server_error(body)
            if len(body) < 4 or body[3] != 0x3A:
                self._fail("a verbatim string without its format")
            return body[4:]
        if kind == 0x2A or kind == 0x25 or kind == 0x7E or kind == 0x3E or kind == 0x7C:  # * % ~ > |
            size = self._length(pos + 1, eol, MAX_ITEMS)
            if size < 0 and kind != 0x2A:
                self._fail("a negative length")
            if len(self._kinds) >= MAX_DEPTH:
                self._fail(f"more than {MAX_DEPTH} aggregates inside each other")
            self._advance(after)
            if size < 0:
                return None
            if size == 0:
                return _finish(kind, [])
            self._kinds.append(kind)
            self._left.append(size * 2 if kind == 0x25 or kind == 0x7C else size)
            self._items.append([])
            return _NOTHING
        line = buffer[pos + 1 : eol]
        if kind == 0x3A:  # :
            if len(line) > 20 or _INTEGER.fullmatch(line) is None:
                self._fail(f"{line[:40]!r} is not an integer")
            value: Value = int(line)
        elif kind == 0x2B:  # +
            value = line
        elif kind == 0x2D:  # -
            value = _server_error(line)
        elif kind == 0x5F:  # _
            if line:
                self._fail("a null with content")
            value = None
        elif kind == 0x23:  # #
            if line != b"t" and line != b"f":
                self._fail(f"{line[:40]!r} is not a boolean")
            value = line == b"t"
        elif kind == 0x2C:  # ,
            if len(line) > 400 or _DOUBLE.fullmatch(line) is None:
                self._fail(f"{line[:40]!r} is not a double")
            value = float(line)
        elif kind == 0x28:  # (
            if len(line) > MAX_DIGITS or _INTEGER.fullmatch(line) is None:
                self._fail(f"{line[:40]!r} is not a big number")
            value = int(line)
        else:
            self._fail_kind()
        self._advance(after)
        return value

    def _advance(self, pos: int) -> None:
        self._pos = pos
        self._want = 1

    def _length(self, start: int, stop: int, limit: int) -> int:
        """The length between ``start`` and ``stop``; −1 is the only negative one."""
        line = self._buffer[start:stop]
        if line == b"-1":
            return -1
        if not line.isdigit():
            self._fail(f"{line[:40]!r} is not a length")
        if len(line) > 19:
            self._fail(f"the length {line[:40]!r} is beyond the limit {limit}")
        size = int(line)
        if size > limit:
            self._fail(f"the length {size} is beyond the limit {limit}")
        return size

    def _fail_kind(self) -> NoReturn:
        start = self._buffer[self._pos : self._pos + 48]
        if self._began or self._kinds:
            self._fail(f"{start[:1]!r} begins no value")
        what, remedy = looks_like(start)
        self._fail_with(f"the peer is {what}: it answered {start!r}", remedy)

    def _fail(self, what: str) -> NoReturn:
        start = self._buffer[self._pos : self._pos + 24]
        self._fail_with(
            f"the peer broke the protocol: {what} (at {start!r})", "check that host and port lead to Redis or Valkey, with no other proxy"
        )

    def _fail_with(self, message: str, remedy: str) -> NoReturn:
        self._error = RemoteProtocolError(message, remedy=remedy)
        self._chunks = []
        self._waiting = 0
        raise self._error


def _finish(kind: int, items: list[Any]) -> Value:
    if kind == 0x2A:
        return items
    if kind == 0x3E:
        return Push(items)
    if kind == 0x7C:
        return _NOTHING
    if kind == 0x7E:
        return {_hashable(item) for item in items}
    return {_hashable(items[i]): items[i + 1] for i in range(0, len(items), 2)}


def _hashable(value: Value) -> Value:
    if isinstance(value, list):
        return tuple([_hashable(item) for item in value])
    if isinstance(value, dict):
        return tuple([(key, _hashable(item)) for key, item in value.items()])
    if isinstance(value, set):
        return frozenset(value)
    return value


def _server_error(line: bytes) -> ServerError:
    text = line.decode("utf-8", "backslashreplace")
    kind, _, rest = text.partition(" ")
    return ServerError(kind, rest)
