"""A worker of one partition without Kafka and HTTP, playing against the sandbox's model of seQura's reports.

It does what a shell has to do and nothing cleverer: take events, look at what is owed, run the report when it is due,
write down before it sends, and hand every answer to the pure parts. Requests get lost, are applied without an answer,
and are refused; the worker dies at every step that writes.
"""

from collections.abc import Iterator
from random import Random
from typing import Any, Literal
from zoneinfo import ZoneInfo

import msgspec
from msgspec.structs import replace

from schemas.events import OrderEvent
from schemas.state import OrderRecord
from worker.core.deliveries import deliveries_of
from worker.core.order import assess
from worker.core.plan import Acknowledge, Park, Send, plan
from worker.core.policy import DeliveryPolicy
from worker.core.record import acknowledge, apply_event, inherit, park, settle
from worker.core.retry import awaits_change
from worker.core.schedule import due_run, next_run
from worker.model.exchange import AwaitResult, Exchange, HttpResponse, Outcome, OutcomeKind, Settled
from worker.model.jobs import Kept, Move, Page
from worker.model.provider import Destination, Question
from worker.providers.sequra import Sequra, memory, pages, report
from worker.providers.sequra.options import SequraAccount
from worker.providers.sequra.pages import Candidate
from worker.providers.sequra.responses import outcome_of
from worker.sandbox.sequra.reports import Reports, amounts_of

ACCOUNT = SequraAccount("acme", "sequra", "https://sandbox.example", "m1", "user", "secret", statistics=True)
SEQURA = Sequra()
RULES = DeliveryPolicy()

Fault = Literal["", "lost", "applied", "torn", "busy", "error", "refused"]
FAULTS: tuple[Fault, ...] = ("lost", "applied", "torn", "busy", "error", "refused")


class DeathError(Exception):
    """The worker stopped where it was."""


class World:
    """The worker, the provider, the network between them, and the clock."""

    def __init__(self, account: SequraAccount, chance: Random, *, faults: float, deaths: float, now_ms: int) -> None:
        self.account, self.chance, self.faults, self.deaths = account, chance, faults, deaths
        self.to = Destination(account, SEQURA)
        self.provider = Reports(account.merchant_id)
        self.bad: set[str] = set()
        """Orders that the provider refuses whatever is said of them."""
        self.updates: dict[str, list[tuple[Any, Any]]] = {}
        """The carts of each update that was applied."""
        self.records: dict[str, OrderRecord] = {}
        self.kept = Kept()
        self.now_ms = self.done_ms = now_ms
        self.count = 0
        self.zone = ZoneInfo(account.timezone)
        self.stuck: list[Page] = []
        self.broken: set[str] = set()

    # --- the worker's state, written in transactions

    def maybe_die(self) -> None:
        """Now, or not."""
        if self.chance.random() < self.deaths:
            raise DeathError

    def restart(self) -> None:
        """The next owner: what was owed is in doubt, and a page may have been sent."""
        owed = {name: one for name, one in self.records.items() if one.revision != one.acked}
        self.records |= {name: inherit(one) for name, one in owed.items()}
        self.kept = replace(self.kept, pages=[pages.inherited(page) for page in self.kept.pages])
        self.now_ms += 60_000
        for subject in owed:
            self.look(subject)

    def tell(self, event: OrderEvent) -> None:
        """An event comes in."""
        self.count += 1
        record = self.records.get(event.subject, OrderRecord())
        taken = apply_event(
            record, event, position=self.count, revision=self.count, now_ms=self.now_ms, destination=self.to
        )
        self.records[event.subject] = taken
        self.look(event.subject)

    def settle(self, subject: str, revision: int, digest: bytes, outcome: Outcome) -> None:
        """What became of an attempt is written."""
        after, hold_s = settle(
            self.records[subject], revision, digest, outcome, now_ms=self.now_ms, chance=0.5, rules=RULES
        )
        self.records[subject] = after
        if hold_s:
            self.now_ms += int(hold_s * 1000) + 1

    # --- one order

    def look(self, subject: str) -> None:
        """Until nothing can be done about it now."""
        for _ in range(100):
            record = self.records[subject]
            if record.revision == record.acked or (record.not_before_ms and awaits_change(record)):
                return
            self.now_ms = max(self.now_ms, record.not_before_ms)
            match plan(record, subject, self.to):
                case Acknowledge(digest):
                    self.records[subject] = acknowledge(record, digest)
                case Park(reason, digest, by_check):
                    self.records[subject] = park(record, reason, digest, self.now_ms, by_check=by_check)
                case Send() as send:
                    self.attempt(subject, record, send)
                case _:
                    return
        raise AssertionError(f"{subject} does not come to rest")

    def attempt(self, subject: str, record: OrderRecord, send: Send) -> None:
        """One turn."""
        asked = Question(
            subject.partition("/")[2],
            self.account,
            send.update,
            send.remote,
            send.may_land_late,
            send.remote_unknown,
            now_ms=self.now_ms,
        )
        step = SEQURA.next_step(asked)
        if isinstance(step, Settled):
            outcome = Outcome(OutcomeKind.APPLIED, remote=step.remote)
        elif isinstance(step, AwaitResult):
            outcome = Outcome(OutcomeKind.PENDING, step.why, retry_after_s=step.poll_s, remote=step.remote)
        elif isinstance(step, Exchange):
            self.maybe_die()
            answer = self.network("update", lambda: self.put(subject, step.request.body))
            self.maybe_die()
            outcome = (
                Outcome(OutcomeKind.UNKNOWN, "no answer", remote=step.remote)
                if answer is None
                else SEQURA.read_response(asked, step, answer).outcome
            )
        else:
            outcome = Outcome(OutcomeKind.UNSUPPORTED, step.reason, remote=step.remote)
        self.settle(subject, record.revision, send.update.digest, outcome)

    def put(self, subject: str, body: bytes) -> HttpResponse:
        """The provider takes an Order Update."""
        told = msgspec.json.decode(body)["order"]
        shipped, unshipped = [amounts_of(told[name]["items"]) for name in ("shipped_cart", "unshipped_cart")]
        self.updates.setdefault(subject, []).append((shipped, unshipped))
        return HttpResponse(204, {}, b"")

    # --- the report

    def candidates(self, run_ms: int) -> Iterator[Candidate]:
        """Orders with something to report; those that were refused before come last."""
        for was_refused in (False, True):
            for subject, record in self.records.items():
                told = memory.read(record.remote)
                assert told is not None
                is_last = bool(told.refused_ms)
                if record.revision == record.acked or is_last is not was_refused or told.refused_ms >= run_ms > 0:
                    continue
                if (found := self.candidate(subject, record, told)) is not None:
                    yield found

    def candidate(self, subject: str, record: OrderRecord, told: memory.Reported) -> Candidate | None:
        """What is due of one order."""
        reference = subject.partition("/")[2]
        assessment = assess(record.facts, reference)
        if assessment.state == "inconsistent" and any(fact.units for fact in record.facts.shipments.values()):
            self.broken.add(reference)
        if assessment.state != "ready":
            return None
        order = assessment.order
        assert order is not None
        verdict = report.judge(
            report.situation_of(order), told, self.account.delivery, may_land_late=record.may_land_late
        )
        if verdict.kind == "broken":
            self.broken.add(reference)
        if verdict.kind != "due":
            return None
        entries = report.entries_of(
            order, deliveries_of(order, told.shipments), told, most=self.account.report_orders_max
        )
        return Candidate(reference, told, entries, record.revision, SEQURA.digest(order))

    def report_if_due(self) -> None:
        """The run that is due, made to its end."""
        run_ms = due_run(self.done_ms, self.now_ms, self.account.report_at, self.zone)
        if run_ms is None:
            return
        self.broken.clear()
        if self.send_pages(run_ms):
            while self.kept.may_write and (composed := pages.compose(self.candidates(run_ms), self.account)):
                for reference, remote in composed.remotes.items():
                    self.records[f"acme/{reference}"] = replace(self.records[f"acme/{reference}"], remote=remote)
                self.kept = replace(self.kept, pages=[*self.kept.pages, composed.page])
                self.maybe_die()
                if not self.send_pages(run_ms):
                    break
        broken = [report.broken_entry(reference, None, None) for reference in sorted(self.broken)]
        for request in pages.other_requests(broken, [], self.account, is_always=True):
            self.network("report", lambda body=request.body: self.post(body))
        self.done_ms = run_ms

    def send_pages(self, run_ms: int) -> bool:
        """Whether the report goes on after all pages that there are."""
        goes_on = True
        for page in list(self.kept.pages):
            now: Page | None = page
            while now is not None and now.refused_in_ms != run_ms and goes_on:
                now, goes_on = self.send_page(now, run_ms)
        return goes_on

    def send_page(self, page: Page, run_ms: int) -> tuple[Page | None, bool]:
        """One attempt, and what follows from it."""
        parts = [pages.part_of(self.records[f"acme/{name}"].remote) for name in page.lists[0]]
        request = pages.request_of(page, parts, self.account)
        assert request == pages.request_of(page, parts, self.account)
        answer = self.network("report", lambda: self.post(request.body))
        self.maybe_die()
        outcome = Outcome(OutcomeKind.UNKNOWN, "no answer") if answer is None else outcome_of(answer, self.now_ms)
        return self.write(page, pages.after(page, outcome, run_ms), outcome), outcome.status != 404

    def write(self, page: Page, move: Move, outcome: Outcome) -> Page | None:
        """All that follows from it, in one transaction."""
        kinds: tuple[Literal["reported", "free", "broken"], ...] = ("reported", "free", "broken")
        for kind, names in zip(kinds, (move.reported, move.free, move.broken), strict=True):
            for name in names:
                subject = f"acme/{name}"
                fate = pages.fate_of(self.records[subject].remote, kind, outcome, self.now_ms)
                self.settle(subject, fate.revision, fate.digest, fate.outcome)
        others = [each for each in self.kept.pages if each is not page]
        self.kept = replace(self.kept, pages=others if move.page is None else [move.page, *others])
        if move.page is not None and move.page.is_stuck:
            self.stuck.append(move.page)
        self.now_ms += {"hold": 30_000, "backoff": 1_000}.get(move.then, 0)
        for name in (*move.reported, *move.free, *move.broken):
            self.look(f"acme/{name}")
        return move.page

    def post(self, body: bytes) -> HttpResponse:
        """The provider takes a report."""
        told = msgspec.json.decode(body)["delivery_report"]
        named = {str(entry["merchant_reference"]["order_ref_1"]) for entry in told["orders"]}
        assert not [name for name in named if f"acme/{name}" in self.updates], "reported after it was updated"
        if named & self.bad:
            return HttpResponse(409, {}, b'{"errors": ["one of them"]}')
        answer = self.provider.take(body)
        assert answer.status == 204, answer.body
        return HttpResponse(answer.status, {}, answer.body)

    # --- the network

    def network(self, kind: str, apply: Any) -> HttpResponse | None:
        """An answer; `None`: nobody knows what became of it."""
        fault: Fault = self.chance.choice(FAULTS) if self.chance.random() < self.faults else ""
        if fault == "lost":
            return None
        if fault == "busy":
            return HttpResponse(503, {}, b"")
        if fault == "error":
            return HttpResponse(500, {}, b"")
        if fault == "refused" and kind == "report":
            return HttpResponse(409, {}, b'{"errors": ["not now"]}')
        answer: HttpResponse = apply()
        return None if fault in ("applied", "torn") else answer

    def pass_time(self, until_ms: int) -> None:
        """Runs whatever comes due until then; a worker that dies is there again a minute later."""
        while True:
            due = due_run(self.done_ms, self.now_ms, self.account.report_at, self.zone)
            if due is None:
                at = next_run(self.now_ms, self.account.report_at, self.zone)
                if at > until_ms:
                    self.now_ms = max(self.now_ms, until_ms)
                    return
                self.now_ms = at
            try:
                self.report_if_due()
            except DeathError:
                self.survive()

    def survive(self) -> None:
        """It dies as often as it does."""
        while True:
            try:
                self.restart()
            except DeathError:
                continue
            return

    def receive(self, event: OrderEvent) -> None:
        """An event, whatever happens meanwhile."""
        try:
            self.tell(event)
        except DeathError:
            self.survive()
