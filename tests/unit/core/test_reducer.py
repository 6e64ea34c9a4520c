"""Which fact wins: stamps, cart versions, retractions, details, payment (`DOMAIN.md` section 4)."""

from typing import Any

import msgspec
import pytest

from schemas.facts import NIL, Facts, SealedFacts, seal_facts
from tests.shops.events import (
    REFERENCE,
    EventSpec,
    LineDict,
    assessment,
    cancelled,
    cart_updated,
    carts,
    confirmed,
    delivered,
    details,
    event,
    facts_of,
    fee_charged,
    fold,
    goods,
    items_cancelled,
    order,
    other,
    payment,
    refunded,
    retracted,
    returned,
    shipped,
    stated,
    totals,
)
from worker.core.order import assess, baseline
from worker.core.reducer import STATEMENTS_MAX, reduce, reduce_sealed

ONE = confirmed(goods("A", 9, 900))
EARLY, LATE = "2026-03-01T00:00:00.000001Z", "2026-03-09T00:00:00Z"


def test_sequence_outranks_time() -> None:
    """The greater sequence wins, though its time is older."""
    told = (ONE, shipped("s1", A=1).but(sequence="7", time=EARLY), shipped("s1", A=2).but(sequence="6", time=LATE))
    assert carts(*told)[0] == [("A", 1, 100)]


def test_missing_sequence_is_lowest() -> None:
    """An event without a sequence ranks below every event with one, 0 included."""
    told = (ONE, shipped("s1", A=1).but(sequence="0", time=EARLY), shipped("s1", A=2).but(time=LATE))
    assert carts(*told)[0] == [("A", 1, 100)]


def test_sequence_is_a_number_and_no_text() -> None:
    """10 is newer than 9, and leading zeros mean nothing."""
    told = (ONE, shipped("s1", A=1).but(sequence="10", time=EARLY), shipped("s1", A=2).but(sequence="0009", time=EARLY))
    assert carts(*told)[0] == [("A", 1, 100)]


def test_time_decides_among_equal_sequences() -> None:
    """With the same sequence the later moment wins, whatever its offset looks like."""
    late = shipped("s1", A=1).but(sequence="1", time="2026-03-01T23:00:00-02:00")
    early = shipped("s1", A=2).but(sequence="1", time="2026-03-02T00:30:00Z")
    assert carts(ONE, late, early)[0] == [("A", 1, 100)]


def test_position_decides_a_tie_and_a_redelivery_does_not_turn_it() -> None:
    """The later position wins a tie; the loser delivered again changes nothing."""
    first, second = shipped("s1", A=1).but(id="x", time=LATE), shipped("s1", A=2).but(id="y", time=LATE)
    events = [event(ONE), event(first), event(second)]
    facts = fold(events)
    assert facts.shipments["s1"].units == [("A", 2)]
    assert reduce(facts, events[1], 99) is facts


def test_same_content_with_a_newer_stamp_wins() -> None:
    """The newest stamp wins also when the content is the same: an older change in between loses to it."""
    told = (
        ONE,
        shipped("s1", A=1).but(time="2026-03-01T00:00:10Z"),
        shipped("s1", A=1).but(time="2026-03-01T00:00:30Z"),
        shipped("s1", A=2).but(time="2026-03-01T00:00:20Z"),
    )
    assert carts(*told)[0] == [("A", 1, 100)]


def test_first_in_the_log_counts_of_one_id() -> None:
    """The same id and source again changes nothing, whatever it holds; the same id of another source is another."""
    first, second = shipped("s1", A=1).but(id="x"), shipped("s1", A=2).but(id="x", time=LATE)
    assert carts(ONE, first, second)[0] == [("A", 1, 100)]
    assert carts(ONE, first, second.but(source="/erp"))[0] == [("A", 2, 200)]


def test_id_and_source_do_not_run_together() -> None:
    """Source `/a` with id `bc` is not source `/ab` with id `c`."""
    one, other = event(ONE.but(source="/a", id="bc")), event(ONE.but(source="/ab", id="c"))
    assert one.uid != other.uid
    assert len(one.uid) == 8
    assert one.uid == event(details(gift=True).but(source="/a", id="bc")).uid


CONTENTS = [
    (
        cart_updated(goods("A", 1, 11), cart_version=2),
        cart_updated(goods("A", 1, 22), cart_version=1).but(time=LATE),
        11,
    ),
    (cart_updated(goods("A", 1, 11), cart_version=-5), cart_updated(goods("A", 1, 22)).but(time=LATE), 11),
    (
        cart_updated(goods("A", 1, 11), cart_version=1),
        cart_updated(goods("A", 1, 22), cart_version=1).but(time=LATE),
        22,
    ),
    (
        cart_updated(goods("A", 1, 11), cart_version=1),
        cart_updated(goods("A", 1, 22), cart_version=0).but(sequence="5"),
        11,
    ),
    (cart_updated(goods("A", 1, 11)).but(sequence="1"), cart_updated(goods("A", 1, 22)).but(time=LATE), 11),
    (cart_updated(goods("A", 1, 11)), confirmed(goods("A", 1, 22)).but(time=LATE), 22),
]


@pytest.mark.parametrize(("one", "two", "total"), CONTENTS)
def test_newest_content(one: EventSpec, two: EventSpec, total: int) -> None:
    """Contents compete by cart version first, then by stamp, whoever comes first."""
    assert totals(ONE, one, two) == (0, total)
    assert totals(ONE, two.but(id="t"), one.but(id="o", time="2026-03-01T00:00:02Z")) == (0, total)


def test_of_several_confirmations_newest_and_oldest_count() -> None:
    """The newest gives the content; the oldest gives baseline, confirmed total and currency."""
    newest = confirmed(goods("B", 1, 50)).but(time=LATE)
    for specs in ((ONE, newest), (newest, ONE)):
        facts = facts_of(*specs)
        found, known = assess(facts, REFERENCE).order, baseline(facts, REFERENCE)
        assert found is not None
        assert known is not None
        assert (found.unshipped.total_minor, found.confirmed_total_minor) == (50, 900)
        assert (known.unshipped.total_minor, known.shipped.items) == (900, [])


def test_currency_is_that_of_the_oldest_confirmation() -> None:
    """A newer confirmation in another currency contradicts the order."""
    dollars = confirmed(goods("A", 9, 900), currency="USD").but(time=LATE)
    assert assessment(ONE, dollars).reasons == ["cart in USD, order confirmed in EUR"]
    assert assessment(ONE, dollars.but(time=EARLY)).reasons == ["cart in EUR, order confirmed in USD"]


# --- payment -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("specs", "state"),
    [
        ([ONE], "ready"),
        ([confirmed(goods("A", 1, 1), payment_state="on_hold")], "on_hold"),
        ([payment("on_hold"), ONE], "on_hold"),
        ([payment("on_hold"), confirmed(goods("A", 1, 1), payment_state="approved")], "ready"),
        ([confirmed(goods("A", 1, 1), payment_state="on_hold"), payment("approved")], "ready"),
        ([payment("refused").but(time=LATE), confirmed(goods("A", 1, 1), payment_state="approved")], "refused"),
        ([payment("refused"), payment("on_hold").but(time=EARLY), ONE], "refused"),
    ],
)
def test_newest_written_payment_state(specs: list[EventSpec], state: str) -> None:
    """The newest payment state that was written counts; one that is not written competes with none."""
    assert assessment(*specs).state == state


# --- details ---------------------------------------------------------------------------------------------------------


def test_each_detail_is_replaced_on_its_own() -> None:
    """A member given replaces the whole member, `null` removes it, the others stay."""
    first = confirmed(
        goods("A", 1, 1), customer={"given_names": "Ana", "email": "a@b.c"}, gift=True, cart_ref="c1", store_ref="7"
    )
    found = order(first, details(customer={"given_names": "Eva"}, gift=None)).details
    assert found.customer is not None
    assert (found.customer.given_names, found.customer.email) == ("Eva", msgspec.UNSET)
    assert (found.gift, found.cart_ref, found.store_ref) == (None, "c1", "7")


def test_older_detail_loses() -> None:
    """A detail with an older stamp changes nothing, also against a removal."""
    newer, older = details(cart_ref=None).but(time=LATE), details(cart_ref="old", gift=False)
    found = order(confirmed(goods("A", 1, 1), cart_ref="c"), newer, older).details
    assert (found.cart_ref, found.gift) == (None, False)


def test_details_before_the_confirmation_are_kept() -> None:
    """What is told before the confirmation counts if it is newer."""
    newer = details(cart_ref="new").but(time=LATE)
    assert order(newer, confirmed(goods("A", 1, 1), cart_ref="old")).details.cart_ref == "new"


ALL_DETAILS: dict[str, Any] = {
    "references": {"secondary": "S"},
    "customer": {"email": "a@b.c"},
    "delivery_address": {"city": "Vigo"},
    "invoice_address": {"city": "Lugo"},
    "delivery_method": {"name": "post"},
    "gift": True,
    "cart_ref": "c1",
    "store_ref": "7",
}


@pytest.mark.parametrize("name", ALL_DETAILS)
def test_replaced_details_leave_the_facts(name: str) -> None:
    """What a newer fact replaces is gone, in either order of arrival; the baseline can be told no more from facts."""
    first = confirmed(goods("A", 1, 1), **ALL_DETAILS)
    change = details(**{name: None}).but(time=LATE)
    plain = baseline(facts_of(first), REFERENCE)
    assert plain is not None
    assert getattr(plain.details, name) is not None
    for specs in ((first, change), (change, first)):
        facts = facts_of(*specs)
        assert baseline(facts, REFERENCE) is None
        assert facts.confirmation is not None
        assert facts.confirmation.details == {name: NIL}
        found = assess(facts, REFERENCE).order
        assert found is not None
        assert getattr(found.details, name) is None


@pytest.mark.parametrize(
    "lines",
    [
        [goods("A", 3, 299), goods("B", 1, 0), other("handling", "std", 495)],
        [goods("A", 1, 0), other("handling", "std", 5), other("invoice_fee", "fee", 0)],
        [other("handling", "std", 5)],
        [goods("A", 1, 100), other("handling", "std", 5), other("discount", "D", -103)],
        [goods("A", 1, 100), other("voucher", "V", 50), other("registration", "R", 7)],
        [goods("A", 1, 10**12), other("handling", "std", 1)],
    ],
)
def test_baseline_of_a_confirmation_alone_is_its_order(lines: list[LineDict]) -> None:
    """The carts of goods and charges are told at a glance: just as they are reckoned, and none beyond the bounds."""
    facts = facts_of(confirmed(*lines))
    found, order = baseline(facts, REFERENCE), assess(facts, REFERENCE).order
    assert found is order is None or (found is not None and found.is_same(order))


def test_baseline_ignores_all_that_came_later() -> None:
    """Shipments, contents, refunds, payment and cancellation are not in what the provider knew at checkout."""
    plain = baseline(facts_of(ONE), REFERENCE)
    later = (
        shipped("s1", A=1),
        returned("r1", A=1),
        items_cancelled("c1", A=1),
        refunded("f1", 5),
        cart_updated(goods("A", 5, 500)),
        payment("on_hold"),
        delivered("s1"),
        cancelled(),
    )
    assert plain is not None
    assert plain.is_same(baseline(facts_of(ONE, details(gift=True)), REFERENCE))
    assert plain.is_same(baseline(facts_of(ONE, *later), REFERENCE))


def test_contradictory_confirmation_has_no_baseline() -> None:
    """When the confirmation alone gives no carts, nothing is known of what the provider holds."""
    bad = confirmed({"type": "discount", "reference": "D", "name": "D", "total_minor": -5}, goods("A", 1, 1))
    assert baseline(facts_of(bad), REFERENCE) is None


def test_delivery_of_the_newest_stamp_counts() -> None:
    """Among deliveries of one shipment the newest stamp wins, whatever moment it tells."""
    tracking = [{"reference": "T", "type": "postal", "carrier": "UPS"}]
    told = (
        ONE,
        shipped("s1", tracking, A=1),
        delivered("s1", "2026-03-07T00:00:00Z").but(time=LATE),
        delivered("s1", "2026-03-08T00:00:00Z"),
    )
    assert order(*told).trackings[0].delivered_at == "2026-03-07T00:00:00Z"


def test_reduce_gives_the_same_facts_for_a_known_event() -> None:
    """An event that was seen gives back the very same object, which callers go by."""
    facts = reduce(Facts(), event(ONE), 0)
    assert reduce(facts, event(ONE), 1) is facts
    assert reduce(facts, event(ONE.but(id="other")), 1) is not facts


# --- what is read ------------------------------------------------------------------------------------------------------

RETRACTIONS = [
    retracted(**member)
    for member in (
        {"shipment_id": "s1"},
        {"return_id": "r1"},
        {"cancellation_id": "c1"},
        {"refund_id": "f1"},
        {"fee_id": "k1"},
        {"cancelled": True},
        {"stated": True},
    )
]
EVERYTHING = [
    confirmed(goods("A", 9, 900), gift=False),
    cart_updated(goods("A", 8, 800)),
    payment("approved"),
    shipped("s1", A=1),
    delivered("s1"),
    returned("r1", A=1),
    items_cancelled("c1", A=1),
    refunded("f1", 5, applies_to=["A"]),
    fee_charged("k1", 5),
    details(gift=True),
    stated([], [goods("A", 1, 100)]),
    stated([goods("A", 1, 100)], [], cart_version=2),
    cancelled(),
]


CONTENT = {"content", "content_total_max_minor", "former_lines", "former_worth"}
CHANGES = {
    "order.confirmed": {*CONTENT, "confirmation", "details", "payment"},
    "order.cart_updated": {*CONTENT, "confirmation"},
    "order.payment_state_changed": {"payment"},
    "order.items_shipped": {"shipments"},
    "order.items_delivered": {"deliveries"},
    "order.items_returned": {"returns"},
    "order.items_cancelled": {"item_cancellations"},
    "order.refunded": {"refunds"},
    "order.fee_charged": {"fees"},
    "order.details_changed": {"details", "confirmation"},
    "order.carts_stated": {"statements"},
    "order.cancelled": {"cancellation"},
    "shipment_id": {"shipments"},
    "return_id": {"returns"},
    "cancellation_id": {"item_cancellations"},
    "refund_id": {"refunds"},
    "fee_id": {"fees"},
    "cancelled": {"cancellation"},
    "stated": {"statements", "statement_retraction"},
}


@pytest.mark.parametrize("told", EVERYTHING + RETRACTIONS, ids=lambda told: "-".join([told.type, *told.data]))
def test_event_leaves_alone_what_it_is_not_about(told: EventSpec) -> None:
    """All other registers keep their bytes, of an order that has every kind of fact; and it is seen once."""
    may_change = CHANGES[told.type if told.type in CHANGES else next(iter(told.data))] | {"seen"}
    for before in (SealedFacts(), *(seal_facts(facts_of(*EVERYTHING, *more)) for more in ([], RETRACTIONS))):
        after = reduce_sealed(before, event(told, 50), 50)
        for name in SealedFacts.__struct_fields__:
            assert name in may_change or getattr(after, name) is getattr(before, name)
        assert after.seen == before.seen + event(told, 50).uid


# --- statements and former lines ---------------------------------------------------------------------------------------


def test_kept_statements_are_bounded() -> None:
    """Of many that might count after a retraction, the one that counts now and the newest of the others are kept."""
    told = [stated([goods("A", 1, 1000 - number)], [], cart_version=1000 - number) for number in range(150)]
    facts = facts_of(ONE, *told)
    assert len(facts.statements) == STATEMENTS_MAX
    assert [statement.version for statement in facts.statements[:2]] == [1000, 949]
    assert facts.statements[-1].version == 851
    assert totals(ONE, *told) == (1000, 0)
    assert totals(ONE, *told, retracted(stated=True).but(time="2026-03-01T00:02:00.5Z")) == (1000 - 119, 0)


def test_retracted_lines_of_former_contents_keep_their_worth_only_while_they_are_gone() -> None:
    """What the newest content has again needs no memory, and adjustments have none."""
    one = confirmed(goods("A", 1, 10), {"type": "voucher", "reference": "V", "name": "V", "total_minor": 1})
    gone = facts_of(one, cart_updated(goods("B", 1, 5), cart_version=2))
    assert {line_id: known[2] for line_id, known in gone.former_worth.items()} == {"A": 10}
    back = facts_of(one, cart_updated(goods("B", 1, 5)), cart_updated(goods("A", 1, 7)))
    assert {line_id: known[2] for line_id, known in back.former_worth.items()} == {"B": 5}
