"""`cartsync orders list`: the orders of the state topic that match, as the console's list has them, one by one.

Reads the topic partition by partition (`kafka.scan`), so memory holds the keys of one partition, not the orders.
"""

import asyncio
import sys
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, Literal

import msgspec

from schemas.console import OrderRow
from worker.backend import open_state_scan
from worker.config.console import ConsoleConfig
from worker.core.amounts import count_text
from worker.ports import StateScan
from worker.providers.registry import describer
from worker.tools.control import printable
from worker.tools.patience import for_a_person
from worker.tools.walking import Walk
from worker.web.console.amounts import age, money
from worker.web.console.queries import Filter, matches, may_match
from worker.web.console.rows import OrderLine, order_line, order_row
from worker.web.console.sheet import HEADER, csv_lines, csv_row

Form = Literal["text", "json", "csv"]


def run_list(config: ConsoleConfig, wanted: Filter, form: Form) -> int:
    """Prints the orders that match; 0, or 72 when a record was not one that cartsync wrote. Raises `TopicError`,
    `ConfigError` or `LogError`.
    """
    scan = open_state_scan(for_a_person(config.kafka), lambda subject: may_match(wanted, subject, config.providers))
    return asyncio.run(_list(config, wanted, form, scan))


async def _list(config: ConsoleConfig, wanted: Filter, form: Form, scan: StateScan) -> int:
    rules, describe = config.worker.rules(), describer(config.providers)
    now_ms = time.time_ns() // 1_000_000
    out, write = sys.stdout, _WRITERS[form]

    def make(subject: str, partition: int, value: bytes) -> OrderLine:
        return order_line(subject, partition, 0, value, rules=rules, now_ms=now_ms, describe=describe)

    walk = Walk(scan, make, "read")
    await scan.start()
    if form == "csv":
        out.write(csv_lines([HEADER]).decode())
    found = 0
    async with aclosing(walk.everywhere()) as lines:
        async for line in lines:
            if matches(wanted, line, config.providers, now_ms):
                found += 1
                out.write(write(order_row(line), now_ms))
    out.flush()
    if form == "text":
        sys.stderr.write(f"{count_text(found, 'order')}\n")
    if not found and config.providers and (strange := sorted(set(wanted.accounts) - config.providers.keys())):
        known = ", ".join(sorted(config.providers))
        sys.stderr.write(f"account {', '.join(map(printable, strange))} is not configured; configured are: {known}\n")
    return walk.exit_code


def _as_text(row: OrderRow, now_ms: int) -> str:
    waits = "" if row.waiting_since_ms is None else age((now_ms - row.waiting_since_ms) / 1000)
    carts = ""
    if row.shipped_minor is not None:
        carts = f"{money(row.shipped_minor, row.currency)} + {money(row.unshipped_minor, row.currency)}"
    marks = [mark for mark, is_so in (("on hold", row.on_hold), ("amounts differ", row.differs)) if is_so]
    words = "; ".join(filter(None, [printable(row.reason), *marks]))
    return f"{printable(row.subject):<32}  {row.status:<12}  {waits:>10}  {carts:<26}  {words}".rstrip() + "\n"


def _as_json(row: OrderRow, _now_ms: int) -> str:
    return msgspec.json.encode(row).decode() + "\n"


def _as_csv(row: OrderRow, _now_ms: int) -> str:
    line: list[Any] = csv_row(row)
    return csv_lines([line]).decode()


_WRITERS: dict[Form, Callable[[OrderRow, int], str]] = {"text": _as_text, "json": _as_json, "csv": _as_csv}
