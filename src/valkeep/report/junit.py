"""Results as JUnit XML, the form that every CI system reads.

    <testsuites><testsuite name="valkeep drill" tests failures errors skipped time timestamp>
      <testcase classname="valkeep.drill.sentinel" name="sentinel-kill-primary" time>
        <properties><property name="gap_ms" value="1712.3"/> … what was measured
        <failure message="the first reason" type="invalid">all reasons</failure>      invalid: judged bad
        <error   message="the reason"       type="unknown">…</error>                  unknown: could not be judged
        <system-out>what it teaches, and the line that replays it</system-out>

The shape is the common one (the Ant task's, as Jenkins' xUnit schema and pytest write it). XML 1.0 can not hold most control characters, not even
escaped: they become U+FFFD. Pure: values in, text out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final
from xml.sax.saxutils import escape, quoteattr

__all__ = ["Case", "junit"]

_FORBIDDEN: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_KINDS: Final = {"invalid": "failure", "valid": ""}


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that was tried. ``verdict``: valid, invalid or unknown; ``properties``: what was measured; ``output``: for people."""

    name: str
    classname: str
    verdict: str
    seconds: float
    reasons: tuple[str, ...] = ()
    properties: Mapping[str, float | str | None] = field(default_factory=dict)
    output: str = ""


def junit(suite: str, cases: Iterable[Case], *, seconds: float, timestamp: str, hostname: str = "") -> str:
    """The document. ``timestamp``: ISO 8601, UTC, to the second, when the suite began."""
    listed = list(cases)
    failures = sum(one.verdict == "invalid" for one in listed)
    errors = sum(one.verdict not in ("valid", "invalid") for one in listed)
    counts = f'tests="{len(listed)}" failures="{failures}" errors="{errors}" time="{seconds:.3f}"'
    host = f" hostname={_attribute(hostname)}" if hostname else ""
    body = "".join(map(_case, listed))
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        f'<testsuites {counts}><testsuite name={_attribute(suite)} {counts} skipped="0" timestamp={_attribute(timestamp)}{host}>\n'
        f"{body}</testsuite></testsuites>\n"
    )


def _case(case: Case) -> str:
    properties = "".join(
        f"    <property name={_attribute(name)} value={_attribute(_value(value))}/>\n"
        for name, value in case.properties.items()
        if value is not None
    )
    parts = f"   <properties>\n{properties}   </properties>\n" if properties else ""
    kind = _KINDS.get(case.verdict, "error")
    if kind:
        first = case.reasons[0] if case.reasons else f"the verdict is {case.verdict}"
        parts += f"   <{kind} message={_attribute(first)} type={_attribute(case.verdict)}>{_text(chr(10).join(case.reasons))}</{kind}>\n"
    if case.output:
        parts += f"   <system-out>{_text(case.output)}</system-out>\n"
    return f'  <testcase classname={_attribute(case.classname)} name={_attribute(case.name)} time="{case.seconds:.3f}">\n{parts}  </testcase>\n'


def _value(value: float | str | None) -> str:
    return f"{value:.12g}" if isinstance(value, int | float) else str(value)


def _text(text: str) -> str:
    return escape(_FORBIDDEN.sub("\ufffd", text))


def _attribute(text: str) -> str:
    """With its quotes; line ends and tabs stay what they are."""
    return quoteattr(_FORBIDDEN.sub("\ufffd", text), {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})
