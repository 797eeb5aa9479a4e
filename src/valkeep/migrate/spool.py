"""The spool: what waits on disk, so that neither the source's output buffer nor our memory has to hold it.

Why a file and not memory: a target that loads a snapshot does not read its stream for minutes, a slow one for longer, and in that
time the source goes on writing. Whatever the source sends is drained at once and appended here; targets read at their own pace.
While they keep up, the pages they read are still in the page cache and no disk is touched.

A spool is an append-only log addressed by absolute offsets (the same numbers that PSYNC uses), cut into segments so that what every
target has acknowledged can be given back to the disk::

    start                                     end
      |.. segment ..|.. segment ..|.. segment |
      812           67109676      ...

Readers see what was *committed*. A stream is committed up to a place from which its writer could go on after a kill (`channel`); what stands behind
that, the beginning of a command or of a transaction, is on the disk and is not given out yet. Of everything else what is appended is committed.

After a kill -9 a spool is opened again: a write that the kernel took is there, whatever becomes of the process. ``reopen`` cuts what was appended
behind the end that its owner has recorded, and does not believe files that end before it.

Every failure of the disk is a ``ValkeepError`` that names the folder: who writes here, or reads, never sees an ``OSError``.

What it does not do: it is not durable across a crash of the machine (nothing is fsynced: after one, only a full sync helps), and it is not shared
between processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from valkeep.errors import LocalProtocolError, ValkeepError

__all__ = ["AsideFile", "Spool", "SpoolDamaged", "SpoolFull", "room", "spool_folder", "sweep"]

SEGMENT_BYTES = 64 << 20
FOLDER = "valkeep-spool-"


class SpoolFull(ValkeepError):
    """The spool's disk is full, or the spool reached the limit that was given for it."""

    code = "VK-SPOOL-FULL"


class SpoolDamaged(ValkeepError):
    """What is recorded to be on the spool is not there."""

    code = "VK-SPOOL-DAMAGED"


@dataclass(slots=True)
class _Segment:
    start: int  # absolute offset of its first byte
    end: int  # absolute offset after its last byte
    path: Path
    fd: int


class Spool:
    """An append-only log of bytes in ``directory``, addressed by absolute offsets; one writer, any number of readers, one event loop.

    ``start``, ``end``: absolute offsets of the first byte kept and after the last byte; ``committed``: up to there it can be read. ``staged``: what is appended
    waits for ``commit``. ``limit``: most bytes kept on disk (0: what the disk holds). The files are removed by ``close``, and kept by ``leave``.
    """

    def __init__(
        self, directory: Path, name: str, *, start: int = 0, limit: int = 0, segment_bytes: int = SEGMENT_BYTES, staged: bool = False
    ) -> None:
        self._set_up(directory, name, start, limit, segment_bytes, staged)
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _failed(directory, error) from error
        self._open_segment()

    def _set_up(self, directory: Path, name: str, start: int, limit: int, segment_bytes: int, staged: bool) -> None:
        self.directory = directory
        self.name = name
        self.start = start
        self.end = start
        self.committed = start
        self.limit = limit
        self.sealed = False
        self._staged = staged
        # a limited spool gives back in pieces that are small against its limit
        self._segment_bytes = min(segment_bytes, max(limit // 8, 1 << 16)) if limit else segment_bytes
        self._segments: list[_Segment] = []
        self._grown = asyncio.Event()

    @classmethod
    def reopen(
        cls,
        directory: Path,
        name: str,
        *,
        start: int | None = None,
        end: int | None = None,
        limit: int = 0,
        segment_bytes: int = SEGMENT_BYTES,
        staged: bool = False,
    ) -> Spool:
        """What an earlier process appended, from ``start`` (None: from what it had not given back) to ``end`` (None: all of it); what stands behind that is
        cut off.

        Raises `SpoolDamaged` where it does not reach from ``start`` to ``end`` without a gap.
        """
        found = sorted((int(path.name.rpartition("-")[2]), path) for path in directory.glob(f"{name}-*"))
        if not found:
            raise _damaged(directory, f"there is no {name}")
        if start is not None and found[0][0] != start:
            raise _damaged(directory, f"{name} begins at {found[0][0]}, and not at {start}")
        spool = cls.__new__(cls)
        spool._set_up(directory, name, found[0][0], limit, segment_bytes, staged)
        try:
            for first, path in found:
                if first != spool.end:
                    if end is not None and spool.end >= end:
                        path.unlink()  # behind what is recorded
                        continue
                    raise _damaged(directory, f"{name} has nothing from {spool.end} to {first}")
                fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                spool.end = first + os.fstat(fd).st_size
                spool._segments.append(_Segment(first, spool.end, path, fd))
            if end is not None:
                if not spool.start <= end <= spool.end:
                    raise _damaged(directory, f"{name} holds {spool.start} to {spool.end}, and {end} is recorded")
                spool._cut(end)
        except OSError as error:
            spool.leave()
            raise _failed(directory, error) from error
        except ValkeepError:
            spool.leave()
            raise
        spool.committed = spool.end
        return spool

    def append(self, data: bytes | bytearray | memoryview) -> None:
        """Write ``data`` at ``end``. Raises ``SpoolFull``; what was appended before stays readable."""
        view = memoryview(data)
        if self.sealed:
            raise LocalProtocolError(f"append to the sealed spool {self.name}", remedy="this is a bug of Valkeep: please report it")
        if self.limit and self.end + len(view) - self.start > self.limit:
            raise SpoolFull(
                f"the spool {self.name} reached its limit of {self.limit} bytes",
                remedy="raise --spool-limit, or find out why the target does not keep up (its log, its INFO replication)",
            )
        while view:
            segment = self._segments[-1]
            room = self._segment_bytes - (segment.end - segment.start)
            if room <= 0:
                self._open_segment()
                continue
            part = view[:room]
            try:
                written = os.pwrite(segment.fd, part, segment.end - segment.start)
            except OSError as error:
                raise _failed(self.directory, error, f" ({self.end - self.start} bytes of {self.name} are there)") from error
            segment.end += written
            self.end += written
            view = view[written:]
        if not self._staged:
            self.commit(self.end)

    def commit(self, offset: int) -> None:
        """What stands before ``offset`` can be read from now on."""
        self.committed = offset
        self._grown.set()

    def insert(self, data: bytes) -> None:
        """Put ``data`` before what is not committed yet: it begins at ``committed``, and is not committed either.

        Raises ``SpoolFull``; nothing has changed then, as what is not committed would be missing from what is appended next.
        """
        at, end = self.committed, self.end
        moved = data + b"".join(self._pieces(at, end))
        try:
            self.append(moved[end - at :])  # first what needs room
        except ValkeepError:
            self._cut(end)
            raise
        self._overwrite(at, memoryview(moved)[: end - at])

    def _overwrite(self, offset: int, view: memoryview) -> None:
        while view:
            segment = next(one for one in reversed(self._segments) if one.start <= offset)
            try:
                written = os.pwrite(segment.fd, view[: segment.end - offset], offset - segment.start)
            except OSError as error:
                raise _failed(self.directory, error) from error
            offset += written
            view = view[written:]

    def read(self, offset: int, limit: int) -> bytes:
        """At most ``limit`` bytes from ``offset`` on; empty at the end. ``offset`` must lie within [start, committed]."""
        if not self.start <= offset <= self.committed:
            raise LocalProtocolError(
                f"read of spool {self.name} at {offset}, which keeps {self.start}..{self.committed}",
                remedy="this is a bug of Valkeep: please report it",
            )
        limit = min(limit, self.committed - offset)
        return self._piece(offset, limit) if limit else b""

    def _pieces(self, offset: int, end: int) -> Iterator[bytes]:
        while offset < end:
            piece = self._piece(offset, end - offset)
            offset += len(piece)
            yield piece

    def _piece(self, offset: int, limit: int) -> bytes:
        for segment in reversed(self._segments):
            if segment.start <= offset < segment.end:
                size = min(limit, segment.end - offset)
                return _read(self.directory, segment.fd, size, offset - segment.start)
        return b""

    def seal(self) -> None:
        """Nothing more will be appended; readers waiting for growth wake up."""
        self.sealed = True
        self._grown.set()

    async def grown(self, beyond: int) -> None:
        """Return when ``committed`` is past ``beyond``, or the spool is sealed."""
        while self.committed <= beyond and not self.sealed:
            self._grown.clear()
            await self._grown.wait()

    def trim(self, offset: int) -> None:
        """Give segments that lie wholly before ``offset`` back to the disk."""
        while len(self._segments) > 1 and self._segments[0].end <= min(offset, self.committed):
            self._remove(self._segments.pop(0))
            self.start = self._segments[0].start

    def close(self) -> None:
        """Close and remove the files."""
        self.seal()
        while self._segments:
            self._remove(self._segments.pop())

    def leave(self) -> None:
        """Close, and leave the files where they are."""
        self.seal()
        while self._segments:
            os.close(self._segments.pop().fd)

    def _cut(self, end: int) -> None:
        """Take back what was appended behind ``end``."""
        while len(self._segments) > 1 and self._segments[-1].start >= end:
            self._remove(self._segments.pop())
        last = self._segments[-1]
        if last.end > end:
            try:
                os.ftruncate(last.fd, end - last.start)
            except OSError as error:
                raise _failed(self.directory, error) from error
            last.end = end
        self.end = last.end

    def _open_segment(self) -> None:
        path = self.directory / f"{self.name}-{self.end:020d}"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _failed(self.directory, error) from error
        self._segments.append(_Segment(self.end, self.end, path, fd))

    def _remove(self, segment: _Segment) -> None:
        os.close(segment.fd)
        try:
            segment.path.unlink(missing_ok=True)
        except OSError as error:
            raise _failed(self.directory, error) from error


class AsideFile:
    """A file in the spool's folder that exists only while it holds something: a large hash that waits for its count."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._size = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        try:
            if self._fd < 0:
                self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            while view:
                written = os.pwrite(self._fd, view, self._size)
                self._size += written
                view = view[written:]
        except OSError as error:
            raise _failed(self._path.parent, error) from error

    def chunks(self) -> Iterator[bytes]:
        """All of it, in pieces."""
        position = 0
        while position < self._size:
            piece = _read(self._path.parent, self._fd, min(1 << 20, self._size - position), position)
            position += len(piece)
            yield piece

    def clear(self) -> None:
        self._size = 0
        if self._fd >= 0:
            os.ftruncate(self._fd, 0)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._path.unlink(missing_ok=True)


def _read(directory: Path, fd: int, size: int, at: int) -> bytes:
    """Some of the ``size`` bytes that were written at ``at``, and at least one: a file that was cut short is no end of the data."""
    try:
        piece = os.pread(fd, size, at)
    except OSError as error:
        raise _failed(directory, error) from error
    if not piece:
        raise _failed(directory, OSError(errno.EIO, "a file in it was cut short"))
    return piece


def _damaged(directory: Path, what: str) -> SpoolDamaged:
    return SpoolDamaged(
        f"the spool in {directory} is not what was recorded: {what}",
        remedy="was something in it removed or restored? Start anew with a full sync: --fresh",
    )


def _failed(directory: Path, error: OSError, kept: str = "") -> ValkeepError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return SpoolFull(
            f"no space left for the spool in {directory}{kept}",
            remedy="free space there or choose another folder with --spool DIR; the source was not touched and goes on serving",
        )
    return ValkeepError(
        f"the spool in {directory} cannot be used: {error.strerror}",
        remedy="check the folder's permissions and disk, or choose another one with --spool DIR",
        code="VK-SPOOL-WRITE",
    )


@contextlib.contextmanager
def spool_folder(parent: Path) -> Iterator[Path]:
    """A new folder in ``parent``, removed at the end; first removes those whose Valkeep was killed. Raises ``ValkeepError`` where none can be made."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        sweep(parent)
        directory = Path(tempfile.mkdtemp(prefix=FOLDER, dir=parent))
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ValkeepError(
            f"no spool folder can be made in {parent}: {error.strerror}", remedy="choose another one: --spool DIR", code="VK-SPOOL-WRITE"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # while it is held, the folder is in use; a killed process holds nothing
        yield directory
    finally:
        os.close(lock)
        shutil.rmtree(directory, ignore_errors=True)


def room(folder: Path) -> int | None:
    """Bytes that are free where this folder is, or will be; None where that can't be known."""
    try:
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def sweep(parent: Path) -> None:
    """Remove spool folders that nobody uses any more."""
    for left in parent.glob(f"{FOLDER}*"):
        with contextlib.suppress(OSError):
            lock = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(lock)
