"""Amounts as people write them. Pure."""

_DECIMALS = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
"""ISO 4217 (2026-01), currencies whose minor unit is not the hundredth."""
_PLACES = {currency: places for places, names in _DECIMALS.items() for currency in names.split()}


def number_text(minor: int, currency: str, *, minus: str = "-", thousands: str = ",") -> str:
    """`-1,234.50` of minor units."""
    places = _PLACES.get(currency, 2)
    whole, rest = divmod(abs(minor), 10**places)
    text = f"{whole:,}".replace(",", thousands) + (f".{rest:0{places}}" if places else "")
    return f"{minus if minor < 0 else ''}{text}"


def count_text(count: int, noun: str) -> str:
    """`1 order`, `2 orders`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def amount_text(minor: int, currency: str) -> str:
    """`-1,234.50 SEK` of minor units."""
    return f"{number_text(minor, currency)} {currency}"
