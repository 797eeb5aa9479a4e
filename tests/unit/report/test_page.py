"""The page: one file, nothing from elsewhere, everything escaped, well formed, light and dark."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from valkeep.report.chart import draw, nice_step, short
from valkeep.report.html import page
from valkeep.report.story import Chart, Line, Mark, Panel, Series, Span, Story, Table, Tile
from valkeep.report.storyfile import from_json, to_json

NASTY = '</script><img src=x onerror="alert(1)">&'

POINTS = tuple((at / 10, float(at % 7) * 1000) for at in range(100))

STORY = Story(
    title=f"Redis → Valkey {NASTY}",
    subtitle=NASTY,
    verdict="valid",
    sentence=NASTY,
    tiles=(Tile("Write pause", "43", "ms", NASTY, "good"),),
    panels=(
        Panel(
            "Timeline",
            0.0,
            10.0,
            NASTY,
            spans=(Span(f"sync {NASTY}", 0.0, 4.0, "target"), Span("pause", 4.0, 4.1, "bad", band=True)),
            marks=(Mark(4.05, f"promoted {NASTY}", "soft"), Mark(4.06, "first ack", "soft"), Mark(99.0, "outside", "soft")),
            charts=(
                Chart(f"Acked {NASTY}", "per second", (Series(f"source {NASTY}", "source", POINTS), Series("target", "target", ()))),
                Chart("Lag", "ms", (Series("lag", "lag", ((1.0, 2.0), (2.0, None), (3.0, 4.0))),), area=True),
            ),
        ),
        Panel("Short", 4.0, 4.2, zero=4.0),
    ),
    tables=(Table("Ledger", ("what", "count"), (("field-ttl", "3"), (NASTY, "1")), NASTY, frozenset({1}), ("good", "bad")),),
    log=(Line(0.5, "warning", NASTY),),
    reasons=(NASTY,),
    command=f"valkeep {NASTY}",
    footer=NASTY,
)

VOID = {"meta", "img", "br", "link", "line", "rect", "path"}


class Reader(HTMLParser):
    """Collects tags and attributes; complains about tags that do not close."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.problems: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    return reader


def test_the_page_is_well_formed() -> None:
    reader = read(page(STORY))
    assert reader.problems == []
    assert reader.open == []
    assert [tag for tag, _ in reader.tags].count("svg") == 2


def test_the_page_needs_no_network() -> None:
    text = page(STORY)
    reader = read(text)
    for tag, attributes in reader.tags:
        assert tag not in {"img", "link", "iframe", "object", "embed", "base", "audio", "video", "source", "form"}
        assert not {"src", "href", "xlink:href", "action", "srcset", "poster", "background"} & attributes.keys()
        assert not [name for name in attributes if name.startswith("on")]
    style = text[text.index("<style>") : text.index("</style>")]
    assert not re.search(r"url\(|@import|https?:|//[a-z]", style)
    code = "".join(reader.scripts)
    assert not re.search(r"fetch\(|XMLHttpRequest|import\(|WebSocket|https?:|eval\(", code)
    policy = next(attributes["content"] for tag, attributes in reader.tags if attributes.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_text_from_outside_is_escaped_everywhere() -> None:
    text = page(STORY)
    assert "<img" not in text
    assert text.count("</script>") == 1 + 2  # the page's own, and one data block for each panel


def test_each_panel_carries_its_data_for_the_cross_hair() -> None:
    reader = read(page(STORY))
    data = [json.loads(script) for script in reader.scripts if script.startswith("{")]
    assert [panel["ms"] for panel in data] == [False, True]
    assert len(data[0]["series"][0]["points"]) == 100
    assert data[0]["series"][2]["points"][1] == [2.0, None]


def test_the_page_has_a_light_and_a_dark_form() -> None:
    assert "prefers-color-scheme: dark" in page(STORY)
    assert "color-scheme: light dark" in page(STORY)


@pytest.mark.parametrize(
    ("verdict", "tone"), [("valid", "good"), ("invalid", "bad"), ("unknown", "warn"), ("NO-GO", "bad"), ("GO", "good")]
)
def test_the_verdict_has_its_colour(verdict: str, tone: str) -> None:
    text = page(Story("t", "s", verdict, "x"))
    assert f'<span class="badge {tone}">{verdict}</span>' in text


def test_a_hundred_thousand_points_do_not_make_a_big_page() -> None:
    points = tuple((at / 1000, float(at % 100)) for at in range(100_000))
    story = Story("t", "s", "valid", "x", panels=(Panel("p", 0.0, 100.0, charts=(Chart("c", "", (Series("s", "source", points),)),)),))
    assert len(page(story)) < 200_000


def test_an_empty_panel_draws() -> None:
    assert "<svg" in draw(Panel("empty", 0.0, 0.0))
    assert "<svg" in draw(Panel("zeros", 0.0, 1.0, charts=(Chart("c", "", (Series("s", "source", ((0.5, 0.0),)),)),)))


def test_labels_that_would_overlap_get_rows_of_their_own() -> None:
    marks = tuple(Mark(5.0 + at / 1000, f"a rather long label {at}") for at in range(4))
    rows = re.findall(r'<text x="[\d.]+" y="([\d.]+)" text-anchor="\w+" style="fill', draw(Panel("p", 0.0, 10.0, marks=marks)))
    assert len(set(rows)) == 4


def test_axis_numbers_are_round() -> None:
    assert [nice_step(span, 4) for span in (1, 7, 35, 6500, 0.03)] == [0.5, 2, 10, 2000, 0.01]
    assert [short(value) for value in (0, 950, 1500, 2_000_000)] == ["0", "950", "1.5k", "2M"]


def test_a_story_survives_its_json() -> None:
    assert from_json(json.loads(json.dumps(to_json(STORY)))) == STORY
