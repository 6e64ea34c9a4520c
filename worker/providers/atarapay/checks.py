"""States that AtaraPay's API cannot express: the amount in escrow is paid out or refunded as a whole."""

from typing import Literal

from msgspec import Struct

from schemas.events import GOODS
from schemas.facts import unpack_lines
from worker.model.order import Cart, Order

Kind = Literal["stated", "kept", "charged", "refunded", "units", "amount"]


class Lack(Struct, array_like=True, frozen=True, gc=False):
    """A state that cannot be expressed, and the two numbers that show it."""

    kind: Kind
    now: int = 0
    was: int = 0


_WHY: dict[Kind, str] = {
    "stated": "both carts were stated: AtaraPay cannot express that",
    "kept": "cancelled, while {now} of {was} units are kept: AtaraPay can only cancel the whole order",
    "charged": "cancelled, but {now} stay charged: AtaraPay can only refund the whole amount",
    "refunded": "{now} refunded of {was}: AtaraPay cannot express a partial refund",
    "units": (
        "{now} of {was} units are kept or still to ship: AtaraPay cannot express a partial return or cancellation "
        "(once nothing is kept, order.cancelled can be sent)"
    ),
    "amount": "carts {now}, confirmed {was}: AtaraPay has the confirmed amount in escrow, and cannot change it",
}


def why(lack: Lack) -> str:
    """The reason, for operators; amounts are in minor units."""
    return _WHY[lack.kind].format(now=lack.now, was=lack.was)


def units_of(cart: Cart) -> int:
    """Units of all goods in a cart."""
    return sum([item.quantity for item in cart.items])


def ordered_units(order: Order) -> int:
    """Units of all goods in the newest content."""
    content = order.facts.content
    lines = [] if content is None else unpack_lines(content.lines)
    return sum([line.quantity for line in lines if line.type in GOODS])


def lack_of_cancelled(order: Order) -> Lack | None:
    """Why the order cannot be sent as cancelled; `None`: it can."""
    kept = units_of(order.shipped)
    if kept:
        return Lack("kept", kept, ordered_units(order))
    charged = order.shipped.total_minor
    return Lack("charged", charged) if charged else None


def lack_of(order: Order) -> Lack | None:
    """Why the escrow can neither stay as it is nor be sent as delivered; `None`: it can."""
    if order.facts.statements:
        return Lack("stated")
    refunded = sum([refund.amount_minor for refund in order.facts.refunds.values()])
    if refunded:
        return Lack("refunded", refunded, order.confirmed_total_minor)
    units, ordered = units_of(order.shipped) + units_of(order.unshipped), ordered_units(order)
    if units != ordered:
        return Lack("units", units, ordered)
    total = order.shipped.total_minor + order.unshipped.total_minor
    return None if total == order.confirmed_total_minor else Lack("amount", total, order.confirmed_total_minor)
