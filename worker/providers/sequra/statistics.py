"""seQura's statistics: all orders that were completed in the last 7 days, however they were paid. Pure.

Source: docs.sequra.com, Delivery Report and Statistics (2026-10).
"""

from datetime import UTC, datetime, timedelta

from msgspec import UNSET, msgpack

from schemas.base import parse_time_us
from schemas.events import ObservedData
from schemas.facts import Confirmation, Facts
from worker.model.order import Order
from worker.providers.sequra import wire
from worker.providers.sequra.rendering import wire_reference

WINDOW_MS = 7 * 86_400_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_observed = msgpack.Decoder(ObservedData)


def statistics_of(reference: str, facts: Facts, order: Order | None, now_ms: int) -> wire.StatisticsEntry | None:
    """An order's entry; `None`: it was not completed in the last 7 days, or the time is unknown.

    `order`: the desired state, if the facts give one. Confirmed orders are seQura's; other orders are known only from
    `order.observed`, which adds details to confirmed ones, too.
    """
    seen = None if facts.observed is None else _observed.decode(facts.observed[1])
    if facts.confirmation is not None:
        completed_us = facts.confirmation.stamp[1]
    elif seen is not None:
        completed_us = parse_time_us(seen.completed_at)
    else:
        return None
    if completed_us < (now_ms - WINDOW_MS) * 1000:
        return None
    completed_at = (_EPOCH + timedelta(microseconds=completed_us)).isoformat()
    if facts.confirmation is None:
        assert seen is not None  # otherwise the completion time would be unknown
        return _of_others(reference, seen, completed_at)
    return _of_ours(reference, facts.confirmation, order, seen, completed_at)


def _of_others(reference: str, seen: ObservedData, completed_at: str) -> wire.StatisticsEntry:
    return wire.StatisticsEntry(
        completed_at,
        seen.currency,
        wire.MerchantReference(reference),
        seen.amount_minor,
        seen.payment_method,
        seen.country,
        seen.device,
        seen.status,
        seen.raw_status,
        seen.sequra_offered,
    )


def _of_ours(
    reference: str, confirmation: Confirmation, order: Order | None, seen: ObservedData | None, completed_at: str
) -> wire.StatisticsEntry:
    """For an inconsistent order, only the confirmation."""
    address = None if order is None else order.details.delivery_address
    return wire.StatisticsEntry(
        completed_at,
        confirmation.currency,
        wire.MerchantReference(reference) if order is None else wire_reference(order),
        confirmation.total_minor if order is None else order.shipped.total_minor + order.unshipped.total_minor,
        "SQ",
        UNSET if address is None else address.country_code,
        UNSET if seen is None else seen.device,
        UNSET if order is None else _status(order),
        UNSET if seen is None else seen.raw_status,
        UNSET if seen is None else seen.sequra_offered,
    )


def _status(order: Order) -> str:
    if order.unshipped.items:
        return "processing"
    return "shipped" if order.shipped.items else "cancelled"
