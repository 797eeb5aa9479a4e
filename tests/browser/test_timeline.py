"""The timeline of a drill, used as a person does: hovered, zoomed, moved, recoloured, in light and dark, and without scripts."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.support.browser import Browser

DRAWN = "document.querySelector('section.timeline.drawn') !== null"
FROM, TO = 58, 18  # pixels of the canvas left and right of the axis


class Timeline:
    """What the tests do with it."""

    def __init__(self, browser: Browser, page: Path, **options: bool) -> None:
        self.browser = browser
        browser.open(page, height=1400, **options)
        browser.wait(DRAWN)
        box = browser.run(
            "(() => { const box = document.querySelector('section.timeline canvas').getBoundingClientRect(); return [box.x, box.y, box.width, box.height] })()"
        )
        self.left, self.top, self.width, self.height = box

    @property
    def window(self) -> tuple[float, float]:
        low, high = map(float, self.browser.run("document.querySelector('section.timeline').dataset.window").split())
        return low, high

    def x(self, at: float) -> float:
        low, high = self.window
        return float(self.left + FROM + (at - low) / (high - low) * (self.width - FROM - TO))

    def tip(self, at: float, down: float) -> str:
        """What is told when the mouse is at this moment, so far below the canvas' top."""
        self.browser.mouse("mouseMoved", self.x(at), self.top + down)
        return str(
            self.browser.run(
                "(() => { const tip = document.querySelector('section.timeline .tip'); return tip.style.visibility === 'visible' ? tip.innerText : '' })()"
            )
        )

    def hunt(self, at: float, words: str) -> str:
        """The tip with these words, somewhere above this moment."""
        for down, aside in itertools.product(range(110, 430, 4), (0.0, 0.004, -0.004)):
            tip = self.tip(at + aside, down)
            if words in tip:
                return tip
        raise AssertionError(f"nothing at {at} s says {words!r}")

    def settled(self, before: tuple[float, float]) -> tuple[float, float]:
        self.browser.wait(f"document.querySelector('section.timeline').dataset.window !== '{before[0]:.6f} {before[1]:.6f}'")
        return self.window

    def colours(self) -> set[tuple[int, ...]]:
        """Of the pixels of the canvas."""
        found = self.browser.run(
            "(() => { const canvas = document.querySelector('section.timeline canvas'), { width, height } = canvas, seen = new Set();"
            " const copy = new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true }); copy.drawImage(canvas, 0, 0);"
            " const all = copy.getImageData(0, 0, width, height).data;"
            " for (let i = 0; i < all.length; i += 4) if (all[i + 3]) seen.add(`${all[i]},${all[i + 1]},${all[i + 2]}`); return [...seen] })()"
        )
        return {tuple(map(int, one.split(","))) for one in found}


@pytest.fixture
def timeline(chromium: Browser, drill_page: Path) -> Timeline:
    return Timeline(chromium, drill_page)


def test_hovering_an_operation_tells_what_it_was_and_what_came_of_it(timeline: Timeline) -> None:
    tip = timeline.hunt(1.0, "ok after")
    assert "{" in tip.splitlines()[0]  # the key
    assert "client c" in tip
    assert "→ n1" in tip
    assert "LOST" in timeline.hunt(2.49, "LOST")
    assert "refused" in timeline.hunt(3.0, "failed after")
    assert "unknown" in timeline.hunt(3.0, "unknown after")
    assert "→ n2" in timeline.hunt(5.0, "ok after")


def test_hovering_elsewhere_tells_of_the_fault_the_steps_the_rates_and_the_log(timeline: Timeline) -> None:
    assert "kill primary (n1)" in timeline.tip(3.0, 12)
    assert "promoted +1,598 ms" in timeline.tip(4.098, 40)
    assert "acked/s" in timeline.hunt(1.0, "acked/s")
    assert "+sdown" in timeline.tip(3.554, timeline.height - 110) or "+sdown" in "".join(
        timeline.tip(3.554, down) for down in range(430, 620, 4)
    )


def test_dragging_zooms_in_shift_dragging_moves_and_a_double_click_shows_all_again(timeline: Timeline) -> None:
    whole = timeline.window
    browser, middle = timeline.browser, timeline.top + 250
    left, right = timeline.x(2.0), timeline.x(3.0)
    browser.drag(left, middle, right)
    low, high = timeline.settled(whole)
    assert abs(low - 2.0) < 0.02
    assert abs(high - 3.0) < 0.02
    browser.drag(timeline.x(2.5), middle, timeline.x(2.3), modifiers=8)
    moved = timeline.settled((low, high))
    assert abs(moved[0] - low - 0.2) < 0.02
    assert abs((moved[1] - moved[0]) - (high - low)) < 1e-6
    for kind in ("mousePressed", "mouseReleased"):
        browser.mouse(kind, timeline.x(2.6), middle, button="left")
    browser.ask("Input.dispatchMouseEvent", type="mousePressed", x=timeline.x(2.6), y=middle, button="left", clickCount=2)
    browser.ask("Input.dispatchMouseEvent", type="mouseReleased", x=timeline.x(2.6), y=middle, button="left", clickCount=2)
    assert timeline.settled(moved) == whole


def test_the_wheel_the_keys_and_the_buttons_zoom_and_never_leave_the_run(timeline: Timeline) -> None:
    whole, browser = timeline.window, timeline.browser
    browser.mouse("mouseWheel", timeline.x(4.0), timeline.top + 250, modifiers=2, deltaX=0, deltaY=-200)
    closer = timeline.settled(whole)
    assert closer[1] - closer[0] < whole[1] - whole[0]
    browser.run("document.querySelector('section.timeline canvas').focus()")
    for key, code in (("+", 187), ("ArrowLeft", 37)):
        before = timeline.window
        browser.ask("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code)
        timeline.settled(before)
    before = timeline.window
    browser.run("[...document.querySelectorAll('.tools button')].find((one) => one.textContent === '−').click()")
    wider = timeline.settled(before)
    assert whole[0] <= wider[0] < wider[1] <= whole[1]
    browser.run("document.querySelector('.tools button.fault').click()")
    low, high = timeline.settled(wider)
    assert low < 2.5 < 4.795 < high  # from before the fault to after its last step


def test_the_log_shows_the_lines_of_what_is_seen(timeline: Timeline) -> None:
    browser, whole = timeline.browser, timeline.window
    count = "[...document.querySelectorAll('.log.synced > div')].filter((row) => row.offsetParent !== null).length"
    assert browser.run(count) == 8
    browser.drag(timeline.x(3.45), timeline.top + 250, timeline.x(3.6))
    timeline.settled(whole)
    assert browser.run(count) == 2


def test_colours_follow_the_choice_and_a_hidden_group_is_gone(timeline: Timeline) -> None:
    browser = timeline.browser
    legend = "document.querySelector('section.timeline .legend').innerText"
    assert "n1" in browser.run(legend)
    browser.run(
        "(() => { const choice = document.querySelector('.tools select'); choice.value = 'function'; choice.dispatchEvent(new Event('change')) })()"
    )
    browser.wait(f"{legend}.includes('append')")
    browser.run("document.querySelector('section.timeline .legend button').click()")
    browser.wait("document.querySelector('section.timeline .legend button').getAttribute('aria-pressed') === 'false'")


def test_a_hundred_thousand_operations_are_drawn_in_a_blink(timeline: Timeline) -> None:
    took = timeline.browser.run(
        "new Promise((done) => { const began = performance.now(), section = document.querySelector('section.timeline');"
        " document.querySelectorAll('.tools button')[1].click(); requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - began))) })"
    )
    assert took < 3000  # 0.1 s when nobody else computes


def test_dark_is_dark(chromium: Browser, drill_page: Path) -> None:
    dark = Timeline(chromium, drill_page, dark=True)
    assert (240, 114, 124) in dark.colours()  # --bad of the dark form
    paper = chromium.run("getComputedStyle(document.body).backgroundColor")
    assert paper == "rgb(20, 23, 26)"
    chromium.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}])
    chromium.wait("getComputedStyle(document.body).backgroundColor === 'rgb(251, 251, 249)'")
    chromium.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert (192, 47, 59) in dark.colours()


def test_without_scripts_the_same_is_there_as_a_picture_and_tables(chromium: Browser, drill_page: Path, tmp_path: Path) -> None:
    chromium.open(drill_page, scripts=False)
    chromium.ask("Emulation.setScriptExecutionDisabled", value=False)  # only to look
    seen = chromium.run("[document.querySelector('.plain-form svg').getBoundingClientRect().height, document.body.innerText]")
    assert seen[0] > 200
    for words in ("kill primary", "promoted", "Expected and measured", "Connection refused"):
        assert words in seen[1]


def test_a_narrow_window_is_drawn_anew(timeline: Timeline) -> None:
    timeline.browser.ask("Emulation.setDeviceMetricsOverride", width=700, height=1400, deviceScaleFactor=2, mobile=False)
    timeline.browser.wait(
        "(() => { const canvas = document.querySelector('section.timeline canvas'); return canvas.width > canvas.clientWidth * 1.9 })()"
    )
