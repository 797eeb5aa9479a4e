"""Targets that read packed encodings and LZF."""

from __future__ import annotations

from random import Random

from tests.fuzz import seeds
from tests.fuzz.bits import PACKED
from tests.fuzz.oracle import Failure, Finding, Target, by_both, installed, same

_READ = {"listpack": "entries", "ziplist": "entries", "intset": "members", "zipmap": "fields"}


def check_packed(data: bytes, rng: Random) -> None:
    name, blob = PACKED[data[0] % len(PACKED)], data[1:]
    module = installed(name)
    found = by_both(name, lambda m: getattr(m, _READ[name])(blob))
    same(f"compiled and interpreted {name}", *found)
    if not isinstance(found[0], Failure) and name in ("listpack", "ziplist"):
        again = getattr(module, _READ[name])(module.build(found[0]))
        same(f"a {name} read, built and read", found[0], again)


def check_lzf(data: bytes, rng: Random) -> None:
    size, packed = int.from_bytes(data[:8], "little"), data[8:]
    # the claim is a number of the snapshot's: readers have checked it against their largest blob
    size &= (1 << 62) - 1
    found = by_both("lzf", lambda m: m.decompress(packed, size))
    same("compiled and interpreted decompress", *found)
    if not isinstance(found[0], Failure) and len(found[0]) != size:
        raise Finding(f"{len(found[0])} bytes instead of {size}")


TARGETS = (Target("packed", seeds.packed_blobs, check_packed), Target("lzf", seeds.compressed, check_lzf))
