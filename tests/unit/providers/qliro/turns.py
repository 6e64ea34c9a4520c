"""One order of a Qliro account, turn by turn, against Qliro's side in memory: the worker's rules, and time that is told.

Events go through the real door, what is owed and what follows from an outcome is decided by the core; only Kafka and
the network are left out. `Faults` says what becomes of each request on its way.
"""

from random import Random
from typing import Any

import msgspec
from msgspec.structs import replace

from schemas.state import OrderRecord
from tests.shops.events import REFERENCE, SUBJECT, EventSpec, envelope
from worker.core.intake import decode
from worker.core.plan import Acknowledge, Park, Send, Wait, plan
from worker.core.policy import DeliveryPolicy
from worker.core.record import apply_event, inherit, settle
from worker.core.retry import awaits_result
from worker.model.exchange import (
    AwaitResult,
    Exchange,
    HttpResponse,
    Outcome,
    OutcomeKind,
    Settled,
    Unsendable,
)
from worker.model.provider import Destination, Question
from worker.providers.qliro import Qliro
from worker.providers.qliro.options import QliroAccount
from worker.sandbox.qliro.api import QliroApi
from worker.sandbox.qliro.orders import Item, Order, Result

QLIRO = Qliro()
ACCOUNT = QliroAccount(
    name="acme",
    provider="qliro",
    base_url="https://pago.qit.nu/checkout/adminapi",
    api_key="HATS",
    api_secret="test-secret",
)
ORDER_ID = 12345
RULES = DeliveryPolicy()
DAY_S = 86_400.0
START_S = 1_772_323_200.0

Json = dict[str, Any]


class Crash(Exception):  # noqa: N818 - what happens to the worker
    """It stops hard: nothing is written of what it did."""


def succeed(_operation: str) -> Result:
    """Every command comes through at once."""
    return Result()


class Faults:
    """What becomes of requests, by chance; nothing happens to them without it."""

    KINDS = ("lost", "applied", "late", "cut", "500", "502", "503", "429", "crash")

    def __init__(self, chance: Random | None = None, share: float = 0.0) -> None:
        self.chance, self.share = chance, share
        self.next: list[str] = []
        """What is to happen to the next commands."""

    def of(self, method: str) -> str:
        if method == "POST" and self.next:
            return self.next.pop(0)
        if self.chance is not None and self.chance.random() < self.share:
            return self.chance.choice(self.KINDS)
        return ""


class Client:
    """The worker, as far as one order sees it."""

    def __init__(self, api: QliroApi, account: QliroAccount = ACCOUNT, faults: Faults | None = None) -> None:
        self.api, self.account = api, account
        self.faults = faults or Faults()
        self.chance = self.faults.chance or Random(0)
        self.now = START_S
        self.record = OrderRecord()
        self.events = 0
        self.requests: list[tuple[str, Json]] = []
        """Commands in the order in which they were sent: operation and body."""
        self.reads = 0
        self.outcomes: list[Outcome] = []
        self.sent_bodies: list[bytes] = []
        self.must_look = False
        self.late: list[tuple[float, Any]] = []
        self.problem = ""
        self.sizes = 0

    # --- the world ---

    def pass_time(self, seconds: float) -> None:
        """Nothing happens but what is due at Qliro."""
        until = self.now + seconds
        for at, request in [one for one in self.late if one[0] <= until]:
            self.api.answer("POST", request.url, request.headers["Authorization"], request.body, at)
        self.late = [one for one in self.late if one[0] > until]
        self.now = until
        self.api.advance(until)

    def tell(self, *specs: EventSpec) -> "Client":
        """What the shop says, a second apart."""
        for told in specs:
            self.take(envelope(told, self.events + 1))
        return self

    def take(self, event: Json) -> None:
        """One event."""
        self.events += 1
        decoded = decode(b"k", msgspec.json.encode(event), {}, int(START_S * 1000) + 10**10)
        assert decoded is not None
        self.record = apply_event(
            self.record,
            decoded,
            position=self.events,
            revision=self.record.revision + 1,
            now_ms=self.now_ms,
            destination=Destination(self.account, QLIRO),
        )

    def hear(self) -> None:
        """Qliro calls back: the order is to be looked at."""
        record = msgspec.structs.replace(self.record)
        record.revision = record.heard = record.revision + 1
        record.remote_unknown = True
        if record.park is not None and record.park.unsupported:
            record.park = None
        if awaits_result(record):
            record.not_before_ms = 0
        self.record = record

    @property
    def now_ms(self) -> int:
        return int(self.now * 1000)

    # --- the worker ---

    def work(self, turns: int = 60, seconds: float = 3 * DAY_S) -> str:
        """Until nothing is owed, or nothing can be done; says how it ended: `settled`, or why not."""
        until = self.now + seconds
        for _ in range(turns):
            record = self.record
            if record.revision == record.acked:
                return "settled"
            if record.not_before_ms > self.now_ms:
                wait_s = (record.not_before_ms - self.now_ms) / 1000 + 0.001
                if self.now + wait_s > until:
                    return "waits"
                self.pass_time(wait_s)
            planned = plan(self.record, SUBJECT, Destination(self.account, QLIRO))
            match planned:
                case Acknowledge():
                    self.record = replace(self.record, acked=self.record.revision)
                case Wait(state):
                    return f"parked: {self.record.reason}" if state == "parked" else state
                case Park(reason):
                    self.problem = reason
                    return f"parked: {reason}"
                case Send():
                    self.turn(planned)
        return "no end"

    def turn(self, planned: Send) -> None:
        """One attempt: reads, and at most one command."""
        record = self.record
        asked = Question(
            REFERENCE,
            self.account,
            planned.update,
            planned.remote,
            planned.may_land_late,
            planned.remote_unknown,
            now_ms=self.now_ms,
        )
        try:
            outcome = self._steps(asked)
        except Crash:
            self.record = inherit(record)
            self.must_look = True
            self.pass_time(RULES.settle_s)
            return
        self.outcomes.append(outcome)
        self.record, hold_s = settle(
            record,
            record.revision,
            planned.update.digest,
            outcome,
            now_ms=self.now_ms,
            chance=self.chance.random(),
            rules=RULES,
        )
        self.sizes = max(self.sizes, len(self.record.remote))
        self.pass_time(hold_s)

    def _steps(self, asked: Question) -> Outcome:
        for _ in range(20):
            step = QLIRO.next_step(asked)
            match step:
                case AwaitResult(poll_s, why, remote, is_overdue):
                    return Outcome(OutcomeKind.PENDING, why, None, poll_s, remote=remote, is_overdue=is_overdue)
                case Settled(remote):
                    return Outcome(OutcomeKind.APPLIED, remote=remote)
                case Unsendable():
                    return Outcome(OutcomeKind.UNSUPPORTED, step.reason, remote=step.remote)
                case Exchange():
                    pass
            response = self._send(step)
            if response is None:
                kind = OutcomeKind.REJECTED if step.is_read else OutcomeKind.UNKNOWN
                return Outcome(kind, "no answer", remote=None if step.is_read else step.remote)
            answered = QLIRO.read_response(asked, step, response)
            if not step.is_read:
                self.must_look = answered.outcome.kind is OutcomeKind.UNKNOWN
                return answered.outcome
            if answered.outcome.kind is not OutcomeKind.APPLIED:
                unknown = answered.outcome.kind is OutcomeKind.UNKNOWN
                return replace(answered.outcome, kind=OutcomeKind.REJECTED) if unknown else answered.outcome
            self.must_look = False
            asked = replace(asked, seen=answered.seen, now_ms=self.now_ms)
        raise AssertionError("a turn without an end")

    def _send(self, step: Exchange) -> HttpResponse | None:
        request = step.request
        if step.is_read:
            self.reads += 1
        else:
            assert not self.must_look, "a command after an unknown outcome, without a look"
            self.requests.append((request.url.rpartition("/")[2], msgspec.json.decode(request.body)))
            self.sent_bodies.append(request.body)
            self.must_look = True
        fault = self.faults.of(request.method)
        self.pass_time(self.chance.choice((0.01, 0.2, 1.0)))
        if fault in ("500", "503", "429"):
            return HttpResponse(int(fault), {}, b"")
        if fault == "502":
            fault = self.chance.choice(("lost", "applied", "late"))
        if fault == "late" and not step.is_read:
            self.late.append((self.now + self.chance.uniform(0, 0.9 * RULES.settle_s), request))
        if fault in ("lost", "late"):
            return None
        authorization = request.headers["Authorization"]
        status, body = self.api.answer(request.method, request.url, authorization, request.body, self.now)
        if fault == "applied":
            return None
        if fault == "crash":
            raise Crash
        return HttpResponse(status, {}, body[: len(body) // 2] if fault == "cut" else body)

    @property
    def shown(self) -> Json:
        """What people see of it."""
        return QLIRO.describe(self.record.remote)


def item(
    reference: str, quantity: int, inc: int, kind: str = "Product", ex: int | None = None, description: str = ""
) -> Item:
    """A line of the checkout; at 25 % unless `ex` says otherwise."""
    return Item(reference, kind, inc, round(inc / 1.25) if ex is None else ex, quantity, description)


def opened(*items: Item, method: str = "QLIRO_INVOICE", currency: str = "EUR", **members: Any) -> Client:
    """An order as the checkout left it, and the worker that will hear of it."""
    api = QliroApi("HATS", "test-secret", members.pop("fate", succeed))
    api.checkout(ORDER_ID, "qliro-ref", currency, method, list(items), START_S - 100)
    return Client(api, **members)


def order_of(client: Client) -> Order:
    """What Qliro holds."""
    return client.api.orders[ORDER_ID]


def net(client: Client, kind: str = "Product") -> dict[tuple[str, int], int]:
    """What is captured and not returned."""
    found: dict[tuple[str, int], int] = {}
    for capture in order_of(client).captures.values():
        for key, one in capture.items.items():
            if one.type == kind and capture.remaining(key):
                found[key] = found.get(key, 0) + capture.remaining(key)
    return found


def left(client: Client) -> dict[tuple[str, int], int]:
    """What is reserved."""
    found: dict[tuple[str, int], int] = {}
    for held in order_of(client).reserved.values():
        for key, one in held.items():
            if one.quantity:
                found[key] = found.get(key, 0) + one.quantity
    return found
