"""Qliro, and what a client of it must never do: the rules that stand in the way of charging or paying back twice."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from contextvars import Context
from random import Random
from typing import Any, NamedTuple

import msgspec

from schemas.facts import Facts
from schemas.state import OrderRecord
from tests.shops.counts import ShopOrder
from tests.simulation.callbacks import Callbacks
from tests.simulation.looks import Looks
from tests.simulation.sides import About, Request
from tests.simulation.trace import Trace
from tests.unit.providers.qliro import books
from tests.unit.providers.qliro.turns import item
from worker.model.callbacks import Called
from worker.model.exchange import Fault, HttpRequest, HttpResponse
from worker.providers.qliro.options import QliroAccount
from worker.sandbox.qliro.api import RELEASED, QliroApi
from worker.sandbox.qliro.orders import Item, Order, Result

ERRORS_MAX = 3
"""In a row: one more, and somebody is asked."""
_encoder = msgspec.json.Encoder(decimal_format="number")


class Known(NamedTuple):
    """An order's numbers, and all that the shop will ever say of it: more must never move."""

    subject: str
    shop: ShopOrder


class Fate:
    """How transactions end: at once or later; some in an error."""

    def __init__(self, random: Random, share: float) -> None:
        self.share = share
        self._random = random
        self._errors = 0

    def __call__(self, operation: str) -> Result:
        random = self._random
        after_s = random.choice((0.0, 0.0, 0.5, 6.0, 45.0)) * random.random()
        if self._errors < ERRORS_MAX and random.random() < self.share:
            self._errors += 1
            is_released = operation == "cancelOrder" and random.random() < 0.5
            return Result(after_s, "Error", "PSP_ERROR", RELEASED if is_released else "Duplicate Transaction")
        self._errors = 0
        return Result(after_s)


class QliroSide:
    """`sides.Side` of one Qliro account."""

    def __init__(self, account: QliroAccount, random: Random, trace: Trace, callbacks: Callbacks) -> None:
        self.fate = Fate(random, random.choice((0.0, 0.1, 0.3)))
        self.api = QliroApi(account.api_key, account.api_secret, self.fate)
        self.known: dict[int, Known] = {}
        """By order id."""
        self._random = random
        self._trace = trace
        self._callbacks = callbacks
        self._looks = Looks()
        self._open: set[str] = set()
        """Subjects whose last command had no certain answer."""
        self._states: dict[str, tuple[str, ...]] = {}
        """By subject: its transactions when the last command went out."""
        self._heard: dict[str, tuple[int, float]] = {}
        self._loop = asyncio.get_running_loop()
        self._outside = Context()

    def checkout(self, first: ShopOrder, shop: ShopOrder) -> None:
        """The shopper has paid: `first` is the order as it was then, `shop` as it will be in the end."""
        reference = first.subject.partition("/")[2]
        order_id = int(first.provider_order or f"2{reference[1:]}")
        self.known[order_id] = Known(first.subject, shop)
        method = self._random.choice(("QLIRO_INVOICE", "CREDITCARDS"))
        self.api.checkout(order_id, reference, first.currency, method, _items(first), self._now())

    def order(self, subject: str) -> Order:
        """What Qliro holds of it."""
        return self.api.orders[next(number for number, known in self.known.items() if known.subject == subject)]

    def is_quiet(self) -> bool:
        """No transaction is under way."""
        return not any(order.pending for order in self.api.orders.values())

    # --- the side of the network ---

    def about(self, request: HttpRequest) -> About:
        """Of a read the address names it, of a command the body."""
        if request.method == "GET":
            return About(self._find(request.url.rpartition("/")[2]), is_read=True)
        return About(self._find(str(msgspec.json.decode(request.body)["OrderId"])))

    def _find(self, text: str) -> str:
        if text.isdigit():
            return self.known[int(text)].subject
        return next(known.subject for known in self.known.values() if known.subject.endswith(f"/{text}"))

    def sent(self, request: Request) -> None:
        """The rules of `PROTOCOL.md` for providers that can be read."""
        if request.about.is_read:
            return
        subject, looks, order = request.subject, self._looks, self.order(request.subject)
        self.api.advance(self._now())
        for made in order.pending:
            self._trace.violate(f"{request} went out while transaction {made.id} is not final", "final_before_next")
        if looks.seen(request) is None:
            self._trace.violate(
                f"{request} went out, and its process has not looked since the last command", "look_before_command"
            )
        last, states = looks.commands.get(subject), self._transactions(order)
        if last is not None:
            is_same_step = _step(last) == _step(request) and self._states[subject] == states
            if is_same_step and subject in self._open and _request_id(last) != _request_id(request):
                self._trace.violate(
                    f"{request} has another RequestId than the one whose outcome is not known", "same_step_same_id"
                )
            if _step(last) != _step(request) and _request_id(last) == _request_id(request):
                self._trace.violate(f"{request} has the RequestId of another step", "same_step_same_id")
        looks.commanded(request)
        self._open.add(subject)
        self._states[subject] = states

    @staticmethod
    def _transactions(order: Order) -> tuple[str, ...]:
        return tuple(f"{one.id} {one.status}" for one in order.transactions.values())

    def take(self, request: Request) -> None:
        """Answers by the model of Qliro."""
        call = request.call
        self._trace.add("taken", request.subject, call.method, call.url.rpartition("/")[2])
        authorization = call.headers["Authorization"]
        path = call.url.partition("example")[2]
        status, body = self.api.answer(call.method, path, authorization, call.body, self._now())
        request.answer = HttpResponse(status, {"content-type": "application/json"}, body)
        for made in self.order(request.subject).pending:
            # A millisecond later: what is due is compared as floating point.
            at = made.at + made.result.after_s + 0.001
            self._loop.call_later(max(0.0, at - self._now()), self._advance, context=self._outside)
        self._moved()

    def refuse(self, request: Request) -> None:
        """It knows the RequestId from now on."""
        if not request.about.is_read:
            self.api.requests.setdefault(_request_id(request), self._now())

    def answered(self, request: Request, answer: HttpResponse | Fault) -> None:
        """A certain answer ends the question whether a command has arrived; a read shows it."""
        if not isinstance(answer, HttpResponse):
            return
        if request.about.is_read:
            if answer.status == 200:
                self._looks.looked(request, answer)
        elif answer.status < 500 and answer.status != 408 and self._looks.commands[request.subject] is request:
            self._open.discard(request.subject)

    def acknowledged(self, record: OrderRecord, subject: str, facts: Facts) -> None:
        """What was heard is looked at before it counts; and units are where the facts have them."""
        revision, at = self._heard.get(subject, (0, 0.0))
        if (
            record.heard
            and record.acked >= record.heard
            and record.heard == revision
            and (self._looks.at.get(subject, -1.0) < at)
        ):
            self._trace.violate(
                f"{subject}: what was heard in {revision} is settled, and nobody has looked since", "heard_is_looked_at"
            )
        order = self.order(subject)
        if order.pending:
            self._trace.violate(f"{subject}: acknowledged while a transaction is not final", "settled_is_so")
        kept, pending = books.units_wanted(facts)
        captured, reserved = books.units_there(order)
        if captured != +kept:
            self._trace.violate(f"{subject}: acknowledged, captured are {captured}, kept {kept}", "settled_is_so")
        is_fixed = bool(order.captures) and not order.is_own
        if reserved != +pending and not (is_fixed and reserved >= pending):
            self._trace.violate(f"{subject}: acknowledged, reserved are {reserved}, pending {pending}", "settled_is_so")

    def heard(self, subject: str, revision: int) -> None:
        """A hint was committed at this moment."""
        self._heard[subject] = (revision, self._loop.time())

    # --- what happens there ---

    def _now(self) -> float:
        return self._callbacks.wall_ms() / 1000

    def _advance(self) -> None:
        self.api.advance(self._now())
        self._moved()

    def _moved(self) -> None:
        """Something may have: it is judged, and told."""
        for breach in self.api.breaches:
            self._trace.violate(f"Qliro: {breach}", "within_what_is_there")
        pushes, self.api.pushes = self.api.pushes, []
        for push in pushes:
            known = self.known[push["OrderId"]]
            self._trace.add("moved", known.subject, push["Type"], push["Status"])
            self._check(self.api.orders[push["OrderId"]], known)
            self._call(known.subject, push)

    def _call(self, subject: str, push: Mapping[str, Any]) -> None:
        account, _, reference = subject.partition("/")
        body = _encoder.encode({**push, "PaymentType": push["Type"]})
        self._callbacks.call(
            Called(
                account=account,
                purpose="order-status",
                reference=reference,
                media_type="application/json",
                body=body,
                arrived_ms=0,
            )
        )

    def _check(self, order: Order, known: Known) -> None:
        """Nothing moves twice: no more than the shop will ever have told."""
        shop, subject = known.shop, known.subject
        captured, _ = books.units_there(order)
        for name, count in captured.items():
            if count > shop.ever_shipped[name]:
                self._trace.violate(
                    f"{subject}: {count} × {name} captured, {shop.ever_shipped[name]} ever shipped", "no_unit_twice"
                )
        amounts, refunds = books.amounts_there(order), Counter(dict(shop.refunds))
        for name, minor in amounts.items():
            if name in refunds and minor > refunds[name]:
                self._trace.violate(
                    f"{subject}: refund {name} of {refunds[name]} was told as {minor}", "no_amount_twice"
                )
        if order.fees > sum(shop.fees):
            self._trace.violate(f"{subject}: fees of {order.fees} kept back, {sum(shop.fees)} due", "no_amount_twice")
        for capture in order.captures.values():
            if capture.left < 0 or any(capture.remaining(key) < 0 for key in capture.items):
                self._trace.violate(f"{subject}: more was taken back than captured", "within_what_is_there")

    def check_end(self, first: ShopOrder, shop: ShopOrder, status: str) -> None:
        """What Qliro holds is what the shop says; `status` is the worker's word."""
        subject = first.subject
        order = self.order(subject)
        if order.pending:
            self._trace.violate(f"{subject} ends with transactions under way", "told_in_the_end")
        if status != "settled":
            return
        captured, reserved = books.units_there(order)
        kept = Counter({name: line.kept for name, line in shop.lines.items()})
        pending = Counter({name: 0 if shop.is_cancelled else line.pending for name, line in shop.lines.items()})
        if captured != +kept:
            self._trace.violate(f"{subject} ends with {captured} captured, the shop says {kept}", "told_in_the_end")
        is_fixed = bool(order.captures) and not order.is_own
        if reserved != +pending and not (is_fixed and reserved >= pending):
            self._trace.violate(f"{subject} ends with {reserved} reserved, the shop says {pending}", "told_in_the_end")
        amounts = books.amounts_there(order)
        if order.captured_minor > 0 or (not order.captures and order.left_minor > 0):
            for name, minor in shop.refunds:
                if amounts[name] != minor:
                    self._trace.violate(
                        f"{subject} ends with {amounts[name]} of refund {name}, the shop says {minor}",
                        "told_in_the_end",
                    )
        if order.fees != sum(shop.fees):
            self._trace.violate(
                f"{subject} ends with fees of {order.fees}, the shop says {shop.fees}", "told_in_the_end"
            )


def _items(order: ShopOrder) -> list[Item]:
    """What the checkout leaves at Qliro."""
    items = [item(name, line.ordered, line.unit_minor) for name, line in order.lines.items()]
    if order.handling_minor:
        items.append(item("ship-std", 1, order.handling_minor, "Shipping"))
    if order.discount_minor:
        items.append(item("coupon", 1, -order.discount_minor, "Discount"))
    return items


def _request_id(request: Request) -> str:
    return str(msgspec.json.decode(request.body)["RequestId"])


def _step(request: Request) -> tuple[str, Any]:
    """The command but for its RequestId."""
    body = msgspec.json.decode(request.body)
    del body["RequestId"]
    return request.call.url, body
