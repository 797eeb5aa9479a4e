"""Preflight of files: what is planted is found, what makes no sense for files is not asked, and a sound file for a sound target is GO."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.migrate.test_preflight_checks import OF_FILES, TARGET
from valkeep.migrate.preflight.checks import CHECKS, FILE_CHECKS
from valkeep.migrate.preflight.facts import Census, Permission, ServerFacts
from valkeep.migrate.preflight.files import FileFacts, judge_files
from valkeep.migrate.preflight.finding import Verdict, verdict_of
from valkeep.migrate.preflight.options import PreflightOptions

SNAPSHOT = FileFacts(
    display="file:/data/dump.rdb",
    files=("/data/dump.rdb",),
    kind="redis",
    version=(7, 2, 4),
    product="Redis 7.2.4",
    census=Census("full", True, 9, 9, {"string": 9}),
    keys={0: 5, 3: 4},
    used_memory=1 << 20,
)
LOG = FileFacts("file:/data/a.aof", ("/data/a.aof",), "", (), "an append-only file", None, commands=12, log=400)
PUSH = PreflightOptions(deliver="push")
IMPORTING = replace(TARGET, config={**(TARGET.config or {}), "import-mode": "no"})


def found(files: FileFacts, target: ServerFacts = TARGET, options: PreflightOptions | None = None) -> set[tuple[str, str]]:
    return {(one.code, str(one.severity)) for one in judge_files(files, target, options or PreflightOptions())}


@pytest.mark.parametrize("files", [SNAPSHOT, LOG, replace(SNAPSHOT, log=400, commands=12)])
def test_sound_files_for_a_sound_target_are_go_and_say_what_they_are(files: FileFacts) -> None:
    findings = judge_files(files, TARGET, PreflightOptions())
    assert verdict_of(findings) is Verdict.GO, [one for one in findings if one.remedy]
    assert ("VK-FILE", "info") in found(files)


def test_every_violation_of_files_is_planted() -> None:
    planted = found(SNAPSHOT) | found(replace(LOG, tail=7, torn_at=393)) | found(LOG, replace(TARGET, config={}), PUSH)
    assert planted >= OF_FILES


def test_a_log_is_pushed_only_where_nothing_expires_meanwhile_and_a_snapshot_anywhere() -> None:
    wrong = ("VK-FILE-EXPIRY", "blocker")
    assert wrong not in found(LOG, IMPORTING, PUSH)
    assert wrong in found(LOG, replace(IMPORTING, commands={**TARGET.commands, "CONFIG SET": Permission.DENIED}), PUSH)
    assert wrong not in found(LOG, TARGET)
    assert wrong not in found(SNAPSHOT, TARGET, PUSH)


def test_what_the_snapshot_holds_is_judged_as_that_of_a_server() -> None:
    census = Census("full", True, 2, 2, {"module": 1}, {"ReJSON-RL": 1})
    assert ("VK-MODULE-VALUES", "blocker") in found(replace(SNAPSHOT, census=census))
    assert ("VK-DATABASES", "blocker") in found(replace(SNAPSHOT, keys={16: 1}))
    hashes = replace(SNAPSHOT, version=(8, 0, 2), census=Census("full", True, 2, 2, {"hash": 2}, field_ttl_hashes=1))
    assert ("VK-FIELD-TTL", "blocker") in found(hashes, replace(TARGET, version=(8, 1, 1)))
    small = replace(TARGET, info={**TARGET.info, "maxmemory": "1000000"})
    assert ("VK-TARGET-MEMORY", "blocker") in found(SNAPSHOT, small)


def test_a_target_that_is_none_is_said_and_nothing_else() -> None:
    assert found(SNAPSHOT, replace(TARGET, mode="sentinel", product="Sentinel of Valkey")) - found(SNAPSHOT) == {("VK-PEER", "blocker")}


@pytest.mark.parametrize("options", [PreflightOptions(), PUSH])
def test_files_into_a_cluster_are_no_go_with_the_way_that_there_is(options: PreflightOptions) -> None:
    (finding,) = [one for one in judge_files(SNAPSHOT, replace(TARGET, mode="cluster"), options) if one.code == "VK-TARGET-CLUSTER"]
    assert finding.severity == "blocker"
    assert "--deliver push" in finding.remedy


def test_nothing_is_asked_about_writers() -> None:
    assert {check.name for check in FILE_CHECKS} < {check.name for check in CHECKS}
    codes = {code for code, _ in found(SNAPSHOT)}
    assert not codes & {"VK-CUTOVER", "VK-BACKLOG", "VK-SOURCE-COMMANDS", "VK-SOURCE-SENTINEL", "VK-RDB-PAIR", "VK-COMPARE-COMMANDS"}
