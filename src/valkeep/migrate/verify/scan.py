"""One side where PSYNC is denied (managed services): SCAN and DUMP in place of a snapshot. Slower, and just as sound.

There is no one moment: each key is read at some moment between the beginning and the end. The source's offset is read at the *end*, so every
key that was written on the source in all that time counts as written and is looked at again; one that was not had one value all the
time, whenever it was read. SCAN returns every key that is there from beginning to end, some twice: a comparison knows duplicates.
"""

from __future__ import annotations

import time

from valkeep.client.connection import Connection
from valkeep.client.endpoint import Endpoint
from valkeep.client.server_info import server_info
from valkeep.migrate.verify.functions import libraries_of
from valkeep.migrate.verify.look import Eye
from valkeep.migrate.verify.side import Progress, Snapshot, Spill

__all__ = ["read_by_scan"]

COUNT = 1000  # keys that one SCAN walks over


async def read_by_scan(endpoint: Endpoint, spill: Spill, progress: Progress) -> Snapshot:
    """As `side.read_snapshot`. Raises ``Refused`` where SCAN or DUMP is not permitted either."""
    begun = told = time.monotonic()
    try:
        async with await Connection.open(endpoint.without_database(), client_name="valkeep-verify") as connection:
            info = await server_info(connection)
            eye = Eye(connection, info)
            for database in sorted(info.keys):
                cursor: bytes = b"0"
                while True:
                    await eye.select(database)
                    cursor, names = await connection.call("SCAN", cursor, "COUNT", COUNT)
                    for part in await eye.parts([(database, name) for name in names]):
                        looked = await eye.look(part)
                        for (_, name), one in zip(part, looked.seen, strict=True):
                            if one is not None:
                                spill.payload(database, name, one.expire_ms, one.payload)
                        spill.settled()
                    if time.monotonic() - told > 0.25:
                        told = time.monotonic()
                        progress(spill.spiller.keys, spill.bytes)
                    if cursor == b"0":
                        break
            functions = await libraries_of(connection)
        spill.finish_payloads()
    finally:
        spill.close()
    progress(spill.spiller.keys, spill.bytes)
    return Snapshot(spill.spiller.keys, spill.bytes, time.monotonic() - begun, functions, 0)
