"""The slot of a key that lies somewhere in a buffer: the hot paths' own, which make no object of it. Elsewhere: ``checksum.key_slot``.

CRC16 (XMODEM) of what stands between the first ``{`` and the next ``}``, where that is not empty, else of the whole key; its lowest 14 bits.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Buffer = bytes | bytearray | memoryview

__all__ = ["SlotHash"]

_MASK = 16383


class SlotHash:
    """It has the table, so one is made where it is needed."""

    def __init__(self) -> None:
        table = array("H")
        for byte in range(256):
            byte <<= 8
            for _ in range(8):
                byte = byte << 1 ^ (0x1021 if byte & 0x8000 else 0)
            table.append(byte & 0xFFFF)
        self._table = table

    def of(self, data: Buffer, pos: int, size: int) -> int:
        """Of ``data[pos : pos + size]``."""
        start = pos
        end = pos + size
        while start < end and data[start] != 123:
            start += 1
        start += 1
        stop = start
        while stop < end and data[stop] != 125:
            stop += 1
        if stop >= end or stop == start:
            start = pos
            stop = end
        crc = 0
        for i in range(start, stop):
            crc = ((crc << 8) & 0xFFFF) ^ self._table[((crc >> 8) ^ data[i]) & 0xFF]
        return crc & _MASK
