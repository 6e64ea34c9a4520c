"""One order: both sides of its carts, and what comes next."""

import pytest

from schemas.console import CartSides, HistoryLine
from schemas.state import MadeAt, OrderRecord
from schemas.views import OrderView
from tests.shops.events import EventSpec, confirmed, goods, payment, shipped
from tests.unit.web.console.scene import NOW_MS, RULES, owed, parked, record, settled
from worker.core.view import view_order
from worker.web.console.detail import next_of, sides_of

SUBJECT = "acme/A14"


def sides(of: OrderRecord, *history: HistoryLine) -> tuple[str, dict[str, CartSides]]:
    """What is known of the provider's side."""
    words, carts = sides_of(SUBJECT, of, history)
    return words, {cart.name: cart for cart in carts}


def test_settled() -> None:
    """The provider has what the shop has, and nothing differs."""
    words, carts = sides(settled())
    assert words == "the newest state: it has acknowledged it"
    assert [(cart.total_minor, cart.there_minor, cart.differs) for cart in carts.values()] == [(100, 100, False)] * 2


def test_change_of_the_provider() -> None:
    """What was made there is said to be."""
    words, _ = sides(settled(made_at=MadeAt("sequra", 2)))
    assert words == "the newest state, which came from sequra itself"


def test_nothing_was_sent_yet() -> None:
    """The provider has what was confirmed; what differs from it is marked, item by item."""
    words, carts = sides(owed())
    assert words == "what was confirmed at checkout: nothing newer was acknowledged"
    shipped_cart, unshipped = carts["shipped"], carts["unshipped"]
    assert [(each.reference, each.quantity, each.there_quantity, each.differs) for each in shipped_cart.lines] == [
        ("A", 1, 0, True)
    ]
    assert [(each.total_minor, each.there_minor) for each in unshipped.lines] == [(100, 200)]
    assert (unshipped.total_minor, unshipped.there_minor, unshipped.differs) == (100, 200, True)


def test_items_that_only_the_provider_has() -> None:
    """Are shown with nothing on our side."""
    changed = EventSpec(
        "order.cart_updated",
        {"currency": "EUR", "cart_version": 2, "lines": [goods("B", 1, 50)]},
    )
    _, carts = sides(record(confirmed(goods("A", 2, 200)), changed))
    assert [
        (each.reference, each.total_minor, each.there_minor, each.differs) for each in carts["unshipped"].lines
    ] == [
        ("B", 50, 0, True),
        ("A", 0, 200, True),
    ]


def test_an_older_state_of_which_a_result_tells() -> None:
    """Its amounts are known, its items are not."""
    line = HistoryLine(1, "cartsync.order_changed", "settled", 1, 1, "EUR", 100, 40)
    words, carts = sides(owed(acked=1, acked_digest=b"d"), line)
    assert words == "an older state, which it has acknowledged; of that one only the amounts are kept"
    assert (carts["shipped"].there_minor, carts["shipped"].differs) == (100, False)
    assert (carts["unshipped"].there_minor, carts["unshipped"].differs) == (40, True)
    assert [each.there_minor for each in carts["shipped"].lines] == [None]


def test_an_older_state_of_which_nothing_tells() -> None:
    """Then nothing of it is known, and nothing is said to differ."""
    other = HistoryLine(1, "cartsync.order_changed", "owed", 2, 1, "EUR", 1, 1)
    words, carts = sides(owed(acked=1, acked_digest=b"d"), other)
    assert words == "an older state, which it has acknowledged; what was in it is not kept"
    assert [(cart.there_minor, cart.differs) for cart in carts.values()] == [(None, False)] * 2


def test_a_request_whose_outcome_is_not_known() -> None:
    """The provider may have something else, and that is said."""
    for doubtful in (owed(may_land_late=True), owed(remote_unknown=True)):
        words, _ = sides(doubtful)
        assert words.endswith("; it may also have something else: what became of a request is not known")


def test_no_carts() -> None:
    """An order that is not confirmed has none, and of what the provider has nothing is made up."""
    words, carts = sides(record(shipped("s", A=1)))
    assert words == "what was confirmed at checkout, if it was; nothing newer was acknowledged"
    assert carts == {}


def view(of: OrderRecord, **members: object) -> OrderView:
    """As the state topic has it."""
    found = view_order(SUBJECT, of, partition=3, rules=RULES, now_ms=NOW_MS, idle="idle")
    return OrderView(**{name: getattr(found, name) for name in found.__struct_fields__} | members)


CONTRADICTS = (confirmed(goods("A", 1, 100)), shipped("s", A=2))


@pytest.mark.parametrize(
    ("of", "members", "expected"),
    [
        (settled(), {}, "nothing: the provider has the newest state"),
        (owed(), {}, "it is sent as soon as its turn comes at the worker that serves partition 3"),
        (owed(), {"in_flight": True}, "an update is in flight"),
        (owed(), {"next_attempt_s": 125.0}, "the next attempt in 2 min"),
        (owed(not_before_ms=NOW_MS + 3_600_000), {}, "the next attempt in 1 h at the earliest"),
        (
            parked(),
            {},
            "nothing until an event changes it or somebody releases it: mend the cause first, then release; or settle it at the provider by hand, then adopt",
        ),
        (record(shipped("s", A=1)), {}, "it waits for order.confirmed from the shop"),
        (
            record(confirmed(goods("A", 1, 1)), payment("on_hold")),
            {},
            "it waits for the payment to be approved (order.payment_state_changed)",
        ),
        (record(confirmed(goods("A", 1, 1)), payment("refused")), {}, "nothing is sent: the payment was refused"),
        (
            record(*CONTRADICTS, inconsistent_since_ms=NOW_MS - 300_000),
            {},
            "it waits for an event of the shop that resolves the contradiction; parked in 10 min if none comes",
        ),
        (
            record(*CONTRADICTS, inconsistent_since_ms=1),
            {},
            "nothing until an event of the shop resolves the contradiction; a release does not help",
        ),
    ],
)
def test_what_comes_next(of: OrderRecord, members: dict[str, object], expected: str) -> None:
    """In words, and when."""
    assert next_of(view(of, **members), of, rules=RULES, now_ms=NOW_MS) == expected
