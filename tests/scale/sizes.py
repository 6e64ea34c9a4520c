"""Orders that grow: what the axes of lines and of shipments share."""

import time
from collections.abc import Iterator
from importlib import import_module

from schemas import state
from schemas.state import OrderRecord
from tests.bench.owed import record_of
from tests.bench.processes import Line
from tests.bench.sending import account_at
from tests.scale.measuring import Point
from tests.scale.settling import point, settle, settled
from tests.shops.load import subject_of
from worker.core.intake import decode
from worker.core.record import apply_event
from worker.model.provider import Destination
from worker.providers.registry import PROVIDERS

KINDS = 20
"""Orders that differ; each stands in the log as often as it takes."""
TIMES = 20
"""The last event of each is taken."""


async def measure_sizes(axis: str, x: float) -> Point:
    """One point of such an axis: as many orders as make about the same work."""
    orders = max(500, min(10_000, int(60_000 / x)))
    reading = await settled("tests.scale.sizes:ours", {"axis": axis, "size": int(x), "orders": orders})
    return point(x, orders, reading, own=reading["event_us"])


async def ours(line: Line, base_url: str, axis: str, size: int, orders: int) -> None:
    """Says besides what an order's last event takes, record to record: `event_us`."""
    account = account_at(base_url)
    destination = Destination(account, PROVIDERS[account.provider])
    histories = [list(import_module(f"tests.scale.{axis}").events(number, size)) for number in range(KINDS)]
    event_us = min(_event_us(events, destination) for events in histories)
    records = [record_of(events, destination) for events in histories]

    def owed() -> Iterator[tuple[int, str, OrderRecord]]:
        for number in range(orders):
            yield number, subject_of(number), records[number % KINDS]

    line.say(await settle({account.name: account}, owed()) | {"event_us": event_us})


def _event_us(events: list[bytes], destination: Destination) -> float:
    """Of the last one: from the bytes of the event and of the order's record to those of its next."""
    before = state.encode(record_of(events[:-1], destination))
    position = len(events) - 1
    began = time.process_time()
    for _ in range(TIMES):
        event = decode(b"key", events[-1], {}, 2**42)
        assert event is not None
        record = state.decode_order(before)
        after = apply_event(record, event, position=position, revision=position + 1, now_ms=1, destination=destination)
        state.encode(after)
    return 1e6 * (time.process_time() - began) / TIMES
