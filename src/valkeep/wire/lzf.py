"""LZF, the compression of RDB strings: copies of what stood before, and literal runs.

One instruction after the other, each begins with a control byte::

    000LLLLL <L + 1 bytes>                          a literal run of 1 to 32 bytes
    LLLOOOOO OOOOOOOO                               copy L + 2 bytes (3 to 8) from O + 1 bytes back
    111OOOOO LLLLLLLL OOOOOOOO                      copy L + 9 bytes (9 to 264) from O + 1 bytes back; the copy may overlap itself

Hostile input: the size that is claimed is checked against what so many compressed bytes could make before anything is allocated (3 bytes
make 264 at most), every instruction against both ends. Compression is here for writers and fixtures, simple rather than tight.

Source: lzf_d.c of Redis (Marc Lehmann's liblzf).
"""

from __future__ import annotations

from valkeep.errors import RemoteProtocolError

__all__ = ["compress", "decompress"]

LONGEST_COPY = 264
FARTHEST_COPY = 8192


def broken(what: str) -> RemoteProtocolError:
    return RemoteProtocolError(
        f"a compressed string {what}", remedy="the snapshot or payload is damaged: take it again, and check the source with its own tools"
    )


def decompress(data: bytes, size: int) -> bytes:
    """The `size` bytes that `data` is the compressed form of. RemoteProtocolError when it is not, or not of that size."""
    end = len(data)
    if size > end * LONGEST_COPY // 3 + LONGEST_COPY:
        raise broken(f"of {end} bytes claims to be {size} bytes long, which is not possible")
    out = bytearray(size)
    source = data  # compiled, these two are views
    target = out
    i = 0
    o = 0
    while i < end:
        control = source[i]
        i += 1
        if control < 32:
            length = control + 1
            if length > end - i or length > size - o:
                raise broken("has a literal run that goes past its end")
            while length > 0:
                target[o] = source[i]
                o += 1
                i += 1
                length -= 1
            continue
        length = control >> 5
        if length == 7:
            if i >= end:
                raise broken("ends inside an instruction")
            length += source[i]
            i += 1
        if i >= end:
            raise broken("ends inside an instruction")
        back = ((control & 0x1F) << 8 | source[i]) + 1
        i += 1
        length += 2
        if back > o:
            raise broken("copies from before its beginning")
        if length > size - o:
            raise broken("has a copy that goes past its end")
        while length > 0:
            target[o] = target[o - back]
            o += 1
            length -= 1
    if o != size:
        raise broken(f"claims to be {size} bytes long, and is {o}")
    return bytes(out)


def compress(data: bytes) -> bytes:
    """`data` in LZF. Never empty for data that is not; may be longer than `data` by one byte in 32."""
    out = bytearray()
    seen: dict[bytes, int] = {}
    run = bytearray()
    i = 0
    end = len(data)
    while i < end:
        chunk = data[i : i + 3]
        earlier = seen.get(chunk, -1) if len(chunk) == 3 else -1
        seen[chunk] = i
        if earlier < 0 or i - earlier > FARTHEST_COPY:
            run += data[i : i + 1]
            i += 1
            if len(run) == 32:
                out.append(31)
                out += run
                run.clear()
            continue
        if run:
            out.append(len(run) - 1)
            out += run
            run.clear()
        length = 3
        while length < LONGEST_COPY and i + length < end and data[earlier + length] == data[i + length]:
            length += 1
        back = i - earlier - 1
        if length < 9:
            out.append((length - 2) << 5 | back >> 8)
        else:
            out.append(7 << 5 | back >> 8)
            out.append(length - 9)
        out.append(back & 0xFF)
        i += length
    if run:
        out.append(len(run) - 1)
        out += run
    return bytes(out)
