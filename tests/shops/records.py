"""Orders that live long, and the records that a shop writes about them: late, out of order, doubled, some no events."""

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

from tests.shops.actions import CITIES, address_of, approve, content_of, put_right
from tests.shops.counts import Line, ShopOrder
from tests.shops.trades import TRADES, Trade, details_of, name_at_provider

ARTICLES = (("shirt", 1990), ("jacket", 7100), ("mug", 1250), ("tea", 890), ("lamp", 4575), ("atlas", 3333))


@dataclass(frozen=True)
class Record:
    """A record on its way into the log."""

    at_s: float
    key: bytes | None
    value: bytes | None
    is_poison: bool = False


@dataclass
class History:
    """What a shop does in a while. Orders by subject."""

    records: list[Record] = field(default_factory=list)
    """In the order of their writing."""
    orders: dict[str, ShopOrder] = field(default_factory=dict)
    """As they are in the end."""
    confirmed: dict[str, ShopOrder] = field(default_factory=dict)
    """As the checkout has left them."""
    poison: list[bytes] = field(default_factory=list)
    """The values of the records that are to be refused."""


def make_history(
    random: Random, *, records: int, duration_s: float, accounts: Mapping[str, str], began_at: datetime
) -> History:
    """About so many records of orders within so many seconds. `accounts`: the provider of each."""
    history = History()
    number = 1000
    while len(history.records) < records:
        number += 1
        account = random.choice(tuple(accounts))
        trade = TRADES[accounts[account]]
        order = _order(random, f"{account}/{trade.prefix}{number}")
        trade.begin(random, order)
        history.orders[order.subject] = order
        history.confirmed[order.subject] = deepcopy(order)
        _live(random, order, trade, duration_s)
        history.records += _written(random, order, began_at)
        history.records += _beside(random, order, history.poison)
    history.records.sort(key=lambda record: record.at_s)
    return history


# --- the life of an order ---


def _order(random: Random, subject: str) -> ShopOrder:
    lines = {name: Line(minor, random.randint(1, 5)) for name, minor in random.sample(ARTICLES, random.randint(1, 3))}
    return ShopOrder(
        subject, lines, random.choice((0, 395, 500)), random.choice((0, 0, 99, 100)), random.choice(CITIES)
    )


def _live(random: Random, order: ShopOrder, trade: Trade, duration_s: float) -> None:
    at_s = random.uniform(0.0, duration_s * 0.7)
    told = content_of(order) | {"delivery_address": address_of(order)}
    order.events.append((at_s, "order.confirmed", told | details_of(order)))
    pace_s = random.choice((0.5, 5.0, duration_s / 10))
    for _ in range(random.choice((0, 3, 6, 10, 16))):
        at_s = min(at_s + random.uniform(0.001, pace_s), duration_s - 1.0)
        step = random.choices(trade.steps, trade.weights)[0](random, order)
        if step is not None:
            order.events.append((at_s, *step))
    for step in (put_right(order), approve(order), name_at_provider(order)):
        if step is not None:
            at_s += 0.001
            order.events.append((at_s, *step))


# --- how it gets into the log ---


def _written(random: Random, order: ShopOrder, began_at: datetime) -> list[Record]:
    has_sequence = random.random() < 0.5
    key = order.subject.encode()
    records: list[Record] = []
    for number, (at_s, kind, data) in enumerate(order.events):
        happened = began_at + timedelta(seconds=at_s, microseconds=number)
        event = {
            "specversion": "1.0",
            "id": f"{order.subject}#{number}",
            "source": "/shops/simulated",
            "type": kind,
            "time": happened.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "subject": order.subject,
            "data": data,
        } | ({"sequence": str(number)} if has_sequence else {})
        value = json.dumps(event).encode()
        late_s = random.choice((0.5, 5.0, 20.0)) * random.random() if random.random() < 0.1 else 0.0
        records.append(Record(at_s + late_s, key, value))
        if random.random() < 0.05:
            records.append(Record(at_s + late_s + random.uniform(0.0, 10.0), key, value))
    return records


def _beside(random: Random, order: ShopOrder, poison: list[bytes]) -> list[Record]:
    """Records that are no events of ours: refused, or passed over."""
    if random.random() > 0.2:
        return []
    key, at_s = order.subject.encode(), order.events[-1][0]
    wrong = random.choice((b"not json", b'{"specversion": "1.0"}', b"\xff\xfe", b"[1, 2]")) + b" " * len(poison)
    passed = json.dumps(
        {
            "specversion": "1.0",
            "id": "1",
            "source": "/s",
            "type": "stock.changed",
            "time": "2026-01-01T00:00:00Z",
            "subject": "x/y",
        }
    )
    poison.append(wrong)
    return [Record(at_s, key, wrong, is_poison=True), Record(at_s, key, None), Record(at_s, key, passed.encode())]
