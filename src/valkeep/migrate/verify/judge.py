"""One key as two servers showed it: the same, or how not. Pure."""

from __future__ import annotations

import secrets
import sys

from valkeep.migrate.keyread import Seen
from valkeep.migrate.verify.mode import Mode
from valkeep.wire.rdb.decode import decode_payload
from valkeep.wire.rdb.handler import Handler
from valkeep.wire.rows import ROW_SIZE
from valkeep.wire.spiller import Spiller, policy

__all__ = ["is_hash", "judge", "value_digest"]

FOOTER = 10  # bytes of a payload: version, CRC64
FIELD_TTL = range(22, 26)  # type numbers of hashes whose fields may expire; those below mean the same in every dialect
_KEY = secrets.token_bytes(16)


def is_hash(payload: bytes) -> bool:
    """Whether a payload holds a hash, in whatever form (the numbers are in `wire.rdb.opcodes.TYPES`)."""
    return payload[0] in (4, 9, 13, 16) or payload[0] in FIELD_TTL


class _Live(Handler):
    """Hands a record on without the fields that had expired by ``deadline``."""

    def __init__(self, inner: Handler, deadline: int) -> None:
        self.inner = inner
        self.deadline = deadline
        self.left_out = 0
        self.fields = 0

    def begin(self, dialect: int, version: int) -> None:
        self.inner.begin(dialect, version)

    def begin_key(self, key: bytes, expire_ms: int, kind: int, freq: int, idle: int) -> None:
        self.inner.begin_key(key, expire_ms, kind, freq, idle)

    def field(self, name: bytes, value: bytes, expire_ms: int) -> None:
        if 0 <= expire_ms <= self.deadline:
            self.left_out += 1
        else:
            self.fields += 1
            self.inner.field(name, value, expire_ms)

    def end_key(self) -> None:
        self.inner.end_key()


def value_digest(payload: bytes, mode: Mode, deadline: int = 0) -> tuple[bytes, int]:
    """(digest of the value under the policy ``mode``, earliest expiry of a field or -1); b"" when nothing is left of it.

    ``deadline``: unix ms; fields that expired by then are left out (0: none are).
    """
    spiller = Spiller(_KEY, policy(mode), 1)
    if deadline and payload[0] in FIELD_TTL:
        live = _Live(spiller, deadline)
        decode_payload(payload, live)
        if live.left_out and not live.fields:
            return b"", -1
    else:
        decode_payload(payload, spiller)
    row = spiller.rows[0]
    if len(row) < ROW_SIZE:
        return b"", -1
    return bytes(row[16:32]), int.from_bytes(row[40:48], sys.byteorder, signed=True)


def judge(source: Seen | None, target: Seen | None, mode: Mode, deadline: int) -> str:
    """``equal | expired | missing | extra | different | expiry``. ``mode``: the policy for the source's fields that expire.

    ``deadline``: unix ms by whichever server's clock is later, read after both were asked.
    """
    if source is None and target is None:
        return "equal"
    gone_source = source is not None and 0 <= source.expire_ms <= deadline
    gone_target = target is not None and 0 <= target.expire_ms <= deadline
    if source is None or target is None:
        if gone_source or gone_target:
            return "expired"
        one = source or target
        assert one is not None
        side = mode if target is None else Mode.EXACT
        if value_digest(one.payload, side)[0] == b"" or value_digest(one.payload, side, deadline)[0] == b"":
            return "equal"  # the policy or time has left nothing of it
        return "missing" if target is None else "extra"
    if gone_source and gone_target:
        return "expired"
    values = _same_value(source.payload, target.payload, mode, deadline)
    if values is None:
        return "extra"
    if not values:
        return "different"
    if source.expire_ms == target.expire_ms:
        return "equal"
    both = source.expire_ms >= 0 and target.expire_ms >= 0
    close = both and abs(source.expire_ms - target.expire_ms) <= source.tolerance + target.tolerance
    return "equal" if close else "expiry"


def _same_value(source: bytes, target: bytes, mode: Mode, deadline: int) -> bool | None:
    """None: under the policy the target should not have the key at all."""
    if source[0] < FIELD_TTL.start and source[:-FOOTER] == target[:-FOOTER]:
        return True  # the same bytes of a type that means the same in every version
    one, first_source = value_digest(source, mode)
    other, first_target = value_digest(target, Mode.EXACT)
    if one == other:
        return True
    if 0 <= first_source <= deadline or 0 <= first_target <= deadline:
        live = value_digest(source, mode, deadline)[0]
        if live == value_digest(target, Mode.EXACT, deadline)[0]:
            return True
    return None if one == b"" else False
