"""seQura's webhooks and IPN."""

from typing import Any
from urllib.parse import urlencode

import pytest

from tests.unit.providers.taken import taken
from worker.errors import ConfigError
from worker.model.callbacks import Answered, Ask, Called, InBody, Push, Reply, Unauthorized, Unreadable
from worker.providers.sequra.callbacks import SequraCallbacks

SEQURA = SequraCallbacks()
UUID = "7d3ea9a3-8f8e-4f0b-9f3f-2c1a7f1c9e10"
FORM = {"charset": "UTF-8", "utf8": "\N{SQUARE ROOT}", "order_ref": UUID, "order_ref_1": "A14/12345", "order_ref_2": ""}


def called(form: dict[str, str] | bytes, purpose: str = "webhook", reference: str = "A14/12345") -> Called:
    """A call about order A14/12345."""
    return Called(
        account="acme",
        purpose=purpose,
        reference=reference,
        media_type="application/x-www-form-urlencoded; charset=UTF-8",
        body=form if isinstance(form, bytes) else urlencode(form).encode(),
        arrived_ms=1_767_225_600_123,
    )


def event(form: dict[str, str], purpose: str = "webhook") -> dict[str, Any]:
    """The one event of a call."""
    call = called(form, purpose)
    reading = SEQURA.read(call)
    assert isinstance(reading, Push)
    assert reading.reply == Reply(200, b"{}")
    (said,) = reading.said
    return taken(call, said)


@pytest.mark.parametrize(
    ("form", "kind", "data"),
    [
        ({"event": "approved"}, "payment_state", {"state": "approved"}),
        ({"event": "needs_review"}, "payment_state", {"state": "on_hold"}),
        ({"event": "cancelled"}, "cancelled", {"by": "provider"}),
        ({"event": "risk_assessment", "risk_level": "high_risk"}, "risk", {"level": "high_risk"}),
        (
            {"event": "risk_assessment", "risk_level": "purple"},
            "unmapped",
            {"kind": "risk_assessment", "word": "purple"},
        ),
        ({"event": "risk_assessment"}, "unmapped", {"kind": "risk_assessment", "word": ""}),
        ({}, "unmapped", {"kind": "webhook", "word": ""}),
    ],
)
def test_webhooks(form: dict[str, str], kind: str, data: dict[str, Any]) -> None:
    """Each becomes one event, the time that of its arrival."""
    found = event(FORM | form)
    assert found["type"] == f"provider.{kind}"
    assert found["data"] == {"provider_order": UUID, **data}
    assert found["source"] == "/cartsync/acme/webhook"
    assert found["subject"] == "acme/A14/12345"
    assert found["time"] == "2026-01-01T00:00:00.123000Z"


@pytest.mark.parametrize(
    ("state", "kind", "data"),
    [
        ("approved", "payment_state", {"state": "approved"}),
        ("needs_review", "payment_state", {"state": "on_hold"}),
        ("test", "unmapped", {"kind": "ipn", "word": "test"}),
        ("", "unmapped", {"kind": "ipn", "word": ""}),
    ],
)
def test_ipn(state: str, kind: str, data: dict[str, Any]) -> None:
    """F11: `sq_state`, of an order that the form need not name."""
    form = {"order_ref": UUID, "product_code": "pp3", "sq_state": state, f"{state}_since": "7"}
    found = event(form, "ipn")
    assert found["type"] == f"provider.{kind}"
    assert found["data"] == {"provider_order": UUID, **data}
    assert found["source"] == "/cartsync/acme/ipn"


def test_repeats() -> None:
    """G4: the same again is the same event; another risk is not."""
    low, high = FORM | {"event": "risk_assessment", "risk_level": "low_risk"}, {"risk_level": "high_risk"}
    assert event(low)["id"] == event(low | {"m_shop": "1"})["id"]
    assert event(low)["id"] != event(low | high)["id"]
    assert event(FORM | {"event": "approved"})["id"] != event(FORM | {"event": "needs_review"})["id"]


def test_order_without_a_uuid() -> None:
    """What is not given is not told."""
    assert event({"event": "cancelled", "order_ref_1": "A14/12345"})["data"] == {"by": "provider"}


@pytest.mark.parametrize("purpose", ["webhook", "ipn"])
def test_another_order_in_the_body(purpose: str) -> None:
    """The address is that of one order."""
    form = FORM | {"event": "cancelled", "sq_state": "approved", "order_ref_1": "A14/12346"}
    assert SEQURA.read(called(form, purpose)) == Unauthorized()


def test_order_that_the_body_does_not_name() -> None:
    """F12: it is about the order of the address."""
    assert event({"event": "cancelled", "order_ref_1": ""})["subject"] == "acme/A14/12345"


def test_unknown_event() -> None:
    """It is answered 501, which ends its calls, and nothing is written."""
    reading = SEQURA.read(called(FORM | {"event": "foo"}))
    assert reading == Push((), Reply(501, b'{"error":"Unknown event \'foo\'"}'))
    long = SEQURA.read(called(FORM | {"event": "x" * 5000}))
    assert isinstance(long, Push)
    assert len(long.reply.body) < 200


def test_cancel_is_a_question() -> None:
    """G5: the shop decides, and that it was asked is written."""
    call = called(FORM | {"event": "cancel"})
    reading = SEQURA.read(call)
    assert isinstance(reading, Ask)
    assert (reading.name, reading.question) == ("cancel", {"provider_order": UUID})
    (said,) = reading.said
    found = taken(call, said)
    assert (found["type"], found["data"]) == ("provider.cancel_asked", {"provider_order": UUID})


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        (b'{"cancelled":true}', b'{"result":"cancelled"}'),
        (b'{"too_late_minutes":125}', b'{"result":"toolate","since":125}'),
        (b'{"cancelled":false,"too_late_minutes":0}', b'{"result":"toolate","since":0}'),
        (b'{"cancelled":true,"too_late_minutes":1}', None),
        (b'{"cancelled":false}', None),
        (b'{"too_late_minutes":-1}', None),
        (b'{"too_late_minutes":99999999999}', None),
        (b'{"too_late_minutes":"1"}', None),
        (b"[]", None),
        (b"", None),
    ],
)
def test_answers_to_cancel(answer: bytes, reply: bytes | None) -> None:
    """G5: what the shop says, or nothing that can be used."""
    assert SEQURA.answer("cancel", answer) == Answered(None if reply is None else Reply(200, reply))


def test_default_of_cancel() -> None:
    """It is unsupported, and waits for Kafka: seQura does not ask again."""
    found = SEQURA.default("cancel", "unsupported", lambda _: b"")
    assert found == Answered(Reply(501, b'{"error":"Unknown event \'cancel\'"}'), waits_for_kafka=True)
    with pytest.raises(ConfigError, match="unsupported"):
        SEQURA.default("cancel", "accept", lambda _: b"")


def test_token_in_the_body() -> None:
    """It is about the order that it names."""
    form = FORM | {"event": "cancelled", "m_token": "t"}
    assert SEQURA.token_in_body(called(form, reference="")) == InBody("t", "A14/12345")
    assert SEQURA.token_in_body(called(FORM, reference="")) is None
    assert SEQURA.token_in_body(called({"m_token": "t"}, reference="")) is None
    assert SEQURA.token_in_body(called(b"\xff", reference="")) == Unreadable()


@pytest.mark.parametrize("purpose", ["webhook", "ipn"])
def test_what_is_no_form(purpose: str) -> None:
    """Nothing is made of it."""
    assert SEQURA.read(called(b'{"event":"cancelled"}', purpose)) == Unreadable()
