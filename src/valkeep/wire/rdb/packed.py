"""Tells a handler what is in the packed values: ziplists, listpacks, intsets and zipmaps, each whole in memory.

Source: rdb.c rdbLoadObject of Redis 2.8 to 8.4 and Valkey 7.2 to 9.1.
"""

from __future__ import annotations

from valkeep.errors import RemoteProtocolError

from .. import zipmap
from ..intset import Reader as IntsetReader
from ..listpack import Reader as ListpackReader
from ..ziplist import Reader as ZiplistReader
from .handler import Handler
from .opcodes import (
    SHAPE_HASH_LISTPACK,
    SHAPE_HASH_TRIPLES,
    SHAPE_HASH_TRIPLES_BARE,
    SHAPE_HASH_ZIPLIST,
    SHAPE_HASH_ZIPMAP,
    SHAPE_LIST_ZIPLIST,
    SHAPE_SET_INTSET,
    SHAPE_SET_LISTPACK,
    SHAPE_ZSET_ZIPLIST,
)

__all__ = ["Packed", "score_of"]


def score_of(digits: bytes) -> float:
    """A score as sorted sets store it in digits. RemoteProtocolError when it is none."""
    try:
        if b"_" not in digits:
            return float(digits)
    except ValueError:
        pass
    raise RemoteProtocolError(
        f"{digits[:64]!r} is no score", remedy="the snapshot or payload is damaged: take it again, and check the source with its own tools"
    )


class Packed:
    """The readers of packed values, used again for every record."""

    __slots__ = ("intset", "listpack", "ziplist")

    def __init__(self) -> None:
        self.intset = IntsetReader()
        self.listpack = ListpackReader()
        self.ziplist = ZiplistReader()

    def tell(self, handler: Handler, shape: int, blob: bytes) -> None:
        """Call `handler` for each element of `blob`, the value of a record of `shape`."""
        if shape == SHAPE_HASH_LISTPACK:
            self.pairs_of_listpack(handler, blob, True)
        elif shape == SHAPE_SET_LISTPACK:
            self.members_of_listpack(handler, blob)
        elif shape == SHAPE_SET_INTSET:
            self.members_of_intset(handler, blob)
        elif shape in (SHAPE_HASH_TRIPLES, SHAPE_HASH_TRIPLES_BARE):
            self.triples_of_listpack(handler, blob)
        elif shape == SHAPE_LIST_ZIPLIST:
            self.items_of_ziplist(handler, blob)
        elif shape in (SHAPE_HASH_ZIPLIST, SHAPE_ZSET_ZIPLIST):
            self.pairs_of_ziplist(handler, blob, shape == SHAPE_HASH_ZIPLIST)
        elif shape == SHAPE_HASH_ZIPMAP:
            for name, value in zipmap.fields(blob):
                handler.field(name, value, -1)
        else:
            self.pairs_of_listpack(handler, blob, False)

    def items_of_ziplist(self, handler: Handler, blob: bytes) -> None:
        reader = self.ziplist
        reader.open(blob)
        value = reader.next()
        while value is not None:
            handler.item(value)
            value = reader.next()

    def items_of_listpack(self, handler: Handler, blob: bytes) -> None:
        reader = self.listpack
        reader.open(blob)
        value = reader.next()
        while value is not None:
            handler.item(value)
            value = reader.next()

    def members_of_listpack(self, handler: Handler, blob: bytes) -> None:
        reader = self.listpack
        reader.open(blob)
        value = reader.next()
        while value is not None:
            handler.member(value)
            value = reader.next()

    def members_of_intset(self, handler: Handler, blob: bytes) -> None:
        reader = self.intset
        reader.open(blob)
        value = reader.next()
        while value is not None:
            handler.member(value)
            value = reader.next()

    def pairs_of_ziplist(self, handler: Handler, blob: bytes, is_hash: bool) -> None:
        reader = self.ziplist
        reader.open(blob)
        first = reader.next()
        while first is not None:
            second = reader.next()
            if second is None:
                raise reader.broken("has an odd number of entries where pairs must be")
            if is_hash:
                handler.field(first, second, -1)
            else:
                handler.scored(first, score_of(second))
            first = reader.next()

    def pairs_of_listpack(self, handler: Handler, blob: bytes, is_hash: bool) -> None:
        reader = self.listpack
        reader.open(blob)
        first = reader.next()
        while first is not None:
            second = reader.next()
            if second is None:
                raise reader.broken("has an odd number of entries where pairs must be")
            if is_hash:
                handler.field(first, second, -1)
            else:
                handler.scored(first, score_of(second))
            first = reader.next()

    def triples_of_listpack(self, handler: Handler, blob: bytes) -> None:
        reader = self.listpack
        reader.open(blob)
        name = reader.next()
        while name is not None:
            value = reader.next()
            if value is None:
                raise reader.broken("has a field without a value")
            expire_ms = reader.integer()
            if expire_ms < 0 or expire_ms > 0xFFFFFFFFFFFF:  # ebuckets.h EB_EXPIRE_TIME_MAX
                raise reader.broken(f"says that a field expires at {expire_ms}")
            handler.field(name, value, expire_ms if expire_ms > 0 else -1)
            name = reader.next()
