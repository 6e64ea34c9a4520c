"""Walks over the orders of the state topic and compares each with its provider.

Theory of operation. The topic is read partition by partition, one order at a time; what cannot be compared is said at
once, what can be goes into the short queue of its account, from which a few tasks ask the provider. The reader waits
while a queue is full, so bodies in memory are bounded by the queues, not by the orders.

Workers go on meanwhile, and what was read of an order may be old when its provider answers. So no difference is told
before the topic was looked at again: an order that was written since is compared again as it is now, and only what
differs though nothing was written is a difference.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import aclosing

from msgspec import MsgspecError, Struct

from schemas.reconciliation import ComparedOrder
from schemas.state import OrderRecord, decode_order
from worker.core.policy import DeliveryPolicy
from worker.core.reconciling import (
    KEEPS_CHANGING,
    Met,
    conclude,
    foreign_line,
    meet,
    unknown_there,
    unread,
)
from worker.errors import DamagedStateError
from worker.model.exchange import OutcomeKind
from worker.model.order import account_of
from worker.model.provider import Destination
from worker.model.reconcile import Case, Finding, Ledger, Reconciler, Terms
from worker.ports import StateScan
from worker.providers.registry import PROVIDERS, RECONCILERS
from worker.tools.reconcile.asking import Asking

QUEUE_MAX = 100
"""Orders of an account that wait to be asked about."""
SUSPECTS_MAX = 500
"""Orders that differ, until they are looked at again."""
ROUNDS_MAX = 3
"""So often is an order compared that changes meanwhile."""


class Progress(Struct):
    """How far it is."""

    partition: int = 0
    partitions: int = 0
    reading: str = ""
    """What is read before anything can be compared; empty: orders are compared."""
    met: int = 0
    """Orders read."""


class _Side:
    """One account and its provider."""

    def __init__(self, asking: Asking, terms: Terms) -> None:
        account = asking.account
        self.asking = asking
        self.destination = Destination(account, PROVIDERS[account.provider])
        self.reconciler: Reconciler = RECONCILERS[account.provider]
        self.ledger: Ledger | None = self.reconciler.ledger(account, terms)
        self.queue: asyncio.Queue[Met] = asyncio.Queue(QUEUE_MAX)

    @property
    def title(self) -> str:
        """Of the provider, for sentences."""
        return self.reconciler.title

    async def finding(self, case: Case) -> Finding:
        """Asks about an order, and compares it."""
        question = self.reconciler.question(case)
        if isinstance(question, Finding):
            return question
        read = self.destination.provider.read_response
        answered = await self.asking.answer(
            question.request, lambda response, _now_ms: read(case.asked, question, response)
        )
        outcome = answered.outcome
        if outcome.kind is OutcomeKind.APPLIED:
            return self.reconciler.compare(case, answered.seen)
        if self.reconciler.is_unknown(self.asking.account, outcome):
            return unknown_there(self.title, outcome, case.subject)
        return unread(self.title, outcome.reason)


class _Suspect(Struct):
    """An order that differs, and may have changed meanwhile."""

    met: Met
    finding: Finding
    ledger_entry: object


class Comparison:
    """One run over all orders."""

    def __init__(
        self,
        scan: StateScan,
        askings: Mapping[str, Asking],
        tell: Callable[[ComparedOrder], None],
        *,
        terms: Terms,
        rules: DeliveryPolicy,
    ) -> None:
        self.progress = Progress()
        self._scan = scan
        self._sides = {name: _Side(asking, terms) for name, asking in askings.items()}
        self._tell = tell
        self._terms = terms
        self._rules = rules
        self._suspects: dict[str, _Suspect] = {}

    async def run(self) -> None:
        """To its end. Raises `TopicError`, `ConfigError`, `LogError` or `DamagedStateError`."""
        await self._scan.start()
        self.progress.partitions = self._scan.partitions
        await self._fill_ledgers()
        try:
            await self._compare_all()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        self._tell_of_ledgers()

    async def _compare_all(self) -> None:
        async with asyncio.TaskGroup() as group:
            lanes = [
                group.create_task(self._lane(side), name=f"reconcile {side.asking.account.name}")
                for side in self._sides.values()
                if side.ledger is None
                for _ in range(side.asking.concurrency)
            ]
            for partition in range(self._scan.partitions):
                self.progress.partition = partition
                await self._walk(partition)
            for lane in lanes:
                lane.cancel()

    def tell_suspects(self) -> None:
        """When it ends early: what differs, though nobody has looked whether it has changed since."""
        for suspect in self._suspects.values():
            self._conclude(suspect.met, suspect.finding)
        self._suspects.clear()

    # --- before and after the orders ---

    async def _fill_ledgers(self) -> None:
        for name, side in self._sides.items():
            if side.ledger is None or side.ledger.lister is None:
                continue
            job = side.ledger.lister.job
            self.progress.reading = f"the {job} of {name}"

            def on_progress(count: int, total: int, name: str = name, job: str = job) -> None:
                self.progress.reading = f"the {job} of {name}: {count} of {total}"

            await side.asking.fill(side.ledger, on_progress)
        self.progress.reading = ""

    def _tell_of_ledgers(self) -> None:
        for name, side in self._sides.items():
            if side.ledger is not None and side.asking.problem is None:
                for reference, finding in side.ledger.left():
                    self._tell(foreign_line(name, side.asking.account.provider, reference, finding))

    # --- orders ---

    async def _walk(self, partition: int) -> None:
        async with aclosing(self._scan.orders(partition)) as orders:
            async for subject, value in orders:
                self.progress.met += 1
                await self._take(self._meet(subject, value, partition))
                if len(self._suspects) >= SUSPECTS_MAX:
                    await self._look_again(partition)
        await self._look_again(partition)

    def _meet(self, subject: str, value: bytes, partition: int) -> Met:
        try:
            record: OrderRecord = decode_order(value)
        except MsgspecError:
            raise DamagedStateError(
                f"partition {partition} of the state topic: the newest record of the order {subject} is not one that "
                "cartsync wrote, or a newer version did; the log of the worker that serves it says more"
            ) from None
        side = self._sides.get(account_of(subject))
        destination = None if side is None else side.destination
        return meet(subject, record, destination, partition=partition, now_ms=self._terms.now_ms, rules=self._rules)

    async def _take(self, met: Met) -> None:
        if met.case is None:
            assert met.finding is not None  # says why there is no case
            self._conclude(met, met.finding)
            self._forget_in_ledger(met.subject)
            return
        side = self._sides[account_of(met.subject)]
        if side.ledger is None:
            await side.queue.put(met)
        elif side.asking.problem is not None:
            self._conclude(met, unread(side.title, side.asking.problem.text))
        else:
            self._judge(side, met, met.case, side.ledger.take(met.case.asked.reference))

    def _forget_in_ledger(self, subject: str) -> None:
        """It is known here, whether it is compared or not."""
        side = self._sides.get(account_of(subject))
        if side is not None and side.ledger is not None:
            side.ledger.take(subject.partition("/")[2])

    def _judge(self, side: _Side, met: Met, case: Case, entry: object) -> None:
        self._settle(met, side.reconciler.compare(case, entry), entry)

    async def _lane(self, side: _Side) -> None:
        while True:
            met = await side.queue.get()
            try:
                assert met.case is not None  # or it would not be in the queue
                self._settle(met, await side.finding(met.case), None)
            finally:
                side.queue.task_done()

    def _settle(self, met: Met, finding: Finding, entry: object) -> None:
        if finding.category == "differs":
            self._suspects[met.subject] = _Suspect(met, finding, entry)
        else:
            self._conclude(met, finding)

    def _conclude(self, met: Met, finding: Finding) -> None:
        self._tell(conclude(met, finding))

    # --- what differs ---

    async def _look_again(self, partition: int) -> None:
        """Tells what differs though it has not changed, and compares again what has."""
        for count in range(ROUNDS_MAX):
            for side in self._sides.values():
                await side.queue.join()
            changed = await self._scan.changed(partition, self._suspects)
            for subject in list(self._suspects):  # those that are compared again may be among them once more
                suspect = self._suspects.pop(subject)
                value = changed.get(subject)
                if subject not in changed:
                    self._conclude(suspect.met, suspect.finding)
                elif value is not None:  # what was deleted is compared no more
                    await self._again(suspect, self._meet(subject, value, partition), is_last=count == ROUNDS_MAX - 1)

    async def _again(self, suspect: _Suspect, met: Met, *, is_last: bool) -> None:
        side = self._sides[account_of(met.subject)]
        if met.record == suspect.met.record:
            self._conclude(met, suspect.finding)  # compared as it is now
        elif is_last:
            self._conclude(met, KEEPS_CHANGING)
        elif met.case is None or side.ledger is None:
            await self._take(met)
        else:
            self._judge(side, met, met.case, suspect.ledger_entry)
