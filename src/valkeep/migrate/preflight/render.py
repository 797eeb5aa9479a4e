"""A report for people, as rich text: by area, what asks for a decision with its evidence and its remedy, what is good to know in one line each, and how
many checks are fine. ``verbose`` is everything, as the JSON is."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Final

from valkeep.migrate.preflight.checks import AREAS
from valkeep.migrate.preflight.codes import CODES
from valkeep.migrate.preflight.facts import ServerFacts
from valkeep.migrate.preflight.finding import Finding, Severity, Verdict
from valkeep.migrate.preflight.numbered import NUMBERED, NUMBERED_AREAS
from valkeep.migrate.preflight.report import PreflightReport

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["lines", "summary"]

_WORDS: Final = {
    Severity.BLOCKER: "NO-GO",
    Severity.WARNING: "warning",
    Severity.UNKNOWN: "unknown",
    Severity.INFO: "info",
    Severity.OK: "ok",
}
_STYLES: Final = {
    Severity.BLOCKER: "bold red",
    Severity.WARNING: "yellow",
    Severity.UNKNOWN: "yellow",
    Severity.INFO: "cyan",
    Severity.OK: "green",
}
_VERDICTS: Final = {Verdict.GO: "bold green", Verdict.CONDITIONAL_GO: "bold yellow", Verdict.NO_GO: "bold red"}
_AREA_OF: Final = {row.code: row.area for row in (*NUMBERED, *CODES)}
_NUMBERED: Final = frozenset(row.code for row in NUMBERED)


def lines(report: PreflightReport, accepted: AbstractSet[str] = frozenset(), *, verbose: bool = False) -> Iterator[Text]:
    """One ``Text`` per line."""
    from rich.text import Text

    target = "no target" if report.target is None else _side(report.target)
    yield Text(f"{_side(report.source)}  →  {target}")
    width = max(len(row.code) for row in CODES) + 2
    for area, heading in (NUMBERED_AREAS | AREAS).items():
        of_area = [
            one
            for one in report.findings
            if _AREA_OF.get(one.code) == area and (verbose or one.severity is not Severity.OK or one.code in _NUMBERED)
        ]
        if of_area:
            yield Text("")
            yield Text(heading, style="bold")
        for finding in of_area:
            yield from _finding(finding, width, finding.code in accepted, verbose)
    yield Text("")
    fine = sum(finding.severity is Severity.OK and finding.code not in _NUMBERED for finding in report.findings)
    if fine and not verbose:
        yield Text(f"{fine} checks are fine; --verbose shows them, and the evidence of what is good to know")
        yield Text("")
    yield summary(report, accepted)


def _side(facts: ServerFacts) -> str:
    size = f" ({facts.cluster.size})" if facts.cluster is not None and facts.cluster.shards else ""
    return f"{facts.product} {facts.display}{size}"


def _finding(finding: Finding, width: int, accepted: bool, verbose: bool) -> Iterator[Text]:
    from rich.text import Text

    word = _WORDS[finding.severity]
    if accepted and finding.severity.is_condition:
        word = "known"
    yield Text.assemble(
        "  ", (f"{word:8}", _STYLES[finding.severity]), (f"{finding.code:{width}}", "bold" if finding.remedy else ""), finding.title
    )
    if finding.severity in (Severity.OK, Severity.INFO) and not verbose:
        return
    for name, value in finding.evidence.items():
        yield Text(f"{'':10}{name}: {value}", style="dim")
    if finding.remedy and finding.severity is not Severity.OK:
        yield Text.assemble(f"{'':10}", ("remedy: ", "bold"), finding.remedy)


def summary(report: PreflightReport, accepted: AbstractSet[str] = frozenset()) -> Text:
    """The verdict, and what to do next, in one or two lines."""
    from rich.text import Text

    verdict = report.verdict
    if verdict is Verdict.NO_GO:
        rest = f": {', '.join(report.blockers)}"
    elif verdict is Verdict.CONDITIONAL_GO and report.open(accepted):
        rest = f": acknowledge what you know about: --acknowledge {','.join(report.open(accepted))}"
    elif verdict is Verdict.CONDITIONAL_GO:
        rest = f": all conditions are acknowledged ({', '.join(report.conditions)})"
    else:
        rest = ""
    return Text.assemble((str(verdict), _VERDICTS[verdict]), rest)
