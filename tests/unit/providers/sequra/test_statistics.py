"""What seQura's statistics are told of an order."""

from typing import Any

import msgspec
import pytest

from schemas.facts import Facts
from tests.shops.events import REFERENCE, START, START_MS, EventSpec, cancelled, confirmed, facts_of, goods, shipped
from tests.unit.core import samples
from worker.core.order import assess
from worker.providers.sequra.statistics import WINDOW_MS, statistics_of

OBSERVED: dict[str, Any] = {
    "completed_at": "2026-02-27T10:00:00+01:00",
    "currency": "EUR",
    "amount_minor": 4200,
    "payment_method": "O/bizum",
    "country": "PT",
    "device": "tablet/ipad4",
    "status": "processing",
    "raw_status": "new",
    "sequra_offered": True,
}
ONE = confirmed(goods("A", 2, 200), delivery_address=samples.ADDRESS, references={"secondary": "S-7"})


def told(*specs: EventSpec, now_ms: int = START_MS) -> dict[str, Any] | None:
    """The entry of an order, as it is sent."""
    facts: Facts = facts_of(*specs)
    entry = statistics_of(REFERENCE, facts, assess(facts, REFERENCE).order, now_ms)
    return None if entry is None else msgspec.to_builtins(entry)


def observed(**members: Any) -> EventSpec:
    """`order.observed`; a member that is None is left out."""
    data = {name: value for name, value in (OBSERVED | members).items() if value is not None}
    return EventSpec("order.observed", data)


def test_order_of_ours() -> None:
    """Completed when it was confirmed, paid with seQura, worth both carts."""
    assert told(ONE) == {
        "completed_at": START.replace(second=1).isoformat(),
        "currency": "EUR",
        "merchant_reference": {"order_ref_1": REFERENCE, "order_ref_2": "S-7"},
        "amount": 200,
        "payment_method": "SQ",
        "country": "ES",
        "status": "processing",
    }


@pytest.mark.parametrize(
    ("specs", "status"),
    [
        ([], "processing"),
        ([shipped("s1", A=1)], "processing"),
        ([shipped("s1", A=2)], "shipped"),
        ([cancelled()], "cancelled"),
    ],
)
def test_status(specs: list[EventSpec], status: str) -> None:
    """By its carts."""
    found = told(ONE, *specs)
    assert found is not None
    assert found["status"] == status


def test_contradictory_order_of_ours() -> None:
    """It was completed, and what it is worth now cannot be said: it is what was confirmed."""
    found = told(ONE, shipped("s1", A=3))
    assert found == {
        "completed_at": START.replace(second=1).isoformat(),
        "currency": "EUR",
        "merchant_reference": {"order_ref_1": REFERENCE},
        "amount": 200,
        "payment_method": "SQ",
    }


def test_order_of_another_method() -> None:
    """Only what was observed."""
    expected = {name: value for name, value in OBSERVED.items() if name != "amount_minor"} | {"amount": 4200}
    expected |= {"completed_at": "2026-02-27T09:00:00+00:00", "merchant_reference": {"order_ref_1": REFERENCE}}
    assert told(observed()) == expected
    few = told(observed(**dict.fromkeys(OBSERVED.keys() - {"completed_at", "currency"})))
    assert few is not None
    assert set(few) == {"completed_at", "currency", "merchant_reference"}


def test_order_of_ours_that_was_observed() -> None:
    """It is one of seQura's all the same; the shop knows its device."""
    found = told(observed(), ONE)
    assert found is not None
    assert (found["payment_method"], found["amount"], found["country"]) == ("SQ", 200, "ES")
    assert (found["device"], found["raw_status"], found["sequra_offered"]) == ("tablet/ipad4", "new", True)


def test_seven_days() -> None:
    """Up to the second."""
    completed_ms = START_MS + 1000
    assert told(ONE, now_ms=completed_ms + WINDOW_MS) is not None
    assert told(ONE, now_ms=completed_ms + WINDOW_MS + 1) is None
    assert told(observed(completed_at="2026-02-20T00:00:00Z")) is None
    assert told(shipped("s1", A=1)) is None
