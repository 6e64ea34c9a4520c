"""Providers in scenarios: the sandboxes' rules, in virtual time and without a port."""

from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct

from worker.config import parse_duration
from worker.errors import UsageError
from worker.model.account import Account
from worker.model.exchange import HttpRequest, HttpResponse
from worker.providers.atarapay.options import AtaraPayAccount
from worker.providers.qliro.options import QliroAccount
from worker.sandbox.atarapay import escrow
from worker.sandbox.atarapay.escrow import Act
from worker.sandbox.qliro.api import QliroApi, pushed
from worker.sandbox.qliro.orders import Item, Order, Refusal, Result, without_tax
from worker.tools.scenario.steps import Checkout, CheckoutItem, EndValue, QliroAct

WORKS_S = 1.0
"""How long Qliro takes to process a command by default."""
USUAL_METHOD = "QLIRO_INVOICE"

_encoder = msgspec.json.Encoder(decimal_format="number")
_JSON = "application/json"


class Pushed(Struct, frozen=True):
    """A callback that the provider makes, or would make."""

    reference: str
    purpose: str
    of_seller: bool
    """Whether one address serves all orders."""
    body: bytes
    media_type: str = _JSON


class ProviderModel(ABC):
    """`sim.scripted.Model` of one account, with its callbacks."""

    currency: ClassVar[str]
    """Of checkouts that do not say it."""

    def __init__(self, account: Any, wall_s: Callable[[], float]) -> None:
        """`account`: in its provider's type. `wall_s`: UTC seconds."""
        self._base = account.base_url.rstrip("/") + "/"
        self._wall_s = wall_s
        self.told: Callable[[], None] = lambda: None
        """Called if something may end later, or if there is something to push."""
        self._pushes: list[Pushed] = []

    def takes(self, request: HttpRequest) -> bool:
        """Whether a request is for this model."""
        return request.url.startswith(self._base) and self._is_ours(request)

    def pushes(self) -> list[Pushed]:
        """Takes the pushes that are due."""
        self.advance()
        pushes, self._pushes = self._pushes, []
        return pushes

    def advance(self) -> None:  # noqa: B027 - at some providers nothing takes time
        """Ends transactions that are due."""

    def due(self) -> float | None:
        """When the next transaction ends, UTC seconds; `None`: none is pending."""
        return None

    @staticmethod
    @abstractmethod
    def checkout_problem(value: Checkout) -> str | None:
        """What is wrong with a checkout at this provider; `None`: nothing."""

    @abstractmethod
    def _is_ours(self, request: HttpRequest) -> bool: ...

    @abstractmethod
    def order_of(self, request: HttpRequest) -> str | None:
        """The reference of the order that a request is about, among the model's orders."""

    @abstractmethod
    def answer(self, request: HttpRequest) -> HttpResponse:
        """Applies a request."""

    @abstractmethod
    def checkout(self, reference: str, value: Checkout) -> None:
        """The shopper has paid. Raises `UsageError`."""

    @abstractmethod
    def act(self, reference: str, what: Act | QliroAct) -> None:
        """Somebody acts at the provider. Raises `UsageError`."""

    @abstractmethod
    def end(self, reference: str, ends: Iterable[EndValue]) -> None:
        """How the next commands of an order end. Raises `UsageError`."""

    @abstractmethod
    def shown(self, reference: str) -> dict[str, Any]:
        """The order's state. Raises `UsageError`."""


class QliroModel(ProviderModel):
    """Reservations, captures, and transactions that end later."""

    currency = "SEK"

    def __init__(self, account: QliroAccount, wall_s: Callable[[], float]) -> None:
        super().__init__(account, wall_s)
        self._api = QliroApi(account.api_key, account.api_secret, lambda _command: Result(WORKS_S))
        self._ends: dict[str, deque[Result]] = {}

    @staticmethod
    def checkout_problem(value: Checkout) -> str | None:
        if not value.items or value.amount_minor is not None:
            return "expected items, without amount_minor, at Qliro"
        return None if type(value.order) is int else "order: expected a number, which is what Qliro calls orders"

    def _is_ours(self, request: HttpRequest) -> bool:
        return request.method != "POST" or _members(request.body).get("MerchantApiKey") == self._api.api_key

    def order_of(self, request: HttpRequest) -> str | None:
        if request.method == "POST":
            told = _members(request.body).get("OrderId")
            order = self._api.orders.get(told) if isinstance(told, int) else None
        else:
            name = request.url.partition("?")[0].rpartition("/")[2]
            order = self._api.called(name) or self._api.named(name)
        return None if order is None else order.reference

    def answer(self, request: HttpRequest) -> HttpResponse:
        ends = self._ends.get(self.order_of(request) or "", deque())
        self._api.fate = lambda _command: ends[0] if ends else Result(WORKS_S)
        authorization = request.headers.get("Authorization", "")
        status, body = self._api.answer(request.method, request.url, authorization, request.body, self._wall_s())
        if request.method == "POST" and status < 300 and ends:
            ends.popleft()
        self.told()
        return HttpResponse(status, {"content-type": _JSON}, body)

    def advance(self) -> None:
        self._advance(self._wall_s())

    def _advance(self, wall_s: float) -> None:
        self._api.advance(wall_s)
        pushes, self._api.pushes = self._api.pushes, []
        for each in pushes:
            order = self._api.orders[each["OrderId"]]
            self._pushes.append(Pushed(order.reference, "order-status", False, _encoder.encode(pushed(order, each))))

    def due(self) -> float | None:
        pending = [one for order in self._api.orders.values() for one in order.pending]
        return min((one.at + one.result.after_s for one in pending), default=None)

    def checkout(self, reference: str, value: Checkout) -> None:
        assert isinstance(value.order, int), "it was checked when it was read"
        if value.order in self._api.orders or self._api.named(reference) is not None:
            raise UsageError(f"order {value.order}, or {reference}, was placed before")
        items = [_item(each) for each in value.items]
        currency, method = value.currency or self.currency, value.method or USUAL_METHOD
        self._api.checkout(value.order, reference, currency, method, items, self._wall_s())

    def act(self, reference: str, what: Act | QliroAct) -> None:
        order = self._order(reference)
        if not isinstance(what, QliroAct):
            raise UsageError("expected one of capture, reserve, cancel at Qliro")
        self._api.looked.discard(order.id)
        make = self._api.make(order, self._wall_s(), Result())
        try:
            if what.capture:
                which = max(order.reserved, default=0)
                order.ship(which, [_reserved(order, which, each) for each in what.capture], make)
            if what.reserve:
                self._api.reserve(order, [_item(each) for each in what.reserve], self._wall_s())
            if what.cancel:
                order.cancel(make)
        except Refusal as refusal:
            raise UsageError(f"Qliro refuses it: {refusal}") from None
        newest = order.transactions[max(order.transactions)]
        self._advance(max(self._wall_s(), newest.at))  # of one moment each is a little later than the one before
        self.told()

    def end(self, reference: str, ends: Iterable[EndValue]) -> None:
        self._order(reference)
        self._ends[reference] = deque(
            Result(parse_duration(each.after), each.status, each.code, each.words) for each in ends
        )

    def shown(self, reference: str) -> dict[str, Any]:
        self._api.advance(self._wall_s())
        order = self._order(reference)
        captured, reserved = Counter[str](), Counter[str]()
        for capture in order.captures.values():
            for key, item in capture.items.items():
                captured[item.reference] += capture.remaining(key)
        for held in order.reserved.values():
            for item in held.values():
                reserved[item.reference] += item.quantity
        return {
            "captured": dict(+captured),
            "captured_minor": order.captured_minor,
            "reserved": dict(+reserved),
            "reserved_minor": order.left_minor,
            "pending": len(order.pending),
            "cancelled": order.is_cancelled,
        }

    def _order(self, reference: str) -> Order:
        found = self._api.named(reference)
        if found is None:
            raise UsageError(f"no checkout as {reference}")
        return found


class AtaraPayModel(ProviderModel):
    """One amount in escrow, and the accepted statuses."""

    currency = "NGN"

    def __init__(self, account: AtaraPayAccount, wall_s: Callable[[], float]) -> None:
        super().__init__(account, wall_s)
        self._side = escrow.Sandbox(account.public_key, account.private_key)

    @staticmethod
    def checkout_problem(value: Checkout) -> str | None:
        if value.items or value.method is not None:
            return "expected amount_minor, without items and method, at AtaraPay"
        return None if value.amount_minor is not None else "expected amount_minor at AtaraPay"

    def _is_ours(self, request: HttpRequest) -> bool:
        return request.method == "POST"

    def order_of(self, request: HttpRequest) -> str | None:
        form = dict(parse_qsl(request.body.decode("utf-8", "replace"), keep_blank_values=True))
        found = self._side.escrows.get(form.get("order", ""))
        return None if found is None else found.product_id

    def answer(self, request: HttpRequest) -> HttpResponse:
        answer = self._side.call(request.body)
        self._notify()
        return answer

    def checkout(self, reference: str, value: Checkout) -> None:
        assert value.amount_minor is not None, "it was checked when it was read"
        number = str(value.order)
        if number in self._side.escrows or any(each.product_id == reference for each in self._side.escrows.values()):
            raise UsageError(f"order {number}, or {reference}, was placed before")
        made = self._side.open(number, reference, value.amount_minor)
        made.currency = value.currency or self.currency

    def act(self, reference: str, what: Act | QliroAct) -> None:
        number = self._escrow(reference).number
        if isinstance(what, QliroAct):
            raise UsageError(f"expected one of {', '.join(Act)} at AtaraPay")
        if not self._side.act(number, what):
            raise UsageError(f"{what} cannot be done now: the order is {self._side.escrows[number].state}")
        self._notify()

    def end(self, reference: str, ends: Iterable[EndValue]) -> None:  # noqa: ARG002 - of no order
        raise UsageError("AtaraPay applies every command at once")

    def shown(self, reference: str) -> dict[str, Any]:
        found = self._escrow(reference)
        return {"state": str(found.state), "words": list(found.words)}

    def _notify(self) -> None:
        untold, self._side.untold = self._side.untold, []
        for each in untold:
            reference = str(each.data["product_id"])
            self._pushes.append(Pushed(reference, "notification", True, _encoder.encode(each)))
        self.told()

    def _escrow(self, reference: str) -> escrow.Escrow:
        found = next((each for each in self._side.escrows.values() if each.product_id == reference), None)
        if found is None:
            raise UsageError(f"no checkout as {reference}")
        return found


MODELS: Mapping[str, type[ProviderModel] | None] = {
    "atarapay": AtaraPayModel,
    "qliro": QliroModel,
    "sequra": None,
}
"""By provider; `None`: it has what it was sent, and its responses are scripted (`sim.scripted`)."""


def model_of(account: Account, wall_s: Callable[[], float]) -> ProviderModel:
    """The provider's side of an account. Raises `UsageError` for a provider that has none."""
    model = MODELS[account.provider]
    if model is None:
        raise UsageError(f"account {account.name}: {account.provider} needs no checkout: it has what it was sent")
    return model(account, wall_s)


def checkout_problem(provider: str, value: Checkout) -> str | None:
    """What is wrong with a checkout at this provider; `None`: nothing."""
    model = MODELS[provider]
    return f"there is none at {provider}" if model is None else model.checkout_problem(value)


def _members(body: bytes) -> Mapping[str, Any]:
    try:
        found = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _item(line: CheckoutItem) -> Item:
    ex = without_tax(line.unit_price_minor, line.vat_rate_bp)
    return Item(line.reference, line.type, line.unit_price_minor, ex, line.quantity, line.description)


def _reserved(order: Order, which: int, line: CheckoutItem) -> Item:
    found = order.reserved.get(which, {}).get((line.reference, line.unit_price_minor))
    if found is None:
        raise UsageError(f"there is no {line.reference} at {line.unit_price_minor} in the newest reservation")
    return found.of(line.quantity)
