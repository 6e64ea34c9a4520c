"""What left an order since it was told, shipment by shipment, and the carts in between."""

import pytest

from tests.shops.events import (
    START,
    EventSpec,
    Rows,
    cancelled,
    cart_updated,
    confirmed,
    delivered,
    goods,
    items_cancelled,
    order,
    other,
    refunded,
    retracted,
    returned,
    rows,
    shipped,
    stated,
)
from worker.core.deliveries import STEPS_MAX, deliveries_of
from worker.model.delivery import Deliveries, departures

THREE = confirmed(goods("A", 3, 300), goods("B", 1, 100), other("handling", "H", 80))
START_S = int(START.timestamp())


def found(*specs: EventSpec, told: tuple[str, ...] = ()) -> Deliveries:
    """What left, of an order that was told."""
    return deliveries_of(order(*specs), told)


def steps(deliveries: Deliveries) -> list[Rows | None]:
    """The shipped cart after each delivery."""
    return [None if each.shipped is None else rows(each.shipped.items) for each in deliveries.new]


def at(told: EventSpec, second: int) -> EventSpec:
    """A shipment that left so many seconds after the start."""
    return told._replace(data=told.data | {"shipped_at": f"2026-03-01T00:{second // 60:02}:{second % 60:02}.7Z"})


def test_shipment_by_shipment() -> None:
    """Each has its second and the cart after it; charges go along by value."""
    made = found(THREE, shipped("s1", A=1), shipped("s2", A=2, B=1))
    assert [(each.shipments, each.sent_s - START_S) for each in made.new] == [(["s1"], 2), (["s2"], 3)]
    assert steps(made) == [[("A", 1, 100), ("H", 0, 20)], [("A", 3, 300), ("B", 1, 100), ("H", 0, 80)]]
    assert made.before is not None
    assert made.before.items == []


def test_only_what_was_not_told() -> None:
    """What was told is the cart that the new ones begin with."""
    made = found(THREE, shipped("s1", A=1), shipped("s2", A=2), told=("s1",))
    assert made.before is not None
    assert rows(made.before.items) == [("A", 1, 100), ("H", 0, 20)]
    assert [each.shipments for each in made.new] == [["s2"]]
    assert found(THREE, shipped("s1", A=1), told=("s1",)).new == []


def test_time_of_departure_counts() -> None:
    """`shipped_at` goes before the event's time; those of one second are one."""
    made = found(THREE, at(shipped("s1", A=1), 50), at(shipped("s2", A=1), 7), at(shipped("s3", A=1), 7))
    assert [(each.shipments, each.sent_s - START_S) for each in made.new] == [(["s2", "s3"], 7), (["s1"], 50)]
    assert steps(made)[0] == [("A", 2, 200), ("H", 0, 40)]


def test_retracted_shipment_did_not_leave() -> None:
    """It was never sent."""
    assert found(THREE, shipped("s1", A=1), shipped("s2", A=1), retracted(shipment_id="s1")).new[0].shipments == ["s2"]


@pytest.mark.parametrize("less", [returned("r1", A=1), refunded("f1", 50)])
def test_less_before_anything_was_told(less: EventSpec) -> None:
    """What came back or was paid back cannot be taken off one delivery of several; once one was told, it can."""
    specs = (THREE, shipped("s1", A=1), shipped("s2", A=2), less)
    assert steps(found(*specs)) == [None, None]
    assert None not in steps(found(*specs, told=("s1",)))


def test_a_cart_that_cannot_be_told() -> None:
    """Before the second shipment more had come back than had left: nobody knows the cart then."""
    made = found(THREE, shipped("s1", A=1), shipped("s2", A=2), returned("r1", A=2), told=("s1",))
    assert made.before is None
    assert steps(made) == [[("A", 1, 100), ("H", 0, 80 * 3 // 4)]]


def test_other_changes_have_steps() -> None:
    """The newest content counts for all deliveries."""
    assert steps(found(THREE, shipped("s1", A=1), cart_updated(goods("A", 3, 270)))) == [[("A", 1, 90)]]
    assert len(steps(found(THREE, shipped("s1", A=1), items_cancelled("c1", B=1), shipped("s2", A=1)))) == 2
    assert len(steps(found(THREE, shipped("s1", A=1), cancelled()))) == 1


def test_units_that_were_never_sent_are_in_no_delivery() -> None:
    """What was paid back of them is taken off none, so each delivery stays its own, with its own parcels."""
    specs = (returned("r1", origin="unshipped", A=1), shipped("s1", A=1), shipped("s2", A=1, B=1))
    assert steps(found(THREE, *specs)) == [[("A", 1, 100), ("H", 0, 27)], [("A", 2, 200), ("B", 1, 100), ("H", 0, 80)]]
    assert steps(found(THREE, returned("r1", origin="any", A=1), *specs[1:])) == [None, None]


def test_many_deliveries_are_not_told_apart() -> None:
    """Each step costs as much as the whole order: there is a limit to them."""
    line = confirmed(goods("A", STEPS_MAX + 1, 100 * (STEPS_MAX + 1)))
    made = found(line, *(shipped(f"s{number}", A=1) for number in range(STEPS_MAX + 1)))
    assert steps(made) == [None] * (STEPS_MAX + 1)
    assert None not in steps(found(line, *(shipped(f"s{number}", A=1) for number in range(STEPS_MAX))))


def test_stated_carts_leave_when_they_are_stated() -> None:
    """A shop that tells only its carts has no other departure; they have no steps."""
    made = found(THREE, stated([goods("A", 1, 100)], [goods("A", 2, 200)]))
    (only,) = made.new
    assert (only.sent_s - START_S, only.shipped, only.trackings, only.is_delivered) == (2, None, [], False)
    assert found(THREE, stated([goods("A", 1, 100)], []), told=tuple(only.shipments)).new == []


POSTAL = {"reference": "T1", "type": "postal", "carrier": "UPS"}
ARRIVED = POSTAL | {"reference": "T2", "delivered_at": "2026-03-05T10:00:00Z"}


@pytest.mark.parametrize(
    ("tracking", "more", "expected"),
    [
        (None, [], False),
        ([POSTAL], [], False),
        ([POSTAL, ARRIVED], [], False),
        ([ARRIVED], [], True),
        (None, [delivered("s1")], True),
        ([POSTAL], [delivered("s1")], True),
    ],
)
def test_delivered(tracking: list[dict[str, str]] | None, more: list[EventSpec], expected: bool) -> None:
    """When that was said of the shipment, or of all its parcels; its trackings then say when."""
    (only,) = found(THREE, shipped("s1", tracking, A=1), *more).new
    assert only.is_delivered is expected
    assert [each.reference for each in only.trackings] == [each["reference"] for each in tracking or []]
    assert bool(only.trackings) is False or all(each.delivered_at for each in only.trackings) is expected


def test_departures() -> None:
    """All that left, told or not."""
    left = departures(order(THREE, shipped("s1", A=1), at(shipped("s2", A=1), 9)).facts)
    assert {key: at_s - START_S for key, at_s in left.items()} == {"s1": 2, "s2": 9}
