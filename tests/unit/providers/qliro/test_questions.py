"""What Qliro asks, as the shop hears it, and the shop's answers as Qliro does; samples of its documentation."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.providers.qliro.samples import sample
from worker.errors import ConfigError
from worker.model.callbacks import Answered, Reply
from worker.providers.callbacks import UnreadableError
from worker.providers.qliro.questions import REASONS, answer, ask, default

VALIDATION, METHODS, ADDRESSES = sample("validation"), sample("shipping-methods"), sample("shipping-addresses")
SHOP_METHODS: dict[str, Any] = {
    "methods": [
        {
            "reference": "HOME_DELIVERY",
            "fee_reference": "SHIPPING_FEE_REF_1",
            "name": "Home Delivery",
            "descriptions": ["Expected date", "Expected time"],
            "brand": "DHL",
            "category": "HOME_DELIVERY",
            "price_minor": 30000,
            "price_ex_vat_minor": 20000,
            "access_code": True,
        },
        {
            "reference": "PICKUP_DELIVERY",
            "fee_reference": "SHIPPING_FEE_REF_2",
            "name": "Pickup",
            "descriptions": ["Expected date", "Expected time"],
            "brand": "PostNord",
            "category": "PICKUP",
            "price_minor": 15000,
            "price_ex_vat_minor": 10000,
            "options": [
                {
                    "reference": "PICKUP_LOCATION_1",
                    "name": "Pickup location 1",
                    "descriptions": ["Address", "Hours"],
                    "latitude": 59.349962,
                    "longitude": 18.04763,
                },
                {
                    "reference": "PICKUP_LOCATION_2",
                    "name": "Pickup location 2",
                    "descriptions": ["Address", "Hours"],
                    "latitude": 59.347582,
                    "longitude": 18.048986,
                },
            ],
            "services": [
                {
                    "reference": "ADDITIONAL_SHIPPING_SERVICE_1",
                    "name": "Express delivery",
                    "price_minor": 15000,
                    "price_ex_vat_minor": 10000,
                    "descriptions": ["Faster delivery"],
                    "delivery_date": "2019-03-03",
                }
            ],
        },
    ],
    "header": "SHIPPING_ADDITONAL_HEADER",
}


def encoded(value: object) -> bytes:
    """As the shop sends it."""
    return json.dumps(value).encode()


def told(answered: Answered) -> Any:
    """What Qliro gets, numbers as they stand there."""
    assert answered.reply is not None
    return json.loads(answered.reply.body, parse_float=Decimal)


# --- the question ---


def test_validation() -> None:
    """C40: the shop hears all of it, in our names and in minor units."""
    asked = ask("validation", VALIDATION)
    assert asked.name == "validation"
    question = asked.question
    assert question["provider_order"] == "12345"
    assert question["currency"] == "SEK"
    assert question["customer"] == {"email": "email@domain.com", "phone": "0701234567", "nin": "111111-1111"}
    assert question["lines"][:2] == [
        {
            "reference": "RedHat",
            "name": "Red hat original product",
            "type": "product",
            "quantity": 3,
            "unit_price_minor": 37555,
            "unit_price_ex_vat_minor": 30035,
        },
        {
            "reference": "RedHat",
            "name": "Red hat campaign product",
            "type": "product",
            "quantity": 1,
            "unit_price_minor": 20000,
            "unit_price_ex_vat_minor": 16000,
            "attributes": {"HasRisk": True, "Subscription": {"Enabled": True}},
        },
    ]
    assert [line["quantity"] for line in question["lines"]] == [3, 1, 1, 95, 57]
    assert question["lines"][2]["unit_price_minor"] == 0
    assert question["shipping_address"] == {"postal_code": "12345"}
    assert question["payment"] == {"method": "CREDITCARDS"}
    assert question["identity"] == {"required": False}
    assert "billing_address" not in question


def test_shipping_methods() -> None:
    """C41: address, customer and kind of customer."""
    question = ask("shipping_methods", METHODS).question
    assert question["customer"] == {
        "email": "some@adress.com",
        "phone": "+4670123456",
        "juridical_type": "Physical",
    }
    assert question["shipping_address"] == {
        "given_names": "First",
        "surnames": "Last",
        "line_1": "Street",
        "postal_code": "12345",
        "city": "City",
        "state": "Area",
    }
    assert question["wants_options"] is False
    assert [line["unit_price_minor"] for line in question["lines"]] == [37555, 20000, 0, 14300, 6900]
    assert question["lines"][1]["attributes"] == {"HasRisk": True, "Subscription": {"Enabled": True}}


def test_shipping_addresses() -> None:
    """The customer alone; `OrderID` is another spelling."""
    question = ask("shipping_addresses", ADDRESSES).question
    assert question == ask("shipping_addresses", ADDRESSES.replace(b'"OrderId"', b'"OrderID"')).question
    assert question == {"provider_order": "12345", "customer": {"email": "email@domain.com", "phone": "0701234567"}}


def test_discounts_and_charges() -> None:
    """Types are ours, and a discount's price stays below zero."""
    lines = [
        {"MerchantReference": "a", "Type": kind, "Quantity": "1", "PricePerItemIncVat": price, "MetaData": {"x": 1}}
        for kind, price in (("Discount", -1.5), ("Fee", 2), ("Shipping", 3), ("Other", 4))
    ]
    found = ask("validation", encoded({"OrderItems": lines})).question["lines"]
    assert [(line["type"], line["unit_price_minor"]) for line in found] == [
        ("discount", -150),
        ("invoice_fee", 200),
        ("handling", 300),
        ("Other", 400),
    ]
    assert found[0]["attributes"] == {"x": 1}


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b'{"OrderItems":7}',
        b'{"OrderItems":[{"Quantity":1.5,"PricePerItemIncVat":1}]}',
        b'{"OrderItems":[{"Quantity":1,"PricePerItemIncVat":1.234}]}',
        b'{"OrderItems":[{"Quantity":1}]}',
    ],
)
def test_what_is_not_understood_is_asked_without_particulars(body: bytes) -> None:
    """The shop can say yes or no to a reference all the same."""
    assert ask("validation", body).question == {}


def test_what_is_no_json_is_no_question() -> None:
    """Nobody is asked."""
    with pytest.raises(UnreadableError):
        ask("validation", b"{")


# --- the answer ---


def test_accepted() -> None:
    """C40: 200."""
    assert answer("validation", b'{"accept":true}') == Answered(Reply(200))


@pytest.mark.parametrize("reason", REASONS)
def test_declined(reason: str) -> None:
    """C40: 400 with the reason, and with a message that is not too long."""
    assert answer("validation", encoded({"decline": reason})) == Answered(
        Reply(400, encoded({"DeclineReason": reason}).replace(b" ", b""))
    )
    with_message = answer("validation", encoded({"decline": reason, "message": "m" * 150}))
    assert told(with_message) == {"DeclineReason": reason, "DeclineReasonMessage": "m" * 150}
    too_long = answer("validation", encoded({"accept": False, "decline": reason, "message": "m" * 151}))
    assert (told(too_long), too_long.left_out) == ({"DeclineReason": reason}, ("message",))


def test_declined_as_documented() -> None:
    """C40, C41: the very samples."""
    for name, answered, sampled in (
        ("validation", {"decline": "Other"}, "validation-declined"),
        (
            "validation",
            {"decline": "Other", "message": "Custom message that will be shown"},
            "validation-declined-with-message",
        ),
        ("shipping_methods", {"decline": "PostalCodeIsNotSupported"}, "shipping-methods-declined"),
    ):
        assert told(answer(name, encoded(answered))) == json.loads(sample(sampled))


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("validation", b"{}"),
        ("validation", b'{"accept":true,"decline":"Other"}'),
        ("validation", b'{"decline":"Moody"}'),
        ("validation", b'{"accept":"yes"}'),
        ("validation", b"no"),
        ("shipping_methods", b"{}"),
        ("shipping_methods", b'{"methods":[]}'),
        ("shipping_methods", b'{"methods":[{"reference":"a"}]}'),
        ("shipping_methods", b'{"methods":[{"reference":"","name":"n","price_minor":1,"price_ex_vat_minor":1}]}'),
        ("shipping_methods", b'{"methods":[{"reference":"a","name":"n","price_minor":-1,"price_ex_vat_minor":1}]}'),
        ("shipping_methods", b'{"methods":[],"decline":"PostalCodeIsNotSupported"}'),
        ("shipping_methods", b'{"decline":"Other"}'),
        ("shipping_addresses", b"{}"),
        ("shipping_addresses", b'{"addresses":[7]}'),
    ],
)
def test_answers_that_cannot_be_used(name: str, body: bytes) -> None:
    """They make no sense to Qliro, so the default is given."""
    assert answer(name, body).reply is None


def test_methods_as_documented() -> None:
    """C41: of our names Qliro's own sample is made; prices are numbers with two places."""
    found = answer("shipping_methods", encoded(SHOP_METHODS))
    assert found.left_out == ()
    assert told(found) == json.loads(sample("shipping-methods-answer"), parse_float=Decimal)
    assert found.reply is not None
    assert found.reply.status == 200
    assert b'"PriceIncVat":300.00' in found.reply.body


def test_methods_declined() -> None:
    """C41: no methods for this postal code."""
    found = answer("shipping_methods", b'{"decline":"PostalCodeIsNotSupported"}')
    assert found == Answered(Reply(400, b'{"DeclineReason":"PostalCodeIsNotSupported"}'))


def method(**members: Any) -> dict[str, Any]:
    """A method with what it must have."""
    return {"reference": "r", "name": "n", "price_minor": 5, "price_ex_vat_minor": 4} | members


@pytest.mark.parametrize(
    ("members", "left_out", "expected"),
    [
        ({"descriptions": ["a"] * 4}, "descriptions", {"Descriptions": ["a"] * 3}),
        ({"descriptions": ["a", "b" * 201]}, "descriptions", {"Descriptions": ["a"]}),
        ({"brand": "b" * 51}, "brand", {}),
        ({"fee_reference": "f" * 451}, "fee_reference", {}),
        ({"delivery_date": "d" * 41}, "delivery_date", {}),
        ({"category": "DRONE"}, "category", {}),
        ({"options": [{"reference": "o", "name": "n" * 101}]}, "options", {}),
        ({"options": [{"reference": "o", "name": "n", "city": "c" * 101}]}, "options", None),
        ({"options": [{"reference": "o", "name": "n"}] * 201}, "options", None),
        ({"services": [{"reference": "", "name": "n"}]}, "services", {}),
        ({"services": [{"reference": "s", "name": "n", "delivery_date": "d" * 41}]}, "services", None),
    ],
)
def test_what_breaks_a_bound_is_left_out(
    members: dict[str, Any], left_out: str, expected: dict[str, Any] | None
) -> None:
    """And is named, for the log."""
    found = answer("shipping_methods", encoded({"methods": [method(**members)]}))
    assert found.left_out == (left_out,)
    (offered,) = told(found)["AvailableShippingMethods"]
    usual = {
        "MerchantReference": "r",
        "DisplayName": "n",
        "PriceIncVat": Decimal("0.05"),
        "PriceExVat": Decimal("0.04"),
    }
    if expected is not None:
        assert offered == usual | expected


def test_a_method_that_breaks_a_bound_is_left_out() -> None:
    """The others are offered; so many at most."""
    found = answer(
        "shipping_methods", encoded({"methods": [method(), method(name="n" * 101), method(reference="r" * 451)]})
    )
    assert (len(told(found)["AvailableShippingMethods"]), found.left_out) == (1, ("methods",))
    many = answer("shipping_methods", encoded({"methods": [method()] * 101}))
    assert (len(told(many)["AvailableShippingMethods"]), many.left_out) == (100, ("methods",))


def test_categories_on_all_methods_or_none() -> None:
    """One without takes them from all."""
    found = answer("shipping_methods", encoded({"methods": [method(category="PICKUP"), method()]}))
    assert found.left_out == ("category",)
    assert not any("CategoryDisplayName" in each for each in told(found)["AvailableShippingMethods"])
    both = answer(
        "shipping_methods", encoded({"methods": [method(category="PICKUP"), method(category="HOME_DELIVERY")]})
    )
    assert both.left_out == ()


def test_addresses_as_documented() -> None:
    """Qliro's sample, of our names."""
    first = {
        "given_names": "FirstName1",
        "surnames": "LastName1",
        "company": "Company A AB",
        "care_of": "CareOf",
        "line_1": "Klara Vattugränd 32",
        "line_2": "Department X",
        "postal_code": "147 57",
        "city": "Linköping",
        "state": "Region X",
        "country_code": "SE",
    }
    second = {
        "given_names": "FirstName2",
        "surnames": "LastName2",
        "company": "Company B AB",
        "care_of": "CareOf",
        "line_1": "Karlbergsvägen 1",
        "line_2": "Floor X",
        "postal_code": "100 99",
        "city": "Jönköping",
        "state": "State Y",
    }
    found = answer("shipping_addresses", encoded({"addresses": [first, second]}))
    assert told(found) == json.loads(sample("shipping-addresses-answer"))
    many = answer("shipping_addresses", encoded({"addresses": [{}] * 101}))
    assert (len(told(many)["AvailableShippingAddresses"]), many.left_out) == (100, ("addresses",))


@given(st.sampled_from(["validation", "shipping_methods", "shipping_addresses"]), st.binary(max_size=100))
def test_any_bytes_are_an_answer_or_none(name: str, body: bytes) -> None:
    """A shop's endpoint may answer what it likes."""
    assert isinstance(answer(name, body), Answered)


# --- what is said when the shop does not answer ---


def no_file(_name: str) -> bytes:
    """Not to be read."""
    raise AssertionError("read a file")


def test_defaults() -> None:
    """What may be chosen."""
    assert default("validation", "accept", no_file) == Answered(Reply(200))
    assert told(default("validation", "Other", no_file)) == {"DeclineReason": "Other"}
    assert told(default("shipping_addresses", "empty", no_file)) == {"AvailableShippingAddresses": []}
    assert default("shipping_methods", "declined", no_file).reply == Reply(
        400, b'{"DeclineReason":"PostalCodeIsNotSupported"}'
    )
    from_file = default("shipping_methods", "methods.json", {"methods.json": encoded(SHOP_METHODS)}.__getitem__)
    assert from_file == answer("shipping_methods", encoded(SHOP_METHODS))


@pytest.mark.parametrize(
    ("name", "choice", "content"),
    [
        ("validation", "perhaps", b""),
        ("shipping_addresses", "full", b""),
        ("shipping_methods", "x.json", b"no"),
        ("shipping_methods", "x.json", encoded({"methods": [method(brand="b" * 51)]})),
    ],
)
def test_what_may_not_be_chosen(name: str, choice: str, content: bytes) -> None:
    """The merchant is told before anything is asked."""
    with pytest.raises(ConfigError, match=r"should be one of|should be \"declined\""):
        default(name, choice, lambda _: content)
