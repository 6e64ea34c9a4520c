"""Writes the Grafana dashboard: `python deploy/monitoring/dashboard.py > deploy/monitoring/dashboard.json`.

One row of panels for each question of an operator, in the order in which one asks them. A test holds the file up to
date, and every metric in it against those that cartsync has.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

Json = dict[str, Any]

_WIDTH, _HEIGHT, _PER_ROW = 24, 7, 3
_DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}


class Panel(NamedTuple):
    """One picture: its queries by legend."""

    title: str
    unit: str
    """Grafana's name of a unit."""
    queries: dict[str, str]
    help: str


def _rate(metric: str, by: str, where: str = "") -> str:
    return f"sum by ({by}) (rate({metric}{where}[$__rate_interval]))"


def _quantile(metric: str, quantile: float, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({quantile}, sum by ({labels}) (rate({metric}_bucket[$__rate_interval])))"


ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Does the provider have the newest state?",
        (
            Panel(
                "Age of the oldest order owed",
                "s",
                {"{{account}}": "max by (account) (cartsync_backlog_age_seconds)"},
                "The service level: how long a shopper may be charged by an old state.",
            ),
            Panel(
                "From an event to its acknowledgement",
                "s",
                {
                    "median": _quantile("cartsync_event_to_ack_seconds", 0.5),
                    "99th percentile": _quantile("cartsync_event_to_ack_seconds", 0.99),
                },
                "From the event's own time, so events that a shop writes late count.",
            ),
            Panel(
                "Orders owed, on hold, parked",
                "short",
                {
                    "owed": "sum(cartsync_outbox_orders)",
                    "on hold": "sum(cartsync_held_orders)",
                    "parked {{account}}": "sum by (account) (cartsync_parked_orders)",
                },
                "On hold: a request without an answer may still arrive. Parked: until something changes.",
            ),
        ),
    ),
    (
        "What do providers answer?",
        (
            Panel(
                "Attempts by outcome",
                "reqps",
                {"{{class}}": _rate("cartsync_delivery_attempts_total", "class")},
                "Everything but applied is tried again or parked.",
            ),
            Panel(
                "Duration of attempts",
                "s",
                {
                    "median {{class}}": _quantile("cartsync_delivery_attempt_seconds", 0.5, "class"),
                    "99th percentile {{class}}": _quantile("cartsync_delivery_attempt_seconds", 0.99, "class"),
                },
                "A provider that becomes slow shows here first.",
            ),
            Panel(
                "Accounts: paused, throttled, queued",
                "short",
                {
                    "paused {{account}}": "max by (account) (cartsync_account_paused)",
                    "throttled for (s) {{account}}": "max by (account) (cartsync_account_waiting_seconds)",
                    "queued {{account}}": "sum by (account) (cartsync_account_queued)",
                    "in flight {{account}}": "sum by (account) (cartsync_account_inflight)",
                },
                "A queue that grows while nothing fails: raise concurrency or rate_per_s.",
            ),
        ),
    ),
    (
        "Do events come in?",
        (
            Panel(
                "Events by what they did",
                "ops",
                {"{{result}}": _rate("cartsync_events_total", "result")},
                "lookalike: a type that looks like one of ours and is not.",
            ),
            Panel(
                "Records behind the end of the input",
                "short",
                {
                    "{{partition}}": "sum by (partition) (cartsync_consumer_lag_records)",
                    "blocked {{partition}}": "sum by (partition) (cartsync_consumer_blocked_records)",
                },
                "Blocked: behind a producer's open transaction.",
            ),
            Panel(
                "Dead letters by reason",
                "short",
                {"{{reason}}": "sum by (reason) (increase(cartsync_dlq_total[$__rate_interval]))"},
                "Should stay flat.",
            ),
        ),
    ),
    (
        "Who owns what?",
        (
            Panel(
                "Partitions by phase",
                "short",
                {
                    "{{role}}": "sum by (role) (cartsync_partitions_assigned)",
                    "of the event topic": "max(cartsync_event_partitions)",
                },
                "Serving has to reach the number of partitions of the event topic.",
            ),
            Panel(
                "Takeovers and rebalances",
                "short",
                {
                    "fenced": "sum(increase(cartsync_fenced_total[$__rate_interval]))",
                    "rebalances": "sum(increase(cartsync_rebalances_total[$__rate_interval]))",
                },
                "Takeovers without rebalances: two deployments share a state topic.",
            ),
            Panel(
                "Lease left",
                "s",
                {"{{partition}}": "min by (partition) (cartsync_lease_remaining_seconds)"},
                "0 while orders are owed: commits fail or take too long, and nothing is sent.",
            ),
        ),
    ),
    (
        "Is the state written?",
        (
            Panel(
                "Transactions",
                "s",
                {
                    "median": _quantile("cartsync_txn_duration_seconds", 0.5),
                    "99th percentile": _quantile("cartsync_txn_duration_seconds", 0.99),
                },
                "From begin to commit.",
            ),
            Panel(
                "Transactions that did not commit",
                "short",
                {"{{kind}}": "sum by (kind) (increase(cartsync_txn_failures_total[$__rate_interval]))"},
                "fenced: another owner took over.",
            ),
            Panel(
                "Orders in memory, and restores",
                "short",
                {
                    "orders": "sum(cartsync_state_orders)",
                    "partitions restoring": "sum(cartsync_partitions_unserved)",
                    "longest restore (s)": _quantile("cartsync_restore_seconds", 0.99),
                },
                "A restore grows with the state topic.",
            ),
        ),
    ),
    (
        "Callbacks and jobs",
        (
            Panel(
                "Callbacks by result",
                "reqps",
                {"{{account}} {{result}}": _rate("cartsync_callbacks_total", "account, result")},
                "not_written: Kafka did not acknowledge in time, and the provider calls again.",
            ),
            Panel(
                "Time to answer a callback",
                "s",
                {"{{kind}}": _quantile("cartsync_callback_seconds", 0.99, "kind")},
                "Providers wait for five seconds.",
            ),
            Panel(
                "Jobs overdue, pages stuck",
                "s",
                {
                    "{{account}} {{job}}": "max by (account, job) (cartsync_job_overdue_seconds)",
                    "stuck pages {{account}}": "max by (account) (cartsync_report_pages_stuck)",
                },
                "A stuck page waits for an operator's decision.",
            ),
        ),
    ),
    (
        "The console",
        (
            Panel(
                "How old is what it shows?",
                "s",
                {"{{instance}}": "max by (instance) (cartsync_console_behind_seconds)"},
                "Under ten seconds while it reads along.",
            ),
            Panel(
                "Time to answer, 99th percentile",
                "s",
                {"{{view}}": _quantile("cartsync_console_request_seconds", 0.99, "view")},
                "A list of 200,000 orders takes less than 200 ms.",
            ),
            Panel(
                "What is done there",
                "short",
                {
                    "{{command}} {{result}}": (
                        "sum by (command, result) (increase(cartsync_console_actions_total[$__rate_interval]))"
                    ),
                    "not let in: {{reason}}": (
                        "sum by (reason) (increase(cartsync_console_sign_in_failures_total[$__rate_interval]))"
                    ),
                },
                "Orders, accounts and dead letters; and who was not let in.",
            ),
        ),
    ),
    (
        "Is the process well?",
        (
            Panel(
                "Event loop lag, 99th percentile",
                "s",
                {"{{instance}}": _quantile("cartsync_loop_lag_seconds", 0.99, "instance")},
                "Above half a second: too little CPU.",
            ),
            Panel(
                "Memory",
                "bytes",
                {"{{instance}}": 'process_resident_memory_bytes{job=~".*cartsync.*"}'},
                "Resident memory of each process.",
            ),
            Panel(
                "CPU",
                "percentunit",
                {"{{instance}}": 'rate(process_cpu_seconds_total{job=~".*cartsync.*"}[$__rate_interval])'},
                "A worker uses one core at most.",
            ),
        ),
    ),
)


def _panels() -> Iterator[Json]:
    number, top = 0, 0
    for title, panels in ROWS:
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": title,
            "collapsed": False,
            "panels": [],
            "gridPos": {"h": 1, "w": _WIDTH, "x": 0, "y": top},
        }
        for column, panel in enumerate(panels):
            number += 1
            width = _WIDTH // _PER_ROW
            yield {
                "id": number,
                "type": "timeseries",
                "title": panel.title,
                "description": panel.help,
                "datasource": _DATASOURCE,
                "gridPos": {"h": _HEIGHT, "w": width, "x": column * width, "y": top + 1},
                "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
                "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
                "targets": [
                    {"refId": chr(ord("A") + place), "datasource": _DATASOURCE, "expr": query, "legendFormat": legend}
                    for place, (legend, query) in enumerate(panel.queries.items())
                ],
            }
        top += 1 + _HEIGHT


def dashboard() -> Json:
    """The dashboard as Grafana imports it (schema 39, Grafana 11)."""
    return {
        "title": "cartsync",
        "uid": "cartsync",
        "tags": ["cartsync"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "templating": {
            "list": [{"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}]
        },
        "annotations": {"list": []},
        "panels": list(_panels()),
    }


def text() -> str:
    """The file."""
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
