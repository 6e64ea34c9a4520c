"""What must hold of every order, whatever happens to it."""

import functools
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.base import AMOUNT_MAX_MINOR
from schemas.events import GOODS, OrderEvent
from schemas.facts import Facts, seal_facts, unpack_lines
from schemas.state import OrderRecord, decode_header, decode_order, encode
from tests.shops.events import REFERENCE, SUBJECT, confirmed, fold, log, shipped
from tests.shops.histories import contents, histories
from worker.core.order import Assessment, assess, baseline, summarize
from worker.core.record import acknowledge, apply_event, record_for
from worker.core.reducer import SEEN_MAX, reduce
from worker.core.shares import count_units, divide, tally
from worker.model.order import Order
from worker.model.provider import Destination
from worker.providers.sequra import Sequra
from worker.providers.sequra.options import SequraAccount

ADDRESSEE = Destination(SequraAccount("acme", "sequra", "https://sandbox.example", "m1", "user", "secret"), Sequra())


def seen_of(facts: Facts) -> tuple[str, bool, Order | None, Order | None]:
    """All that anybody gets to see of an order: state, whether there are reasons, carts and the rest, baseline."""
    found = assess(facts, REFERENCE)
    return found.state, bool(found.reasons), _alone(found.order), _alone(baseline(facts, REFERENCE))


def _alone(order: Order | None) -> Order | None:
    """Without the facts that it follows from, which remember more."""
    return None if order is None else msgspec.structs.replace(order, facts=Facts())


@settings(max_examples=150)
@given(histories(), st.data())
def test_order_of_arrival_does_not_matter(events: list[OrderEvent], data: st.DataObject) -> None:
    """Events of distinct stamps end in the same order, in whatever order they arrive."""
    shuffled = data.draw(st.permutations(events))
    assert seen_of(fold(shuffled)) == seen_of(fold(events))


def said_in(facts: Facts) -> object:
    """What is kept of what the provider says, without the positions that it came at."""
    provider = facts.provider
    if provider is None:
        return None
    return (
        provider.order and (provider.order[0][0], provider.order[1]),
        {kind: (moment[0], packed) for kind, (moment, packed) in provider.said.items()},
        {state: moment[0] for state, moment in provider.payments.items()},
        provider.cancelled and provider.cancelled[0],
        provider.disbursed,
        facts.observed and facts.observed[1],
    )


@settings(max_examples=300)
@given(histories(), st.data())
def test_order_of_what_a_provider_says_does_not_matter(events: list[OrderEvent], data: st.DataObject) -> None:
    """All of it that is kept is the same, not only what follows from it."""
    shuffled = data.draw(st.permutations(events))
    assert said_in(fold(shuffled)) == said_in(fold(events))


@settings(max_examples=150)
@given(histories(ties=True), st.data())
def test_repetition_does_not_matter(events: list[OrderEvent], data: st.DataObject) -> None:
    """An event that comes again, also with other content under its id, changes nothing: not even a tie."""
    facts = fold(events)
    for _ in range(3):
        again = data.draw(st.sampled_from(events))
        changed = data.draw(st.sampled_from(events))
        twin = msgspec.structs.replace(changed, uid=again.uid)
        assert reduce(facts, again, 10_000) is facts
        assert reduce(facts, twin, 10_001) is facts


@settings(max_examples=150)
@given(histories(ties=True), st.data())
def test_repetition_within_the_log_does_not_matter(events: list[OrderEvent], data: st.DataObject) -> None:
    """Repetitions anywhere after the first occurrence leave the facts as they are."""
    facts = Facts()
    for position, event in enumerate(events):
        facts = reduce(facts, event, position)
        again = data.draw(st.sampled_from(events[: position + 1]))
        facts = reduce(facts, again, position)
    assert facts == fold(events)


@settings(max_examples=150)
@given(histories(ties=True), st.data())
def test_split_into_batches_does_not_matter(events: list[OrderEvent], data: st.DataObject) -> None:
    """Writing the record to the topic and reading it back between any two events changes nothing."""
    record = OrderRecord()
    for position, event in enumerate(events):
        record = apply_event(record, event, position=position, revision=position + 1, now_ms=1_000, destination=None)
        if data.draw(st.booleans()):
            record = decode_order(encode(record))
    assert record.facts == fold(events)
    assert seen_of(record.facts) == seen_of(fold(events))


@settings(max_examples=300)
@given(histories(ties=True), st.data())
def test_partly_decoded_records_take_events_as_whole_ones(events: list[OrderEvent], data: st.DataObject) -> None:
    """What `record_for` leaves encoded, and an destination that does not matter, play no part: byte for byte the same."""
    value = encode(OrderRecord())
    for position, one in enumerate(data.draw(st.permutations(events + events[:2]))):
        event = msgspec.structs.replace(one, origin=data.draw(st.sampled_from([None, None, "sequra", "erp"])))
        (partial, matters), whole = record_for(event, value), decode_order(value)
        take = functools.partial(
            apply_event,
            event=event,
            position=position,
            revision=position + 1,
            now_ms=1_000,
            in_flight=data.draw(st.booleans()),
        )
        after = take(partial, destination=ADDRESSEE if matters else None)
        expected = take(whole, destination=ADDRESSEE)
        assert (after is partial) == (expected is whole)
        assert encode(after) == encode(expected)
        value = encode(acknowledge(expected, b"digest") if data.draw(st.booleans()) else expected)


@settings(max_examples=150)
@given(histories(ties=True))
def test_record_survives_the_topic(events: list[OrderEvent]) -> None:
    """A record that was written and read is the same, and so are the first members that a restore reads."""
    record = OrderRecord(
        revision=7, acked=3, may_land_late=True, sealed=seal_facts(fold(events)), reason="why", trace="t"
    )
    value = encode(record)
    assert decode_order(value) == record
    header = decode_header(value)
    assert all(getattr(header, name) == getattr(record, name) for name in header.__struct_fields__)


@settings(max_examples=150)
@given(histories(ties=True))
def test_reduce_leaves_its_argument_alone(events: list[OrderEvent]) -> None:
    """Facts are values: applying an event changes nothing of what was there before it."""
    facts = Facts()
    for position, event in enumerate(events):
        before = msgspec.msgpack.encode(facts)
        after = reduce(facts, event, position)
        assert msgspec.msgpack.encode(facts) == before
        facts = after


@settings(max_examples=150)
@given(histories(ties=True), st.data())
def test_revision_grows_iff_facts_change(events: list[OrderEvent], data: st.DataObject) -> None:
    """A record gets its new revision with every new event, and stays the very same with an old one."""
    record = OrderRecord()
    told: list[OrderEvent] = []
    for position, event in enumerate(events):
        told.append(event)
        for one in (event, data.draw(st.sampled_from(told))):
            is_new = not any(record.facts.seen[i : i + 8] == one.uid for i in range(0, len(record.facts.seen), 8))
            after = apply_event(
                record, one, position=position, revision=record.revision + 5, now_ms=1_000, destination=None
            )
            assert (after is not record) == is_new
            assert after.revision == record.revision + 5 * is_new
            assert (after.facts == record.facts) == (not is_new)
            record = after


def is_cancelled(facts: Facts) -> bool:
    """Whether the shop or its provider has cancelled the order."""
    cancellation = facts.cancellation_now
    return cancellation is not None and not cancellation.retracted


def check_carts(order: Order, facts: Facts) -> None:
    """Both carts are within their bounds, their totals are the sums of their items, no item is empty."""
    for cart in (order.shipped, order.unshipped):
        assert cart.total_minor == sum(item.total_minor for item in cart.items)
        assert 0 <= cart.total_minor <= AMOUNT_MAX_MINOR
        for item in cart.items:
            assert item.quantity >= 1 if item.type in GOODS else item.quantity == 0
            assert item.total_minor != 0 or item.type in GOODS
            assert (item.total_minor <= 0) if item.type in ("discount", "other_payment") else item.total_minor >= 0


def has_losses(facts: Facts) -> bool:
    """Whether anything was cancelled, returned or refunded, or stated outright."""
    return bool(facts.statements or facts.item_cancellations or facts.returns or facts.refunds or is_cancelled(facts))


@settings(max_examples=150)
@given(histories(max_size=12))
def test_carts_are_within_bounds_and_lose_nothing(events: list[OrderEvent]) -> None:
    """No negative quantity or cart, totals are sums; and what nobody took away is in one of the two carts."""
    facts = fold(events)
    found = assess(facts, REFERENCE)
    if found.order is None:
        assert found.state != "ready"
        return
    assert found.state != "inconsistent"
    check_carts(found.order, facts)
    assert facts.content is not None
    lines = unpack_lines(facts.content.lines)
    if not has_losses(facts) and any(line.type in GOODS for line in lines):
        shipped_minor, unshipped_minor = found.order.shipped.total_minor, found.order.unshipped.total_minor
        fees_minor = sum(fee.amount_minor for fee in facts.fees.values())
        assert shipped_minor + unshipped_minor == sum(line.total_minor for line in lines) + fees_minor


@settings(max_examples=150)
@given(histories(max_size=12))
def test_units_are_conserved(events: list[OrderEvent]) -> None:
    """Units kept, pending and lost of each goods line add up to what was ordered; refunds may empty a cart."""
    facts = fold(events)
    order = assess(facts, REFERENCE).order
    if order is None or facts.statements or any(refund.amount_minor for refund in facts.refunds.values()):
        return
    assert facts.content is not None
    lines = [line for line in unpack_lines(facts.content.lines) if line.type in GOODS]
    tallies = tally(count_units(facts), lines)
    by_reference: dict[str, int] = {}
    for item in order.unshipped.items:
        if item.type in GOODS and item.reference is not None:
            by_reference[item.reference] = item.quantity
    for line in lines:
        units = tallies.get(line.line_id)
        pending = by_reference.get(line.reference or "", 0)
        lost = 0 if units is None else units.cancelled + units.gone + units.returned
        kept = 0 if units is None else units.kept
        assert kept + pending <= line.quantity
        shipped_again = units is not None and units.shipped > line.quantity - units.cancelled - units.gone
        if not shipped_again and not is_cancelled(facts):
            assert kept + pending + lost == line.quantity


@given(
    st.integers(-(10**12), 10**12),
    st.integers(0, 10**12),
    st.integers(0, 10**12),
    st.integers(0, 10**12),
)
def test_divide_never_loses_a_cent(total: int, first: int, second: int, rest: int) -> None:
    """Each part is within half a unit of the exact cumulative share, and all parts add up to the whole."""
    whole = first + second + rest
    if whole == 0:
        return
    one, two = divide(total, first, second, rest)
    assert abs(2 * (one * whole - total * first)) <= whole
    assert abs(2 * ((one + two) * whole - total * (first + second))) <= whole
    assert rest or one + two == total
    assert one * total >= 0
    assert two * total >= 0


@given(st.integers(-(10**12), 10**12), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 10**6))
def test_divide_is_symmetric_in_sign(total: int, first: int, second: int, rest: int) -> None:
    """Halves go away from zero: a reduction is divided like the same amount of goods."""
    one, two = divide(total, first, second, rest)
    assert divide(-total, first, second, rest) == (-one, -two)


@settings(max_examples=100)
@given(contents(), st.lists(st.integers(1, 2), min_size=1, max_size=6))
def test_order_of_shipments_does_not_matter(lines: list[dict[str, Any]], sizes: list[int]) -> None:
    """The same units in one parcel or in several give the same carts."""
    if not any(line["reference"] == "a" for line in lines):
        return
    together = log(confirmed(*lines), shipped("s0", a=sum(sizes)))
    apart = log(confirmed(*lines), *(shipped(f"s{i}", a=size) for i, size in enumerate(sizes, start=1)))
    one, other = assess(fold(together), REFERENCE), assess(fold(apart), REFERENCE)
    assert one.state == other.state
    assert one.order is None or one.order.is_same(other.order)


@pytest.mark.parametrize("count", [SEEN_MAX, SEEN_MAX + 5])
def test_memory_of_seen_events_is_bounded(count: int) -> None:
    """The ids of the newest thousand events are remembered, and no more."""
    one = log(confirmed({"reference": "a", "name": "A", "quantity": 1, "unit_price_minor": 1, "total_minor": 1}))[0]
    facts = Facts()
    for number in range(count):
        facts = reduce(facts, msgspec.structs.replace(one, uid=number.to_bytes(8, "big")), number)
    assert len(facts.seen) == 8 * SEEN_MAX
    newest, oldest = (count - 1).to_bytes(8, "big"), (count - SEEN_MAX).to_bytes(8, "big")
    for uid in (newest, oldest):
        assert reduce(facts, msgspec.structs.replace(one, uid=uid), count) is facts
    forgotten = msgspec.structs.replace(one, uid=(count - SEEN_MAX - 1).to_bytes(8, "big", signed=True))
    assert reduce(facts, forgotten, count) is not facts


def test_ids_are_found_at_their_own_place_only() -> None:
    """An id that stands across two neighbours in memory is not taken for seen."""
    one = log(confirmed({"reference": "a", "name": "A", "quantity": 1, "unit_price_minor": 1, "total_minor": 1}))[0]
    facts = Facts(seen=b"abcdefgh" + b"ijklmnop")
    across = msgspec.structs.replace(one, uid=b"efghijkl")
    assert reduce(facts, across, 1) is not facts
    both = Facts(seen=b"abcdefgh" + b"ijklmnop" + b"efghijkl")
    assert reduce(both, across, 1) is both


@settings(max_examples=300)
@given(histories(max_size=14))
def test_summary_says_what_the_assessment_says(events: list[OrderEvent]) -> None:
    """At every moment of a history: the same status, the same reasons, the same money, and what the provider said."""
    facts = Facts()
    for position, event in enumerate(events):
        facts = reduce(facts, event, position)
        found, (summary, provider) = assess(facts, REFERENCE), summarize(OrderRecord(sealed=seal_facts(facts)))
        assert (summary.state, summary.reasons, provider) == (found.state, found.reasons, facts.provider)
        order = found.order
        totals = None if order is None else (order.currency, order.shipped.total_minor, order.unshipped.total_minor)
        said = (summary.currency, summary.shipped_minor, summary.unshipped_minor)
        assert said == (totals or (None, 0, 0))


def test_standing_is_a_value_of_the_facts() -> None:
    """No event, no order: the assessment says so and needs nothing."""
    assert assess(Facts(), REFERENCE) == Assessment("unconfirmed", ["no order.confirmed yet"])
    assert baseline(Facts(), REFERENCE) is None
    assert SUBJECT.endswith(REFERENCE)
