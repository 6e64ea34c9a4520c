"""Watches the log and each worker's hold on it, and compares with what the protocol allows.

What is committed is judged where it is committed, whoever did it and whether he came to know: the state must be the
fold of all input below `m:next`, revisions grow, nothing is acknowledged that the provider does not hold, and who says
that he left in order has marked every order that a request of his may still reach. Only the orders that a transaction
touches are looked at, so a step costs the same in a long run as in a short one.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from schemas import state
from schemas.events import OrderEvent
from schemas.facts import Facts, ProviderFacts
from schemas.operator_events import OperatorData
from schemas.provider_events import ProviderData
from schemas.state import OrderRecord
from tests.asking import request_of
from tests.shops.counts import ExpectedUpdate
from tests.shops.records import History
from tests.simulation.audited_history import AuditedHistories
from tests.simulation.audited_operators import AuditedOperators, is_paused
from tests.simulation.audited_results import ToldPartition
from tests.simulation.callbacks import TRUST
from tests.simulation.holds import ORDER_PREFIX, AuditedPartition
from tests.simulation.network import ASKED_MAX_S, Network
from tests.simulation.provider import Provider, told_by
from tests.simulation.sides import About, Side
from tests.simulation.trace import Trace
from worker.core.intake import decode
from worker.core.order import assess, baseline
from worker.core.policy import DeliveryPolicy
from worker.core.reducer import reduce
from worker.core.status import is_parked
from worker.errors import MalformedEventError
from worker.model.account import Account
from worker.model.exchange import HttpRequest
from worker.model.order import Order, account_of, reference_of
from worker.model.provider import Provider as Adapter
from worker.ports import DeadLetter, InputRecord, Result, StateEntry
from worker.providers.registry import PROVIDERS

CLOCK_RATE_MAX = 1.005
"""How much faster than the true time a worker's clock may run."""
_EPSILON_S = 1e-6


class PartitionAudit:
    """One partition: what is committed, and what it must be."""

    def __init__(self, trace: Trace) -> None:
        self.input: list[InputRecord] = []
        """Everything that was ever written to the event topic, whatever retention took away."""
        self.taken = 0
        """How many of `input` lie below `next`."""
        self.next = 0
        self.clean = False
        self.facts: dict[str, Facts] = {}
        self.revisions: dict[str, int] = {}
        self.facts_at: dict[tuple[str, int], Facts] = {}
        """By subject and revision."""
        self.records: dict[str, OrderRecord] = {}
        self.operated = AuditedOperators(trace)
        self.told = ToldPartition(trace)
        self.histories = AuditedHistories(trace)


class Auditor:
    """All partitions and all holds."""

    def __init__(
        self,
        partitions: int,
        rules: DeliveryPolicy,
        network: Network,
        accounts: Mapping[str, Account],
        sides: Mapping[str, Side],
        trace: Trace,
    ) -> None:
        self.partitions = [PartitionAudit(trace) for _ in range(partitions)]
        self.partition_of: dict[str, int] = {}
        self.owed: set[str] = set()
        self.dead_letters: Counter[bytes | None] = Counter()
        self.keeps_history = True
        """Whether workers are told to keep histories of orders."""
        self._holds: dict[tuple[str, int], AuditedPartition] = {}
        self._bodies: dict[tuple[str, int], bytes] = {}
        self._confirmed: dict[str, ExpectedUpdate] = {}
        self._is_last_read: dict[str, bool] = {}
        """By subject, whether the last exchange that was begun changes nothing there."""
        self._rules = rules
        self._network = network
        self._accounts = accounts
        self._sides = sides
        self._trace = trace
        self._loop = asyncio.get_running_loop()

    def record(self, subject: str) -> OrderRecord:
        """The order as it is committed."""
        return self.partitions[self.partition_of[subject]].records[subject]

    def now(self) -> float:
        """True seconds."""
        return self._loop.time()

    # --- what is committed ---

    def committed(
        self,
        partition: int,
        entries: Sequence[StateEntry],
        dead_letters: Sequence[DeadLetter],
        results: Sequence[Result],
        history: Sequence[tuple[bytes, bytes | None]],
    ) -> None:
        """A transaction is there for all to see."""
        here = self.partitions[partition]
        orders = {
            e.key[2:].decode(): state.decode_order(e.value)
            for e in entries
            if e.key.startswith(ORDER_PREFIX) and e.value
        }
        following = [state.decode_next(e.value) for e in entries if e.key == state.NEXT_KEY and e.value]
        self._trace.add(
            *("committed", partition, sorted(orders), [(n.offset, n.clean) for n in following]),
            *(len(dead_letters), len(results)),
        )
        if not following:
            if orders or dead_letters or results or history:
                self._trace.violate(f"partition {partition}: a transaction of orders without m:next")
            return
        changed, refused = self._fold(here, partition, following[0].offset)
        here.clean = following[0].clean
        self._check_letters(partition, refused, dead_letters)
        for subject in changed - orders.keys():
            self._trace.violate(f"{subject} has changed below m:next, but the transaction lacks it")
        here.told.committed(here.records, orders, here.facts_at, results)
        here.operated.committed(here.records, orders, entries, results)
        if self.keeps_history:
            here.histories.committed(here.records, orders, history)
        elif history:
            self._trace.violate(f"partition {partition}: histories that nobody wants")
        for subject, record in orders.items():
            self.partition_of[subject] = partition
            self._check_order(here, subject, record)
            here.records[subject] = record
            (self.owed.add if record.revision != record.acked else self.owed.discard)(subject)
        if here.clean:
            self._check_leaving(here)

    def _fold(self, here: PartitionAudit, partition: int, until: int) -> tuple[set[str], list[bytes | None]]:
        """The orders that the input up to an offset has changed, and the records that must be refused."""
        if until < here.next:
            self._trace.violate(f"partition {partition}: m:next went back from {here.next} to {until}")
        changed: set[str] = set()
        refused: list[bytes | None] = []
        while here.taken < len(here.input) and here.input[here.taken].offset < until:
            record = here.input[here.taken]
            here.taken += 1
            try:
                event = decode(record.key, record.value, dict(record.headers), record.timestamp, trust=TRUST)
            except MalformedEventError:
                refused.append(record.value)
                continue
            if event is None:
                continue
            if isinstance(event.data, OperatorData):
                self._operate(here, event, record.offset, changed)
                continue
            if isinstance(event.data, ProviderData):
                event = replace(event, is_final=not self._adapter(event.subject).can_read)
            before = here.facts.get(event.subject, _NOTHING)
            after = reduce(before, event, record.offset)
            if after is not before:
                self._note_confirmation(before, after, event, record.offset)
                here.facts[event.subject] = after
                here.revisions[event.subject] = record.offset + 1
                here.facts_at[event.subject, record.offset + 1] = after
                changed.add(event.subject)
                here.histories.takes(event.subject, record.offset)
        here.next = until
        return changed, refused

    def _operate(self, here: PartitionAudit, event: OrderEvent, offset: int, changed: set[str]) -> None:
        """An operator's event: of an order that is known it changes no fact but that it was seen, before the newest."""
        subject = event.subject
        facts = here.facts.get(subject)
        if here.operated.takes(event, is_known=facts is not None) and facts is not None:
            here.facts[subject] = replace(facts, seen=facts.seen[:-8] + event.uid + facts.seen[-8:])
            here.facts_at[subject, here.revisions[subject]] = here.facts[subject]
            changed.add(subject)
            here.histories.takes(subject, offset)

    def _note_confirmation(self, before: Facts, after: Facts, event: OrderEvent, offset: int) -> None:
        """What the oldest confirmation gives by itself: its details may be replaced at once."""
        old, new = before.confirmation, after.confirmation
        is_whole = self._provider(event.subject) is not None
        if is_whole and new is not None and (old is None or old.stamp != new.stamp):
            order = baseline(reduce(Facts(), event, offset), reference_of(event.subject))
            if order is not None:
                self._confirmed[event.subject] = self._render(event.subject, order)

    def _check_letters(self, partition: int, refused: list[bytes | None], dead_letters: Sequence[DeadLetter]) -> None:
        letters = [letter.value for letter in dead_letters]
        self.dead_letters.update(letters)
        if letters != refused:
            self._trace.violate(f"partition {partition}: refused are {refused}, dead-lettered {letters}")

    def _check_order(self, here: PartitionAudit, subject: str, record: OrderRecord) -> None:
        if record.facts != here.facts.get(subject) and not self._is_found(record.facts, here.facts.get(subject)):
            self._trace.violate(f"{subject}: the committed facts are not the fold of the input below m:next")
        if record.revision != here.revisions.get(subject):
            self._trace.violate(
                f"{subject}: revision {record.revision}, its last change was at {here.revisions.get(subject)}"
            )
        before = here.records.get(subject)
        if before is not None and record.revision < before.revision:
            self._trace.violate(f"{subject}: revision went back from {before.revision} to {record.revision}")
        self._check_delay(subject, before, record)
        if record.heard > (0 if before is None else before.heard):
            self._side(subject).heard(subject, record.heard)
        if record.acked > (0 if before is None else before.acked):
            self._check_acknowledged(subject, record, here.facts_at.get((subject, record.acked)))

    def _check_delay(self, subject: str, before: OrderRecord | None, record: OrderRecord) -> None:
        """A read that has failed leaves nothing that might land: nobody waits for that."""
        tries = 0 if before is None else before.attempts.transient
        longest_s = max(self._rules.retry_max_s, ASKED_MAX_S)
        if (
            record.attempts.transient > tries
            and self._is_last_read[subject]
            and record.delay_ms > longest_s * 1000 + 100
        ):
            self._trace.violate(
                f"{subject} waits {record.delay_ms} ms for a read that has failed", "read_holds_nothing"
            )

    def _is_found(self, facts: Facts, folded: Facts | None) -> bool:
        """Whether they differ only in that reading at the provider has shown the order to be cancelled there."""
        found = facts.provider
        if folded is None or found is None or found.cancelled is None:
            return False
        provider = ProviderFacts() if folded.provider is None else folded.provider
        return facts == replace(folded, provider=replace(provider, cancelled=found.cancelled))

    def _check_acknowledged(self, subject: str, record: OrderRecord, facts: Facts | None) -> None:
        provider, revision = self._provider(subject), record.acked
        if provider is None:
            if facts is None:
                self._trace.violate(f"{subject}: revision {revision} is acknowledged, and it never was")
            elif facts.confirmation is not None:
                self._side(subject).acknowledged(record, subject, facts)
            return
        if revision in provider.applied.get(subject, ()):
            return
        order = None if facts is None else assess(facts, reference_of(subject)).order
        if facts is None or order is None:
            self._trace.violate(f"{subject}: revision {revision} is acknowledged, and it cannot even be told")
            return
        known = provider.held.get(subject) or self._confirmed.get(subject)
        if self._render(subject, order) != known:
            self._trace.violate(f"{subject}: revision {revision} is acknowledged, the provider never took it")

    def _render(self, subject: str, order: Order) -> ExpectedUpdate:
        return told_by(self._request(subject, order).body)

    def _request(self, subject: str, order: Order) -> HttpRequest:
        return request_of(self._adapter(subject), order, self._accounts[account_of(subject)])

    def _adapter(self, subject: str) -> Adapter[Any]:
        return PROVIDERS[self._accounts[account_of(subject)].provider]

    def _side(self, subject: str) -> Side:
        return self._sides[account_of(subject)]

    def _provider(self, subject: str) -> Provider | None:
        """Of an order that is told whole, with its revision; `None`: of another one."""
        side = self._side(subject)
        return side if isinstance(side, Provider) else None

    def _check_leaving(self, here: PartitionAudit) -> None:
        """Nobody will hold what is not marked now."""
        for subject in self._network.live:
            record = here.records.get(subject)
            if record is not None and not record.may_land_late and (live := self._network.may_land(subject)):
                self._trace.violate(f"left in order, but {live[0]} may still land and {subject} is not marked")

    # --- who may send ---

    def held_by(self, hold: AuditedPartition) -> None:
        """A process has a new hold on a partition."""
        self._holds[hold.process, hold.number] = hold

    def taken(self, process: str, about: About, body: bytes) -> None:
        """`network.Guard`: what is sent is the newest that the process has committed or read, and it is owed."""
        subject, revision, self._is_last_read[about.subject] = about
        if revision:
            self._check_body(subject, revision, body)
        hold = self._hold(process, subject)
        if hold is None:
            return
        value = hold.view.get(subject)
        header = None if value is None else state.decode_header(value)
        if header is None:
            self._trace.violate(f"{process} sends {subject}:{revision}, which it never saw committed")
        elif revision and header.revision != revision:
            self._trace.violate(
                f"{process} sends {subject}:{revision}, the newest that it committed is {header.revision}"
            )
        elif is_paused(hold.view, account_of(subject)):
            self._trace.violate(f"{process} sends {subject}, whose account an operator has paused")
        elif header.acked == header.revision or is_parked(header):
            self._trace.violate(
                f"{process} sends {subject}:{revision}, which is {'parked' if header.park else 'acknowledged'}"
            )

    def _check_body(self, subject: str, revision: int, body: bytes) -> None:
        if self._bodies.get((subject, revision)) == body:
            return
        self._bodies[subject, revision] = body
        partition = self.partition_of.get(subject)
        facts = None if partition is None else self.partitions[partition].facts_at.get((subject, revision))
        order = None if facts is None else assess(facts, reference_of(subject)).order
        if order is None or self._request(subject, order).body != body:
            self._trace.violate(f"{subject}:{revision} is sent with something else than its facts say")

    def sent(self, process: str, subject: str, deadline_s: float) -> None:
        """`network.Guard`: it is sent under a lease, by an owner that has not left."""
        hold = self._hold(process, subject)
        if hold is None:
            return
        now = self.now()
        if hold.is_over:
            self._trace.violate(f"{process} sends {subject} after it has left its partition")
        elif now + deadline_s > hold.leased_from + self._rules.lease_s * CLOCK_RATE_MAX + _EPSILON_S:
            self._trace.violate(
                f"{process} sends {subject} without a lease: its last commit began at {hold.leased_from:.3f} s"
            )

    def _hold(self, process: str, subject: str) -> AuditedPartition | None:
        partition = self.partition_of.get(subject)
        hold = None if partition is None else self._holds.get((process, partition))
        if hold is None:
            self._trace.violate(f"{process} sends {subject}, whose partition it never had")
        return hold

    # --- at the end ---

    def check_end(self, history: History) -> None:
        """Everything is told, or cannot be; so it is told to others; everything refused is there once."""
        for here in self.partitions:
            here.told.check_end(here.records)
        for subject, shop in history.orders.items():
            self._side(subject).check_end(history.confirmed[subject], shop, self.status(subject))
        if self.dead_letters != Counter(history.poison):
            self._trace.violate(f"dead letters {self.dead_letters}, poisoned {Counter(history.poison)}")

    def status(self, subject: str) -> str:
        """`settled`, `unsupported`, `inconsistent` where the provider has cancelled it, else `owed`."""
        record = self.record(subject)
        if record.revision == record.acked:
            return "settled"
        if is_parked(record) and record.park is not None and record.park.unsupported:
            return "unsupported"
        found = record.facts.provider
        is_over = found is not None and found.cancelled is not None
        assessment = assess(record.facts, reference_of(subject)).state
        return "inconsistent" if is_over and assessment == "inconsistent" else "owed"

    def left(self) -> list[str]:
        """Orders that somebody still has to do something about."""
        return [subject for subject in sorted(self.owed) if self.status(subject) == "owed"]


_NOTHING = Facts()
