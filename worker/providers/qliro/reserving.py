"""`UpdateItems` and `cancelOrder`: changes of reservations. Pure."""

import msgspec

from worker.providers.qliro import money, wire
from worker.providers.qliro.command import Command, Line
from worker.providers.qliro.order import Key, Reservation, Units, above_zero, worth
from worker.providers.qliro.situation import Situation, listed

CANCEL = Command("cancelOrder")


def update(at: Situation) -> Command | list[str]:
    """Changes the reservation to the remaining lines, or returns why that is impossible."""
    if not at.stays or costs_nothing(at):
        return []
    left = at.left
    new = at.new_lines()
    if isinstance(new, str):
        return [new]
    if not left:
        why = f"{listed(_units(new))} neither captured nor reserved at Qliro, where nothing is reserved any more"
        return [why] if new else []
    wanted = _as_reserved(at) + _units(new)
    extra = _new_once(at)
    if wanted == left and not extra:
        return []
    if at.changed_there:
        return [at.both_sides(wanted + _units(extra))]
    is_fixed = at.has_captures and not at.there.is_own
    if is_fixed and new:
        return [f"{listed(_units(new))} beyond what is reserved: only Qliro's own methods can grow after a capture"]
    if is_fixed:
        return []  # a decrease waits for the end
    return _restated(at, new, extra)


def costs_nothing(at: Situation) -> bool:
    """Whether nothing is reserved, and nothing should be, though units are still to be sent: they are free, or were
    refunded before. Qliro has no reservation of a total that is not above 0, so the last one was cancelled.
    """
    if at.left:
        return False
    total = at.missing_minor + worth(_units(_new_once(at)))
    return total == 0 or (total < 0 and not at.has_captures)  # what is below 0 would have to come off a capture


def _units(lines: list[Line]) -> Units:
    units = Units()
    for line in lines:
        units[line.key] += line.count
    return units


def _as_reserved(at: Situation) -> Units:
    """Reserved units that are to stay reserved."""
    left = at.left
    return (
        at.match.leaves
        + at.match.stay
        + Units(
            {key: n for key, n in left.items() if key[1] != "Product" and at.is_wanted(key) and _is_as_told(at, key)}
        )
    )


def _is_as_told(at: Situation, key: Key) -> bool:
    """Whether the price of an item matches the order; for a share, any amount that it may have had in between."""
    once = at.once_of(key)
    if once is None or at.is_twice(once) or key[2] == once.total_minor or key[2] == once.sent_minor:
        return True
    return once.type == "Discount" and not once.is_changed and once.total_minor < key[2] < once.sent_minor


def _new_once(at: Situation, *, is_whole: bool = False) -> list[Line]:
    """Charges, adjustments and amounts that Qliro lacks, as lines of a reservation. `is_whole`: adjustments not with
    their shares in our carts.
    """
    there = {(one.reference, one.type) for key in at.left if (one := at.once_of(key)) and _is_as_told(at, key)}
    lines = []
    for once in at.wanted.once:
        is_there = (once.reference, once.type) in there
        minor = once.total_minor if is_whole and once.type == "Discount" else once.sent_minor
        if not is_there and not at.goes_back(once) and not at.went_back(once) and minor:
            key = (once.reference or once.type, once.type, minor)
            lines.append(_line(at, key, once.vat_rate_bp, once.name))
    for due in at.dues if not at.has_captures else ():
        rest = at.rest(due)
        if rest * due.minor > 0:
            lines.append(_line(at, (due.reference, due.type, -rest), None, due.text))
    return lines


def _line(at: Situation, key: Key, rate_bp: int | None, text: str) -> Line:
    ex_minor = money.ex_of(key, rate_bp, at.there)
    return Line(key, 1, money.without_tax(key[2], 0) if ex_minor is None else ex_minor, text)


def _restated(at: Situation, new: list[Line], extra: list[Line]) -> Command | list[str]:
    """All remaining lines; adjustments with the totals of our carts, or whole where that comes to more than may be."""
    left = at.left
    rest = new + [_copied(at, key, count) for key, count in _as_reserved(at).items()]
    lines = _with_shares(at, rest + extra)
    wanted = _units(lines)
    total = worth(wanted)
    if total <= 0:
        return CANCEL
    if total > worth(left) and not at.there.is_own:
        lines = rest + _new_once(at, is_whole=True)
        wanted = _units(lines)
        if not _is_enough(at, wanted):
            return [f"reserved {worth(left)}, the order comes to {total}: only Qliro's own methods can grow"]
    if len(wanted) > wire.LINES_MAX:
        return [f"{len(wanted)} lines: Qliro accepts at most {wire.LINES_MAX}"]
    return _of_one(at.there.reservations, _merged(lines))


def _is_enough(at: Situation, wanted: Units) -> bool:
    """Whether a reservation that must not grow may become this, and what is to be captured now is no more than it."""
    once = Units({key: count for key, count in wanted.items() if key[1] != "Product"})
    return 0 < worth(wanted) <= worth(at.left) and worth(above_zero(at.match.leaves, once)) <= worth(wanted)


def _copied(at: Situation, key: Key, count: int) -> Line:
    known = at.there.known.get(key)
    if known is None:  # Qliro has not sent its price without tax
        return msgspec.structs.replace(_line(at, key, None, key[0]), count=count)
    return Line(key, count, known.ex_minor, known.description)


def _with_shares(at: Situation, lines: list[Line]) -> list[Line]:
    made = []
    for line in lines:
        once = at.once_of(line.key) if line.key[1] == "Discount" else None
        if once is None or at.is_twice(once) or line.key[2] == once.sent_minor:
            made.append(line)
        elif once.sent_minor:
            made.append(_line(at, (*line.key[:2], once.sent_minor), once.vat_rate_bp, once.name))
    return made


def _merged(lines: list[Line]) -> list[Line]:
    """Each item once."""
    units = _units(lines)
    first: dict[Key, Line] = {}
    for line in lines:
        first.setdefault(line.key, line)
    return [Line(key, count, first[key].ex_minor, first[key].description) for key, count in sorted(units.items())]


def _of_one(reservations: list[Reservation], lines: list[Line]) -> Command | list[str]:
    """The update of the newest reservation that has to change; the others keep their shares of the items."""
    by_key = {line.key: line for line in lines}
    free = _units(lines)
    shares: dict[int, Units] = {}
    for reservation in reservations:
        shares[reservation.id] = free & reservation.items
        free -= shares[reservation.id]
    newest = reservations[-1]
    shares[newest.id] += free
    for reservation in reversed(reservations):
        share = shares[reservation.id]
        if share and share != reservation.items:
            sent = [
                Line(key, count, by_key[key].ex_minor, by_key[key].description) for key, count in sorted(share.items())
            ]
            return Command("UpdateItems", reservation.id, sent)
    return ["one of several reservations would have to end: Qliro can only end all of them"]


def cancel(at: Situation) -> Command | list[str]:
    """Cancels all reservations if none of them will be captured."""
    if at.stays or not at.left:
        return []
    if at.changed_there:
        return [at.both_sides(Units())]
    return CANCEL
