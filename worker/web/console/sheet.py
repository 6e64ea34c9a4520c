"""Lists of orders as CSV. Pure."""

import csv
import io
from typing import Any

from schemas.console import OrderRow
from worker.web.console.rows import shown_time

HEADER = [
    *("order", "account", "status", "reason", "currency", "shipped_minor", "unshipped_minor", "paid_minor", "paid"),
    *("differs", "on_hold", "revision", "acknowledged", "changed_at", "waiting_since", "partition"),
]


def csv_lines(lines: list[list[Any]]) -> bytes:
    """RFC 4180."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n", quoting=csv.QUOTE_ALL).writerows(lines)
    return text.getvalue().encode("utf-8", "backslashreplace")


def cell(value: Any) -> Any:
    """What a spreadsheet shows, and never takes for a formula."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%"):
        return f"'{value}"
    return value


def csv_row(row: OrderRow) -> list[Any]:
    """The cells below `HEADER`."""
    return [
        cell(each)
        for each in (
            row.subject,
            row.account,
            row.status,
            row.reason,
            row.currency,
            row.shipped_minor,
            row.unshipped_minor,
            row.paid_minor,
            row.paid,
            "yes" if row.differs else "no",
            "yes" if row.on_hold else "no",
            row.revision,
            row.acked,
            shown_time(row.changed_ms),
            "" if row.waiting_since_ms is None else shown_time(row.waiting_since_ms),
            row.partition,
        )
    ]
