"""Calls to AtaraPay: where they go, what they carry, and how their answers are read."""

from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.shops.events import cancelled, details, order
from tests.unit.providers.atarapay.reported import (
    ACCOUNT,
    ALL_DELIVERED,
    ATARAPAY,
    NOW_MS,
    PHONE,
    PRIVATE,
    PUBLIC,
    answer,
    asked,
    call_of,
    confirmation,
    step_of,
)
from worker.model.exchange import Exchange, HttpResponse, OutcomeKind, Settled
from worker.model.provider import Answered, Provider, Question
from worker.providers.atarapay import AtaraPay
from worker.providers.atarapay import known as memory
from worker.providers.atarapay.known import Known
from worker.providers.atarapay.wire import Seen, State
from worker.providers.registry import PROVIDERS

CANCELLED = (confirmation(), cancelled())


def test_adapter_is_what_it_says() -> None:
    """Its name stands in configuration and `origin`; it reads before it believes."""
    adapter: Provider[Any] = ATARAPAY
    assert (adapter.name, adapter.guarantee, adapter.can_read) == ("atarapay", "B", True)
    assert isinstance(PROVIDERS["atarapay"], AtaraPay)
    assert (ACCOUNT.merchant, PUBLIC in repr(ACCOUNT)) == ("ea7384bb9828", False)


FORMS = {
    "C46": ({"order": "3021", "status": "delivered", "phone_number": PHONE}, ALL_DELIVERED),
    "C46-email": (
        {"order": "3021", "status": "delivered", "phone_number": PHONE, "email": "z@example.com"},
        (*ALL_DELIVERED, details(customer={"email": "z@example.com"})),
    ),
    "C48-seller": ({"order": "3021", "status": "cancelled", "comment": "No comment"}, CANCELLED),
    "C48-buyer": (
        {"order": "3021", "status": "buyer_cancel", "comment": "No comment"},
        (confirmation(), cancelled(by="shopper", reason="Mr Obi was rude")),
    ),
}


@pytest.mark.parametrize(("form", "specs"), FORMS.values(), ids=FORMS)
def test_form(form: dict[str, str], specs: Any) -> None:
    """One call with one word; neither the shop's sentence nor anything else goes along."""
    step = step_of(*specs)
    assert call_of(step) == form
    assert isinstance(step, Exchange)
    assert not step.is_read


def test_form_as_bytes() -> None:
    """As the documentation has it, percent-encoded; the keys stand in the form alone."""
    step = step_of(*ALL_DELIVERED, trace="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x\r\nA: b")
    assert isinstance(step, Exchange)
    request = step.request
    assert request.body == (
        b"authtoken=YjhrUDdBMWU2N3MwamMzaDk4VDhwSDcxZHE2NkowczM6UEtwNnozalRjTGVRTmMxaDN1OWUwZmZYNzdOWTkxYWRFMTI%3D"
        b"&order=3021&status=delivered&phone_number=%2B2348012345678"
    )
    assert (request.method, request.account) == ("POST", "escrow")
    assert request.headers == {
        "Accept": "application/json",
        "Content-Type": "application/x-www-form-urlencoded",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }


def test_confirmed_or_shipped_alone() -> None:
    """C46: nothing is told before everything is delivered."""
    assert isinstance(step_of(confirmation()), Settled)
    assert isinstance(step_of(*ALL_DELIVERED[:2]), Settled)


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("https://x.example/api", "https://x.example/api/callback/order"),
        ("https://x.example/api/api/", "https://x.example/api/api/callback/order"),
        ("https://x.example", "https://x.example/callback/order"),
    ],
    ids=["C55-api", "C55-api-api", "C55-bare"],
)
def test_base_url(base: str, url: str) -> None:
    """Used as it is given."""
    found = replace(asked(order(*ALL_DELIVERED)), account=replace(ACCOUNT, base_url=base))
    step = ATARAPAY.next_step(found)
    assert isinstance(step, Exchange)
    assert step.request.url == url


# --- answers to words --------------------------------------------------------------------------------------------

TOLD = asked(order(*ALL_DELIVERED))


def told(response: HttpResponse, question: Question = TOLD) -> Answered:
    """What became of the word."""
    step = ATARAPAY.next_step(question)
    assert isinstance(step, Exchange)
    return ATARAPAY.read_response(question, step, response)


def known_after(response: HttpResponse) -> Known:
    """What is kept of it."""
    remote = told(response).outcome.remote
    assert remote is not None
    return memory.decode(remote)


DONE = {"status": "success", "message": "pod_created", "data": {"phone": PHONE, "order": "3021"}}
DONE_BEFORE = "Invalid request to Process, Order has been already Processed"
PAGE = b"<html><title>x</title><body><h1>Something   went wrong</h1></body></html>"
K = OutcomeKind
ANSWERS: dict[str, tuple[OutcomeKind, str, HttpResponse]] = {
    "done": (K.APPLIED, "", answer(DONE)),
    "done, whatever HTTP says": (K.APPLIED, "", answer(DONE, 400)),
    "done, in capitals": (K.APPLIED, "", answer({"status": " Success "})),
    "C47": (K.CONFLICT, f"200: {DONE_BEFORE}", answer({"status": "error", "message": DONE_BEFORE})),
    "C47-cancel": (
        K.CONFLICT,
        "422: Invalid action. This request has  ALREADY been processed".replace("  ", " "),
        answer({"status": "error", "message": "Invalid action. This request has  ALREADY been processed"}, 422),
    ),
    "C48": (
        K.PERMANENT,
        "200: The refund window has passed.",
        answer({"status": "error", "message": "The refund window\n has passed."}),
    ),
    "unknown order": (
        K.PERMANENT,
        "404: No such order exists for the seller.",
        answer({"status": "error", "message": "No such order exists for the seller."}, 404),
    ),
    "invalid status": (
        K.PERMANENT,
        "200: Invalid status sent.",
        answer({"status": "error", "message": "Invalid status sent."}),
    ),
    "an error of its own": (
        K.PERMANENT,
        "500: No such order exists for the seller.",
        answer({"status": "error", "message": "No such order exists for the seller."}, 500),
    ),
    "no message": (K.PERMANENT, "200: an error without a message", answer({"status": "error", "message": 7})),
    "wrong keys": (
        K.CREDENTIALS,
        "200: Invalid authtoken. Does not match any record.",
        answer({"status": "error", "message": "Invalid authtoken. Does not match any record."}),
    ),
    "overloaded, in its words": (K.UNKNOWN, "503", answer({"status": "error", "message": "Down"}, 503)),
    "overloaded, but clear": (
        K.CONFLICT,
        f"503: {DONE_BEFORE}",
        answer({"status": "error", "message": DONE_BEFORE}, 503),
    ),
    "too many": (K.REJECTED, "429", answer({"message": "Too Many Attempts."}, 429)),
    "too many, in its words": (K.REJECTED, "429", answer({"status": "error", "message": "Too many"}, 429)),
    "500": (K.UNKNOWN, "500: Something went wrong", answer(PAGE, 500)),
    "502": (K.UNKNOWN, "502: Something went wrong", answer(PAGE, 502)),
    "a page": (K.UNKNOWN, "200: Something went wrong", answer(PAGE)),
    "a page with 400": (K.UNKNOWN, "400: Something went wrong", answer(PAGE, 400)),
    "cut": (K.UNKNOWN, '200: {"status":"suc', answer(b'{"status":"suc')),
    "nothing": (K.UNKNOWN, "200", answer(b"")),
    "no status": (K.UNKNOWN, "200", answer({"message": "x"})),
    "another status": (K.UNKNOWN, "200", answer({"status": 1})),
    "a list": (K.UNKNOWN, "200: success", answer(["success"])),
    "no UTF-8": (K.UNKNOWN, "200: \ufffd", answer(b"\xff")),
    "too deep": (K.UNKNOWN, "200: " + "[" * 500 + " …", answer(b"[" * 100_000)),
    "401": (K.CREDENTIALS, "401", answer(b"", 401)),
    "403": (K.FORBIDDEN, "403", answer(b"", 403)),
    "404": (K.NOT_FOUND, "404: Something went wrong", answer(PAGE, 404)),
    "C55-redirect": (
        K.PERMANENT,
        "307: a redirect, which is not followed; check base_url",
        answer(b"", 307, location="https://elsewhere.example"),
    ),
    "C55-redirect with a word": (
        K.PERMANENT,
        "301: a redirect, which is not followed; check base_url",
        answer(DONE, 301),
    ),
}


@pytest.mark.parametrize(("kind", "reason", "response"), ANSWERS.values(), ids=ANSWERS)
def test_answer(kind: OutcomeKind, reason: str, response: HttpResponse) -> None:
    """The body's `status` decides, not HTTP; what cannot be understood leaves the word in doubt."""
    outcome = told(response).outcome
    assert (outcome.kind, outcome.reason, outcome.status) == (kind, reason, response.status)
    known = memory.decode(outcome.remote or b"")
    assert known.word == "delivered"
    assert known.is_open is (kind in (K.UNKNOWN, K.CONFLICT))
    assert known.accepted == ("delivered" if kind is K.APPLIED else "")


def test_texts_are_configuration() -> None:
    """Whatever AtaraPay will say instead one day."""
    account = replace(ACCOUNT, already_processed=("done  BEFORE",), token_refused=("who are you",))
    question = replace(TOLD, account=account)
    assert told(answer({"status": "error", "message": "Done before!"}), question).outcome.kind is K.CONFLICT
    assert told(answer({"status": "error", "message": "Who are you?"}), question).outcome.kind is K.CREDENTIALS
    assert told(answer({"status": "error", "message": DONE_BEFORE}), question).outcome.kind is K.PERMANENT


def test_retry_after() -> None:
    """What asks for a pause holds the account; the others do not."""
    outcome = told(answer(b"", 503, retry_after="7")).outcome
    assert (outcome.retry_after_s, outcome.throttles_account) == (7.0, True)
    assert told(answer(b"", 429)).outcome.throttles_account
    assert not told(answer(b"", 500)).outcome.throttles_account


def test_long_message() -> None:
    """Cut, so that an order's record stays small."""
    outcome = told(answer({"status": "error", "message": "x " * 1000})).outcome
    assert outcome.reason.endswith(" …")
    assert len(outcome.reason) < 515


@pytest.mark.parametrize("where", ["message", "page", "title", "errors"])
@pytest.mark.parametrize("ahead", [0, 470])
def test_no_key_in_a_reason(where: str, ahead: int) -> None:
    """C54: neither as they are nor in a token, nor half of one where a text was cut."""
    token = parse_qsl(call_body())[0][1]
    echo = f"{'x' * ahead} {token} {PUBLIC}:{PRIVATE} {token}"
    body: Any = {
        "message": {"status": "error", "message": echo},
        "page": f"<p>{echo}</p>".encode(),
        "title": {"status": "success", "data": {"status": {"title": echo}}},
        "errors": {"errors": [echo]},
    }[where]
    question = asked(order(*ALL_DELIVERED), may_land_late=True)
    step = ATARAPAY.next_step(question)
    assert isinstance(step, Exchange)
    assert step.is_read
    found = ATARAPAY.read_response(question, step, answer(body))
    shown = repr(found) + repr(step.request)
    if isinstance(found.seen, Seen):
        shown += repr(ATARAPAY.next_step(replace(question, seen=found.seen)))
    for secret in (PUBLIC, PRIVATE, token, PUBLIC[:8], token[:12]):
        assert secret not in shown


def call_body() -> str:
    """Of any call."""
    step = ATARAPAY.next_step(TOLD)
    assert isinstance(step, Exchange)
    return step.request.body.decode()


# --- answers to Order Status -------------------------------------------------------------------------------------


def read(body: Any, status: int = 200) -> Answered:
    """What Order Status was understood to say."""
    question = asked(order(*ALL_DELIVERED), may_land_late=True)
    step = ATARAPAY.next_step(question)
    assert call_of(step) == {"order": "3021", "status": "order"}
    assert isinstance(step, Exchange)
    assert step.is_read
    return ATARAPAY.read_response(question, step, answer(body, status))


def status_of(title: Any, number: Any = 1, **members: Any) -> dict[str, Any]:
    """An answer of Order Status."""
    return {
        "status": "success",
        "message": "Order Fetched",
        "data": {"status": {"id": number, "title": title}} | members,
    }


STATES: dict[str, tuple[Any, Any, State | None, str]] = {
    "pending": ("Pending", 1, State.PENDING, "Pending"),
    "awaiting": ("awaiting  buyer RESPONSE", 1, State.AWAITING, "Awaiting Buyer Response"),
    "accepted": ("Accepted", 1, State.ACCEPTED, "Accepted"),
    "completed": ("Completed", 5, State.COMPLETED, "Completed"),
    "complete": ("Complete", 5, State.COMPLETED, "Completed"),
    "rejected": ("Rejected", 3, State.REJECTED, "Rejected"),
    "second": ("Pending II", 1, State.SECOND, "Pending II"),
    "dispute": ("Dispute", 1, State.DISPUTE, "Dispute"),
    "disputed": ("Disputed", 1, State.DISPUTED, "Disputed"),
    "resolved": ("Dispute Resolved", 1, State.RESOLVED, "Dispute Resolved"),
    "refunded": ("Refunded", 1, State.REFUNDED, "Refunded"),
    "canceled": ("Canceled", 9, State.CANCELLED, "Cancelled"),
    "cancelled": ("CANCELLED", 9, State.CANCELLED, "Cancelled"),
    "the title decides": ("Pending", 9, State.PENDING, "Pending"),
    "no title": (None, 9, State.CANCELLED, "Cancelled"),
    "no title, text": ("", "3", State.REJECTED, "Rejected"),
    "unknown": ("Frozen", 3, None, "Frozen"),
    "long": ("F" * 100, 3, None, "F" * 60),
}


@pytest.mark.parametrize(("title", "number", "state", "shown"), STATES.values(), ids=STATES)
def test_state(title: Any, number: Any, state: State | None, shown: str) -> None:
    """Matched loosely; by its id only when it has no title."""
    found = read(status_of(title, number))
    assert found.outcome.kind is K.APPLIED
    assert found.seen == Seen(state, shown, "")


@pytest.mark.parametrize(("given_as", "text"), [(7, "7"), ("7", "7"), (None, ""), ([], "")])
def test_product_id(given_as: Any, text: str) -> None:
    """As a number or a text."""
    assert read(status_of("Pending", product_id=given_as)).seen.product_id == text


@pytest.mark.parametrize("data", [None, [], {}, {"status": 1}, {"status": {}}, {"status": {"title": 5, "id": 1}}])
def test_no_state(data: Any) -> None:
    """Not understood: to be asked again."""
    found = read({"status": "success", "data": data})
    assert (found.outcome.kind, found.outcome.reason) == (K.UNKNOWN, "the response to Order Status has no state")
    assert found.seen is None


def test_read_that_is_refused() -> None:
    """What is kept stays as it is."""
    found = read({"status": "error", "message": "No such order exists for the seller."}, 422)
    assert (found.outcome.kind, found.outcome.remote, found.seen) == (K.PERMANENT, None, None)


@given(st.binary(max_size=60), st.integers(100, 599), st.booleans())
def test_total(body: bytes, status: int, may_land_late: bool) -> None:
    """Whatever is answered, it is judged."""
    question = asked(order(*ALL_DELIVERED), may_land_late=may_land_late)
    step = ATARAPAY.next_step(question)
    assert isinstance(step, Exchange)
    found = ATARAPAY.read_response(question, step, answer(body, status))
    assert found.outcome.kind in OutcomeKind
    assert question.now_ms == NOW_MS
