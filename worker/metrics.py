"""Prometheus metrics, in a registry per `Metrics` object, so that many workers can live in one process.

`METRICS` lists all of them; the reference page and the tests are checked against it. Labels have few values, all known
at start or bounded by the configuration: never an order, never text from outside. Children are resolved in advance, so
that counting on the hot path is one method call. Gauges are not updated one by one: a scrape sets all of them from a
`StatusView` (`show`).
"""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from schemas.base import DeadLetterReason
from schemas.views import PartitionView, Role, StatusView
from worker import __version__
from worker.model.exchange import OutcomeKind
from worker.model.provider import GuaranteeLevel

CONTENT_TYPE = "text/plain; version=1.0.0; charset=utf-8"
"""The content type of `Metrics.render`: the Prometheus text format."""

EventResult = Literal["changed", "unchanged", "skipped", "lookalike"]
"""The effect of an event: it changed an order, changed nothing, or is not for us (`CONTRACT.md` section 4); the last
with a type that resembles one of ours, such as `com.acme.order.confirmed`.
"""
TransactionFailure = Literal["fenced", "failed"]
"""Another owner has taken over, or anything else failed (then the outcome is unknown)."""
StoreOperation = Literal["open", "read", "write"]
"""What a disk may fail at."""
CallbackResult = Literal[
    "received",
    "answered",
    "refused",
    "unreadable",
    "too_large",
    "limited",
    "busy",
    "not_written",
    "late",
    "failed",
]
"""The result of a provider's callback (`OPERATIONS.md` section 4)."""
LookupResult = Literal["answered", "late", "failed", "malformed", "busy", "unreadable"]
"""All but the first mean that the default was returned."""
CallbackKind = Literal["push", "question"]
ConsoleView = Literal["overview", "orders", "order", "export", "dead_letters", "dead_letter", "actions", "try", "api"]
"""What somebody asks the console for; all of `/api` is one."""
IndexState = Literal["building", "following", "away"]
"""How the console stands with its index (`OPERATIONS.md` section 4)."""
SignInFailure = Literal["unnamed", "wrong", "limited", "elsewhere"]
"""Why the console lets nobody in: nobody was named (as in a browser's first request), the password is wrong, there were
too many of those, or the request did not come through the proxy.
"""
ActionResult = Literal["done", "refused"]

_SHORT_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0)
_LONG_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0)
_LAG_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 20.0)
_RECORDS = (1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0)


class Metric(NamedTuple):
    """The definition of one metric."""

    name: str
    """As Prometheus shows it, including the `_total` of counters."""
    type: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


METRICS: tuple[Metric, ...] = (
    # input
    Metric("cartsync_events_total", "counter", "Events read, by effect", ("result",)),
    Metric("cartsync_dlq_total", "counter", "Records rejected and sent to the dead-letter topic", ("reason",)),
    Metric(
        "cartsync_order_keys_changed_total",
        "counter",
        "Orders whose events arrived under a different record key than before",
    ),
    Metric("cartsync_consumer_lag_records", "gauge", "Records behind the end of the input", ("partition",)),
    Metric("cartsync_consumer_blocked_records", "gauge", "Records behind an open transaction", ("partition",)),
    Metric("cartsync_event_partitions", "gauge", "Partitions of the event topic"),
    Metric("cartsync_kafka_unreachable_seconds", "gauge", "Seconds since a broker last responded"),
    # state
    Metric("cartsync_txn_duration_seconds", "histogram", "State transactions, from begin to commit", (), _SHORT_S),
    Metric("cartsync_txn_batch_records", "histogram", "Records of one state transaction", (), _RECORDS),
    Metric("cartsync_txn_failures_total", "counter", "State transactions that did not commit", ("kind",)),
    Metric("cartsync_fenced_total", "counter", "Times that another owner took over one of our partitions"),
    Metric("cartsync_restore_records_total", "counter", "Records read while restoring"),
    Metric("cartsync_restore_seconds", "histogram", "Restores, from fence to ready", (), _LONG_S),
    Metric("cartsync_state_orders", "gauge", "Orders, in memory or on the disk", ("partition",)),
    Metric("cartsync_store_partitions", "gauge", "Partitions whose orders are on the disk"),
    Metric("cartsync_store_failures_total", "counter", "Failures of the disk that orders are on", ("kind",)),
    # ownership
    Metric("cartsync_rebalances_total", "counter", "Assignments and revocations of the group"),
    Metric("cartsync_rebalance_seconds", "histogram", "Releasing revoked partitions", (), _SHORT_S),
    Metric("cartsync_partitions_assigned", "gauge", "Partitions assigned to us, by phase", ("role",)),
    Metric(
        "cartsync_partitions_halted", "gauge", "Partitions assigned to us that apply no events until an operator acts"
    ),
    Metric("cartsync_partitions_unserved", "gauge", "Partitions assigned to us that are not served yet"),
    Metric("cartsync_lease_remaining_seconds", "gauge", "How long we may still send; 0: expired", ("partition",)),
    Metric("cartsync_lease_refused_total", "counter", "Attempts not made because the lease would expire first"),
    # output
    Metric("cartsync_backlog_age_seconds", "gauge", "Age of the oldest update that is owed: the SLO", ("account",)),
    Metric("cartsync_event_to_ack_seconds", "histogram", "From an event to its acknowledgment", (), _LONG_S),
    Metric("cartsync_outbox_orders", "gauge", "Orders with an update owed", ("partition",)),
    Metric("cartsync_held_orders", "gauge", "Orders on hold because a request may still land", ("partition",)),
    Metric("cartsync_parked_orders", "gauge", "Orders parked until something changes", ("account",)),
    Metric("cartsync_parked_total", "counter", "Times that an order was parked", ("account",)),
    Metric("cartsync_unconfirmed_orders", "gauge", "Orders without an order.confirmed so far", ("account",)),
    Metric("cartsync_inconsistent_orders", "gauge", "Orders whose facts contradict each other", ("account",)),
    Metric(
        "cartsync_overdue_orders",
        "gauge",
        "Orders that have been unconfirmed or inconsistent for too long",
        ("account",),
    ),
    Metric("cartsync_unconfigured_orders", "gauge", "Orders of accounts that are not configured"),
    Metric("cartsync_shadow_mode", "gauge", "1: sending is off"),
    Metric("cartsync_coalesced_total", "counter", "Revisions never sent because a newer one replaced them"),
    Metric("cartsync_suppressed_total", "counter", "Revisions acknowledged without a request"),
    Metric(
        "cartsync_origin_acknowledged_total",
        "counter",
        "Revisions not sent because the change was made at the provider",
        ("account",),
    ),
    Metric(
        "cartsync_orders_closed_total", "counter", "Orders removed from the state: settled for long, or only observed"
    ),
    Metric("cartsync_results_total", "counter", "Results written for other systems"),
    Metric("cartsync_delivery_attempts_total", "counter", "Attempts, by outcome class", ("account", "class")),
    Metric("cartsync_delivery_attempt_seconds", "histogram", "Duration of attempts", ("class",), _SHORT_S),
    Metric("cartsync_unknown_outcome_total", "counter", "Holds started because an outcome was unknown"),
    Metric(
        "cartsync_account_paused",
        "gauge",
        "1: the account is paused",
        ("account",),
    ),
    Metric(
        "cartsync_account_waiting_seconds",
        "gauge",
        "How long the account is still throttled by its provider (Retry-After)",
        ("account",),
    ),
    Metric("cartsync_account_queued", "gauge", "Orders waiting for their turn", ("account",)),
    Metric("cartsync_account_inflight", "gauge", "Attempts in flight", ("account",)),
    # jobs
    Metric("cartsync_job_runs_total", "counter", "Runs of jobs that finished", ("account", "job")),
    Metric(
        "cartsync_job_overdue_seconds",
        "gauge",
        "For how long an unfinished run of the job has been due",
        ("account", "job"),
    ),
    Metric("cartsync_reported_orders_total", "counter", "Orders reported by delivery reports", ("account",)),
    Metric("cartsync_report_pages", "gauge", "Pages of delivery reports in progress", ("account",)),
    Metric("cartsync_report_pages_stuck", "gauge", "Pages of delivery reports that wait for an operator", ("account",)),
    Metric("cartsync_job_lines_total", "counter", "Lines of disbursement lists that became events", ("account", "job")),
    # callbacks
    Metric(
        "cartsync_callbacks_total", "counter", "Callbacks of providers, by result", ("account", "purpose", "result")
    ),
    Metric(
        "cartsync_callback_secret_uses_total",
        "counter",
        "Callbacks accepted by each of callback_secrets; 1 is the one that signs",
        ("account", "secret"),
    ),
    Metric("cartsync_callback_seconds", "histogram", "From a callback's header to our response", ("kind",), _LAG_S),
    Metric("cartsync_lookups_total", "counter", "Questions to shops, by result", ("account", "question", "result")),
    Metric("cartsync_callback_connections", "gauge", "Connections of the public port"),
    Metric("cartsync_callbacks_in_flight_bytes", "gauge", "Bytes of callbacks on their way to Kafka"),
    # console
    Metric("cartsync_console_index", "gauge", "1: the index of the console stands so", ("state",)),
    Metric(
        "cartsync_console_behind_seconds",
        "gauge",
        "Since when the console has not read all orders and dead letters that there were",
    ),
    Metric("cartsync_console_behind_records", "gauge", "Records that the console has not read yet", ("topic",)),
    Metric("cartsync_console_request_seconds", "histogram", "Requests at the console, by view", ("view",), _SHORT_S),
    Metric(
        "cartsync_console_actions_total",
        "counter",
        "Orders, accounts and dead letters that somebody acted on in the console, by result",
        ("command", "result"),
    ),
    Metric(
        "cartsync_console_sign_in_failures_total", "counter", "Requests of nobody whom the console lets in", ("reason",)
    ),
    # runtime
    Metric("cartsync_loop_lag_seconds", "histogram", "How late the event loop was", (), _LAG_S),
    Metric("cartsync_log_lines_dropped_total", "counter", "Log lines that could not be written"),
    Metric("cartsync_ready", "gauge", "1: ready, as /readyz says"),
    Metric("cartsync_build_info", "gauge", "Always 1; the version is the label", ("version",)),
    Metric("cartsync_guarantee_level", "gauge", "Always 1; A to D as the label", ("account", "level")),
)

_PARTITION_GAUGES: Mapping[str, str] = {
    "cartsync_consumer_lag_records": "lag",
    "cartsync_consumer_blocked_records": "blocked",
    "cartsync_state_orders": "orders",
    "cartsync_lease_remaining_seconds": "lease_left_s",
    "cartsync_outbox_orders": "owed",
    "cartsync_held_orders": "held",
}
"""By gauge: the member of `PartitionView` that it shows."""

_ACCOUNT_GAUGES: Mapping[str, str] = {
    "cartsync_backlog_age_seconds": "oldest_owed_s",
    "cartsync_parked_orders": "parked",
    "cartsync_unconfirmed_orders": "unconfirmed",
    "cartsync_inconsistent_orders": "inconsistent",
    "cartsync_overdue_orders": "overdue",
}
"""By gauge: the member of `Waiting` that it shows."""

UNCONFIGURED = "n/a"
"""The one label of all accounts that are not configured; no configured name contains a slash."""


class Metrics:
    """The metrics of one worker. Methods do not block, do not fail and may be called from any thread."""

    def __init__(self, *, process: bool = False) -> None:
        """`process`: add metrics of the process, the interpreter and its garbage collector; for `run`."""
        self.registry = CollectorRegistry()
        if process:
            ProcessCollector(registry=self.registry)
            PlatformCollector(registry=self.registry)
            GCCollector(registry=self.registry)
        # A creation timestamp for each child would double the page, and nobody uses it.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._histograms: dict[str, Histogram] = {}
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        for name, kind, text, labels, buckets in METRICS:
            if kind == "histogram":
                histogram = Histogram(name, text, labels, buckets=buckets, registry=self.registry)
                self._histograms[name] = histogram
            elif kind == "counter":
                self._counters[name] = Counter(name, text, labels, registry=self.registry)
            else:
                self._gauges[name] = Gauge(name, text, labels, registry=self.registry)
        self._resolve()
        self._gauges["cartsync_build_info"].labels(__version__).set(1)

    def _resolve(self) -> None:
        """Creates every child whose labels are known: it shows as 0 from the start and costs nothing later."""
        events, dead = self._counters["cartsync_events_total"], self._counters["cartsync_dlq_total"]
        self._events = {result: events.labels(result) for result in get_args(EventResult)}
        self._dead_letters = {reason: dead.labels(reason) for reason in get_args(DeadLetterReason)}
        failures = self._counters["cartsync_txn_failures_total"]
        store = self._counters["cartsync_store_failures_total"]
        self._store_failures = {operation: store.labels(operation) for operation in get_args(StoreOperation)}
        self._failures = {kind: failures.labels(kind) for kind in get_args(TransactionFailure)}
        seconds = self._histograms["cartsync_delivery_attempt_seconds"]
        self._attempt_s = {kind.value: seconds.labels(kind) for kind in OutcomeKind}
        self._attempts: dict[str, dict[str, Counter]] = {}
        self._parked: dict[str, Counter] = {UNCONFIGURED: self._counters["cartsync_parked_total"].labels(UNCONFIGURED)}
        self._txn_s = self._histograms["cartsync_txn_duration_seconds"]
        self._txn_records = self._histograms["cartsync_txn_batch_records"]
        self._event_to_ack_s = self._histograms["cartsync_event_to_ack_seconds"]
        self._loop_lag_s = self._histograms["cartsync_loop_lag_seconds"]
        self._coalesced = self._counters["cartsync_coalesced_total"]
        self._suppressed = self._counters["cartsync_suppressed_total"]
        self._results = self._counters["cartsync_results_total"]
        self._orders_closed = self._counters["cartsync_orders_closed_total"]
        self._log_lines_dropped = 0
        self._callbacks: dict[tuple[str, str], dict[str, Counter]] = {}
        self._secret_uses: dict[str, list[Counter]] = {}
        self._lookups: dict[tuple[str, str], dict[str, Counter]] = {}
        callback_s = self._histograms["cartsync_callback_seconds"]
        self._callback_s = {kind: callback_s.labels(kind) for kind in get_args(CallbackKind)}
        self._console_actions: dict[str, dict[str, Counter]] = {}
        self._console_s: dict[str, Histogram] = {}
        self._sign_in_failures: dict[str, Counter] = {}

    def configured(self, accounts: Iterable[str]) -> None:
        """Registers the configured accounts: only their names become labels."""
        attempts, parked = self._counters["cartsync_delivery_attempts_total"], self._counters["cartsync_parked_total"]
        for account in accounts:
            self._attempts[account] = {kind.value: attempts.labels(account, kind) for kind in OutcomeKind}
            self._parked[account] = parked.labels(account)

    def called_back(self, account: str, purposes: Iterable[str], questions: Iterable[str], secrets: int) -> None:
        """Registers an account with callbacks: its name, purposes, questions and secrets become labels. `UNCONFIGURED`
        stands for any other account or purpose.
        """
        calls, uses = self._counters["cartsync_callbacks_total"], self._counters["cartsync_callback_secret_uses_total"]
        for purpose in purposes:
            self._callbacks[account, purpose] = {
                result: calls.labels(account, purpose, result) for result in get_args(CallbackResult)
            }
        self._secret_uses[account] = [uses.labels(account, str(number + 1)) for number in range(secrets)]
        lookups = self._counters["cartsync_lookups_total"]
        for question in questions:
            self._lookups[account, question] = {
                result: lookups.labels(account, question, result) for result in get_args(LookupResult)
            }

    # --- callbacks ---

    def callback(self, account: str, purpose: str, result: CallbackResult) -> None:
        """Counts a callback by its result; `late`: its body did not arrive in time, and it got no response."""
        self._callbacks[account, purpose][result].inc()

    def callback_took(self, kind: CallbackKind, seconds: float) -> None:
        """Observes the time from the header of a callback with a valid token to our response."""
        self._callback_s[kind].observe(seconds)

    def secret_used(self, account: str, number: int) -> None:
        """Counts a callback accepted by this one of the account's secrets, counted from 0."""
        self._secret_uses[account][number].inc()

    def lookup(self, account: str, question: str, result: LookupResult) -> None:
        """Counts a lookup at the shop by its result."""
        self._lookups[account, question][result].inc()

    def show_receiver(self, *, ready: bool, connections: int, in_flight_bytes: int, kafka_silent_s: float) -> None:
        """Sets the gauges of a receiver."""
        self._gauges["cartsync_ready"].set(ready)
        self._gauges["cartsync_callback_connections"].set(connections)
        self._gauges["cartsync_callbacks_in_flight_bytes"].set(in_flight_bytes)
        self._gauges["cartsync_kafka_unreachable_seconds"].set(kafka_silent_s)

    # --- console ---

    def serves_console(self, commands: Iterable[str]) -> None:
        """Registers what a console counts: the names of its commands become labels."""
        actions, seconds = (
            self._counters["cartsync_console_actions_total"],
            self._histograms["cartsync_console_request_seconds"],
        )
        failures = self._counters["cartsync_console_sign_in_failures_total"]
        for command in commands:
            self._console_actions[command] = {
                result: actions.labels(command, result) for result in get_args(ActionResult)
            }
        self._console_s = {view: seconds.labels(view) for view in get_args(ConsoleView)}
        self._sign_in_failures = {reason: failures.labels(reason) for reason in get_args(SignInFailure)}

    def console_answered(self, view: ConsoleView, seconds: float) -> None:
        """Observes a request of somebody who was let in."""
        self._console_s[view].observe(seconds)

    def console_acted(self, command: str, done: int, refused: int) -> None:
        """Counts those for which an action has done something, and those for which it has not."""
        self._console_actions[command]["done"].inc(done)
        self._console_actions[command]["refused"].inc(refused)

    def sign_in_failed(self, reason: SignInFailure) -> None:
        """Counts a request of nobody whom the console lets in."""
        self._sign_in_failures[reason].inc()

    def show_console(self, *, state: IndexState, behind_s: float, behind: Mapping[str, int]) -> None:
        """Sets the gauges of a console. `behind`: by topic, records that are not read yet."""
        self._gauges["cartsync_ready"].set(state == "following")
        for each in get_args(IndexState):
            self._gauges["cartsync_console_index"].labels(each).set(each == state)
        self._gauges["cartsync_console_behind_seconds"].set(behind_s)
        for topic, records in behind.items():
            self._gauges["cartsync_console_behind_records"].labels(topic).set(records)

    # --- input ---

    def event(self, result: EventResult, count: int = 1) -> None:
        """Counts events by their effect."""
        self._events[result].inc(count)

    def orders_closed(self, count: int) -> None:
        """Counts orders that were removed from the state: settled for long, or only observed."""
        self._orders_closed.inc(count)

    def results(self, count: int) -> None:
        """Counts results written to the results topic."""
        self._results.inc(count)

    def dead_letter(self, reason: DeadLetterReason) -> None:
        """Counts a rejected record by its reason (`CONTRACT.md` section 4). Raises `KeyError` for any other reason."""
        self._dead_letters[reason].inc()

    def keys_changed(self, count: int) -> None:
        """Counts orders whose events arrived under a different record key than before."""
        self._counters["cartsync_order_keys_changed_total"].inc(count)

    # --- state and ownership ---

    def committed(self, seconds: float, records: int) -> None:
        """Observes a committed state transaction: its duration and its records."""
        self._txn_s.observe(seconds)
        self._txn_records.observe(records)

    def commit_failed(self, kind: TransactionFailure) -> None:
        """Counts a state transaction that failed, or whose outcome is unknown."""
        self._failures[kind].inc()
        if kind == "fenced":
            self._counters["cartsync_fenced_total"].inc()

    def store_failed(self, operation: StoreOperation) -> None:
        """The disk that orders are on has failed."""
        self._store_failures[operation].inc()

    def store_partitions(self, count: int) -> None:
        """Of so many partitions the orders are on the disk."""
        self._gauges["cartsync_store_partitions"].set(count)

    def restored_records(self, count: int) -> None:
        """Counts records read while restoring."""
        self._counters["cartsync_restore_records_total"].inc(count)

    def restored(self, seconds: float) -> None:
        """Observes a restore: seconds from the fence until the partition was ready."""
        self._histograms["cartsync_restore_seconds"].observe(seconds)

    def rebalanced(self, seconds: float | None = None) -> None:
        """Counts an assignment, or a revocation with the seconds that the release took."""
        self._counters["cartsync_rebalances_total"].inc()
        if seconds is not None:
            self._histograms["cartsync_rebalance_seconds"].observe(seconds)

    def lease_refused(self) -> None:
        """Counts an attempt that was not made because the lease would expire first."""
        self._counters["cartsync_lease_refused_total"].inc()

    # --- output ---

    def attempt(self, account: str, kind: str, seconds: float) -> None:
        """Counts an attempt of a configured account, and its duration, by outcome class (a value of `OutcomeKind`)."""
        self._attempts[account][kind].inc()
        self._attempt_s[kind].observe(seconds)

    def acknowledged(self, event_age_s: float) -> None:
        """An order's newest revision was acknowledged: observes the age of its newest event."""
        self._event_to_ack_s.observe(max(0.0, event_age_s))

    def coalesced(self, count: int = 1) -> None:
        """Counts revisions that were replaced by a newer one before they were sent."""
        self._coalesced.inc(count)

    def suppressed(self) -> None:
        """Counts a revision that was acknowledged without a request."""
        self._suppressed.inc()

    def acknowledged_by_origin(self, account: str) -> None:
        """Counts a revision acknowledged because its change was made at the provider; `account` must be configured."""
        self._counters["cartsync_origin_acknowledged_total"].labels(account).inc()

    def parked(self, account: str) -> None:
        """Counts a parked order of this account."""
        self._parked[account if account in self._parked else UNCONFIGURED].inc()

    def held(self) -> None:
        """Counts a hold that started because the outcome of an attempt is unknown."""
        self._counters["cartsync_unknown_outcome_total"].inc()

    def account_paused(self, account: str, paused: bool) -> None:
        """Sets whether an account is paused; `account` must be configured."""
        self._gauges["cartsync_account_paused"].labels(account).set(paused)

    # --- jobs ---

    def job_ran(self, account: str, job: str) -> None:
        """Counts a finished run of a configured account's job in one partition."""
        self._counters["cartsync_job_runs_total"].labels(account, job).inc()

    def reported(self, account: str, orders: int) -> None:
        """Counts orders of a configured account that a delivery report has covered."""
        self._counters["cartsync_reported_orders_total"].labels(account).inc(orders)

    def lines_read(self, account: str, job: str, lines: int) -> None:
        """Counts lines of a disbursement list that became events."""
        self._counters["cartsync_job_lines_total"].labels(account, job).inc(lines)

    # --- runtime ---

    def loop_lag(self, seconds: float) -> None:
        """Observes how late the event loop ran a timer."""
        self._loop_lag_s.observe(max(0.0, seconds))

    def log_lines_dropped(self, total: int) -> None:
        """Sets the number of log lines that could not be written since the start of the process."""
        counter = self._counters["cartsync_log_lines_dropped_total"]
        counter.inc(max(0, total - self._log_lines_dropped))
        self._log_lines_dropped = total

    def guarantee(self, account: str, level: GuaranteeLevel) -> None:
        """Sets the guarantee level of an account (`PROTOCOL.md` section 5)."""
        self._gauges["cartsync_guarantee_level"].labels(account, level).set(1)

    # --- scraping ---

    def show(self, status: StatusView) -> None:
        """Sets every gauge of partitions and accounts; partitions that were released disappear."""
        self._gauges["cartsync_ready"].set(status.ready)
        self._gauges["cartsync_event_partitions"].set(status.event_partitions)
        self._gauges["cartsync_kafka_unreachable_seconds"].set(status.kafka_silent_s)
        self._gauges["cartsync_partitions_halted"].set(sum(view.role == "halted" for view in status.partitions))
        self._gauges["cartsync_partitions_unserved"].set(status.unserved)
        self._gauges["cartsync_shadow_mode"].set(not status.sending)
        self._gauges["cartsync_unconfigured_orders"].set(status.unconfigured)
        for name, member in _ACCOUNT_GAUGES.items():
            gauge = self._gauges[name]
            for account in status.accounts:
                gauge.labels(account.name).set(getattr(account.waiting, member))
            if name != "cartsync_backlog_age_seconds":
                gauge.labels(UNCONFIGURED).set(getattr(status.unconfigured_waiting, member))
        for name, member in _PARTITION_GAUGES.items():
            self._show_partitions(name, member, status.partitions)
        roles = self._gauges["cartsync_partitions_assigned"]
        for role in get_args(Role):
            roles.labels(role).set(sum(view.role == role for view in status.partitions))
        for account in status.accounts:
            self.account_paused(account.name, account.paused is not None)
            self._gauges["cartsync_account_waiting_seconds"].labels(account.name).set(account.waiting_s)
            self._gauges["cartsync_account_queued"].labels(account.name).set(account.queued)
            self._gauges["cartsync_account_inflight"].labels(account.name).set(account.in_flight)
            for job in account.jobs:
                self._gauges["cartsync_job_overdue_seconds"].labels(account.name, job.job).set(job.overdue_s)
                if job.job == "report":
                    self._gauges["cartsync_report_pages"].labels(account.name).set(job.pages)
                    self._gauges["cartsync_report_pages_stuck"].labels(account.name).set(job.stuck)

    def _show_partitions(self, name: str, member: str, views: list[PartitionView]) -> None:
        gauge = self._gauges[name]
        gauge.clear()
        for view in views:
            value = getattr(view, member)
            if value is not None:
                gauge.labels(str(view.partition)).set(value)

    def render(self) -> bytes:
        """All metrics in the Prometheus text format (`CONTENT_TYPE`)."""
        return generate_latest(self.registry)

    def value(self, name: str, **labels: str) -> float | None:
        """One sample, by the name that Prometheus shows; `None` if there is none. For tests and summaries.

        Pass a label called `class` as `**{"class": …}`.
        """
        return self.registry.get_sample_value(name, labels)
