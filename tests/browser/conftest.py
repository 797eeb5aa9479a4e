"""A real Chromium. `make test-services` runs these (`.ci/services`), `make test` does not: it is a hundred megabytes that nothing else needs.
By hand: ``VALKEEP_TEST_SERVICES=1 pytest tests/browser``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.browser import Browser, browser
from tests.support.drilled import outcome
from valkeep.drill.picture import drill_story, drill_timeline
from valkeep.report.html import page

collect_ignore_glob = [] if os.environ.get("VALKEEP_TEST_SERVICES") else ["test_*.py"]


@pytest.fixture(scope="session")
def one_browser() -> Iterator[Browser]:
    with browser() as one:
        yield one


@pytest.fixture
def chromium(one_browser: Browser) -> Iterator[Browser]:
    """A tab of its own for each test; whatever its console complains of fails the test."""
    one_browser.problems.clear()
    yield one_browser
    one_browser.close()
    assert one_browser.problems == []


@pytest.fixture(scope="session")
def drill_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drill with 100,000 operations, opened from its file."""
    found = outcome(100_000, lost=400)
    place = tmp_path_factory.mktemp("page") / "drill.html"
    place.write_text(page(drill_story(found), drill_timeline(found)), encoding="utf-8")
    return place
