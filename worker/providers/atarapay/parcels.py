"""Which of the kept units have been delivered."""

from collections import deque
from collections.abc import Iterable

from msgspec import Struct

from schemas.events import GOODS
from schemas.facts import Facts, Line, Return, Shipment, Stamp, is_nil, unpack_trackings


class Arrival(Struct, frozen=True, gc=False):
    """The delivery state of all kept units."""

    is_complete: bool
    """Every shipment that still has kept units was delivered."""
    newest: Stamp | None
    """The stamp of the fact that reported the newest delivery of kept units."""


class _Line:
    """One line's shipped units, oldest shipment first: in transit, and delivered."""

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
        """Removes this many units, undelivered ones first; returns the number that could not be removed."""
        for shipments in (self.under_way, self.arrived):
            while count and shipments:
                units, stamp = shipments.popleft()
                if units > count:
                    shipments.appendleft((units - count, stamp))
                    return 0
                count -= units
        return count


def arrival_of(facts: Facts, lines: Iterable[Line]) -> Arrival:
    """The arrival of an order whose units are all kept or still to ship: so every return that was not from `unshipped`
    returned shipped units, and returned units were sent again.
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
                continue  # not in the newest cart: none of its units is kept
            if isinstance(fact, Shipment):
                line.ship(count, stamp, delivered)
            else:
                line.not_found += line.bring_back(count)
    for line in known.values():
        line.bring_back(line.not_found)  # by their stamps, these came back before they were shipped
    arrived = [stamp for line in known.values() for _, stamp in line.arrived]
    return Arrival(not any(line.under_way for line in known.values()), max(arrived, default=None))


def _delivered(facts: Facts, shipment_id: str, shipment: Shipment) -> Stamp | None:
    """The stamp of the fact that reports the shipment as delivered."""
    delivery = facts.deliveries.get(shipment_id)
    if delivery is not None:
        return delivery[0]
    trackings = [] if is_nil(shipment.tracking) else unpack_trackings(shipment.tracking)
    return shipment.stamp if trackings and all(each.delivered_at for each in trackings) else None
