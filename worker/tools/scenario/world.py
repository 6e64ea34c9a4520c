"""The world of one scenario: the real worker on an embedded log, a scripted provider, and virtual time.

Between runs nothing happens: appended records wait until the next run reads them, and nothing is sent. Operators'
commands and restarts need the loop, but take no time; sending is suspended during them, and at the beginning of a run
until all input is read, so that the newest state is sent, however many events were appended.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Literal, Self

from msgspec import Struct

from schemas.views import OrderView
from worker import logs
from worker.app import Ports, Worker
from worker.config import WorkerSection
from worker.core.commands import Command
from worker.core.placing import Placing
from worker.core.results import Reporting, source_of
from worker.core.trust import Trust
from worker.errors import InvariantError
from worker.metrics import Metrics
from worker.model.account import Account
from worker.model.callbacks import Caller
from worker.ports import DeadLetter, Result
from worker.sim.log import MemoryLog
from worker.sim.loop import VirtualClock, VirtualLoop
from worker.sim.producer import MemoryEventProducer
from worker.sim.scripted import ScriptedProvider
from worker.tools.scenario.calls import Answered, Calls, content_of
from worker.tools.scenario.sides import Sides
from worker.tools.scenario.steps import CallbackValue, PushValue

SOURCE = source_of("scenario")
"""The `source` of results."""
_POLL_TIMEOUT_S = 3600.0
"""A poll returns once there are records; empty turns only cost real time."""
_TAKE_UP_S = 0.1
"""The time that even the shortest run has to read its input: commits keep an interval."""


class _Loop(VirtualLoop):
    """A loop that can stop once nothing more happens at the current time, before time advances."""

    def __init__(self) -> None:
        super().__init__()
        self._awaited: tuple[Callable[[], bool], asyncio.Future[None]] | None = None

    def run_until(self, condition: Callable[[], bool], at_latest: float) -> None:
        """Runs until everything that can happen now has happened and the condition holds or the time has come."""
        reached = self.create_future()
        self._awaited = (lambda: self.time() >= at_latest or condition()), reached
        alarm = self.call_at(at_latest, lambda: None)
        try:
            self.run_until_complete(reached)
        finally:
            self._awaited = None
            alarm.cancel()

    def _advance(self) -> None:
        if self._awaited is not None and self._awaited[0]():
            self._awaited[1].set_result(None)
            self._awaited = None
        else:
            super()._advance()


class _Staged(Struct, frozen=True):
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]
    timestamp_ms: int
    partition: int | None


class World:
    """One scenario's world, for the duration of a `with` block. Time begins at 0."""

    def __init__(
        self,
        accounts: Mapping[str, Account],
        settings: WorkerSection,
        partitions: int,
        placing: Placing | None = None,
        trust: Trust | None = None,
        callers: Mapping[str, Caller] = {},
        *,
        with_reasons: bool = False,
    ) -> None:
        """`placing`: how the shop chooses partitions, when the worker is to check it. `trust`: by whose MAC what
        providers say is believed. `callers`: the accounts that can be called back. `with_reasons`: whether results
        repeat the provider's words.
        """
        self.log_lines: list[str] = []
        """All log lines so far, as JSON."""
        self._loop = _Loop()
        self._clock = VirtualClock(self._loop)
        self._log = MemoryLog(partitions, self._clock)
        self.provider = ScriptedProvider(accounts, self._clock)
        self._accounts = accounts
        self._settings = settings
        self._trust = trust
        self._with_reasons = with_reasons
        self._placing = placing
        self._staged: list[_Staged] = []
        self._ends: dict[int, int] = {}
        """By partition: the offset after its last appended record."""
        self._lives = 0
        self._worker: Worker | None = None
        self._metrics = Metrics()
        self._labels: set[str] = set()
        self._is_running = False
        producer = MemoryEventProducer(self._post, self._clock)
        self._calls = Calls(
            callers,
            self.provider,
            producer,
            trust or Trust(),
            placing or Placing("crc32"),
            self._clock.wall_ms,
            self._loop,
        )
        self._own_producer = MemoryEventProducer(self._write, self._clock)
        self.sides = Sides(accounts, self.provider, self._calls, self._loop, lambda: self._clock.wall_ms() / 1000)
        """The stateful providers of the scenario."""
        self._exits = ExitStack()

    def __enter__(self) -> Self:
        self._exits.enter_context(logs.capture(self.log_lines, "debug", self._clock.wall_ms))
        self._exits.callback(self._end)
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    # --- time ---

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return self._loop.time()

    @property
    def wall_ms(self) -> int:
        """UTC milliseconds."""
        return self._clock.wall_ms()

    def run_for(self, seconds: float) -> None:
        """Reads all input, then lets the worker run for this long."""
        end = self.now + seconds
        self._take_up(end)
        self._run_until(self._is_broken, end)

    def run_idle(self, within_s: float) -> bool:
        """Reads all input, then lets the worker run until nothing is owed; `False`: that did not happen in time."""
        end = self.now + within_s
        self._take_up(end)
        self._run_until(lambda: self._is_broken() or self._rests(), end)
        return self._rests()

    def _run_until(self, condition: Callable[[], bool], end: float) -> None:
        self._is_running = True
        try:
            self._loop.run_until(condition, end)
        finally:
            self._is_running = False

    def _rests(self) -> bool:
        """Whether no order is owed and no attempt is in flight. An order that waits for a change is not owed."""
        return self._present().is_idle()

    def _take_up(self, end: float) -> None:
        for each in self._staged:
            self._append(each)
        self._staged.clear()
        self._present().suspend_sending(True)
        self._loop.run_until(lambda: self._is_broken() or self._is_taken_up(), max(end, self.now + _TAKE_UP_S))
        self._present().suspend_sending(False)

    def _append(self, each: _Staged) -> None:
        where = each.partition
        if where is None and each.key and self._placing is not None:
            where = self._placing.partition(each.key, self._log.partitions)
        partition, offset = self._log.append(each.key, each.value, each.headers, each.timestamp_ms, where)
        self._ends[partition] = offset + 1

    def _is_taken_up(self) -> bool:
        taken = {view.partition: view.next_offset for view in self._present().status().partitions}
        return all(taken.get(partition, 0) >= end for partition, end in self._ends.items())

    # --- what happens to the worker ---

    def put(
        self,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]],
        timestamp_ms: int,
        partition: int | None = None,
    ) -> None:
        """Appends a record to the log, by default to its key's partition; the next run reads it."""
        self._staged.append(_Staged(key, value, headers, timestamp_ms, partition))

    def _post(
        self, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]], partition: int | None = None
    ) -> None:
        """Appends a record of the receiver: at once while the worker runs, otherwise with the shop's events."""
        staged = _Staged(key, value, headers, self.wall_ms, partition)
        if self._is_running:
            self._append(staged)
        else:
            self._staged.append(staged)

    def _write(self, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]], partition: int | None) -> None:
        """Appends a record of the worker."""
        self._append(_Staged(key, value, headers, self.wall_ms, partition))

    def call(self, value: CallbackValue) -> Answered:
        """Calls the receiver; takes as long as its response."""
        headers, body = content_of(value)
        path = self._calls.path(value.account, value.purpose, value.reference, value.token)
        return self._await(self._calls.call(path, headers, body, is_away=value.kafka == "away"))

    def push(self, value: PushValue) -> Answered:
        """Makes a model push. Raises `UsageError`."""
        return self._await(self.sides.push(value))

    def _await(self, answer: Coroutine[Any, Any, Answered]) -> Answered:
        self._present().suspend_sending(True)
        return self._loop.run_until_complete(answer)

    def start(self) -> None:
        """Starts a worker; it serves when this returns."""
        self._lives += 1
        self._loop.run_until_complete(self._start(f"w{self._lives}"))

    async def _start(self, member: str) -> None:
        self._metrics = Metrics()
        log = self._log
        ports = Ports(self._clock, log.events(member), log.states(member), self.provider, self._own_producer)
        self._worker = Worker(
            self._settings,
            self._accounts,
            ports,
            owner_id=member,
            metrics=self._metrics,
            poll_timeout_s=_POLL_TIMEOUT_S,
            placing=self._placing,
            trust=self._trust,
            reporting=Reporting(SOURCE, self._with_reasons),
        )
        self._worker.suspend_sending(True)
        await self._worker.start()
        await self._worker.serving()

    def restart(self, how: Literal["clean", "crash"]) -> None:
        """Another worker takes over, after the first one was drained or killed."""
        worker, member = self._present(), f"w{self._lives}"
        self._remember_labels(worker)
        if how == "crash":
            self._log.crash(member)
        worker.suspend_sending(True)
        self._loop.run_until_complete(worker.stop(0.0) if how == "clean" else worker.kill())
        self._log.expel(member)
        self.start()

    def operate(self, command: Command, target: str, by: str = "", why: str = "") -> None:
        """Runs an operator's command; it is committed when this returns. Raises `UsageError`."""
        worker = self._present()
        worker.suspend_sending(True)
        self._loop.run_until_complete(worker.operate(command, target, by, why))

    # --- what can be seen ---

    def order(self, subject: str) -> OrderView | None:
        """The committed order."""
        return self._present().show(subject)

    def orders(self) -> list[OrderView]:
        """All known orders."""
        return self._present().shown()

    def dead_letters(self) -> list[DeadLetter]:
        """All dead letters so far, in the order of the log."""
        return self._log.dead_letters

    def results(self) -> list[Result]:
        """All results so far, in the order of writing."""
        return self._log.results

    def metric_labels(self) -> set[str]:
        """All values of metric labels so far."""
        self._remember_labels(self._present())
        return self._labels

    def check(self) -> None:
        """Raises the error that stopped the worker, or `InvariantError` for a failed task that nobody awaited."""
        failed = self._present().failed
        if failed.done():
            raise failed.result()
        for failure in self._loop.failures:
            raise InvariantError(failure["message"]) from failure.get("exception")

    def _is_broken(self) -> bool:
        return self._present().failed.done() or bool(self._loop.failures)

    def _remember_labels(self, worker: Worker) -> None:
        self._metrics.show(worker.status())
        for registry in (self._metrics.registry, self._calls.metrics.registry):
            for family in registry.collect():
                for sample in family.samples:
                    self._labels.update(sample.labels.values())

    def _present(self) -> Worker:
        assert self._worker is not None  # `start` comes first
        return self._worker

    def _end(self) -> None:
        """Drops everything that is left."""
        self._loop.thaw_all()
        left = sorted(asyncio.all_tasks(self._loop), key=hash)
        for task in left:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True) if left else asyncio.sleep(0))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()
