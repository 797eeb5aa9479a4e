"""``make soak``: append-only files cut off at random places, brought to a target, against what a server of their own version loads from them.

    python tests/soak/files.py [--cuts 40] [--seed 1]

The seed decides versions, settings, whether the log was rewritten, and the places. Exit code 1 on a difference.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import valkey

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.integration.test_pairs import WITH_FIELD_TTL, everything, load
from tests.moves.test_files import AOF, log_of, write
from tests.support import nodes
from tests.support.waiting import until
from valkeep.client.endpoint import Endpoint
from valkeep.migrate.run.restoration import FileSource, RestoreOptions, restore

SOURCES = ("redis-7.0", "redis-8.0", "valkey-8.0", "valkey-8.1", "valkey-9.1")
TARGET = "valkey-9.1"
CUTS = 5  # of each file


def client(node: Any, db: int = 0) -> Any:
    return valkey.Valkey(host=node.host, port=node.port, db=db)


def one_file(rng: random.Random, folder: Path) -> int:
    """A log, cut off some times; how many of them came out wrong."""
    spec = rng.choice(SOURCES)
    has_ttl = spec in WITH_FIELD_TTL
    settings: dict[str, nodes.Setting] = AOF | {
        name: rng.choice(["yes", "no"]) for name in ("aof-timestamp-enabled", "aof-use-rdb-preamble")
    }
    rewritten = rng.random() < 0.5
    with nodes.start(spec, settings) as source:
        load(client, source, field_ttl=has_ttl)
        if rewritten:
            client(source).bgrewriteaof()
            until(lambda: not client(source).info("persistence")["aof_rewrite_in_progress"], "the rewrite")
        for turn in range(3):
            write(client(source), f"turn:{turn}", field_ttl=has_ttl)
        source.kill()
        shutil.copytree(log_of(source), folder / "files")
    wrong = 0
    for number in range(CUTS):
        wrong += not one_cut(rng, spec, settings, folder, number)
    return wrong


def one_cut(rng: random.Random, spec: str, settings: dict[str, nodes.Setting], folder: Path, number: int) -> bool:
    files, oracles = folder / f"cut-{number}", folder / f"oracle-{number}"
    shutil.copytree(folder / "files", files)
    log = max(files.glob("*.incr.aof"))
    size = log.stat().st_size
    cut = size - rng.choice([rng.randrange(min(size, 3000) + 1), rng.randrange(size + 1)])
    os.truncate(log, cut)
    oracles.mkdir()
    shutil.copytree(files, oracles / "appendonlydir")
    with ExitStack() as stack:
        oracle = stack.enter_context(nodes.start(spec, settings | {"dir": str(oracles)}))
        target = stack.enter_context(nodes.start(TARGET))
        options = RestoreOptions(FileSource(files), Endpoint.parse(target.endpoint), accept=frozenset({"all"}), state=folder / "state")
        result = asyncio.run(restore(options, lambda _event: None, time.monotonic))
        has_ttl = spec in WITH_FIELD_TTL
        wanted = everything(client, oracle, field_ttl=has_ttl)
        found = everything(client, target, field_ttl=has_ttl and TARGET in WITH_FIELD_TTL)
    wrong = [place for place in wanted.keys() | found.keys() if wanted.get(place) != found.get(place)]
    print(
        f"  {spec} {settings} cut at {cut} of {size}: {result.verdict}, {len(wanted)} keys",
        f"WRONG {wrong[:5]}" if wrong else "",
        flush=True,
    )
    return not wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    wrong = 0
    for number in range(max(asked.cuts // CUTS, 1)):
        seed = asked.seed + number
        print(f"seed {seed}:", flush=True)
        with tempfile.TemporaryDirectory(prefix="valkeep-soak-") as folder:
            wrong += one_file(random.Random(seed), Path(folder))
    print(f"{wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
