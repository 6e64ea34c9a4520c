"""Records that older versions wrote: they are read, and give the carts that they gave then.

`records-1.json` holds orders of schema 1 as that version encoded them, with what it made of them; `records-2.json` and
`records-3.json` those of schemas 2 and 3. They were taken from histories of the scenario files, so that every kind of
fact, and every two of them, are in some order.
"""

import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from schemas.state import SCHEMA, decode_header, decode_order, encode
from tests.shops.events import event, said, shipped
from worker.core.order import assess
from worker.core.record import apply_event, record_for
from worker.model.order import Cart

RECORDS: list[dict[str, Any]] = [
    old | {"schema": schema}
    for schema in (1, 2, 3)
    for old in json.loads((Path(__file__).parent / f"records-{schema}.json").read_text(encoding="utf-8"))
]
PROVIDERS_SINCE = 3
EMPTIED_BY_RETURNS = {"N1-055"}
"""What emptied their carts gave no reason to tell then, and does now."""


def rows(cart: Cart) -> list[list[Any]]:
    """Its items as the file has them."""
    return [[item.type, item.reference, item.name, item.quantity, item.total_minor] for item in cart.items]


@pytest.mark.parametrize("old", RECORDS, ids=lambda old: f"{old['from']} {old['subject']}")
def test_old_record_gives_the_same_order(old: dict[str, Any]) -> None:
    """State, reasons, both carts, trackings and the cancellation reason are those that the old version found."""
    value = b64decode(old["record"])
    record = decode_order(value)
    assert (decode_header(value).schema, record.schema) == (old["schema"], SCHEMA)
    if old["schema"] < PROVIDERS_SINCE:
        assert (record.facts.provider, record.facts.observed) == (None, None)
    found = assess(record.facts, old["subject"].partition("/")[2])
    assert (found.state, sorted(found.reasons)) == (old["state"], sorted(old["reasons"]))
    if "shipped" not in old:
        assert found.order is None
        return
    order = found.order
    assert order is not None
    assert rows(order.shipped) == old["shipped"]
    assert rows(order.unshipped) == old["unshipped"]
    assert order.confirmed_total_minor == old["confirmed_total_minor"]
    assert [[each.reference, each.delivered_at or None] for each in order.trackings] == old["trackings"]
    reason = None if order.cancellation is None else [order.cancellation.given, order.cancellation.by_shopper]
    is_new = old["schema"] == 1 and old["from"] in EMPTIED_BY_RETURNS
    assert reason == ([None, False] if is_new else old["cancellation"])


@pytest.mark.parametrize("old", RECORDS[::5], ids=lambda old: f"{old['from']} {old['subject']}")
def test_old_record_takes_new_events(old: dict[str, Any]) -> None:
    """It takes an event and is a record of this version from then on."""
    value = b64decode(old["record"])
    assert decode_header(value).revision == decode_order(value).revision
    one = event(shipped("new", A=1), 9)
    before, _ = record_for(one, value)
    after = apply_event(before, one, position=99, revision=10**6, now_ms=1, destination=None)
    assert decode_order(encode(after)) == after
    assert (decode_header(encode(after)).schema, "new" in after.facts.shipments) == (SCHEMA, True)
    heard = apply_event(
        after, event(said("risk", level="x"), 10), position=100, revision=10**7, now_ms=1, destination=None
    )
    assert decode_order(encode(heard)) == heard
    assert heard.facts.provider is not None
