"""Reads committed orders from the state topic for operators, even if no worker serves them."""

import asyncio
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from msgspec import MsgspecError

from schemas import state
from schemas.state import OrderRecord
from schemas.views import OrderView
from worker.backend import find_orders, find_value
from worker.config import KafkaSection, WorkerSection
from worker.core.view import view_order
from worker.errors import DamagedStateError
from worker.model.account import Account
from worker.model.order import account_of
from worker.providers.registry import PROVIDERS
from worker.tools.control import means
from worker.tools.patience import for_a_person

_TELL_EVERY_S = 1.0


def read_orders(
    ref: str, kafka: KafkaSection, worker: WorkerSection, accounts: Mapping[str, Account] = {}
) -> list[OrderView]:
    """The orders that match `ref`: `account/reference`, or a reference of any account.

    `accounts`: the configured ones; empty: unknown. Raises `ConfigError`, `TopicError` or `LogError`;
    `DamagedStateError` if cartsync did not write one of them.
    """
    found = asyncio.run(find_orders(for_a_person(kafka), means(ref), teller(kafka.state_topic)))
    now_ms = time.time_ns() // 1_000_000
    holders: dict[str, list[int]] = {}
    for partition, subject, _ in found:
        holders.setdefault(subject, []).append(partition)
    records = [
        (partition, subject, _ours(state.decode_whole, value, partition, f"{state.ORDER_PREFIX}{subject}"))
        for partition, subject, value in found
    ]
    return [
        view_order(
            subject,
            record,
            partition=partition,
            rules=worker.rules(),
            now_ms=now_ms,
            also_in=[other for other in holders[subject] if other != partition],
            is_configured=not accounts or account_of(subject) in accounts,
            known=_known(accounts.get(account_of(subject)), record),
        )
        for partition, subject, record in records
    ]


def _known(account: Account | None, record: OrderRecord) -> dict[str, Any] | None:
    """The adapter's memory of the order at the provider."""
    return None if account is None else PROVIDERS[account.provider].describe(record.remote)


def read_owner(partition: int, kafka: KafkaSection) -> str | None:
    """The last owner of a partition; `None`: none. Raises like `read_orders`."""
    value = asyncio.run(find_value(for_a_person(kafka), partition, state.OWNER_KEY, teller(kafka.state_topic)))
    return None if value is None else _ours(state.decode_owner, value, partition, state.OWNER_KEY.decode()).owner


_Found = TypeVar("_Found")


def _ours(decode: Callable[[bytes], _Found], value: bytes, partition: int, key: str) -> _Found:
    try:
        return decode(value)
    except MsgspecError:
        raise DamagedStateError(
            f"partition {partition} of the state topic: the newest record of the key {key} was not written by "
            "cartsync; see the log of the worker that serves it"
        ) from None


def teller(topic: str) -> Callable[[int, int], None]:
    """Prints the progress from time to time."""
    told_at = time.monotonic()

    def tell(behind: int, total: int) -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= _TELL_EVERY_S:
            told_at = time.monotonic()
            sys.stderr.write(f"reading {topic}: {behind} of {total}\n")

    return tell
