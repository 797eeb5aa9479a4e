"""The page on faults has every fault, with its needs and options, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from valkeep.drill.faults import FAULTS

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "faults.md"


def test_every_fault_is_on_the_page_with_its_needs_and_options() -> None:
    rows = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) == 8 and re.fullmatch(r"`[a-z-]+`", cells[1]):
            rows[cells[1].strip("`")] = cells
    assert list(rows) == list(FAULTS)
    for name, fault in FAULTS.items():
        _, _, _, healed, _, needs, options, _ = rows[name]
        assert set(re.findall(r"`([a-z-]+)`", needs)) == fault.needs, name
        for option, _ in fault.options:
            assert f"`{option}`" in options or option == "*", name
        assert bool(options) == bool(fault.options), name
        assert healed or not fault.needs, name
