"""One run, from an empty cluster to the checks."""

import asyncio
import heapq
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from tests.chaos.checks import (
    BORNE_CODES,
    Log,
    Place,
    Refused,
    Takeover,
    check_dead_letters,
    check_offsets,
    check_workers,
    is_freeze_gap,
    read_log,
    remarks,
    shortened,
    takeovers,
)
from tests.chaos.cluster import Cluster, ClusterQueries
from tests.chaos.hostile import Arsenal, Hostile, Seen
from tests.chaos.injector import FaultInjector, InjectedFault, base_faults
from tests.chaos.merchants import MARKETS, Outcome, history_of, outcome_of, plot_of
from tests.chaos.plan import SHORT, FaultKind, Times, make_long_freezes, make_plan
from tests.chaos.processes import Ending
from tests.chaos.provider import Providers, Question, Setting
from tests.chaos.receivers import COUNT, Receivers
from tests.chaos.recorder import Report, write_expected
from tests.chaos.results import read_results
from tests.chaos.workers import LoopLag, Workers
from tests.shops.stream import (
    ACCOUNTS,
    HOSTILE_ACCOUNT,
    PRODUCERS,
    UNKNOWN_ACCOUNT,
    Workload,
    WorkloadEvent,
    subject_of,
)
from worker.kafka.settings import KafkaSettings
from worker.kafka.topics import create_topics
from worker.kafka.writer import EventWriter
from worker.tools.kafka_jars import JARS
from worker.tools.shop import History

OnProgress = Callable[[str], None]

_UNACKNOWLEDGED_MAX = 5_000
_SHOP_REQUEST_S = 90.0
"""Longer than any broker is away: a shop that gives up could not tell whether its event is there."""
_READY_WITHIN_S = 60.0
_AGREE_WITHIN_S = 300.0
"""At least; a longer run has a longer backlog."""
_PROGRESS_S = 5.0
_POLL_S = 0.5
_BROKER_LOG_LINES = 200
_REDELIVER_S = 1.0
_FOREIGN = frozenset({HOSTILE_ACCOUNT, UNKNOWN_ACCOUNT})
"""Whose results may have gaps: some are larger than the topic takes."""


class Options(Struct, frozen=True, kw_only=True):
    """How large, how long, and from which seed."""

    folder: Path
    """For logs; is emptied before."""
    orders: int = 15_000
    """Of all providers together: as many at Qliro, and at AtaraPay, as of each account at seQura."""
    seconds: float = 1_200.0
    """For which the shop is open and things go wrong."""
    seed: int = 1
    workers: int = 3
    spare: int = 2
    """Slots for workers that are added."""
    partitions: int = 6
    gap_s: float = 7.0
    """From one fault to the next, on average."""
    patience_s: float = 120.0
    """How long nothing may get better in the end, before it is given up."""
    long_freezes: bool = False
    first: tuple[FaultKind, ...] = ()
    """Kinds of faults that come first, for a run that has no time for all of them."""
    hostile: bool = True
    """One of the producers writes whatever a broker takes."""
    memory_max_mib: int = 450
    """Of a worker, at its worst."""
    times: Times = SHORT
    jars: Path = JARS


class Findings(Struct, kw_only=True):
    """What came of a run."""

    violations: list[str]
    remarks: list[str]
    """What no promise covers, but should not be so either."""
    events: int
    """Of the good producers."""
    poisoned: int
    """Of these."""
    refused: dict[str, int]
    """Dead letters there must be, those of the hostile producer included, by reason; empty: any."""
    hostile: dict[str, int]
    """What the hostile producer wrote, by kind."""
    provider: Report
    results: int
    """Records of the results topic."""
    injected: list[InjectedFault]
    skipped: int
    endings: list[Ending]
    takeovers: list[Takeover]
    log_counts: dict[str, int]
    unclean: int
    """Partitions taken over from an owner that did not leave in order."""
    gaps: int
    """Relapses that a freeze explains which no hold covers."""
    agreement_s: float | None
    """From the last fault's end and the last event to agreement; `None`: never."""
    memory_max_mib: int
    """Of any worker."""
    loop_lag_s: LoopLag
    seconds: float
    pids: list[int]
    """Of all that was started; all of them have ended."""


def _events_of(history: History) -> Iterator[WorkloadEvent]:
    for event in history.events:
        number = int(event.subject.rpartition("/")[2].lstrip("H"))
        yield WorkloadEvent(event.at_s, event.subject.encode(), event.value, event.poisoned, number)


class _Run:
    """What one run has to know of."""

    def __init__(self, options: Options, on_progress: OnProgress) -> None:
        self.options = options
        self.on_progress = on_progress
        self.refused: dict[Place, Refused] = {}
        self.events = self.poisoned = self.callbacks = 0
        self.hostile: Hostile | None = None
        self.others = options.orders // (len(ACCOUNTS) + 2)
        """Orders at Qliro, and as many at AtaraPay."""
        self.at_sequra = options.orders - 2 * self.others
        self.violations: list[str] = []
        self.settings = KafkaSettings(
            bootstrap_servers="",
            group_id="chaos",
            transactional_id_prefix="chaos",
            event_topic="chaos.events",
            state_topic="chaos.state",
            dead_letter_topic="chaos.dlq",
            results_topic="chaos.results",
            partitioner="murmur2",
        )

    @property
    def written(self) -> int:
        """Records, of all producers."""
        return self.events + (0 if self.hostile is None else self.hostile.written)

    async def run(self) -> Findings:
        """Everything is ended when it returns, raises or is cancelled."""
        began = time.monotonic()
        options = self.options
        arming: asyncio.Task[Arsenal] | None = None
        if options.hostile:  # meanwhile: it takes as long as the brokers do
            arming = asyncio.create_task(asyncio.to_thread(Arsenal, options.seed, options.partitions), name="arming")
        async with AsyncExitStack() as stack:
            self.on_progress("starting three brokers")
            self.cluster = Cluster(options.workers + options.spare, options.jars)
            stack.push_async_callback(_in_thread, self.cluster.stop)
            await asyncio.to_thread(self.cluster.start)
            self._brokers = [self.cluster.pid(node) for node in self.cluster.nodes]
            self.settings = msgspec.structs.replace(self.settings, bootstrap_servers=self.cluster.bootstrap)
            self.queries = ClusterQueries(self.cluster.bootstrap)
            await create_topics(self.settings, options.partitions)
            await self._start_processes(stack)
            if arming is not None:
                self.arsenal = await arming
                self.hostile = Hostile(self.settings, self.arsenal, self.refused)
            try:
                return await self._run_workload(began)
            finally:
                self._keep_broker_logs()

    async def _start_processes(self, stack: AsyncExitStack) -> None:
        """Providers, receivers and workers."""
        options = self.options
        slots = options.workers + options.spare
        self.receivers = Receivers(options.folder, self.settings, ACCOUNTS, self._guard)
        stack.callback(self.receivers.close)
        setting = Setting(
            self.at_sequra,
            self.others,
            options.seconds,
            options.seed,
            str(options.folder),
            self.receivers.urls,
        )
        self.providers = await stack.enter_async_context(Providers(setting))
        ways = [self.cluster.way(slot) for slot in range(slots)]
        self.workers = Workers(ways, options.folder, self.settings, options.times)
        stack.push_async_callback(self.workers.close)
        for number in range(COUNT):
            self.receivers.start(number)
        for slot in self.workers.slots:
            await slot.way.open()
            stack.push_async_callback(slot.way.shut)
            self.workers.configure(slot, self.cluster.bootstrap_of(slot.number), self.providers.urls)
        started = self.workers.slots[: options.workers]
        for slot in started:
            self.workers.start(slot)
        give_up_at = time.monotonic() + _READY_WITHIN_S
        while not (self.workers.serves(options.partitions) and all(of.view and of.view.partitions for of in started)):
            if time.monotonic() > give_up_at:
                raise RuntimeError(f"the workers are not ready; see {options.folder}")
            await asyncio.sleep(_POLL_S)
            await self.workers.poll()

    def _guard(self) -> None:
        """These end with us, however we end."""
        self.workers.guard([self.providers.pid, *self.receivers.pids])

    async def _run_workload(self, began: float) -> Findings:
        options = self.options
        rate = 10 * options.orders / options.seconds
        self.injector = FaultInjector(
            self.workers,
            self.cluster,
            self.providers,
            self.receivers,
            self.settings,
            options.times,
            seed=options.seed,
            faults=base_faults(rate, options.times),
            partitions=options.partitions,
            on_progress=self.on_progress,
        )
        if options.long_freezes:
            faults = make_long_freezes(options.seed, options.seconds, options.times)
        else:
            faults = make_plan(options.seed, options.seconds, options.times, options.gap_s, options.first)
        now = datetime.now(UTC)
        self.shop = Workload(options.seed, self.at_sequra, options.seconds, now)
        plot = plot_of(self.others, options.seconds, options.seed, now)
        self.histories = {account: history_of(account, plot) for account in MARKETS}
        self.began = time.monotonic()
        await self.providers.ask(Question(began_at=time.time()))
        self.on_progress(
            f"the shops open: {options.orders} orders, {len(faults)} faults to come in {options.seconds:g} s"
        )
        watch = asyncio.create_task(self.injector.watch(), name="watch")
        progress = asyncio.create_task(self._show_progress(), name="progress")
        redeliver = asyncio.create_task(self._redeliver(), name="redeliver")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write(), name="shops")
                if self.hostile is not None:
                    group.create_task(self.hostile.write(self.began + options.seconds), name="hostile producer")
                group.create_task(self.injector.play(faults, options.seconds), name="injector")
            self.on_progress("all faults are repaired, and all is written: waiting for agreement")
            agreement_s = await self._agree()
        finally:
            for task in (watch, progress, redeliver):
                task.cancel()
            await asyncio.gather(watch, progress, redeliver, return_exceptions=True)
        return await self._check(agreement_s, began)

    # --- the shop ---

    async def _write(self) -> None:
        settings = msgspec.structs.replace(self.settings, request_timeout_s=_SHOP_REQUEST_S)
        writers = [EventWriter(settings) for _ in range(PRODUCERS)]
        under_way: deque[tuple[asyncio.Future[Any], WorkloadEvent]] = deque()
        try:
            for writer in writers:
                await writer.start()
            for event in heapq.merge(
                self.shop.events(), *map(_events_of, self.histories.values()), key=lambda event: event.at_s
            ):
                wait_s = event.at_s - (time.monotonic() - self.began)
                if wait_s > 0.01:
                    await asyncio.sleep(wait_s)
                under_way.append((await writers[event.producer].post(event.key, event.value), event))
                while under_way and (under_way[0][0].done() or len(under_way) > _UNACKNOWLEDGED_MAX):
                    await self._written(*under_way.popleft())
            while under_way:
                await self._written(*under_way.popleft())
        finally:
            for writer in writers:
                await writer.stop()

    async def _written(self, sent: asyncio.Future[Any], event: WorkloadEvent) -> None:
        place = await sent
        self.events += 1
        if event.is_poisoned:
            self.poisoned += 1
            self.refused[place.partition, place.offset] = Refused(event.value)
        elif self.hostile is not None and event.key is not None:
            self.arsenal.saw(Seen(place.partition, event.key, event.value))

    async def _redeliver(self) -> None:
        """Writes the deliveries by which shops answer what happens at a provider."""
        writer = EventWriter(msgspec.structs.replace(self.settings, request_timeout_s=_SHOP_REQUEST_S))
        await writer.start()
        try:
            while True:
                await asyncio.sleep(_REDELIVER_S)
                await self.providers.ask()
                while self.providers.redelivered:
                    subject, value = self.providers.redelivered[0]
                    await (await writer.post(subject.encode(), value))
                    del self.providers.redelivered[0]
                    self.events += 1
        finally:
            await writer.stop()

    # --- looking on ---

    async def _show_progress(self) -> None:
        while True:
            await asyncio.sleep(_PROGRESS_S)
            report = await self.providers.ask()
            self.callbacks = report.taken_count
            views = [view for slot in self.workers.slots if slot.view is not None for view in slot.view.partitions]
            running = sum(slot.is_running() for slot in self.workers.slots)
            served = sum(view.role == "serving" for view in views)
            differ = f", {report.differing} orders differ" if report.differing >= 0 else ""
            self.on_progress(
                f"{self.written} events, lag {self._lag()}, owed {sum(view.owed for view in views)}, held "
                f"{sum(view.held for view in views)}, parked {sum(view.parked for view in views)}; {report.applied} "
                f"updates, {report.relapse_count} relapses{differ}; {served}/{self.options.partitions} partitions by "
                f"{running} workers, {len(self.cluster.nodes) - self.injector.down} brokers"
            )

    def _lag(self) -> int:
        """Records that no worker has taken up, as far as is known: a callback may have been written, and not taken."""
        return self.written + self.callbacks - self._taken_up()

    def _taken_up(self) -> int:
        """Records that workers have taken up."""
        taken: dict[int, int] = {}
        for slot in self.workers.slots:
            for view in () if slot.view is None else slot.view.partitions:
                taken[view.partition] = max(taken.get(view.partition, 0), view.next_offset)
        return sum(taken.values())

    async def _agree(self) -> float | None:
        """How long it took until every order was held as it must be, and stayed so for as long as requests travel."""
        file = self.options.folder / "expected.bin"
        write_expected(file, self.shop.expected)
        began = progressed_at = time.monotonic()
        give_up_at = began + max(_AGREE_WITHIN_S, self.options.seconds)
        best: tuple[int, int] | None = None
        await self.providers.ask(Question(expected=str(file)))
        agreed_at: float | None = None
        while True:
            report = await self.providers.ask(Question(compare=True))
            differing = report.differing + sum(merchant.differing for merchant in report.merchants)
            ends = await self.queries.ends(self.settings.event_topic, self.options.partitions)
            now, lag = time.monotonic(), sum(ends) - self._taken_up()
            if differing == 0 and lag == 0 and self.workers.serves(self.options.partitions):
                agreed_at = agreed_at or now
                if now - agreed_at > self.options.times.settle_s + 1:
                    return agreed_at - began
            else:
                agreed_at = None
            state = max(lag, 0), differing
            if best is None or state < best:
                best, progressed_at = state, now
            if agreed_at is None and (now - progressed_at > self.options.patience_s or now > give_up_at):
                return None
            await asyncio.sleep(_POLL_S)

    # --- the checks ---

    async def _check(self, agreement_s: float | None, began: float) -> Findings:
        options, wrong = self.options, self.violations
        views = [view for slot in self.workers.slots if slot.view is not None for view in slot.view.partitions]
        lag = await self.workers.loop_lag()
        self.on_progress("the workers leave")
        running = [slot for slot in self.workers.slots if slot.is_running()]
        await asyncio.gather(*(self.workers.leave(slot) for slot in running))
        await self.receivers.stop()
        report = await self.providers.ask(Question(compare=True))
        (options.folder / "taken.json").write_bytes(msgspec.json.encode(report.taken))
        logs = [read_log(file) for file in self.workers.log_files()]
        logs += [read_log(process.log_file) for process in self.receivers.processes]
        endings = [*self.workers.endings, *self.receivers.endings]
        gaps = sum(is_freeze_gap(relapse, self.injector.injected, options.times) for relapse in report.relapses)
        wrong += self._check_provider(report, agreement_s, gaps)
        # Of orders of the hostile producer some may be parked; a good one that is would not agree.
        unsupported = sum(order.is_unsupported for of in self.histories.values() for order in of.orders.values())
        if self.hostile is None and (parked := sum(view.parked for view in views)) != unsupported:
            wrong.append(f"{parked} orders are parked, {unsupported} cannot be sent: no provider refused any for good")
        self.on_progress("reading the topics")
        asked = self.queries, self.settings, options.partitions
        wrong += shortened(await check_offsets(*asked, self.written))
        wrong += await check_dead_letters(*asked, self.refused)
        results = await read_results(*asked, _FOREIGN)
        wrong += results.check_end(self._outcomes(report), report.taken)
        wrong += check_workers(logs, endings, frozenset() if options.hostile else BORNE_CODES)
        if self.workers.memory_max_mib > options.memory_max_mib:
            wrong.append(
                f"a worker had {self.workers.memory_max_mib} MiB, at most {options.memory_max_mib} are allowed"
            )
        return Findings(
            violations=wrong,
            remarks=remarks(logs, endings),
            events=self.events,
            poisoned=self.poisoned,
            refused=dict(Counter(refused.reason for refused in self.refused.values())),
            hostile={} if self.hostile is None else dict(self.hostile.counts),
            provider=report,
            results=results.count,
            injected=self.injector.injected,
            skipped=self.injector.skipped,
            endings=endings,
            takeovers=takeovers(self.injector.injected, logs),
            log_counts=_summed(logs),
            unclean=sum(
                line.event == "partition_serving" and line.clean is False for log in logs for line in log.lines
            ),
            gaps=gaps,
            agreement_s=agreement_s,
            memory_max_mib=self.workers.memory_max_mib,
            loop_lag_s=lag,
            seconds=time.monotonic() - began,
            pids=[
                self.providers.pid,
                *(process.pid for process in (*self.workers.workers, *self.receivers.processes)),
                *self._brokers,
            ],
        )

    def _outcomes(self, report: Report) -> dict[str, Outcome]:
        """By subject, what the last result of each order has to say."""
        outcomes = {
            subject_of(number): Outcome(("settled",), ((of.shipped_minor, of.unshipped_minor),))
            for number, of in enumerate(self.shop.expected)
        }
        for history in self.histories.values():
            for subject, order in history.orders.items():
                outcomes[subject] = outcome_of(order, report.taken.get(subject, []))
        return outcomes

    def _check_provider(self, report: Report, agreement_s: float | None, gaps: int) -> list[str]:
        forgiven = self.options.long_freezes
        wrong = [
            f"{d.subject}: expected {d.expected_minor}, held {d.held_minor} at revision {d.revision}"
            for d in report.differences
            if not (forgiven and d.relapsed)
        ]
        if wrong:
            wrong = [f"{report.differing} orders are not held as they must be", *shortened(wrong)]
        for merchant in report.merchants:
            if merchant.differing:
                wrong += [f"{merchant.differing} orders of {merchant.account} differ", *shortened(merchant.differences)]
            wrong += shortened(merchant.violations)
        if not wrong and agreement_s is None:
            wrong = ["the orders agree, but the partitions were not all served to their end"]
        unexplained = [
            f"{r.subject}: revision {r.revision} applied after {r.newest} (attempt {r.attempt}, slot {r.slot}, received "
            f"{r.received_at:%H:%M:%S.%f}, applied {r.applied_at:%H:%M:%S.%f}, fault {r.fault})"
            + (": a freeze explains it" if is_freeze_gap(r, self.injector.injected, self.options.times) else "")
            for r in report.relapses
            if not (forgiven and is_freeze_gap(r, self.injector.injected, self.options.times))
        ]
        if unexplained:
            wrong += [f"{report.relapse_count} relapses, {gaps} by a freeze", *shortened(unexplained)]
        if wrong and report.late_max_s > self.options.times.settle_s / 2:
            wrong.append(
                f"(the provider's process was {report.late_max_s:.1f} s late at worst: requests may have been applied "
                f"later than settle, {self.options.times.settle_s:g} s, on this machine)"
            )
        return wrong + shortened(report.oddities)

    def _keep_broker_logs(self) -> None:
        for node in self.cluster.nodes:
            with suppress(Exception):  # they help, when they are there
                text = self.cluster.log_tail(node, _BROKER_LOG_LINES)
                (self.options.folder / f"broker-{node}.log").write_text(text)


async def run_chaos(options: Options, on_progress: OnProgress) -> Findings:
    """One run. Ends all that it starts, also when it is cancelled."""
    return await _Run(options, on_progress).run()


async def _in_thread(call: Callable[[], None]) -> None:
    await asyncio.to_thread(call)


def _summed(logs: list[Log]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for log in logs:
        total.update(log.counts)
    return dict(total)
