"""Qliro's pushes, from the samples of its own documentation on (read 2026-11), to the byte."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.providers.qliro.samples import names, sample
from tests.unit.providers.taken import taken
from worker.errors import ConfigError
from worker.model.callbacks import Answered, Ask, Called, Push, Reply, Unreadable
from worker.providers.qliro.callbacks import PAYLOAD_MAX_BYTES, RECEIVED, QliroCallbacks

QLIRO = QliroCallbacks()
CHECKOUT, UPSELL, ORDER = sample("checkout-status"), sample("upsell-status"), sample("order-status")
CARD = sample("saved-card")
NOTIFICATION = sample("notification")
"""As it stands there, which is no JSON: an ellipsis, and a comma too many."""


def called(purpose: str, body: bytes) -> Called:
    """A call about order A14/12345."""
    return Called(
        account="hats",
        purpose=purpose,
        reference="A14/12345",
        media_type="application/json",
        body=body,
        arrived_ms=1_767_225_600_123,
    )


def events(purpose: str, body: bytes) -> list[dict[str, Any]]:
    """What is written of a push, which is answered as Qliro wants it."""
    call = called(purpose, body)
    reading = QLIRO.read(call)
    assert isinstance(reading, Push)
    assert reading.reply == RECEIVED
    return [taken(call, said) for said in reading.said]


def event(purpose: str, body: bytes | dict[str, Any]) -> dict[str, Any]:
    """The one event of a push."""
    (found,) = events(purpose, body if isinstance(body, bytes) else json.dumps(body).encode())
    return found


def changed(body: bytes, **members: Any) -> dict[str, Any]:
    """A sample with other members; `None`: without."""
    all_of_them = json.loads(body) | members
    return {name: value for name, value in all_of_them.items() if value is not None}


def test_what_qliro_wants_to_hear() -> None:
    """Word for word: anything else, and it calls again."""
    assert Reply(200, b'{"CallbackResponse":"received"}') == RECEIVED
    assert json.loads(RECEIVED.body) == json.loads(sample("received"))


def test_checkout_status() -> None:
    """C31: the payment is approved, of the order that the address names."""
    found = event("checkout-status", CHECKOUT)
    assert found["type"] == "provider.payment_state"
    assert found["subject"] == "hats/A14/12345"
    assert found["source"] == "/cartsync/hats/checkout-status"
    assert found["time"] == "2016-03-03T11:43:05.567000Z"
    assert found["data"] == {"provider_order": "12345", "state": "approved", "transaction_id": "1234"}


@pytest.mark.parametrize(
    ("status", "state"),
    [("OnHold", "on_hold"), ("Refused", "refused"), ("InProcess", "under_evaluation"), ("Success", "approved")],
)
def test_checkout_states(status: str, state: str) -> None:
    """C32: each has its own word, and its own id."""
    found = event("checkout-status", changed(CHECKOUT, Status=status, PaymentTransactionId=None))
    assert found["data"] == {"provider_order": "12345", "state": state}
    assert found["id"] != event("checkout-status", CHECKOUT)["id"]


def test_a_repeat_has_the_same_id() -> None:
    """C10: order, status and time tell checkout statuses apart; transaction and status those of an order."""
    for purpose, body in (("checkout-status", CHECKOUT), ("order-status", ORDER), ("saved-card", CARD)):
        assert event(purpose, body)["id"] == event(purpose, changed(body, Whatever=1))["id"]
    assert event("order-status", ORDER)["id"] == event("order-status", changed(ORDER, Timestamp="2020-01-01"))["id"]
    other = changed(CHECKOUT, Timestamp="2020-01-01")
    assert event("checkout-status", CHECKOUT)["id"] != event("checkout-status", other)["id"]


def test_upsell() -> None:
    """It comes to the address of the checkout status."""
    found = event("checkout-status", UPSELL)
    assert found["type"] == "provider.upsell"
    assert found["data"] == {"provider_order": "12345", "status": "Completed", "transaction_id": "12345"}


def test_upsell_that_replaces() -> None:
    """C39: the transaction that is replaced is named, and one that is not replaced is not."""
    body = changed(
        UPSELL, OriginalPaymentTransactionId=1, PaymentTransactionId=2, ReplacesOriginalPaymentTransaction=True
    )
    assert event("checkout-status", body)["data"]["replaces"] == "1"
    assert "replaces" not in event("checkout-status", body | {"ReplacesOriginalPaymentTransaction": False})["data"]


def test_upsell_that_failed() -> None:
    """C39: it has no transaction, so two of them are told apart by their times."""
    body = changed(UPSELL, Status="Error", PaymentTransactionId=0)
    found = event("checkout-status", body)
    assert found["data"] == {"provider_order": "12345", "status": "Error", "transaction_id": "0"}
    assert found["id"] != event("checkout-status", body | {"Timestamp": "2020-01-01"})["id"]
    named = body | {"UpsellId": "u1"}
    assert event("checkout-status", named)["id"] == event("checkout-status", named | {"Timestamp": "2020-01-01"})["id"]


def test_order_status() -> None:
    """C9: a transaction ended; amounts are minor units, ids texts."""
    found = event("order-status", ORDER)
    assert found["type"] == "provider.transaction"
    assert found["data"] == {
        "provider_order": "67890",
        "transaction_id": "12345",
        "original_transaction_id": "67890",
        "kind": "Capture",
        "status": "Success",
        "amount_minor": 55000,
        "currency": "SEK",
    }


@pytest.mark.parametrize(("amount", "minor"), [("-550", 55000), ("751.10", 75110), ('"12.3"', 1230), ("0", 0)])
def test_amounts(amount: str, minor: int) -> None:
    """C37: negative ones and texts, never through floats."""
    body = ORDER.replace(b'"Amount": 550', b'"Amount": ' + amount.encode())
    assert event("order-status", body)["data"]["amount_minor"] == minor


def test_both_spellings_and_numbers_as_texts() -> None:
    """C37: `OrderID`, `TimeStamp`, numbers as texts, enumerations as numbers, members that nobody knows."""
    body = changed(
        ORDER,
        OrderId=None,
        OrderID="67890",
        Timestamp=None,
        TimeStamp="2024-07-01T09:44:37.6397507Z",
        PaymentTransactionId="12345",
        Status=4,
        PaymentType=3,
        Later={"a": [1]},
    )
    found = event("order-status", body)
    assert found["data"] == event("order-status", ORDER)["data"]
    assert found["time"] == "2024-07-01T09:44:37.639750Z"


def test_errors_are_told() -> None:
    """C38: what went wrong is handed on, of a transaction that went wrong alone."""
    body = changed(ORDER, Status="Error", ProviderResultDescription="Duplicate Transaction", ErrorCode="X1")
    assert event("order-status", body)["data"]["error"] == "X1: Duplicate Transaction"
    declined = changed(ORDER, Status="Cancelled", ProviderResultDescription="a" * 2000)
    assert event("order-status", declined)["data"]["error"] == "a" * 500
    assert "error" not in event("order-status", ORDER)["data"]
    assert "error" not in event("order-status", changed(ORDER, ErrorCode=""))["data"]


def test_unknown_status_is_kept() -> None:
    """Qliro may have new words any day; the adapter reads the order."""
    assert event("order-status", changed(ORDER, Status="Parked", PaymentType=12))["data"]["status"] == "Parked"
    assert event("order-status", changed(ORDER, PaymentType=12))["data"]["kind"] == "12"


def test_notification_as_documented_is_no_json() -> None:
    """The documentation's own sample cannot be read, so it is refused as bytes that are no JSON."""
    assert QLIRO.read(called("notification", NOTIFICATION)) == Unreadable()


def test_notification() -> None:
    """C42: seven fraction digits; the payload goes along as it is."""
    body = NOTIFICATION.replace(b"{ ... }, }", b'{"a": [1, {"b": null}]} }')
    found = event("notification", body)
    assert found["type"] == "provider.shipping"
    assert found["time"] == "2024-07-01T09:44:37.639750Z"
    assert found["data"] == {
        "provider_order": "67890",
        "provider": "Unifaun",
        "success": True,
        "payload": {"a": [1, {"b": None}]},
    }


def test_notification_of_a_failure() -> None:
    """What failed is told; a payload that is too large is left out, and one that is nested too deeply not understood."""
    body = {"OrderId": 1, "IsSuccess": False, "ErrorMessage": "no label", "EventType": "SHIPPING_PROVIDER_UPDATE"}
    body |= {"Provider": "Ingrid", "TimeStamp": "2024-07-01"}
    told = {"provider_order": "1", "provider": "Ingrid", "success": False, "error": "no label"}
    assert event("notification", body)["data"] == told
    assert event("notification", body | {"Payload": "x" * PAYLOAD_MAX_BYTES})["data"] == told
    deep = json.dumps(body | {"Payload": "@"}).encode().replace(b'"@"', b"[" * 100 + b"]" * 100)
    assert event("notification", deep)["type"] == "provider.unmapped"


def test_notification_of_another_kind() -> None:
    """It is shown, and told apart by its time."""
    found = event("notification", {"OrderId": 1, "EventType": "PARTY", "TimeStamp": "2024-07-01T00:00:00Z"})
    assert found["type"] == "provider.unmapped"
    assert found["data"] == {"provider_order": "1", "kind": "notification", "word": "PARTY"}
    assert found["time"] == "2024-07-01T00:00:00Z"


def test_saved_card() -> None:
    """C43: of the card's digits the last four, and nothing of its expiry."""
    found = event("saved-card", CARD)
    assert found["type"] == "provider.card_saved"
    assert found["data"] == {
        "provider_order": "12345",
        "id": "10B066CC-F317-4CD1-9087-8CF06901918F",
        "last4": "3964",
        "brand": "Visa",
    }
    assert "454225" not in json.dumps(found)


@pytest.mark.parametrize(
    ("purpose", "body", "word"),
    [
        ("checkout-status", changed(CHECKOUT, Status="Sleeping"), "Sleeping"),
        ("checkout-status", changed(CHECKOUT, Status="\N{SNOWMAN} <b>"), ""),
        ("checkout-status", changed(CHECKOUT, OrderId=None), "Completed"),
        ("checkout-status", changed(UPSELL, PaymentTransactionId=None), "Completed"),
        ("checkout-status", changed(UPSELL, Status=None), ""),
        ("order-status", changed(ORDER, PaymentTransactionId=None), "Success"),
        ("order-status", changed(ORDER, Currency="kr"), "Success"),
        ("order-status", changed(ORDER, Amount=[1]), "Success"),
        ("order-status", changed(ORDER, Amount=1.234), "Success"),
        ("order-status", changed(ORDER, PaymentType=None), "Success"),
        ("notification", {"OrderId": 1, "EventType": "SHIPPING_PROVIDER_UPDATE"}, "SHIPPING_PROVIDER_UPDATE"),
        ("saved-card", changed(CARD, CardLast4Digits="123"), ""),
        ("saved-card", changed(CARD, Id=None), ""),
        ("order-status", b"[1]", ""),
        ("order-status", b"7", ""),
    ],
)
def test_what_is_not_understood(purpose: str, body: bytes | dict[str, Any], word: str) -> None:
    """It is authentic: it is shown, and Qliro does not call for three days."""
    found = event(purpose, body)
    assert found["type"] == "provider.unmapped"
    assert (found["data"]["kind"], found["data"]["word"]) == (purpose, word)


@pytest.mark.parametrize("body", [b"", b"{", b"\x00\x01", b"a=1", b'{"a":"\xff"}'])
@pytest.mark.parametrize("purpose", ["checkout-status", "order-status", "notification", "saved-card", "validation"])
def test_what_is_no_json(purpose: str, body: bytes) -> None:
    """Nothing is made of it."""
    assert QLIRO.read(called(purpose, body)) == Unreadable()


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_NAMES = [*json.loads(ORDER), *json.loads(CARD), *json.loads(CHECKOUT), "OrderID", "Payload", "IsSuccess", "UpsellId"]


@given(st.sampled_from(list(QLIRO.purposes)), st.dictionaries(st.sampled_from(_NAMES), _values))
def test_whatever_comes_there_is_a_reading(purpose: str, body: dict[str, Any]) -> None:
    """No value of any member is an error of ours, and what is written can be encoded."""
    call = called(purpose, json.dumps(body).encode())
    reading = QLIRO.read(call)
    if isinstance(reading, Push):
        for said in reading.said:
            assert len(json.dumps(taken(call, said))) < 2_000
    else:
        assert isinstance(reading, Ask)


def test_token_is_never_in_the_body() -> None:
    """It stands in the address."""
    assert QLIRO.token_in_body(called("order-status", ORDER)) is None


def test_questions_have_answers_and_defaults() -> None:
    """Both are those of `questions`."""
    assert QLIRO.answer("validation", b'{"accept":true}') == Answered(Reply(200))
    assert QLIRO.default("validation", "accept", lambda _: b"") == Answered(Reply(200))
    with pytest.raises(ConfigError):
        QLIRO.default("validation", "perhaps", lambda _: b"")


def test_every_sample_has_a_test() -> None:
    """None is kept that nothing reads."""
    folder = Path(__file__).parent
    texts = "".join((folder / f"test_{name}.py").read_text() for name in ("callbacks", "questions"))
    assert [name for name in names() if f'"{name}"' not in texts] == []
