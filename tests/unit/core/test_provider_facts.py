"""What an order keeps of what its provider says, and which of it counts (`CONTRACT.md` section 6)."""

from itertools import permutations
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from schemas.events import PROVIDER_TYPES, data_of, event_type
from schemas.examples import EXAMPLES
from schemas.facts import Facts, ProviderFacts
from schemas.views import ProviderView
from tests.shops.events import (
    REFERENCE,
    EventSpec,
    assessment,
    cancelled,
    confirmed,
    details,
    event,
    facts_of,
    fold,
    goods,
    observed,
    other,
    payment,
    refunded,
    retracted,
    returned,
    said,
    shipped,
    time_text,
    totals,
)
from tests.unit.core.samples import FULL, MINIMAL
from worker.core.order import assess
from worker.core.provider_facts import DISBURSED_MAX, KINDS, NAMES, without_words
from worker.core.reducer import reduce
from worker.core.view import view_provider

CONFIRMED = confirmed(goods("A", 2, 200))
HELD = confirmed(goods("A", 2, 200), payment_state="on_hold")


def known(*specs: EventSpec) -> ProviderFacts:
    """What is kept after these specs."""
    found = facts_of(*specs).provider
    assert found is not None
    return found


def words(facts: ProviderFacts, kind: str) -> Any:
    """The newest data of a kind."""
    return msgspec.msgpack.decode(facts.said[kind][1])


def at(told: EventSpec, second: float) -> EventSpec:
    """The same at this time; its id tells it from others."""
    return told.but(time=time_text(second), id=f"{told.type} {second}")


# --- what is kept ------------------------------------------------------------------------------------------------------

SHOWN = {
    "provider.payment_state": "evaluation",
    "provider.transaction": "transaction",
    "provider.upsell": "upsell",
    "provider.delivery": "delivery",
    "provider.cancelled": "cancelled",
    "provider.cancel_asked": "cancel_asked",
    "provider.risk": "risk",
    "provider.shipping": "shipping",
    "provider.card_saved": "card_saved",
    "provider.unmapped": "unmapped",
}


def test_every_type_has_its_rule() -> None:
    """Who adds a type of event has to say what becomes of it."""
    assert KINDS.keys() == {data_of(event) for event in PROVIDER_TYPES}
    assert {f"provider.{name}" for name in NAMES.values()} == {event_type(event) for event in PROVIDER_TYPES}


def shown_by(kind: str, data: dict[str, Any]) -> dict[str, Any]:
    """What people are shown after an event of this type alone, by member, without what every event brings."""
    view = view_provider(known(EventSpec(kind, data)))
    assert view is not None
    return {name: member for name, member in msgspec.structs.asdict(view).items() if member and name != "order"}


@pytest.mark.parametrize("kind", [kind for kind in EXAMPLES if kind.startswith("provider.")])
def test_every_example_shows_something(kind: str) -> None:
    """An event that nobody sees anything of might as well not be written."""
    ((_, member),) = shown_by(kind, EXAMPLES[kind]).items()
    unseen = {"provider_order", "payload"} | UNSEEN.get(kind, set())
    assert {name: value for name, value in EXAMPLES[kind].items() if name not in unseen}.items() <= member.items()
    assert ("at" in member) is (kind != "provider.disbursed")


UNSEEN = {"provider.payment_state": {"transaction_id"}, "provider.disbursed": {"disbursement", "reference"}}
"""A state of the payment is worked out of all that was said of it; disbursements are counted, and the newest is seen."""


def test_every_member_of_the_view_is_shown_by_an_event() -> None:
    """Those of `ProviderView` that no event brings are the order's id there and what its adapter knows."""
    told = [(kind, data) for kind, data in EXAMPLES.items() if kind.startswith("provider.")]
    told += [
        ("provider.payment_state", {"state": "under_evaluation"}),
        ("provider.delivery", {"state": "second_attempt"}),
    ]
    found = {name for kind, data in told for name in shown_by(kind, data)}
    assert found == set(ProviderView.__struct_fields__) - {"order", "known"}


@pytest.mark.parametrize(("kind", "shown"), SHOWN.items())
def test_newest_of_each_kind_is_kept_as_it_was_said(kind: str, shown: str) -> None:
    """By time, whatever order it comes in; what comes later at the same time wins."""
    data = {"state": "under_evaluation"} if kind == "provider.payment_state" else FULL[kind]
    old, new = at(EventSpec(kind, MINIMAL[kind]), 10), at(EventSpec(kind, data), 20)
    expected = {name: value for name, value in data.items() if name != "payload"}
    for specs in ((old, new), (new, old)):
        assert words(known(*specs), shown) == expected
    tied = known(new.but(id="x"), old.but(time=time_text(20)))
    assert words(tied, shown) == MINIMAL[kind]


def test_sequence_of_a_provider_means_nothing() -> None:
    """Its facts go by time alone."""
    old, new = at(said("risk", level="old"), 10).but(sequence="9"), at(said("risk", level="new"), 20)
    assert words(known(old, new), "risk") == words(known(new, old), "risk") == {"level": "new"}


def test_second_attempt_stays_known() -> None:
    """The newest delivery is shown; that there was a second attempt is not forgotten over it."""
    second, then = at(said("delivery", state="second_attempt"), 10), at(said("delivery", state="delivered"), 20)
    for specs in ((second, then), (then, second)):
        found = known(*specs)
        assert (words(found, "delivery"), words(found, "second_attempt")) == (
            {"state": "delivered"},
            {"state": "second_attempt"},
        )
    assert known(second, then, at(said("delivery", state="second_attempt"), 5)).said["second_attempt"][0][1] == 0


def test_newest_name_of_the_order() -> None:
    """Whatever brought it; what names none leaves it."""
    first = at(said("risk", level="x", provider_order="1"), 10)
    second = at(said("cancel_asked", provider_order="2"), 20)
    nameless = at(said("unmapped", kind="k", word="w"), 30)
    for specs in permutations((first, second, nameless)):
        found = known(*specs)
        assert found.order is not None
        assert found.order[1] == "2"


def test_what_a_provider_says_is_said_once() -> None:
    """The same id again changes nothing."""
    one = event(said("risk", level="x"))
    facts = reduce(Facts(), one, 0)
    assert reduce(facts, one, 1) is facts


def test_words_of_errors_can_be_forgotten() -> None:
    """They may repeat what is being removed; all else stays."""
    told = (EventSpec(kind, FULL[kind]) for kind in ("provider.transaction", "provider.shipping", "provider.risk"))
    before = known(*told)
    after = without_words(before)
    for kind in ("transaction", "shipping"):
        assert words(before, kind).pop("error")
        assert "error" not in words(after, kind)
    assert without_words(after) == after
    assert words(after, "transaction")["status"] == "Error"
    assert after.said["risk"] == before.said["risk"]


# --- disbursements -----------------------------------------------------------------------------------------------------


def line(number: int, amount: int = 1, day: int = 1) -> EventSpec:
    """One line of a disbursement."""
    data = {"disbursement": "/d/1", "amount_minor": amount, "issued_on": f"2026-03-{day:02}"}
    return said("disbursed", by="disbursements", **data).but(id=f"line {number}")


def test_lines_add_up() -> None:
    """Two of one disbursement, a later one that takes back; each counts once."""
    one = line(1, 1300)
    found = known(one, line(2, 5), line(3, -1000, day=9), one)
    assert sum(each.amount_minor for each in found.disbursed.values()) == 305
    assert (len(found.disbursed), found.disbursed_before_minor) == (3, 0)


def test_many_lines_are_bounded_and_still_add_up() -> None:
    """The newest by day are kept one by one, of the others the sum, in whatever order they come."""
    lines = [line(number, amount=2**number % 997, day=number % 28 + 1) for number in range(DISBURSED_MAX + 40)]
    there, back = known(*lines), known(*reversed(lines))
    assert len(there.disbursed) == DISBURSED_MAX
    assert (there.disbursed, there.disbursed_before_minor) == (back.disbursed, back.disbursed_before_minor)
    total = sum(each.amount_minor for each in there.disbursed.values()) + there.disbursed_before_minor
    assert total == sum(each.data["amount_minor"] for each in lines)
    days = [each.issued_on for each in there.disbursed.values()]
    assert min(days) == "2026-03-09"


def test_line_that_is_kept_counts_once_however_long_ago_it_was_seen() -> None:
    """Its id is known longer than the ids of other events, and what it said first counts."""
    facts = replace(reduce(Facts(), event(line(1, 7)), 0), seen=b"")
    again = reduce(facts, event(line(1, 8)), 5)
    assert again.provider == facts.provider


# --- payment -----------------------------------------------------------------------------------------------------------


def paid(state: str, second: float, by: str = "checkout-status") -> EventSpec:
    """`provider.payment_state` at this time."""
    return at(said("payment_state", by=by, state=state), second)


@pytest.mark.parametrize(
    ("specs", "state"),
    [
        ([HELD, paid("approved", 10)], "ready"),
        ([CONFIRMED, paid("on_hold", 10)], "on_hold"),
        ([CONFIRMED, paid("refused", 10)], "refused"),
        ([CONFIRMED, paid("under_evaluation", 10)], "ready"),
        ([HELD, paid("under_evaluation", 10)], "on_hold"),
        # Among the provider's own: on hold counts for nothing once the payment was decided, whatever its time.
        ([CONFIRMED, paid("approved", 10), paid("on_hold", 20)], "ready"),
        ([CONFIRMED, paid("refused", 10), paid("on_hold", 20)], "refused"),
        ([CONFIRMED, paid("on_hold", 10), paid("approved", 20)], "ready"),
        ([CONFIRMED, paid("refused", 10), paid("approved", 20)], "ready"),
        ([CONFIRMED, paid("approved", 10), paid("refused", 20)], "refused"),
        # What nobody can ask about: a refusal is final.
        ([CONFIRMED, paid("refused", 10), paid("approved", 20, "webhook")], "refused"),
        ([CONFIRMED, paid("refused", 10), paid("approved", 20, "ipn")], "refused"),
        ([CONFIRMED, paid("refused", 20), paid("approved", 10, "webhook")], "refused"),
        ([HELD, paid("on_hold", 20, "ipn"), paid("approved", 10, "webhook")], "ready"),
        ([HELD, paid("approved", 10, "webhook"), paid("approved", 20)], "ready"),
        ([HELD, paid("approved", 20, "webhook"), paid("approved", 10)], "ready"),
        # With the shop's: the newest of each, by time alone.
        ([HELD.but(sequence="7"), paid("approved", 10)], "ready"),
        ([CONFIRMED, at(payment("approved"), 10), paid("on_hold", 20)], "on_hold"),
        ([CONFIRMED, at(payment("approved"), 20), paid("on_hold", 10)], "ready"),
        ([CONFIRMED, at(payment("on_hold"), 20), paid("approved", 10)], "on_hold"),
        ([CONFIRMED, at(payment("on_hold"), 20).but(sequence="1"), paid("approved", 30)], "ready"),
        (
            [CONFIRMED, at(payment("on_hold"), 50).but(sequence="1"), at(payment("approved"), 10).but(sequence="2"),
             paid("refused", 30)],
            "refused",
        ),
    ],
)  # fmt: skip
def test_payment_state_that_counts(specs: list[EventSpec], state: str) -> None:
    """… in whatever order it is told."""
    first = specs[0].but(time=time_text(1))
    for arrival in permutations((first, *specs[1:])):
        assert assessment(*arrival).state == state, arrival


def test_circles_are_none() -> None:
    """By sequence the shop's second beats its first, by time the first beats the provider's, which beats the second:
    the newest of the shop's is found first, so every order of arrival ends in the same.
    """
    first = at(payment("on_hold"), 30).but(sequence="1")
    second = at(payment("refused"), 10).but(sequence="2")
    there = paid("approved", 20)
    assert {assessment(CONFIRMED, *arrival).state for arrival in permutations((first, second, there))} == {"ready"}


# --- cancellation ------------------------------------------------------------------------------------------------------


def cancelled_there(second: float, by: str = "webhook") -> EventSpec:
    """`provider.cancelled` at this time."""
    return at(EventSpec("provider.cancelled", {"by": "shopper"}).but(source=f"/cartsync/acme/{by}"), second)


def carts_after(*specs: EventSpec) -> set[tuple[str, int]]:
    """State and what is to come, in every order of arrival."""
    found: set[tuple[str, int]] = set()
    for arrival in permutations(specs):
        result = assess(fold([event(told) for told in (CONFIRMED, *arrival)]), REFERENCE)
        found.add((result.state, -1 if result.order is None else result.order.unshipped.total_minor))
    return found


def test_cancelled_where_nobody_can_ask() -> None:
    """As by the provider: nothing is to come, and what the shopper keeps contradicts it."""
    assert carts_after(cancelled_there(10)) == {("ready", 0)}
    assert carts_after(cancelled_there(10), at(shipped("s1", A=1), 5)) == {("inconsistent", -1)}
    assert carts_after(cancelled_there(10), cancelled_there(20)) == {("ready", 0)}


def test_cancellation_is_a_claim_where_one_can_ask() -> None:
    """It is shown, and changes no cart."""
    assert carts_after(cancelled_there(10, by="notification")) == {("ready", 200)}


def test_cancellations_go_by_time() -> None:
    """The shop's newest word against the provider's, whatever sequence it has."""
    reopened = retracted(cancelled=True)
    assert carts_after(cancelled_there(10), at(reopened, 20)) == {("ready", 200)}
    assert carts_after(cancelled_there(20), at(reopened, 10)) == {("ready", 0)}
    assert carts_after(cancelled_there(20), at(reopened, 10).but(sequence="5")) == {("ready", 0)}
    assert carts_after(cancelled_there(10), at(cancelled(), 20)) == {("ready", 0)}
    assert carts_after(
        cancelled_there(20), at(reopened, 30).but(sequence="5"), at(cancelled(), 10).but(sequence="6")
    ) == {("ready", 0)}


@pytest.mark.parametrize("sequence", [None, "3"])
@pytest.mark.parametrize(("second", "left"), [(5, 30), (15, 0)])
def test_refund_and_cancellation_there(sequence: str | None, second: float, left: int) -> None:
    """A refund given before the order was cancelled there was for units that are gone since, by time, whatever sequence
    the shop's refund has; one given after it can only be for the delivery.
    """
    refund = at(refunded("f1", 60, applies_to=["A", "H"]), second)
    told = (
        confirmed(goods("A", 2, 200), other("handling", "H", 50)),
        shipped("s1", A=1),
        returned("r1", A=1),
        refund if sequence is None else refund.but(sequence=sequence),
    )
    assert totals(*told, cancelled_there(10)) == (left, 0)
    if sequence is None:
        assert totals(*told, at(cancelled(by="provider"), 10)) == (left, 0)


# --- observed ----------------------------------------------------------------------------------------------------------


def test_newest_observation_counts() -> None:
    """By stamp, as all that a shop says."""
    old, new = observed(status="processing").but(sequence="1"), observed(status="shipped").but(sequence="2")
    for specs in ((old, new), (new, old)):
        found = facts_of(*specs).observed
        assert found is not None
        assert msgspec.msgpack.decode(found[1])["status"] == "shipped"


def test_observation_is_no_fact_of_the_order() -> None:
    """Neither carts nor details nor state follow from it."""
    assert assessment(CONFIRMED, observed(amount_minor=5)).order is not None
    assert assessment(observed()).state == "unconfirmed"
    before, after = facts_of(details(gift=True)), facts_of(details(gift=True), observed())
    assert replace(after, seen=b"", observed=None) == replace(before, seen=b"")
