"""What a run of scenarios says."""

from xml.etree import ElementTree as ET

import pytest

from worker.tools.scenario.report import Failure, Report, Result, as_junit, as_object, as_text

PASSED = Result("s/A1.json", "A1", "all is well", [], 0.25)
FAILED = Result(
    "s/A2.json", "A2", "it is not", [Failure(3, "expect_held", ["1: expected 5, got \x00", "two\nlines"])], 0.5
)


def test_text():
    """One line per scenario, each failure with its place and its differences, and a sum."""
    assert as_text(Report([PASSED, FAILED], ["x.json: no"], 1.0)).splitlines() == [
        "ok   A1  all is well",
        "FAIL A2  it is not",
        "     s/A2.json: step 3, expect_held",
        "       1: expected 5, got \x00",
        "       two",
        "       lines",
        "ERROR x.json: no",
        "2 scenarios, 1 failed, 1 unreadable, 1.0 s",
    ]


@pytest.mark.parametrize(
    ("results", "unreadable", "code"),
    [([PASSED], [], 0), ([PASSED, FAILED], [], 1), ([FAILED], ["x"], 2), ([], ["x"], 2)],
)
def test_exit_codes(results, unreadable, code):
    """0, 1 when an expectation failed, 2 when a file cannot be read."""
    assert Report(results, unreadable, 1.0).exit_code == code


def test_object():
    """The same for programs."""
    said = as_object(Report([PASSED, FAILED], [], 1.0))
    assert (said["passed"], said["failed"], said["unreadable"]) == (1, 1, [])
    scenarios = said["scenarios"]
    assert isinstance(scenarios, list)
    assert [(each["name"], each["passed"], len(each["failures"])) for each in scenarios] == [
        ("A1", True, 0),
        ("A2", False, 1),
    ]


def test_junit():
    """CI gets a case per scenario and per unreadable file, in well-formed XML whatever a difference holds."""
    suite = ET.fromstring(as_junit(Report([PASSED, FAILED], ["x.json: no"], 1.0)))[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "1")
    failure = suite[1].find("failure")
    assert failure is not None
    assert failure.get("message") == "step 3, expect_held: 1: expected 5, got \N{REPLACEMENT CHARACTER}"
    assert "two\nlines" in (failure.text or "")
    assert suite[0].find("failure") is None
    assert suite[2].find("error") is not None
