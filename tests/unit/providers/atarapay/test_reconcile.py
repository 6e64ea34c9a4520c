"""Where an escrow is compared with where it should be: each verdict, who is owed what, and what to do."""

from collections.abc import Sequence
from typing import Any

import pytest

from schemas.reconciliation import ProviderSide
from tests.shops.events import (
    EventSpec,
    cancelled,
    goods,
    items_cancelled,
    order,
    refunded,
    returned,
    shipped,
)
from tests.unit.providers.atarapay.reported import (
    ACCOUNT,
    ALL_DELIVERED,
    ALL_SHIPPED,
    ATARAPAY,
    NUMBER,
    answer,
    asked,
    call_of,
    confirmation,
    heard,
)
from worker.model.exchange import Exchange, Outcome, OutcomeKind
from worker.model.order import Order
from worker.model.reconcile import Case, Finding, Terms
from worker.providers.atarapay.wire import Seen, State
from worker.providers.registry import RECONCILERS

RECONCILER = RECONCILERS["atarapay"]
SAID = (confirmation(),)
SHIPPED = (confirmation(), ALL_SHIPPED)
CANCELLED = (confirmation(), cancelled())
ENDED = (confirmation(), cancelled(by="provider"))
PART_BACK = (*ALL_DELIVERED, returned("r1", hat=1))
ALL_BACK = (*ALL_DELIVERED, returned("r1", hat=2, shoe=1))
REFUNDED = (*ALL_DELIVERED, refunded("f1", 500))
KEPT_AND_CANCELLED = (confirmation(), shipped("s1", hat=1), cancelled())


def case_of(found: Order) -> Case:
    """As it is compared."""
    return Case(asked(found), found, 0)


def seen(state: State | None, **members: Any) -> Seen:
    """What Order Status has said."""
    return Seen(state, str(state or "Frozen"), **({"product_id": ""} | members))


VERDICTS: dict[str, tuple[Sequence[EventSpec], State | None, str, str, int | None, str | None]] = {
    "delivered, awaiting": (ALL_DELIVERED, State.AWAITING, "agrees", "agrees", None, None),
    "delivered, accepted": (ALL_DELIVERED, State.ACCEPTED, "agrees", "agrees", None, None),
    "delivered, paid out": (ALL_DELIVERED, State.COMPLETED, "agrees", "agrees", None, None),
    "delivered, not told": (ALL_DELIVERED, State.PENDING, "differs", "not_delivered", -7_000, "shop"),
    "delivered, once more": (ALL_DELIVERED, State.SECOND, "not_final", "awaits_buyer", None, None),
    "delivered, rejected": (ALL_DELIVERED, State.REJECTED, "not_final", "awaits_buyer", None, None),
    "delivered, dispute": (ALL_DELIVERED, State.DISPUTED, "not_final", "awaits_buyer", None, None),
    "delivered, cancelled": (ALL_DELIVERED, State.CANCELLED, "differs", "cancelled_at_provider", -7_000, "shop"),
    "delivered, refunded": (ALL_DELIVERED, State.REFUNDED, "differs", "refunded_at_provider", -7_000, "shop"),
    "delivered, resolved": (ALL_DELIVERED, State.RESOLVED, "not_compared", "state_unknown", None, None),
    "delivered, unknown word": (ALL_DELIVERED, None, "not_compared", "state_unknown", None, None),
    "cancelled, cancelled": (CANCELLED, State.CANCELLED, "agrees", "agrees", None, None),
    "cancelled, refunded": (CANCELLED, State.REFUNDED, "agrees", "agrees", None, None),
    "cancelled, pending": (CANCELLED, State.PENDING, "differs", "not_cancelled", 7_000, "shopper"),
    "cancelled, paid out": (CANCELLED, State.COMPLETED, "differs", "not_cancelled", 7_000, "shopper"),
    "ended there, cancelled": (ENDED, State.CANCELLED, "agrees", "agrees", None, None),
    "ended there, pending": (ENDED, State.PENDING, "differs", "not_cancelled", 7_000, "shopper"),
    "confirmed, pending": (SAID, State.PENDING, "agrees", "agrees", None, None),
    "on its way, pending again": (SHIPPED, State.SECOND, "agrees", "agrees", None, None),
    "confirmed, cancelled": (SAID, State.CANCELLED, "differs", "cancelled_at_provider", None, None),
    "confirmed, refunded": (SAID, State.REFUNDED, "differs", "refunded_at_provider", None, None),
    "on its way, cancelled": (SHIPPED, State.CANCELLED, "differs", "cancelled_at_provider", -7_000, "shop"),
    "confirmed, delivered": (SAID, State.AWAITING, "differs", "delivered_at_provider", None, None),
    "part back, paid out": (PART_BACK, State.COMPLETED, "differs", "amount_differs", 1_000, "shopper"),
    "part back, cancelled": (PART_BACK, State.CANCELLED, "differs", "cancelled_at_provider", -6_000, "shop"),
    "all back, pending": (ALL_BACK, State.AWAITING, "differs", "amount_differs", 7_000, "shopper"),
    "all back, cancelled": (ALL_BACK, State.CANCELLED, "agrees", "agrees", None, None),
    "refunded, paid out": (REFUNDED, State.COMPLETED, "differs", "amount_differs", 500, "shopper"),
    "kept and cancelled": (KEPT_AND_CANCELLED, State.PENDING, "differs", "amount_differs", 6_000, "shopper"),
}


@pytest.mark.parametrize(
    ("specs", "state", "category", "verdict", "minor", "owed_to"), VERDICTS.values(), ids=VERDICTS.keys()
)
def test_verdicts(
    specs: Sequence[EventSpec], state: State | None, category: str, verdict: str, minor: int | None, owed_to: str | None
) -> None:
    """What is held, beside what the shop has told; each difference says what to do, and what is held is shown."""
    found = RECONCILER.compare(case_of(order(*specs)), seen(state))
    assert (found.category, found.verdict, found.difference_minor, found.owed_to) == (
        *(category, verdict, minor, owed_to),
    ), found
    assert bool(found.action) is (category != "agrees")
    assert found.held == ProviderSide(order=NUMBER, state=str(state or "Frozen"))


@pytest.mark.parametrize(
    ("specs", "state", "text", "action"),
    [
        (ALL_DELIVERED, State.PENDING, "The shop is owed 70.00 NGN.", "cartsync order resend acme/A14/12345"),
        (CANCELLED, State.PENDING, "The shopper is owed 70.00 NGN.", "or cancel it on AtaraPay's dashboard"),
        (PART_BACK, State.COMPLETED, "The shopper is owed 10.00 NGN.", "Pay it outside of AtaraPay"),
        (ALL_BACK, State.AWAITING, "The shopper is owed 70.00 NGN.", "Write order.cancelled for acme/A14/12345"),
        (SAID, State.AWAITING, "the shop has 70.00 NGN still to ship", "Ship what is left."),
        (SAID, State.CANCELLED, "the shop means to ship", "Ship nothing"),
    ],
    ids=["not delivered", "not cancelled", "part back", "all back", "delivered there", "cancelled there"],
)
def test_sentences(specs: Sequence[EventSpec], state: State, text: str, action: str) -> None:
    """A difference says in a sentence who is owed what, and what to do."""
    found = RECONCILER.compare(case_of(order(*specs)), seen(state))
    subject = f"{ACCOUNT.name}/A14/12345"
    assert text in found.text
    assert action.replace("acme/A14/12345", subject) in found.action


@pytest.mark.parametrize(
    ("amount", "currency", "category", "verdict", "minor", "owed_to"),
    [
        (7_000, "NGN", "agrees", "agrees", None, None),
        (None, "NGN", "agrees", "agrees", None, None),
        (1, "", "agrees", "agrees", None, None),
        (7_001, "NGN", "differs", "amount_differs", 1, "shopper"),
        (6_999, "NGN", "differs", "amount_differs", -1, "shop"),
        (5_000, "USD", "agrees", "other_currency", None, None),
    ],
    ids=["the same", "not told", "currency not told", "a cent more", "a cent less", "converted"],
)
def test_amounts(
    amount: int | None, currency: str, category: str, verdict: str, minor: int | None, owed_to: str | None
) -> None:
    """Where the escrow is right its amount is compared, in one currency: AtaraPay converts others."""
    found = RECONCILER.compare(
        case_of(order(*ALL_DELIVERED)), seen(State.ACCEPTED, amount_minor=amount, currency=currency)
    )
    assert (found.category, found.verdict, found.difference_minor, found.owed_to) == (
        *(category, verdict, minor, owed_to),
    )
    assert found.held is not None
    assert (found.held.amount_minor, found.held.currency) == (amount, "USD" if currency == "USD" else None)


def test_whole_amount_that_is_right() -> None:
    """The carts come to what was confirmed, though AtaraPay has no word for what happened."""
    swapped = (*ALL_DELIVERED, returned("r1", hat=2, shoe=1), shipped("s2", hat=2, shoe=1), refunded("f1", 1))
    found = RECONCILER.compare(case_of(order(*swapped)), seen(State.COMPLETED))
    assert (found.verdict, found.difference_minor) == ("amount_differs", 1)
    dearer = (confirmation(goods("hat", 2, 4_000)), items_cancelled("c1", hat=1))
    charged = EventSpec("order.fee_charged", {"fee_id": "f", "amount_minor": 2_000})
    found = RECONCILER.compare(case_of(order(*dearer, charged)), seen(State.PENDING))
    assert found.verdict == "agrees"
    charged = EventSpec("order.fee_charged", {"fee_id": "f", "amount_minor": 2_500})
    found = RECONCILER.compare(case_of(order(*dearer, charged)), seen(State.PENDING))
    assert (found.verdict, found.difference_minor, found.owed_to) == ("amount_differs", -500, "shop")


@pytest.mark.parametrize(
    ("reference", "hearsay", "product_id", "is_other"),
    [
        ("1001", False, "1001", False),
        ("1001", False, "1002", True),
        ("1001", False, "", False),
        ("A14/12345", False, "1002", False),
        ("A14/12345", True, "1002", True),
    ],
    ids=["its own", "another number", "not told", "an alias", "a notification named it"],
)
def test_another_order(reference: str, hearsay: bool, product_id: str, is_other: bool) -> None:
    """A number that the checkout has given is another order's; where the reference is none, it may be an alias."""
    found = order(confirmation(number=None if hearsay else NUMBER))
    found = heard(found, NUMBER) if hearsay else found
    question = asked(found)
    question = type(question)(reference, question.account, question.update)
    compared = RECONCILER.compare(Case(question, found, 0), seen(State.PENDING, product_id=product_id))
    assert (compared.verdict == "other_order") is is_other
    if is_other:
        assert compared.held is not None
        assert (compared.category, compared.held.reference) == ("differs", product_id)


def test_question() -> None:
    """By Order Status, which changes nothing; without a number it cannot be asked."""
    step = RECONCILER.question(case_of(order(*SAID)))
    assert isinstance(step, Exchange)
    assert step.is_read
    assert call_of(step) == {"order": NUMBER, "status": "order"}
    found = RECONCILER.question(case_of(order(confirmation(number=None))))
    assert isinstance(found, Finding)
    assert (found.category, found.verdict) == ("not_compared", "cannot_be_asked")
    assert "references.provider" in found.text


def test_unknown_and_ledger() -> None:
    """AtaraPay says in words that it knows no such order; each order is asked about by itself."""
    unknown = answer({"status": "error", "message": "No such order exists for the seller."})
    step = RECONCILER.question(case_of(order(*SAID)))
    assert isinstance(step, Exchange)
    outcome = ATARAPAY.read_response(asked(order(*SAID)), step, unknown).outcome
    assert RECONCILER.is_unknown(ACCOUNT, outcome)
    assert not RECONCILER.is_unknown(ACCOUNT, Outcome(OutcomeKind.PERMANENT, "400: Invalid status sent."))
    assert RECONCILER.ledger(ACCOUNT, Terms(0, 31, True)) is None
    assert RECONCILER.title == "AtaraPay"


@pytest.mark.parametrize(
    ("members", "amount", "currency"),
    [
        ({"product_cost": 6051900, "amount_payed": 1, "currency": "NGN"}, 6_051_900, "NGN"),
        ({"amount_payed": "450000", "currency": " ngn "}, 450_000, "NGN"),
        ({"product_cost": "4.5", "currency": "naira"}, None, ""),
        ({"product_cost": None, "currency": 7}, None, ""),
        ({}, None, ""),
    ],
    ids=["as documented", "as texts", "no whole number", "other types", "nothing"],
)
def test_what_order_status_says_of_money(members: dict[str, Any], amount: int | None, currency: str) -> None:
    """The cost at checkout and its currency, as numbers or texts; what is something else is not told."""
    step = RECONCILER.question(case_of(order(*SAID)))
    assert isinstance(step, Exchange)
    data = {"status": {"id": 1, "title": "Pending"}, **members}
    told = answer({"status": "success", "message": "Order Fetched", "data": data})
    found = ATARAPAY.read_response(asked(order(*SAID)), step, told).seen
    assert (found.amount_minor, found.currency) == (amount, currency)
