"""Reads orders from the state topic, for people: what is committed, whoever serves it, and when nobody does."""

import asyncio
import sys
import time
from collections.abc import Callable, Collection

from schemas import state
from schemas.views import OrderView
from worker.config import KafkaSection, WorkerSection
from worker.core.outbox import account_of
from worker.core.view import view_order
from worker.kafka.settings import KafkaSettings
from worker.kafka.state import find_orders, find_value

_TELL_EVERY_S = 1.0
_CONNECT_S = 10.0
"""A person waits for it."""


def read_orders(
    ref: str, kafka: KafkaSection, worker: WorkerSection, accounts: Collection[str] = ()
) -> list[OrderView]:
    """The orders that `ref` may mean: `account/reference`, or a reference of any account.

    `accounts`: those that are configured, as far as that is known; empty: it is not.
    Raises `ConfigError`, `TopicError` or `LogError`.
    """

    def wanted(subject: str) -> bool:
        return ref in (subject, subject.partition("/")[2])

    found = asyncio.run(find_orders(_patient(kafka), wanted, _teller(kafka.state_topic)))
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
            is_configured=not accounts or account_of(subject) in accounts,
        )
        for partition, subject, value in found
    ]


def read_owner(partition: int, kafka: KafkaSection) -> str | None:
    """Who has taken a partition last; `None`: nobody. Raises as `read_orders` does."""
    value = asyncio.run(find_value(_patient(kafka), partition, state.OWNER_KEY, _teller(kafka.state_topic)))
    return None if value is None else state.decode_owner(value).owner


def _patient(kafka: KafkaSection) -> KafkaSettings:
    return KafkaSettings(**kafka.members() | {"connect_timeout_s": min(kafka.connect_timeout_s, _CONNECT_S)})


def _teller(topic: str) -> Callable[[int, int], None]:
    """Says now and then how far the reading is."""
    told_at = time.monotonic()

    def tell(behind: int, total: int) -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= _TELL_EVERY_S:
            told_at = time.monotonic()
            sys.stderr.write(f"reading {topic}: {behind} of {total}\n")

    return tell
