"""What a decoder tells its handler, as a list: to compare builds, chunkings and mutations."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from types import ModuleType
from typing import Any

from tests.support.interpreted import both
from valkeep.errors import ValkeepError

HANDLER_METHODS = (
    "begin", "aux", "select", "resize", "function", "module_aux", "slot_info", "slot_import", "key_meta", "begin_key", "string", "item",
    "member", "scored", "field", "stream_entry", "stream_meta", "group", "pending", "consumer", "owned", "module", "module_part", "end_key",
    "end",
)  # fmt: skip


def builds() -> list[tuple[ModuleType, ModuleType]]:
    """(rdb.decode, rdb.handler) as installed, and their interpreted twins."""
    return list(zip(both("rdb.decode"), both("rdb.handler"), strict=True))


def tracer(handler: ModuleType) -> tuple[Any, list[tuple[Any, ...]]]:
    """A handler of that build which keeps every call in `calls`."""
    calls: list[tuple[Any, ...]] = []

    def keep(name: str) -> Any:
        return lambda _self, *values: calls.append((name, *(repr(value) for value in values)))

    made = type("Tracer", (handler.Handler,), {name: keep(name) for name in HANDLER_METHODS})()
    return made, calls


def pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """`data` cut at the places of `cuts` (any integers)."""
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[start:stop] for start, stop in pairwise(places)]


def told(build: tuple[ModuleType, ModuleType], chunks: Iterable[bytes], max_blob: int = 1 << 20) -> list[tuple[Any, ...]]:
    """The calls of a decoder that was fed `chunks`, and how it ended: finished, cut short, or the error. Any other exception comes out."""
    decode, handler = build
    keep, calls = tracer(handler)
    decoder = decode.Decoder(keep, max_blob)
    try:
        for chunk in chunks:
            decoder.feed(chunk)
        decoder.close()
    except ValkeepError as error:
        calls.append((type(error).__name__, str(error), error.remedy))
        return calls
    calls.append(("finished", decoder.unused, decoder.offset))
    return calls
