"""AtaraPay's notifications: every form of body, the token of its documentation, what its words mean."""

import base64
import json
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.providers.taken import taken
from worker.errors import ConfigError
from worker.model.callbacks import Answered, Called, Push, Reply, Unauthorized, Unreadable
from worker.providers.atarapay.callbacks import AtaraPayCallbacks

ATARA = AtaraPayCallbacks()
PUBLIC, PRIVATE = "b8kP7A1e67s0jc3h98T8pH71dq66J0s3", "PKp6z3jTcLeQNc1h3u9e0ffX77NY91adE12"
"""The example keys of the documentation."""
TOKEN_3021 = (
    "YjhrUDdBMWU2N3MwamMzaDk4VDhwSDcxZHE2NkowczM6UEtwNnozalRjTGVRTmMxaDN1OWUwZmZYNzdOWTkxYWRFMTI6MzAyMTo2MDUxOTAw"
)
TOKEN_3029 = (
    "YjhrUDdBMWU2N3MwamMzaDk4VDhwSDcxZHE2NkowczM6UEtwNnozalRjTGVRTmMxaDN1OWUwZmZYNzdOWTkxYWRFMTI6MzAyOTo0NTAwMDA="
)
AUTH_TOKEN = "YjhrUDdBMWU2N3MwamMzaDk4VDhwSDcxZHE2NkowczM6UEtwNnozalRjTGVRTmMxaDN1OWUwZmZYNzdOWTkxYWRFMTI="
"""What the documentation prints as the token of a notification: it lacks the order and the amount."""
DATA = {
    "id": 3021,
    "product_id": 7,
    "amount_payed": 6051900,
    "status": {"id": 12, "title": "Awaiting Buyer Response"},
    "customers": {"name": "Zainab Bello", "email": "zainab@example.com"},
}
BODY = {"status": "Delivered", "message": "Order is marked completed", "token": TOKEN_3021, "data": DATA}


def called(body: bytes, kind: str = "application/json", arrived_ms: int = 1_767_225_600_123) -> Called:
    """A call to a seller's address."""
    return Called(
        account="escrow",
        purpose="notification",
        reference="",
        media_type=kind,
        body=body,
        arrived_ms=arrived_ms,
        public_key=PUBLIC,
        private_key=PRIVATE,
    )


def read(body: dict[str, Any], arrived_ms: int = 1_767_225_600_123) -> dict[str, Any]:
    """The one event of a notification."""
    call = called(json.dumps(body).encode(), arrived_ms=arrived_ms)
    reading = ATARA.read(call)
    assert isinstance(reading, Push)
    assert reading.reply == Reply(200, b'{"status":"success"}')
    (said,) = reading.said
    return taken(call, said)


def changed(status: str, message: str = "", **inner: Any) -> dict[str, Any]:
    """A notification with these words, and this inner status."""
    return BODY | {"status": status, "message": message, "data": DATA | {"status": inner}}


def in_every_form(body: dict[str, Any]) -> list[tuple[bytes, str]]:
    """The same as JSON, with `data` as an object and as a text, and as both forms."""
    flat = body | {"data": json.dumps(body["data"])}
    parts = "".join(f'--xX\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in flat.items())
    return [
        (json.dumps(body).encode(), "application/json"),
        (json.dumps(flat).encode(), "text/plain"),
        (urlencode(flat).encode(), "application/x-www-form-urlencoded"),
        (f"{parts}--xX--\r\n".encode(), "multipart/form-data; boundary=xX"),
    ]


def test_delivered_in_every_form() -> None:
    """Whatever it comes as, it is the same event, of the order whose number the checkout gave."""
    found = read(BODY)
    assert found["type"] == "provider.delivery"
    assert found["subject"] == "escrow/7"
    assert found["source"] == "/cartsync/escrow/notification"
    assert found["data"] == {"provider_order": "3021", "state": "delivered"}
    for body, kind in in_every_form(BODY):
        call = called(body, kind)
        reading = ATARA.read(call)
        assert isinstance(reading, Push)
        assert taken(call, reading.said[0]) == found


def test_tokens_of_the_documented_keys() -> None:
    """C45: both are right, of their own order and amount."""
    assert read(BODY)["data"]["provider_order"] == "3021"
    other = BODY | {"token": TOKEN_3029, "data": DATA | {"id": "3029", "amount_payed": 450000}}
    assert read(other)["data"]["provider_order"] == "3029"


@pytest.mark.parametrize(
    "body",
    [
        BODY | {"token": AUTH_TOKEN},
        BODY | {"token": TOKEN_3029},
        BODY | {"token": ""},
        BODY | {"token": None},
        BODY | {"token": "\N{SNOWMAN}"},
        BODY | {"data": DATA | {"amount_payed": 6051901}},
        BODY | {"data": DATA | {"amount_payed": 6051900.0}},
        BODY | {"data": DATA | {"id": 3022}},
        BODY | {"data": []},
        BODY | {"data": None},
        {},
    ],
)
def test_wrong_tokens(body: dict[str, Any]) -> None:
    """C45: another order, another amount, the token that the documentation prints: nothing is made of them."""
    assert ATARA.read(called(json.dumps(body).encode())) == Unauthorized()


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"\x00\x01 no form, no JSON {{{", "application/json"),
        (b"{", "application/json"),
        (b"a=1", "application/x-www-form-urlencoded"),
        (b"", ""),
        (json.dumps(BODY | {"data": "{"}).encode(), "application/json"),
        (urlencode(BODY | {"data": "no"}).encode(), "application/x-www-form-urlencoded"),
    ],
)
def test_what_cannot_be_read(body: bytes, kind: str) -> None:
    """Neither JSON nor a form with what a notification has."""
    assert ATARA.read(called(body, kind)) == Unreadable()


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("Delivered", "delivered"),
        ("Accepted", "accepted"),
        ("Complete", "resolved"),
        ("COMPLETED", "resolved"),
        ("Refunded", "refunded"),
        ("Pending II", "second_attempt"),
        ("Dispute", "disputed"),
        ("Disputed", "escalated"),
    ],
)
def test_delivery(status: str, state: str) -> None:
    """Each outer status has its own word; a stale inner one does not count."""
    found = read(changed(status, id=9, title="Canceled"))
    assert (found["type"], found["data"]["state"]) == ("provider.delivery", state)


@pytest.mark.parametrize(
    ("message", "inner", "is_cancelled"),
    [
        ("Buyer Rejects Order", {"id": 3, "title": "Rejected"}, False),
        ("Transaction is canceled", {"id": 9, "title": "Canceled"}, True),
        ("Transaction is canceled", {"id": 3}, False),
        ("Buyer Rejects Order", {"title": "Cancelled"}, True),
        ("Transaction is canceled", {"title": "Rejected"}, False),
        ("Transaction is CANCELED", {}, True),
        ("Buyer Rejects Order", {}, False),
    ],
)
def test_rejected_means_two_things(message: str, inner: dict[str, Any], is_cancelled: bool) -> None:
    """C49: the inner status tells a cancellation by the buyer from a rejection; only without it the message does."""
    found = read(changed("Rejected", message, **inner))
    expected = {"by": "shopper"} if is_cancelled else {"state": "rejected"}
    assert found["data"] == {"provider_order": "3021", **expected}
    assert found["type"] == ("provider.cancelled" if is_cancelled else "provider.delivery")


@pytest.mark.parametrize("status", ["Canceled", "cancelled", "CANCELED"])
def test_cancelled_by_the_seller(status: str) -> None:
    """C51: with one l or two."""
    found = read(changed(status, "Transaction is canceled", id=9))
    assert (found["type"], found["data"]["by"]) == ("provider.cancelled", "merchant")


def test_unknown_status() -> None:
    """C52: it is shown with its word alone."""
    found = read(changed("Foo", "who knows"))
    assert found["type"] == "provider.unmapped"
    assert found["data"] == {"provider_order": "3021", "kind": "notification", "word": "Foo"}


def test_repeat_and_second_rejection() -> None:
    """A repeat within the minute is the same event; a second rejection is not."""
    first = read(changed("Rejected", "Buyer Rejects Order", id=3), 1_767_225_600_000)
    assert read(changed("Rejected", "Buyer Rejects Order", id=3), 1_767_225_659_999)["id"] == first["id"]
    assert read(changed("Rejected", "Buyer Rejects Order", id=3), 1_767_225_660_000)["id"] != first["id"]
    assert read(changed("Rejected", "Another word", id=3), 1_767_225_600_000)["id"] != first["id"]


@pytest.mark.parametrize("product", ["A14", "", "7.0", None, "\N{ARABIC-INDIC DIGIT SEVEN}", -1, "7" * 201])
def test_order_that_nobody_can_have_sold(product: object) -> None:
    """It is taken, and touches no order."""
    body = BODY | {"data": DATA | {"product_id": product}}
    assert ATARA.read(called(json.dumps(body).encode())) == Push((), Reply(200, b'{"status":"success"}'))


def test_neither_keys_nor_people_are_handed_on() -> None:
    """C54: of a body go its word, its order and its kind, not its token, decoded or not, not what it says of people."""
    for status in ("Delivered", "Rejected", "Foo", PRIVATE):
        written = json.dumps(read(changed(status, "Transaction is canceled", id=9)))
        for secret in (PUBLIC, PRIVATE, TOKEN_3021, TOKEN_3021[:40], "Zainab", "zainab"):
            assert secret not in written
            assert base64.b64encode(secret.encode()).decode() not in written


@given(st.dictionaries(st.sampled_from(["status", "message", "token", "data"]), st.none() | st.integers() | st.text()))
def test_whatever_comes_there_is_a_reading(body: dict[str, Any]) -> None:
    """No value of any member is an error of ours, nor lets anybody in."""
    assert ATARA.read(called(json.dumps(body).encode())) in (Unauthorized(), Unreadable())


def test_it_asks_nothing() -> None:
    """And its token for the receiver stands in the address alone."""
    assert ATARA.token_in_body(called(b"")) is None
    assert ATARA.answer("validation", b"{}") == Answered(None)
    with pytest.raises(ConfigError):
        ATARA.default("validation", "accept", lambda _: b"")
