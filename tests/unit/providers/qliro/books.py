"""What Qliro holds of an order, and what its facts come to, in units and amounts by reference."""

from collections import Counter

from schemas.facts import Facts, unpack_lines
from worker.core.shares import count_units, share_content, tally
from worker.providers.qliro.wanted import type_of
from worker.sandbox.qliro.orders import Order


def amounts_there(order: Order) -> Counter[str]:
    """What was taken back by amount: off captures, and by lines of what is reserved and captured."""
    found: Counter[str] = Counter()
    for action, made, line in order.actions:
        transaction = order.transactions[made]
        if action == "Ship" and transaction.type != "Capture" and transaction.status == "Success":
            found[line.reference] -= line.inc
    for capture in order.captures.values():
        for key, line in capture.items.items():
            found[line.reference] -= line.inc * capture.remaining(key) * (line.type == "Discount")
    for held in order.reserved.values():
        for line in held.values():
            found[line.reference] -= line.inc * line.quantity * (line.type == "Discount")
    return found


def units_wanted(facts: Facts) -> tuple[Counter[str], Counter[str]]:
    """Units that are kept, and that are still to be sent, by reference."""
    kept: Counter[str] = Counter()
    pending: Counter[str] = Counter()
    if facts.statements:
        for into, packed in ((kept, facts.statements[0].shipped), (pending, facts.statements[0].unshipped)):
            for line in unpack_lines(packed):
                if type_of(line.type) == "Product":
                    into[line.reference or ""] += line.quantity
        if facts.cancellation is not None and not facts.cancellation.retracted:
            pending.clear()
        return kept, pending
    assert facts.content is not None
    lines = unpack_lines(facts.content.lines)
    for share in share_content(facts, lines, tally(count_units(facts), lines)).goods:
        kept[share.line.reference or ""] += share.shipped_units
        pending[share.line.reference or ""] += share.unshipped_units
    return kept, pending


def units_there(order: Order) -> tuple[Counter[str], Counter[str]]:
    """Units that are captured and not returned, and that are reserved, by reference."""
    captured: Counter[str] = Counter()
    reserved: Counter[str] = Counter()
    for capture in order.captures.values():
        for key, one in capture.items.items():
            captured[one.reference] += capture.remaining(key) * (one.type == "Product")
    for held in order.reserved.values():
        for one in held.values():
            reserved[one.reference] += one.quantity * (one.type == "Product")
    return +captured, +reserved
