"""What an order's facts mean to AtaraPay: one word at most, and often none."""

from typing import Any

import pytest

from tests.shops.events import (
    EventSpec,
    cancelled,
    cart_updated,
    delivered,
    details,
    fee_charged,
    goods,
    items_cancelled,
    order,
    other,
    refunded,
    retracted,
    returned,
    shipped,
    stated,
)
from tests.unit.providers.atarapay.reported import (
    ACCOUNT,
    ALL_DELIVERED,
    ALL_SHIPPED,
    ATARAPAY,
    HAT,
    NUMBER,
    PHONE,
    SHOE,
    confirmation,
    heard,
    wanted,
)
from worker.providers.atarapay import meaning
from worker.providers.atarapay.checks import Lack, why

SAID = confirmation()
WORDS: dict[str, tuple[str, tuple[EventSpec, ...]]] = {
    "confirmed": ("", (SAID,)),
    "C46-shipped": ("", (SAID, ALL_SHIPPED)),
    "C46-delivered": ("delivered", ALL_DELIVERED),
    "delivered in parts": (
        "delivered",
        (SAID, shipped("s1", hat=1), shipped("s2", hat=1, shoe=1), delivered("s2"), delivered("s1")),
    ),
    "one part under way": ("", (SAID, shipped("s1", hat=1), shipped("s2", hat=1, shoe=1), delivered("s1"))),
    "one part not sent": ("", (SAID, shipped("s1", hat=2), delivered("s1"))),
    "all sent, nothing of value": ("delivered", (confirmation(goods("a", 1, 0)), shipped("s1", a=1), delivered("s1"))),
    "C48-seller": ("cancelled", (SAID, cancelled(reason="out_of_stock"))),
    "C48-merchant": ("cancelled", (SAID, cancelled(by="merchant"))),
    "C48-buyer": ("buyer_cancel", (SAID, cancelled(by="shopper"))),
    "C51": ("", (SAID, cancelled(by="provider"))),
    "reopened": ("", (SAID, cancelled(), retracted(cancelled=True))),
    "refused at the door": ("cancelled", (SAID, ALL_SHIPPED, returned("r1", hat=2, shoe=1), cancelled())),
    "items cancelled": ("cancelled", (SAID, items_cancelled("c1", hat=2), items_cancelled("c2", shoe=1))),
    "the rest cancelled": (
        "cancelled",
        (SAID, shipped("s1", hat=2), returned("r1", hat=2), items_cancelled("c1", shoe=1)),
    ),
    "refunded, then cancelled": ("cancelled", (SAID, refunded("f1", 500), cancelled())),
    "another article for the same money": (
        "",
        (SAID, cart_updated(HAT, goods("boot", 1, 5000), currency="NGN"), shipped("s1", hat=2)),
    ),
    "a refund that was taken back": (
        "delivered",
        (*ALL_DELIVERED, refunded("f1", 100), retracted(refund_id="f1")),
    ),
    "a cart that was restored": (
        "delivered",
        (
            *ALL_DELIVERED,
            cart_updated(HAT, SHOE, other("handling", "ship", 50), currency="NGN"),
            cart_updated(HAT, SHOE, currency="NGN"),
        ),
    ),
    "a charge and a discount": (
        "delivered",
        (
            confirmation(HAT, other("handling", "ship", 777), other("discount", "ten", -333)),
            shipped("s1", hat=1),
            shipped("s2", hat=1),
            delivered("s1"),
            delivered("s2"),
        ),
    ),
}


@pytest.mark.parametrize(("word", "specs"), WORDS.values(), ids=WORDS)
def test_word(word: str, specs: tuple[EventSpec, ...]) -> None:
    """The word, or none; never with a reason against it."""
    found = wanted(*specs)
    assert (found.word, found.lack) == (word, None)


LACKS: dict[str, tuple[Lack, tuple[EventSpec, ...]]] = {
    "C53-part returned": (Lack("units", 2, 3), (*ALL_DELIVERED, returned("r1", hat=1))),
    "C53-cart updated": (Lack("amount", 6999, 7000), (SAID, cart_updated(goods("hat", 2, 1999), SHOE, currency="NGN"))),
    "C53-cart grows": (Lack("amount", 9000, 7000), (SAID, cart_updated(HAT, goods("shoe", 1, 7000), currency="NGN"))),
    "C53-refund": (Lack("refunded", 100, 7000), (*ALL_DELIVERED, refunded("f1", 100))),
    "C56": (
        Lack("units", 1, 2),
        (
            confirmation(goods("hat", 1, 100), goods("rest", 1, 100)),
            shipped("s1", hat=1),
            shipped("s2", rest=1),
            returned("r1", hat=1),
        ),
    ),
    "part cancelled": (Lack("units", 2, 3), (SAID, items_cancelled("c1", hat=1))),
    "part refunded unsent": (Lack("units", 2, 3), (SAID, returned("r1", origin="unshipped", hat=1))),
    "all came back, not cancelled": (Lack("units", 0, 3), (SAID, ALL_SHIPPED, returned("r1", hat=2, shoe=1))),
    "a free article cancelled": (
        Lack("units", 1, 2),
        (confirmation(HAT | {"quantity": 1}, goods("gift", 1, 0)), items_cancelled("c1", gift=1)),
    ),
    "a fee": (Lack("amount", 7100, 7000), (*ALL_DELIVERED, fee_charged("f1", 100))),
    "cancelled in part": (Lack("kept", 1, 3), (SAID, shipped("s1", hat=1), cancelled())),
    "cancelled with a fee": (Lack("charged", 100), (SAID, cancelled(), fee_charged("f1", 100))),
    "items cancelled with a fee": (
        Lack("charged", 100),
        (SAID, items_cancelled("c1", hat=2, shoe=1), fee_charged("f1", 100)),
    ),
    "stated": (Lack("stated"), (SAID, stated([], [HAT, SHOE], currency="NGN"))),
    "stated as empty": (Lack("stated"), (SAID, stated([], [], currency="NGN"))),
    "stated, items cancelled before": (
        Lack("stated"),
        (SAID, items_cancelled("c1", hat=1), stated([], [], currency="NGN")),
    ),
}


@pytest.mark.parametrize(("lack", "specs"), LACKS.values(), ids=LACKS)
def test_no_word_for_it(lack: Lack, specs: tuple[EventSpec, ...]) -> None:
    """Whatever leaves the shopper less or more than was confirmed cannot be told; the reason has the numbers."""
    found = wanted(*specs)
    assert (found.word, found.lack) == ("", lack)
    assert (str(lack.now) in why(lack)) is (lack.kind != "stated")


def test_statement_and_cancellation() -> None:
    """Also of carts that were stated nothing is left."""
    assert wanted(SAID, stated([], [HAT], currency="NGN"), cancelled()).word == "cancelled"
    assert wanted(SAID, stated([HAT], [SHOE], currency="NGN"), cancelled()).lack == Lack("kept", 2, 3)


def test_known_to_be_ended() -> None:
    """A cancellation that was made at AtaraPay is nothing to tell it, and nothing new."""
    assert wanted(SAID, cancelled(by="provider")).is_ended
    assert not wanted(SAID, cancelled()).is_ended


PHONES = {
    "mobile of the delivery": {
        "delivery_address": {"mobile_phone": "1", "phone": "2"},
        "invoice_address": {"phone": "4"},
    },
    "phone of the delivery": {
        "delivery_address": {"phone": "2", "mobile_phone": " "},
        "invoice_address": {"phone": "4"},
    },
    "mobile of the invoice": {
        "delivery_address": {"city": "Lagos"},
        "invoice_address": {"mobile_phone": "3", "phone": "4"},
    },
    "phone of the invoice": {"invoice_address": {"phone": " 4 "}},
    "none": {"invoice_address": {"city": "Lagos"}},
}


@pytest.mark.parametrize(
    ("members", "phone"), [*zip(PHONES.values(), ["1", "2", "3", "4", ""], strict=True)], ids=PHONES
)
def test_phone(members: dict[str, Any], phone: str) -> None:
    """The first of four places that has one."""
    assert wanted(confirmation(phone="", **members), *ALL_DELIVERED[1:]).phone == phone


def test_email() -> None:
    """Goes along when it is known."""
    assert wanted(*ALL_DELIVERED, details(customer={"email": "z@example.com"})).email == "z@example.com"
    assert wanted(*ALL_DELIVERED, details(customer={"ref": "1"})).email == ""
    assert wanted(*ALL_DELIVERED).email == ""


def test_personal_data_only_with_delivered() -> None:
    """So changes of it make no order owed that has nothing to tell."""
    found = wanted(SAID, details(customer={"email": "z@example.com"}))
    assert (found.phone, found.email, found.delivery) == ("", "", None)


def test_number() -> None:
    """The shop's word goes before that of a notification."""
    told, untold = order(SAID), order(confirmation(number=None))
    assert (meaning.wanted(untold).number, meaning.wanted(untold).is_unverified) == ("", False)
    found = meaning.wanted(heard(untold, "77"))
    assert (found.number, found.is_unverified) == ("77", True)
    found = meaning.wanted(heard(told, "77"))
    assert (found.number, found.is_unverified, found.claims) == (NUMBER, False, b"")


def test_claims() -> None:
    """Each that is new is one more; of those that arrive in disorder, too. What says nothing of the escrow is none."""
    found = order(SAID)
    nothing = meaning.wanted(heard(found, unmapped=(5, 0), risk=(6, 0))).claims
    first = meaning.wanted(heard(found, delivery=(5, 0))).claims
    second = meaning.wanted(heard(found, delivery=(5, 0), cancelled=(4, 0))).claims
    third = meaning.wanted(heard(found, delivery=(6, 0), cancelled=(4, 0))).claims
    assert nothing == b""
    assert len({first, second, third}) == 3
    assert meaning.wanted(heard(order(confirmation(number=None)), "77")).claims


def test_second_attempt() -> None:
    """When it was agreed on is known with `delivered`."""
    assert meaning.wanted(heard(order(*ALL_DELIVERED), second_attempt=(5, 0))).second_attempt_us == 5
    assert meaning.wanted(heard(order(*ALL_DELIVERED))).second_attempt_us == 0


def test_digest() -> None:
    """Of what comes from facts alone; every member of it counts, and `digest` and `render` agree."""
    digest = ATARAPAY.digest(order(*ALL_DELIVERED))
    assert ATARAPAY.render(order(*ALL_DELIVERED), ACCOUNT).digest == digest
    assert ATARAPAY.render(order(*ALL_DELIVERED), ACCOUNT).problem is None
    for change in (
        details(delivery_address={"phone": "1"}),
        details(references={"provider": "9"}),
        details(customer={"email": "z@example.com"}),
        delivered("s1", "2026-04-01T00:00:00Z"),
        refunded("f1", 1),
        returned("r1", hat=1),
    ):
        assert ATARAPAY.digest(order(*ALL_DELIVERED, change)) != digest
    assert ATARAPAY.digest(heard(order(*ALL_DELIVERED), delivery=(1, 0))) != digest
    assert ATARAPAY.digest(order(*ALL_DELIVERED, details(gift=True))) == digest
    assert wanted(*ALL_DELIVERED).phone == PHONE
