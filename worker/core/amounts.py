"""Amounts as people write them. Pure."""

from collections.abc import Mapping

_DIGITS: Mapping[str, int] = {
    **dict.fromkeys(("CLP", "ISK", "JPY", "KRW", "PYG", "UGX", "VND", "XAF", "XOF", "XPF"), 0),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
}
"""Decimals of a currency's minor unit where they are not two (ISO 4217, 2026-08)."""


def amount_text(minor: int, currency: str) -> str:
    """`-1,234.50 SEK` of minor units."""
    digits = _DIGITS.get(currency, 2)
    sign = "-" if minor < 0 else ""
    whole, part = divmod(abs(minor), 10**digits)
    decimals = f".{part:0{digits}}" if digits else ""
    return f"{sign}{whole:,}{decimals} {currency}"
