"""A server's libraries of functions."""

from __future__ import annotations

from typing import Any

from valkeep.client.connection import Connection
from valkeep.errors import ServerError
from valkeep.migrate.verify.side import libraries

__all__ = ["functions_differ", "libraries_of"]


async def libraries_of(connection: Connection) -> dict[str, str]:
    """Library → digest of its code, as `side.libraries` makes it from a snapshot; {} on servers without functions (before 7.0)."""
    try:
        listed: list[Any] = await connection.call("FUNCTION", "LIST", "WITHCODE")
    except ServerError as error:
        if "unknown command" in error.text.lower():
            return {}
        raise
    codes = []
    for library in listed:
        fields = dict(zip(library[::2], library[1::2], strict=True)) if isinstance(library, list) else library
        codes.append(fields[b"library_code"])
    return libraries(codes)


def functions_differ(mine: dict[str, str], theirs: dict[str, str]) -> dict[str, str]:
    """Library → how the target's (``theirs``) differs from the source's."""
    differing = {}
    for name in sorted(mine.keys() | theirs.keys()):
        if mine.get(name) != theirs.get(name):
            uneven = next((told for told in (mine.get(name, ""), theirs.get(name, "")) if told.startswith("not ")), "")  # `shards.uneven`
            detail = uneven or (
                "not on the target" if name not in theirs else "not on the source" if name not in mine else "its code differs"
            )
            differing[name] = f"library of functions {name!r}: {detail}"
    return differing
