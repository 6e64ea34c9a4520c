"""Bytes: signatures, amounts, names; ids are those of the acceptance cases."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.providers.qliro import wire

BODY = b'{"RequestId":"d92b8c60-6781-4946-9854-e70b27452d5a","MerchantApiKey":"HATS","OrderId":12345}'
SHIP = (
    BODY[:-1]
    + b',"Currency":"SEK","Shipments":[{"PaymentTransactionId":454211,"OrderItems":[{"MerchantReference":"RedHat",'
    + b'"Type":"Product","Quantity":2,"PricePerItemIncVat":375.55}]}]}'
)


@pytest.mark.parametrize(
    ("body", "token"),
    [
        pytest.param(BODY, "4ighmK+DXUh1ChJDNwBi+3WNfdjCm8gsqjpUiU1VCFI=", id="C01"),
        pytest.param(b"", "nK8Gu0Q2zb+iCvkSGmJrwQk8T1SzHA+pN5V4VhNTRbY=", id="C02"),
        pytest.param(SHIP, "Ou9saFKhm0eafVVfc3YE1itVo3X5JLYbDs5AqQPC30A=", id="C08"),
    ],
)
def test_signature(body: bytes, token: str) -> None:
    """Vectors of Qliro's documentation of the header."""
    assert wire.signature(body, "test-secret") == f"Qliro {token}"


def test_c03_every_byte_counts() -> None:
    """C03: one space more is another signature."""
    assert wire.signature(BODY.replace(b",", b", ", 1), "test-secret") != wire.signature(BODY, "test-secret")


def test_c08_bytes() -> None:
    """C08: what is encoded is what the reference signs."""
    entry = wire.Entry(454211, [wire.Item("RedHat", "Product", 2, wire.money(37_555))])
    command = wire.Command("d92b8c60-6781-4946-9854-e70b27452d5a", "HATS", 12345, "SEK", [entry])
    assert wire.encode(command) == SHIP


@pytest.mark.parametrize(
    ("minor", "text"),
    [
        pytest.param(37_555, b"375.55", id="C04"),
        pytest.param(100, b"1.00", id="C05"),
        pytest.param(-5, b"-0.05", id="C05-small"),
        pytest.param(10**12, b"10000000000.00", id="C05-large"),
        pytest.param(0, b"0.00", id="C05-nothing"),
    ],
)
def test_amounts(minor: int, text: bytes) -> None:
    """C04, C05: JSON numbers with two decimals."""
    assert msgspec.json.Encoder(decimal_format="number").encode(wire.money(minor)) == text


@given(st.integers(-(10**12), 10**12))
def test_amounts_are_exact(minor: int) -> None:
    """There and back, for any amount."""
    assert wire.minor(wire.money(minor)) == minor


@pytest.mark.parametrize("text", ["0.001", "-33.333", "NaN", "Infinity"])
def test_c05_no_more_than_two_decimals(text: str) -> None:
    """C05: what is no whole number of minor units is none of our amounts."""
    with pytest.raises(ValueError, match="more than two decimals"):
        wire.minor(Decimal(text))


@pytest.mark.parametrize(
    ("reference", "fits"),
    [
        ("sku|1", False),
        ("Röd hatt (XL) 3/4", True),
        ("a" * 200, True),
        ("a" * 201, False),
        ("", False),
        ("x²", False),
        ("tab\tand #", False),
        ("-_&,/+.:'0\N{EN DASH}", True),
    ],
)
def test_c07_item_references(reference: str, fits: bool) -> None:
    """C07: the pattern of an item's reference."""
    assert wire.is_item_reference(reference) is fits


@pytest.mark.parametrize(
    ("reference", "fits"),
    [("A-1_b", True), ("12345", False), ("1234x", True), ("x" * 26, False), ("a/b", False), ("1\n", False)],
)
def test_order_references(reference: str, fits: bool) -> None:
    """What an order can be looked up by."""
    assert bool(wire.ORDER_REFERENCE.fullmatch(reference)) is fits


@pytest.mark.parametrize(
    ("value", "name"), [(3, "Capture"), ("Capture", "Capture"), (99, "99"), ("New", "New"), (-1, "-1")]
)
def test_words(value: Any, name: str) -> None:
    """Numbers and texts; what is not known stays what it is."""
    assert wire.word(value, wire.KINDS) == name
