"""Amounts and times as people read them."""

import pytest

from worker.web.console.amounts import age, machine_time, money, utc


@pytest.mark.parametrize(
    ("minor", "currency", "expected"),
    [
        (123450, "EUR", "1\u202f234.50\u00a0EUR"),
        (5, "EUR", "0.05\u00a0EUR"),
        (0, "SEK", "0.00\u00a0SEK"),
        (-1250, "EUR", "−12.50\u00a0EUR"),
        (1500, "JPY", "1\u202f500\u00a0JPY"),
        (1234567, "KWD", "1\u202f234.567\u00a0KWD"),
        (10**15, "EUR", "10\u202f000\u202f000\u202f000\u202f000.00\u00a0EUR"),
        (None, "EUR", ""),
        (5, None, ""),
    ],
)
def test_money(minor: int | None, currency: str | None, expected: str) -> None:
    """Each currency with its own decimals; what is not known is not zero."""
    assert money(minor, currency) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-5, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3600, "1 h"),
        (12_000, "3 h 20 min"),
        (90_000, "1 d"),
        (39_600, "11 h"),
    ],
)
def test_ages(seconds: float, expected: str) -> None:
    """In the unit that says something."""
    assert age(seconds) == expected


def test_times() -> None:
    """For people and for machines, UTC."""
    assert utc(1_800_000_000_123) == "2027-01-15 08:00:00"
    assert machine_time(1_800_000_000_123) == "2027-01-15T08:00:00.123Z"
