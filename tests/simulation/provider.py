"""What providers hold: they take any update at any time, so an old one after a newer one is the thing to prevent."""

import asyncio
from dataclasses import dataclass, field

import msgspec

from tests.simulation.shop import Item, Told
from tests.simulation.trace import Trace


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


def told_by(body: bytes) -> Told:
    """What an update says. Raises when a cart is not the sum of its items."""
    order = _decoder.decode(body).order
    return Told(_items(order.shipped_cart), _items(order.unshipped_cart), order.delivery_address.city)


def _items(cart: _Cart) -> tuple[Item, ...]:
    if sum(item.total_with_tax for item in cart.items) != cart.order_total_with_tax:
        raise ValueError("a cart is not the sum of its items")
    return tuple(sorted((item.type, item.reference, item.quantity, item.total_with_tax) for item in cart.items))


@dataclass(eq=False)
class Request:
    """One attempt, once it has gone out."""

    subject: str
    revision: int
    body: bytes
    process: str
    sent_at: float
    may_land_until: float
    """Afterwards nothing of it is under way any more."""
    landing: asyncio.TimerHandle | None = None

    def __str__(self) -> str:
        return f"{self.subject}:{self.revision} of {self.process}"


@dataclass
class Provider:
    """What providers hold. It takes any update at any time, as seQura does."""

    trace: Trace
    held: dict[str, Told] = field(default_factory=dict)
    newest: dict[str, int] = field(default_factory=dict)
    """By subject: the newest revision that was ever applied."""
    applied: dict[str, set[int]] = field(default_factory=dict)
    bodies: dict[str, bytes] = field(default_factory=dict)

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
