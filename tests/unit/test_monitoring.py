"""Alerts, runbook and dashboard speak of the metrics that there are."""

import importlib.util
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

from tests.programs import program
from worker.metrics import METRICS, Metrics

DEPLOY = Path(__file__).parents[2] / "deploy"
MONITORING = DEPLOY / "monitoring"
KNOWN = {metric.name: set(metric.labels) for metric in METRICS} | {
    f"{metric.name}_{suffix}": set(metric.labels) | ({"le"} if suffix == "bucket" else set())
    for metric in METRICS
    if metric.type == "histogram"
    for suffix in ("bucket", "sum", "count")
}
SCRAPED = {"instance", "job"}
"""Labels that Prometheus adds to every series."""
NAME = re.compile(r"\bcartsync_[a-z_]+")
SELECTOR = re.compile(r"\b(cartsync_[a-z_]+)\{([^}]*)\}")


def alerts() -> list[dict[str, Any]]:
    """The alert rules."""
    groups = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> Iterator[tuple[str, str]]:
    """Every query: where it stands, and its text."""
    for rule in alerts():
        yield rule["alert"], rule["expr"]
    for panel in json.loads((MONITORING / "dashboard.json").read_text())["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


def faults(query: str) -> list[str]:
    """What is wrong with a query: metrics and labels that cartsync does not have."""
    names = set(NAME.findall(query))
    found = [f"no metric {name}" for name in sorted(names - KNOWN.keys())]
    labels = set().union(*(KNOWN[name] for name in names & KNOWN.keys()))
    for listed in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", query):
        asked = {label.strip() for label in listed.split(",") if label.strip()}
        found += [f"no label {label}" for label in sorted(asked - labels - SCRAPED)]
    for name, selector in SELECTOR.findall(query):
        asked = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector))
        found += [f"no label {label} of {name}" for label in sorted(asked - KNOWN.get(name, set()) - SCRAPED)]
    return found


def test_queries_are_about_metrics_that_there_are() -> None:
    """No alert and no panel asks for a metric or a label that cartsync does not have."""
    assert not [(where, found) for where, query in expressions() if (found := faults(query))]


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        pytest.param("sum(cartsync_orders)", "no metric cartsync_orders", id="unknown metric"),
        pytest.param("max by (order) (cartsync_ready)", "no label order", id="unknown label"),
        pytest.param(
            'cartsync_dlq_total{account="a"}', "no label account of cartsync_dlq_total", id="label of another metric"
        ),
    ],
)
def test_wrong_queries_are_found(query: str, fault: str) -> None:
    """The test above can fail."""
    assert faults(query) == [fault]


def test_each_alert_has_its_section_of_the_runbook() -> None:
    """Whoever is paged finds what to do; the runbook has no section for an alert that does not exist."""
    sections = re.findall(r"^### (\w+)$", (DEPLOY / "RUNBOOK.md").read_text(), re.MULTILINE)
    assert sections == [rule["alert"] for rule in alerts()]
    for rule in alerts():
        assert rule["annotations"]["runbook"] == f"deploy/RUNBOOK.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in {"page", "ticket"}


def test_sections_of_the_runbook_are_complete() -> None:
    """Each says what the alert means, how to see it, what to do, and whom to wake."""
    text = (DEPLOY / "RUNBOOK.md").read_text()
    for section in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        missing = [word for word in ("*Means*", "*See it*", "*Do*", "*Wake*") if word not in section]
        assert not missing, f"{section.splitlines()[0]}: {missing}"


def test_each_alert_is_tested_both_ways() -> None:
    """There is a case in which it fires, and one in which it does not."""
    tests = yaml.safe_load((MONITORING / "alerts_test.yaml").read_text())["tests"]
    cases = {(rule["alertname"], bool(rule["exp_alerts"])) for test in tests for rule in test["alert_rule_test"]}
    assert cases == {(rule["alert"], fires) for rule in alerts() for fires in (True, False)}


def test_alerts_do_as_their_tests_say() -> None:
    """Prometheus' own tool runs the tests of the rules."""
    tool = program("promtool")
    for command in (["check", "rules", "--lint=all", "alerts.yaml"], ["test", "rules", "alerts_test.yaml"]):
        done = subprocess.run(
            [tool, *command], capture_output=True, text=True, check=False, timeout=120, cwd=MONITORING
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_metrics_are_as_prometheus_wants_them() -> None:
    """Names, units and help of the page of a worker and of what it shows of its process: promtool has nothing to say."""
    page = generate_latest(Metrics(process=True).registry)
    done = subprocess.run([program("promtool"), "check", "metrics"], input=page, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_dashboard_is_up_to_date() -> None:
    """The file is what its program writes."""
    path = MONITORING / "dashboard.py"
    spec = importlib.util.spec_from_file_location("dashboard", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (MONITORING / "dashboard.json").read_text() == module.text()


def test_dashboard_has_room_for_its_panels() -> None:
    """Panels do not overlap, and none has the number of another."""
    panels = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in panels):
        cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert not cells & taken
        taken |= cells
        assert place["x"] + place["w"] <= 24
