"""What the sandbox provider pays out: disbursements of what it holds of each order. No HTTP, no faults.

Vendor facts: docs.sequra.com, Disbursement API, read 2026-10: over all disbursements of an order its lines add up to
its shipped cart, and one is below 0 when something was taken back. Ours, for want of documentation: what the lines of a
detail are wrapped in.
"""

from collections.abc import Mapping
from datetime import date
from typing import Any
from urllib.parse import quote
from uuid import NAMESPACE_URL, uuid5

import msgspec

from worker.sandbox.attempts import Answer


class Payouts:
    """All disbursements of one merchant."""

    def __init__(self, merchant: str) -> None:
        self._root = f"/merchants/{quote(merchant, safe='')}/disbursements"
        self._paid: dict[str, int] = {}
        """By order reference, in cents."""
        self._maximum: dict[str, int] = {}
        self._issued: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {}
        """By path, as the list has it, and its lines."""

    def issue(self, shipped: Mapping[str, int], day: date) -> str:
        """Pays, or takes back, what differs from what was paid before. `shipped`: by order reference, the total of its
        shipped cart in cents. Returns the path; empty: nothing differs.
        """
        lines: list[dict[str, Any]] = []
        for reference, minor in shipped.items():
            self._maximum[reference] = maximum = max(minor, self._maximum.get(reference, 0))
            amount = minor - self._paid.get(reference, 0)
            if amount:
                self._paid[reference] = minor
                line = {"order_ref_1": reference, "amount_with_tax": amount, "maximum_amount_with_tax": maximum}
                lines.append(line)
        if not lines:
            return ""
        number = len(self._issued) + 1
        path = f"{self._root}/{uuid5(NAMESPACE_URL, f'{self._root}/{number}')}"
        told = {
            "issue_date": day.isoformat(),
            "to_date": day.isoformat(),
            "currency": "EUR",
            "disbursed_amount": sum(line["amount_with_tax"] for line in lines),
            "adjustments_with_tax": 0,
            "reference": f"{number:013d}",
            "path": path,
        }
        self._issued[path] = (told, lines)
        return path

    def answer(self, path: str) -> Answer | None:
        """What a request for the list, or for one of them, is answered; None: there is no such one."""
        if path == self._root:
            listed = [{"disbursement": told} for told, _ in reversed(self._issued.values())]
            return Answer(200, msgspec.json.encode(listed))
        if path not in self._issued:
            return None
        told, lines = self._issued[path]
        return Answer(200, msgspec.json.encode({"disbursement": {**told, "lines": lines}}))
