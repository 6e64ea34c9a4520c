"""What is owed after money or goods went back: never more than before, and every amount that was told to the cent."""

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.shops.events import (
    EventSpec,
    LineDict,
    assessment,
    cancelled,
    confirmed,
    fee_charged,
    goods,
    items_cancelled,
    other,
    refunded,
    returned,
    shipped,
)

Draw = Callable[[st.SearchStrategy[Any]], Any]
GOODS_IDS = ("a", "b", "c")
CHARGE_IDS = ("h", "i")


def owed(*specs: EventSpec) -> int | None:
    """What both carts add up to; `None` when the specs contradict each other."""
    order = assessment(*specs).order
    return None if order is None else order.shipped.total_minor + order.unshipped.total_minor


@st.composite
def orders(draw: Draw) -> tuple[list[LineDict], dict[str, int]]:
    """Lines of an order, and how many units of each goods line it has."""
    amounts = st.one_of(st.integers(0, 20), st.integers(0, 5_000))
    quantities = {one: draw(st.integers(1, 4)) for one in GOODS_IDS[: draw(st.integers(1, 3))]}
    lines = [goods(one, count, draw(amounts), unit_price_minor=0) for one, count in quantities.items()]
    for one in CHARGE_IDS[: draw(st.integers(0, 2))]:
        applies_to = draw(st.one_of(st.none(), st.lists(st.sampled_from(list(quantities)), min_size=1, unique=True)))
        lines.append(
            other("handling", one, draw(amounts), **({} if applies_to is None else {"applies_to": applies_to}))
        )
    ids = [line["reference"] for line in lines]
    for number in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(["discount", "other_payment", "registration", "voucher"]))
        minor = draw(amounts)
        room = sum(line["total_minor"] for line in lines)
        if kind in ("discount", "other_payment"):
            minor = -max(1, min(minor, room))
            if room + minor < 0:
                continue
        members: dict[str, Any] = {}
        if draw(st.booleans()):
            members["applies_to"] = draw(st.lists(st.sampled_from(ids), min_size=1, unique=True))
        lines.append(other(kind, f"o{number}", minor, **members))
    return lines, quantities


def _some(draw: Draw, counts: dict[str, int]) -> dict[str, Any]:
    one = draw(st.sampled_from([one for one, count in counts.items() if count]))
    count = draw(st.integers(1, counts[one]))
    counts[one] -= count
    return {one: count}


@st.composite
def losses(draw: Draw) -> tuple[list[EventSpec], list[EventSpec]]:
    """An order, of which some is shipped, and what is lost of it one by one: nothing that adds to what is owed."""
    lines, pending = draw(orders())
    ids = [line["reference"] for line in lines if line["reference"] in (*GOODS_IDS, *CHARGE_IDS)]
    kept = dict.fromkeys(pending, 0)
    told = [confirmed(*lines)]
    if draw(st.booleans()):
        drawn = {one: draw(st.integers(0, count)) for one, count in pending.items()}
        sent: dict[str, Any] = {one: count for one, count in drawn.items() if count}
        if sent:
            told.append(shipped("s1", **sent))
            for one, count in sent.items():
                pending[one] -= count
                kept[one] += count
    lost: list[EventSpec] = []
    for number in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["return", "cancel", "any", "refund", "refund", "order"]))
        if kind == "return" and any(kept.values()):
            lost.append(returned(f"r{number}", **_some(draw, kept)))
        elif kind == "cancel" and any(pending.values()):
            lost.append(items_cancelled(f"c{number}", **_some(draw, pending)))
        elif kind == "any" and any(pending.values()):
            lost.append(returned(f"r{number}", origin="any", **_some(draw, pending)))
        elif kind == "order":
            lost.append(cancelled())
            break
        else:
            named = draw(st.one_of(st.none(), st.lists(st.sampled_from(ids), min_size=1, unique=True)))
            members = {} if named is None else {"applies_to": named}
            lost.append(refunded(f"f{number}", draw(st.integers(1, 3_000)), **members))
    return told, lost


@settings(max_examples=600)
@given(losses())
def test_no_loss_raises_what_is_owed(story: tuple[list[EventSpec], list[EventSpec]]) -> None:
    """A return, a cancellation or a refund never leaves more to pay, but for a cent a line where refunds have lines."""
    told, lost = story
    cents = len(told[0].data["lines"]) if any("applies_to" in one.data for one in lost) else 0
    before = owed(*told)
    for number in range(len(lost)):
        after = owed(*told, *lost[: number + 1])
        if before is not None and after is not None:
            assert after <= before + cents
        before = after


@settings(max_examples=300)
@given(losses(), st.integers(1, 500))
def test_refund_of_the_order_is_found_to_the_cent(story: tuple[list[EventSpec], list[EventSpec]], amount: int) -> None:
    """Owed is less by just what was refunded, as far as there is something."""
    told, lost = story
    before, after = owed(*told, *lost), owed(*told, *lost, refunded("last", amount))
    if before is not None and after is not None:
        assert after == max(0, before - amount)


@settings(max_examples=300)
@given(losses(), st.integers(1, 500))
def test_refund_of_lines_is_found_to_the_cent(story: tuple[list[EventSpec], list[EventSpec]], amount: int) -> None:
    """Whatever goods it names, when it is given it comes off as one of the order does."""
    told, lost = story
    named = [line["reference"] for line in told[0].data["lines"] if line["reference"] in GOODS_IDS]
    before = owed(*told, *lost)
    after = owed(*told, *lost, refunded("last", amount, applies_to=named))
    if before is not None and after is not None and not any("applies_to" in one.data for one in lost):
        assert after == max(0, before - amount)


@settings(max_examples=300)
@given(losses(), st.integers(1, 500))
def test_fee_is_found_to_the_cent(story: tuple[list[EventSpec], list[EventSpec]], amount: int) -> None:
    """Before anything is refunded, a fee adds just itself to what is owed."""
    told, lost = story
    lost = [one for one in lost if one.type != "order.refunded"]
    before, after = owed(*told, *lost), owed(*told, *lost, fee_charged("k", amount))
    if before is not None and after is not None:
        assert after == before + amount


@settings(max_examples=300)
@given(orders(), st.data())
def test_amount_of_a_return_is_found_to_the_cent(
    order: tuple[list[LineDict], dict[str, int]], data: st.DataObject
) -> None:
    """Owed is less by just what was paid back for the units, as far as there is something."""
    lines, quantities = order
    sent: dict[str, Any] = dict(quantities)
    told = (confirmed(*lines), shipped("s1", **sent))
    before = owed(*told)
    paid = data.draw(st.integers(0, 3_000))
    units: dict[str, Any] = {one: data.draw(st.integers(1, count)) for one, count in quantities.items()}
    after = owed(*told, returned("r1", paid=paid, **units))
    if before is not None and after is not None:
        assert after == max(0, before - paid)
