"""Nothing may expire early on the target while the copy is behind: who is a primary expires keys by its own clock.

A key whose time runs out on its way, and whose owner renewed it on the source meanwhile, would be gone when the renewal arrives ("TTL renewal lost" is what
users of other tools report). Two remedies, and the report says which was in force:

    import-mode    Valkey 8.1 and later, where CONFIG SET is permitted: `import-mode yes`, and our connections say CLIENT IMPORT-SOURCE ON. Nothing expires
                   and nothing is evicted until the promotion; the source's DELs do it
    recopy         elsewhere: a renewal that finds no key (EXPIRE and its kind answer 0) makes that key be copied again. A key that expired early and was
                   then *written* to is not seen by this; the verification compares every written key, and finds it

The setting is in the state file before it is changed, and put back at the promotion and by an abort.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from valkeep.errors import ServerError

if TYPE_CHECKING:
    from valkeep.client.connection import Connection

__all__ = ["IMPORT_MODE", "RECOPY", "SETTING", "found", "forbid", "renewal_found_nothing"]

IMPORT_MODE: Final = "import-mode"
RECOPY: Final = "recopy"
SETTING: Final = "import-mode"


async def found(target: Connection) -> str:
    """The setting's value; "" where the target has none, or does not let us look."""
    try:
        reply = await target.call("CONFIG", "GET", SETTING)
    except ServerError:
        return ""
    return bytes(reply[1]).decode() if isinstance(reply, list) and len(reply) == 2 else ""


async def forbid(target: Connection, before: Mapping[str, str]) -> bool:
    """Make the target not expire anything by itself; whether it lets us. If not, the setting is as it was ``before``."""
    try:
        await target.call("CONFIG", "SET", SETTING, "yes")
    except ServerError:
        return False
    try:
        await target.call("CLIENT", "IMPORT-SOURCE", "ON")
    except ServerError:
        await target.call("CONFIG", "SET", SETTING, before[SETTING])
        return False
    return True


def renewal_found_nothing(reply: object) -> bool:
    """What EXPIRE and PERSIST (0), or HPEXPIREAT and HPERSIST (-2 for a field or the key), answer where there is nothing to be renewed."""
    return reply == 0 or (isinstance(reply, list) and -2 in reply)
