"""JUnit XML: of the common shape, well formed whatever the texts are, with everything that was measured."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from valkeep.report.junit import Case, junit

CASES = (
    Case(
        "fine",
        "valkeep.drill",
        "valid",
        1.5,
        properties={"gap_ms": 1712.25, "lost": 0, "server": "valkey 9.1.2", "none": None},
        output="teaches\n$ again",
    ),
    Case("bad", "valkeep.drill", "invalid", 2.0, ("lost ≤ 0: 5", "a second one")),
    Case("odd", "valkeep.drill", "unknown", 0.0, ("the host stalled for 900 ms",)),
    Case("mute", "valkeep.drill", "invalid", 0.0),
)

# The common schema (jenkins-junit.xsd): element → its attributes, and its children in order.
SHAPE = {
    "testsuites": ({"tests", "failures", "errors", "time"}, ["testsuite"]),
    "testsuite": ({"name", "tests", "failures", "errors", "skipped", "time", "timestamp", "hostname"}, ["testcase"]),
    "testcase": ({"classname", "name", "time"}, ["properties", "failure", "error", "system-out"]),
    "properties": (set(), ["property"]),
    "property": ({"name", "value"}, []),
    "failure": ({"message", "type"}, []),
    "error": ({"message", "type"}, []),
    "system-out": (set(), []),
}


def parsed(*cases: Case, suite: str = "valkeep drill") -> ET.Element:
    return ET.fromstring(junit(suite, cases, seconds=12.3456, timestamp="2026-11-21T12:00:00", hostname="h").encode())


def complaints(element: ET.Element) -> list[str]:
    attributes, children = SHAPE[element.tag]
    found = [f"{element.tag} has {name}" for name in element.attrib if name not in attributes]
    order = [children.index(child.tag) if child.tag in children else -1 for child in element]
    if -1 in order or order != sorted(order):
        found.append(f"{element.tag} holds {[child.tag for child in element]}")
    return found + [one for child in element for one in complaints(child)]


def test_the_document_has_the_common_shape_and_its_counts_add_up() -> None:
    root = parsed(*CASES)
    assert complaints(root) == []
    suite = root[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors"), suite.get("skipped")) == ("4", "2", "1", "0")
    assert suite.get("time") == "12.346"
    assert suite.get("timestamp") == "2026-11-21T12:00:00"


def test_an_invalid_drill_is_a_failure_with_its_reasons_and_an_unknown_one_an_error() -> None:
    fine, bad, odd, mute = parsed(*CASES)[0]
    assert fine.find("failure") is None
    assert fine.find("error") is None
    failure, error, silent = bad.find("failure"), odd.find("error"), mute.find("failure")
    assert failure is not None
    assert (failure.get("message"), failure.get("type"), failure.text) == ("lost ≤ 0: 5", "invalid", "lost ≤ 0: 5\na second one")
    assert error is not None
    assert error.get("message") == "the host stalled for 900 ms"
    assert silent is not None
    assert silent.get("message") == "the verdict is invalid"


def test_what_was_measured_is_a_property_and_what_was_not_is_none() -> None:
    properties = {one.get("name"): one.get("value") for one in parsed(*CASES).iter("property")}
    assert properties == {"gap_ms": "1712.25", "lost": "0", "server": "valkey 9.1.2"}


@given(st.text())
def test_any_text_makes_a_well_formed_document_and_comes_back(text: str) -> None:
    root = parsed(Case(text, text, "invalid", 0.0, (text, "]]>"), {text: text}, text), suite=text)
    assert complaints(root) == []
    case = root[0][0]
    plain = "".join(
        letter
        if letter in "\t\n\r" or (letter >= " " and letter not in "\ufffe\uffff" and not "\ud800" <= letter <= "\udfff")
        else "\ufffd"
        for letter in text
    )
    assert case.get("name") == plain
    output = case.find("system-out")
    assert (output.text or "" if output is not None else "") == plain.replace("\r\n", "\n").replace("\r", "\n")


def test_no_drills_make_an_empty_suite() -> None:
    assert parsed()[0].get("tests") == "0"
