"""The first request in what a client has sent, with bounds on what is kept of it: whoever connects may send anything.

::

    *2␍␊$4␍␊AUTH␍␊$1␍␊p␍␊     what clients and replicas send: a count, then each argument behind its length
    PING␍␊                    inline: words, as a person or an old server types them; an empty line has none

What breaks a bound, or begins otherwise, is a ``RemoteProtocolError`` in the servers' own words, for the ``-ERR Protocol error: …`` that they answer.
"""

from __future__ import annotations

import re
from typing import Final

from valkeep.errors import RemoteProtocolError

MAX_ARGUMENTS: Final = 1024  # of a request; a replica's longest has some 10, but whoever looks may ask COMMAND INFO for many names
MAX_REQUEST: Final = 64 * 1024  # bytes
_REMEDY: Final = "is the peer a Valkey server?"


def first_request(buffer: bytes) -> tuple[list[bytes], int] | None:
    """The first request in ``buffer`` and the bytes it takes; None when it is not whole. Empty lines are requests without words."""
    if not buffer:
        return None
    end = buffer.find(b"\n")
    if end < 0:
        if len(buffer) > MAX_REQUEST:
            raise RemoteProtocolError("too big inline request", remedy=_REMEDY)
        return None
    if buffer[:1] != b"*":
        return buffer[:end].split(), end + 1
    count = _number(buffer[1:end], MAX_ARGUMENTS, "invalid multibulk length")
    args: list[bytes] = []
    at = end + 1
    for _ in range(count):
        end = buffer.find(b"\n", at, at + 32)
        if end < 0:
            if len(buffer) - at >= 32:
                raise RemoteProtocolError("invalid bulk length", remedy=_REMEDY)
            return None
        if buffer[at : at + 1] != b"$":
            raise RemoteProtocolError(f"expected '$', got {buffer[at : at + 1]!r}", remedy=_REMEDY)
        size = _number(buffer[at + 1 : end], MAX_REQUEST, "invalid bulk length")
        at = end + 1
        if len(buffer) < at + size + 2:
            if at + size > 2 * MAX_REQUEST:
                raise RemoteProtocolError("request too big", remedy=_REMEDY)
            return None
        args.append(buffer[at : at + size])
        at += size + 2
    return args, at


def _number(text: bytes, limit: int, wrong: str) -> int:
    text = text.removesuffix(b"\r")
    if not re.fullmatch(rb"[0-9]{1,9}", text) or int(text) > limit:
        raise RemoteProtocolError(wrong, remedy=_REMEDY)
    return int(text)
