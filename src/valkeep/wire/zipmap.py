"""Zipmap: the small hash of Redis 2.0 to 2.4 (snapshots up to version 3); read, and built for fixtures.

::

    <1 byte: number of fields; 254 or more = count them> (length field length free value <free bytes, unused>)* FF

    LLLLLLLL            (below FE)                  length                                               # zipmap.c ZIPMAP_BIGLEN
    FE <4 bytes LE>                                 length of 254 and more
    free                                            1 byte: bytes to skip behind the value

No .pxd: nobody moves ten million of these.

Source: zipmap.c, zipmapValidateIntegrity.
"""

from __future__ import annotations

from valkeep.errors import RemoteProtocolError

__all__ = ["build", "fields"]

COUNT_UNKNOWN = 254


def broken(what: str, pos: int) -> RemoteProtocolError:
    return RemoteProtocolError(
        f"a zipmap {what} (byte {pos})",
        remedy="the snapshot or payload is damaged: take it again, and check the source with its own tools",
    )


def fields(blob: bytes) -> list[tuple[bytes, bytes]]:
    """The fields and values of the zipmap `blob`."""
    size = len(blob)
    if size < 2:
        raise broken(f"has only {size} bytes", 0)
    found: list[tuple[bytes, bytes]] = []
    pos = 1
    while True:
        if pos >= size:
            raise broken("has no end", pos)
        if blob[pos] == 0xFF:
            break
        name, pos = _part(blob, pos, False)
        value, pos = _part(blob, pos, True)
        found.append((name, value))
    if pos + 1 != size:
        raise broken(f"ends before its {size} bytes do", pos)
    if blob[0] < COUNT_UNKNOWN and blob[0] != len(found):
        raise broken(f"says it has {blob[0]} fields, and has {len(found)}", 0)
    return found


def _part(blob: bytes, pos: int, is_value: bool) -> tuple[bytes, int]:
    """The field or value at `pos`, and the place after it."""
    size = len(blob)
    if pos >= size or blob[pos] == 0xFF:
        raise broken("ends inside a field", pos)
    length = blob[pos]
    pos += 1
    if length == 0xFE:
        if size - pos < 4:
            raise broken("ends inside a length", pos)
        length = int.from_bytes(blob[pos : pos + 4], "little")
        pos += 4
    free = 0
    if is_value:
        if pos >= size:
            raise broken("ends inside a field", pos)
        free = blob[pos]
        pos += 1
    if length + free > size - pos:
        raise broken("has a field that runs past its end", pos)
    return blob[pos : pos + length], pos + length + free


def build(pairs: list[tuple[bytes, bytes]]) -> bytes:
    """The zipmap of `pairs`, for fixtures."""
    out = bytearray([min(len(pairs), COUNT_UNKNOWN)])
    for name, value in pairs:
        out += _length(name) + name + _length(value) + b"\x00" + value
    return bytes(out) + b"\xff"


def _length(part: bytes) -> bytes:
    return bytes([len(part)]) if len(part) < 0xFE else b"\xfe" + len(part).to_bytes(4, "little")
