"""`ReturnItems`: returned units, and charges that are refunded in full. Pure."""

from worker.providers.qliro import money
from worker.providers.qliro.command import Command, Extra, of
from worker.providers.qliro.memory import Note
from worker.providers.qliro.order import Capture, Units, worth
from worker.providers.qliro.situation import Situation, listed


def give_back(at: Situation) -> Command | list[str]:
    """One return, from the oldest capture with units to be returned; or the reasons why some cannot be returned."""
    goods = at.too_much
    waiting = {key[0] for key in at.match.ahead}  # captured first, so that their fee can be charged
    cannot = [] if waiting else _lost_fees(at, goods)
    goods = Units({key: count for key, count in goods.items() if key[0] not in waiting})
    foreign = goods & at.by_others
    if foreign:
        cannot.append(f"captured at Qliro by somebody else: {listed(foreign)}, which the shop has not shipped")
    goods -= foreign
    charges = Units({key: n for key, n in at.net.items() if key[1] in ("Shipping", "Fee") and _is_off(at, key)})
    for capture in at.there.captures:
        units = (goods & capture.items) + (charges & capture.items)
        if not units:
            continue
        made = _from(at, capture, units, goods - units)
        if isinstance(made, Command):
            return made
        cannot.append(made)
        goods = Units({key: count for key, count in goods.items() if key not in units})
    return cannot


def _is_off(at: Situation, key: tuple[str, str, int]) -> bool:
    """Whether a captured charge is refunded in full, or the shop removed it from the order."""
    once = at.once_of(key)
    return at.goes_back(once) if once is not None else key[:2] in at.wanted.confirmed


def _lost_fees(at: Situation, goods: Units) -> list[str]:
    """Fees of units that are no longer at Qliro: there is nothing to withhold them from."""
    there = {key[0] for key in goods}
    return [
        f"fee {back.fee_minor} of return {back.name}: none of its units is captured"
        for back in at.kept_back.uncharged
        if not there.intersection(reference for reference, _ in back.units)
    ]


def _from(at: Situation, capture: Capture, units: Units, later: Units) -> Command | str:
    """The return of these units from one capture; `later`: units that other captures still have to return."""
    if not any(count > units[key] for key, count in capture.items.items() if key[1] == "Product"):
        # No goods are left that the discounts could apply to.
        units = units + Units({key: n for key, n in capture.items.items() if key[1] == "Discount"})
    total = worth(units)
    names = {key[0] for key in units if key[1] == "Product"}
    fees: list[Extra] = []
    discounts: list[Extra] = []
    notes: list[Note] = []
    for back in at.kept_back.uncharged:
        own = {reference for reference, _ in back.units}
        if not names & own:
            continue
        if total <= back.fee_minor and worth(Units({k: n for k, n in later.items() if k[0] in own})) > back.fee_minor:
            continue  # the units of the next capture cover it
        total -= back.fee_minor
        fees.append(_extra(at, at.books.reference_of(back.name), money.RETURN_FEE, back.fee_minor))
        notes.append(Note(0, "fee", back.name, back.fee_minor))
    for back in at.wanted.backs:
        less = back.withheld_minor
        is_here = names.intersection(reference for reference, _ in back.units)
        if less > 0 and is_here and back.name not in at.kept_back.withheld and total > less:
            total -= less
            discounts.append(_extra(at, at.books.reference_of(back.name), "Not refunded", -less))
            notes.append(Note(0, "withheld", back.name, less))
    if total > capture.left_minor:  # money went back before the goods
        less = total - capture.left_minor
        total = capture.left_minor
        discounts.append(_extra(at, money.AGAIN_REFERENCE, money.AGAIN, -less))
        notes.append(Note(0, "rest", "", less))
    if total <= 0:
        return f"a return of {listed(units)} would pay back {total}: Qliro accepts only amounts above 0"
    return Command("ReturnItems", capture.id, of(units), fees, discounts, notes)


def _extra(at: Situation, reference: str, description: str, minor: int) -> Extra:
    rate = money.rate_of(at.there)
    return Extra(reference, description, minor, money.without_tax(minor, rate or 0))
