"""What the sandbox provider has paid out: a list of disbursements, and the lines of each. No HTTP, no faults.

Vendor facts: docs.sequra.com, Disbursement API (read 2026-10). Over all disbursements, the lines of an order add up to
its shipped cart. Ours, for want of documentation: what the lines of a detail are wrapped in.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any
from urllib.parse import quote
from uuid import NAMESPACE_URL, uuid5

import msgspec


class Owed(msgspec.Struct, frozen=True):
    """What an order comes to. Minor units with tax."""

    shipped_minor: int
    total_minor: int


class Disbursements:
    """Those of one merchant."""

    def __init__(self, merchant: str) -> None:
        self.issued: list[dict[str, Any]] = []
        """As the list has them."""
        self.lines: dict[str, list[dict[str, Any]]] = {}
        """By path."""
        self.paid: Counter[str] = Counter()
        """By order reference."""
        self._most: dict[str, int] = {}
        self._merchant = merchant

    def issue(self, owed: Mapping[str, Owed], currency: str, on: date, off: Mapping[str, int]) -> str:
        """Pays what orders come to less what was paid of them, up to and with that day; the path. `off`: by how much
        the lines of orders are wrong.
        """
        path = f"/merchants/{quote(self._merchant, safe='')}/disbursements/"
        path += str(uuid5(NAMESPACE_URL, f"{self._merchant}/{len(self.issued)}"))
        lines = []
        for reference, of in owed.items():
            most = self._most[reference] = max(of.total_minor, self._most.get(reference, 0))
            minor = of.shipped_minor - self.paid[reference] + off.get(reference, 0)
            if minor:
                self.paid[reference] += minor
                line = {"order_ref_1": reference, "amount_with_tax": minor, "maximum_amount_with_tax": most}
                lines.append(line)
        self.lines[path] = lines
        self.issued.append(
            {
                "issue_date": on.isoformat(),
                "to_date": on.isoformat(),
                "currency": currency,
                "disbursed_amount": _sum(lines),
                "adjustments_with_tax": 0,
                "reference": f"{len(self.issued):013}",
                "path": path,
            }
        )
        return path

    def answer(self, path: str) -> bytes | None:
        """The list, or the lines of one; `None`: there is no such thing."""
        if path == f"/merchants/{quote(self._merchant, safe='')}/disbursements":
            return msgspec.json.encode([{"disbursement": each} for each in self.issued])
        lines = self.lines.get(path)
        return None if lines is None else msgspec.json.encode({"disbursement": {"lines": lines}})


def _sum(lines: Iterable[dict[str, Any]]) -> int:
    return sum(line["amount_with_tax"] for line in lines)
