"""Amounts and times as people read them. Pure."""

from datetime import UTC, datetime

from worker.core.amounts import number_text

_NARROW = "\u202f"
_MINUS = "−"


def money(minor: int | None, currency: str | None) -> str:
    """`1 234.50 EUR` of 123450 minor units; empty when it is not known."""
    if minor is None or currency is None:
        return ""
    return f"{number_text(minor, currency, minus=_MINUS, thousands=_NARROW)}\u00a0{currency}"


def age(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 20 min`, `5 d`."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < 86_400:
        minutes = whole % 3600 // 60
        return f"{whole // 3600} h {minutes} min" if minutes and whole < 36_000 else f"{whole // 3600} h"
    return f"{whole // 86_400} d"


def utc(ms: int) -> str:
    """`2026-11-29 18:57:50` UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def machine_time(ms: int) -> str:
    """RFC 3339, for `<time datetime>`."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{ms % 1000:03}Z"
