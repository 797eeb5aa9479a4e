"""Preflight where the source is files: the facts that a server would have given, as far as files have them, and the checks that still make sense.

Nothing is asked about writers, backlog, fork or fence: there is nobody who writes. What is left: does everything in the snapshot have a place on the
target, and is the target ready?
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from valkeep.migrate.preflight.checks import FILE_CHECKS, judge, readiness
from valkeep.migrate.preflight.checks.case import Case, blocker, info, warning
from valkeep.migrate.preflight.facts import ServerFacts, human
from valkeep.migrate.preflight.report import PreflightReport
from valkeep.migrate.preflight.shards import gather_target

if TYPE_CHECKING:
    from collections.abc import Callable

    from valkeep.client.endpoint import Endpoint
    from valkeep.migrate.preflight.facts import Census
    from valkeep.migrate.preflight.finding import Finding
    from valkeep.migrate.preflight.options import PreflightOptions

__all__ = ["FileFacts", "judge_files", "preflight_files"]

_ANY = (99, 0)  # the version of a log that does not say which server wrote it: it may hold whatever there is


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a survey found. ``files``: their paths; ``kind``, ``version``: of the server that wrote the snapshot, "" and () where there is none. ``keys``:
    by database; ``commands``, ``log``: how many there are behind the snapshot, and how many bytes; ``tail``: bytes at the end that do not count,
    ``torn_at``: from where on, in the last file."""

    display: str
    files: tuple[str, ...]
    kind: str
    version: tuple[int, ...]
    product: str
    census: Census | None
    keys: Mapping[int, int] = field(default_factory=dict)
    used_memory: int = 0
    commands: int = 0
    log: int = 0
    tail: int = 0
    torn_at: int = 0


async def preflight_files(files: FileFacts, target: Endpoint, options: PreflightOptions, clock: Callable[[], float]) -> PreflightReport:
    """Look at the target and judge. Raises what `gather` raises."""
    started = clock()
    there = await gather_target(target, options.timeout)
    return PreflightReport(judge_files(files, there, options), _facts(files), there, options, None, clock() - started)


def judge_files(files: FileFacts, target: ServerFacts, options: PreflightOptions) -> tuple[Finding, ...]:
    """Pure."""
    checks = tuple(check for check in FILE_CHECKS if files.census is not None or check.run is not readiness.census)
    return (*_findings(files), *_cluster(target), *_expiry(files, target, options), *judge(Case(_facts(files), target, options), checks))


def _facts(files: FileFacts) -> ServerFacts:
    said = {f"db{database}": f"keys={count},expires=0" for database, count in files.keys.items()}
    if files.used_memory:
        said["used_memory"] = str(files.used_memory)
    return ServerFacts(
        address=files.display,
        display=files.display,
        kind=files.kind or "redis",
        product=files.product,
        version=files.version or _ANY,
        mode="standalone",
        role="primary",
        info={"from": "file", **said},
        census=files.census,
    )


def _findings(files: FileFacts) -> Iterator[Finding]:
    snapshot = f"{sum(files.keys.values())} keys, written by {files.product}" if files.census is not None else "none"
    yield info(
        "VK-FILE",
        "the data is read from files: what was written to their server after them is not there",
        "",
        files=", ".join(files.files),
        snapshot=snapshot,
        log=f"{files.commands} commands, {human(files.log)}" if files.log else "none",
    )
    if files.tail:
        yield warning(
            "VK-FILE-TAIL",
            "the log ends in the middle of a command or a transaction, which is left out, as servers leave it out (aof-load-truncated)",
            "acknowledge it, or copy the file again from a server that has been stopped",
            file=files.files[-1],
            left_out=f"{files.tail} bytes, from byte {files.torn_at} on",
        )


def _cluster(target: ServerFacts) -> Iterator[Finding]:
    if target.mode == "cluster":
        yield blocker(
            "VK-TARGET-CLUSTER",
            "the target is a cluster, and files are brought to single servers only",
            "start a server from the files and give that as the --source, with --deliver push",
            target=target.address,
        )


def _expiry(files: FileFacts, target: ServerFacts, options: PreflightOptions) -> Iterator[Finding]:
    """Seen: ``SET k v PXAT <past>`` deletes k at once on a primary, so that the log's next ``APPEND k x`` makes a key of it that never was. A replica
    keeps it."""
    if not files.log or options.deliver != "push":
        return
    if target.setting("import-mode") is None or not target.allows("CONFIG SET"):
        yield blocker(
            "VK-FILE-EXPIRY",
            "a log is about times that are past, and this target would expire keys by its own clock while the log's commands still need them",
            "choose a Valkey 8.1 or later where this user may CONFIG SET (import-mode), or leave --deliver push out: a replica expires nothing",
            target=f"{target.product}, CONFIG SET {target.may('CONFIG SET')}",
        )
