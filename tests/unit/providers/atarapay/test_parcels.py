"""Which kept units have arrived: returned ones come off older shipments, those that never arrived first."""

from typing import Any

import pytest

from schemas.facts import unpack_lines
from tests.shops.events import EventSpec, cart_updated, delivered, goods, order, returned, shipped
from tests.unit.providers.atarapay.reported import confirmation
from worker.providers.atarapay.parcels import Arrival, arrival_of

TWO = confirmation(goods("hat", 2, 200))
AT = "2026-03-05T10:00:00Z"


def tracked(*arrived: bool) -> list[dict[str, Any]]:
    """Trackings of one shipment, delivered or not."""
    return [
        {"reference": f"t{number}", "type": "postal", "carrier": "GIG"} | ({"delivered_at": AT} if each else {})
        for number, each in enumerate(arrived)
    ]


def arrival(*specs: EventSpec) -> Arrival:
    """Of an order that was told so."""
    facts = order(*specs).facts
    assert facts.content is not None
    return arrival_of(facts, unpack_lines(facts.content.lines))


def newest(found: Arrival) -> int | None:
    """Which of the specs told the newest delivery, from 0."""
    return None if found.newest is None else found.newest[2]


CASES: dict[str, tuple[bool, int | None, tuple[EventSpec, ...]]] = {
    "by event": (True, 2, (TWO, shipped("s1", hat=2), delivered("s1"))),
    "by event, before the shipment": (True, 1, (TWO, delivered("s1"), shipped("s1", hat=2))),
    "by trackings": (True, 1, (TWO, shipped("s1", tracked(True, True), hat=2))),
    "by one tracking of two": (False, None, (TWO, shipped("s1", tracked(True, False), hat=2))),
    "no tracking at all": (False, None, (TWO, shipped("s1", [], hat=2))),
    "of another shipment": (False, None, (TWO, shipped("s1", hat=2), delivered("s2"))),
    "told again": (True, 3, (TWO, shipped("s1", hat=2), delivered("s1"), delivered("s1", "2026-03-06T10:00:00Z"))),
    "the newest of two": (True, 4, (TWO, shipped("s1", hat=1), shipped("s2", hat=1), delivered("s1"), delivered("s2"))),
    # One of two came back: it was the one that never arrived.
    "undelivered first": (
        True,
        5,
        (
            TWO,
            shipped("s1", hat=1),
            shipped("s2", hat=1),
            returned("r1", hat=1),
            delivered("s1"),
            shipped("s3", tracked(True), hat=1),
        ),
    ),
    "the oldest of those that arrived": (
        False,
        3,
        (
            TWO,
            shipped("s1", hat=1),
            delivered("s1"),
            shipped("s2", tracked(True), hat=1),
            returned("r1", hat=1),
            shipped("s3", hat=1),
        ),
    ),
    "not off newer shipments": (
        False,
        None,
        (TWO, shipped("s1", tracked(True), hat=2), returned("r1", hat=2), shipped("s2", hat=2)),
    ),
    "off a newer one, when there is no older": (
        True,
        3,
        (TWO, returned("r1", hat=1).but(time="2026-01-01T00:00:00Z"), shipped("s1", hat=3), delivered("s1")),
    ),
    "off a newer one, those that never arrived first": (
        True,
        4,
        (
            TWO,
            returned("r1", hat=1).but(time="2026-01-01T00:00:00Z"),
            shipped("s1", hat=2),
            shipped("s2", hat=1),
            delivered("s1"),
        ),
    ),
    "of several lines, any": (
        False,
        3,
        (
            confirmation(goods("hat", 1, 1), goods("shoe", 1, 1)),
            shipped("s1", hat=1),
            shipped("s2", shoe=1),
            delivered("s1"),
        ),
    ),
    "returned from any": (
        True,
        4,
        (TWO, shipped("s1", hat=2), returned("r1", origin="any", hat=2), shipped("s2", hat=2), delivered("s2")),
    ),
    "downloads need no delivery": (
        True,
        1,
        (confirmation(goods("song", 1, 5, downloadable=True)), shipped("s1", song=1)),
    ),
    "a parcel beside a download": (
        False,
        1,
        (confirmation(goods("song", 1, 5, downloadable=True), goods("hat", 1, 5)), shipped("s1", song=1, hat=1)),
    ),
    "a line that is gone": (
        True,
        4,
        (
            TWO,
            shipped("s1", hat=2),
            returned("r1", hat=2),
            cart_updated(goods("cap", 1, 200), currency="NGN"),
            shipped("s2", tracked(True), cap=1),
        ),
    ),
    "nothing kept": (True, None, (TWO,)),
}


@pytest.mark.parametrize(("is_complete", "told_by", "specs"), CASES.values(), ids=CASES)
def test_arrival(is_complete: bool, told_by: int | None, specs: tuple[EventSpec, ...]) -> None:
    """Whether all that is kept arrived, and which event told the newest arrival."""
    found = arrival(*specs)
    assert (found.is_complete, newest(found)) == (is_complete, told_by)
