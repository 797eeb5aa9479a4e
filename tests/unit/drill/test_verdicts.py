"""All checkers together: never against a valid run, always against one that was tampered with, in bounded memory."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.drill_model import Case, edited, simulated
from valkeep.drill.checkers import verdicts as module
from valkeep.drill.checkers.evidence import FinalState
from valkeep.drill.checkers.reigns import Bound, Reign
from valkeep.drill.checkers.verdicts import Context, Verdicts, check_all
from valkeep.drill.history import History, Operation, Outcome

ROOT = Path(__file__).parents[3]
seeds = st.integers(0, 1 << 32)


def verdicts_of(case: Case, **context: Any) -> Verdicts:
    return check_all(case.history, case.final, replace(case.context, **context))


@given(seeds, st.integers(1, 4), st.sampled_from([0.0, 0.1, 0.4]), st.integers(1, 5))
def test_a_valid_run_is_never_condemned_by_any_checker(seed: int, reigns: int, maybe: float, clients: int) -> None:
    found = verdicts_of(simulated(seed, reigns=reigns, maybe=maybe, clients=clients, batches=16))
    assert {judgement.checker: judgement.counts for judgement in found.judgements if judgement.verdict != "valid"} == {}
    assert found.loss is not None
    assert len(found.lost_operations) == found.loss.lost


@st.composite
def tampered(draw: st.DrawFn) -> tuple[Case, str]:
    """A valid run of one reign with one thing wrong at the end, and what it is."""
    case = simulated(draw(seeds), reigns=1, maybe=draw(st.sampled_from([0.0, 0.2])), batches=20)
    final = case.final
    acked: dict[str, list[Operation]] = {}
    for operation in case.history:
        if operation.outcome is Outcome.OK:
            acked.setdefault(operation.function, []).append(operation)

    def one(function: str) -> Operation:
        return draw(st.sampled_from(acked[function]))

    ways = ["journal lost", "journal duplicated", "journal swapped", "journal foreign"]
    ways += ["counter lost", "counter foreign"] if "incr" in acked else []
    ways += ["member lost", "member foreign"] if "add" in acked else []
    ways += ["pair torn", "pair foreign"] if final.pairs else []
    ways += ["register foreign"] if final.registers else []
    way = draw(st.sampled_from(ways))
    if way.startswith("journal"):
        chosen = one("append")
        elements = list(final.journals[chosen.key])
        if way == "journal lost":
            elements.remove(chosen.value)  # type: ignore[arg-type]
        elif way == "journal duplicated":
            elements.append(chosen.value)  # type: ignore[arg-type]
        elif way == "journal foreign":
            elements.insert(draw(st.integers(0, len(elements))), 77)
        else:
            elements = [*reversed(elements)] if len(set(elements)) > 1 else [*elements, 77]
        return replace(case, final=replace(final, journals=_with(final.journals, chosen.key, elements))), way
    if way.startswith("counter"):
        key = one("incr").key
        found = 0 if way == "counter lost" else 10_000
        return replace(case, final=replace(final, counters=_with(final.counters, key, found))), way
    if way.startswith("member"):
        chosen = one("add")
        members = {*final.sets[chosen.key], 77} - ({chosen.value, 77} if way == "member lost" else set())
        return replace(case, final=replace(final, sets=_with(final.sets, chosen.key, members))), way
    if way.startswith("pair"):
        key, (value, _) = draw(st.sampled_from(sorted(final.pairs.items())))
        return replace(case, final=replace(final, pairs=_with(final.pairs, key, (77, 77) if way == "pair foreign" else (value, 77)))), way
    key = draw(st.sampled_from(sorted(final.registers)))
    return replace(case, final=replace(final, registers=_with(final.registers, key, 77))), way


def _with(found: Mapping[bytes, Any], key: bytes, value: Any) -> dict[bytes, Any]:
    return {**found, key: value}


@given(tampered())
def test_one_thing_wrong_at_the_end_of_a_run_without_a_failover_is_always_caught(case: tuple[Case, str]) -> None:
    run, way = case
    assert verdicts_of(run).verdict == "invalid", way


@given(seeds)
def test_acked_writes_of_a_primary_that_nobody_deposed_are_missed(seed: int) -> None:
    """The successor without what it should have begun with: as if a replica that was far behind had been promoted on the quiet."""
    case = simulated(seed, reigns=2)
    innocent = tuple(replace(reign, deposed=None) for reign in case.context.reigns)
    found = verdicts_of(case, reigns=innocent)
    there = {element for elements in case.final.journals.values() for element in elements}
    lost = [o for o in case.history.of("append") if o.outcome is Outcome.OK and o.value not in there]
    assert found.loss is not None
    assert found.loss.wrong.get("unexplained", 0) == len(lost)
    assert (found.verdict == "invalid") >= bool(lost)


def test_judgements_are_those_whose_functions_the_history_has() -> None:
    case = simulated(3)
    assert [judgement.checker for judgement in verdicts_of(case).judgements] == [
        "loss", "journals", "registers", "monotonic", "counters", "sets", "pairs", "streams", "availability", "host",
    ]  # fmt: skip
    appends = edited(case.history, lambda o: o if o.function == "append" else None)
    only = check_all(appends, case.final, replace(case.context, slots=(), redirects=()))
    assert [judgement.checker for judgement in only.judgements] == ["loss", "journals", "availability", "coverage", "redirects", "host"]
    assert only.redirects is not None
    assert only.availability is not None


def test_a_stall_excuses_what_came_too_late_and_nothing_else() -> None:
    case = next(case for case in map(simulated, range(100)) if (loss := verdicts_of(case).loss) is not None and loss.lost > 3)
    late = tuple(
        reign if reign.deposed is None else replace(reign, deposed=replace(reign.deposed, bound=Bound(until=0)))
        for reign in case.context.reigns
    )
    for stalls, verdict in ((((0, 600.0),), "unknown"), ((), "invalid")):
        found = verdicts_of(case, reigns=late, stalls=stalls, timeout_ms=1000)
        assert found.verdict == verdict
        assert (found.judgements[0].checker, found.judgements[0].verdict, set(found.judgements[0].counts)) == ("loss", verdict, {"beyond"})
    innocent = tuple(replace(reign, deposed=None) for reign in case.context.reigns)
    assert verdicts_of(case, reigns=innocent, stalls=((0, 600.0),), timeout_ms=1000).verdict == "invalid"


def test_a_checker_that_fails_says_unknown_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise KeyError("bug")

    monkeypatch.setattr(module, "check_increments", fails)
    found = verdicts_of(simulated(3))
    assert {judgement.checker for judgement in found.judgements if judgement.verdict == "unknown"} == {"counters"}
    assert found.verdict == "unknown"


def test_a_history_that_can_not_be_read_by_columns_is_unknown_not_valid() -> None:
    history = History()
    history.ok(history.invoke(1, "write", b"r:{a}:0", b"text", 1), 2, "n1")
    found = check_all(history, FinalState(), Context((Reign("n1"),)))
    assert found.verdict == "unknown"
    assert "numbers only" in found.judgements[0].note


def test_everything_found_can_be_written_as_json() -> None:
    found = verdicts_of(simulated(3), slots=(), redirects=())
    assert found.loss is not None
    assert found.availability is not None
    assert found.coverage is not None
    assert found.redirects is not None
    parts: list[Any] = [found.loss, found.availability, found.coverage, found.redirects, *found.judgements]
    assert json.loads(json.dumps([part.to_json() for part in parts]))
    assert str(found.loss).endswith("lost") or "were lost:" in str(found.loss)


def test_a_hundred_thousand_operations_are_judged_in_little_memory() -> None:
    """The bench in small: a million operations may take 1 GB, and take some 150 MB."""
    command = [sys.executable, str(ROOT / "bench" / "check.py"), "--operations", "100000", "--json", "-"]
    found = json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, timeout=100).stdout)
    assert found["verdict"] == "valid"
    assert found["lost"] > 1000
    assert found["peak_mb"] < 200


def test_every_checker_and_every_kind_of_anomaly_of_a_drill_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference" / "checkers.md").read_text()
    for_drills = [
        path for path in (ROOT / "src/valkeep/drill/checkers").glob("*.py") if path.stem not in ("expiry", "failover", "registers")
    ]
    code = "\n".join(path.read_text() for path in for_drills)
    kinds = set(re.findall(r"""findings\.add\(\s*"([a-z-]+)\"""", code)) | {"unexplained", "hole", "beyond", "lost", "resurrected", "stale"}
    documented = set(re.findall(r"`([a-z-]+)`", page))
    assert kinds <= documented
    case = simulated(3)
    names = {judgement.checker for judgement in verdicts_of(case, slots=(), redirects=()).judgements} | {"streams", "pubsub"}
    assert names <= documented
