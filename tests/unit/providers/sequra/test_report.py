"""What a delivery report says of an order, and how an order is told at all."""

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from tests.asking import question
from tests.shops.events import (
    REFERENCE,
    START,
    EventSpec,
    LineDict,
    cancelled,
    cart_updated,
    confirmed,
    delivered,
    details,
    fee_charged,
    goods,
    items_cancelled,
    order,
    other,
    refunded,
    retracted,
    returned,
    shipped,
    stated,
)
from tests.unit.core import samples
from worker.core.deliveries import deliveries_of
from worker.model.exchange import AwaitResult, Exchange, Settled, Step, Unsendable
from worker.model.order import Cart, Order
from worker.providers.sequra import Sequra, memory
from worker.providers.sequra.memory import NOTHING, Reported
from worker.providers.sequra.options import DeliveryMode, SequraAccount
from worker.providers.sequra.report import broken_entry, entries_of, judge, situation_of, under_way

SEQURA = Sequra()
PEOPLE = {name: samples.DETAILS[name] for name in ("customer", "delivery_method")}
ACCOUNT = SequraAccount("acme", "sequra", "https://sandbox.example", "m1", "user", "secret", delivery="report")
THEN_UPDATE = replace(ACCOUNT, delivery="report_then_update")


def sold(*lines: LineDict, **members: Any) -> EventSpec:
    """Confirmed, with what a report demands."""
    return confirmed(*lines, **(PEOPLE | members))


TWO = sold(goods("A", 2, 200), goods("B", 1, 100))


def told_of(*specs: EventSpec, before: Reported = NOTHING) -> Reported:
    """What is kept once everything that is due after these specs was reported."""
    found = order(*specs)
    entries = entries_of(found, deliveries_of(found, before.shipments), before, most=5000)
    now = under_way(entries, 7, SEQURA.digest(found))
    return memory.accepted(replace(before, under_way=now))


def reported(found: Order, before: Reported = NOTHING, most: int = 5000) -> list[dict[str, Any]]:
    """The entries of the next report, as they are sent."""
    entries = entries_of(found, deliveries_of(found, before.shipments), before, most=most)
    sent: list[dict[str, Any]] = msgspec.json.decode(b"[" + under_way(entries, 7, b"").entries + b"]")
    return sent


def rows(cart: dict[str, Any]) -> list[tuple[str | None, int | None, int]]:
    """Reference, units and cents of each item, whose sum must be the total."""
    assert cart["order_total_with_tax"] == sum(item["total_with_tax"] for item in cart["items"])
    return [(item.get("reference"), item.get("quantity"), item["total_with_tax"]) for item in cart["items"]]


def stamp(second: int) -> str:
    """So many seconds after the start, as a report says it."""
    return START.replace(second=second).isoformat()


def at(told: EventSpec, second: int) -> EventSpec:
    """A shipment that left then."""
    return told._replace(data=told.data | {"shipped_at": f"2026-03-01T00:00:{second:02}.9Z"})


# --- entries -------------------------------------------------------------------------------------------------------


def test_every_member() -> None:
    """What the shop told arrives under seQura's name."""
    line = sold(
        goods("A", 2, 200), gift=True, cart_ref="c1", references={"secondary": "S-7"}, delivery_address=samples.ADDRESS
    )
    [entry] = reported(order(line, shipped("s1", [samples.POSTAL], A=1)))
    address = {
        {"line_1": "address_line_1", "line_2": "address_line_2"}.get(k, k): v for k, v in samples.ADDRESS.items()
    }
    product = {
        "type": "product",
        "reference": "A",
        "name": "A",
        "quantity": 1,
        "price_with_tax": 100,
        "total_with_tax": 100,
        "downloadable": False,
    }
    assert entry == {
        "merchant_reference": {"order_ref_1": REFERENCE, "order_ref_2": "S-7"},
        "state": "delivered",
        "sent_at": stamp(2),
        "cart": {"currency": "EUR", "gift": True, "order_total_with_tax": 100, "items": [product], "cart_ref": "c1"},
        "remaining_cart": {"order_total_with_tax": 100, "items": [product]},
        "delivery_method": samples.DETAILS["delivery_method"],
        "customer": samples.DETAILS["customer"],
        "delivery_address": address,
        "trackings": [samples.POSTAL],
    }


def test_gift_is_always_said() -> None:
    """It is mandatory in a report's cart."""
    [entry] = reported(order(TWO, shipped("s1", A=1)))
    assert entry["cart"]["gift"] is False
    assert "trackings" not in entry
    assert (entry["state"], entry["sent_at"]) == ("shipped", stamp(2))


def test_an_entry_for_each_delivery() -> None:
    """Each with its own second, cart, parcels and state, and with what is left after it; charges go by value."""
    found = order(
        sold(goods("A", 2, 200), goods("B", 1, 100), other("handling", "H", 90), other("discount", "D", -30)),
        shipped("s1", [samples.POSTAL | {"delivered_at": "2026-03-02T00:00:00Z"}], A=1),
        shipped("s2", A=1),
        shipped("s3", B=1),
        delivered("s3"),
    )
    first, second, third = reported(found)
    assert [each["sent_at"] for each in (first, second, third)] == [stamp(2), stamp(3), stamp(4)]
    assert [each["state"] for each in (first, second, third)] == ["delivered", "shipped", "delivered"]
    assert rows(first["cart"]) == rows(second["cart"]) == [("A", 1, 100), ("H", None, 30), ("D", None, -10)]
    assert rows(first["remaining_cart"]) == [("A", 1, 100), ("B", 1, 100), ("H", None, 60), ("D", None, -20)]
    assert rows(third["cart"]) == [("B", 1, 100), ("H", None, 30), ("D", None, -10)]
    assert third["remaining_cart"] == {"order_total_with_tax": 0, "items": []}
    assert ["trackings" in each for each in (first, second, third)] == [True, False, False]


def test_more_deliveries_than_a_page_takes() -> None:
    """All entries of an order stand in one page: then it is one entry."""
    found = order(TWO, shipped("s1", [samples.POSTAL], A=1), shipped("s2", [samples.PICKUP], A=1, B=1))
    assert len(reported(found, most=2)) == 2
    [entry] = reported(found, most=1)
    assert rows(entry["cart"]) == [("A", 2, 200), ("B", 1, 100)]
    assert (entry["sent_at"], [each["reference"] for each in entry["trackings"]]) == (stamp(3), ["T1", "T2"])


def test_second_that_was_told_before() -> None:
    """seQura takes it for a repeat: the next one that is free."""
    before = told_of(TWO, at(shipped("s1", A=1), 9))
    first = reported(order(TWO, at(shipped("s1", A=1), 9), at(shipped("s2", A=1), 9)), before)
    assert [each["sent_at"] for each in first] == [stamp(10)]
    both = reported(
        order(TWO, at(shipped("s1", A=1), 9), at(shipped("s2", A=1), 9), at(shipped("s3", B=1), 10)), before
    )
    assert [each["sent_at"] for each in both] == [stamp(10), stamp(11)]


def test_shipments_of_one_second_are_one() -> None:
    """seQura could not tell them apart."""
    [entry] = reported(order(TWO, at(shipped("s1", A=1), 9), at(shipped("s2", B=1), 9)))
    assert (entry["sent_at"], rows(entry["cart"])) == (stamp(9), [("A", 1, 100), ("B", 1, 100)])


@pytest.mark.parametrize(
    ("specs", "cart"),
    [
        # what came back before anything was told cannot be taken off one of the deliveries
        ([shipped("s1", A=1), shipped("s2", A=1, B=1), returned("r1", A=1)], [("A", 1, 100), ("B", 1, 100)]),
        (
            [shipped("s1", A=1), shipped("s2", A=1, B=1), refunded("f1", 50)],
            [("A", 2, 200), ("B", 1, 100), ("f1", None, -50)],
        ),
        # nobody knows what was in the carts when they were stated
        ([stated([goods("A", 1, 100)], [goods("B", 1, 100)])], [("A", 1, 100)]),
    ],
)
def test_one_entry_for_all_of_it(specs: list[EventSpec], cart: Any) -> None:
    """The shipped cart less what was reported, at the time of the newest delivery."""
    [entry] = reported(order(TWO, *specs))
    assert rows(entry["cart"]) == cart
    assert entry["sent_at"] == stamp(
        1 + len([told for told in specs if told.type in ("order.items_shipped", "order.carts_stated")])
    )


def test_what_changed_since_a_report_goes_with_the_next_delivery() -> None:
    """The price of what was reported went down, and one more left: one entry, to the cent."""
    before = told_of(TWO, shipped("s1", A=1))
    dearer = cart_updated(goods("A", 2, 180), goods("B", 1, 100))
    [entry] = reported(order(TWO, shipped("s1", A=1), dearer, shipped("s2", A=1), shipped("s3", B=1)), before)
    assert rows(entry["cart"]) == [("A", 1, 80), ("B", 1, 100)]
    assert entry["cart"]["items"][0]["price_with_tax"] == 90
    assert entry["sent_at"] == stamp(5)


def test_shipments_since_a_report_have_entries_of_their_own() -> None:
    """Whatever came back before it."""
    first = [shipped("s1", A=2), returned("r1", A=1)]
    before = told_of(TWO, *first)
    [entry] = reported(order(TWO, *first, shipped("s2", B=1)), before)
    assert (rows(entry["cart"]), entry["sent_at"]) == ([("B", 1, 100)], stamp(4))


def test_an_unspeakable_step_in_between() -> None:
    """What is left after the first delivery is nothing that `remaining_cart` takes: one entry."""
    line = sold(goods("A", 2, 200), goods("X", 1, 50, type="subscriber_fee"))
    [entry] = reported(order(line, shipped("s1", A=2), shipped("s2", X=1)))
    assert rows(entry["cart"]) == [("A", 2, 200), ("X", 1, 50)]
    assert rows(entry["remaining_cart"]) == []


def test_what_is_left_is_paid_otherwise() -> None:
    """`remaining_cart` takes no `other_payment`: it is told as a discount."""
    found = order(sold(goods("A", 2, 200), other("other_payment", "P", -50)), shipped("s1", A=1))
    [entry] = reported(found)
    kinds = [[item["type"] for item in entry[name]["items"]] for name in ("cart", "remaining_cart")]
    assert kinds == [["product", "other_payment"], ["product", "discount"]]
    assert rows(entry["remaining_cart"]) == [("A", 1, 100), ("P", None, -25)]


def test_what_is_kept_while_a_page_is_under_way() -> None:
    """What was told stays as it was until the page was taken; then it is what the entries said."""
    found = order(TWO, shipped("s1", A=1))
    entries = entries_of(found, deliveries_of(found, {}), NOTHING, most=9)
    now = replace(NOTHING, under_way=under_way(entries, 7, b"d"))
    assert memory.read(memory.kept(now)) == now
    assert (now.under_way.revision, now.under_way.digest, now.under_way.count) == (7, b"d", 1)  # type: ignore[union-attr]
    assert not now.is_reported
    after = memory.accepted(now)
    assert after.is_reported
    assert (after.shipments, after.under_way) == ({"s1": int(START.timestamp()) + 2}, None)
    assert after.shipped == situation_of(found).shipped
    assert after.unshipped == situation_of(found).unshipped != b""


def test_memory_of_another_version() -> None:
    """Nobody may decide by what he cannot read."""
    assert memory.read(b"") == NOTHING
    assert memory.kept(NOTHING) == b""
    assert memory.read(msgspec.msgpack.encode(Reported(version=2))) is None
    assert memory.read(b"\xff") is None
    assert SEQURA.describe(b"\xff") == {"reported": "by a newer version"}


def test_what_people_are_shown() -> None:
    """What was reported, what is being reported, and what was refused."""
    told = told_of(TWO, shipped("s1", A=1))
    assert SEQURA.describe(memory.kept(told)) == {"reported": ["s1"]}
    found = order(TWO, shipped("s1", A=1), shipped("s2", A=1))
    now = under_way(entries_of(found, deliveries_of(found, told.shipments), told, most=9), 7, b"")
    assert SEQURA.describe(memory.kept(replace(told, under_way=now))) == {"reported": ["s1"], "being_reported": ["s2"]}
    assert SEQURA.describe(memory.kept(memory.refused(NOTHING, 409, 5))) == {"report_refused": 409}


# --- broken orders -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["customer", "delivery_method"])
def test_an_order_that_lacks_what_a_report_demands(name: str) -> None:
    """It stays owed, and stands in `broken_orders` with what is known of it."""
    found = order(TWO, shipped("s1", A=1), details(**{name: None}))
    step = step_of(found)
    assert isinstance(step, AwaitResult)
    assert step.why == f"cannot be reported: it has no {name}, which seQura's report requires"
    entry = msgspec.json.decode(broken_entry(REFERENCE, found, NOTHING))
    assert entry["merchant_reference"] == {"order_ref_1": REFERENCE}
    assert rows(entry["cart"]) == [("A", 1, 100)]
    assert {"customer", "delivery_method"} & set(entry) == {"customer", "delivery_method"} - {name}


def test_an_order_that_contradicts_itself() -> None:
    """Of it nothing is told but its name; nor of one of which nobody knows what was told."""
    expected = {"merchant_reference": {"order_ref_1": REFERENCE}}
    assert msgspec.json.decode(broken_entry(REFERENCE, None, NOTHING)) == expected
    assert msgspec.json.decode(broken_entry(REFERENCE, order(TWO), None)) == expected


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (
            [goods("A", 2, 200), other("registration", "R", 10)],
            "cart: seQura's report does not accept registration here",
        ),
        (
            [goods("A", 2, 200), goods("F", 1, 50, type="subscriber_fee")],
            "remaining_cart: seQura's report does not accept subscriber_fee here",
        ),
    ],
)
def test_what_a_report_does_not_take(lines: list[LineDict], why: str) -> None:
    """Checked before anything is sent."""
    step = step_of(order(sold(*lines), shipped("s1", A=1)))
    assert isinstance(step, AwaitResult)
    assert step.why == f"cannot be reported: {why}"


# --- how an order is told ------------------------------------------------------------------------------------------


def step_of(found: Order, told: Reported = NOTHING, account: SequraAccount = ACCOUNT, **members: Any) -> Step:
    """The next step for an order of which this is kept."""
    return SEQURA.next_step(question(SEQURA, found, account, remote=memory.kept(told), **members))


def said(step: Step) -> str:
    """A step in a word or two, and why."""
    match step:
        case Settled():
            return "settled"
        case AwaitResult():
            return f"waits: {step.why}"
        case Unsendable():
            return f"parked: {step.reason}"
        case Exchange():
            return "update"


ONE_REPORTED = told_of(TWO, shipped("s1", A=1))
ALL_REPORTED = told_of(TWO, shipped("s1", A=2, B=1))
DUE = "waits: waits for its report"
GONE = "parked: unsupported: nothing was reported and nothing is left to ship, which a delivery report cannot express"


@pytest.mark.parametrize(
    ("specs", "told", "report", "then_update"),
    [
        ([], NOTHING, "settled", "settled"),
        ([details(gift=True)], NOTHING, "settled", "settled"),
        ([items_cancelled("c1", B=1)], NOTHING, "settled", "settled"),
        ([fee_charged("k1", 50)], NOTHING, "settled", "settled"),
        ([shipped("s1", A=1)], NOTHING, DUE, DUE),
        ([shipped("s1", A=1), returned("r1", A=1)], NOTHING, "settled", "settled"),
        ([cancelled()], NOTHING, GONE, "update"),
        ([cancelled(by="provider")], NOTHING, "settled", "update"),
        ([shipped("s1", A=2, B=1), returned("r1", A=2, B=1)], NOTHING, GONE, "update"),
        ([shipped("s1", A=1)], ONE_REPORTED, "settled", "settled"),
        ([shipped("s1", A=1), details(gift=True), delivered("s1")], ONE_REPORTED, "settled", "settled"),
        ([shipped("s1", A=1), shipped("s2", B=1)], ONE_REPORTED, DUE, "update"),
        ([shipped("s1", A=1), items_cancelled("c1", B=1)], ONE_REPORTED, "parked: changed after its report: the rest to be shipped differs", "update"),
        ([shipped("s1", A=1), returned("r1", A=1)], ONE_REPORTED, "parked: changed after its report: 1 × A less", "update"),
        ([shipped("s1", A=1), returned("r1", A=1), shipped("s2", B=1)], ONE_REPORTED, "parked: changed after its report: 1 × A less", "update"),
        ([shipped("s1", A=1), returned("r1", A=1), shipped("s2", A=1, B=1)], ONE_REPORTED, DUE, "update"),
        ([shipped("s1", A=1), fee_charged("k1", 30)], ONE_REPORTED, "parked: changed after its report: not caused by a shipment", "update"),
        ([shipped("s1", A=1), fee_charged("k1", 30), shipped("s2", B=1)], ONE_REPORTED, DUE, "update"),
        ([shipped("s1", A=1), refunded("f1", 20)], ONE_REPORTED, "parked: changed after its report: -20 in all", "update"),
        ([shipped("s1", A=1), cart_updated(goods("A", 2, 180), goods("B", 1, 100))], ONE_REPORTED, "parked: changed after its report: A -10 without a unit", "update"),
        ([shipped("s1", A=2, B=1), returned("r1", A=2, B=1)], ALL_REPORTED, "parked: changed after its report: 2 × A less", "update"),
        ([shipped("s1", A=1), retracted(shipment_id="s1"), cancelled()], ONE_REPORTED, "parked: changed after its report: 1 × A less", "update"),
    ],
)  # fmt: skip
def test_both_modes(specs: list[EventSpec], told: Reported, report: str, then_update: str) -> None:
    """The table of `report.py`."""
    found = order(TWO, *specs)
    assert said(step_of(found, told)) == report
    assert said(step_of(found, told, THEN_UPDATE)) == then_update


def test_growth_is_seen_as_a_step_backwards() -> None:
    """A discount that shrinks cannot be told as one."""
    line = sold(goods("A", 2, 200), other("discount", "D", -100))
    told = told_of(line, shipped("s1", A=2))
    found = order(line, shipped("s1", A=2), cart_updated(goods("A", 2, 200), other("discount", "D", -40)))
    assert said(step_of(found, told)) == "parked: changed after its report: discount D +60"


@pytest.mark.parametrize("mode", ["update", "report", "report_then_update"])
def test_nothing_is_reported_while_a_page_is_under_way(mode: DeliveryMode) -> None:
    """Whatever happens to the order meanwhile, and whatever the account is set to."""
    found = order(TWO, shipped("s1", A=1))
    now = under_way(entries_of(found, deliveries_of(found, {}), NOTHING, most=9), 7, b"")
    step = step_of(order(TWO, cancelled()), replace(NOTHING, under_way=now), replace(ACCOUNT, delivery=mode))
    assert said(step) == "waits: its report is under way"


@pytest.mark.parametrize("mode", ["report", "report_then_update"])
def test_once_updated_there_are_only_updates(mode: DeliveryMode) -> None:
    """Also when nobody knows whether it arrived; the same carts again are told only in doubt."""
    account = replace(ACCOUNT, delivery=mode)
    found = order(TWO, shipped("s1", A=1))
    update = step_of(order(TWO, cancelled()), NOTHING, THEN_UPDATE)
    assert isinstance(update, Exchange)
    told = memory.read(update.remote or b"")
    assert told is not None
    assert told.by_update
    assert said(step_of(found, told, account)) == "update"
    assert said(step_of(order(TWO, cancelled()), told, account)) == "settled"
    for doubt in ("may_land_late", "remote_unknown"):
        assert said(step_of(order(TWO, cancelled()), told, account, **{doubt: True})) == "update"


def test_an_update_that_may_have_been_sent() -> None:
    """A worker died after it, perhaps: an order whose carts may have been empty once is not reported any more."""
    found = order(TWO, shipped("s1", A=1), cancelled())
    assert said(step_of(found, NOTHING, THEN_UPDATE, may_land_late=True)) == "update"
    assert said(step_of(found, NOTHING, ACCOUNT, may_land_late=True)) == DUE
    assert said(step_of(order(TWO, shipped("s1", A=1)), NOTHING, THEN_UPDATE, may_land_late=True)) == DUE


def test_accounts_that_update() -> None:
    """They keep that there was an update, so that a change of `delivery` does not lead to a report of the same."""
    plain = replace(ACCOUNT, delivery="update")
    step = step_of(order(TWO, shipped("s1", A=1)), NOTHING, plain)
    assert isinstance(step, Exchange)
    assert step.remote == memory.kept(Reported(by_update=True))
    assert said(step_of(order(TWO, shipped("s1", A=1)), Reported(by_update=True))) == "update"
    assert said(step_of(order(TWO, shipped("s1", A=1)), ONE_REPORTED, plain)) == "update"
    assert (
        said(SEQURA.next_step(question(SEQURA, order(TWO), plain, remote=b"\xff"))) == "waits: its report is under way"
    )


def test_memory_that_cannot_be_read() -> None:
    """The order waits, and says why."""
    step = SEQURA.next_step(question(SEQURA, order(TWO), ACCOUNT, remote=b"\xff"))
    assert said(step).startswith("waits: cannot be reported: the memory of its reports was written by a newer version")


def test_update_that_must_not_be_sent() -> None:
    """It is parked with the arithmetic; the order waits for no report."""
    found = order(TWO, shipped("s1", A=1), cart_updated(goods("A", 2, 900), goods("B", 1, 100)))
    expected = "parked: not sent: carts 1000, confirmed 300: seQura rejects an increase above 15 %"
    assert said(step_of(found, ONE_REPORTED, THEN_UPDATE)) == expected


def test_verdicts_leave_what_is_kept() -> None:
    """A page may be written down while a step is on its way back."""
    for step in (
        step_of(order(TWO)),
        step_of(order(TWO, shipped("s1", A=1))),
        step_of(order(TWO, cancelled())),
        step_of(order(TWO, shipped("s1", A=1), returned("r1", A=1)), ONE_REPORTED),
    ):
        assert not isinstance(step, Exchange)
        assert step.remote is None


def test_details_do_not_count_afterwards() -> None:
    """Only carts do."""
    now = situation_of(order(TWO, shipped("s1", A=1), details(gift=True)))
    assert judge(now, ONE_REPORTED, "report").kind == "same"


def test_accounts_that_only_update_report_nothing() -> None:
    """Whatever is due."""
    now = situation_of(order(TWO, shipped("s1", A=1)))
    assert judge(now, NOTHING, "update").kind == "update"
    assert judge(now, NOTHING, "report").kind == "due"


def test_a_delivery_that_brings_nothing() -> None:
    """It cannot be told alone: one entry for both."""
    found = order(TWO, shipped("s1", A=1), shipped("s2", B=1))
    steps = deliveries_of(found, {})
    nothing = replace(steps, new=[replace(steps.new[0], shipped=Cart([], 0)), steps.new[1]])
    assert [len(entries_of(found, each, NOTHING, most=9).entries) for each in (steps, nothing)] == [2, 1]
