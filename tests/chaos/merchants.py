"""The shops that sell through Qliro and AtaraPay: those of the demo, whose orders live longer here.

What must stand at the provider in the end follows from the shop's own counts (`worker.tools.shop`), never from the
worker. At every step, that no money moves twice and nothing goes back to an older state: see `QliroMoney` and
`AtaraPayWords`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from random import Random
from typing import IO, Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from worker.providers.atarapay.wire import State
from worker.sandbox.atarapay.escrow import Escrow
from worker.sandbox.atarapay.sandbox import SELLER, AtaraPaySandbox
from worker.sandbox.attempts import Answer, Attempt, Call
from worker.sandbox.qliro.orders import Order
from worker.sandbox.qliro.sandbox import QliroSandbox
from worker.sandbox.server import Key, Sandbox
from worker.tools.demo.merchants import ESCROW, HATS, AtAtaraPay, AtQliro, Merchant, Plot
from worker.tools.shop import NIGERIA, REDELIVER, SWEDEN, History, ShopEvent, ShopOrder, Step, make_history

_OPEN_FOR = 0.75
"""The part of a run's time over which histories are made; those with many steps take longer."""
_REFUND_MAX_MINOR = 60
_SECOND_ATTEMPT_AFTER_S = 15.0
"""Longer than callbacks are late; in production a parcel takes days."""
_encode = msgspec.json.Encoder().encode


# --- longer lives at Qliro ---


def _live_long(random: Random, order: ShopOrder, step: Step) -> None:
    """Parcels, returns and cancelled units between each other; an amount off, while the shopper has something."""
    for number in range(random.randint(3, 6)):
        do = random.choices((_ship_some, _return_some, _cancel_some), (5, 2, 1))[0]
        do(random, order, step, number)
    if random.random() < 0.4 and any(line.kept for line in order.lines):
        order.refunded_minor = random.randint(1, _REFUND_MAX_MINOR)
        step("order.refunded", {"refund_id": "f1", "amount_minor": order.refunded_minor, "name": "Goodwill"})


def _some(random: Random, counts: dict[str, int]) -> dict[str, int]:
    names = [name for name, count in counts.items() if count]
    picked = random.sample(names, random.randint(1, len(names))) if names else []
    return {name: random.randint(1, counts[name]) for name in picked}


def _units(counts: dict[str, int]) -> list[dict[str, Any]]:
    return [{"line_id": name, "quantity": count} for name, count in counts.items()]


def _pending(order: ShopOrder) -> dict[str, int]:
    return {line.reference: line.ordered - line.cancelled - line.shipped for line in order.lines}


def _ship_some(random: Random, order: ShopOrder, step: Step, number: int) -> None:
    if units := _some(random, _pending(order)):
        step("order.items_shipped", {"shipment_id": f"s{number}", "lines": _units(units)})
        for line in order.lines:
            line.shipped += units.get(line.reference, 0)


def _return_some(random: Random, order: ShopOrder, step: Step, number: int) -> None:
    if units := _some(random, {line.reference: line.kept for line in order.lines}):
        step("order.items_returned", {"return_id": f"r{number}", "lines": _units(units)})
        for line in order.lines:
            line.returned += units.get(line.reference, 0)


def _cancel_some(random: Random, order: ShopOrder, step: Step, number: int) -> None:
    if units := _some(random, _pending(order)):
        told = {"cancellation_id": f"c{number}", "lines": _units(units), "reason": "out_of_stock"}
        step("order.items_cancelled", told)
        for line in order.lines:
            line.cancelled += units.get(line.reference, 0)


UNITS = replace(SWEDEN, stories=(*SWEDEN.stories, (_live_long, 100)))
ESCROWS = NIGERIA
MARKETS = {HATS.name: UNITS, ESCROW.name: ESCROWS}


def plot_of(orders: int, seconds: float, seed: int, began_at: datetime) -> Plot:
    """What a shop's part of a run is made of."""
    return Plot(orders, _OPEN_FOR * seconds, seed, began_at)


def history_of(account: str, plot: Plot) -> History:
    """The events of the shop with this account, in the order of their writing."""
    return make_history(
        plot.seed, plot.orders, plot.seconds, account=account, began_at=plot.began_at, market=MARKETS[account]
    )


class Outcome(Struct, frozen=True):
    """What the worker must say of an order in the end."""

    statuses: tuple[str, ...]
    carts: tuple[tuple[int, int], ...]
    """(shipped, unshipped) in minor units; more than one: each of them is right."""


def outcome_of(order: ShopOrder, heard: Sequence[str]) -> Outcome:
    """`heard`: what the receivers have certainly taken of the provider's callbacks about the order, in its words."""
    carts = order.carts_minor() or (0, order.total_minor)
    if order.is_unsupported:
        return Outcome(("parked",), (carts,))
    if order.acts != ["cancel_as_buyer"]:
        return Outcome(("settled",), (carts,))
    # AtaraPay tells this once, and nothing is documented about another try: one that nobody has taken is lost.
    untold = (0, order.total_minor)
    return Outcome(("settled",), (carts,) if heard else (carts, untold))


# --- what stands there, and what must never happen there ---


class Recorded(Merchant):
    """A merchant whose provider is watched."""

    sandbox: "_RequestLog"

    def __init__(self, plot: Plot, send: Any) -> None:
        super().__init__(plot, send)  # type: ignore[call-arg, arg-type]  # of the class beside it
        self.violations: Counter[str] = Counter()
        self.taken: Mapping[tuple[str, str], Counter[str]] = {}
        """By merchant and order, as callbacks name them: which of them a receiver has taken."""
        self._disagreeing = set(self.history.orders)

    def is_right(self, order: ShopOrder) -> bool:
        """Whether the provider has what became of an order."""
        raise NotImplementedError

    def breaches(self) -> list[str]:
        """Requests that a client which looks before it acts does not send."""
        return []

    def disagreeing(self) -> list[ShopOrder]:
        """Orders that are not as they must be. When all were, all of them are compared once more."""
        orders = self.history.orders
        self._disagreeing = {subject for subject in self._disagreeing or orders if not self.is_right(orders[subject])}
        return [orders[subject] for subject in self._disagreeing]

    def subject_of(self, order_ref: str) -> str:
        """Of an order as callbacks name it."""
        return f"{self.name}/{order_ref}"


class QliroMoney:
    """No unit is captured twice or beyond what was shipped, nothing is paid back twice, no reservation grows."""

    def __init__(self) -> None:
        self._reserved: dict[int, Counter[str]] = {}
        """By OrderId, the units that were reserved when it was looked at last."""

    def check(self, shop: ShopOrder, order: Order) -> list[str]:
        """What is wrong with an order, just after something has changed. `shop`: all that will ever be said of it."""
        captured: Counter[str] = Counter()
        returned: Counter[str] = Counter()
        for capture in order.captures.values():
            for key, item in capture.items.items():
                if item.type == "Product":
                    captured[item.reference] += item.quantity
                    returned[item.reference] += capture.returned[key]
        reserved = Counter(
            {
                line.reference: sum(
                    item.quantity
                    for items in order.reserved.values()
                    for item in items.values()
                    if (item.type, item.reference) == ("Product", line.reference)
                )
                for line in shop.lines
            }
        )
        before = self._reserved.get(order.id)
        self._reserved[order.id] = reserved
        wrong = []
        for line in shop.lines:
            name = line.reference
            if captured[name] > line.shipped:
                wrong.append(f"{captured[name]} x {name} captured, {line.shipped} were ever shipped")
            if returned[name] > line.returned:
                wrong.append(f"{returned[name]} x {name} returned, {line.returned} ever came back")
            if before is not None and reserved[name] > before[name]:
                wrong.append(f"{reserved[name]} x {name} reserved again, after {before[name]}")
        if (amount := _taken_off(order)) > shop.refunded_minor:
            wrong.append(f"{amount} paid back by amount, {shop.refunded_minor} were refunded")
        if order.captured_minor < 0:
            wrong.append(f"{order.captured_minor} left of the captures")
        return [f"{shop.subject}: {what}" for what in wrong]


def _taken_off(order: Order) -> int:
    """Money that was paid back, or is not charged, without a unit, in minor units."""
    amount = 0
    for action, number, item in order.actions:
        made = order.transactions[number]
        if action == "Ship" and made.type != "Capture" and made.status == "Success":
            amount -= item.inc * item.quantity
    for capture in order.captures.values():
        amount -= sum(
            item.inc * capture.remaining(key) for key, item in capture.items.items() if item.type == "Discount"
        )
    for items in order.reserved.values():
        amount -= sum(item.inc * item.quantity for item in items.values() if item.type == "Discount")
    return amount


class _RequestLog(Sandbox):
    """Writes a line for every request that has ended."""

    _log_file: IO[bytes] | None = None

    def record_to(self, file: Path) -> None:
        """From now on."""
        self._log_file = file.open("wb", buffering=1 << 20)

    def flush_record(self) -> None:
        """Writes what is still to be written."""
        if self._log_file is not None:
            self._log_file.flush()

    async def _answer(self, attempt: Attempt, key: Key | None, call: Call) -> Answer | None:
        answer: Answer | None = None
        try:
            answer = await super()._answer(attempt, key, call)
        finally:
            line = {
                "n": attempt.number,
                "order": attempt.order_ref,
                "path": attempt.raw_path,
                "asked": call.body.decode(errors="replace") if call.method == "POST" else "",
                "answered": None if answer is None else answer.status,
                "fault": attempt.fault,
                "received": attempt.received_at,
                "applied": attempt.applied_at,
                "at": self._wall(),
            }
            if self._log_file is not None:
                self._log_file.write(_encode(line) + b"\n")
        return answer


class _WatchedQliro(_RequestLog, QliroSandbox):
    """A sandbox that says which orders have changed."""

    changed: Any = None
    """Called with an `Order`."""

    def post_pushes(self) -> None:
        if self.changed is not None:
            for push in self._api.pushes:
                self.changed(self.orders[push["OrderId"]])
        super().post_pushes()


class QliroShop(Recorded, AtQliro):
    """`AtQliro`, watched."""

    sandbox: _WatchedQliro
    sandbox_type = _WatchedQliro
    market = UNITS

    def __init__(self, plot: Plot, send: Any) -> None:
        super().__init__(plot, send)
        self._money = QliroMoney()
        self._by_number = {int(order.number): order for order in self.history.orders.values()}
        self.sandbox.changed = self._changed

    def _changed(self, order: Order) -> None:
        self.violations.update(self._money.check(self._by_number[order.id], order))

    def breaches(self) -> list[str]:
        return self.sandbox.breaches

    def is_right(self, order: ShopOrder) -> bool:
        found = self.sandbox.orders.get(int(order.number))
        return found is not None and not found.pending and self.wanted(order) == self.held(order)


class AtaraPayWords:
    """A word once, and `delivered` once more for each second attempt; never one that is none of the order's."""

    @staticmethod
    def check(shop: ShopOrder, escrow: Escrow) -> list[str]:
        """What is wrong with the words that were taken so far."""
        allowed = ("delivered",) if shop.is_unsupported else shop.words
        words = tuple(escrow.words)
        return [] if words == allowed[: len(words)] else [f"{shop.subject} was told {words}, it means {allowed}"]


class _WatchedAtaraPay(_RequestLog, AtaraPaySandbox):
    """Likewise."""

    changed: Any = None
    """Called with an `Escrow`."""

    def take(self, attempt: Attempt, key: Key | None, call: Call) -> Answer:
        answer = super().take(attempt, key, call)
        if attempt.applied and key is not None and self.changed is not None:
            self.changed(self.escrows[key[1]])
        return answer


class AtaraPayShop(Recorded, AtAtaraPay):
    """`AtAtaraPay`, watched."""

    sandbox: _WatchedAtaraPay
    sandbox_type = _WatchedAtaraPay
    market = ESCROWS

    def __init__(self, plot: Plot, send: Any) -> None:
        super().__init__(plot, send)
        self._by_number = {order.number: order for order in self.history.orders.values()}
        self._agreed_at_s: dict[str, float] = {}
        self.sandbox.changed = self._changed

    def _changed(self, escrow: Escrow) -> None:
        self.violations.update(AtaraPayWords.check(self._by_number[escrow.number], escrow))

    def happen(self, at_s: float) -> Iterable[ShopEvent]:
        waiting = {order.number: order for order in self._ahead if self._is_too_soon(order, at_s)}
        self._ahead = [order for order in self._ahead if order.number not in waiting]
        yield from super().happen(at_s)
        self._ahead += waiting.values()

    def _is_too_soon(self, order: ShopOrder, at_s: float) -> bool:
        """Whether the second delivery has to wait: the notification that asks for it counts from when it arrives."""
        if order.acts[0] != REDELIVER:
            return False
        return at_s < self._agreed_at_s.setdefault(order.number, at_s) + _SECOND_ATTEMPT_AFTER_S

    def is_right(self, order: ShopOrder) -> bool:
        found = self.sandbox.escrows.get(order.number)
        if found is None:
            return False
        if self._is_stranded(order, found):
            return True
        return not order.acts and (order.is_unsupported or self.wanted(order) == self.held(order))

    def _is_stranded(self, order: ShopOrder, found: Escrow) -> bool:
        """Whether it waits for a second delivery that nobody can know to be one: the worker that had reported the first
        was killed before it knew, and the notification of the second attempt, which AtaraPay sends once, was lost.
        """
        heard = self.taken.get((SELLER, order.number), ())
        is_heard = any(what.startswith("Pending II") for what in heard)
        return (
            found.state is State.SECOND
            and tuple(found.words) == order.words[:1]
            and not is_heard
            and len(order.acts) == 1
        )

    def subject_of(self, order_ref: str) -> str:
        return self._by_number[order_ref].subject
