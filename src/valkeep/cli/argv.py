"""Passwords that were typed into a URL do not stay in the process's title.

What ``ps`` and ``/proc/PID/cmdline`` show is the process's own memory, from ``arg_start`` to ``arg_end`` (fields 48 and 49 of
``/proc/self/stat``, proc(5)). Python has long copied its arguments, so the password's bytes there can be overwritten in place:

    valkeep migrate run --source redis://user:secret@host …
    valkeep migrate run --source redis://user:******@host …

For the moment between the start of the process and this call they are visible, and a shell keeps its history: a password file or an
environment variable is better, and the reference says so. Linux only; elsewhere nothing happens.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["hide_passwords"]

# Up to the *last* @ of the argument: a password that should have been percent-encoded is hidden whole as well.
_PASSWORD = re.compile(rb"://[^:@/\0]*:([^\0]+)@")
_ARG_START, _ARG_END = 48, 49


def hide_passwords(argv: Sequence[str]) -> None:
    """Overwrite the passwords of URLs in this process's title with asterisks; never fails."""
    if not any("://" in argument and "@" in argument for argument in argv):
        return
    try:
        with open("/proc/self/stat", "rb") as file:  # noqa: PTH123 - pathlib is not imported for every start
            fields = file.read().rpartition(b")")[2].split()  # the name may hold spaces; what follows it begins with field 3
        start, end = int(fields[_ARG_START - 3]), int(fields[_ARG_END - 3])
        with open("/proc/self/cmdline", "rb") as file:  # noqa: PTH123
            title = file.read()
        if not 0 < start < end or len(title) > end - start:
            return
        import ctypes

        for match in _PASSWORD.finditer(title):
            ctypes.memset(start + match.start(1), ord("*"), len(match[1]))
    except (OSError, ValueError, IndexError, ImportError):
        return
