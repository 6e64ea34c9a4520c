"""What seQura saw: in which order revisions were applied, and what they said. One pass, a few bytes an order."""

from array import array
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote

import msgspec
from msgspec import Struct

from tests.shops.stream import DIGEST_BYTES, Expected, Item, expected_of, number_of, subject_of
from worker.sandbox.attempts import Attempt

SHOWN_MAX = 20
_RELAPSES_MAX = 1_000
"""In a report; all of them are counted."""
_WORD_BYTES = 8
_encode = msgspec.json.Encoder().encode


class _Item(Struct):
    type: str
    reference: str
    total_with_tax: int
    quantity: int = 0


class _Cart(Struct):
    order_total_with_tax: int
    items: list[_Item]

    def as_items(self) -> list[Item]:
        return [(item.type, item.reference, item.quantity, item.total_with_tax) for item in self.items]


class _Address(Struct):
    city: str


class _Tracking(Struct):
    reference: str
    delivered_at: str | None = None


class _Update(Struct):
    shipped_cart: _Cart
    unshipped_cart: _Cart
    delivery_address: _Address
    trackings: list[_Tracking] = []


class _Body(Struct):
    order: _Update


_read = msgspec.json.Decoder(_Body).decode


def update_in(body: bytes) -> Expected:
    """What an update says, as far as it is compared; its carts' totals as they were sent."""
    order = _read(body).order
    trackings = [(tracking.reference, tracking.delivered_at is not None) for tracking in order.trackings]
    told = expected_of(
        order.shipped_cart.as_items(), order.unshipped_cart.as_items(), order.delivery_address.city, trackings
    )
    return Expected(order.shipped_cart.order_total_with_tax, order.unshipped_cart.order_total_with_tax, told.digest)


class Relapse(Struct, frozen=True):
    """An older revision that was applied after a newer one."""

    subject: str
    slot: int
    """The worker that sent it."""
    revision: int
    newest: int
    """Had been applied before."""
    attempt: int
    """Its number in the provider's log."""
    received_at: datetime
    applied_at: datetime
    fault: str | None


class Difference(Struct, frozen=True):
    """An order that is not held as it must be; `None`: no update of it was ever applied."""

    subject: str
    expected_minor: tuple[int, int]
    held_minor: tuple[int, int] | None
    revision: int
    relapsed: bool


class MerchantReport(Struct, kw_only=True):
    """How things are at Qliro or AtaraPay."""

    account: str
    orders: int
    attempts: int
    faults: dict[str, int]
    pushes: dict[str, int]
    differing: int
    """Orders; −1: they were not compared."""
    differences: list[str]
    violations: list[str]
    """Money that moved twice, or a step back to an older state."""


class Report(Struct, kw_only=True):
    """All that the providers have to say; what is not of a merchant is of seQura."""

    attempts: int = 0
    applied: int = 0
    repeats: int = 0
    """Applied again at the same revision."""
    faults: dict[str, int] = {}
    statuses: dict[str, int] = {}
    relapses: list[Relapse] = []
    relapse_count: int = 0
    oddities: list[str] = []
    """What no right sender does, relapses apart."""
    late_max_s: float = 0.0
    """How late this process was at worst: so much of `settle` was not the network's."""
    differing: int = -1
    """Orders; −1: nobody has said yet what is expected."""
    differences: list[Difference] = []
    pushes: dict[str, int] = {}
    merchants: list[MerchantReport] = []
    redelivered: list[tuple[str, bytes]] = []
    """Subject and value of events that shops write as an answer, since the last report."""
    taken: dict[str, list[str]] = {}
    """By subject, which callbacks the receivers have taken, in the provider's words; only where orders are compared."""

    @property
    def taken_count(self) -> int:
        """Callbacks of all providers that were taken."""
        return sum(of.get("taken", 0) for of in (self.pushes, *(merchant.pushes for merchant in self.merchants)))


class Recorder:
    """Follows a provider; everything by the numbers of the orders."""

    def __init__(self, orders: int, log_file: Path) -> None:
        self.applied_count = self.repeat_count = self.relapse_count = 0
        self.relapses: list[Relapse] = []
        self.oddities: Counter[str] = Counter()
        self._relapsed: set[int] = set()
        self._revisions = array("q", [0]) * orders
        self._digests = bytearray(DIGEST_BYTES * orders)
        self._shipped = array("q", [0]) * orders
        self._unshipped = array("q", [0]) * orders
        self._expected: tuple[bytes, array[int]] | None = None
        self._log = log_file.open("wb", buffering=1 << 20)

    def applied(self, slot: int, attempt: Attempt, key: tuple[str, str], body: bytes) -> None:
        """An update was taken over, just now."""
        assert attempt.applied_at is not None
        self.applied_count += 1
        subject, revision = _named(attempt)
        self._note("applied", slot, attempt, revision)
        if subject != "/".join(key):
            self.oddities[f"Idempotency-Key {attempt.idempotency_key} on the URL of {'/'.join(key)}"] += 1
            return
        number = number_of(subject)
        told, newest = update_in(body), self._revisions[number]
        if revision == newest:
            self.repeat_count += 1
            if self._told(number) != told:
                self.oddities[f"two contents of revision {revision} of {subject}"] += 1
        elif revision < newest:
            self.relapse_count += 1
            self._relapsed.add(number)
            times = attempt.received_at, attempt.applied_at
            self.relapses.append(Relapse(subject, slot, revision, newest, attempt.number, *times, attempt.fault))
        else:
            self._relapsed.discard(number)
            self._revisions[number] = revision
        self._digests[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES] = told.digest
        self._shipped[number], self._unshipped[number] = told.shipped_minor, told.unshipped_minor

    def ended(self, slot: int, attempt: Attempt, status: int | None) -> None:
        """An attempt was answered, reset, or given up by the client."""
        _, revision = _named(attempt)
        self._note(f"answered {status}" if status else "not answered", slot, attempt, revision)

    def _note(self, what: str, slot: int, attempt: Attempt, revision: int) -> None:
        line = {
            "n": attempt.number,
            "what": what,
            "slot": slot,
            "order": f"{attempt.merchant}/{attempt.order_ref}",
            "revision": revision,
            "fault": attempt.fault,
            "received": attempt.received_at,
            "at": attempt.applied_at if what == "applied" else attempt.ended_at,
        }
        self._log.write(_encode(line) + b"\n")

    def expect(self, file: Path) -> None:
        """Takes what must be held from now on, as `write_expected` left it."""
        content = file.read_bytes()
        split = len(self._revisions) * DIGEST_BYTES
        totals = array("q")
        totals.frombytes(content[split:])
        self._expected = content[:split], totals

    def differing(self) -> list[int]:
        """The numbers of the orders that are not held as they must be."""
        assert self._expected is not None
        digests, totals = self._expected
        size = DIGEST_BYTES
        return [
            number
            for number in range(len(self._revisions))
            if self._digests[number * size : (number + 1) * size] != digests[number * size : (number + 1) * size]
            or self._shipped[number] != totals[2 * number]
            or self._unshipped[number] != totals[2 * number + 1]
        ]

    def report(self) -> Report:
        """Everything so far."""
        self._log.flush()
        numbers = [] if self._expected is None else self.differing()
        return Report(
            applied=self.applied_count,
            repeats=self.repeat_count,
            relapses=self.relapses[:_RELAPSES_MAX],
            relapse_count=self.relapse_count,
            oddities=[f"{text} ({count} ×)" for text, count in self.oddities.most_common(SHOWN_MAX)],
            differing=-1 if self._expected is None else len(numbers),
            differences=[self._difference(number) for number in numbers[:SHOWN_MAX]],
        )

    def _difference(self, number: int) -> Difference:
        assert self._expected is not None
        _, totals = self._expected
        revision = self._revisions[number]
        held = (self._shipped[number], self._unshipped[number]) if revision else None
        expected = totals[2 * number], totals[2 * number + 1]
        return Difference(subject_of(number), expected, held, revision, number in self._relapsed)

    def _told(self, number: int) -> Expected:
        digest = bytes(self._digests[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES])
        return Expected(self._shipped[number], self._unshipped[number], digest)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self._log.close()


def write_expected(file: Path, expected: list[Expected]) -> None:
    """What must be held of orders 0, 1, …: their digests, then their totals."""
    totals = array("q", [minor for of in expected for minor in (of.shipped_minor, of.unshipped_minor)])
    assert totals.itemsize == _WORD_BYTES
    file.write_bytes(b"".join(of.digest for of in expected) + totals.tobytes())


def _named(attempt: Attempt) -> tuple[str, int]:
    """The subject and the revision in the Idempotency-Key; a generation may stand behind them."""
    subject, _, numbers = (attempt.idempotency_key or "").partition(":")
    revision = numbers.partition(":")[0]
    return unquote(subject), int(revision) if revision.isdecimal() else -1
