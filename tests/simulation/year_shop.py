"""The shop of a year: what becomes of each of its orders, and its own books of it.

The books know nothing of carts: they count units and cents as the shop's people would.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from random import Random
from typing import Any
from urllib.parse import urlencode

import msgspec

from tests.shops.events import (
    EventSpec,
    cancelled,
    cart_updated,
    confirmed,
    delivered,
    goods,
    items_cancelled,
    observed,
    other,
    refunded,
    returned,
    shipped,
)
from tests.simulation.reporting import DAY_S, PEOPLE, PLACING
from worker.core.trust import HEADER, Trust
from worker.model.callbacks import Ask, Called, Push
from worker.providers.callbacks import cloud_event
from worker.providers.registry import CALLBACKS
from worker.sim.log import MemoryLog
from worker.sim.loop import VirtualClock

STORIES: Mapping[str, float] = {
    "plain": 50,
    "returned_soon": 8,
    "returned_late": 8,
    "cancelled": 5,
    "rest_cancelled": 5,
    "held": 6,
    "rejected": 2,
    "refunded": 4,
    "changed": 4,
    "charged": 8,
}
"""What becomes of orders, and how often."""
AFTER_A_REPORT = frozenset({"returned_soon", "returned_late", "rest_cancelled", "refunded", "cancelled"})
"""Stories of which a report alone cannot tell all: people do the rest in seQura's back office."""
REPEATED, LATE = 0.04, 0.03
"""How many events come twice, or some hours late."""


@dataclass
class Book:
    """One order, as the shop knows it."""

    account: str
    name: str
    story: str
    completed_ms: int
    prices: dict[str, int] = field(default_factory=dict)
    """Of a unit, by line."""
    shipped: Counter[str] = field(default_factory=Counter)
    """Units that ever left."""
    returned: Counter[str] = field(default_factory=Counter)
    refunded_minor: int = 0
    departures: int = 0
    is_observed: bool = False
    """It is paid in another way: only statistics tell of it."""

    @property
    def subject(self) -> str:
        """As events name it."""
        return f"{self.account}/{self.name}"

    @property
    def is_plain(self) -> bool:
        """Its carts hold nothing but units at their prices."""
        return self.story not in ("charged", "changed")

    @property
    def kept_minor(self) -> int:
        """What left and did not come back, less what was given back besides."""
        units = self.shipped - self.returned
        return sum(count * self.prices[line] for line, count in units.items()) - self.refunded_minor


Step = tuple[float, Callable[[], EventSpec | None]]
"""Seconds after the order was placed, and what happens then; `None`: nothing that the shop tells."""


class Shop:
    """Places orders, and tells of them."""

    def __init__(self, chance: Random, clock: VirtualClock, log: MemoryLog, trust: Trust, end_s: float) -> None:
        """`end_s`: by then every story is over."""
        self.books: dict[str, Book] = {}
        """By subject."""
        self._chance = chance
        self._clock = clock
        self._log = log
        self._trust = trust
        self._end_s = end_s
        self._events = 0

    def shuffled(self, count: int) -> list[str]:
        """So many accounts: most orders are reported, and some are told by update alone."""
        return self._chance.choices(("acme", "hats", "toys"), (0.55, 0.35, 0.1), k=count)

    async def order(self, account: str, name: str) -> None:
        """The whole story of an order, which is placed now."""
        chance, now_ms = self._chance, self._clock.wall_ms()
        if chance.random() < 0.15:
            book = Book(account, f"O{name}", "observed", now_ms, is_observed=True)
            self.books[book.subject] = book
            self._tell(book, self._observed(now_ms))
            return
        story = chance.choices(list(STORIES), list(STORIES.values()))[0]
        book = Book(account, f"A{name}", story, now_ms)
        self.books[book.subject] = book
        begun = self._clock.now()
        for at_s, happens in sorted(self._story(book), key=lambda step: step[0]):
            await asyncio.sleep(max(0.0, min(begun + at_s, self._end_s) - self._clock.now()))
            if (told := happens()) is not None:
                self._tell(book, told)

    def _observed(self, now_ms: int) -> EventSpec:
        chance = self._chance
        return observed(
            completed_at=_text(now_ms),
            amount_minor=chance.randint(100, 90_000),
            payment_method=chance.choice(("CC", "PP", "COD")),
            country="ES",
            status="processing",
        )

    # --- stories ---

    def _story(self, book: Book) -> Iterator[Step]:
        chance = self._chance
        units = {chr(65 + number): chance.randint(1, 3) for number in range(chance.randint(1, 3))}
        book.prices = {line: chance.randint(50, 5_000) for line in units}
        lines = [goods(line, count, count * book.prices[line]) for line, count in units.items()]
        if book.story == "charged":
            lines += [other("handling", "post", 495), other("discount", "spring", -chance.randint(1, 40))]
        yield 0.0, lambda: confirmed(*lines, **PEOPLE)
        ready_s = 60.0
        if book.story in ("held", "rejected"):
            yield 60.0, lambda: self._hook(book, "needs_review")
            ready_s = chance.uniform(0.5, 4.0) * DAY_S
            word = "approved" if book.story == "held" else "cancelled"
            yield ready_s, lambda: self._hook(book, word)
            ready_s += DAY_S / 4
        if book.story == "rejected":
            return
        if chance.random() < 0.1:
            yield ready_s, lambda: self._hook(book, chance.choice(("risk_assessment", "cancel")))
        if book.story == "cancelled":
            yield ready_s + chance.expovariate(1 / DAY_S), lambda: cancelled(reason="customer_cancel")
            return
        if book.story == "changed":
            book.prices = {line: max(1, price - chance.randint(0, 20)) for line, price in book.prices.items()}
            cheaper = [goods(line, count, count * book.prices[line]) for line, count in units.items()]
            yield ready_s, lambda: cart_updated(*cheaper)
            ready_s += DAY_S / 4
        yield from self._parcels(book, units, ready_s)

    def _parcels(self, book: Book, units: dict[str, int], ready_s: float) -> Iterator[Step]:
        chance = self._chance
        every = [line for line, count in units.items() for _ in range(count)]
        chance.shuffle(every)
        parts = chance.randint(1, min(3, len(every)))
        at_s = ready_s
        for number in range(parts):
            at_s += 60.0 + chance.expovariate(1 / (1.5 * DAY_S))
            parcel = every[number::parts]
            if book.story == "rest_cancelled" and number and number == parts - 1:
                yield at_s, partial(items_cancelled, "c1", None, **_units(parcel))
                return
            yield at_s, partial(self._send, book, f"s{number}", parcel)
            if chance.random() < 0.3:
                yield at_s + DAY_S, partial(self._delivered, f"s{number}")
        if book.story == "refunded":
            amount = sum(book.prices[line] for line in every) // 10
            if amount:
                yield at_s + chance.uniform(0.01, 5.0) * DAY_S, lambda: self._refund(book, amount)
        if book.story.startswith("returned"):
            soon = book.story == "returned_soon"
            after_s = chance.uniform(600.0, 7200.0) if soon else chance.uniform(2.0, 20.0) * DAY_S
            yield at_s + after_s, lambda: self._take_back(book, every[: chance.randint(1, len(every))])

    def _send(self, book: Book, key: str, parcel: list[str]) -> EventSpec:
        book.shipped.update(parcel)
        book.departures += 1
        return shipped(key, None, **_units(parcel))

    def _delivered(self, key: str) -> EventSpec:
        return delivered(key, _text(self._clock.wall_ms()))

    def _take_back(self, book: Book, parcel: list[str]) -> EventSpec:
        book.returned.update(parcel)
        return returned("r1", **_units(parcel))

    def _refund(self, book: Book, amount: int) -> EventSpec:
        book.refunded_minor += amount
        return refunded("g1", amount)

    # --- what is told ---

    def _tell(self, book: Book, told: EventSpec) -> None:
        self._events += 1
        event = {
            "specversion": "1.0",
            "id": f"{book.name} {self._events}",
            "source": "/shop",
            "type": told.type,
            "time": _text(self._clock.wall_ms()),
            "subject": book.subject,
            "data": told.data,
        }
        key, value = PLACING.key_of(book.subject), msgspec.json.encode(event)
        chance = self._chance
        if chance.random() < LATE:
            self._later(chance.uniform(1.0, 6 * 3600.0), key, value, [])
        else:
            self._append(key, value, [])
        if chance.random() < REPEATED:
            self._later(chance.expovariate(1 / DAY_S), key, value, [])

    def _hook(self, book: Book, event: str) -> None:
        """seQura calls: once, late or twice."""
        form = {"event": event, "order_ref": f"uuid {book.name}", "order_ref_1": book.name}
        form |= {"risk_level": "low_risk"} if event == "risk_assessment" else {}
        called = Called(
            account=book.account,
            purpose="webhook",
            reference=book.name,
            media_type="application/x-www-form-urlencoded",
            body=urlencode(form).encode(),
            arrived_ms=self._clock.wall_ms(),
        )
        reading = CALLBACKS["sequra"].read(called)
        assert isinstance(reading, Push | Ask), reading
        for said in reading.said:
            subject, value = cloud_event(called, said)
            key = PLACING.key_of(subject)
            headers = [(HEADER, self._trust.sign(key, value))]
            for _ in range(self._chance.choice((1, 1, 2))):
                self._later(self._chance.uniform(0.0, 1200.0), key, value, headers)

    def _later(self, after_s: float, key: bytes, value: bytes, headers: list[tuple[str, bytes]]) -> None:
        asyncio.get_running_loop().call_later(after_s, self._append, key, value, headers)

    def _append(self, key: bytes, value: bytes, headers: list[tuple[str, bytes]]) -> None:
        self._log.append(key, value, headers)


def _units(parcel: list[str]) -> dict[str, Any]:
    """Units by line, as the builders of events take them."""
    return dict(Counter(parcel))


def _text(wall_ms: int) -> str:
    return datetime.fromtimestamp(wall_ms / 1000, UTC).isoformat()
