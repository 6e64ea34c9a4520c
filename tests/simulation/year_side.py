"""seQura in a year: what it holds of each merchant's orders, what it pays out, and what it may never be sent.

The sandbox's own models judge and keep what arrives. Each request is checked when it goes out and when it arrives.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from random import Random
from typing import Any

import msgspec

from schemas.state import OrderRecord
from tests.simulation.reporting import Provider
from tests.simulation.year_shop import Book
from worker.model.exchange import HttpRequest, HttpResponse
from worker.providers.sequra import memory
from worker.providers.sequra.options import SequraAccount
from worker.sandbox.attempts import Attempt
from worker.sandbox.sequra.disbursements import Disbursements, Owed
from worker.sandbox.sequra.orders import Orders
from worker.sandbox.sequra.reports import Reported, Reports
from worker.sim.loop import VirtualClock

DAY_MS = 86_400_000
SLACK_MS = 5_000
"""By how much clocks may differ."""


class SequraSide(Provider):
    """Some merchants of seQura's, and the way there."""

    def __init__(self, chance: Random, clock: VirtualClock, accounts: Mapping[str, SequraAccount]) -> None:
        super().__init__(chance, clock)
        self.accounts = accounts
        self.records: dict[str, OrderRecord] = {}
        """By subject, as committed; the auditor keeps it."""
        self.books: Mapping[str, Book] = {}
        self.is_due: Callable[[str], bool] = lambda _: True
        """Whether any partition has a report to make, by account; the auditor knows."""
        self.reports_of = {name: Reports(each.merchant_id) for name, each in accounts.items()}
        self.payouts = {name: Disbursements(each.merchant_id) for name, each in accounts.items()}
        logins = {each.merchant_id: (each.username, each.password) for each in accounts.values()}
        self.orders = Orders(logins, None, validate=True)
        self.by_hand: dict[str, int] = {}
        """By subject, what people have set an order to in the back office, in minor units."""
        self.counted: dict[str, int] = {}
        """By subject, when statistics told of it last."""
        self.refused_ms: dict[str, int] = dict.fromkeys(accounts, 0)
        """By account, when a report of it met a refusal that it did not deserve."""
        self.down_until = 0.0
        """Nothing is answered, or nothing but errors, until then."""
        self.down_as = "lost"
        self.taken_count = 0

    def fail(self, what: str) -> None:
        """Something happened that never may."""
        self.wrong.append(f"{datetime.fromtimestamp(self.clock.wall_ms() / 1000, UTC):%m-%d %H:%M:%S} {what}")

    def fault_of(self, request: HttpRequest) -> str:
        self._check_sent(request)
        if self.clock.now() < self.down_until:
            return self.down_as
        fault = super().fault_of(request)
        if fault == "refused" and request.method == "POST":
            self.refused_ms[request.account] = self.clock.wall_ms()
        return fault

    # --- what goes out ---

    def _check_sent(self, request: HttpRequest) -> None:
        account = request.account
        if request.method == "POST":
            if not self.is_due(account):
                self.fail(f"{account}: a report is sent, and none is due")
            for name in _names(msgspec.json.decode(request.body)["delivery_report"]["orders"]):
                told = self._told(f"{account}/{name}")
                if told is None or told.under_way is None or told.under_way.entries not in request.body:
                    self.fail(f"{account}/{name}: a page is sent with what was not written down for it")
        elif request.method == "PUT":
            name = _name(msgspec.json.decode(request.body)["order"])
            told = self._told(f"{account}/{name}")
            if told is not None and told.under_way is not None:
                self.fail(f"{account}/{name}: an update is sent while a page names it")

    def _told(self, subject: str) -> memory.Reported | None:
        record = self.records.get(subject)
        return None if record is None else memory.read(record.remote)

    # --- what arrives ---

    def _arrive(self, request: HttpRequest, answer: Any) -> None:
        response = self._judge(request)
        if not answer.done():
            answer.set_result(response)

    def _judge(self, request: HttpRequest) -> HttpResponse:
        account = request.account
        wall_ms = self.clock.wall_ms()
        if request.method == "GET":
            found = self.payouts[account].answer(request.url.removeprefix(self.accounts[account].base_url))
            return HttpResponse(404 if found is None else 200, {}, found or b"")
        if request.method == "PUT":
            now = datetime.fromtimestamp(wall_ms / 1000, UTC)
            name = _name(msgspec.json.decode(request.body)["order"])
            attempt = Attempt(0, now, request.url, None, None, None, "")
            key = (self.accounts[account].merchant_id, name)
            taken = self.orders.take(attempt, key, request.headers["Authorization"], request.body, now)
            if taken.status != 204:
                self.fail(f"{account}/{name}: its update is refused: {taken.body!r}")
            return HttpResponse(taken.status, {}, taken.body)
        return self._take(account, request.body, wall_ms)

    def _take(self, account: str, body: bytes, wall_ms: int) -> HttpResponse:
        reports = self.reports_of[account]
        answer = reports.take(body)
        if answer.status != 204:
            self.fail(f"{account}: its report is refused: {answer.body!r}")
            return HttpResponse(answer.status, {}, answer.body)
        self.taken_count += 1
        told = msgspec.json.decode(body)["delivery_report"]
        for name in _names(told["orders"]):
            self._check_reported(account, name, reports.order(name))
        for entry in told.get("statistics", {}).get("orders", []):
            subject = f"{account}/{_name(entry)}"
            completed_ms = datetime.fromisoformat(entry["completed_at"]).timestamp() * 1000
            if subject not in self.books or completed_ms < wall_ms - 8 * DAY_MS:
                self.fail(f"{subject}: counted in statistics that it does not belong in")
            self.counted[subject] = wall_ms
        return HttpResponse(204, {}, b"")

    def _check_reported(self, account: str, name: str, there: Reported) -> None:
        subject = f"{account}/{name}"
        book = self.books[subject]
        if (self.accounts[account].merchant_id, name) in self.orders.held:
            self.fail(f"{subject}: reported after it was updated")
        if there.contradictions:
            self.fail(f"{subject}: what was told of a delivery before is told otherwise")
        if len(there.deliveries) > book.departures:
            self.fail(f"{subject}: {len(there.deliveries)} deliveries, of {book.departures} that left")
        for (kind, line), (units, _) in there.shipped.items():
            if kind == "product" and units > book.shipped[line]:
                self.fail(f"{subject}: {units} units of {line} reported, of {book.shipped[line]} that left")

    # --- what it is worth ---

    def reported_minor(self, account: str, name: str) -> int:
        """What all reports said of an order."""
        there = self.reports_of[account].orders.get(name, Reported())
        return sum(delivery.total_minor for delivery in there.deliveries.values())

    def worth_minor(self, subject: str) -> int:
        """The shipped cart of an order, as seQura has it now."""
        account, _, name = subject.partition("/")
        held = self.orders.held.get((self.accounts[account].merchant_id, name))
        if subject in self.by_hand:
            return self.by_hand[subject]
        return self.reported_minor(account, name) if held is None else held.shipped_minor

    def pay_out(self) -> None:
        """A disbursement for each merchant, as of now."""
        on = datetime.fromtimestamp(self.clock.wall_ms() / 1000, UTC).date()
        for account, payouts in self.payouts.items():
            names = [book.name for book in self.books.values() if book.account == account and not book.is_observed]
            worth = {name: self.worth_minor(f"{account}/{name}") for name in names}
            payouts.issue({name: Owed(minor, minor) for name, minor in worth.items()}, "EUR", on, {})


def _name(order: dict[str, Any]) -> str:
    return str(order["merchant_reference"]["order_ref_1"])


def _names(orders: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(map(_name, orders)))
