"""What people see of an order: its status, its carts, and the one reason why it is where it is."""

from collections.abc import Sequence

import msgspec
import pytest

from schemas.facts import seal_facts
from schemas.state import Delay, MadeAt, OrderRecord, Parking
from schemas.views import OrderView
from tests.shops.events import SUBJECT, EventSpec, confirmed, facts_of, goods, observed, payment, said, shipped
from tests.unit.core.samples import FULL
from worker.core.policy import DeliveryPolicy
from worker.core.view import Outlook, brief_view, not_configured, view_order

CONFIRMED = confirmed(goods("A", 2, 200))
SHIPPED = (CONFIRMED, shipped("s1", A=1))
NOW = 100.0


def record(*specs: EventSpec, **members: object) -> OrderRecord:
    """A record at revision 2 of which nothing was acknowledged, unless said."""
    return OrderRecord(sealed=seal_facts(facts_of(*specs)), **{"revision": 2, **members})  # type: ignore[arg-type]


def view(
    of: OrderRecord, outlook: Outlook | None = None, paused: str | None = None, *, is_configured: bool = True
) -> OrderView:
    """Its view."""
    return view_order(
        SUBJECT,
        of,
        partition=3,
        rules=DeliveryPolicy(),
        now_ms=1,
        now=NOW,
        outlook=outlook,
        paused=paused,
        idle="nobody sends",
        is_configured=is_configured,
    )


def outlook(**members: object) -> Outlook:
    """What the outbox knows of it."""
    return Outlook(**members)  # type: ignore[arg-type]


def test_carts_and_revisions() -> None:
    """Both carts with their items, and how far the provider has been told."""
    found = view(record(*SHIPPED, acked=1))
    assert (found.subject, found.partition, found.revision, found.acked) == (SUBJECT, 3, 2, 1)
    assert (found.currency, found.shipped_minor, found.unshipped_minor) == ("EUR", 100, 100)
    assert found.shipped is not None
    assert [(item.reference, item.quantity, item.total_minor) for item in found.shipped] == [("A", 1, 100)]


def test_no_carts_while_unconfirmed() -> None:
    """What cannot be known yet is not shown as zero."""
    found = view(record(shipped("s1", A=1)))
    assert (found.status, found.reason, found.shipped_minor, found.shipped) == (
        "unconfirmed",
        "no order.confirmed yet",
        None,
        None,
    )


@pytest.mark.parametrize(
    ("of", "outlook", "paused", "expected"),
    [
        (record(*SHIPPED, acked=2), None, None, ("settled", "")),
        (record(*SHIPPED, payment("on_hold")), None, None, ("on_hold", "the payment is on hold")),
        (record(CONFIRMED, shipped("s1", A=3)), None, None, ("inconsistent", "line A: 3 shipped of 2 ordered")),
        (record(*SHIPPED, park=Parking("422", b"", 2, 0)), None, None, ("parked", "422")),
        (record(*SHIPPED), outlook(), "account paused", ("owed", "account paused")),
        (record(*SHIPPED), None, None, ("owed", "nobody sends")),
        (record(*SHIPPED, reason="503"), None, None, ("owed", "nobody sends; the last attempt: 503")),
        (record(*SHIPPED), outlook(in_flight=True), None, ("owed", "an attempt is under way")),
        (record(*SHIPPED), outlook(), None, ("owed", "waiting for its turn")),
        (record(*SHIPPED, reason="500"), outlook(), None, ("owed", "500")),
        (
            record(*SHIPPED, reason="503"),
            outlook(not_before=NOW + 2),
            None,
            ("owed", "next attempt in 2.0 s; the last one: 503"),
        ),
        (
            record(*SHIPPED, reason="waits for its report", delay=Delay.CHANGE, not_before_ms=10**13),
            outlook(not_before=NOW + 10**9),
            None,
            ("owed", "waits for its report"),
        ),
        (
            record(*SHIPPED, reason="reset"),
            outlook(hold_until=NOW + 9, not_before=NOW + 9),
            None,
            ("owed", "held for 9 s more: the last request may still land (reset)"),
        ),
        (
            record(*SHIPPED),
            outlook(hold_until=NOW + 9, not_before=NOW + 9),
            None,
            ("owed", "held for 9 s more: the last request may still land"),
        ),
    ],
)
def test_status_and_reason(
    of: OrderRecord, outlook: Outlook | None, paused: str | None, expected: tuple[str, str]
) -> None:
    """The first that holds, and why."""
    found = view(of, outlook, paused)
    assert (found.status, found.reason) == expected


def test_inconsistent_for_long_is_shown_as_parked() -> None:
    """Then its contradictions are the reason all the same, and what is of no use."""
    found = view_order(
        SUBJECT,
        record(CONFIRMED, shipped("s1", A=3), inconsistent_since_ms=1),
        partition=0,
        rules=DeliveryPolicy(inconsistent_after_s=1.0),
        now_ms=1_001,
        idle="",
    )
    assert (found.status, found.reason) == (
        "parked",
        "line A: 3 shipped of 2 ordered; inconsistent for too long: only an event can resolve it, no release",
    )


@pytest.mark.parametrize(
    ("of", "outlook", "expected"),
    [
        (record(CONFIRMED, acked=2), None, ("settled", "account acme is not configured")),
        (record(*SHIPPED), outlook(), ("owed", "account acme is not configured")),
        (
            record(shipped("s1", A=1)),
            None,
            ("unconfirmed", "account acme is not configured; no order.confirmed yet"),
        ),
        (
            record(*SHIPPED, payment("on_hold")),
            None,
            ("on_hold", "account acme is not configured; the payment is on hold"),
        ),
    ],
)
def test_account_that_is_not_configured(of: OrderRecord, outlook: Outlook | None, expected: tuple[str, str]) -> None:
    """It is said of each of its orders, settled ones included, and once."""
    found = view(of, outlook, not_configured("acme"), is_configured=False)
    assert (found.status, found.reason) == expected


@pytest.mark.parametrize(
    ("members", "expected"), [({"not_before": NOW + 2}, 2.0), ({"waiting": "parked"}, None), ({}, 0.0)]
)
def test_next_attempt(members: dict[str, object], expected: float | None) -> None:
    """Seconds from now; nothing when it waits for something to happen."""
    assert view(record(*SHIPPED), outlook(**members)).next_attempt_s == expected
    assert view(record(*SHIPPED), outlook(**members), "account paused").next_attempt_s is None


def notes(of: OrderRecord, also_in: Sequence[int] = ()) -> list[str]:
    """What else is said of it."""
    return view_order(SUBJECT, of, partition=3, rules=DeliveryPolicy(), now_ms=1, idle="", also_in=also_in).notes


def test_why_a_settled_order_was_not_sent() -> None:
    """As long as the acknowledged revision is the newest, and the one that was made there."""
    assert notes(record(*SHIPPED, acked=2, made_at=MadeAt("sequra", 2))) == ["not sent: the change was made at sequra"]
    assert notes(record(*SHIPPED, acked=2, made_at=MadeAt("sequra", 1))) == []
    assert notes(record(*SHIPPED, acked=1, made_at=MadeAt("sequra", 1))) == []
    assert notes(record(*SHIPPED, acked=2)) == []


def test_order_that_is_torn_apart() -> None:
    """Several partitions that hold it are named, smallest first; several keys are only a hint of that."""
    assert notes(record(*SHIPPED), [5, 1])[0].startswith("partitions 1 and 3 and 5 hold this order, each a part")
    assert notes(record(*SHIPPED, has_several_keys=True))[0].startswith("its events came under several record keys")
    assert len(notes(record(*SHIPPED, has_several_keys=True), [1])) == 1


# --- what its provider says ----------------------------------------------------------------------------------------------


def at(second: int, **data: object) -> dict[str, object]:
    """What was said so many seconds after the start, as it is shown."""
    return {"at": f"2026-03-01T00:00:{second:02}Z", **data}


def test_newest_of_each_kind_is_shown() -> None:
    """In the words of its event, with its time; the name of the order once, no payload, nothing that was never said."""
    told = [EventSpec(kind, data) for kind, data in FULL.items() if kind.startswith("provider.")]
    found = view(record(CONFIRMED, *told)).provider
    assert found is not None
    assert msgspec.to_builtins(found) == {
        "order": "67890",
        "payment_state": at(2, state="approved"),
        "transaction": at(
            3,
            transaction_id="454213",
            original_transaction_id="454212",
            kind="Capture",
            status="Error",
            amount_minor=1000,
            currency="SEK",
            error="Declined",
        ),
        "upsell": at(4, status="Completed", transaction_id="454214", replaces="454212"),
        "delivery": at(5, state="second_attempt"),
        "second_attempt": at(5, state="second_attempt"),
        "cancelled": at(6, by="shopper"),
        "cancel_asked": at(7),
        "risk": at(8, level="high_risk"),
        "disbursed": {"issued_on": "2026-03-09", "amount_minor": -1000, "maximum_minor": 1800, "lines": 1},
        "shipping": at(10, provider="Ingrid", success=False, error="no slot"),
        "card_saved": at(11, id="c1", brand="Visa", last4="0042"),
        "unmapped": at(12, kind="order-status", word=""),
    }
    evaluated = view(record(CONFIRMED, said("payment_state", state="under_evaluation"))).provider
    assert msgspec.to_builtins(evaluated) == {"evaluation": at(2, state="under_evaluation")}
    assert view(record(CONFIRMED)).provider is None


def disbursed(*lines: int) -> list[EventSpec]:
    """Lines of disbursements with these amounts, a day apart."""
    data = [
        {"disbursement": "/d", "amount_minor": amount, "issued_on": f"2026-03-{day:02}"}
        for day, amount in enumerate(lines, start=10)
    ]
    return [EventSpec("provider.disbursed", each) for each in data]


@pytest.mark.parametrize(
    ("specs", "paid_minor", "paid"),
    [
        ([CONFIRMED], None, None),
        ([CONFIRMED, *disbursed(50, -50)], None, None),
        ([*SHIPPED], 0, "unpaid"),
        ([*SHIPPED, *disbursed(60)], 60, "part_paid"),
        ([*SHIPPED, *disbursed(60, 40)], 100, "paid"),
        ([*SHIPPED, *disbursed(60, 41)], 101, "overpaid"),
        ([*SHIPPED, *disbursed(-1)], -1, "part_paid"),
        ([CONFIRMED, *disbursed(1)], 1, "overpaid"),
        (disbursed(7), 7, None),
        ([*SHIPPED, shipped("s2", A=5), *disbursed(7)], 7, None),
        ([*SHIPPED, shipped("s2", A=5)], None, None),
    ],
)
def test_what_was_paid_out(specs: list[EventSpec], paid_minor: int | None, paid: str | None) -> None:
    """Beside the shipped cart, where that is known; nothing is said while nothing is shipped and nothing paid."""
    found = view(record(*specs))
    assert (found.paid_minor, found.paid) == (paid_minor, paid)


def test_newest_line_is_the_one_of_the_newest_day() -> None:
    """Whatever order they come in."""
    for lines in (disbursed(1, 2), disbursed(1, 2)[::-1]):
        found = view(record(*lines)).provider
        assert found is not None
        assert found.disbursed == {"issued_on": "2026-03-11", "amount_minor": 2, "lines": 2}


def test_order_that_is_only_observed() -> None:
    """It is no order of ours that somebody waits for."""
    found = view(record(observed(), acked=2))
    assert (found.status, found.reason) == ("settled", "")
    assert view(record(observed())).status == "unconfirmed"


@pytest.mark.parametrize("heard", [(), (said("risk", level="low_risk"),)], ids=["nothing heard", "something heard"])
def test_what_an_adapter_knows_is_shown(heard: tuple[EventSpec, ...]) -> None:
    """Beside what the provider said, or alone."""
    known = {"differs_minor": {"shipped": 5}}
    found = view_order(
        SUBJECT, record(CONFIRMED, *heard), partition=0, rules=DeliveryPolicy(), now_ms=0, idle="", known=known
    )
    assert found.provider is not None
    assert (found.provider.known, found.provider.risk is not None) == (known, bool(heard))


@pytest.mark.parametrize(
    "of",
    [
        record(*SHIPPED, acked=2),
        record(*SHIPPED),
        record(*SHIPPED, reason="503"),
        record(*SHIPPED, park=Parking("422", b"", 2, 0)),
        record(*SHIPPED, payment("on_hold")),
        record(CONFIRMED, shipped("s1", A=3)),
        record(CONFIRMED, shipped("s1", A=3), inconsistent_since_ms=1),
        record(shipped("s1", A=1)),
        record(observed(), acked=2),
    ],
)
def test_brief_view_agrees(of: OrderRecord) -> None:
    """A list says of an order what its own view says, as far as its owner is not needed for it."""
    whole = view_order(SUBJECT, of, partition=3, rules=DeliveryPolicy(), now_ms=10**13, idle="nobody sends")
    brief = brief_view(of, rules=DeliveryPolicy(), now_ms=10**13)
    assert brief.status == whole.status
    assert (brief.currency, brief.shipped_minor, brief.unshipped_minor) == (
        whole.currency,
        whole.shipped_minor,
        whole.unshipped_minor,
    )
    assert (brief.paid, brief.paid_minor) == (whole.paid, whole.paid_minor)
    assert brief.reason == (of.reason if whole.status == "owed" else whole.reason)


def test_order_that_was_closed_before() -> None:
    """Its history ends at a day: whoever looks at it has to know that there was more."""
    found = view(record(CONFIRMED, closed_day=20_600))
    assert found.notes == ["it was closed on 2026-05-27 and its record removed: what was known of it before is gone"]
