"""What seQura holds: it takes any update at any time, so an old one after a newer one is the thing to prevent."""

from dataclasses import dataclass, field
from urllib.parse import unquote

import msgspec

from schemas.facts import Facts
from schemas.state import OrderRecord
from tests.shops.counts import ExpectedUpdate, Item, ShopOrder
from tests.simulation.sides import About, Request
from tests.simulation.trace import Trace
from worker.model.exchange import Fault, HttpRequest, HttpResponse


class _Item(msgspec.Struct):
    type: str
    reference: str
    total_with_tax: int
    quantity: int = 0


class _Cart(msgspec.Struct):
    items: list[_Item]
    order_total_with_tax: int


class _Address(msgspec.Struct):
    city: str


class _Update(msgspec.Struct):
    shipped_cart: _Cart
    unshipped_cart: _Cart
    delivery_address: _Address


class _Body(msgspec.Struct):
    order: _Update


_decoder = msgspec.json.Decoder(_Body)


def told_by(body: bytes) -> ExpectedUpdate:
    """What an update says. Raises when a cart is not the sum of its items."""
    order = _decoder.decode(body).order
    return ExpectedUpdate(_items(order.shipped_cart), _items(order.unshipped_cart), order.delivery_address.city)


def _items(cart: _Cart) -> tuple[Item, ...]:
    if sum(item.total_with_tax for item in cart.items) != cart.order_total_with_tax:
        raise ValueError("a cart is not the sum of its items")
    return tuple(sorted((item.type, item.reference, item.quantity, item.total_with_tax) for item in cart.items))


@dataclass
class Provider:
    """`sides.Side` of all seQura accounts. It takes any update at any time."""

    trace: Trace
    held: dict[str, ExpectedUpdate] = field(default_factory=dict)
    newest: dict[str, int] = field(default_factory=dict)
    """By subject: the newest revision that was ever applied."""
    applied: dict[str, set[int]] = field(default_factory=dict)
    bodies: dict[str, bytes] = field(default_factory=dict)

    def about(self, request: HttpRequest) -> About:
        """Its idempotency key names subject and revision; a generation may stand behind them."""
        subject, revision, *_ = request.headers["Idempotency-Key"].split(":")
        return About(unquote(subject), int(revision))

    def sent(self, request: Request) -> None:
        """It goes to its own address."""
        if not request.call.url.endswith(f"/{request.subject.replace('/', '/orders/', 1)}"):
            self.trace.violate(f"{request} went to the URL of another order")

    def take(self, request: Request) -> None:
        """Applies an update."""
        subject, revision = request.subject, request.revision
        self.trace.add("applied", subject, revision, request.process)
        if revision < self.newest.get(subject, 0):
            self.trace.violate(f"the older {request} was applied after revision {self.newest[subject]}")
        self.newest[subject] = revision
        self.applied.setdefault(subject, set()).add(revision)
        self.held[subject] = told_by(request.body)
        self.bodies[subject] = request.body

    def refuse(self, request: Request) -> None:
        """Remembers nothing of it."""

    def answered(self, request: Request, answer: HttpResponse | Fault) -> None:
        """What an update may say depends on no answer."""

    def heard(self, subject: str, revision: int) -> None:
        """Nobody looks there."""

    def acknowledged(self, record: OrderRecord, subject: str, facts: Facts) -> None:
        """The auditor compares revisions."""

    def check_end(self, first: ShopOrder, shop: ShopOrder, status: str) -> None:
        """What it holds is what the shop says, to the cent."""
        known, expected = self.held.get(first.subject, first.told()), shop.told()
        if known != expected or status != "settled":
            self.trace.violate(f"{first.subject} ends {status} as {known}, the shop says {expected}")

    def is_quiet(self) -> bool:
        """Whatever happens there happens at once."""
        return True
