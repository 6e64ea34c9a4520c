"""What Qliro holds, read from its lists of actions and transactions; ids are those of the acceptance cases."""

from typing import Any

import msgspec

from worker.providers.qliro.order import QliroOrder, order_from
from worker.providers.qliro.wire import decode_order

Json = dict[str, Any]


def transaction(number: int, kind: str, amount: float = 0, status: str = "Success", **members: Any) -> Json:
    """One transaction; its time follows from its number."""
    return {
        "PaymentTransactionId": number,
        "Type": kind,
        "Status": status,
        "Amount": amount,
        "Timestamp": f"2026-03-03T11:43:{number:02}.{number % 10}",
        "PaymentMethodName": "QLIRO_INVOICE",
    } | members


def action(kind: str, number: int | None, reference: str, price: float, quantity: int, **members: Any) -> Json:
    """What happened to an item."""
    return {
        "ActionType": kind,
        "PaymentTransactionId": number,
        "MerchantReference": reference,
        "Type": "Product",
        "Quantity": quantity,
        "PricePerItemIncVat": price,
    } | members


def held(actions: list[Json], transactions: list[Json]) -> QliroOrder:
    """As the adapter reads it."""
    seen = {
        "OrderId": 1,
        "MerchantReference": "x",
        "Currency": "SEK",
        "OrderItemActions": actions,
        "PaymentTransactions": transactions,
    }
    return order_from(decode_order(msgspec.json.encode(seen)))


def test_c11_what_is_left() -> None:
    """C11: reserved less shipped and released, by reference and price."""
    found = held(
        [
            action("Reserve", 1, "PROD-1", 125.00, 10),
            action("Reserve", 1, "PROD-2", 240.00, 5),
            action("Reserve", 1, "PROD-3", 60.00, 3),
            action("Reserve", 1, "PROD-1", 100.00, 2),
            action("Ship", 2, "PROD-1", 125.00, 3),
            action("Ship", 2, "PROD-2", 240.00, 5),
            action("Release", 3, "PROD-1", 125.00, 2),
        ],
        [
            transaction(1, "Preauthorization", 2830),
            transaction(2, "Capture", 1575, OriginalPaymentTransactionId=1),
            transaction(3, "Reversal", 250),
        ],
    )
    assert found.left == {
        ("PROD-1", "Product", 12_500): 5,
        ("PROD-3", "Product", 6_000): 3,
        ("PROD-1", "Product", 10_000): 2,
    }
    assert [one.id for one in found.reservations] == [1]


def test_c13_amounts() -> None:
    """C13: only what succeeded counts."""
    found = held(
        [
            action("Reserve", 1, "hat", 100, 2),
            action("Reserve", 9, "scarf", 100, 1),
            action("Ship", 2, "hat", 100, 1),
            action("Ship", 2, "freight", 50, 1, Type="Shipping"),
            action("Return", 4, "hat", 100, 1),
        ],
        [
            transaction(1, "Preauthorization", 200),
            transaction(2, "Capture", 150, OriginalPaymentTransactionId=1),
            transaction(3, "Reversal", 20),
            transaction(4, "Refund", -30, OriginalPaymentTransactionId="2"),
            transaction(9, "Preauthorization", 100, "Cancelled"),
        ],
    )
    (capture,) = found.captures
    assert (capture.left_minor, found.short) == (12_000, {4: 7_000})
    assert found.net == {("freight", "Shipping", 5_000): 1}
    assert found.left == {("hat", "Product", 10_000): 1}


def test_replaced_reservation() -> None:
    """One that a reversal names is gone, with what was captured of it; what was captured later came from the new one."""
    actions = [
        action("Reserve", 1, "hat", 100, 3),
        action("Ship", 2, "hat", 100, 1),
        action("Reserve", 3, "hat", 100, 1),
        action("Ship", 5, "hat", 100, 1),
    ]
    transactions = [
        transaction(1, "Preauthorization", 300),
        transaction(2, "Capture", 100, OriginalPaymentTransactionId=1),
        transaction(3, "Preauthorization", 100, OriginalPaymentTransactionId=1),
        transaction(4, "Reversal", 200, OriginalPaymentTransactionId=1),
    ]
    assert held(actions[:3], transactions).left == {("hat", "Product", 10_000): 1}
    after = [*transactions, transaction(5, "Capture", 100, OriginalPaymentTransactionId=1)]
    assert held(actions, after).left == {}
    released = [*actions[:3], action("Release", 4, "hat", 100, 2)]
    assert held(released, transactions).left == {("hat", "Product", 10_000): 1}
    cancelled = [*actions[:3], action("Release", 5, "hat", 100, 1)]
    over = [*transactions, transaction(5, "Reversal", 100, OriginalPaymentTransactionId=1)]
    assert held(cancelled, over).left == {}


def test_upsell_counts_beside_the_first() -> None:
    """A later reservation does not make the older one go."""
    found = held(
        [action("Reserve", 1, "hat", 100, 1), action("Reserve", 2, "scarf", 50, 1), action("Ship", 3, "scarf", 50, 1)],
        [
            transaction(1, "Preauthorization", 100),
            transaction(2, "Debit", 50),
            transaction(3, "Capture", 50),
        ],
    )
    assert found.left == {("hat", "Product", 10_000): 1}
    assert found.first_reservation == 1


def test_bank_had_let_go() -> None:
    """All that was reserved before such an error is gone; what was reserved since is not."""
    words = {"ProviderResultDescription": "Transaction Declined (referencing transaction does not match)"}
    transactions = [
        transaction(1, "Preauthorization", 100),
        transaction(2, "Reversal", 100, "Error", **words),
        transaction(3, "Preauthorization", 50),
    ]
    found = held([action("Reserve", 1, "hat", 100, 1), action("Reserve", 3, "mug", 50, 1)], transactions)
    assert found.left == {("mug", "Product", 5_000): 1}


def test_what_came_off_captures() -> None:
    """Additions by their lines, in either type; refunds by their amount, whoever made them."""
    found = held(
        [
            action("Ship", 2, "hat", 100, 2),
            action("Ship", 3, "f1", -30, 1, Type="Discount"),
            action("Ship", 4, "f1", -10, 1, Type="Discount"),
            action("Ship", 6, "f2", -5, 1, Type="Discount"),
            action("Return", 7, "hat", 100, 1),
            action("Reserve", None, "gone", 1, 1),
        ],
        [
            transaction(1, "Preauthorization", 200, PaymentMethodName="CREDITCARDS"),
            transaction(2, "Capture", 200, OriginalPaymentTransactionId=1),
            transaction(3, "UpdateInvoice", 30, OriginalPaymentTransactionId=2),
            transaction(4, "Capture", 10, OriginalPaymentTransactionId=2),
            transaction(5, "Refund", 20, OriginalPaymentTransactionId=2),
            transaction(6, "Refund", 5, OriginalPaymentTransactionId="not a number"),
            transaction(7, "Refund", 100),
            transaction(8, "Registration", 0),
            transaction(9, "Credit", 1, "InProcess", Timestamp=None),
        ],
    )
    (capture,) = found.captures
    assert capture.left_minor == 20_000 - 3_000 - 1_000 - 2_000 - 10_000
    assert found.added == {"f1": 4_000}
    assert found.net == {("hat", "Product", 10_000): 1}
    assert found.not_final == [9]
    assert not found.is_own


def test_times() -> None:
    """With and without zone, with three and with seven digits: what is older is older."""
    moments = ["2026-03-03T11:43:05.567", "2026-03-03T11:43:05.5670001Z", "2026-03-03T11:43:06Z"]
    transactions = [transaction(3 - n, "Preauthorization", 1, Timestamp=moment) for n, moment in enumerate(moments)]
    assert held([], transactions).first_reservation == 3
    assert [one.id for one in held([], transactions[::-1]).reservations] == [3, 2, 1]


def test_fingerprint() -> None:
    """The order of lists does not count, anything else does."""
    actions = [action("Reserve", 1, "hat", 100, 1), action("Reserve", 1, "mug", 50, 1)]
    transactions = [transaction(1, "Preauthorization", 150), transaction(2, "Capture", 1, "Created")]
    base = held(actions, transactions).fingerprint
    assert held(actions[::-1], transactions[::-1]).fingerprint == base
    assert held(actions, [transactions[0], transactions[1] | {"Status": "Success"}]).fingerprint != base
    assert held([actions[0], actions[1] | {"Quantity": 2}], transactions).fingerprint != base


def test_nothing_there() -> None:
    """An order without transactions has nothing, and no method of Qliro's own."""
    found = held([], [])
    assert (found.left, found.net, found.first_reservation, found.is_own) == ({}, {}, 0, False)


def test_return_of_nothing_known() -> None:
    """A refund of items without any capture changes nothing."""
    found = held([action("Return", 4, "hat", 100, 1)], [transaction(4, "Refund", 100)])
    assert found.captures == []
