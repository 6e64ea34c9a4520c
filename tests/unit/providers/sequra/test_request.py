"""The request: where it goes, what it carries, and how its answer is read."""

from base64 import b64decode
from urllib.parse import unquote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.asking import outcome_of, question, request_of
from tests.shops.events import confirmed, goods, order
from worker.model.exchange import HttpRequest, HttpResponse, Outcome, OutcomeKind
from worker.model.provider import Provider
from worker.providers.sequra import Sequra
from worker.providers.sequra.memory import Reported, kept
from worker.providers.sequra.options import SequraAccount

SEQURA: Provider[SequraAccount] = Sequra()
ACCOUNT = SequraAccount("acme", "sequra", "https://sandbox.sequrapi.com", "camisasonline", "user", "pässword:x")
ORDER = order(confirmed(goods("A", 1, 100, name="Camiseta ñ €")))
ASKED = question(SEQURA, ORDER, ACCOUNT, now_ms=1_772_323_200_000)


def request(reference: str = "A14/12345", account: SequraAccount = ACCOUNT, key: str = "k1") -> HttpRequest:
    """The request of an order with this reference."""
    return request_of(SEQURA, replace(ORDER, reference=reference), account, idempotency_key=key)


def path(reference: str) -> str:
    """The last segment of its URL."""
    return request(reference).url.removeprefix("https://sandbox.sequrapi.com/merchants/camisasonline/orders/")


def test_adapter_is_what_it_says() -> None:
    """Its name stands in configuration and `origin`; nothing lets seQura refuse an old request."""
    assert (SEQURA.name, SEQURA.guarantee, SEQURA.can_read) == ("sequra", "D", False)
    assert SEQURA.describe(b"") == {}


def test_method_and_url() -> None:
    """`PUT {base}/merchants/{merchant}/orders/{order_ref}`, the slash of a reference encoded."""
    found = request()
    assert found.method == "PUT"
    assert found.url == "https://sandbox.sequrapi.com/merchants/camisasonline/orders/A14%2F12345"


def test_trace() -> None:
    """`traceparent` goes along as far as every version defines it: what may follow is any text, line ends included."""
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    found = request_of(SEQURA, ORDER, ACCOUNT, trace=parent + "-x\r\nInjected: yes")
    assert found.headers["traceparent"] == parent
    assert "traceparent" not in request().headers


ENCODED = {
    "12345": "12345",
    "a b": "a%20b",
    "a+b": "a%2Bb",
    "100%": "100%25",
    "%2F": "%252F",
    "a?b#c": "a%3Fb%23c",
    "a&b=c;d": "a%26b%3Dc%3Bd",
    "ñ€": "%C3%B1%E2%82%AC",
    "😀": "%F0%9F%98%80",
    "~-._": "~-._",
    "...": "...",
    "../x": "..%2Fx",
    "a/../b": "a%2F..%2Fb",
    "\n\x00": "%0A%00",
    "a\\b": "a%5Cb",
    ":@!$'()*,": "%3A%40%21%24%27%28%29%2A%2C",
    "[x]{y}": "%5Bx%5D%7By%7D",
}


@pytest.mark.parametrize("reference", ENCODED)
def test_odd_references_are_encoded(reference: str) -> None:
    """Every character that is not unreserved (RFC 3986) is percent-encoded, as UTF-8."""
    assert path(reference) == ENCODED[reference]


@given(st.text(min_size=1, max_size=200))
def test_any_reference_is_one_segment(reference: str) -> None:
    """Whatever the reference, it is one path segment that decodes to it, and ASCII."""
    found = path(reference)
    assert unquote(found) == reference
    assert found.isascii()
    assert not set(found) & set("/?#[]@ \\")


def test_merchant_is_encoded_too() -> None:
    """The merchant id is a segment as well; the base URL's last slash is not doubled."""
    account = replace(ACCOUNT, merchant_id="a/b ñ", base_url="https://live.example/v1/")
    assert request(account=account).url == "https://live.example/v1/merchants/a%2Fb%20%C3%B1/orders/A14%2F12345"


def test_headers() -> None:
    """JSON both ways, Basic credentials in UTF-8, the merchant id, and the key of this update."""
    headers = request(key="key-7").headers
    authorization = headers.pop("Authorization")
    assert headers == {
        "Accept": "application/json",
        "Content-Type": "application/json",
        "Sequra-Merchant-Id": "camisasonline",
        "Idempotency-Key": "key-7",
    }
    scheme, _, credentials = authorization.partition(" ")
    assert scheme == "Basic"
    assert b64decode(credentials).decode() == "user:pässword:x"


def test_credentials_of_each_account() -> None:
    """Another account's request carries its own credentials."""
    other = replace(ACCOUNT, username="other")
    assert request(account=other).headers["Authorization"] != request().headers["Authorization"]


def test_body_is_utf8_json() -> None:
    """Text is sent as UTF-8 bytes and the JSON is strict."""
    body = request().body
    assert "Camiseta ñ €".encode() in body
    assert msgspec.json.decode(body)["order"]["unshipped_cart"]["items"][0]["name"] == "Camiseta ñ €"


def test_what_holds_secrets_does_not_print_them() -> None:
    """Neither the request nor the account shows credentials or personal data when it is printed."""
    assert repr(request()) == "HttpRequest('PUT')"
    assert repr(ACCOUNT) == "SequraAccount('acme', 'sequra', 'camisasonline')"


# --- the answer --------------------------------------------------------------------------------------------------------


def outcome(status: int, body: bytes = b"", **headers: str) -> Outcome:
    """The outcome of an answer."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return outcome_of(SEQURA, ASKED, HttpResponse(status, names, body))


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
@pytest.mark.parametrize("body", [b"", b"{}", b'{"errors": ["x"]}', b"<html>", b"\xff"])
def test_success_whatever_the_body(status: int, body: bytes) -> None:
    """200 and 202 are success like 204; their bodies are not defined and not read."""
    assert outcome(status, body) == Outcome(OutcomeKind.APPLIED, "", status, remote=kept(Reported(by_update=True)))


ERRORS = b'{"errors": ["Invalid data: In shipped_cart, items do not add up"]}'
ANSWERS: list[tuple[int, bytes, OutcomeKind, str]] = [
    (409, ERRORS, OutcomeKind.CONFLICT, "409: Invalid data: In shipped_cart, items do not add up"),
    (401, b"HTTP Basic: Access denied.\n", OutcomeKind.CREDENTIALS, "401: HTTP Basic: Access denied."),
    (
        403,
        b'{"errors":["You do not have access to this URL"]}',
        OutcomeKind.FORBIDDEN,
        "403: You do not have access to this URL",
    ),
    (404, b"<html><body>Not Found</body></html>", OutcomeKind.NOT_FOUND, "404: Not Found"),
    (422, b'{"errors":[{"title":"order_ref_2"}]}', OutcomeKind.PERMANENT, "422: order_ref_2"),
    (400, b"", OutcomeKind.PERMANENT, "400"),
    (301, b"moved", OutcomeKind.PERMANENT, "301: moved"),
    (408, b"", OutcomeKind.UNKNOWN, "408"),
    (429, b"slow down", OutcomeKind.REJECTED, "429: slow down"),
    (500, b"", OutcomeKind.REJECTED, "500"),
    (502, b"<h1>Bad Gateway</h1>", OutcomeKind.UNKNOWN, "502: Bad Gateway"),
    (503, b"", OutcomeKind.REJECTED, "503"),
    (504, b"", OutcomeKind.UNKNOWN, "504"),
]


@pytest.mark.parametrize(("status", "body", "kind", "reason"), ANSWERS)
def test_answers(status: int, body: bytes, kind: OutcomeKind, reason: str) -> None:
    """The status decides, the provider's words are kept for operators."""
    found = outcome(status, body)
    assert (found.kind, found.reason, found.status, found.retry_after_s) == (kind, reason, status, None)


@pytest.mark.parametrize(
    ("status", "holds"),
    [(429, True), (503, True), (500, False), (502, False), (409, False), (423, False), (404, False)],
)
def test_some_answers_concern_the_account(status: int, holds: bool) -> None:
    """A 429 or a 503 concerns the whole account, with `Retry-After` or without, another answer the order alone."""
    found = outcome(status, retry_after="30")
    assert (found.retry_after_s, found.throttles_account) == (30.0, holds)
    assert outcome(status).throttles_account is holds
    assert outcome(status, retry_after="nonsense").throttles_account is holds


@given(st.integers(100, 599), st.binary(max_size=50), st.text(max_size=20))
def test_read_response_is_total(status: int, body: bytes, wait: str) -> None:
    """An answer that cannot be read is judged by its status."""
    found = outcome_of(SEQURA, ASKED, HttpResponse(status, {"retry-after": wait}, body))
    assert found.status == status
    assert (found.kind is OutcomeKind.APPLIED) == (200 <= status < 300)
