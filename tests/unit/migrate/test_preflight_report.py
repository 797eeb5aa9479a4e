"""From findings to verdict, acknowledgement, exit code, JSON and text; and the documentation of codes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.migrate.test_preflight_checks import SOURCE, TARGET, change
from valkeep.cli.migrate_preflight import _ask, acknowledged
from valkeep.errors import ExitCode, UsageError
from valkeep.migrate import fence
from valkeep.migrate.preflight.checks import Case, judge
from valkeep.migrate.preflight.codes import CODES, markdown
from valkeep.migrate.preflight.facts import Permission, ServerFacts, human
from valkeep.migrate.preflight.finding import Verdict
from valkeep.migrate.preflight.formats import rdb_version
from valkeep.migrate.preflight.gather import by_rules, rate_between
from valkeep.migrate.preflight.options import PreflightOptions
from valkeep.migrate.preflight.render import lines
from valkeep.migrate.preflight.report import PreflightReport

ROOT = Path(__file__).parents[3]


def report(source: ServerFacts = SOURCE, target: ServerFacts | None = TARGET) -> PreflightReport:
    options = PreflightOptions()
    return PreflightReport(judge(Case(source, target, options)), source, target, options, fence.decide(source), 1.0)


GO = report()
CONDITIONAL = report(replace(SOURCE, tls=False), replace(TARGET, tls=False, config={**(TARGET.config or {}), "tls-replication": "yes"}))
NO_GO = report(SOURCE, replace(TARGET, role="replica"))


def test_go_may_start_and_exits_good() -> None:
    assert GO.verdict is Verdict.GO
    assert GO.exit_code() is ExitCode.GOOD


def test_conditional_go_needs_every_code_acknowledged() -> None:
    assert CONDITIONAL.verdict is Verdict.CONDITIONAL_GO
    assert CONDITIONAL.conditions == ("VK-PLAINTEXT", "VK-REPLICATION-TLS")
    assert CONDITIONAL.exit_code() is ExitCode.JUDGED_BAD
    assert CONDITIONAL.exit_code(frozenset({"VK-PLAINTEXT"})) is ExitCode.JUDGED_BAD
    assert CONDITIONAL.open(frozenset({"VK-PLAINTEXT"})) == ("VK-REPLICATION-TLS",)
    assert CONDITIONAL.exit_code(frozenset({"VK-PLAINTEXT", "VK-REPLICATION-TLS"})) is ExitCode.GOOD


def test_no_go_can_not_be_acknowledged() -> None:
    assert NO_GO.verdict is Verdict.NO_GO
    assert NO_GO.exit_code(frozenset(row.code for row in CODES)) is ExitCode.JUDGED_BAD


def test_json_is_schema_1_and_says_all_that_a_script_needs() -> None:
    value = json.loads(json.dumps(CONDITIONAL.to_json(frozenset({"VK-PLAINTEXT"}))))
    assert value["schema"] == 1
    assert value["verdict"] == "CONDITIONAL-GO"
    assert value["may_start"] is False
    assert value["conditions"] == ["VK-PLAINTEXT", "VK-REPLICATION-TLS"]
    assert value["acknowledged"] == ["VK-PLAINTEXT"]
    assert value["to_acknowledge"] == ["VK-REPLICATION-TLS"]
    assert value["source"]["version"] == "7.2.4"
    assert value["target"]["product"] == "Valkey 8.1.1"
    assert all(set(finding) == {"code", "severity", "title", "evidence", "remedy"} for finding in value["findings"])


def test_json_without_a_target_has_none() -> None:
    assert report(SOURCE, None).to_json()["target"] is None


def test_text_names_the_verdict_and_the_next_step() -> None:
    text = "\n".join(line.plain for line in lines(CONDITIONAL))
    assert "CONDITIONAL-GO" in text.splitlines()[-1]
    assert "--acknowledge VK-PLAINTEXT,VK-REPLICATION-TLS" in text
    assert "remedy:" in text
    known = "\n".join(line.plain for line in lines(CONDITIONAL, frozenset(CONDITIONAL.conditions)))
    assert "known" in known
    assert "all conditions are acknowledged" in known


def test_what_asks_for_a_decision_is_shown_with_its_evidence_and_what_is_fine_is_counted() -> None:
    for one in (GO, CONDITIONAL, NO_GO):
        text = "\n".join(line.plain for line in lines(one))
        fine = [finding for finding in one.findings if finding.severity == "ok"]
        assert f"{len(fine)} checks are fine; --verbose shows them" in text
        assert not any(finding.title in text for finding in fine)
        for finding in one.findings:
            shown = [f"{name}: {value}" in text for name, value in finding.evidence.items()]
            if finding.severity != "ok":
                assert finding.title in text
                assert all(shown) if finding.severity != "info" else not any(shown)


def test_verbose_shows_every_finding_with_its_evidence() -> None:
    for one in (GO, CONDITIONAL, NO_GO):
        text = "\n".join(line.plain for line in lines(one, verbose=True))
        for finding in one.findings:
            assert finding.title in text
            assert all(f"{name}: {value}" in text for name, value in finding.evidence.items())


def test_acknowledgements_are_split_at_commas_and_checked() -> None:
    assert acknowledged(["VK-PLAINTEXT,vk-backlog", "VK-EVICTION"]) == {"VK-PLAINTEXT", "VK-BACKLOG", "VK-EVICTION"}
    with pytest.raises(UsageError, match="no code 'VK-PLAINTXT'") as wrong:
        acknowledged(["VK-PLAINTXT"])
    assert "VK-PLAINTEXT" in wrong.value.remedy
    with pytest.raises(UsageError, match="no condition"):
        acknowledged(["VK-TARGET-REPLICA"])


def test_a_person_is_asked_for_each_open_condition_and_may_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answer(question: str, default: bool) -> bool:
        assert default is False
        asked.append(question)
        return "VK-PLAINTEXT" in question

    monkeypatch.setattr("typer.confirm", answer)
    assert _ask(CONDITIONAL, frozenset()) == {"VK-PLAINTEXT"}
    assert len(asked) == 2
    asked.clear()
    assert _ask(CONDITIONAL, frozenset({"VK-PLAINTEXT"})) == frozenset()
    assert len(asked) == 1


def test_the_table_of_codes_in_the_documentation_is_the_one_of_the_program() -> None:
    text = (ROOT / "docs" / "reference" / "preflight-codes.md").read_text()
    assert markdown() in text


def test_every_code_in_the_sources_is_in_the_table() -> None:
    folder = ROOT / "src" / "valkeep" / "migrate" / "preflight"
    sources = [path for path in folder.rglob("*.py") if path.name != "codes.py"]
    used = {code for path in sources for code in re.findall(r'"(VK-[A-Z-]*[A-Z])"', path.read_text())}
    composed = {"VK-UNCHECKED-SOURCE", "VK-UNCHECKED-TARGET"}
    assert used | composed == {row.code for row in CODES}


@pytest.mark.parametrize(
    ("kind", "version", "number"),
    [
        ("redis", (2, 8, 24), 6),
        ("redis", (3, 2, 1), 7),
        ("redis", (4, 0), 8),
        ("redis", (6, 2, 14), 9),
        ("redis", (7, 0, 15), 10),
        ("redis", (7, 2, 4), 11),
        ("redis", (7, 4, 6), 12),
        ("redis", (8, 4, 0), 12),
        ("redis", (8, 6), 13),
        ("redis", (8, 8), 14),
        ("redis", (8, 10), 15),
        ("redis", (8, 12), None),
        ("valkey", (7, 2, 5), 11),
        ("valkey", (8, 1, 1), 11),
        ("valkey", (9, 0, 0), 80),
        ("valkey", (9, 2), 81),
        ("valkey", (10, 0), None),
        ("other", (7, 2), None),
    ],
)
def test_the_rdb_version_of_each_release(kind: str, version: tuple[int, ...], number: int | None) -> None:
    assert rdb_version(kind, version) == number


@pytest.mark.parametrize(
    ("rules", "permission"),
    [
        ("+@all", Permission.OK),
        ("+@all -@dangerous", Permission.DENIED),
        ("-@all +psync +replconf", Permission.OK),
        ("+@all -psync", Permission.DENIED),
        ("-@all +@read", Permission.DENIED),
    ],
)
def test_acl_rules_are_read_from_left_to_right(rules: str, permission: Permission) -> None:
    assert by_rules(rules.split()) is permission


def test_the_write_rate_is_the_offsets_where_they_count() -> None:
    first = {"role": "master", "repl_backlog_active": "1", "master_repl_offset": "1000"}
    rate = rate_between(first, {**first, "master_repl_offset": "3000"}, 2.0)
    assert rate is not None
    assert (rate.bytes_per_second, rate.exact) == (1000.0, True)


def test_the_write_rate_of_a_primary_that_does_not_count_is_the_writes_share_of_its_input() -> None:
    first = {"role": "master", "repl_backlog_active": "0", "master_repl_offset": "0"}
    before = {"total_commands_processed": "0", "rdb_changes_since_last_save": "0", "total_net_input_bytes": "0"}
    after = {"total_commands_processed": "100", "rdb_changes_since_last_save": "25", "total_net_input_bytes": "8000"}
    rate = rate_between(first | before, first | after, 1.0)
    assert rate is not None
    assert (rate.bytes_per_second, rate.exact) == (2000.0, False)
    quiet = rate_between(first | before, first | {**after, "rdb_changes_since_last_save": "0"}, 1.0)
    assert quiet is not None
    assert quiet.bytes_per_second == 0.0


def test_bytes_are_told_to_people_with_one_decimal_and_a_unit() -> None:
    assert [human(count) for count in (0, 1023, 1536, 5 << 20, 3 << 40)] == ["0 B", "1023 B", "1.5 KiB", "5.0 MiB", "3.0 TiB"]


def test_no_password_is_kept_in_the_facts() -> None:
    from valkeep.migrate.preflight.gather import _config

    reply: list[bytes] = []
    for name in ("requirepass", "masterauth", "primaryauth", "tls-key-file-pass", "tls-client-key-file-pass", "masteruser"):
        reply += [name.encode(), b"hunter2"]
    config, _ = _config([*reply, b"databases", b"16"])
    assert config == {"databases": "16"}


def test_changing_facts_leaves_the_rest_as_it_is() -> None:
    assert change(SOURCE, {"info": {"loading": "1"}}).info["used_memory"] == SOURCE.info["used_memory"]
