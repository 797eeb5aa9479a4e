"""The two checksums of the wire: CRC64 of snapshots and payloads, CRC16 of cluster slots.

CRC64 is Jones' polynomial 0xAD93D23594C935A9, reflected, start 0, no final XOR; it stands little-endian in the last 8 bytes. `anycrc` runs
it at many GB/s. CRC16 is CCITT (XMODEM), start 0, as `binascii.crc_hqx` has it; a slot is its lowest 14 bits.

Source: crc64.c (check value: "123456789" gives E9C6D914C4B8D9CA) and cluster.c keyHashSlot.
"""

from __future__ import annotations

from binascii import crc_hqx

from anycrc import Model

__all__ = ["SLOTS", "combine", "crc64", "key_slot"]

SLOTS = 16384

_CRC64 = Model("CRC64-REDIS")


def crc64(data: bytes | bytearray | memoryview, crc: int = 0) -> int:
    """CRC64 of `data`, continued from `crc`, the checksum of what stands before it."""
    return int(_CRC64.calc(data, crc))


def combine(first: int, second: int, second_size: int) -> int:
    """CRC64 of A and B one after the other, from the CRC64 of A, that of B, and B's size in bytes."""
    if second_size == 0:
        return first
    return int(_CRC64.combine(first, second, second_size))


def key_slot(key: bytes) -> int:
    """The cluster slot of `key`, 0 to 16383: of the part between the first { and the next }, where there is one and it is not empty."""
    start = key.find(b"{")
    if start >= 0:
        stop = key.find(b"}", start + 1)
        if stop > start + 1:
            key = key[start + 1 : stop]
    return crc_hqx(key, 0) & (SLOTS - 1)
