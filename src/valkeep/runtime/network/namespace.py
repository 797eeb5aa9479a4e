"""A network of our own, without root: this process moves into new namespaces, and every child that it starts from then on is in them.

What ``unshare --net --map-current-user`` does, from within, so that Valkeep needs no wrapper around it:

* a *user* namespace (skipped where we may already administrate the system), in which we keep our user and group and hold all capabilities;
* a *network* namespace, whose only device is ``lo``: all of 127.0.0.0/8 and every port are ours, and its packet filter is ours to write.

Nothing of it has to be cleaned up: the namespaces end with the last process in them, also after a ``kill -9``.

There is no way back, and nothing outside can be reached any more by TCP. So a process enters once, early, and while it has one
thread: Linux moves threads, not processes, into namespaces, and a thread of a pool that was left outside would start servers there.

Where the user is not 0, capabilities are lost at ``exec``. Those for ``nft`` are made *ambient*, the one kind that is inherited by ordinary
programs. They are worth nothing outside of our namespaces.
"""

from __future__ import annotations

import array
import ctypes
import fcntl
import functools
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Final

from valkeep.errors import Refused

__all__ = ["enter", "entered", "possible"]

_NEWUSER, _NEWNET = 0x10000000, 0x40000000  # linux/sched.h
_NET_ADMIN, _SYS_ADMIN = 12, 21  # linux/capability.h
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 0x1  # linux/sockios.h, linux/if.h
_CAP_VERSION: Final = 0x20080522
_CAP_AMBIENT, _CAP_AMBIENT_RAISE = 47, 2  # linux/prctl.h

_REMEDY: Final = (
    "nothing needs to be done: the proxy is used instead; for namespaces allow them"
    " (sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0) or run as root"
)
_PROBE: Final = """\
import sys
sys.path.insert(0, sys.argv[1])
from valkeep.errors import ValkeepError
from valkeep.runtime.network import namespace, nft
try:
    namespace.enter()
    nft.check()
except ValkeepError as error:
    sys.exit(error.message)
"""

_entered = False


def entered() -> bool:
    """Whether this process has moved."""
    return _entered


@functools.lru_cache(maxsize=1)
def possible() -> str:
    """Why this machine can not give us namespaces and a packet filter; "" where it can. Tried in a child, some 50 ms, once."""
    if _entered:
        return ""
    if sys.platform != "linux":
        return "only Linux has network namespaces"
    source = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _PROBE, source],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
        stdin=subprocess.DEVNULL,
    )
    said = (done.stderr or done.stdout).strip().splitlines()
    return "" if done.returncode == 0 else (said[-1] if said else f"the probe ended with status {done.returncode}")


def enter() -> None:
    """Move this process. Raises ``Refused`` where it can not, or has threads. Does nothing the second time."""
    global _entered
    if _entered:
        return
    if sys.platform != "linux":
        raise Refused("only Linux has network namespaces", remedy="nothing stands between nodes here; the Compose runtime can cut them off")
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads > 1:
        raise Refused(
            f"this process has {threads} threads, and only a process with one can move into a namespace",
            remedy="enter it before threads start",
        )
    libc = ctypes.CDLL(None, use_errno=True)
    if _may_administrate():
        _call(libc.unshare(_NEWNET), "unshare the network")
    else:
        uid, gid = os.getuid(), os.getgid()
        _call(libc.unshare(_NEWUSER | _NEWNET), "unshare user and network")
        _write("setgroups", "deny")
        _write("uid_map", f"{uid} {uid} 1")
        _write("gid_map", f"{gid} {gid} 1")
        _keep_capabilities(libc)
    _entered = True
    _loopback_up()


def _may_administrate() -> bool:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            held = int(line.split()[1], 16)
            return bool(held >> _SYS_ADMIN & 1 and held >> _NET_ADMIN & 1)
    return False


def _call(result: int, what: str) -> None:
    if result != 0:
        raise Refused(f"no namespaces here: {what}: {os.strerror(ctypes.get_errno())}", remedy=_REMEDY)


def _write(name: str, text: str) -> None:
    try:
        Path("/proc/self", name).write_text(text)
    except OSError as error:
        raise Refused(f"no namespaces here: writing {name}: {error.strerror}", remedy=_REMEDY) from error


def _keep_capabilities(libc: ctypes.CDLL) -> None:
    """Inheritable and ambient: what ``nft`` needs, through ``exec``."""
    header = struct.pack("Ii", _CAP_VERSION, 0)
    held = ctypes.create_string_buffer(24)  # two of (effective, permitted, inheritable), 32 bits each
    _call(libc.capget(header, held), "capget")
    parts = list(struct.unpack("6I", held.raw))
    parts[2] |= parts[1] & (1 << _NET_ADMIN)
    _call(libc.capset(header, struct.pack("6I", *parts)), "capset")
    _call(libc.prctl(_CAP_AMBIENT, _CAP_AMBIENT_RAISE, _NET_ADMIN, 0, 0), "raise an ambient capability")


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = array.array("b", struct.pack("16sh22x", b"lo", 0))
        try:
            fcntl.ioctl(probe, _GET_FLAGS, request, True)
            (flags,) = struct.unpack_from("h", request, 16)
            struct.pack_into("h", request, 16, flags | _UP)
            fcntl.ioctl(probe, _SET_FLAGS, request)
        except OSError as error:
            raise Refused(f"no namespaces here: bringing lo up: {error.strerror}", remedy=_REMEDY) from error
