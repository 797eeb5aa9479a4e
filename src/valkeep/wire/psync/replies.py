"""Encoded replies, for commands that a target sends before it asks to sync."""

from __future__ import annotations


def simple_reply(text: str) -> bytes:
    return b"+%s\r\n" % text.encode()


def error_reply(text: str) -> bytes:
    """``text`` begins with its code, for example ``ERR``. Line ends in it become spaces."""
    return b"-%s\r\n" % text.replace("\r", " ").replace("\n", " ").encode("utf-8", "backslashreplace")


def bulk_reply(data: bytes | None) -> bytes:
    return b"$-1\r\n" if data is None else b"$%d\r\n%s\r\n" % (len(data), data)
