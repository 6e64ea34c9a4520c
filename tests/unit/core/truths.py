"""What must hold of every history, as functions that a test, a long run and a search for a smaller history share.

Each takes the events as a shop wrote them and raises `AssertionError` with what it found. `Seen` is what is looked
at, whoever reckoned it: production through its own door, or the naive model.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, NamedTuple

from schemas.events import GOODS, NEGATIVE
from schemas.facts import Facts
from schemas.state import OrderRecord, decode_order, encode
from tests.shops.events import REFERENCE, event_of, fold
from tests.shops.histories import Json, events_of
from tests.unit.core.naive_carts import (
    Event,
    NaiveItem,
    NaiveOrder,
    Story,
    Words,
    kind_of,
    line_id,
    naive_order,
    units_of,
)
from worker.core.order import Assessment, assess
from worker.core.record import apply_event
from worker.core.reducer import reduce
from worker.model.order import Item, Order

Truth = Callable[[list[Json], Random], None]


class Seen(NamedTuple):
    """An order as far as shops and providers get to see it."""

    state: str
    shipped: list[NaiveItem] | None
    unshipped: list[NaiveItem] | None
    trackings: list[tuple[str, str | None]] | None
    cancellation: tuple[str | None, bool] | None

    @property
    def owed(self) -> int | None:
        """Both carts together; nothing while they are not known."""
        if self.shipped is None or self.unshipped is None:
            return None
        return sum(item[4] for item in self.shipped) + sum(item[4] for item in self.unshipped)


def seen_in_model(log: Sequence[Json]) -> tuple[Seen, list[Words]]:
    """What the naive model says, and the contradictions that it found."""
    found: NaiveOrder = naive_order(log)
    return (
        Seen(found.state, _sorted(found.shipped), _sorted(found.unshipped), found.trackings, found.cancellation),
        found.contradictions,
    )


def seen_of(assessment: Assessment) -> Seen:
    """What production says."""
    order = assessment.order
    if order is None:
        return Seen(assessment.state, None, None, None, None)
    for cart in (order.shipped, order.unshipped):
        assert cart.total_minor == sum(item.total_minor for item in cart.items), "a total is not the sum"
    return Seen(
        assessment.state,
        _plain(order.shipped.items),
        _plain(order.unshipped.items),
        [(tracking.reference, tracking.delivered_at or None) for tracking in order.trackings],
        _cancellation(order),
    )


def seen_in_production(log: Sequence[Json]) -> Seen:
    """What production says of a log."""
    return seen_of(assess(fold(events_of(log)), REFERENCE))


def _plain(items: list[Item]) -> list[NaiveItem] | None:
    return _sorted([(item.type, item.reference, item.name, item.quantity, item.total_minor) for item in items])


def _sorted(items: list[NaiveItem] | None) -> list[NaiveItem] | None:
    return None if items is None else sorted(items, key=repr)


def _cancellation(order: Order) -> tuple[str | None, bool] | None:
    given = order.cancellation
    return None if given is None else (given.given, given.by_shopper)


# --- the truths ---------------------------------------------------------------------------------------------------


def model_agrees(log: list[Json], chance: Random) -> None:
    """Production says what the naive model says: state, numbers of contradictions, items, trackings, reason."""
    assessment = assess(fold(events_of(log)), REFERENCE)
    production = seen_of(assessment)
    model, contradictions = seen_in_model(log)
    assert production == model, f"production {production} {assessment.reasons}, model {model} {contradictions}"
    if assessment.state == "inconsistent":
        for reason in assessment.reasons:
            assert any(_names(reason, words) for words in contradictions), f"{reason!r}, model {contradictions}"


def _names(reason: str, words: Words) -> bool:
    """Whether a reason has these words, in any order."""
    return all(word in reason for word in words)


def arrival_does_not_matter(log: list[Json], chance: Random) -> None:
    """Any order of arrival, repetitions and splits into batches end in the same order."""
    arrivals = log + chance.choices(log, k=2)
    chance.shuffle(arrivals)
    record = OrderRecord()
    for position, one in enumerate(arrivals):
        event = event_of(one)
        record = apply_event(record, event, position=position, revision=position + 1, now_ms=1_000, destination=None)
        if chance.randrange(3) == 0:
            record = decode_order(encode(record))
    other, plain = seen_of(assess(record.facts, REFERENCE)), seen_in_production(log)
    assert other == plain, f"{[one['id'] for one in arrivals]}: {other}, in order {plain}"


LOSSES = frozenset(
    {"order.items_returned", "order.items_cancelled", "order.refunded", "order.cancelled", "order.fee_charged"}
)


def amounts_are_found(log: list[Json], chance: Random) -> None:
    """No loss raises what is owed; every amount that is told comes off, or on, to the cent.

    The story is told in the order of its stamps; each loss is compared with the order before it. Where refunds have
    brought an order to 0 there is nothing to compare: what they could not take waits for what comes.
    """
    facts = Facts()
    told = _by_stamp(log)
    before: Seen | None = None
    for position, one in enumerate(told):
        facts = reduce(facts, event_of(one), position)
        after = seen_of(assess(facts, REFERENCE))
        if before is not None and one["type"] in LOSSES:
            check_loss(told[:position], one, before, after)
        before = after


def check_loss(told: list[Json], one: Json, before: Seen, after: Seen) -> None:
    """One loss, after what was told before it."""
    if not before.owed or after.owed is None or _fact_of(one) in map(_fact_of, told):
        return
    data: dict[str, Any] = one["data"]
    fee = data.get("fee_minor", 0) + (data["amount_minor"] if one["type"] == "order.fee_charged" else 0)
    fell = before.owed + fee - after.owed
    said = f"{one['type']} {data}: {before.owed} before, {after.owed} after"
    story = Story(told)
    tied = [refund for refund in story.refunds() if "applies_to" in refund.data]
    # A cart is a sum of shares, each rounded to the cent by itself: a refund's share of each line that it names, and of
    # the reductions where one is of some lines. Each may be half a cent too little before and half too much after.
    cents = sum(len(refund.data["applies_to"]) for refund in tied) + len(data.get("applies_to", ()))
    reductions = [line for line in story.contents()[-1].data["lines"] if kind_of(line) in NEGATIVE]
    if cents or any("applies_to" in line for line in reductions):
        cents += len(reductions)
    # What takes units that were not there any more counts for a refund of lines as if it had taken them.
    if not tied or _took_what_was_there(story, data):
        assert fell >= -cents, f"{said}: it rose"
    # With units of returns taken as kept, a cart may be a cent short of what refunds of lines take there.
    is_near = (
        cents if any("refunded_minor" in back.data for back in (*story.returns(), Event((0, 0, 0), "", data))) else 0
    )
    lines = {line_id(line): line for line in story.contents()[-1].data["lines"]}
    in_carts = {(item[0], item[1]) for item in [*(before.shipped or ()), *(before.unshipped or ())]}
    if one["type"] == "order.fee_charged":
        assert fell == 0, said
    elif one["type"] == "order.refunded":
        # Of a line that is not there, and of a charge that went with its goods, a refund is gone, too.
        named = [lines.get(name) for name in data.get("applies_to", ())]
        if all(
            line and (kind_of(line) in GOODS or (kind_of(line), line.get("reference")) in in_carts) for line in named
        ):
            assert abs(fell - min(data["amount_minor"], before.owed)) <= is_near, said
    elif "refunded_minor" in data and "refund_handling_minor" not in data:
        counts = lines.keys() >= {unit["line_id"] for unit in data["lines"]}
        assert not counts or abs(fell - min(data["refunded_minor"], before.owed + fee)) <= is_near, said


def _took_what_was_there(story: Story, data: Json) -> bool:
    quantities = {line_id(line): line.get("quantity") for line in story.contents()[-1].data["lines"]}
    for unit in data.get("lines", []):
        u = units_of(story, unit["line_id"], quantities.get(unit["line_id"]))
        there = {"shipped": u.k, "unshipped": u.p, "any": u.k + u.p}
        origin = data.get("from", "shipped") if "return_id" in data else "unshipped"
        # Of units from `any`, those that fit are gone before `order.cancelled` counts.
        if unit["quantity"] > there[origin] or (origin == "any" and story.cancelled()):
            return False
    return True


def _fact_of(one: Json) -> str:
    data = one["data"]
    members = ("shipment_id", "return_id", "cancellation_id", "refund_id", "fee_id")
    return next((f"{member} {data[member]}" for member in members if member in data), str(one["type"]))


def nothing_is_lost(log: list[Json], chance: Random) -> None:
    """No cart is below 0, no item empty; without losses both carts are the content and the fees."""
    seen = seen_in_production(log)
    if seen.shipped is None or seen.unshipped is None:
        return
    for cart in (seen.shipped, seen.unshipped):
        assert sum(item[4] for item in cart) >= 0, f"a cart below 0: {cart}"
        for kind, _, _, quantity, total in cart:
            assert quantity >= 1 if kind in GOODS else quantity == 0 and total, f"an empty item: {cart}"
            assert total <= 0 if kind in ("discount", "other_payment") else total >= 0, f"a wrong sign: {cart}"
    kinds = {one["type"] for one in log if one["type"] == "provider.cancelled" or not is_beside(one)}
    if kinds <= {"order.confirmed", "order.items_shipped", "order.items_delivered", "order.fee_charged"}:
        assert seen.owed is not None
        confirmations = [one for one in log if one["type"] == "order.confirmed"]
        if len(confirmations) == 1:
            content = sum(line["total_minor"] for line in confirmations[0]["data"]["lines"])
            fees = {one["data"]["fee_id"]: one for one in _by_stamp(log) if one["type"] == "order.fee_charged"}
            assert seen.owed == content + sum(one["data"]["amount_minor"] for one in fees.values())


def is_beside(one: Json) -> bool:
    """Whether it is no fact of the carts, except for a cancellation there."""
    return one["type"] == "order.observed" or str(one["type"]).startswith("provider.")


def _by_stamp(log: list[Json]) -> list[Json]:
    """… with what a provider says, which has no sequence, by time: after all others where these have sequences, for
    what was refunded before it cancelled the order was refunded of an order that was not cancelled.
    """
    has_sequences = any("sequence" in one for one in log)
    return sorted(log, key=lambda one: (has_sequences and is_beside(one), int(one.get("sequence", -1)), one["time"]))


TRUTHS: dict[str, Truth] = {
    truth.__name__: truth for truth in (model_agrees, arrival_does_not_matter, amounts_are_found, nothing_is_lost)
}
