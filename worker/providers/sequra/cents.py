"""The difference of two carts, item by item and to the cent, and whether a delivery can express it. Pure.

Items are identified by type and reference, as at seQura. Differences are sent with the item's own price: a line's
total need not be price times quantity (docs, Delivery Report, 2026-10).
"""

from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from schemas.events import GOODS, NEGATIVE
from worker.model.order import Cart, Item
from worker.providers.sequra import wire

_Key = tuple[str, str]


class Amounts(Struct, array_like=True, frozen=True, gc=False):
    """Quantity and total of one item in a cart."""

    type: str
    reference: str
    quantity: int
    total_minor: int

    @property
    def key(self) -> _Key:
        """The item's identity."""
        return self.type, self.reference


def _key(item: Item) -> _Key:
    return item.type, "" if item.type in wire.BARE else item.reference or item.name or ""


def amounts_of(items: Iterable[Item]) -> list[Amounts]:
    """Each item once, sorted; without items that add up to nothing."""
    sums: dict[_Key, tuple[int, int]] = {}
    for item in items:
        key = _key(item)
        quantity, total_minor = sums.get(key, (0, 0))
        sums[key] = quantity + item.quantity, total_minor + item.total_minor
    return [Amounts(*key, *both) for key, both in sorted(sums.items()) if both != (0, 0)]


def difference(more: Iterable[Amounts], amounts: Iterable[Amounts]) -> list[Amounts]:
    """The first minus the second; may be negative."""
    sums = {each.key: (each.quantity, each.total_minor) for each in more}
    for each in amounts:
        quantity, total_minor = sums.get(each.key, (0, 0))
        sums[each.key] = quantity - each.quantity, total_minor - each.total_minor
    return [Amounts(*key, *both) for key, both in sums.items() if both != (0, 0)]


def why_not(amounts: list[Amounts]) -> str:
    """Why these amounts cannot be a delivery; empty: they can."""
    for each in amounts:
        name, total_minor = each.reference or each.type, each.total_minor
        if each.quantity < 0:
            return f"{-each.quantity} × {name} less"
        if each.type in GOODS and not each.quantity:
            return f"{name} {total_minor:+} without a unit"
        if (total_minor >= 0) if each.type in NEGATIVE else (total_minor < 0):
            return f"{each.type} {name} {total_minor:+}"
    total_minor = sum([each.total_minor for each in amounts])
    return f"{total_minor} in all" if total_minor < 0 else ""


def less(items: list[Item], amounts: Iterable[Amounts]) -> Cart:
    """The cart minus these amounts. Items that these do not name are unchanged."""
    off = {each.key for each in amounts}
    left = {each.key: each for each in difference(amounts_of(items), amounts)}
    found: list[Item] = []
    for item in items:
        key = _key(item)
        if key not in off:
            found.append(item)
        elif (there := left.pop(key, None)) is not None:
            found.append(replace(item, quantity=there.quantity, total_minor=there.total_minor))
    return Cart(found, sum([item.total_minor for item in found]))
