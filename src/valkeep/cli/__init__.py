"""The ``valkeep`` command: parsing, one call, rendering. One file per command group."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Entry point of the console script."""
    raise SystemExit(0)
