"""The file of the keys that lost fields on the way (``--field-ttl drop-field``), for a gateway that goes on after a kill -9.

What the snapshot lost is written once, at its end; what the stream changes of it is appended, before the stream's own bytes are committed. How long the file
was at a checkpoint stands there, so that what was appended behind it is cut off: a database that was swapped twice would be where it was.
"""

from __future__ import annotations

import os
from pathlib import Path

from valkeep.errors import ValkeepError
from valkeep.migrate.spool import SpoolDamaged
from valkeep.migrate.transform.maybe import MaybeSet

__all__ = ["LostFields"]


class LostFields:
    """``size``: bytes written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._fd = -1

    def begin(self, lost: MaybeSet) -> None:
        """Write down what there is, and from now on whatever changes."""
        self._open(os.O_TRUNC)
        for piece in lost.dump():
            self._append(piece)
        lost.changed = self._append

    def reopen(self, size: int) -> MaybeSet:
        """What stood there when it had ``size`` bytes; it goes on from there. Raises ``SpoolDamaged``."""
        self._open(0)
        try:
            there = os.fstat(self._fd).st_size
            if there < size:
                raise ValueError(f"it has {there} bytes, and {size} were written to it")
            os.truncate(self._fd, size)
            lost = MaybeSet.loaded(os.pread(self._fd, size, 0))
        except (OSError, ValueError) as error:
            raise SpoolDamaged(f"{self.path} is not what was recorded: {error}", remedy="start anew with a full sync: --fresh") from error
        self.size = size
        lost.changed = self._append
        return lost

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)

    def _open(self, flags: int) -> None:
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | flags, 0o600)
        except OSError as error:
            raise self._unwritable(error) from error

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                written = os.pwrite(self._fd, view, self.size)
                self.size += written
                view = view[written:]
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> ValkeepError:
        return ValkeepError(
            f"{self.path} cannot be written: {error.strerror}",
            remedy="free space there or choose another folder with --spool DIR; the source was not touched and goes on serving",
            code="VK-STATE-WRITE",
        )
