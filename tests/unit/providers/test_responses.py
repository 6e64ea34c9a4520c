"""Reading what a provider answers: statuses, `Retry-After`, error texts in whatever shape."""

from datetime import UTC, datetime
from email.utils import format_datetime

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from worker.model.exchange import HttpResponse, OutcomeKind, Refusal
from worker.providers.responses import WORDS_MAX, describe, kind_of_status, outcome_by_status, retry_after_s

NOW_MS = 1_772_323_200_000  # 2026-03-01T00:00:00Z

TABLE: dict[OutcomeKind, list[int]] = {
    OutcomeKind.APPLIED: [200, 201, 202, 204, 206, 299],
    OutcomeKind.CONFLICT: [409],
    OutcomeKind.REJECTED: [423, 425, 429, 500, 501, 503, 505],
    OutcomeKind.UNKNOWN: [408, 502, 504, 506, 507, 508, 511, 520, 522, 524, 599, 600],
    OutcomeKind.NOT_FOUND: [404],
    OutcomeKind.CREDENTIALS: [401],
    OutcomeKind.FORBIDDEN: [403],
    OutcomeKind.PERMANENT: [
        *(100, 101, 300, 301, 302, 303, 304, 307, 308, 400, 402, 405, 406, 410, 411, 412, 413, 414),
        *(415, 418, 421, 422, 424, 426, 428, 431, 451, 499),
    ],
}


@pytest.mark.parametrize(("kind", "status"), [(kind, status) for kind, row in TABLE.items() for status in row])
def test_status(kind: OutcomeKind, status: int) -> None:
    """The table of `DOMAIN.md` section 6, every row of it."""
    assert kind_of_status(status) is kind


@given(st.integers(-1, 1000))
def test_only_2xx_is_success(status: int) -> None:
    """Whatever else a server may answer is not taken for success."""
    assert (kind_of_status(status) is OutcomeKind.APPLIED) == (200 <= status < 300)


FOLLOWS: dict[int, tuple[bool, bool, Refusal | None]] = {
    301: (False, False, None),
    400: (False, False, Refusal.REQUEST),
    401: (False, False, None),
    403: (False, False, None),
    404: (False, False, None),
    409: (False, False, Refusal.CONTENT),
    410: (False, False, None),
    413: (False, False, Refusal.REQUEST),
    422: (False, False, Refusal.CONTENT),
    423: (False, False, None),
    429: (False, True, None),
    500: (True, False, None),
    501: (True, False, None),
    502: (True, False, None),
    503: (True, True, None),
    505: (True, False, None),
}
"""By status: whether the provider may have applied some of it all the same, whether the whole account is throttled, and
what was refused."""


@pytest.mark.parametrize("status", FOLLOWS)
def test_what_follows_from_a_status(status: int) -> None:
    """All that the core goes by, which sees no status itself."""
    found = outcome_by_status(status, "why", 3.0)
    assert (found.may_have_applied, found.throttles_account, found.refusal) == FOLLOWS[status]
    assert (found.kind, found.reason, found.status) == (kind_of_status(status), "why", status)
    assert found.retry_after_s == 3.0
    assert found.has_response


@pytest.mark.parametrize(
    ("status", "kind", "refusal"),
    [
        (400, OutcomeKind.CONFLICT, Refusal.CONTENT),
        (422, OutcomeKind.CREDENTIALS, None),
        (422, OutcomeKind.UNKNOWN, None),
        (409, OutcomeKind.PERMANENT, None),
    ],
)
def test_the_adapter_knows_better(status: int, kind: OutcomeKind, refusal: Refusal | None) -> None:
    """Who reads in the body what became of a request does not go by its status: no refused token has let us in."""
    found = outcome_by_status(status, "why", None, kind)
    assert (found.kind, found.refusal) == (kind, refusal)


# --- Retry-After -----------------------------------------------------------------------------------------------------


def http_date(offset_s: float) -> str:
    """An HTTP date so many seconds from now."""
    return format_datetime(datetime.fromtimestamp(NOW_MS / 1000 + offset_s, UTC), usegmt=True)


RETRY_AFTER: list[tuple[str | None, float | None]] = [
    (None, None),
    ("0", 0.0),
    ("30", 30.0),
    (" 30 ", 30.0),
    ("007", 7.0),
    ("3600", 3600.0),
    ("3601", 3600.0),
    ("9" * 400, 3600.0),
    ("", None),
    ("-5", None),
    ("1.5", None),
    ("٣", None),
    ("soon", None),
    ("30s", None),
    (http_date(90), 90.0),
    (http_date(0), 0.0),
    (http_date(-90), 0.0),
    (http_date(86_400), 3600.0),
    ("Sunday, 01-Mar-26 00:02:00 GMT", 120.0),
    ("Sun Mar  1 00:02:00 2026", 120.0),
    ("Sun, 01 Mar 2026 01:02:00 +0100", 120.0),
    ("Sun, 99 Mar 2026 00:00:00 GMT", None),
    ("Sun, 01 Mar 2026 00:02:00 -0000", 120.0),
]


@pytest.mark.parametrize(("value", "seconds"), RETRY_AFTER)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    """Seconds or a date in any of HTTP's forms, clamped to an hour; what makes no sense is as good as absent."""
    assert retry_after_s(value, NOW_MS) == seconds


@given(st.text(max_size=40))
@example("Mon, 01 Jan 0001 00:00:00 +2359")
@example("Fri, 31 Dec 9999 23:59:59 -2359")
@example("Sun, 01 Mar 99999999999 00:00:00 GMT")
def test_retry_after_is_total(value: str) -> None:
    """Any text gives a waiting time within bounds, or none."""
    found = retry_after_s(value, NOW_MS)
    assert found is None or 0 <= found <= 3600


# --- the provider's words --------------------------------------------------------------------------------------------


def words(body: bytes | str, status: int = 409) -> str:
    """What is kept of an answer with this body."""
    return describe(HttpResponse(status, {}, body if isinstance(body, bytes) else body.encode()))


BODIES: list[tuple[str, str]] = [
    ("", "409"),
    ("   \n ", "409"),
    ('{"errors": ["one", "two"]}', "409: one; two"),
    ('{"errors": [{"title": "one"}, {"title": "two", "code": 5}]}', "409: one; two"),
    ('{"errors": ["one", {"title": "two"}, 5, null, {"name": "x"}, {"title": 7}, ["x"]]}', "409: one; two"),
    (' \n["one", "two"]', "409: one; two"),
    ('{"errors": []}', "409"),
    ('{"errors": "text"}', "409"),
    ('{"error": "text"}', "409"),
    ("{}", "409"),
    ("[", "409: ["),
    ("[error] the order is locked", "409: [error] the order is locked"),
    ('{"errors": ["cut off', '409: {"errors": ["cut off'),
    ("[" * 100_000, f"409: {'[' * 500} …"),
    ('"just text"', '409: "just text"'),
    ("HTTP Basic: Access denied.", "409: HTTP Basic: Access denied."),
    ("two\n  lines\tof text", "409: two lines of text"),
    (
        "<html><head><title>404</title></head><body><h1>Not Found</h1><p>No&nbsp;such order</p></body></html>",
        "409: Not Found No such order",
    ),
    ("<script>var a = 1 < 2;</script><b>Sorry</b><!-- hidden --><style>b{}</style> &amp; bye", "409: Sorry & bye"),
    ("<p>cut in the middle <scri", "409: cut in the middle"),
    ("<p>a</p><script>never ends", "409: a"),
    ("a <!-- never ends", "409: a"),
    ("Camiseta ñ €", "409: Camiseta ñ €"),
]


@pytest.mark.parametrize(("body", "expected"), BODIES, ids=[row[0][:30] for row in BODIES])
def test_words_of_an_error(body: str, expected: str) -> None:
    """JSON lists of texts or of objects with a title, plain text, HTML: what a person would read of it, in one line."""
    assert words(body) == expected


def test_words_that_are_not_utf8() -> None:
    """Bytes that are no UTF-8 are replaced, and harm nothing."""
    assert words(b"caf\xe9") == "409: caf�"
    assert words(b'{"errors": ["caf\xe9"]}') == "409: caf�"


def test_words_are_cut() -> None:
    """A long answer is cut; of a very long one only the beginning is looked at."""
    assert words("x" * WORDS_MAX) == "409: " + "x" * 500
    assert words("x" * (WORDS_MAX + 1)) == "409: " + "x" * 500 + " …"
    assert words(" " * 16_384 + "x") == "409"
    assert words("<" * 1_000_000) == "409"


@given(st.binary(max_size=200), st.integers(100, 599))
def test_any_body_gives_a_reason(body: bytes, status: int) -> None:
    """Any bytes give a reason in one line that begins with the status."""
    found = words(body, status)
    assert found.startswith(str(status))
    assert "\n" not in found
    assert len(found) < WORDS_MAX + 10


@given(
    st.recursive(
        st.none() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["errors", "title"]), inner, max_size=2)
        ),
        max_leaves=6,
    )
)
def test_any_json_gives_a_reason(body: object) -> None:
    """So does any JSON."""
    assert words(msgspec.json.encode(body)).startswith("409")
