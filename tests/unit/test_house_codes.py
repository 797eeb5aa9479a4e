"""Stable names are documented: error codes, metrics, and the members of the report folder's JSON."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from valkeep.errors import ExitCode
from valkeep.migrate.cutover.cutover import CutoverResult
from valkeep.migrate.fence import FenceMode
from valkeep.migrate.outcome import RunResult
from valkeep.migrate.preflight.codes import CODES
from valkeep.migrate.preflight.facts import Census, ServerFacts
from valkeep.migrate.preflight.finding import Finding, Severity
from valkeep.migrate.preflight.numbered import NUMBERED
from valkeep.migrate.preflight.options import PreflightOptions
from valkeep.migrate.preflight.report import PreflightReport
from valkeep.migrate.verify import Comparison

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
TROUBLESHOOTING = ROOT / "docs" / "how-to" / "troubleshooting.md"
CODE = re.compile(r"VK-[A-Z0-9]+(?:-[A-Z0-9]+)*")


def raised(source: str) -> set[str]:
    """Codes that a module's errors carry: ``code="VK-…"`` in a call, or as a class's ``code``."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        values: list[ast.expr | None] = []
        if isinstance(node, ast.Call):
            values = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            names = node.targets if isinstance(node, ast.Assign) else [node.target]
            values = [node.value] if any(isinstance(name, ast.Name) and name.id == "code" for name in names) else []
        found |= {one.value for one in values if isinstance(one, ast.Constant) and isinstance(one.value, str) and one.value}
    return {code for code in found if CODE.fullmatch(code)}


def all_raised() -> set[str]:
    return set().union(*(raised(path.read_text(encoding="utf-8")) for path in (ROOT / "src").rglob("*.py")))


def rows(text: str) -> set[str]:
    """Names that have a row of a table of their own, or a heading."""
    return {
        name
        for line in text.splitlines()
        if line.startswith(("| `", "## "))
        for name in CODE.findall(line.split("|")[1] if "|" in line else line)
    }


def members(text: str, heading: str) -> set[str]:
    """The names in the first column of the table below ``## heading``."""
    section = re.split(r"^## ", text.partition(f"## {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    return {name for line in section.splitlines() if line.startswith("| `") for name in re.findall(r"`([a-z_]+)`", line.split("|")[1])}


def dummies(kind: type[Any]) -> dict[str, Any]:
    """A value for each field, by the look of its type."""
    by_type = {"str": "", "int": 0, "float": 0.0, "FenceMode": FenceMode.PAUSE, "ExitCode": ExitCode.GOOD}
    return {field.name: by_type.get(str(field.type), ()) for field in dataclasses.fields(kind)}


def test_every_error_code_has_a_row_in_the_documents() -> None:
    listed = rows(TROUBLESHOOTING.read_text()) | {row.code for row in (*CODES, *NUMBERED)}
    assert all_raised() - listed == set(), "docs/how-to/troubleshooting.md lacks them"


def test_no_document_names_a_code_that_does_not_exist() -> None:
    known = all_raised() | {row.code for row in (*CODES, *NUMBERED)}
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        named = set(re.findall(r"`(VK-[A-Z0-9-]*[A-Z0-9])`", path.read_text()))
        assert named - known == set(), path.relative_to(ROOT)


def test_an_undocumented_code_is_found() -> None:
    assert raised('raise Refused("x", remedy="y", code="VK-TELEPORT")') == {"VK-TELEPORT"}
    assert raised('class Full(ValkeepError):\n    code = "VK-FULL"') == {"VK-FULL"}
    assert "VK-TELEPORT" not in rows(TROUBLESHOOTING.read_text())


def test_invalid_rdb_received_is_explained_first() -> None:
    headings = re.findall(r"^## (.*)$", TROUBLESHOOTING.read_text(), re.MULTILINE)
    assert "invalid RDB received" in headings[0]


def metric_names() -> Iterator[str]:
    source = (ROOT / "src" / "valkeep" / "migrate" / "run" / "numbers.py").read_text()
    for kind, name in re.findall(r"(Gauge|Counter)MetricFamily\(\s*\"(\w+)\"", source):
        yield name + ("_total" if kind == "Counter" else "")


def test_the_documented_metrics_are_the_services() -> None:
    documented = set(re.findall(r"^\| `(valkeep_\w+)` \|", (REFERENCE / "metrics.md").read_text(), re.MULTILINE))
    assert documented == set(metric_names())


def test_the_members_of_run_json_are_documented() -> None:
    result = RunResult(**dummies(RunResult))
    assert members((REFERENCE / "report-folder.md").read_text(), "run.json") == set(result.to_json()) - {"schema"}


def test_the_members_of_verification_json_are_documented() -> None:
    documented = members((REFERENCE / "report-folder.md").read_text(), "verification.json")
    assert documented == set(Comparison().to_json()) - {"schema"}


def test_the_members_of_cutover_json_are_documented() -> None:
    documented = members((REFERENCE / "report-folder.md").read_text(), "cutover.json")
    assert documented == {field.name for field in dataclasses.fields(CutoverResult)} | {"shards"}  # of a cluster: each with all of these


def test_the_members_of_preflight_json_are_documented() -> None:
    facts = ServerFacts(
        "host:1", "redis://host:1", "redis", "Redis 8.0.2", (8, 0, 2), "standalone", "primary", census=Census("full", True, 0, 0)
    )
    finding = Finding("VK-PEER", Severity.OK, "")
    report = PreflightReport((finding,), facts, None, PreflightOptions(), FenceMode.PAUSE).to_json()
    text = (REFERENCE / "preflight-codes.md").read_text()
    assert {name for name in (*report, *finding.to_json()) if f"`{name}`" not in text.partition("## JSON\n")[2]} == {"schema"}
    assert members(text, "JSON: source and target") == set(report["source"])
    assert members(text, "JSON: census") == set(report["source"]["census"])


def test_the_members_of_a_ledger_line_are_documented(tmp_path: Path) -> None:
    import json

    from valkeep.migrate.gateway.ledger import Ledger
    from valkeep.migrate.transform.notes import LedgerNote

    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.record(LedgerNote("degraded", "field-ttl", "because", key=b"k"))
    ledger.close()
    line = json.loads((tmp_path / "ledger.jsonl").read_text())
    text = (REFERENCE / "ledger.md").read_text()
    assert {name for name in line if f"`{name}`" not in text} == {"schema"}


ONE_THING_PER_FILE = {"cli", "checkers", "checks", "drills", "drivers", "faults"}  # folders whose files the map does not name one by one


def test_every_package_and_module_is_on_the_map_and_every_module_on_it_exists() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    package = ROOT / "src" / "valkeep"
    modules = {path for path in package.rglob("*.py") if not path.name.startswith("__")}
    for folder in {path.parent for path in modules} - {package}:
        assert f"{folder.name}/" in text, folder
    for path in modules:
        assert path.parent.name in ONE_THING_PER_FILE or re.search(rf"\b{re.escape(path.name)}\b", text), path
    known = {path.name for path in modules} | {"__init__.py", "pytest_plugin.py", "setup.py"}
    for name in re.findall(r"`(?:\w+/)*(\w+\.py)`", text):
        assert name in known or name == "interpreted.py", name
