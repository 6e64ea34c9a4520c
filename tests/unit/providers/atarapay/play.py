"""One order between a shop and AtaraPay, in virtual time: turns as the worker takes them, with all that may go wrong.

The core's own functions decide what is owed and what follows from an outcome; a commit that is lost loses what the
adapter kept. Every call is audited when it is made, by what whoever makes it may know.
"""

import math
import random
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from msgspec.structs import replace

from schemas.events import CancelledData, OrderEvent
from schemas.provider_events import CancelledThereData, DeliverySaidData, DeliveryState, ProviderData
from schemas.state import Delay, OrderRecord
from tests.shops.events import START_MS, EventSpec, event
from tests.unit.providers.atarapay.reported import ACCOUNT, NUMBER
from worker.core.order import Assessment, assess
from worker.core.plan import Acknowledge, Park, Send, Wait
from worker.core.plan import plan as plan_order
from worker.core.policy import DeliveryPolicy
from worker.core.record import acknowledge, apply_event, inherit, park, settle
from worker.core.status import is_parked, status
from worker.model.exchange import (
    AwaitResult,
    Exchange,
    Fault,
    HttpResponse,
    Outcome,
    OutcomeKind,
    Settled,
    Unsendable,
)
from worker.model.provider import Destination, Question
from worker.providers.atarapay import AtaraPay
from worker.providers.atarapay import known as memory
from worker.providers.atarapay.known import Known
from worker.providers.atarapay.wire import DELIVERED, ORDER_STATUS, State
from worker.sandbox.atarapay.escrow import STATE_IDS, Act, Habits, Notification, Sandbox
from worker.sandbox.atarapay.troubles import Trouble, meet

REFERENCE = "12345"
SUBJECT = f"escrow/{REFERENCE}"
RULES = DeliveryPolicy()
_STATES: Mapping[str, DeliveryState] = {
    "Rejected": "rejected",
    "Delivered": "delivered",
    "Accepted": "accepted",
    "Complete": "resolved",
    "Refunded": "refunded",
    "Pending II": "second_attempt",
    "Dispute": "disputed",
    "Disputed": "escalated",
}


def said(notification: Notification) -> ProviderData:
    """What a notification says, as the receiver reads it."""
    number = str(notification.data["id"])
    is_cancelled = notification.data["status"]["id"] == STATE_IDS[State.CANCELLED]
    if notification.status == "Canceled" or (notification.status == "Rejected" and is_cancelled):
        return CancelledThereData(
            by="shopper" if notification.status == "Rejected" else "merchant", provider_order=number
        )
    return DeliverySaidData(state=_STATES[notification.status], provider_order=number)


class Auditor:
    """Says what no correct client does, of every call as it is made."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.calls: list[str] = []
        self.may_land_until = 0.0
        self.is_asked = True
        """Order Status has answered since the last word."""
        self.told: str = ""
        """What it said."""

    def call(self, word: str, means: str, now: float) -> None:
        """`means`: the word that the shop's facts mean now."""
        assert now >= self.may_land_until, f"{word} while an earlier call may still land"
        if word != ORDER_STATUS:
            assert word == means, f"{word}, but the shop means {means or 'nothing'}"
            assert self.is_asked, f"{word} again, without Order Status in between: {self.calls}"
            assert self.told in ("", State.PENDING, State.SECOND), f"{word} though Order Status had said {self.told}"
            self.is_asked = False
        self.calls.append(word)

    def answered(self, word: str, answer: HttpResponse | Fault) -> None:
        """What the client gets to see."""
        if word == ORDER_STATUS and isinstance(answer, HttpResponse):
            try:
                title = msgspec.json.decode(answer.body)["data"]["status"]["title"]
            except (msgspec.DecodeError, KeyError, TypeError):
                return
            self.is_asked, self.told = True, title
        elif word != ORDER_STATUS:
            self.told = ""


class Play:
    """The order, its record, and what is on its way."""

    def __init__(self, seed: int, *, is_calm: bool = False) -> None:
        self.chance = random.Random(seed)
        self.is_calm = is_calm
        self.now = 0.0
        self.record = OrderRecord()
        self.adapter = AtaraPay()
        self.destination = Destination(ACCOUNT, self.adapter)
        self.hold_until = 0.0
        self.count = 0
        habits = Habits(
            self.chance.choice([200, 400, 422]),
            self.chance.choice(["Canceled", "CANCELLED"]),
            self.chance.random() < 0.3,
        )
        self.sandbox = Sandbox(ACCOUNT.public_key, ACCOUNT.private_key, habits)
        self.escrow = self.sandbox.open(NUMBER, REFERENCE, 7000)
        self.auditor = Auditor(self.sandbox)
        self.late: list[tuple[float, bytes]] = []
        self.underway: list[tuple[float, Notification]] = []
        self.troubles: list[Trouble] = []

    @property
    def now_ms(self) -> int:
        """UTC; the shop's events are told from `START_MS` on."""
        return START_MS + 1_000_000 + int(self.now * 1000)

    @property
    def known(self) -> Known:
        """What the adapter keeps."""
        return memory.decode(self.record.remote)

    @property
    def assessment(self) -> Assessment:
        """Of the facts."""
        return assess(self.record.facts, REFERENCE)

    @property
    def status(self) -> str:
        """As people see it."""
        return status(self.record, self.assessment, now_ms=self.now_ms, rules=RULES)

    def tell(self, told: EventSpec) -> None:
        """The shop tells something, now."""
        self.count += 1
        made = event(told.but(subject=SUBJECT), self.count)
        self._take(replace(made, time_us=self.now_ms * 1000))

    def _take(self, made: OrderEvent) -> None:
        self.count += 1
        self.record = apply_event(
            self.record,
            made,
            position=self.count,
            revision=self.count,
            now_ms=self.now_ms,
            destination=self.destination,
        )
        if self.record.delay is Delay.RESULT:
            self.record.not_before_ms = 0

    def act(self, act: Act) -> bool:
        """Something is done at AtaraPay."""
        return self.sandbox.act(NUMBER, act)

    # --- time ---

    def run(self, seconds: float) -> None:
        """Lets so much time pass, in steps of a second or to when something happens next."""
        until = self.now + seconds
        while self.now < until:
            self._post()
            for at, form in [each for each in self.late if each[0] <= self.now]:
                self.late.remove((at, form))
                self.sandbox.call(form)
            self._arrive()
            self._look()
            self.now = min(until, max(self.now + 1.0, self._next()))

    def _next(self) -> float:
        """When there is something to do; what is parked stays so until something is told."""
        record = self.record
        times = [at for at, _ in self.late] + [at for at, _ in self.underway]
        if record.revision != record.acked and not is_parked(record):
            delay_s = (record.not_before_ms - self.now_ms) / 1000
            times.append(max(self.hold_until, self.now + delay_s))
        return min(times, default=math.inf)

    def calm(self) -> None:
        """Nothing goes wrong any more: what is on its way arrives, what waits is done."""
        self.is_calm = True
        self.run(2 * 3600)

    def _post(self) -> None:
        """Notifications come late, twice, in another order; in the end all come."""
        for notification in self.sandbox.untold:
            delay_s = 0.0 if self.is_calm else self.chance.choice([0.0, 1.0, 30.0, 120.0])
            self.underway += [(self.now + delay_s, notification)] * self.chance.choice([1, 1, 2])
        self.sandbox.untold.clear()

    def _arrive(self) -> None:
        for at, notification in [each for each in self.underway if each[0] <= self.now or self.is_calm]:
            self.underway.remove((at, notification))
            # Its id has the minute of arrival, so that the same again is one, and a second rejection another.
            known_by = f"{notification.status} {notification.message} {self.now // 60}"
            uid = blake2b(known_by.encode(), digest_size=8).digest()
            self._take(OrderEvent(SUBJECT, uid, -1, self.now_ms * 1000, said(notification)))

    # --- turns ---

    def _look(self) -> None:
        record = self.record
        if record.revision == record.acked or self.now < self.hold_until or self.now_ms < record.not_before_ms:
            return
        plan = plan_order(record, SUBJECT, self.destination)
        match plan:
            case Send():
                self._turn(plan)
            case Acknowledge(digest):
                self.record = acknowledge(record, digest)
            case Park(reason, digest, by_check):
                self.record = park(record, reason, digest, self.now_ms, by_check=by_check)
            case Wait():
                pass

    def _turn(self, plan: Send) -> None:
        revision = self.record.revision
        outcome = self._outcome(plan)
        if not self.is_calm and self.chance.random() < 0.08:
            # Killed before it could commit: what comes next knows only that something may have been sent.
            self.record = inherit(self.record)
            self.hold_until = self.now + RULES.takeover_hold_s
            return
        digest = plan.update.digest
        self.record, hold_s = settle(
            self.record, revision, digest, outcome, now_ms=self.now_ms, chance=self.chance.random(), rules=RULES
        )
        self.hold_until = max(self.hold_until, self.now + hold_s)
        if outcome.found is not None:
            data: CancelledData = outcome.found
            self._take(OrderEvent(SUBJECT, b"found-01", -1, self.now_ms * 1000, data, id="found"))

    def _outcome(self, plan: Send) -> Outcome:
        asked = Question(
            REFERENCE,
            ACCOUNT,
            plan.update,
            plan.remote,
            plan.may_land_late,
            plan.remote_unknown,
            now_ms=self.now_ms,
        )
        for _ in range(3):
            step = self.adapter.next_step(asked)
            if not isinstance(step, Exchange):
                return _ended(step)
            answer = self._send(step)
            unknown = OutcomeKind.REJECTED if step.is_read else OutcomeKind.UNKNOWN
            if isinstance(answer, Fault):
                kind = unknown if answer.sent else OutcomeKind.NOT_SENT
                lost = answer.sent and not step.is_read
                return Outcome(kind, answer.detail, remote=step.remote if lost else None)
            found_out = self.adapter.read_response(asked, step, answer)
            if not step.is_read:
                return found_out.outcome
            if found_out.outcome.kind is not OutcomeKind.APPLIED:
                kind = found_out.outcome.kind
                return replace(found_out.outcome, kind=OutcomeKind.REJECTED if kind is OutcomeKind.UNKNOWN else kind)
            asked = replace(asked, seen=found_out.seen)
        raise AssertionError("more reads than one in a turn")

    def _send(self, step: Exchange) -> HttpResponse | Fault:
        form = _form(step.request.body)
        trouble = None
        if not self.is_calm and self.chance.random() < 0.4:
            trouble = self.chance.choice([each for each in Trouble if each is not Trouble.REDIRECT])
            self.troubles.append(trouble)
        if trouble is not Trouble.NO_CONNECTION:
            self.auditor.call(form["status"], self.means, self.now)
        met = meet(self.sandbox, step.request.body, trouble)
        if met.is_late:
            self.late.append((self.now + self.chance.uniform(1.0, RULES.settle_s - 1.0), step.request.body))
            if not step.is_read:
                self.auditor.may_land_until = self.late[-1][0]
        self.auditor.answered(form["status"], met.answer)
        return met.answer

    means: str = ""
    """The word that the story so far means."""


def _ended(step: AwaitResult | Settled | Unsendable) -> Outcome:
    match step:
        case AwaitResult(poll_s, why, remote):
            return Outcome(OutcomeKind.PENDING, why, retry_after_s=poll_s, remote=remote)
        case Settled(remote, found):
            return Outcome(OutcomeKind.APPLIED, remote=remote, found=found)
        case Unsendable():
            return Outcome(OutcomeKind.UNSUPPORTED, step.reason, remote=step.remote, found=step.found)


def _form(body: bytes) -> dict[str, Any]:
    found = dict(parse_qsl(body.decode()))
    assert found["order"] == NUMBER
    assert (found["status"] != DELIVERED) or found["phone_number"]
    return found
