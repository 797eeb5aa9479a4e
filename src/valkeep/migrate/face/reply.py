"""Replies of a server, from values to bytes, in RESP2 and RESP3.

Status("OK")     +OK            bytes, str   $2 OK            list, tuple   *1 …
Refusal("ERR …") -ERR …         int          :42              dict          %1 k v   RESP2: *2 k v
None             _   RESP2: $-1 float        ,1.5  RESP2: $3  Several       ~1 …     RESP2: *1 …
                                Text         =6 txt:ab  RESP2: $2 ab
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["OK", "Prepared", "Refusal", "Reply", "Several", "Status", "Text", "encoded"]

Reply = object


class Status(str):
    """A simple string."""

    __slots__ = ()


class Refusal(str):
    """An error; begins with its code."""

    __slots__ = ()


class Text(str):
    """What people read: a verbatim string."""

    __slots__ = ()


class Several(tuple[Reply, ...]):
    """A set."""

    __slots__ = ()


class Prepared:
    """A large reply that is always the same: made once for each protocol."""

    def __init__(self, make: Callable[[], Reply]) -> None:
        self._make = make
        self._made: dict[bool, bytes] = {}

    def bytes(self, newer: bool) -> bytes:
        if newer not in self._made:
            self._made[newer] = encoded(self._make(), 3 if newer else 2)
        return self._made[newer]


OK = Status("OK")


def encoded(value: Reply, proto: int = 2) -> bytes:
    """``proto``: 2 or 3."""
    out: list[bytes] = []
    _add(out, value, proto == 3)
    return b"".join(out)


def _add(out: list[bytes], value: Reply, newer: bool) -> None:
    match value:
        case None:
            out.append(b"_\r\n" if newer else b"$-1\r\n")
        case Prepared():
            out.append(value.bytes(newer))
        case Status():
            out.append(b"+%s\r\n" % value.encode())
        case Refusal():
            out.append(b"-%s\r\n" % value.replace("\r", " ").replace("\n", " ").encode("utf-8", "backslashreplace"))
        case Text() if newer:
            data = value.encode("utf-8", "surrogateescape")
            out.append(b"=%d\r\ntxt:%s\r\n" % (len(data) + 4, data))
        case str():
            _bulk(out, value.encode("utf-8", "surrogateescape"))
        case bytes():
            _bulk(out, value)
        case int():
            out.append(b":%d\r\n" % value)
        case float():
            text = b"%.17g" % value
            out.append(b",%s\r\n" % text) if newer else _bulk(out, text)
        case dict():
            out.append(b"%%%d\r\n" % len(value) if newer else b"*%d\r\n" % (2 * len(value)))
            for name, one in value.items():
                _add(out, name, newer)
                _add(out, one, newer)
        case list() | tuple():
            kind = b"~" if newer and isinstance(value, Several) else b"*"
            out.append(b"%s%d\r\n" % (kind, len(value)))
            for one in value:
                _add(out, one, newer)
        case _:
            raise TypeError(f"a {type(value).__name__} has no form in a reply")


def _bulk(out: list[bytes], data: bytes) -> None:
    out.append(b"$%d\r\n%s\r\n" % (len(data), data))
