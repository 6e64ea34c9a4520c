"""What a shop itself knows of its orders, in plain counts: apart from the worker's facts and its arithmetic.

What a provider must hold in the end follows from the counts alone (`ShopOrder.told`).
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

Item = tuple[str, str, int, int]
"""(type, reference, quantity, total in minor units)."""


@dataclass(frozen=True)
class ExpectedUpdate:
    """All that an update says, as far as the simulation compares it."""

    shipped: tuple[Item, ...]
    unshipped: tuple[Item, ...]
    city: str


@dataclass
class Line:
    """One goods line in counts; its total is the unit price times what was ordered."""

    unit_minor: int
    ordered: int
    shipped: int = 0
    returned: int = 0
    cancelled: int = 0

    @property
    def pending(self) -> int:
        """Neither sent nor cancelled."""
        return self.ordered - self.cancelled - self.shipped

    @property
    def kept(self) -> int:
        """What the shopper has."""
        return self.shipped - self.returned


def nearest(total: int, part: int, whole: int) -> int:
    """`total * part / whole`, halves away from zero."""
    sign = -1 if total < 0 else 1
    return sign * ((2 * abs(total) * part + whole) // (2 * whole))


@dataclass
class ShopOrder:
    """An order as the shop knows it."""

    subject: str
    lines: dict[str, Line]
    handling_minor: int
    discount_minor: int
    city: str
    refunds: list[tuple[str, int]] = field(default_factory=list)
    is_cancelled: bool = False
    is_on_hold: bool = False
    shipments: dict[str, dict[str, int]] = field(default_factory=dict)
    events: list[tuple[float, str, dict[str, Any]]] = field(default_factory=list)
    """(seconds, type, data), as they happened."""
    provider_order: str = ""
    """What its provider calls it, as far as the shop will tell."""
    is_named_late: bool = False
    """Whether the shop tells that at the very end."""
    currency: str = "EUR"
    vat_rate_bp: int | None = None
    phone: str = ""
    cancelled_by: str = ""
    may_shopper_cancel: bool = False
    fees: list[int] = field(default_factory=list)
    """Kept back from returns, in minor units."""
    delivered: set[str] = field(default_factory=set)
    """Shipments that have arrived."""
    delivered_anew: int = 0
    """Deliveries that were told beyond one for each shipment."""
    ever_shipped: Counter[str] = field(default_factory=Counter)
    """Units that were ever told to have left, also by mistake."""

    def means(self) -> str:
        """The one word that there is for it where money lies in escrow; empty: none, or none yet."""
        lines = self.lines.values()
        kept, pending = sum(line.kept for line in lines), sum(line.pending for line in lines)
        if self.is_cancelled or not (kept or pending):
            if kept or total_of(list(self.told().shipped)):
                return ""
            is_told = self.is_cancelled or any(line.cancelled for line in lines)
            by_shopper = self.is_cancelled and self.cancelled_by == "shopper"
            return "" if not is_told else "buyer_cancel" if by_shopper else "cancelled"
        if self.refunds or pending or kept != sum(line.ordered for line in lines):
            return ""
        sent = {name for name, units in self.shipments.items() if units and "" not in units}
        return "delivered" if sent <= self.delivered else ""

    def told(self) -> ExpectedUpdate:
        """What the provider must hold."""
        goods = self.lines.items()
        pending = {name: 0 if self.is_cancelled else line.pending for name, line in goods}
        shipped: list[Item] = [("product", n, line.kept, line.kept * line.unit_minor) for n, line in goods if line.kept]
        unshipped: list[Item] = [
            ("product", n, pending[n], pending[n] * line.unit_minor) for n, line in goods if pending[n]
        ]
        kept_minor, pending_minor = total_of(shipped), total_of(unshipped)
        ever_minor = sum(line.shipped * line.unit_minor for line in self.lines.values())
        ordered_minor = sum(line.ordered * line.unit_minor for line in self.lines.values())
        if self.handling_minor and ever_minor + pending_minor:
            here = nearest(self.handling_minor, ever_minor, ever_minor + pending_minor)
            _add(shipped, unshipped, "handling", "ship-std", here, self.handling_minor - here)
        if self.discount_minor:
            here = nearest(-self.discount_minor, kept_minor, ordered_minor)
            both = nearest(-self.discount_minor, kept_minor + pending_minor, ordered_minor)
            _add(shipped, unshipped, "discount", "coupon", here, both - here)
        self._refund(shipped, unshipped)
        return ExpectedUpdate(tuple(sorted(shipped)), tuple(sorted(unshipped)), self.city)

    def _refund(self, shipped: list[Item], unshipped: list[Item]) -> None:
        refunded: set[str] = set()
        for name, amount in self.refunds:
            left = amount
            for cart, kind in ((shipped, "other_payment"), (unshipped, "discount")):
                off = min(left, total_of(cart))
                if off > 0:
                    cart.append((kind, name, 0, -off))
                    left -= off
                    refunded.add(kind)
        for cart, kind in ((shipped, "other_payment"), (unshipped, "discount")):
            if kind in refunded and total_of(cart) == 0:
                cart.clear()


def total_of(items: list[Item]) -> int:
    """The sum of the items, in minor units."""
    return sum(item[3] for item in items)


def _add(shipped: list[Item], unshipped: list[Item], kind: str, name: str, here: int, there: int) -> None:
    if here:
        shipped.append((kind, name, 0, here))
    if there:
        unshipped.append((kind, name, 0, there))
