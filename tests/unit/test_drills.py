"""Every alert was provoked, and its section done word for word: the table of what came of it fits rules and runbook."""

import re
from pathlib import Path

import pytest

from tests.drills.__main__ import MODULES
from tests.drills.drill import DRILLS
from tests.drills.rules import THRESHOLDS, rules, scaled, section
from tests.drills.scene import Scene, Watched
from tests.drills.table import row, rows
from worker.tools.local_kafka import LocalKafka

ALERTS = [rule["alert"] for rule in rules()]


def test_each_alert_has_a_drill() -> None:
    """None is without, and none is about an alert that does not exist."""
    assert MODULES
    assert DRILLS.keys() == set(ALERTS)
    assert THRESHOLDS.keys() <= set(ALERTS)


def test_page_has_a_row_for_each_alert() -> None:
    """In the order of the rules."""
    assert list(rows()) == ALERTS


@pytest.mark.parametrize("alert", ALERTS)
def test_row_fits_rule_drill_and_runbook(alert: str) -> None:
    """What was provoked, how long the rule waits, and each command and log event are still what they were in the drill:
    whoever changes one of them does the drill again (`make drills ARGS="--only NAME --write"`).
    """
    found = rows()[alert]
    *_, steps, _, _ = found.strip("| \n").split(" | ")
    without = re.sub(r"\d+ s(?= \|)", "N s", found)
    assert without == re.sub(r"\d+ s(?= \|)", "N s", row(alert, Watched(steps=[steps])))
    flat = " ".join(section(alert).split())
    missing = [step for step in re.findall(r"`([^`]+)`", steps) if step not in flat]
    assert not missing


def test_times_of_a_rule_are_scaled() -> None:
    """`for`, ranges, offsets and thresholds in seconds; nothing else."""
    rule = {
        "alert": "CartsyncBacklogOld",
        "expr": "rate(a_total[5m]) > 300 and b > 1000 and c offset 1h > 0 and d{le='5m'} == 10",
        "for": "5m",
    }
    assert scaled(rule, 30) == {
        "alert": "CartsyncBacklogOld",
        "expr": "rate(a_total[10000ms]) > 10 and b > 1000 and c offset 120000ms > 0 and d{le='5m'} == 10",
        "for": "10000ms",
    }
    assert rule["for"] == "5m"


@pytest.mark.parametrize("rule", rules(), ids=ALERTS)
def test_nothing_but_times_is_scaled(rule: dict[str, str]) -> None:
    """A rule that is not faster is what it was."""

    def plain(expr: str) -> str:
        return re.sub(r"(?<=\[)\w+(?=\])|(?<=offset )\w+", "T", expr)

    assert plain(scaled(rule, 1)["expr"]) == plain(rule["expr"])


def test_drill_does_only_what_the_section_says(tmp_path: Path) -> None:
    """A command that it does not name ends the drill."""
    scene = Scene(DRILLS["CartsyncOrdersParked"], LocalKafka(), tmp_path / "scene", "prometheus")
    scene.named("cartsync order release")
    with pytest.raises(AssertionError, match="does not name 'cartsync order forget'"):
        scene.named("cartsync order forget")


def test_section_has_what_it_refers_to() -> None:
    """A drill may do what the manual says where the runbook sends its reader."""
    text = section("CartsyncAccountPaused")
    assert text.startswith("### CartsyncAccountPaused\n")
    assert "### Credentials are rejected\n" in text
    assert "CartsyncProviderFailing" not in text
