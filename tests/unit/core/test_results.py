"""What other systems are told of an order: when it is news, what stands in it, what is left out."""

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from schemas import provider_events as p
from schemas.events import OrderEvent
from schemas.facts import Disbursement, Facts, ProviderFacts, pack, seal_facts
from schemas.state import OrderRecord, Parking, Told, decode_order, encode
from tests.shops.events import START_MS, confirmed, event, goods, payment, shipped
from tests.unit.core.test_outbox_plan import TO, record_of
from worker.core.order import Shown
from worker.core.plan import Wait, plan_unconfigured
from worker.core.policy import DeliveryPolicy
from worker.core.results import (
    Found,
    Reporting,
    find,
    find_ready,
    find_waiting,
    is_news,
    pass_over,
    source_of,
    tell,
    tell_fact,
)
from worker.model.provider import Destination
from worker.providers.sequra import Sequra

SUBJECT = "acme/A14/1"
QUIET, OPEN = Reporting("/cartsync/g"), Reporting("/cartsync/g", with_reasons=True)
SHOWN = Shown("EUR", 100, 200)
TIME = "2026-01-01T00:00:00Z"
ORDER = (confirmed(goods("A", 2, 200), goods("B", 1, 100)), shipped("s1", A=1))


def told(record: OrderRecord, found: Found, reporting: Reporting = QUIET, max_bytes: int = 10_000) -> Any:
    """The result, taken apart; `None`: there is none."""
    value = tell(record, SUBJECT, found, reporting, time=TIME, max_bytes=max_bytes)
    return None if value is None else msgspec.json.decode(value)


# --- how an order stands ---------------------------------------------------------------------------------------------


def assessment(record: OrderRecord, after_s: float = 0.0) -> Found:
    """By its facts, so many seconds after its first event."""
    return find(record, SUBJECT, TO, now_ms=START_MS + int(1000 * after_s), rules=DeliveryPolicy())


def test_order_that_is_ready() -> None:
    """Owed, parked or settled, with its amounts; why, as far as something stands in its way."""
    record = record_of(*ORDER)
    assert assessment(record) == Found("owed", SHOWN)
    record.reason = "503"
    assert assessment(record) == Found("owed", SHOWN, reason="503")
    record.park = Parking("unsupported: by hand", b"", record.revision, 1, unsupported=True)
    assert assessment(record) == Found("parked", SHOWN, None, "unsupported: by hand", unsupported=True)
    record.acked = record.revision
    assert assessment(record) == Found("settled", SHOWN)


def test_order_that_is_not_ready() -> None:
    """What it waits for; amounts where there are carts; too long a contradiction parks it."""
    assert assessment(record_of(shipped("s1", A=1))) == Found("unconfirmed", None, reason="no order.confirmed yet")
    held = assessment(record_of(*ORDER, payment("on_hold")))
    assert held == Found("on_hold", SHOWN, reason="the payment is on hold")
    record = record_of(*ORDER, shipped("s2", A=9))
    record.inconsistent_since_ms = START_MS
    assert assessment(record).status == "inconsistent"
    late = assessment(record, 900.0)
    assert (late.status, late.shown) == ("parked", None)
    assert late.reason.endswith("only an event can resolve it, no release")


@pytest.mark.parametrize("is_overdue", [False, True])
def test_order_that_was_looked_at_and_waits(is_overdue: bool) -> None:
    """The same as by its facts, but for the time that its owner has measured."""
    for specs in ([shipped("s1", A=1)], [*ORDER, payment("refused")], [*ORDER, shipped("s2", A=9)]):
        record = record_of(*specs)
        plan = plan_unconfigured(record, SUBJECT)
        assert isinstance(plan, Wait)
        found = find_waiting(record, SUBJECT, plan, TO, is_overdue=is_overdue)
        assert (
            found == assessment(record) if plan.state != "inconsistent" or not is_overdue else found.status == "parked"
        )
    record = record_of(*ORDER)
    assert find_waiting(record, SUBJECT, Wait("no_account", [], shown=SHOWN), None, is_overdue=is_overdue) == Found(
        "owed", SHOWN, reason="account acme is not configured"
    )
    record.park = Parking("409: no", b"", record.revision, 1)
    assert find_waiting(record, SUBJECT, Wait("parked", ["409: no"], shown=SHOWN), TO, is_overdue=is_overdue) == Found(
        "parked", SHOWN, reason="409: no"
    )


class Knowing(Sequra):
    """An adapter that keeps something of the order."""

    def describe(self, remote: bytes) -> dict[str, Any]:
        """As it is kept."""
        return {"pending": [remote.decode()]}


def test_what_an_adapter_knows() -> None:
    """It is shown with whatever is found, and a change of it is news; without an adapter nobody knows."""
    to = Destination(TO.account, Knowing())
    for specs in (ORDER, [*ORDER, shipped("s2", A=9)]):
        record = record_of(*specs)
        assert find(record, SUBJECT, to, now_ms=START_MS, rules=DeliveryPolicy()).known is None
        record.remote = b"1"
        found = find(record, SUBJECT, to, now_ms=START_MS, rules=DeliveryPolicy())
        assert told(record, found)["data"]["provider"] == {"known": {"pending": ["1"]}}
        assert told(record, found) is None
        record.remote = b"2"
        assert told(record, find(record, SUBJECT, to, now_ms=START_MS, rules=DeliveryPolicy())) is not None
        assert find(record, SUBJECT, None, now_ms=START_MS, rules=DeliveryPolicy()).known is None


# --- what is news ----------------------------------------------------------------------------------------------------


def test_told_once() -> None:
    """The first word is news, the same again is none, also once the record was written and read."""
    record = OrderRecord(revision=7, acked=7)
    first = told(record, Found("settled", SHOWN))
    assert (first["id"], first["sequence"]) == (f"{SUBJECT}:7:settled:1", "1")
    assert told(record, Found("settled", SHOWN)) is None
    again = decode_order(encode(record))
    assert again.told == Told("settled", 7, 1)
    assert told(again, Found("settled", SHOWN)) is None


def test_what_is_news() -> None:
    """Another status, and what the provider is known to hold; not more events of an order that stays owed."""
    record = OrderRecord(revision=7)
    owed = Found("owed", SHOWN, reason="503")
    assert told(record, owed)["sequence"] == "1"
    record.revision = 8
    assert told(record, replace(owed, shown=Shown("EUR", 200, 100), reason="504")) is None
    record.acked = 7
    assert told(record, owed)["data"]["acked"] == 7
    assert told(record, Found("parked", SHOWN, reason="422"))["sequence"] == "3"
    assert told(record, owed)["sequence"] == "4"


@pytest.mark.parametrize(("reporting", "is_told"), [(QUIET, False), (OPEN, True)])
def test_other_reason_of_the_same_status(reporting: Reporting, is_told: bool) -> None:
    """It is news where reasons are told."""
    record = OrderRecord(revision=7)
    assert told(record, Found("inconsistent", None, reason="line A: 3 shipped"), reporting) is not None
    assert (told(record, Found("inconsistent", None, reason="line A: 4 shipped"), reporting) is not None) == is_told


def test_what_a_provider_says_is_news() -> None:
    """Whatever the order's status is."""
    record = OrderRecord(revision=7)
    assert told(record, Found("owed", SHOWN)) is not None
    risky = ProviderFacts(said={"risk": ((5_000_000, 6), pack({"level": "high", "provider_order": "67890"}))})
    data = told(record, Found("owed", SHOWN, risky))["data"]
    assert data["provider"] == {"risk": {"at": "1970-01-01T00:00:05Z", "level": "high"}}
    assert "paid_minor" not in data
    assert told(record, Found("owed", SHOWN, risky)) is None
    paid = replace(risky, disbursed={b"12345678": Disbursement("2026-03-09", 1300)}, disbursed_before_minor=50)
    assert told(record, Found("owed", SHOWN, paid))["data"]["paid_minor"] == 1350


def test_revision_that_says_nothing_is_taken_for_told() -> None:
    """Unless the one before it was not told yet."""
    before = OrderRecord(revision=7, acked=7, told=Told("settled", 7, 3))
    after = OrderRecord(revision=8, acked=8, told=before.told)
    pass_over(before, after)
    assert not is_news(after, Found("settled", SHOWN), QUIET)
    for untold in (Told("settled", 6, 3), None):
        before.told = after.told = untold
        pass_over(before, after)
        assert after.told is untold


# --- what stands in it -----------------------------------------------------------------------------------------------


def test_whole_result() -> None:
    """Every attribute; no reason unless reasons are told."""
    record = OrderRecord(revision=7, acked=5, trace="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    found = Found("parked", SHOWN, reason="422: Ada Lovelace", unsupported=True)
    expected = {
        "specversion": "1.0",
        "id": f"{SUBJECT}:7:parked:1",
        "source": "/cartsync/g",
        "type": "cartsync.order_changed",
        "time": TIME,
        "subject": SUBJECT,
        "sequence": "1",
        "traceparent": record.trace,
        "data": {
            "status": "parked",
            "revision": 7,
            "acked": 5,
            "unsupported": True,
            "currency": "EUR",
            "shipped_minor": 100,
            "unshipped_minor": 200,
        },
    }
    assert told(record, found) == expected
    record.told = None
    assert told(record, found, OPEN)["data"] == expected["data"] | {"reason": "422: Ada Lovelace"}  # type: ignore[operator]


def test_order_without_carts() -> None:
    """There are no amounts, and it says so."""
    data = told(OrderRecord(revision=1), Found("unconfirmed", None))["data"]
    assert [data[name] for name in ("currency", "shipped_minor", "unshipped_minor")] == [None] * 3


def test_trace_without_a_bound_is_left_out() -> None:
    """A later version of the standard may have anything behind it."""
    record = OrderRecord(revision=1, trace=f"01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-{'x' * 10_000}")
    assert "traceparent" not in told(record, Found("settled", SHOWN))


def test_reason_is_bounded() -> None:
    """A long one is cut, and where even that does not fit, all of it; then the end says so."""
    record = OrderRecord(revision=1)
    assert told(record, Found("parked", SHOWN, reason="x" * 511), OPEN)["data"]["reason"] == "x" * 509 + "…"
    record.told = None
    assert told(record, Found("parked", SHOWN, reason="x" * 510), OPEN)["data"]["reason"] == "x" * 510
    record.told = None
    assert told(record, Found("parked", SHOWN, reason="x" * 510), OPEN, max_bytes=600)["data"]["reason"] == "…"
    record.told = None
    assert (
        "reason" not in told(record, Found("parked", SHOWN, reason="x"), max_bytes=1)["data"]
    )  # nothing is left to cut


def test_source_is_a_path() -> None:
    """Whatever a group is called."""
    assert source_of("shop/es 1") == "/cartsync/shop%2Fes%201"


# --- what a provider says --------------------------------------------------------------------------------------------


def said(data: p.ProviderData) -> OrderEvent:
    """An event with this data."""
    return replace(event(shipped("s1", A=1), 1), data=data, subject=SUBJECT, time_us=1_000_000, traceparent=None)


def fact(data: p.ProviderData, reporting: Reporting = QUIET, max_bytes: int = 10_000) -> Any:
    """The result, taken apart."""
    value = tell_fact(said(data), 9, reporting, max_bytes=max_bytes)
    return None if value is None else msgspec.json.decode(value)


def test_fact_is_told_as_it_is() -> None:
    """With the revision that it made."""
    assert fact(p.RiskData(provider_order="67890", level="low")) == {
        "specversion": "1.0",
        "id": f"{SUBJECT}:9:provider.risk",
        "source": "/cartsync/g",
        "type": "provider.risk",
        "time": "1970-01-01T00:00:01Z",
        "subject": SUBJECT,
        "data": {"provider_order": "67890", "level": "low"},
    }


FAILED = p.TransactionData(
    transaction_id="1", kind="Capture", status="Error", amount_minor=5, currency="SEK", error="no Ada"
)
BOOKED = p.ShippingData(provider="Ingrid", success=False, error="no Ada", payload=msgspec.Raw(b'{"name":"Ada"}'))
CARD = p.CardSavedData(id="c-1", brand="Visa", last4="4242")
STRANGE = p.UnmappedData(kind="order-status", word="Ada")


@pytest.mark.parametrize("data", [FAILED, BOOKED, STRANGE])
def test_words_of_a_provider_are_left_out(data: p.ProviderData) -> None:
    """Unless reasons are told; what was never kept is not told at all."""
    assert "Ada" not in str(fact(data))
    whole = fact(data, OPEN)["data"]
    assert "Ada" in str(whole)
    assert "payload" not in whole
    assert "Ada" not in str(fact(data, OPEN, max_bytes=200))


def test_saved_card_is_personal() -> None:
    """It is told where reasons are."""
    assert fact(CARD) is None
    assert fact(CARD, OPEN)["data"]["last4"] == "4242"
    assert fact(CARD, OPEN, max_bytes=1) is not None  # there is nothing to leave out


def test_events_of_the_shop_are_no_facts_of_a_provider() -> None:
    """They are not repeated."""
    assert tell_fact(event(shipped("s1", A=1), 1), 9, QUIET, max_bytes=10_000) is None


def test_view_of_the_provider_without_words() -> None:
    """The same holds for what the order's own result says of it."""
    facts = ProviderFacts(
        said={
            name: ((1, 2), pack(data))
            for name, data in {
                "transaction": FAILED,
                "shipping": replace(BOOKED, payload=msgspec.UNSET),
                "card_saved": CARD,
                "unmapped": STRANGE,
            }.items()
        }
    )
    record = OrderRecord(revision=1, sealed=seal_facts(Facts(provider=facts)))
    quiet = told(record, Found("settled", SHOWN, facts))["data"]["provider"]
    assert set(quiet) == {"transaction", "shipping", "unmapped"}
    assert "Ada" not in str(quiet)
    assert quiet["unmapped"] == {"at": "1970-01-01T00:00:00.000001Z", "kind": "order-status"}
    record.told = None
    whole = told(record, Found("settled", SHOWN, facts), OPEN)["data"]["provider"]
    assert set(whole) == {"transaction", "shipping", "card_saved", "unmapped"}
    assert str(whole).count("Ada") == 3


def test_ready_without_carts_has_no_provider() -> None:
    """An attempt of which nobody noted what it shows."""
    assert find_ready(OrderRecord(revision=1, acked=1), None, TO) == Found("settled", None)
