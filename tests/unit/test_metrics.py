"""The metrics: what is listed is what is shown, and labels stay few."""

from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from schemas.views import AccountView, PartitionView, Role, StatusView, Waiting
from worker import __version__
from worker.metrics import METRICS, UNCONFIGURED, Metrics
from worker.model.exchange import OutcomeKind

ALLOWED_LABELS = {"result", "reason", "kind", "partition", "role", "class", "account", "version", "level"}
ALLOWED_LABELS |= {"purpose", "secret", "question", "job"}
ALLOWED_LABELS |= {"state", "topic", "view", "command"}


def partition(number: int, role: Role = "serving") -> PartitionView:
    """A partition with a different figure in each member."""
    return PartitionView(number, role, "", 100, 7, 50, 5, 2, 3, 12.5, 18.0)


def status(*partitions: PartitionView, paused: str | None = None) -> StatusView:
    """A worker with these partitions and one account."""
    account = AccountView("acme", "sequra", "D", paused, 1.5, 4, 2)
    return StatusView(__version__, True, list(partitions), [account])


def families(metrics: Metrics) -> dict[str, str]:
    """Type by name (without `_total`) of everything that is rendered."""
    text = metrics.render().decode()
    return {family.name: family.type for family in text_string_to_metric_families(text)}


def test_table_is_what_is_shown() -> None:
    """Every metric of the table is rendered with its type, and nothing else is."""
    expected = {metric.name.removesuffix("_total"): metric.type for metric in METRICS}
    assert families(Metrics()) == expected


def test_table_is_well_formed() -> None:
    """Names carry the prefix and their type's suffix, are unique, have help, and use only known labels."""
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert metric.name.startswith("cartsync_")
        assert metric.name.endswith("_total") == (metric.type == "counter")
        assert metric.help
        assert set(metric.labels) <= ALLOWED_LABELS
        assert bool(metric.buckets) == (metric.type == "histogram")
        assert list(metric.buckets) == sorted(metric.buckets)


def test_outcome_classes_are_counted() -> None:
    """Each class of outcome has its own counter, which stands at 0 before the first attempt."""
    metrics = Metrics()
    metrics.configured(["acme", "beta"])
    metrics.attempt("acme", "conflict", 0.3)
    for kind in OutcomeKind:
        seen = metrics.value("cartsync_delivery_attempts_total", account="acme", **{"class": kind.value})
        assert seen == (1.0 if kind is OutcomeKind.CONFLICT else 0.0)
        assert metrics.value("cartsync_delivery_attempts_total", account="beta", **{"class": kind.value}) == 0.0
    assert metrics.value("cartsync_delivery_attempt_seconds_sum", **{"class": "conflict"}) == 0.3


def test_counters_and_histograms() -> None:
    """Each method moves the metric that it names."""
    metrics = Metrics()
    metrics.event("changed", 3)
    metrics.dead_letter("not_json")
    metrics.committed(0.02, 40)
    metrics.commit_failed("failed")
    metrics.restored_records(500)
    metrics.restored(0.7)
    metrics.rebalanced()
    metrics.rebalanced(0.4)
    metrics.lease_refused()
    metrics.acknowledged(2.0)
    metrics.coalesced(2)
    metrics.suppressed()
    metrics.configured(["acme"])
    metrics.parked("acme")
    metrics.held()
    metrics.loop_lag(0.01)
    metrics.guarantee("acme", "D")
    shown = {
        "cartsync_dlq_total": (1.0, {"reason": "not_json"}),
        "cartsync_events_total": (3.0, {"result": "changed"}),
        "cartsync_txn_batch_records_sum": (40.0, {}),
        "cartsync_txn_duration_seconds_sum": (0.02, {}),
        "cartsync_txn_failures_total": (1.0, {"kind": "failed"}),
        "cartsync_fenced_total": (0.0, {}),
        "cartsync_restore_records_total": (500.0, {}),
        "cartsync_restore_seconds_count": (1.0, {}),
        "cartsync_rebalances_total": (2.0, {}),
        "cartsync_rebalance_seconds_count": (1.0, {}),
        "cartsync_lease_refused_total": (1.0, {}),
        "cartsync_event_to_ack_seconds_sum": (2.0, {}),
        "cartsync_coalesced_total": (2.0, {}),
        "cartsync_suppressed_total": (1.0, {}),
        "cartsync_parked_total": (1.0, {"account": "acme"}),
        "cartsync_unknown_outcome_total": (1.0, {}),
        "cartsync_loop_lag_seconds_count": (1.0, {}),
        "cartsync_guarantee_level": (1.0, {"account": "acme", "level": "D"}),
        "cartsync_build_info": (1.0, {"version": __version__}),
    }
    assert {name: (metrics.value(name, **labels), labels) for name, (_, labels) in shown.items()} == shown


def test_fenced_is_counted_twice() -> None:
    """A fenced transaction is a failed one and a change of ownership."""
    metrics = Metrics()
    metrics.commit_failed("fenced")
    assert metrics.value("cartsync_txn_failures_total", kind="fenced") == 1.0
    assert metrics.value("cartsync_fenced_total") == 1.0


def test_gauges_follow_the_status() -> None:
    """A status sets the gauges of its partitions and accounts; what has gone is shown no more."""
    metrics = Metrics()
    metrics.show(status(partition(0), partition(1, "restoring"), paused="401"))
    assert metrics.value("cartsync_partitions_assigned", role="restoring") == 1.0
    assert metrics.value("cartsync_account_paused", account="acme") == 1.0
    metrics.show(status(partition(0)))
    expected = {
        "cartsync_consumer_lag_records": 7.0,
        "cartsync_state_orders": 50.0,
        "cartsync_lease_remaining_seconds": 18.0,
        "cartsync_outbox_orders": 5.0,
        "cartsync_held_orders": 2.0,
    }
    assert {name: metrics.value(name, partition="0") for name in expected} == expected
    assert {metrics.value(name, partition="1") for name in expected} == {None}
    assert metrics.value("cartsync_partitions_assigned", role="restoring") == 0.0
    assert metrics.value("cartsync_account_paused", account="acme") == 0.0
    assert metrics.value("cartsync_account_waiting_seconds", account="acme") == 1.5
    assert metrics.value("cartsync_account_queued", account="acme") == 4.0
    assert metrics.value("cartsync_account_inflight", account="acme") == 2.0
    assert metrics.value("cartsync_ready") == 1.0


def test_two_workers_in_one_process() -> None:
    """Each worker has figures of its own."""
    one, other = Metrics(), Metrics()
    one.suppressed()
    assert (one.value("cartsync_suppressed_total"), other.value("cartsync_suppressed_total")) == (1.0, 0.0)


def test_orders_that_wait_are_shown_by_account() -> None:
    """Of each account, and of all that nobody configured together: these have no age, for they are owed to nobody."""
    metrics = Metrics()
    waiting = Waiting(owed=9, parked=1, unconfirmed=2, inconsistent=3, overdue=4, oldest_owed_s=5.5)
    view = status(partition(0))
    account = replace(view.accounts[0], waiting=waiting)
    metrics.show(replace(view, accounts=[account], unconfigured=7, unconfigured_waiting=Waiting(4, 3, 2, 1, 1)))
    names = [f"cartsync_{name}_orders" for name in ("parked", "unconfirmed", "inconsistent", "overdue")]
    assert [metrics.value(name, account="acme") for name in names] == [1.0, 2.0, 3.0, 4.0]
    assert [metrics.value(name, account=UNCONFIGURED) for name in names] == [3.0, 2.0, 1.0, 1.0]
    assert metrics.value("cartsync_backlog_age_seconds", account="acme") == 5.5
    assert metrics.value("cartsync_backlog_age_seconds", account=UNCONFIGURED) is None
    assert metrics.value("cartsync_unconfigured_orders") == 7.0
    assert metrics.value("cartsync_shadow_mode") == 0.0
    metrics.show(replace(view, sending=False))
    assert metrics.value("cartsync_shadow_mode") == 1.0


def test_accounts_of_events_become_no_label() -> None:
    """An account that nobody configured has any name: all of them count as one."""
    metrics = Metrics()
    metrics.configured(["acme"])
    for account in ("one", "two", "acme"):
        metrics.parked(account)
    assert metrics.value("cartsync_parked_total", account=UNCONFIGURED) == 2.0
    assert metrics.value("cartsync_parked_total", account="acme") == 1.0
    assert 'account="one"' not in metrics.render().decode()


def test_process_collectors_are_optional() -> None:
    """Memory, CPU and garbage collection are shown when asked for."""
    assert "process_resident_memory_bytes" in families(Metrics(process=True))
    assert "process_resident_memory_bytes" not in families(Metrics())


def test_console() -> None:
    """What a console shows and counts; a process that is none has nothing of it but zeros without a label."""
    metrics = Metrics()
    assert "cartsync_console_index{" not in metrics.render().decode()
    metrics.serves_console(["release"])
    metrics.console_acted("release", 2, 1)
    metrics.console_answered("order", 0.02)
    metrics.sign_in_failed("wrong")
    metrics.show_console(state="building", behind_s=7.5, behind={"state": 40})
    shown: dict[str, list[tuple[dict[str, str], float]]] = {
        "cartsync_ready": [({}, 0.0)],
        "cartsync_console_index": [
            ({"state": "building"}, 1.0),
            ({"state": "following"}, 0.0),
            ({"state": "away"}, 0.0),
        ],
        "cartsync_console_behind_seconds": [({}, 7.5)],
        "cartsync_console_behind_records": [({"topic": "state"}, 40.0)],
        "cartsync_console_actions_total": [
            ({"command": "release", "result": "done"}, 2.0),
            ({"command": "release", "result": "refused"}, 1.0),
        ],
        "cartsync_console_request_seconds_sum": [({"view": "order"}, 0.02), ({"view": "api"}, 0.0)],
        "cartsync_console_sign_in_failures_total": [({"reason": "wrong"}, 1.0), ({"reason": "limited"}, 0.0)],
    }
    for name, samples in shown.items():
        assert [(labels, metrics.value(name, **labels)) for labels, _ in samples] == samples
    metrics.show_console(state="following", behind_s=0.0, behind={"state": 0})
    assert metrics.value("cartsync_ready") == 1.0
    assert metrics.value("cartsync_console_index", state="building") == 0.0
