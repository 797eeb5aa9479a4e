"""The timeline of a page: what is packed is what was recorded, it stays small, and what is thinned is said and keeps what matters."""

from __future__ import annotations

import base64
import json
import random
import re
import struct
import zlib
from array import array
from typing import Any

from tests.unit.report.test_page import NASTY, read
from valkeep.report.html import page
from valkeep.report.story import Line, Mark, Span, Story
from valkeep.report.timeline import FAIL, INFO, OK, SLICES, Shown, Timeline, overview, packed, thinned, trend

STORY = Story("t", "s", "valid", "x", log=(Line(0.5, "error", NASTY, "n1"),))


def operations(count: int, seed: int = 1) -> list[Shown]:
    """As hard to pack as they come: random keys, values and results."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        at = number * 10 / count
        outcome = rng.choices((OK, FAIL, INFO), (98, 1, 1))[0]
        took = rng.lognormvariate(-7, 1)
        made.append(
            Shown(at, at + took if outcome != INFO or rng.random() < 0.5 else -1e9, f"c{rng.randrange(4)}", rng.choice(("append", "write", "read")),
                  f"r:{{{rng.randrange(12):02x}}}:{rng.randrange(3000)}", outcome, rng.choice(("n1", "n2")), "" if outcome == OK else "timeout",
                  rng.getrandbits(63), rng.getrandbits(40) if rng.random() < 0.5 else None, lost=outcome == OK and rng.random() < 0.001)
        )  # fmt: skip
    return made


def timeline(made: list[Shown], **more: Any) -> Timeline:
    return Timeline(
        0.0,
        10.0,
        made,
        trend(made, 0.0, 10.0),
        (Span(f"kill {NASTY}", 4.0, 6.0, "bad", band=True),),
        (Mark(5.0, f"promoted {NASTY}"),),
        **more,
    )


def unpacked(block: str) -> tuple[dict[str, Any], dict[str, array[int]]]:
    """What timeline.js does."""
    data = zlib.decompress(base64.b64decode(block), -15)
    (size,) = struct.unpack_from("<I", data)
    header, at, columns = json.loads(data[4 : 4 + size]), 4 + size, {}
    for name, width, length in header["columns"]:
        raw = bytearray(width * length)
        for plane in range(width):
            raw[plane::width] = data[at : at + length]
            at += length
        columns[name] = array("I" if width == 4 else "Q", bytes(raw))
    assert at == len(data)
    return header, columns


def test_each_operation_comes_back_as_it_was_packed() -> None:
    made = operations(2000)
    block, shown = packed(timeline(made))
    header, columns = unpacked(block)
    assert (shown, header["shown"], header["total"]) == (2000, 2000, 2000)
    microseconds, values, results, last_value, last_result = (
        0,
        iter(columns["value"]),
        iter(columns["result"]),
        dict[int, int](),
        dict[int, int](),
    )
    for place, one in enumerate(made):
        microseconds += columns["invoked"][place]
        assert microseconds == round(one.invoked * 1e6)
        assert columns["latency"][place] == (0 if one.seconds is None else round(one.seconds * 1e6) + 1)
        kind, client, key = columns["kind"][place], columns["client"][place], columns["key"][place]
        assert (kind & 3, bool(kind & 4), header["clients"][client]) == (one.outcome, one.lost, one.client)
        names = [
            header[list_][columns[column][place]]
            for list_, column in (("functions", "function"), ("nodes", "node"), ("keys", "key"), ("errors", "error"))
        ]
        assert names == [one.function, one.node, one.key, one.error]
        assert one.value is not None
        last_value[client] = (last_value.get(client, 0) + next(values)) % (1 << 64)
        assert last_value[client] == one.value
        assert bool(kind & 16) == (one.result is not None)
        if one.result is not None:
            last_result[key] = (last_result.get(key, 0) + next(results)) % (1 << 64)
            assert last_result[key] == one.result
    assert next(values, None) is next(results, None) is None


def test_a_page_with_a_hundred_thousand_operations_is_no_bigger_than_three_megabytes() -> None:
    text = page(STORY, timeline(operations(100_000)))
    assert 'data-shown="100000"' in text
    assert "All 100,000 operations." in text
    assert len(text.encode()) <= 3_000_000


def test_of_more_operations_those_that_matter_stay_and_the_page_says_how_many_are_shown() -> None:
    made = operations(30_000)
    kept = thinned(made, 10_000)
    assert len(kept) == 10_000
    assert sorted(kept) == list(kept)
    assert {one for one in made if one.lost or one.outcome != OK} <= set(kept)
    answered = [one for one in made if one.seconds is not None]
    assert max(answered, key=lambda one: one.seconds or 0) in kept
    assert min(answered, key=lambda one: one.seconds or 0) in kept
    text = page(STORY, timeline(made, limit=10_000))
    assert "10,000 of 30,000 operations" in text
    assert 'data-shown="10000"' in text


def test_an_outage_of_a_hundred_thousand_failures_does_not_push_everything_else_out() -> None:
    failed = [one._replace(outcome=FAIL, lost=False) for one in operations(40_000)]
    fine = [
        one._replace(outcome=OK, invoked=one.invoked + 10, returned=one.returned + 10)
        for one in operations(20_000, 2)
        if one.seconds is not None
    ]
    kept = thinned(failed + fine, 10_000)
    assert len(kept) <= 10_000 + 4 * SLICES
    assert sum(one.outcome == FAIL for one in kept) >= 5000
    assert sum(one.outcome == OK for one in kept) >= 2000


def test_rates_and_percentiles_are_of_all_operations() -> None:
    made = [Shown(at / 100, at / 100 + 0.002, "c1", "write", "k", OK, "n1") for at in range(1000)]
    made[500] = made[500]._replace(outcome=FAIL)
    made[501] = made[501]._replace(outcome=INFO, returned=-1e9)
    found = trend(made, 0.0, 10.0)
    assert sum(found.acked["n1"]) * found.step == 998
    assert sum(found.failed) * found.step == sum(found.unknown) * found.step == 1
    assert {round(value, 6) for value in found.p50 if value is not None} == {2.0}


def test_the_page_with_a_timeline_is_well_formed_needs_no_network_and_escapes_what_comes_from_outside() -> None:
    text = page(STORY, timeline(operations(500)))
    reader = read(text)
    assert reader.problems == []
    assert reader.open == []
    assert "<img" not in text
    for tag, attributes in reader.tags:
        assert tag not in {"img", "link", "iframe", "object", "embed", "base"}
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "href")]
    assert not re.search(r"fetch\(|XMLHttpRequest|import\(|WebSocket|https?:|eval\(|innerHTML", "".join(reader.scripts))


def test_without_scripts_the_page_has_rates_latencies_faults_and_steps_as_a_picture() -> None:
    panel = overview(timeline(operations(500)))
    assert [chart.title for chart in panel.charts] == ["Acked operations, by node", "Latency"]
    text = page(STORY, timeline(operations(500)))
    assert text.count("<svg") == 1
    assert 'class="plain-form' in text


def test_the_log_stands_below_the_operations_with_its_times_and_nodes() -> None:
    text = page(STORY, timeline(operations(500)))
    assert '<div class="error" data-at="0.500000" data-node="n1">' in text
    assert text.count('class="log synced"') == 1
    assert 'class="log"' not in text


def test_a_run_of_one_moment_is_packed_and_drawn() -> None:
    made = [Shown(1.0, 1.0, "c1", "write", "k", OK, "n1", value=-1)]
    one = Timeline(1.0, 1.0, made, trend(made, 1.0, 1.0))
    header, columns = unpacked(packed(one)[0])
    assert (header["shown"], columns["value"][0]) == (1, (1 << 64) - 1)
    assert "<canvas" in page(STORY, one)
