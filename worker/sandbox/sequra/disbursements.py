"""What the sandbox provider pays out, and how it says so. No HTTP, no faults.

Vendor facts: docs.sequra.com, Disbursement API, read 2026-10: over all disbursements the lines of an order add up to
its shipped cart as it is now, and each line says what the order was worth at most. Ours, for want of documentation:
what lines are wrapped in, and that an order of which nothing changed has no line.
"""

from collections.abc import Mapping
from datetime import date
from typing import Any

import msgspec

from worker.sandbox.attempts import Answer
from worker.sandbox.sequra.orders import NOT_FOUND


class Disbursements:
    """Those of one merchant."""

    def __init__(self, merchant: str, currency: str = "EUR") -> None:
        self.paid: dict[str, int] = {}
        """By order reference, in minor units."""
        self.lines: dict[str, list[dict[str, Any]]] = {}
        """By path, in the order in which they were issued."""
        self._listed: list[dict[str, Any]] = []
        self._most: dict[str, int] = {}
        self._prefix = f"/merchants/{merchant}/disbursements"
        self._currency = currency

    def issue(self, worth: Mapping[str, int], on: date) -> str | None:
        """Pays, or takes back, what each order is worth now (its shipped cart, in minor units) and was not paid yet;
        returns the path, `None` when there was nothing to pay.
        """
        lines = []
        for name, amount in worth.items():
            most = self._most[name] = max(amount, self._most.get(name, 0))
            if due := amount - self.paid.get(name, 0):
                self.paid[name] = amount
                lines.append({"order_ref_1": name, "amount_with_tax": due, "maximum_amount_with_tax": most})
        if not lines:
            return None
        path = f"{self._prefix}/{len(self._listed) + 1}"
        self.lines[path] = lines
        listed = {
            "issue_date": on.isoformat(),
            "to_date": on.isoformat(),
            "currency": self._currency,
            "disbursed_amount": sum(line["amount_with_tax"] for line in lines),
            "adjustments_with_tax": 0,
            "reference": f"transfer {len(self._listed) + 1}",
            "path": path,
        }
        self._listed.append({"disbursement": listed})
        return path

    def answer(self, path: str) -> Answer:
        """The list, or one of them."""
        if path == self._prefix:
            return Answer(200, msgspec.json.encode(self._listed))
        if path not in self.lines:
            return NOT_FOUND
        return Answer(200, msgspec.json.encode({"disbursement": {"lines": self.lines[path]}}))
