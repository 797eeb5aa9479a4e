"""What a person sees of the move of a cluster: each phase once, however many shards are in it; what is said of one shard, with its name."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from pathlib import Path

from tests.support.cluster_pair import clusters, fill, key_in

ONCE = [
    "preflight",
    "snapshot",
    "attach",
    "snapshot-taken",
    "online",
    "follow",
    "verify",
    "verify-full",
    "verified",
    "cutover:pause",
    "cutover:drain",
    "cutover:verify-changed",
    "cutover:fence",
    "cutover:drain-after-fence",
    "cutover:wait-for-shards",
    "cutover:promote",
    "cutover:promoted",
]


def test_each_phase_of_a_clusters_move_is_told_once(tmp_path: Path) -> None:
    with clusters("redis-7.0", "newest-valkey", tmp_path, (3, 1)) as pair:
        fill(pair.here, 300)
        with pair.run() as run:
            assert run.wait() == 0, run.stderr
        pair.assert_same()
        begun = Counter(run.phases())
        assert {name: begun[name] for name in ONCE} == dict.fromkeys(ONCE, 1)
        assert [name for name in run.phases() if name in ONCE] == ONCE
        told = [json.loads(line) for line in (run.report / "events.jsonl").read_text().splitlines()]
        ended = Counter(event["name"] for event in told if event["event"] == "Phase" and event["done"])
        assert (ended["snapshot"], ended["verify-full"]) == (1, 1)
        assert [event["at"] for event in told] == sorted(event["at"] for event in told)
        verdicts = [event["verdict"] for event in told if event["event"] == "VerdictEvent" and event["detail"].get("of") == "verify-full"]
        assert verdicts == ["valid"]
        assert run.stderr.count("compare every key: valid") == 1
        assert re.search(r"shard 2: the source starts a full sync", run.stderr)
        timeline = Counter(step["step"] for step in json.loads((run.report / "run.json").read_text())["timeline"])
        assert set(timeline.values()) == {1}, timeline
        assert {"verify", "verified", "pause", "promoted"} <= set(timeline)


def test_a_cut_over_that_is_called_off_is_told_again_when_it_is_tried_again(tmp_path: Path) -> None:
    with clusters("redis-7.0", "newest-valkey", tmp_path, (3, 1)) as pair:
        fill(pair.here, 60)
        stop = threading.Event()

        def write() -> None:  # into one shard, whose writers nobody fences
            while not stop.wait(0.01):
                pair.here.incr(key_in(7))

        writer = threading.Thread(target=write)
        writer.start()
        try:
            with pair.run("--fence", "external") as run:
                run.wait_for("cutover:call-off")
                stop.set()
                writer.join()
                assert run.wait() == 0, run.stderr
        finally:
            stop.set()
            writer.join()
        begun = Counter(run.phases())
        assert (begun["cutover:call-off"], begun["cutover:wait-for-silence"], begun["cutover:promoted"]) == (1, 2, 1)
        assert run.stderr.count("the cut-over was called off") == 1
        pair.assert_same()
