"""What a node's machine would lose if it went down now: the bytes that were written and not synced.

    files = SyncedFiles(directory, table)        before the first start
    files.prepare(); launch with files.environment
    files.watches(pid)                           whether it really is watched
    kill; files.lose_unsynced()                  power is back: start it again

The server runs with a small library preloaded (`synced_shim.c`), which notes in ``table`` how far each file was synced. Then the machine's
death is played: the process is killed and every file of its folder is cut back to that length.

The model: *data* is on disk when a sync that began after it was written has returned, and not before; *names* (creating, renaming,
removing a file) are on disk at once. Real file systems are at most this forgetful about data, and some keep more; about names they can be
more forgetful, which servers answer with a sync of the folder, and which is not played. What was in the folder before the first start is
on disk.

The library is compiled when Valkeep is installed (Linux with a C compiler; wheels have it). Without it, or with a server that can't load it
(linked statically), there is no machine crash: `SyncedFiles` refuses, and no verdict is built on a guess.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
from pathlib import Path
from typing import Final

from valkeep.errors import Refused

__all__ = ["OURS", "SyncedFiles", "shim", "unavailable"]

OURS: Final = frozenset({"node.conf", "node.log"})
"""Files of a node's folder that Valkeep wrote, or reads as the evidence: a crash leaves them alone."""
_CAPACITY: Final = 4096
_ENTRY: Final = struct.Struct("=QQ")  # inode, synced bytes
_REMEDY: Final = "install Valkeep where a C compiler is (Linux), or use its wheel; appendfsync can not be judged without it"


def shim() -> Path | None:
    """The compiled library, where it is."""
    found = sorted(Path(__file__).parent.glob("synced_shim.*.so")) if sys.platform == "linux" else []
    return found[0] if found else None


def unavailable() -> str:
    """Why no machine crash can be played here; "" where it can."""
    if sys.platform != "linux":
        return "what is synced can only be watched on Linux"
    library = shim()
    if library is None:
        return "the library that watches what a server syncs was not compiled"
    return f"LD_PRELOAD takes no path with spaces or colons: {library}" if any(sign in str(library) for sign in " :") else ""


class SyncedFiles:
    """Of the node whose files are in ``directory``; ``table`` lies outside of it. Raises ``Refused`` where they can't be watched."""

    def __init__(self, directory: Path, table: Path) -> None:
        why_not = unavailable()
        if why_not:
            raise Refused(f"no machine crash can be played: {why_not}", remedy=_REMEDY)
        self.directory, self.table = directory, table

    @property
    def environment(self) -> dict[str, str]:
        """For the server's process."""
        loaded = filter(None, (str(shim()), os.environ.get("LD_PRELOAD")))
        return {"LD_PRELOAD": ":".join(loaded), "VALKEEP_SYNCED": str(self.table)}

    def prepare(self) -> None:
        """Before a start. Only the first one finds no table: a killed process is no reason to forget what was not synced."""
        if not self.table.exists():
            self._write({path.stat().st_ino: path.stat().st_size for path in self._files()})

    def watches(self, pid: int) -> bool:
        """Whether the process with this number has loaded the library."""
        try:
            return str(shim()) in Path(f"/proc/{pid}/maps").read_text()
        except OSError:
            return False

    def synced(self) -> dict[str, int]:
        """File → how many of its bytes are on disk by now."""
        known = self._read()
        sizes: dict[str, int] = {}
        for path in self._files():
            with contextlib.suppress(FileNotFoundError):  # the server may be at work
                one = path.stat()
                sizes[str(path.relative_to(self.directory))] = min(known.get(one.st_ino, 0), one.st_size)
        return sizes

    def lose_unsynced(self) -> dict[str, int]:
        """Cut every file back to what was synced; the node must not run. File → bytes that it lost."""
        lost: dict[str, int] = {}
        for name, kept in self.synced().items():
            path = self.directory / name
            size = path.stat().st_size
            if kept < size:
                os.truncate(path, kept)
                lost[name] = size - kept
        self.table.unlink(missing_ok=True)  # what is left is on disk: the next start begins anew
        return lost

    def _files(self) -> list[Path]:
        return [path for path in sorted(self.directory.rglob("*")) if path.is_file() and not path.is_symlink() and path.name not in OURS]

    def _read(self) -> dict[int, int]:
        entries = _ENTRY.iter_unpack(self.table.read_bytes())
        return {inode: synced for inode, synced in entries if inode}

    def _write(self, known: dict[int, int]) -> None:
        slots = [(0, 0)] * _CAPACITY
        for inode, size in known.items():
            at = inode % _CAPACITY
            while slots[at][0]:
                at = (at + 1) % _CAPACITY
            slots[at] = (inode, size)
        fresh = self.table.with_suffix(".new")
        fresh.write_bytes(b"".join(_ENTRY.pack(*slot) for slot in slots))
        fresh.rename(self.table)
