"""The worker: wires its parts together, executes operators' commands, and reports its status."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import structlog
from msgspec import Struct
from msgspec.structs import replace

from schemas import state
from schemas.base import time_text
from schemas.state import Deployment
from schemas.views import STATUS_RULES, JobView, OrderView, PartitionView, StatusView, Waiting
from worker import __version__, logs
from worker.app.operators import Operators
from worker.config import WorkerSection
from worker.core.commands import Command
from worker.core.figures import UNCONFIGURED, Figures
from worker.core.operator_event import WITHOUT_SECRETS
from worker.core.placing import Placing
from worker.core.results import Reporting
from worker.core.targets import TargetChoice
from worker.core.trust import Trust
from worker.core.view import view_order
from worker.errors import CartsyncError, UsageError
from worker.jobs.desk import Desk
from worker.jobs.events import JobEvents
from worker.jobs.job import Means
from worker.metrics import Metrics
from worker.model.account import Account
from worker.model.order import account_of
from worker.model.provider import Destination
from worker.orders.context import OrderContext
from worker.orders.recalling import Recalling
from worker.orders.workload import OrderWorkload
from worker.ownership.assignment import Assignment
from worker.ownership.context import BatchLimits, Slice
from worker.ownership.owner import Owner
from worker.ownership.settings import AssignmentSettings
from worker.ports import Clock, CommandOutcome, EventLog, EventProducer, JobDesk, JobHost, OrderTables, Sender, StateLog
from worker.ports import JobView as PartJobView
from worker.providers.registry import JOBS, PROVIDERS
from worker.publisher.publisher import Publisher
from worker.store.memory import MemoryOrders

if TYPE_CHECKING:
    from worker.tracing import Tracing

log = structlog.get_logger(__name__)

_LOOP_STALL_S = 5.0
_TICK_S = 60.0
_SILENT_S = 60.0
_LOST_S = 60.0
_COUNTED_FOR_S = 1.0
"""So long what was counted in slices is as good as new."""
_COUNTED = tuple(name for name, rules in STATUS_RULES.items() if rules.is_counted)


def _is_same_place(one: Account, other: Account) -> bool:
    """Whether orders owed to one account may be sent to the other, at the same rate."""
    names = ("provider", "merchant", "base_url", "concurrency", "rate_per_s")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def _waiting(count: Figures, now_ms: int) -> Waiting:
    return Waiting(**_counts(count), overdue=count.overdue, oldest_owed_s=count.oldest_s(now_ms))


def _counts(count: Figures) -> dict[str, int]:
    """By status: the members of views that say how many orders have it."""
    return {name: getattr(count, name) for name in _COUNTED}


def _job_view(name: str, views: Sequence[PartJobView]) -> JobView:
    last_ms = min(view.last_ms for view in views)
    next_ms = min((view.next_ms for view in views if view.next_ms), default=0)
    return JobView(
        name,
        time_text(last_ms * 1000) if last_ms else None,
        time_text(next_ms * 1000) if next_ms else None,
        max(view.overdue_s for view in views),
        sum(view.pages for view in views),
        sum(view.in_doubt for view in views),
        len(stuck := [page_id for view in views for page_id in view.stuck_pages]),
        stuck,
    )


class Ports(Struct, frozen=True):
    """The ports that a worker is given."""

    clock: Clock
    events: EventLog
    states: StateLog
    sender: Sender
    producer: EventProducer | None = None
    """Writes the events that jobs find; `None`: no lists are read."""
    tables: OrderTables | None = None
    """Where orders are kept; `None`: in memory alone."""


class Worker:
    """Joins the group, serves the assigned partitions, sends updates to providers, executes operators' commands."""

    def __init__(
        self,
        settings: WorkerSection,
        accounts: Mapping[str, Account],
        ports: Ports,
        *,
        owner_id: str,
        metrics: Metrics,
        event_topic: str = "orders.events",
        poll_timeout_s: float = 1.0,
        check_s: float = 10.0,
        leave_s: float = 20.0,
        placing: Placing | None = None,
        trust: Trust | None = None,
        accepted_targets: Mapping[str, TargetChoice] = {},
        deployment: Deployment | None = None,
        reporting: Reporting | None = None,
        keeps_history: bool = False,
        tracing: "Tracing | None" = None,
    ) -> None:
        """`check_s`: how often the brokers are checked. `leave_s`: the limit for the last transactions of a revoked
        partition (`Config.leave_s`). `placing`: computes the partition of an order's records, if that is to be checked.
        `trust`: verifies the MAC of events from providers and operators; without it, none of them is trusted.
        `accepted_targets`: by account, what to do if its target has changed. `deployment`: distinguishes it from other
        deployments. `reporting`: how results are written for other systems; `None`: none are.
        `keeps_history`: whether there is a topic for the histories of orders.
        `tracing`: makes spans; `None`: nobody wants any.
        """
        rules = settings.rules()
        rules.check()
        self.metrics = metrics
        self._loop_late_s = 0.0
        self.failed: asyncio.Future[CartsyncError] = asyncio.get_running_loop().create_future()
        """Resolved with an error that the worker cannot recover from."""
        self.reread: Callable[[], Awaitable[None]] | None = None
        """Rereads secrets and accounts, which calls `reconfigure`; never raises."""
        self.account_effects: Mapping[str, Callable[[str], Awaitable[bool]]] = {"resume": self._resume}
        """By command: what it does at each worker to an account."""
        self._operators = Operators(ports.producer, placing, lambda: self._context.trust, ports.clock, self._act)
        self._ports = ports
        self._counted = 0.0, WeakKeyDictionary[Owner[OrderWorkload], dict[str, Figures]]()
        """When, and what waited then; of a partition that has left, nothing is kept."""
        self._rules = rules
        self._restore_budget_s = settings.restore_budget_s
        self._publisher = Publisher(
            accounts,
            PROVIDERS,
            ports.sender if tracing is None else tracing.traced(ports.sender),
            ports.clock,
            rules=rules,
            metrics=metrics,
            fatal=self._fail,
        )
        self._destinations = {
            name: Destination(account, PROVIDERS[account.provider]) for name, account in accounts.items()
        }
        self._context = OrderContext(
            owner_id=owner_id,
            version=__version__,
            rules=rules,
            limits=BatchLimits(
                commit_interval_s=settings.commit_interval_s,
                commits_per_s=settings.commits_per_second,
                batch_records_max=settings.max_batch_records,
                inbox_records_max=settings.max_inbox_records,
            ),
            clock=ports.clock,
            events=ports.events,
            dispatcher=self._publisher,
            destinations=self._destinations,
            metrics=metrics,
            event_topic=event_topic,
            topic_epoch=settings.topic_epoch,
            start_latest=settings.start_at == "latest",
            sending=settings.sending,
            placing=placing,
            trust=trust or Trust(),
            accepted_targets=accepted_targets,
            deployment=deployment or Deployment(),
            keep_settled_ms=round(settings.keep_settled_s * 1000),
            adopt_state=settings.adopt_state,
            reporting=reporting if settings.sending else None,
            keeps_history=keeps_history,
            operated=self._operators.operated,
            tracing=tracing,
            make_jobs=self._make_jobs,
            make_table=lambda _partition: MemoryOrders(),
        )
        self._job_events = self._events_of(ports.producer, placing)
        recalling = Recalling(self._context, ports.tables)
        self._assignment: Assignment[OrderWorkload] = Assignment(
            ports.states,
            self._context,
            AssignmentSettings(
                poll_records_max=settings.max_poll_records,
                poll_timeout_s=poll_timeout_s,
                check_s=check_s,
                drain_s=rules.attempt_deadline_s,
                leave_s=leave_s,
                keep_warm_s=settings.warm_s,
                unreachable_exit_s=settings.unreachable_exit_s,
            ),
            lambda host, kept: OrderWorkload(host, self._context, kept),
            self._fail,
            recalling.recall,
            recalling.forget,
        )
        for name, account in accounts.items():
            metrics.guarantee(name, PROVIDERS[account.provider].guarantee)

    def _events_of(self, producer: EventProducer | None, placing: Placing | None) -> JobEvents | None:
        if producer is None or placing is None:
            return None
        return JobEvents(producer, placing.key_of, lambda: self._context.trust, self._ports.clock.wall_ms)

    def _make_jobs(self, host: JobHost) -> Desk:
        has = {
            name: JOBS[destination.account.provider]
            for name, destination in self._destinations.items()
            if destination.account.provider in JOBS
        }
        means = Means(self._ports.clock, self._rules, self.metrics)
        return Desk(host, means, has, self._context.topic_partitions, self._job_events)

    def _fail(self, error: CartsyncError) -> None:
        if not self.failed.done():
            self.failed.set_result(error)

    # --- lifecycle ---

    async def start(self) -> None:
        """Connects and joins the group. Raises `TopicError` if the topics are missing or unusable for the protocol,
        `ConfigError` if the folder for orders cannot be used.
        """
        if not self._context.sending:
            log.warning("sending_off", shadow_mode=True, do="set [worker] sending = true to send updates")
        if self._ports.tables is not None:
            self._ports.tables.start()
        await self._ports.states.start()
        if self._ports.producer is not None:
            self._ports.producer.start()
        self._context.topic_partitions = self._ports.states.partitions
        await self._assignment.start()

    async def serving(self) -> None:
        """Returns once every assigned partition is served (or halted)."""
        while not (self._assignment.was_assigned and self._assignment.all_served()):
            if self.failed.done():
                raise self.failed.result()
            await self._assignment.wait_for_change()

    async def stop(self, drain_s: float | None = None) -> None:
        """Drains: attempts in flight get `drain_s` seconds (default: the attempt deadline)."""
        await self._assignment.stop(drain_s)
        await self._operators.stop()
        await self._publisher.stop()
        if self._ports.tables is not None:
            await self._ports.tables.stop()
        if self._ports.producer is not None:
            await self._ports.producer.stop()
        await self._ports.states.stop()

    async def kill(self) -> None:
        """Drops everything like a killed process; nothing is written. For simulations."""
        await self._assignment.kill()
        await self._operators.stop()
        await self._publisher.stop()

    def is_idle(self) -> bool:
        """Whether all input was applied, no update is owed, and no attempt is in flight."""
        if not self._assignment.all_served() or self._publisher.in_flight():
            return False
        for partition, owner in self._assignment.owners.items():
            if not owner.is_quiet() or owner.position.inbox or self._ports.events.lag(partition) not in (0, None):
                return False
            if any(owner.workload.outbox.owed()):
                return False
        return True

    def loop_late(self, seconds: float) -> None:
        """Records how late the event loop ran a timer."""
        self.metrics.loop_lag(seconds)
        self._loop_late_s = seconds

    def is_blocked(self) -> bool:
        """Whether all owed updates wait for accounts that are paused or not configured, so that nothing can proceed."""
        owed = [each for workload in self._workloads() for each in workload.outbox.owed()]
        return bool(owed) and all(
            is_up_to_account and self._publisher.paused(account_of(subject)) for subject, is_up_to_account in owed
        )

    def suspend_sending(self, suspended: bool) -> None:
        """Starts no attempts until it is called with `False`; everything else continues."""
        self._publisher.suspend(suspended)

    # --- operators' commands ---

    async def operate(self, command: Command, target: str, by: str = "", why: str = "") -> CommandOutcome:
        """Does to an order or an account what an operator asks; returns once that is committed: by an event, where
        events of operators are believed, otherwise in our own partitions alone. Raises `UsageError` if the order is not
        in our partitions, or the account is unknown; `LogError`.
        """
        if command.about == "account":
            self._require_known(target)
            if self._operators.can_write:
                every, served = range(self._context.topic_partitions), [each.partition for each in self._loaded()]
                return await self._operators.write(command, target, every, served, by, why)
            self._require_no_event(command)
            return CommandOutcome(await self.account_effects[command.name](target))
        workload = self._workload_of(target)
        workload.require_writable(target)
        if self._operators.can_write:
            return await self._operators.write(command, target, [workload.partition], [workload.partition], by, why)
        self._require_no_event(command)
        return CommandOutcome(await workload.command([target], command) > 0)

    def _require_no_event(self, command: Command) -> None:
        if command.is_event_only:
            raise UsageError(WITHOUT_SECRETS)

    async def operate_parked(
        self, command: Command, account: str, reason_contains: str = "", by: str = "", why: str = ""
    ) -> int:
        """Does it to all parked orders of an account in our partitions, or only those whose reason contains a text;
        returns to how many once that is committed, in transactions of bounded size. Raises `UsageError`, `LogError`.
        """
        self._require_known(account)
        if self._operators.can_write:
            parked = [
                (subject, workload.partition)
                for workload in self._loaded()
                for subject in await workload.parked(account, reason_contains)
            ]
            return await self._operators.write_all(command, parked, by, why)
        return sum([await each.command_parked(account, reason_contains, command) for each in self._workloads()])

    async def skip(self, partition: int, offset: int) -> int:
        """Moves the position in the input; returns the previous one once that is committed. Raises `UsageError`."""
        return await self._assignment.skip(partition, offset)

    async def _act(self, command: str, account: str) -> None:
        """What a worker does once an operator's event about an account is committed."""
        if command in self.account_effects and account in self._context.destinations:
            await self.account_effects[command](account)

    async def _resume(self, name: str) -> bool:
        """Rereads a merchant account's credentials and ends its pause; False: it was not paused."""
        was_paused = self._publisher.paused(name) is not None
        if self.reread is not None:
            await self.reread()  # ends the pause of an account whose credentials have changed
        return self._publisher.resume(name) or was_paused

    async def report(self, account: str) -> int:
        """Makes an account's jobs due now in our partitions; returns how many once that is committed. Raises
        `UsageError`.
        """
        self._require_known(account)
        desks = self._desks()
        if not any(view.account == account for desk in desks for view in desk.views()):
            raise UsageError(f"account {account} has no jobs: no delivery report and no disbursements are configured")
        return sum([await desk.ask(account) for desk in desks])

    async def decide_page(self, account: str, page_id: str, *, is_taken: bool) -> bool:
        """Applies an operator's decision on a stuck page of an account's reports, and returns once it is committed;
        false: no page with this id is stuck in our partitions. Raises `UsageError`.
        """
        self._require_known(account)
        for desk in self._desks():
            if await desk.decide(account, page_id, is_taken=is_taken):
                return True
        return False

    def _desks(self) -> list[JobDesk]:
        served = [owner.workload for owner in self._assignment.owners.values() if owner.phase.is_served]
        return [workload.jobs for workload in served if workload.jobs is not None]

    def _jobs_of(self, account: str) -> list[JobView]:
        found: dict[str, list[PartJobView]] = {}
        for desk in self._desks():
            for view in desk.views():
                if view.account == account:
                    found.setdefault(view.job, []).append(view)
        return [_job_view(name, views) for name, views in found.items()]

    def _require_known(self, account: str) -> None:
        if account not in self._context.destinations:
            known = ", ".join(sorted(self._context.destinations)) or "none"
            raise UsageError(f"account {account} is not configured (accounts: {known})")

    def reconfigure(self, accounts: Mapping[str, Account]) -> tuple[list[str], list[str]]:
        """Applies the settings that may change at run time: credentials and options. Resumes changed accounts.

        Returns the accounts that have changed, and those whose change, addition or removal needs a restart.
        """
        known = self._accounts()
        taken = self.accounts_with(accounts)
        later = sorted(known.keys() ^ accounts.keys() | {name for name in known if accounts.get(name) != taken[name]})
        changed = {name: account for name, account in taken.items() if account != known[name]}
        for name, account in changed.items():
            self._destinations[name] = Destination(account, PROVIDERS[account.provider])
        self._publisher.reconfigure(changed)
        for workload in self._workloads():
            workload.accounts_changed()
        return sorted(changed), [f"[accounts.{name}]" for name in later]

    def believe(self, trust: Trust) -> None:
        """Replaces the secrets that events from providers and operators are verified with."""
        self._context.trust = trust

    def accounts_with(self, accounts: Mapping[str, Account]) -> dict[str, Account]:
        """Our accounts with those changes from `accounts` that need no restart."""
        return {
            name: account if (account := accounts.get(name)) is not None and _is_same_place(before, account) else before
            for name, before in self._accounts().items()
        }

    def _accounts(self) -> dict[str, Account]:
        return {name: destination.account for name, destination in self._destinations.items()}

    def _workloads(self) -> list[OrderWorkload]:
        return [owner.workload for owner in self._assignment.owners.values()]

    def _loaded(self) -> list[OrderWorkload]:
        """Those whose orders are known."""
        return [workload for workload in self._workloads() if workload.is_loaded]

    def _workload_of(self, subject: str) -> OrderWorkload:
        for workload in self._loaded():
            if subject in workload.orders:
                return workload
        raise UsageError(f"order {subject} is unknown to this worker; another worker may serve its partition")

    # --- status ---

    def show(self, subject: str) -> OrderView | None:
        """The committed state of an order; `None` if this worker does not have it."""
        holders = [workload for workload in self._loaded() if subject in workload.orders]
        if not holders:
            return None
        also_in = [workload.partition for workload in holders[1:]]
        return self._view(subject, state.decode_order(holders[0].orders[subject]), holders[0], also_in)

    def shown(self) -> list[OrderView]:
        """All orders in our partitions; for small numbers of them."""
        return [
            self._view(subject, state.decode_order(value), workload)
            for workload in self._loaded()
            for subject, value in workload.orders.items()
        ]

    def _view(
        self, subject: str, record: state.OrderRecord, workload: OrderWorkload, also_in: Sequence[int] = ()
    ) -> OrderView:
        destination = self._destinations.get(account_of(subject))
        return view_order(
            subject,
            record,
            partition=workload.partition,
            rules=self._rules,
            now_ms=self._ports.clock.wall_ms(),
            now=self._ports.clock.now(),
            outlook=workload.outbox.outlook(subject),
            paused=self._publisher.paused(account_of(subject)),
            waits=self._publisher.waits(account_of(subject)),
            idle="sending is off",
            also_in=also_in,
            is_configured=destination is not None,
            known=None if destination is None else destination.provider.describe(record.remote),
        )

    async def count_waiting(self) -> None:
        """As `WorkerControl`."""
        work = Slice(self._context)
        counted: WeakKeyDictionary[Owner[OrderWorkload], dict[str, Figures]] = WeakKeyDictionary()
        for owner in list(self._assignment.owners.values()):
            counted[owner] = await owner.workload.count(work)
        self._counted = self._ports.clock.now(), counted

    def _figures_of(self, owner: Owner[OrderWorkload]) -> dict[str, Figures]:
        at, counted = self._counted
        known = counted.get(owner) if self._ports.clock.now() - at <= _COUNTED_FOR_S else None
        return owner.workload.figures() if known is None else known

    def status(self) -> StatusView:
        """The current state of the worker."""
        ready, why = self.readyz()
        now, now_ms = self._ports.clock.now(), self._ports.clock.wall_ms()
        partitions: list[PartitionView] = []
        waiting: dict[str, Figures] = {}
        for owner in self._assignment.owners.values():
            counted = self._figures_of(owner)
            partitions.append(self._partition_view(owner, counted.values(), now, now_ms))
            for account, count in counted.items():
                waiting.setdefault(account, Figures()).add(count)
        accounts = [
            replace(
                view,
                waiting=_waiting(waiting.get(view.name, Figures()), now_ms),
                jobs=self._jobs_of(view.name),
            )
            for view in self._publisher.views()
        ]
        return StatusView(
            __version__,
            ready,
            sorted(partitions, key=lambda v: v.partition),
            accounts,
            why=why,
            unserved=self._assignment.unserved_count(),
            kafka_silent_s=self._ports.events.silent_s(),
            event_partitions=self._context.deployment.partitions,
            sending=self._context.sending,
            unconfigured=sum(view.unconfigured for view in partitions),
            unconfigured_waiting=_waiting(waiting.get(UNCONFIGURED, Figures()), now_ms),
        )

    def _partition_view(
        self, owner: Owner[OrderWorkload], counted: Iterable[Figures], now: float, now_ms: int
    ) -> PartitionView:
        total = Figures()
        for count in counted:
            total.add(count)
        workload = owner.workload
        return PartitionView(
            partition=owner.partition,
            role=owner.phase.shown_as,
            detail=owner.detail,
            next_offset=owner.position.next_offset,
            lag=self._ports.events.lag(owner.partition),
            orders=len(workload.orders) if workload.is_loaded else 0,
            **_counts(total),
            held=total.held,
            oldest_owed_s=total.oldest_s(now_ms),
            lease_left_s=max(0.0, owner.lease.until - now),
            blocked=self._ports.events.behind_open(owner.partition),
            overdue=total.overdue,
            unconfigured=workload.unconfigured,
        )

    def livez(self) -> tuple[bool, str]:
        """False: something is stuck, and only a restart helps. A provider's outage does not count."""
        now = self._ports.clock.now()
        if self.failed.done():
            return False, str(self.failed.result())
        if self._loop_late_s > _LOOP_STALL_S:
            return False, f"the event loop was {self._loop_late_s:.1f} s late"
        if abandoned := self._assignment.abandoned():
            return False, f"partition {abandoned[0]} is not served any more"
        for partition, owner in self._assignment.owners.items():
            if owner.busy_s(now) > _TICK_S:
                return False, f"partition {partition} has been processing one batch for {owner.busy_s(now):.0f} s"
        if now - self._assignment.polled_at > _TICK_S:
            return False, f"no poll for {now - self._assignment.polled_at:.0f} s"
        return True, "ok"

    def readyz(self) -> tuple[bool, str]:
        """Whether the worker is working: it is a member of the group, brokers respond, no partition is halted, and none
        takes too long to restore or to be acquired again.

        A worker that is restoring within its budget is ready: a rolling update must not wait for it, nor for a
        provider. So is a worker without partitions.
        """
        if self.failed.done():
            return False, str(self.failed.result())
        if not self._assignment.was_assigned:
            return False, "not assigned any partitions yet"
        if (silent_s := self._ports.events.silent_s()) > _SILENT_S:
            return False, f"no Kafka broker has responded for {silent_s:.0f} s"
        for partition, owner in sorted(self._assignment.owners.items()):
            if owner.phase.is_halted:
                return False, f"partition {partition} is halted: {owner.detail}"
        if (lost_s := self._assignment.lost_s()) > _LOST_S:
            return False, f"a partition was lost, and could not be acquired again for {lost_s:.0f} s"
        restoring_s = self._assignment.restoring_s()
        if restoring_s > self._restore_budget_s:
            return False, f"a partition has been restoring for {restoring_s:.0f} s"
        return True, "ok"

    def startupz(self) -> tuple[bool, str]:
        """Whether the topics were checked and the group was joined."""
        return self._assignment.was_assigned, "ok" if self._assignment.was_assigned else "starting"

    def metrics_page(self) -> bytes:
        """All metrics in the Prometheus text format."""
        self.metrics.show(self.status())
        self.metrics.log_lines_dropped(logs.dropped())
        self.metrics.store_partitions(0 if self._ports.tables is None else self._ports.tables.on_disk())
        return self.metrics.render()
