"""Amounts as people write them."""

import pytest

from worker.core.amounts import amount_text


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [
        (75_110, "SEK", "751.10 SEK"),
        (-1, "EUR", "-0.01 EUR"),
        (123_456_789, "NGN", "1,234,567.89 NGN"),
        (-1_234, "CLP", "-1,234 CLP"),
        (1_234, "KWD", "1.234 KWD"),
        (0, "EUR", "0.00 EUR"),
    ],
    ids=["two decimals", "below zero", "thousands", "no decimals", "three decimals", "nothing"],
)
def test_amount_text(minor: int, currency: str, text: str) -> None:
    """With the currency's own decimals."""
    assert amount_text(minor, currency) == text
