"""The next command for Qliro: the difference between the desired and the actual state. Pure.

Commands in the order return, update, ship, add, cancel; one at a time. A change that Qliro's API cannot express blocks
only itself: the others go first, so a `Plan` has a command, or reasons why changes cannot be sent, or nothing.
"""

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct, field

from worker.providers.qliro import money, reserving, returning
from worker.providers.qliro.command import Command, Line, of
from worker.providers.qliro.memory import Memory, Note
from worker.providers.qliro.order import QliroOrder, Reservation, Units, above_zero, worth
from worker.providers.qliro.situation import Situation, listed
from worker.providers.qliro.wanted import Wanted


class Plan(Struct):
    """The result of comparing both states."""

    command: Command | None = None
    cannot: list[str] = field(default_factory=list)


def plan(wanted: Wanted, there: QliroOrder, memory: Memory, indivisible: Literal["first", "last"]) -> Plan:
    """The next command, or the reasons why no more can be sent."""
    at = Situation(wanted, there, memory)
    found = Plan()
    if wanted.vouchers_minor:
        found.cannot.append(f"a voucher of {wanted.vouchers_minor}: Qliro has no such line")
    found.cannot += [
        f"{count} × {line.reference} captured at {price}, the cart has it at {line.unit_minor}"
        for line, count, price in at.match.odd
    ]
    for step in (
        returning.give_back,
        reserving.update,
        lambda it: _ship(it, indivisible),
        _add,
        reserving.cancel,
    ):
        said = step(at)
        if isinstance(said, Command):
            return Plan(said)
        found.cannot += said
    return found


def _ship(at: Situation, indivisible: Literal["first", "last"]) -> Command | list[str]:
    """`MarkItemsAsShipped` for one reservation, with the charges and adjustments that go with it."""
    leaves = at.match.leaves
    is_over = at.has_captures and not at.stays
    cannot: list[str] = []
    for reservation in at.there.reservations:
        units = leaves & reservation.items
        if not units and not is_over:
            continue
        is_last = not at.match.stay and not at.match.missing and units == leaves
        if is_last or indivisible == "first":
            units = _with_once(at, reservation, units)
        total = worth(units)
        reserved = worth(reservation.items)
        if total > max(0, reserved):  # a discount that no capture included yet was authorized as well
            cannot.append(f"a capture of {listed(units)} would be {total}, more than the {reserved} reserved")
            continue
        if total > 0:
            return Command("MarkItemsAsShipped", reservation.id, of(units))
        if not is_over and not worth(at.match.stay):
            return [f"a capture of {listed(units)} would be {total}: Qliro accepts only amounts above 0"]
    return cannot


def _with_once(at: Situation, reservation: Reservation, units: Units) -> Units:
    """With the lines that are captured once, as long as the total stays above 0; charges even if no goods are left."""
    once = Units()
    for key, count in reservation.items.items():
        if key[1] != "Product" and at.is_wanted(key):
            of = at.once_of(key)
            if at.stays or of is None or of.sent_minor:
                once[key] = count
    return above_zero(units, once)


def _add(at: Situation) -> Command | list[str]:
    """`AddItemsToInvoice`: subtracts an amount from a capture, or adds one."""
    cannot: list[str] = []
    if not at.has_captures:
        if not at.stays:
            cannot = [
                f"a charge of {-one.minor} ({one.reference}): nothing was captured" for one in at.dues if one.minor < 0
            ]
        return cannot
    for due in [*at.dues, *_left_out(at)]:
        rest = at.rest(due)
        if rest * due.minor < 0:
            cannot.append(f"{due.reference}: {due.minor - rest} were sent to Qliro, {due.minor} are due")
        elif rest > 0:
            funds = [one for one in at.there.captures if one.left_minor > 0]
            capture = next((one for one in reversed(funds) if one.left_minor >= rest), funds[-1] if funds else None)
            if capture is not None:
                return _addition(at, capture.id, due, min(rest, capture.left_minor))
        elif rest < 0 and at.there.is_own:
            return _addition(at, at.there.captures[-1].id, due, rest)
        elif rest < 0:
            cannot.append(f"a charge of {-rest} ({due.reference}): only Qliro's own methods can grow after a capture")
    return cannot


def _addition(at: Situation, capture: int, due: money.Due, minor: int) -> Command:
    key = (due.reference, due.type, -minor)
    ex_minor = money.ex_of(key, None, at.there)
    line = Line(key, 1, money.without_tax(-minor, 0) if ex_minor is None else ex_minor, due.text)
    return Command("AddItemsToInvoice", capture, [line], notes=[Note(0, "amount", due.reference, minor)])


def _left_out(at: Situation) -> Iterable[money.Due]:
    """Adjustments that no capture could include, once there will be no more captures: their shares in our carts.

    A share that was sent is not withdrawn when goods come back, just as if a capture had included it.
    """
    if at.stays or not at.match.kept:
        return
    for once in at.wanted.once:
        if once.type == "Discount" and not at.went_back(once) and once.reference:
            sent = at.books.sent(once.reference, with_left=False)
            minor = min(max(-once.sent_minor, sent), -once.total_minor)
            yield money.Due(once.reference, once.name, minor)
