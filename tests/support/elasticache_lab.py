"""A source with keys, a plane over a target, and the commands of a migration between them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.elasticache_plane import GROUP, PlaneOfTests
from tests.support.valkeep_process import Valkeep
from valkeep.runtime.node import Process

__all__ = ["ElastiCacheLab", "elasticache_lab"]


class ElastiCacheLab:
    """``here``, ``there``: ordinary clients to both."""

    def __init__(self, source: Process, plane: PlaneOfTests, here: Any, there: Any, folder: Path) -> None:
        self.source = source
        self.plane = plane
        self.here = here
        self.there = there
        self.folder = folder

    def run(self, *more: str, name: str = "run") -> Valkeep:
        return self.valkeep(
            "run", "--acknowledge", "all", "--field-ttl", "keep-field", "--lease", "30000", *self.plane.options, *more, name=name
        )

    def valkeep(self, command: str, *more: str, name: str = "", report: bool = True) -> Valkeep:
        where = ("--source", self.source.endpoint, "--state", str(self.folder / "state"))
        folder = self.folder / (name or command)
        return Valkeep("migrate", command, *where, *more, folder=folder, report=report, env=self.plane.environment)

    def abort(self, name: str = "abort") -> Valkeep:
        return self.valkeep("abort", "--target", f"elasticache:{GROUP}", report=False, name=name)

    @property
    def fence(self) -> str:
        return str(self.here.config_get("min-replicas-to-write")["min-replicas-to-write"])

    @property
    def role(self) -> bytes:
        role: bytes = self.there.execute_command("ROLE")[0]
        return role

    @property
    def state(self) -> dict[str, Any]:
        """The state file."""
        return dict(json.loads((self.folder / "state" / "migration.json").read_text()))

    def rewrite_state(self, **changes: Any) -> None:
        (self.folder / "state" / "migration.json").write_text(json.dumps(self.state | changes))

    @property
    def told(self) -> list[str]:
        """What AWS was told to do, in order."""
        return [action for action in self.plane.calls if action.endswith("Migration")]

    def as_it_was(self) -> bool:
        """Nothing was started: AWS was asked, and no more."""
        return self.plane.group["Status"] == "available" and self.fence == "0" and "StartMigration" not in self.plane.calls


@contextmanager
def elasticache_lab(server: Callable[..., Process], client: Callable[..., Any], folder: Path) -> Iterator[ElastiCacheLab]:
    source, target = server("redis-8.0", databases=16), server("valkey-8.1")
    here = client(source)
    here.mset({f"k{number}": number for number in range(2000)})
    here.expire("k1", 10_000)
    here.rpush("list", *range(500))
    with PlaneOfTests(target) as plane:
        yield ElastiCacheLab(source, plane, here, client(target), folder)
