"""The snapshot that a target gets, as it is written: gathered into pieces of some size, and sealed with its own checksum."""

from __future__ import annotations

from collections.abc import Callable

from valkeep.wire.checksum import crc64

__all__ = ["Bytes", "Output"]

Bytes = bytes | bytearray | memoryview

_WRITE_BYTES = 1 << 18


class Output:
    """What is sent goes to ``write``, in order. ``held``: what waits for more, appended to by converters."""

    def __init__(self, write: Callable[[Bytes], object]) -> None:
        self.held = bytearray()
        self._write = write
        self._crc = 0

    def send(self, data: Bytes) -> None:
        if len(data) >= _WRITE_BYTES:
            self.flush()
            self._crc = crc64(data, self._crc)
            self._write(data)
        else:
            self.held += data
            if len(self.held) >= _WRITE_BYTES:
                self.flush()

    def flush(self) -> None:
        if self.held:
            self._crc = crc64(self.held, self._crc)
            self._write(self.held)
            self.held = bytearray()

    def seal(self) -> None:
        """Write the checksum of all that was sent."""
        self.flush()
        self._write(self._crc.to_bytes(8, "little"))
