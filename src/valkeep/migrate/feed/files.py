"""A server's data on the disk: one snapshot (RDB), one append-only file, or the parts of a multi-part AOF in their order.

What a file is, its first bytes say, and not its name: ``REDIS`` or ``VALKEY`` begin a snapshot, which commands may follow (an AOF with a
preamble); ``*`` or ``#`` begin commands. So each file is a snapshot, then commands, and either may be missing.

Files are opened once, at the beginning, and are what is read, whatever the names point to later. A file that is still written to is a mixture of
moments, and is refused: ``expect_unchanged`` looks at sizes and times again.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from valkeep.errors import Refused, UsageError, ValkeepError
from valkeep.migrate.feed.manifest import Manifest, parse_manifest

__all__ = ["Part", "DataFiles"]

PIECE = 1 << 18
_MANIFEST = ".manifest"
_LARGEST_MANIFEST = 1 << 20

_COMPRESSED = (
    (b"\x1f\x8b", "gzip", "gunzip"),
    (b"\x28\xb5\x2f\xfd", "zstd", "unzstd"),
    (b"\xfd7zXZ", "xz", "unxz"),
    (b"BZh", "bzip2", "bunzip2"),
    (b"PK\x03\x04", "a zip archive", "unzip"),
    (b"\x04\x22\x4d\x18", "lz4", "unlz4"),
)


@dataclass(frozen=True, slots=True)
class Part:
    """One file. ``size``: bytes of it when it was opened; ``snapshot``: whether it begins with one."""

    path: Path
    size: int
    snapshot: bool
    fd: int
    written: int  # st_mtime_ns

    def read(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes at ``offset``. Raises ``ValkeepError`` where the disk fails, or the file became shorter."""
        try:
            data = os.pread(self.fd, size, offset)
        except OSError as error:
            raise ValkeepError(
                f"{self.path} cannot be read at byte {offset}: {error.strerror}",
                remedy="check the disk that it is on, or copy the file to another one",
                code="VK-FILE-READ",
            ) from error
        if not data and size:
            raise _changed(self.path, f"it ends at byte {offset}, and had {self.size} bytes")
        return data


class DataFiles:
    """``with DataFiles.open(path) as files``. ``path``: as it was given, made absolute; ``parts``: in the order in which they are read, at least one."""

    def __init__(self, path: Path, parts: tuple[Part, ...], manifest: tuple[Path, bytes] | None) -> None:
        self.path = path
        self.parts = parts
        self._manifest = manifest

    @classmethod
    def open(cls, path: Path) -> DataFiles:
        """Open what is at ``path``: a file, a manifest, or a folder that has one. Raises ``ValkeepError``; nothing was read but first bytes."""
        if str(path) == "-":
            raise UsageError("standard input is no file: it has to be read twice", remedy="write the data to a file first, and give that")
        path = Path(os.path.abspath(path))  # noqa: PTH100 - no link is followed: messages name what was given
        if _status(path) is not None and path.is_dir():
            path = _manifest_in(path)
        if path.name.endswith(_MANIFEST):
            manifest, text = _read_manifest(path)
            names = [path.parent / name for name in manifest.files]
            return cls(path, _opened(names, base=bool(manifest.base)), (path, text))
        _expect_whole(path)
        return cls(path, _opened([path], base=True), None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for part in self.parts:
            os.close(part.fd)
        self.parts = ()

    def expect_unchanged(self) -> None:
        """Raises ``Refused`` when a file was written to, or replaced, since it was opened."""
        for part in self.parts:
            now, named = os.fstat(part.fd), _status(part.path)
            if (now.st_size, now.st_mtime_ns) != (part.size, part.written):
                raise _changed(part.path, f"it had {part.size} bytes, and has {now.st_size}")
            if named is None or (named.st_dev, named.st_ino) != (now.st_dev, now.st_ino):
                raise _changed(part.path, "another file is in its place now")
        if self._manifest is not None and _read_manifest(self._manifest[0])[1] != self._manifest[1]:
            raise _changed(self._manifest[0], "it says something else now")


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, error) from error


def _manifest_in(folder: Path) -> Path:
    try:
        found = sorted(folder.glob(f"*{_MANIFEST}"))
    except OSError as error:
        raise _unreadable(folder, error) from error
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError(
            f"{folder} is a folder without a {_MANIFEST} file: it is no multi-part AOF",
            remedy="give the file itself (dump.rdb, appendonly.aof), or the server's appenddirname",
        )
    raise UsageError(f"{folder} has {len(found)} manifests", remedy=f"give one of them: {', '.join(one.name for one in found)}")


def _read_manifest(path: Path) -> tuple[Manifest, bytes]:
    fd, status = _open(path)
    try:
        text = os.pread(fd, min(status.st_size, _LARGEST_MANIFEST), 0)
    except OSError as error:
        raise _unreadable(path, error) from error
    finally:
        os.close(fd)
    return parse_manifest(text.decode("utf-8", "backslashreplace"), str(path)), text


def _expect_whole(path: Path) -> None:
    """One part of a multi-part AOF holds what happened between two moments, or up to one long ago."""
    for other in _manifests_beside(path):
        try:
            parts = _read_manifest(other)[0].files
        except ValkeepError:
            continue
        if path.name in parts and len(parts) > 1:
            raise UsageError(
                f"{path} is one of the {len(parts)} parts that {other.name} names: alone it is not the data",
                remedy=f"give all of them: --read {other} (or copy the one file elsewhere, if it is what you want)",
            )


def _manifests_beside(path: Path) -> Iterator[Path]:
    try:
        yield from sorted(path.parent.glob(f"*{_MANIFEST}"))
    except OSError:
        return


def _opened(paths: list[Path], *, base: bool) -> tuple[Part, ...]:
    parts: list[Part] = []
    try:
        for number, path in enumerate(paths):
            parts.append(_part(path, may_be_empty=len(paths) > 1 or not base, may_have_snapshot=base and number == 0))
    except BaseException:
        for part in parts:
            os.close(part.fd)
        raise
    return tuple(parts)


def _part(path: Path, *, may_be_empty: bool, may_have_snapshot: bool) -> Part:
    fd, status = _open(path)
    try:
        try:
            head = os.pread(fd, 9, 0)
        except OSError as error:
            raise _unreadable(path, error) from error
        snapshot = _begins_with_snapshot(path, head, may_be_empty=may_be_empty)
        if snapshot and not may_have_snapshot:
            raise Refused(
                f"{path} is an increment of a multi-part AOF, and begins with a snapshot",
                remedy="the manifest names the files in another order than they were written: copy the whole folder again",
                code="VK-FILE-MANIFEST",
            )
        return Part(path, status.st_size, snapshot, fd, status.st_mtime_ns)
    except BaseException:
        os.close(fd)
        raise


def _begins_with_snapshot(path: Path, head: bytes, *, may_be_empty: bool) -> bool:
    if head.startswith((b"REDIS", b"VALKEY")):
        return True
    if head[:1] in (b"*", b"#") or (not head and may_be_empty):
        return False
    for magic, name, command in _COMPRESSED:
        if head.startswith(magic):
            raise UsageError(f"{path} is compressed ({name})", remedy=f"unpack it first ({command}); it has to be read twice")
    what = f"it begins with {head!r}" if head else "it is empty"
    raise UsageError(
        f"{path} is neither a snapshot nor an append-only file: {what}",
        remedy="give a dump.rdb, an appendonly.aof, or the folder of a multi-part AOF",
    )


def _open(path: Path) -> tuple[int, os.stat_result]:
    status = _status(path)
    if status is None:
        raise UsageError(f"there is no file {path}", remedy="check the path; of a multi-part AOF all files have to be there")
    if not stat.S_ISREG(status.st_mode):
        kind = "a pipe" if stat.S_ISFIFO(status.st_mode) else "a folder" if stat.S_ISDIR(status.st_mode) else "a device or a socket"
        raise UsageError(f"{path} is {kind} and no file: it has to be read twice", remedy="write the data to a file first, and give that")
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(path, error) from error
    return fd, os.fstat(fd)


def _unreadable(path: Path, error: OSError) -> ValkeepError:
    return ValkeepError(
        f"{path} cannot be read: {error.strerror}",
        remedy="permit it to this user (the servers' files are theirs alone)",
        code="VK-FILE-READ",
    )


def _changed(path: Path, how: str) -> Refused:
    return Refused(
        f"{path} is being written to: {how}. What is written to a file while it is read is not followed",
        remedy="stop its server or copy the file (BGSAVE makes a snapshot of one moment), and read that; or migrate from the running server: --source URL",
        code="VK-FILE-CHANGED",
    )
