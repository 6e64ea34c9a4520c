"""Orders whose events a test writes by hand, and what the provider calls them."""

from collections.abc import Awaitable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import unquote

import msgspec

from worker.sandbox.attempts import Attempt
from worker.tools.shop import History

ACCOUNT, OTHER_ACCOUNT = "camisas", "zapatos"
"""What stands before the first slash in a subject."""
MERCHANTS = {ACCOUNT: "camisasonline", OTHER_ACCOUNT: "zapatosonline"}
"""By account, what seQura calls it."""

Carts = tuple[int, int]
"""(shipped, unshipped), in minor units."""


class Write(Protocol):
    """Writes one record into the event topic."""

    def __call__(self, key: bytes | None, value: bytes | None) -> Awaitable[None]: ...


class ShopOrder:
    """One order whose events a test writes by hand, each with the next sequence."""

    def __init__(self, write: Write, subject: str, told: int = 0) -> None:
        """`told`: events that were written before."""
        self.subject = subject
        self._write = write
        self._count = told

    def event(self, kind: str, data: Mapping[str, Any]) -> bytes:
        """The next event."""
        self._count += 1
        return msgspec.json.encode(
            {
                "specversion": "1.0",
                "id": f"{self.subject}#{self._count}",
                "source": "/shops/camisas",
                "type": f"order.{kind}",
                "time": datetime.now(UTC),
                "subject": self.subject,
                "sequence": str(self._count),
                "data": data,
            }
        )

    async def tell(self, kind: str, **data: Any) -> None:
        """Writes the next event."""
        await self._write(self.subject.encode(), self.event(kind, data))

    async def confirm(self, *lines: Mapping[str, Any]) -> None:
        """The provider has approved it."""
        await self.tell("confirmed", currency="EUR", lines=list(lines))

    async def ship(self, shipment_id: str, **units: int) -> None:
        """Some of it was sent."""
        await self.tell("items_shipped", shipment_id=shipment_id, lines=_units(units))

    async def take_back(self, return_id: str, **units: int) -> None:
        """Some of it came back."""
        await self.tell("items_returned", return_id=return_id, lines=_units(units))


def line(reference: str, unit_price_minor: int, quantity: int = 1, name: str = "") -> dict[str, Any]:
    """A line of goods."""
    return {
        "reference": reference,
        "name": name or reference,
        "quantity": quantity,
        "unit_price_minor": unit_price_minor,
        "total_minor": quantity * unit_price_minor,
    }


def at_provider(subject: str) -> tuple[str, str]:
    """What the provider calls an order: merchant and reference."""
    account, _, reference = subject.partition("/")
    return MERCHANTS[account], reference


def key_of(attempt: Attempt) -> tuple[str, int]:
    """The subject and the revision in the request's Idempotency-Key; a generation may stand behind them."""
    assert attempt.idempotency_key is not None
    subject, revision, *_ = attempt.idempotency_key.split(":")
    return unquote(subject), int(revision)


def wanted_of(histories: Sequence[History]) -> dict[str, Carts | None]:
    """What the provider must hold in the end of all that shops did."""
    return {subject: order.carts_minor() for history in histories for subject, order in history.orders.items()}


def wanted_after_a_kill(histories: Sequence[History]) -> dict[str, Carts | None]:
    """The same of orders that are told in any case. A confirmation alone is not; but one that was owed when its worker
    died may have been sent, so it is told what it is: which orders these are depends on the moment of the kill.
    """
    return {subject: carts for subject, carts in wanted_of(histories).items() if carts is not None}


def _units(units: Mapping[str, int]) -> list[dict[str, Any]]:
    return [{"line_id": line_id, "quantity": quantity} for line_id, quantity in units.items()]
