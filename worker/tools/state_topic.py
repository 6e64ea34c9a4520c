"""Reads orders from the state topic, for people: what is committed, whoever serves it, and when nobody does."""

import asyncio
import sys
import time

from schemas import state
from schemas.views import OrderView
from worker.config import KafkaSection, WorkerSection
from worker.core.view import view_order
from worker.kafka.settings import KafkaSettings
from worker.kafka.state import find_orders

_TELL_EVERY_S = 1.0
_CONNECT_S = 10.0
"""A person waits for it."""


def read_orders(ref: str, kafka: KafkaSection, worker: WorkerSection) -> list[OrderView]:
    """The orders that `ref` may mean: `account/reference`, or a reference of any account.

    Raises `ConfigError`, `TopicError` or `LogError`.
    """
    told_at = time.monotonic()

    def tell(behind: int, total: int) -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= _TELL_EVERY_S:
            told_at = time.monotonic()
            sys.stderr.write(f"reading {kafka.state_topic}: {behind} of {total}\n")

    def wanted(subject: str) -> bool:
        return ref in (subject, subject.partition("/")[2])

    settings = KafkaSettings(**kafka.members() | {"connect_timeout_s": min(kafka.connect_timeout_s, _CONNECT_S)})
    found = asyncio.run(find_orders(settings, wanted, tell))
    now_ms = time.time_ns() // 1_000_000
    holders: dict[str, list[int]] = {}
    for partition, subject, _ in found:
        holders.setdefault(subject, []).append(partition)
    return [
        view_order(
            subject,
            state.decode_order(value),
            partition=partition,
            rules=worker.rules(),
            now_ms=now_ms,
            idle="it waits for the worker that serves its partition",
            also_in=[other for other in holders[subject] if other != partition],
        )
        for partition, subject, value in found
    ]
