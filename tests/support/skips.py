"""A skip is said aloud on a machine that lacks something, and a failure in continuous integration, where nothing may be missing."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from valkeep.runtime.machine import in_ci

__all__ = ["pytest_runtest_makereport"]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if in_ci() and report.skipped and not hasattr(report, "wasxfail"):
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"CI has to have everything that a test needs: {why}"
    return report
