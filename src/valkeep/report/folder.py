"""A migration's report folder, told again: preflight.json, run.json, verification.json, cutover.json, ledger.jsonl, events.jsonl.

Every file may be missing – a migration that stopped early has only the first of them – and what is there is told. A rehearsal's folder
also has story.json, which is shown as it is.

The files come from several clocks: events carry the seconds since the command began, run.json's timeline the job's own clock. Both
name the same steps, so the first step that both know ties them together.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from valkeep.errors import UsageError
from valkeep.report import storyfile
from valkeep.report.eventlog import read_events
from valkeep.report.recording import Recording, label, spans_between
from valkeep.report.story import Chart, Panel, Span, Story, Table, Tile

__all__ = ["tell"]

NUMBERED = "VK-A-"  # checks of a list that is shown whole, also where all is well

_JSON: Final = ("preflight", "run", "verification", "cutover")
_CUT: Final = frozenset({"pause", "drain", "verify-changed", "fence", "drain-after-fence", "promote", "promoted"})
LEDGER_ROWS: Final = 50

Steps = list[tuple[str, float]]


def tell(folder: Path) -> Story:
    """The folder's story. Raises ``UsageError`` when it is no report folder."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder", remedy="name the folder that was given as --report")
    story = _load(folder / "story.json")
    if story:
        return storyfile.from_json(story)
    if drills := sorted(path.parent for path in (*folder.glob("drill.json"), *folder.glob("*/drill.json"))):
        raise UsageError(
            f"{folder} is of drills, whose pages are there already", remedy=f"open {drills[0] / 'drill.html'}; drill.json has the numbers"
        )
    files = {name: _load(folder / f"{name}.json") for name in _JSON}
    recording = Recording(_events(folder / "events.jsonl"))
    ledger = _ledger(sorted(folder.glob("ledger*.jsonl")))
    if not any(files.values()) and not recording.steps:
        raise UsageError(f"{folder} holds no report", remedy="name the folder that was given as --report to valkeep migrate run")
    return _Teller(files, recording, ledger).story()


def _load(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} can't be read: {error}", remedy="is the folder complete? A file may have been cut") from error
    return data if isinstance(data, dict) else {}


def _events(path: Path) -> Any:
    if not path.is_file():
        return ()
    with path.open(encoding="utf-8", errors="replace") as lines:
        return list(read_events(lines))


def _ledger(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """The first lines, of a cluster's shards one after the other; all are counted in run.json."""
    rows: list[dict[str, Any]] = []
    for path in paths:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if len(rows) > LEDGER_ROWS:
                    return rows
                try:
                    rows.append(json.loads(line))
                except ValueError:
                    break
    return rows


class _Teller:
    def __init__(self, files: dict[str, dict[str, Any]], recording: Recording, ledger: list[dict[str, Any]]) -> None:
        self.preflight, self.run = files["preflight"], files["run"]
        self.verification, self.cutover = files["verification"], files["cutover"]
        self.recording, self.ledger = recording, ledger
        self.steps = self._steps()

    def _steps(self) -> Steps:
        """The timeline on the events' clock."""
        steps: Steps = [(str(row["step"]), float(row["at"])) for row in self.run.get("timeline", ())]
        if not steps and self.cutover:
            steps = [(str(row["step"]), float(row["at"])) for row in self.cutover.get("timeline", ())]
        if not steps:
            return [(name.rpartition(":")[2], at) for name, at in self.recording.steps]
        seen = {name.rpartition(":")[2]: at for name, at in reversed(self.recording.steps)}
        tie = next(((at, seen[name]) for name, at in steps if name in seen and name != "preflight"), None)
        shift = tie[1] - tie[0] if tie else -steps[0][1]
        return [(name, at + shift) for name, at in steps]

    def story(self) -> Story:
        verdict = str(
            self.run.get("verdict") or (self.preflight.get("verdict") if not self.preflight.get("may_start", True) else "unknown")
        )
        source, target = self._servers()
        tables = [
            table
            for table in (
                self._verified(),
                self._limits(),
                self._left(),
                self._timeline(),
                self._counts(),
                self._ledger_lines(),
                self._findings(),
            )
            if table
        ]
        return Story(
            title=f"{source} → {target}",
            subtitle=self._subtitle(),
            verdict=verdict,
            sentence=self._sentence(),
            tiles=self._tiles(),
            panels=self._panels(),
            tables=tuple(tables),
            log=tuple(self.recording.lines),
            reasons=tuple(f"{code}: {title}" for code, title in self._blockers()),
            footer="valkeep report · from the migration's report folder",
        )

    def _servers(self) -> tuple[str, str]:
        def named(side: str) -> str:
            facts = self.preflight.get(side) or {}
            version = str((self.run.get(side) or {}).get("version", ""))
            return str(facts.get("product") or f"{side.capitalize()} {version}".strip())

        return named("source"), named("target")

    def _subtitle(self) -> str:
        parts = []
        if self.run:
            parts.append(f"{self.run.get('keys', 0):,} keys in {self.run.get('elapsed_seconds', 0):.1f} s")
            parts.append(f"source RDB {self.run['source'].get('rdb_version', '?')}")
            parts.append(f"fence: {self.run.get('fence', '?')}" if self._has_writers else "read from files")
        if self.preflight:
            parts.append(f"preflight: {self.preflight.get('verdict')}")
            parts.append(f"field TTLs: {self.preflight.get('field_ttl')}")
        return " · ".join(parts)

    def _sentence(self) -> str:
        if self.run:
            errors = self.run.get("unexpected_error_replies", 0)
            dropped = "The target refused no command." if not errors else f"The target refused {errors:,} commands."
            waited = f" Writers waited {self.run.get('write_pause_ms', 0):.0f} ms at the cut-over." if self._has_writers else ""
            return f"{self._compared()} {dropped}{waited}"
        if self.preflight and not self.preflight.get("may_start", True):
            return "Preflight did not let the migration start; nothing was changed."
        last = self.recording.steps[-1][0] if self.recording.steps else "preflight"
        return f"The migration did not end: the last step recorded is “{label(last)}”."

    @property
    def _has_writers(self) -> bool:
        return self.run.get("read") != "file"

    def _compared(self) -> str:
        if mismatches := self.run.get("mismatches", 0):
            return f"{mismatches:,} keys differ."
        if self.run.get("verdict") == "unknown":
            return "Whether every key is equal could not be judged."
        if any(row["action"] == "degraded" for row in self.run.get("ledger", ())):
            return "Every key was compared and is equal, except for what the policy left out: the ledger has it."
        return "Every key was compared and is equal."

    def _blockers(self) -> list[tuple[str, str]]:
        wanted = set(self.preflight.get("blockers", ())) | set(self.preflight.get("to_acknowledge", ()))
        return [
            (f["code"], f["title"])
            for f in self.preflight.get("findings", ())
            if f["code"] in wanted and f["severity"] in ("blocker", "warning", "unknown")
        ]

    def _tiles(self) -> tuple[Tile, ...]:
        tiles = []
        if self.verification:
            differ = sum(self.verification.get(name, 0) for name in ("missing", "extra", "different"))
            tiles.append(
                Tile(
                    "Keys that differ",
                    f"{differ:,}",
                    note=f"of {self.verification.get('keys_source', 0):,}",
                    tone="bad" if differ else "good",
                )
            )
        if self.run:
            run = self.run
            errors = run.get("unexpected_error_replies", 0)
            seconds = run.get("full_sync_seconds", 0.0)
            if self._has_writers:
                tiles.append(Tile("Write pause", f"{run.get('write_pause_ms', 0):.0f}", "ms", "pause or fence until promotion"))
            tiles += [
                Tile("Full sync", f"{seconds:.1f}", "s", f"{run.get('keys', 0) / max(seconds, 1e-3):,.0f} keys/s"),
                Tile("Commands refused by the target", f"{errors:,}", tone="bad" if errors else "good"),
                Tile("Changed on the way", f"{sum(row['count'] for row in run.get('ledger', ())):,}", note="every one is in the ledger"),
            ]
        return tuple(tiles)

    def _panels(self) -> tuple[Panel, ...]:
        end = max([self.recording.end, *[at for _, at in self.steps]], default=0.0)
        if not self.steps or end <= 0:
            return ()
        charts: list[Chart] = []
        if keys := self.recording.chart_of_keys():
            charts.append(keys)
        charts += self.recording.charts_of_lag()
        cut = [(name, at) for name, at in self.steps if name in _CUT]
        spans = list(spans_between([step for step in self.steps if step[0] not in _CUT or step in cut[:1]], end, tone="target"))
        panels = []
        if len(cut) > 1:
            low, high = cut[0][1], cut[-1][1]
            spans.append(Span("write pause", low, high, "bad", band=True))
            room = max((high - low) * 0.1, 1e-4)
            steps = spans_between(cut[:-1], high, tone="target", least=0.0, names=label)
            panels.append(
                Panel(
                    "The cut-over, magnified", low - room, high + room, "From the pause of the writers to the promotion.", steps, zero=low
                )
            )
        return (Panel("Timeline", 0.0, end, "", tuple(spans), (), tuple(charts)), *panels)

    def _verified(self) -> Table | None:
        found = self.verification
        if not found:
            return None
        rows = [
            (name.replace("_", " "), f"{found[name]:,}")
            for name in ("keys_source", "keys_target", "missing", "extra", "different", "unsettled")
            if name in found
        ]
        rows += [
            (f"{one['what']}: database {one['database']}", one.get("key") or one.get("key_hex") or "") for one in found.get("examples", ())
        ]
        return Table(f"Verification: {found.get('verdict', 'unknown')}", ("", ""), tuple(rows))

    def _limits(self) -> Table | None:
        """What this way of reading the source can't promise."""
        limits = self.run.get("limits", ())
        return Table("What this cannot promise", ("",), tuple((one,) for one in limits)) if limits else None

    def _left(self) -> Table | None:
        """Who on the source's side could take writes right after the promotion."""
        said = {True: "yes", False: "no", None: "unknown"}
        tone = {True: "bad", False: "good", None: "warn"}
        nodes = self.cutover.get("source_nodes", ())
        rows = tuple((str(one["node"]), said[one["takes_writes"]], "yes" if one["watched"] else "no", str(one["why"])) for one in nodes)
        tones = tuple("warn" if one["watched"] and one["takes_writes"] is False else tone[one["takes_writes"]] for one in nodes)
        columns = ("node", "takes writes", "watched", "because")
        return Table("The source's side after the promotion", columns, rows, tones=tones) if rows else None

    def _timeline(self) -> Table | None:
        if not self.steps:
            return None
        rows = tuple(
            (label(name), f"{at:.3f}", f"{(at - before) * 1000:.1f}")
            for (name, at), (_, before) in zip(self.steps, (self.steps[0], *self.steps), strict=False)
        )
        return Table("Step by step", ("step", "s", "ms since the last"), rows, numeric=frozenset({1, 2}))

    def _counts(self) -> Table | None:
        rows = tuple((str(r["what"]), str(r["action"]), str(r["policy"] or "–"), f"{r['count']:,}") for r in self.run.get("ledger", ()))
        return (
            Table("Ledger: what was changed on the way", ("what", "action", "policy", "count"), rows, numeric=frozenset({3}))
            if rows
            else None
        )

    def _ledger_lines(self) -> Table | None:
        listed = [row for row in self.ledger if row.get("key") or row.get("key_hex")]
        rows = tuple(
            (str(row["what"]), str(row.get("key") or row["key_hex"]), str(row["database"]), str(row["source_offset"]), f"{row['count']:,}")
            for row in listed[:LEDGER_ROWS]
        )
        reasons = "; ".join(dict.fromkeys(str(row["why"]) for row in listed))
        note = f"Why: {reasons}. " + (f"The first {LEDGER_ROWS} lines; all are in ledger.jsonl." if len(listed) > LEDGER_ROWS else "")
        return (
            Table("Ledger, by key", ("what", "key", "database", "source offset", "count"), rows, note, frozenset({2, 3, 4}))
            if rows
            else None
        )

    def _findings(self) -> Table | None:
        tones = {"blocker": "bad", "warning": "warn", "unknown": "warn", "ok": "good"}
        found = [f for f in self.preflight.get("findings", ()) if f["severity"] != "ok" or f["code"].startswith(NUMBERED)]
        rows = tuple((f["code"], f["severity"], f["title"], f["remedy"]) for f in found)
        columns = ("code", "severity", "finding", "remedy")
        return (
            Table(f"Preflight: {self.preflight.get('verdict')}", columns, rows, tones=tuple(tones.get(f["severity"], "") for f in found))
            if rows
            else None
        )
