"""What seQura has paid out: the list, the details, and the events of their lines."""

from datetime import date
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from schemas.base import AMOUNT_MAX_MINOR
from schemas.provider_events import DisbursedData
from tests.shops.events import START_MS
from tests.unit.providers.sequra.test_report import ACCOUNT
from worker.core.intake import decode
from worker.core.trust import HEADER, Trust
from worker.model.callbacks import Called
from worker.model.exchange import HttpResponse, OutcomeKind
from worker.providers.callbacks import cloud_event
from worker.providers.sequra import disbursements as d

PATH = "/merchants/m%201/disbursements/4b7b2d5e-0000-4000-8000-000000000001"
LISTED = {
    "disbursement": {
        "issue_date": "2026-02-27",
        "to_date": "2026-02-10",
        "currency": "EUR",
        "disbursed_amount": 1300,
        "adjustments_with_tax": 0,
        "reference": "0000000000007",
        "path": PATH,
    }
}
ONE = d.Disbursement(date(2026, 2, 27), PATH, "0000000000007", "2026-02-10", "EUR")
LINE = {"order_ref_1": "A14/12345", "amount_with_tax": 1300, "maximum_amount_with_tax": 1800}


def answer(body: Any, status: int = 200) -> HttpResponse:
    """An answer with this JSON, or these bytes."""
    return HttpResponse(status, {}, body if isinstance(body, bytes) else msgspec.json.encode(body))


def lines_of(body: Any) -> list[d.Line]:
    """What is understood of a detail."""
    found = d.read_detail(answer(body), START_MS)
    assert found.outcome.kind is OutcomeKind.APPLIED, found.outcome
    return found.lines


def test_requests() -> None:
    """Below the account's address, with its credentials."""
    account = replace(ACCOUNT, base_url="https://live.example/api/", merchant_id="m 1")
    listed = d.list_request(account)
    assert (listed.method, listed.url) == ("GET", "https://live.example/api/merchants/m%201/disbursements")
    detail = d.detail_request(account, ONE)
    assert (detail.method, detail.url) == ("GET", f"https://live.example/api{PATH}")
    assert detail.headers["Authorization"] == listed.headers["Authorization"] != ""


def test_list() -> None:
    """What is needed of each; a reference may be a number, or missing."""
    found = d.read_list(answer([LISTED]), START_MS)
    assert (found.outcome.kind, found.disbursements) == (OutcomeKind.APPLIED, [ONE])
    bare = {"disbursement": {"issue_date": "2026-02-27", "path": PATH}}
    assert d.read_list(answer([bare]), START_MS).disbursements == [d.Disbursement(date(2026, 2, 27), PATH)]
    assert d.read_list(answer([]), START_MS).disbursements == []


@pytest.mark.parametrize(
    "body",
    [
        msgspec.json.encode([LISTED])[:-9],
        b"<html>",
        b"\xff",
        b"[" * 5000,
        [{"disbursement": {"path": PATH}}],
        [{"disbursement": {"issue_date": "27/02/2026", "path": PATH}}],
        {"disbursements": []},
        *([{"disbursement": {"issue_date": "2026-02-27", "path": path}}] for path in ("", "x/y", "//evil.example/x", "@evil.example", "/a/../../b", "/a?b", "/a#b", "/a b", "/a\\b", "https://evil.example/")),
    ],
)  # fmt: skip
def test_list_that_cannot_be_understood(body: Any) -> None:
    """It changes nothing, leads nowhere else, and is fetched again."""
    found = d.read_list(answer(body), START_MS)
    assert (found.outcome.kind, found.disbursements) == (OutcomeKind.REJECTED, [])
    assert "cannot be understood" in found.outcome.reason


@pytest.mark.parametrize("read", [d.read_list, d.read_detail])
def test_status_first(read: Any) -> None:
    """A refusal is one, whatever stands in it."""
    assert read(answer([LISTED], 401), START_MS).outcome.kind is OutcomeKind.CREDENTIALS
    assert read(answer([LISTED], 502), START_MS).outcome.kind is OutcomeKind.UNKNOWN


@pytest.mark.parametrize(
    "wrapped",
    [
        [LINE],
        {"lines": [LINE]},
        {"disbursement": {"issue_date": "2026-02-27", "adjustments": [], "lines": [LINE]}},
        {"disbursement": {"adjustments": [{"amount_with_tax": 7}], "orders": [LINE]}},
        [{"disbursement": {"details": {"orders": [LINE]}}}],
    ],
)
def test_detail_however_it_is_wrapped(wrapped: Any) -> None:
    """Nothing is documented: the lines are the list of which a member names an order."""
    assert lines_of(wrapped) == [d.Line("A14/12345", 1300, 1800)]


def test_detail_without_lines() -> None:
    """Nothing was paid for an order."""
    assert lines_of({"disbursement": {"lines": [], "adjustments": [{"amount_with_tax": 7}]}}) == []


@pytest.mark.parametrize(
    "body",
    [
        msgspec.json.encode({"lines": [LINE]})[:-3],
        b"\xff",
        {"disbursement": {"adjustments": []}},
        [],
        7,
        {"lines": [LINE, {"amount_with_tax": 5}]},
        {"lines": [LINE | {"amount_with_tax": 13.5}]},
        {"lines": [LINE | {"amount_with_tax": "1300"}]},
        {"lines": [LINE | {"amount_with_tax": True}]},
        {"lines": [LINE | {"amount_with_tax": AMOUNT_MAX_MINOR + 1}]},
        {"lines": [LINE | {"maximum_amount_with_tax": -1}]},
        {"a": {"b": {"c": {"d": {"e": {"f": {"g": [LINE]}}}}}}},
    ],
)
def test_detail_that_cannot_be_understood(body: Any) -> None:
    """All or nothing: half a disbursement is never booked."""
    found = d.read_detail(answer(body), START_MS)
    assert (found.outcome.kind, found.lines) == (OutcomeKind.REJECTED, [])


# --- what is written -----------------------------------------------------------------------------------------------


def events(lines: list[Any], found: d.Disbursement = ONE, account: str = "acme") -> dict[str, DisbursedData]:
    """The events as the worker gets them, by subject and id."""
    trust = Trust(("k" * 32,))
    called = Called(account=account, purpose=d.PURPOSE, reference="", media_type="", body=b"", arrived_ms=START_MS)
    made = {}
    for said in d.said_of(found, lines_of({"lines": lines})):
        subject, value = cloud_event(called, said)
        headers = {HEADER: trust.sign(subject.encode(), value)}
        event = decode(subject.encode(), value, headers, START_MS, trust=trust)
        assert event is not None
        assert isinstance(event.data, DisbursedData)
        made[f"{event.subject} {event.id}"] = event.data
    return made


def test_event() -> None:
    """Amounts to the cent, the day of issue, the reference of the transfer."""
    [(name, data)] = events([LINE]).items()
    assert name.startswith("acme/A14/12345 ")
    assert data == DisbursedData(
        disbursement=PATH, amount_minor=1300, maximum_minor=1800, issued_on=date(2026, 2, 27), reference="0000000000007"
    )
    [bare] = events([{"order_ref_1": 7, "amount_with_tax": -1000}], replace(ONE, reference=None)).values()
    assert bare == DisbursedData(disbursement=PATH, amount_minor=-1000, issued_on=date(2026, 2, 27))


def test_the_same_again_is_the_same() -> None:
    """Whatever order the lines come in; an order may stand twice in one, and in several."""
    twice = [
        LINE,
        LINE | {"shipment_ref": "p1"},
        LINE | {"amount_with_tax": -300},
        {"order_ref_1": "B", "amount_with_tax": 1},
    ]
    first, again = events(twice), events(twice[::-1])
    assert first == again
    assert len(first) == 4
    assert not first.keys() & events(twice, replace(ONE, path=PATH[:-1] + "2")).keys()
    assert sum(data.amount_minor for name, data in first.items() if "A14" in name) == 2300


def test_time_is_the_day_of_issue() -> None:
    """Unless that is ahead of us."""
    [said] = d.said_of(ONE, [d.Line("A", 1)])
    assert (said.type, said.time, said.reference) == ("disbursed", "2026-02-27", "A")


@pytest.mark.parametrize("reference", ["", "x" * 201])
def test_line_that_no_event_can_name(reference: str) -> None:
    """It is no order of ours."""
    assert d.said_of(ONE, [d.Line(reference, 1)]) == []


# --- which were read -----------------------------------------------------------------------------------------------


def test_each_is_read_once() -> None:
    """Oldest first; what is not listed any more is forgotten, as is a second mention."""
    two = d.Disbursement(date(2026, 2, 20), PATH + "2")
    listed = [ONE, two, ONE]
    assert d.unread(d.Seen(), listed) == [two, ONE]
    seen = d.after_reading(d.Seen(), listed, two)
    assert d.unread(seen, listed) == [ONE]
    seen = d.read_seen(d.kept_seen(d.after_reading(seen, listed, ONE)))
    assert (d.unread(seen, listed), len(seen.paths)) == ([], 2)
    assert len(d.after_reading(seen, [ONE], ONE).paths) == 1
    assert d.read_seen(b"") == d.Seen()
