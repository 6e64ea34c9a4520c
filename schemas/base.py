"""The values that messages are made of: numbers, texts and times with their bounds.

A bound lives in the type, once: the decoder enforces it, the JSON Schema shows it, and `expected` (in `Meta.extra`)
is how a refusal words it. Source of every rule: the input contract, `events.md` sections 1 and 2.
"""

from datetime import UTC, date, datetime
from typing import Annotated, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType

AMOUNT_MAX_MINOR = 10**12
QUANTITY_MAX = 1_000_000
TEXT_MAX = 1_000
REFERENCE_MAX = 200

# Python's `$` also matches before a last newline; this does not, and JSON Schema's dialect knows it too.
_END = r"(?![\s\S])"
# Not `\d`, which also matches digits of other scripts.
_OFFSET = r"([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
_TIME = rf"^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}[Tt][0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}(\.[0-9]{{1,6}})?{_OFFSET}{_END}"
_DAYS = r"([0-9]+Y)?([0-9]+M)?([0-9]+W)?([0-9]+D)?"
_PERIOD = rf"^P(?!{_END}){_DAYS}(T(?=[0-9])([0-9]+H)?([0-9]+M)?([0-9]+S)?)?{_END}"  # ISO 8601-1 section 5.5.2


def _expected(text: str) -> dict[str, str]:
    return {"expected": text}


Quantity = Annotated[
    int,
    Meta(ge=1, le=QUANTITY_MAX, extra=_expected(f"an integer from 1 to {QUANTITY_MAX}"), description="units"),
]
Minor = Annotated[
    int,
    Meta(
        ge=-AMOUNT_MAX_MINOR,
        le=AMOUNT_MAX_MINOR,
        extra=_expected(f"an integer from -{AMOUNT_MAX_MINOR} to {AMOUNT_MAX_MINOR}"),
        description="minor units of the currency, with tax",
    ),
]
PriceMinor = Annotated[
    int,
    Meta(
        ge=0,
        le=AMOUNT_MAX_MINOR,
        extra=_expected(f"an integer from 0 to {AMOUNT_MAX_MINOR}"),
        description="minor units of the currency, with tax; not negative",
    ),
]
AmountMinor = Annotated[
    int,
    Meta(
        ge=1,
        le=AMOUNT_MAX_MINOR,
        extra=_expected(f"an integer from 1 to {AMOUNT_MAX_MINOR}"),
        description="minor units of the currency, with tax; above 0",
    ),
]
Count = Annotated[
    int,
    Meta(ge=0, le=QUANTITY_MAX, extra=_expected(f"an integer from 0 to {QUANTITY_MAX}"), description="a count"),
]
BasisPoints = Annotated[
    int,
    Meta(
        ge=0,
        le=10_000,
        extra=_expected("an integer from 0 to 10000"),
        description="basis points: 2100 is 21 %",
    ),
]
Version = Annotated[
    int,
    Meta(
        ge=-(2**63),
        le=2**63 - 1,
        extra=_expected("an integer of at most 64 bits"),
        description="the shop's version number; the greatest counts",
    ),
]
Text = Annotated[str, Meta(max_length=TEXT_MAX, extra=_expected(f"a text of at most {TEXT_MAX} characters"))]
Name = Annotated[str, Meta(min_length=1, max_length=TEXT_MAX, extra=_expected(f"a text of 1 to {TEXT_MAX} characters"))]
NonEmpty = Annotated[str, Meta(min_length=1, extra=_expected("a text that is not empty"))]
Currency = Annotated[
    str,
    Meta(
        pattern=rf"^[A-Z]{{3}}{_END}",
        extra=_expected("three upper-case letters"),
        description="ISO 4217 code",
    ),
]
Time = Annotated[
    str,
    Meta(
        pattern=_TIME,
        extra=_expected("an RFC 3339 time with an offset, up to microseconds"),
        description="RFC 3339 time with an offset, up to microseconds",
    ),
]
Period = Annotated[
    str,
    Meta(pattern=_PERIOD, extra=_expected("an ISO 8601 period such as P3M"), description="ISO 8601 period"),
]
Date = Annotated[date, Meta(extra=_expected("a date YYYY-MM-DD"), description="YYYY-MM-DD")]
HttpsUrl = Annotated[
    str,
    Meta(
        pattern=r"^https://[^\s/]",
        max_length=TEXT_MAX,
        extra=_expected(f"an https address of at most {TEXT_MAX} characters"),
    ),
]
Sequence = Annotated[
    str,
    Meta(
        pattern=rf"^[0-9]{{1,18}}{_END}",
        extra=_expected("1 to 18 digits as text"),
        description="per order; outranks `time`; all writers of an order give it, or none",
    ),
]
Subject = Annotated[
    str,
    Meta(
        pattern=rf"^[^/]+/(?!\.{{1,2}}{_END})[\s\S]{{1,{REFERENCE_MAX}}}{_END}",
        extra=_expected(f"<account>/<order reference>, the reference of 1 to {REFERENCE_MAX} characters, not . or .."),
        description="`<account>/<order reference>`, split at the first slash",
    ),
]
TraceParent = Annotated[
    str,
    Meta(
        pattern=rf"^[0-9a-f]{{2}}-[0-9a-f]{{32}}-[0-9a-f]{{16}}-[0-9a-f]{{2}}(-[\s\S]*)?{_END}",
        extra=_expected("a W3C traceparent"),
        description="W3C Trace Context",
    ),
]


class RuleError(ValueError):
    """A rule across the members of one object is broken.

    `member` is the path below the object to blame (`".lines"`), or `""` for the object itself; `expected` says
    what should have stood there. msgspec turns it into a `ValidationError` that has it as its cause.
    """

    def __init__(self, expected: str, member: str = "") -> None:
        super().__init__(f"expected {expected}")
        self.expected = expected
        self.member = member


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_time_us(text: str) -> int:
    """Microseconds since 1970-01-01 UTC of a time with an offset, as `Time` describes it.

    Raises `RuleError` for a day or an hour that does not exist, or when there is no offset.
    """
    try:
        since = datetime.fromisoformat(text.upper()) - _EPOCH
    except (ValueError, OverflowError, TypeError):  # the last one: without an offset
        raise RuleError("an RFC 3339 time with an offset, up to microseconds") from None
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def require_time(text: str | UnsetType, member: str) -> None:
    """Raises `RuleError` blaming `member` when the text names a moment that does not exist. Unset passes."""
    if text is not UNSET:
        try:
            parse_time_us(text)
        except RuleError as error:
            raise RuleError(error.expected, member) from None


_S = TypeVar("_S", bound=Struct)


def copied(value: _S) -> _S:
    """A shallow copy of a Struct, in a third of the time that `copy.copy` takes to find out how."""
    made: _S = value.__copy__()  # type: ignore[attr-defined]
    return made
