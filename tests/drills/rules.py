"""The alert rules of a drill: those of deploy/monitoring/alerts.yaml, with every time in them divided by one factor.

Nobody waits an hour for a drill. So five minutes become ten seconds: `for`, the ranges of queries, and the thresholds
that are seconds. Nothing else of a rule changes, and what it is evaluated on is what the processes show.
"""

import copy
import re
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
ALERTS = DEPLOY / "monitoring" / "alerts.yaml"
THRESHOLDS = {
    "CartsyncBacklogOld": "> 300",
    "CartsyncKafkaUnreachable": "> 60",
    "CartsyncReportOverdue": "> 3600",
    "CartsyncConsoleBehind": "> 300",
}
"""What is compared with seconds that a process counts, so that it shrinks like the ranges."""
_UNITS_S = {"s": 1, "m": 60, "h": 3600}
_STEPS = 2
"""From a section to another one, and from there to a third: further than that nobody reads at night."""
_RANGE = re.compile(r"(?<=\[)(\d+)([smh])(?=\])|(?<=offset )(\d+)([smh])")


def rules() -> list[dict[str, Any]]:
    """The rules as they are."""
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def seconds(text: str) -> int:
    """Of a duration of Prometheus with one unit."""
    return int(text[:-1]) * _UNITS_S[text[-1]]


def scaled(rule: dict[str, Any], factor: float) -> dict[str, Any]:
    """A rule whose times are so much shorter; to the millisecond."""
    found = copy.deepcopy(rule)
    if "for" in rule:
        found["for"] = _text(seconds(rule["for"]) / factor)
    found["expr"] = _RANGE.sub(lambda match: _text(seconds(match[0]) / factor), rule["expr"])
    if (threshold := THRESHOLDS.get(rule["alert"])) is not None:
        assert rule["expr"].count(threshold) == 1, f"{rule['alert']} has another threshold than {threshold}"
        found["expr"] = found["expr"].replace(threshold, f"> {int(threshold[2:]) / factor:g}")
    return found


def _text(of_s: float) -> str:
    return f"{round(of_s * 1000)}ms"


def section(alert: str) -> str:
    """What the runbook says about an alert, and behind it the sections to which it sends its reader."""
    pages = {name: (DEPLOY / name).read_text(encoding="utf-8") for name in ("RUNBOOK.md", "OPERATIONS.md")}
    parts: dict[tuple[str, str], str] = {}
    asked = [("RUNBOOK.md", alert.lower())]
    for _ in range(1 + _STEPS):
        new = {(page, anchor): _section(pages[page], anchor) for page, anchor in asked if (page, anchor) not in parts}
        parts |= new
        asked = [
            (other or page, anchor)
            for (page, _), text in new.items()
            for other, anchor in re.findall(r"\]\((RUNBOOK\.md|OPERATIONS\.md|)#([\w-]+)\)", text)
        ]
    return "\n".join(parts.values())


def _section(page: str, anchor: str) -> str:
    parts = re.split(r"^(?=#{2,3} )", page, flags=re.MULTILINE)
    found = [part for part in parts if _anchor(part.partition("\n")[0]) == anchor]
    assert len(found) == 1, f"no section {anchor}"
    return found[0]


def _anchor(heading: str) -> str:
    words = re.sub(r"[^\w\- ]", "", heading.lstrip("# ").lower())
    return words.replace(" ", "-")
