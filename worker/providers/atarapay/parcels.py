"""Which of the units that the shopper keeps have reached them."""

from collections import deque
from collections.abc import Iterable

from msgspec import Struct

from schemas.events import GOODS
from schemas.facts import Facts, Line, Return, Shipment, Stamp, is_nil, unpack_trackings


class Arrival(Struct, frozen=True, gc=False):
    """What is known of the way of everything that is kept."""

    is_complete: bool
    """Every shipment that still holds kept units was delivered."""
    newest: Stamp | None
    """Of the fact that told the newest delivery of kept units."""


class _Line:
    """One line's shipped units, the oldest shipment first: on their way, and delivered."""

    def __init__(self, *, is_downloadable: bool) -> None:
        self.is_downloadable = is_downloadable
        self.under_way: deque[tuple[int, Stamp]] = deque()
        self.arrived: deque[tuple[int, Stamp]] = deque()
        self.not_found = 0

    def ship(self, count: int, stamp: Stamp, delivered: Stamp | None) -> None:
        if delivered is None and self.is_downloadable:
            delivered = stamp
        if delivered is None:
            self.under_way.append((count, stamp))
        else:
            self.arrived.append((count, delivered))

    def bring_back(self, count: int) -> int:
        """Takes so many units off, those that never arrived first; returns what is left of them."""
        for shipments in (self.under_way, self.arrived):
            while count and shipments:
                units, stamp = shipments.popleft()
                if units > count:
                    shipments.appendleft((units - count, stamp))
                    return 0
                count -= units
        return count


def arrival_of(facts: Facts, lines: Iterable[Line]) -> Arrival:
    """Of an order whose units are all kept or still to ship: so every return that was not from `unshipped` brought
    back what had been shipped, and what came back was sent again.
    """
    known = {line.line_id: _Line(is_downloadable=line.downloadable) for line in lines if line.type in GOODS}
    reported: list[tuple[Stamp, str, Shipment | Return]] = []
    reported += [(fact.stamp, key, fact) for key, fact in facts.shipments.items() if fact.units]
    reported += [
        (fact.stamp, key, fact) for key, fact in facts.returns.items() if fact.units and fact.origin != "unshipped"
    ]
    for stamp, key, fact in sorted(reported, key=lambda each: each[0]):
        delivered = _delivered(facts, key, fact) if isinstance(fact, Shipment) else None
        for line_id, count in fact.units or ():
            line = known.get(line_id)
            if line is None:
                continue  # not in the newest cart: nothing of it is kept
            if isinstance(fact, Shipment):
                line.ship(count, stamp, delivered)
            else:
                line.not_found += line.bring_back(count)
    for line in known.values():
        line.bring_back(line.not_found)  # by its stamp, it came back before it was shipped
    arrived = [stamp for line in known.values() for _, stamp in line.arrived]
    return Arrival(not any(line.under_way for line in known.values()), max(arrived, default=None))


def _delivered(facts: Facts, shipment_id: str, shipment: Shipment) -> Stamp | None:
    """The stamp of the fact by which it is known that the shipment was delivered."""
    delivery = facts.deliveries.get(shipment_id)
    if delivery is not None:
        return delivery[0]
    trackings = [] if is_nil(shipment.tracking) else unpack_trackings(shipment.tracking)
    return shipment.stamp if trackings and all(each.delivered_at for each in trackings) else None
