"""Several lines of one article at several prices, whose totals need not divide: random histories of parcels and returns.

In the end exactly the units that the shopper keeps are captured, each at a price of its own line, whether the events
were told one by one or all at once.
"""

from collections import Counter
from random import Random
from typing import Any

import pytest

from tests.shops.events import EventSpec, confirmed, goods, returned, shipped
from tests.unit.providers.qliro.turns import ORDER_ID, item, net, opened
from worker.providers.qliro.matching import split

SEEDS = 300
Line = tuple[int, int, int]
"""Units, total, and what one is said to cost."""


def lines_of(chance: Random) -> list[Line]:
    """Prices that lie a cent, a few, or far apart."""
    base, lines = chance.choice((100, 334, 5_000, 21_333)), []
    for _ in range(chance.randint(2, 3)):
        quantity = chance.randint(1, 3)
        total = (base + chance.choice((0, 0, 1, -1, 2, 70, 5_000))) * quantity + chance.randrange(quantity)
        lines.append((quantity, total, total // quantity + (total % quantity > 0 and chance.random() < 0.4)))
    return lines


def history(chance: Random, lines: list[Line]) -> tuple[list[EventSpec], list[int]]:
    """Parcels and returns, and the units of each line that are kept after them."""
    events, sent, kept = [], [0] * len(lines), [0] * len(lines)
    for step in range(chance.randint(2, 7)):
        is_return = chance.random() < 0.4
        room = kept if is_return else [quantity - n for (quantity, _, _), n in zip(lines, sent, strict=True)]
        units = {number: chance.randint(1, n) for number, n in enumerate(room) if n and chance.random() < 0.6}
        if not units:
            continue
        for number, count in units.items():
            kept[number] += -count if is_return else count
            sent[number] += 0 if is_return else count
        named: dict[str, Any] = {f"l{number}": count for number, count in units.items()}
        events.append(returned(f"e{step}", **named) if is_return else shipped(f"e{step}", **named))
    return events, kept


def fits(units: Counter[int], lines: list[Line], kept: list[int]) -> bool:
    """Whether units at these prices can be those of the lines: each has so many at its low price, the rest at the other."""
    if not lines:
        return not +units
    (quantity, total, _), count = lines[0], kept[0]
    shares = [*split(total, quantity), (0, 0)]
    (low, of_low), (high, of_high) = shares[:2]
    return any(
        fits(units - taken, lines[1:], kept[1:])
        for at_low in range(count + 1)
        if at_low <= of_low
        and count - at_low <= of_high
        and (taken := Counter({low: at_low}) + Counter({high: count - at_low})) <= units
    )


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("seed", range(SEEDS))
def test_each_line_keeps_its_own_units(seed: int, *, at_once: bool) -> None:
    """None is taken for another line's."""
    chance = Random(f"identities {seed}")
    lines = lines_of(chance)
    reserved = sum((Counter(dict(split(total, quantity))) for quantity, total, _ in lines), Counter[int]())
    client = opened(*(item("hat", count, price) for price, count in reserved.items()))
    told = [
        goods("hat", quantity, total, unit_price_minor=unit, line_id=f"l{number}", vat_rate_bp=2500)
        for number, (quantity, total, unit) in enumerate(lines)
    ]
    client.tell(confirmed(*told, references={"provider": str(ORDER_ID)}))
    events, kept = history(chance, lines)
    for event in events:
        client.tell(event)
        if not at_once:
            client.work(turns=60)
    assert client.work(turns=60) == "settled"
    units = Counter({price: count for (_, price), count in net(client).items()})
    assert fits(units, lines, kept), f"{lines}: {kept} kept, {dict(units)} captured"
