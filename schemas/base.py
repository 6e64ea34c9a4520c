"""The values that messages are made of: numbers, texts and times with their bounds.

A bound lives in the type, once: the decoder enforces it, the JSON Schema shows it, and `expected` (in `Meta.extra`)
is how a refusal words it. Source of every rule: the input contract, `CONTRACT.md` sections 1 and 2.
"""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal, TypeVar

from msgspec import UNSET, Meta, Struct
from msgspec.structs import force_setattr

AMOUNT_MAX_MINOR = 10**12
QUANTITY_MAX = 1_000_000
TEXT_MAX = 1_000
REFERENCE_MAX = 200
ACCOUNT_MAX = 100

# Not `\d`, which also matches digits of other scripts.
_OFFSET = r"([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
_TIME = rf"^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}[Tt][0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}(\.[0-9]{{1,9}})?{_OFFSET}$"
TIME_RULE = "an RFC 3339 time with an offset, up to nanoseconds"
_DAYS = "([0-9]+Y([0-9]+M)?([0-9]+W)?([0-9]+D)?|[0-9]+M([0-9]+W)?([0-9]+D)?|[0-9]+W([0-9]+D)?|[0-9]+D)"
_HOURS = "T([0-9]+H([0-9]+M)?([0-9]+S)?|[0-9]+M([0-9]+S)?|[0-9]+S)"
_PERIOD = f"^P({_DAYS}({_HOURS})?|{_HOURS})$"  # ISO 8601-1 section 5.5.2
_SUBJECT = rf"^[^/]{{1,{ACCOUNT_MAX}}}/[\s\S]{{1,{REFERENCE_MAX}}}$"
SUBJECT_RULE = (
    f"<account>/<order reference>, the account of 1 to {ACCOUNT_MAX} characters, "
    f"the reference of 1 to {REFERENCE_MAX}, no part of it . or .."
)
_TRACE_PARENT = r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[\s\S]*)?$"
_SUBJECT_STRICT = rf"^[^/]{{1,{ACCOUNT_MAX}}}/(?=[\s\S]{{1,{REFERENCE_MAX}}}\Z)(?!(?:[\s\S]*/)?\.\.?(?:/|\Z))"
_DOTS = r"/\.\.?(/|$)"  # the first slash of a subject stands before the reference


def _expected(text: str) -> dict[str, str]:
    return {"expected": text}


PUBLISHED: dict[str, str] = {}
"""What the JSON Schemas say instead of a pattern of the decoder's."""


def matching(
    pattern: str,
    expected: str,
    description: str,
    *,
    strict: str = "",
    schema: dict[str, Any] | None = None,
    max_length: int | None = None,
) -> Meta:
    """A text of this pattern, which RE2, Python and JavaScript all take. Python's `$` also matches before a last
    newline, so the decoder goes by a stricter one; `schema` says for others what only that can hold.
    """
    strict = strict or pattern.replace("$", r"\Z")
    PUBLISHED[strict] = pattern
    return Meta(
        pattern=strict,
        max_length=max_length,
        extra_json_schema=schema,
        extra=_expected(expected),
        description=description,
    )


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
Currency = Annotated[str, matching("^[A-Z]{3}$", "three upper-case letters", "ISO 4217 code")]
Country = Annotated[str, matching("^[A-Z]{2}$", "two upper-case letters", "ISO 3166-1 code")]
Time = Annotated[str, matching(_TIME, TIME_RULE, "RFC 3339 time with an offset; digits beyond microseconds are cut")]
Period = Annotated[str, matching(_PERIOD, "an ISO 8601 period such as P3M", "ISO 8601 period")]
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
    matching(
        "^[0-9]{1,18}$",
        "1 to 18 digits as text",
        "per order; outranks `time`; all writers of an order give it, or none",
    ),
]
Subject = Annotated[
    str,
    matching(
        _SUBJECT,
        SUBJECT_RULE,
        "`<account>/<order reference>`, split at the first slash",
        strict=_SUBJECT_STRICT,
        schema={"not": {"pattern": _DOTS}},
    ),
]
TraceParent = Annotated[str, matching(_TRACE_PARENT, "a W3C traceparent", "W3C Trace Context")]


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
    """Microseconds since 1970-01-01 UTC of a time with an offset, as `Time` describes it; what is beyond them is cut.

    Raises `RuleError` for a day or an hour that does not exist, or when there is no offset.
    """
    try:
        since = datetime.fromisoformat(text.upper()) - _EPOCH
    except (ValueError, OverflowError, TypeError):  # the last one: without an offset
        raise RuleError(TIME_RULE) from None
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds  # half as long as to divide it


def time_text(time_us: int) -> str:
    """A time as `parse_time_us` reads it: RFC 3339, UTC."""
    return (_EPOCH + timedelta(microseconds=time_us)).isoformat().replace("+00:00", "Z")


def cut_time(owner: Struct, member: str) -> None:
    """Cuts the digits beyond microseconds of a time in an object that is just being made; unset passes.

    Raises `RuleError` blaming the member when it names a moment that does not exist.
    """
    text = getattr(owner, member)
    if text is UNSET:
        return
    try:
        parse_time_us(text)
    except RuleError as error:
        raise RuleError(error.expected, f".{member}") from None
    if len(text) > _MICROSECONDS_LENGTH:
        force_setattr(owner, member, _BEYOND_MICROSECONDS.sub(r"\1", text))


_BEYOND_MICROSECONDS = re.compile(r"(\.[0-9]{6})[0-9]+")
_MICROSECONDS_LENGTH = len("2026-03-01T00:00:00.123456Z")


_S = TypeVar("_S", bound=Struct)


shallow_copy: Callable[[_S], _S] = Struct.__copy__  # type: ignore[attr-defined]
"""A shallow copy of a Struct, in a third of the time that `copy.copy` takes to find out how."""


DeadLetterReason = Literal[
    "too_large",
    "no_key",
    "undecodable",
    "not_utf8",
    "not_json",
    "not_cloudevents",
    "not_trusted",
    "unknown_type",
    "invalid_data",
    "wrong_partition",
    "order_too_large",
]
"""Why a record is refused, in the words of `CONTRACT.md` section 4."""
