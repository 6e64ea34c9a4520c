"""`cartsync state export`: every order, and how far each partition is, as JSON lines."""

import asyncio
import sys
import time
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

import msgspec

from schemas import state
from schemas.commands import ExportedOrder, ExportedPartition, PersonalPart
from schemas.state import OrderRecord
from schemas.views import ItemView
from worker.backend import open_state_scan
from worker.config.console import ConsoleConfig
from worker.core.policy import DeliveryPolicy
from worker.core.view import view_order
from worker.providers.registry import describer
from worker.tools.patience import for_a_person
from worker.tools.walking import Walk
from worker.web.console.rows import Describe, order_line, order_row


def run_export(config: ConsoleConfig, *, personal: bool) -> int:
    """Prints it; 0, or 72 when a record was not one that cartsync wrote. `personal`: with what may say who somebody is.

    Raises `TopicError`, `ConfigError`, `LogError`.
    """
    return asyncio.run(_export(config, personal))


async def _export(config: ConsoleConfig, personal: bool) -> int:
    parts: dict[int, dict[bytes, bytes]] = {}

    def note(partition: int, key: bytes, value: bytes | None) -> None:
        if key in (state.NEXT_KEY, state.OWNER_KEY) and value is not None:
            parts.setdefault(partition, {})[key] = value

    rules, describe = config.worker.rules(), describer(config.providers)
    now_ms = time.time_ns() // 1_000_000

    def make(subject: str, partition: int, value: bytes) -> ExportedOrder:
        return exported(subject, partition, value, rules, describe, now_ms, personal=personal)

    scan = open_state_scan(for_a_person(config.kafka), lambda _subject: True, note)
    walk = Walk(scan, make, "exported")
    await scan.start()
    for partition in range(scan.partitions):
        count = 0
        async with aclosing(walk.over(partition)) as lines:
            async for line in lines:
                count += 1
                sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
        sys.stdout.write(msgspec.json.encode(_part(partition, parts.get(partition, {}), count)).decode() + "\n")
        sys.stdout.flush()
    return walk.exit_code


def exported(
    subject: str,
    partition: int,
    value: bytes,
    rules: DeliveryPolicy,
    describe: Describe,
    now_ms: int,
    *,
    personal: bool,
) -> ExportedOrder:
    """The line of an order. Raises `msgspec.MsgspecError` when the record is none."""
    record = state.decode_whole(value)
    row = order_row(order_line(subject, partition, 0, value, rules=rules, now_ms=now_ms, describe=describe))
    view = view_order(subject, record, partition=partition, rules=rules, now_ms=now_ms)
    carts = [
        None if cart is None else [_item(item, personal) for item in cart] for cart in (view.shipped, view.unshipped)
    ]
    part = PersonalPart(view.reason, _details(record), view.provider) if personal else None
    return ExportedOrder(row, carts[0], carts[1], record.event_id, record.may_land_late, record.remote_unknown, part)


def _item(item: ItemView, personal: bool) -> ItemView:
    return item if personal else msgspec.structs.replace(item, name=None)


def _details(record: OrderRecord) -> dict[str, Any]:
    return {name: msgspec.msgpack.decode(packed) for name, (_, packed) in record.facts.details.items()}


def _part(partition: int, found: Mapping[bytes, bytes], count: int) -> ExportedPartition:
    """How far a partition is; members that cannot be read are as if they were not there."""
    taken = _decoded(state.decode_next, found.get(state.NEXT_KEY))
    owner = _decoded(state.decode_owner, found.get(state.OWNER_KEY))
    return ExportedPartition(
        partition,
        count,
        None if taken is None else taken.offset,
        0 if taken is None else taken.topic_epoch,
        taken is not None and taken.clean,
        "" if owner is None else owner.owner,
        "" if taken is None else taken.version,
    )


def _decoded(decode: Any, value: bytes | None) -> Any:
    try:
        return None if value is None else decode(value)
    except msgspec.MsgspecError:
        return None
