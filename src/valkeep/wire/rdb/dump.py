"""What DUMP gives and RESTORE takes, of a key as of functions: a body, sealed.

    <body> <2 bytes LE: RDB version> <8 bytes LE: CRC64 of all before it>

A key's body is its type and value; that of functions is their opcodes and code, and empty where there are none. There is no magic: version 80 and
later is Valkey's. Servers refuse a payload of a version above their own, or with a wrong checksum; so whatever crosses is opened here, and sealed
again for the target.

Source: cluster.c createDumpPayload and verifyDumpPayload, functions.c functionDumpCommand.
"""

from __future__ import annotations

from typing import Final

from valkeep.errors import RemoteProtocolError

from ..checksum import crc64
from .opcodes import DIALECT_REDIS, DIALECT_VALKEY, Header

__all__ = ["opened", "sealed"]

SEAL: Final = 10  # bytes


def opened(payload: bytes) -> tuple[memoryview, Header]:
    """The body, as a view of the payload, and whose version it is. Raises RemoteProtocolError where the checksum does not fit; one of zero is not
    accepted."""
    end = len(payload) - SEAL
    if end < 0:
        raise RemoteProtocolError(f"a payload of {len(payload)} bytes is too short to be one", remedy="take the payload again with DUMP")
    stored = int.from_bytes(payload[end + 2 :], "little")
    view = memoryview(payload)
    computed = crc64(view[: end + 2])
    if stored != computed:
        raise RemoteProtocolError(
            f"the payload's checksum says {stored:016x}, its bytes make {computed:016x}",
            remedy="take the payload again with DUMP, and check the way it came",
        )
    version = int.from_bytes(payload[end : end + 2], "little")
    return view[:end], Header(DIALECT_VALKEY if version >= 80 else DIALECT_REDIS, version)


def sealed(body: bytes | bytearray | memoryview, version: int) -> bytes:
    """The body as a payload of this RDB version."""
    mark = version.to_bytes(2, "little")
    return b"".join((body, mark, crc64(mark, crc64(body)).to_bytes(8, "little")))
