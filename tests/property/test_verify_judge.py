"""Two sightings of a key: equal however they are encoded, and where they are not, something can be said about it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.support.rdb_records import NOW, REDIS, VALKEY, Case, any_case, cases
from valkeep.migrate.keyread import Seen
from valkeep.migrate.verify.explain import explain
from valkeep.migrate.verify.judge import judge
from valkeep.migrate.verify.mode import Mode
from valkeep.wire.rdb.encode import dump_payload
from valkeep.wire.rdb.opcodes import KIND_MODULE

expiries = st.sampled_from([-1, NOW - 1, NOW, NOW + 5, NOW + 6])
anything = any_case() | st.sampled_from(cases())


def seen(case: Case, expire_ms: int = -1) -> Seen:
    return Seen(dump_payload(case.record(), case.dialect, case.version, case.choice()), expire_ms)


@given(anything)
def test_one_value_in_another_encoding_and_dialect_is_equal(case: Case) -> None:
    one = seen(case)
    if case.kind != KIND_MODULE:
        for dialect, version in ((REDIS, 12), (VALKEY, 80)):
            other = Seen(dump_payload(case.record(), dialect, version), -1)
            assert judge(one, other, Mode.EXACT, 0) == "equal"
            assert explain(one, other, Mode.EXACT) == ""
    assert judge(one, one, Mode.EXACT, 0) == "equal"


@given(st.none() | anything, st.none() | anything, expiries, expiries, st.sampled_from(Mode))
def test_any_two_sightings_are_judged_and_a_difference_is_explained(
    left: Case | None, right: Case | None, expires: int, other_expires: int, mode: Mode
) -> None:
    one = None if left is None else seen(left, expires)
    other = None if right is None else seen(right, other_expires)
    what = judge(one, other, mode, NOW)
    said = explain(one, other, mode)
    assert what in ("equal", "expired", "missing", "extra", "different", "expiry")
    if what in ("missing", "different", "expiry"):
        assert said
    if what == "expired":
        assert (one and 0 <= one.expire_ms <= NOW) or (other and 0 <= other.expire_ms <= NOW)
    if one is None or other is None:
        assert what not in ("different", "expiry")
