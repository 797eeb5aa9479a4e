"""A skip is said aloud on a machine that lacks something, and a failure in continuous integration, where nothing may be missing."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

__all__ = ["IN_CI", "pytest_runtest_makereport"]

IN_CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"CI has to have everything that a test needs: {why}"
    return report
