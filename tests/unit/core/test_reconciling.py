"""Which orders can be compared, and what a comparison is told as."""

from typing import Any

import pytest
from msgspec.structs import replace

from schemas.facts import seal_facts
from schemas.reconciliation import ProviderSide, ShopSide
from schemas.state import OrderRecord, Parking
from tests.shops.events import (
    START_MS,
    SUBJECT,
    EventSpec,
    cancelled,
    cart_updated,
    confirmed,
    details,
    facts_of,
    goods,
    observed,
    payment,
    returned,
    said,
    shipped,
    stated,
)
from tests.unit.providers.sequra.test_report import ACCOUNT
from worker.core.policy import DeliveryPolicy
from worker.core.reconciling import (
    KEEPS_CHANGING,
    Met,
    conclude,
    foreign_line,
    meet,
    unknown_there,
    unread,
)
from worker.model.exchange import Outcome, OutcomeKind
from worker.model.provider import Destination
from worker.model.reconcile import Finding
from worker.providers.sequra import Sequra

UPDATING = replace(ACCOUNT, delivery="update")
ADDRESSEE = Destination(UPDATING, Sequra())
N1 = confirmed(goods("A", 2, 200))
AGREES = Finding(category="agrees", verdict="agrees", held=ProviderSide(paid_minor=200))
DIFFERS = Finding(
    category="differs",
    verdict="paid_less",
    text="seQura has paid less.",
    action="Ask.",
    difference_minor=-1,
    owed_to="shop",
)


def met(*specs: EventSpec, destination: Destination | None = ADDRESSEE, **members: Any) -> Met:
    """An order that was told so; settled, unless `members` of its record say otherwise."""
    record = OrderRecord(revision=9, sealed=seal_facts(facts_of(*specs)), **{"acked": 9} | members)
    return meet(SUBJECT, record, destination, partition=3, now_ms=START_MS + 10**7, rules=DeliveryPolicy())


PARK = Parking("422: no", b"d", 9, START_MS)


@pytest.mark.parametrize(
    ("specs", "members", "category", "verdict", "text"),
    [
        ([N1], {"destination": None}, "not_compared", "no_account", "account acme is not configured: nobody"),
        ([observed()], {}, "not_compared", "observed_only", "Observed for statistics alone"),
        (
            [said("disbursed", disbursement="/d/1", amount_minor=5, issued_on="2026-03-20")],
            {},
            *("not_compared", "unknown_here", "no order.confirmed has come"),
        ),
        ([shipped("s1", A=1)], {"acked": 0}, "not_final", "unconfirmed", "no order.confirmed yet."),
        ([N1, payment("on_hold")], {}, "not_final", "on_hold", "the payment is on hold."),
        ([N1, payment("refused")], {}, "not_final", "refused", "the payment was refused."),
        ([N1, shipped("s1", A=9)], {"acked": 0}, "not_final", "inconsistent", "A"),
        ([N1], {"acked": 0}, "not_final", "owed", "An update is on its way to the provider, or waits for its turn."),
        ([N1], {"acked": 0, "reason": "503: busy"}, "not_final", "owed", "waits for its turn: 503: busy."),
    ],
    ids=[
        *("no account", "observed", "only heard of", "unconfirmed", "on hold", "refused", "inconsistent", "owed"),
        "owed, with a reason",
    ],
)
def test_not_compared(specs: list[EventSpec], members: dict[str, Any], category: str, verdict: str, text: str) -> None:
    """What is still on its way, or has nothing to be compared with, says so, and is no difference."""
    found = met(*specs, **members)
    assert found.case is None
    assert found.finding is not None
    assert (found.finding.category, found.finding.verdict) == (category, verdict)
    assert text in found.finding.text
    told = conclude(found, found.finding)
    assert (told.category, told.verdict, told.status) == (category, verdict, found.status)


def test_case() -> None:
    """A settled order is compared as its adapter sees it; what it changed by last is told."""
    found = met(N1, shipped("s1", A=1), details(delivery_method={"name": "x"}))
    assert found.finding is None
    assert found.case is not None
    assert found.case.subject == SUBJECT
    assert found.case.changed_ms == START_MS + 2_000
    assert found.case.asked.update == Sequra().render(found.case.order, UPDATING)
    assert (found.status, found.provider) == ("settled", "sequra")


@pytest.mark.parametrize(
    ("specs", "seconds"),
    [
        ([N1], 1),
        ([N1, returned("r1", A=1, origin="unshipped")], 2),
        ([N1, cart_updated(goods("A", 1, 100))], 2),
        ([N1, cancelled()], 2),
        ([N1, stated([goods("A", 2, 200)], [])], 2),
    ],
    ids=["confirmed", "returned", "changed", "cancelled", "stated"],
)
def test_when_it_changed(specs: list[EventSpec], seconds: int) -> None:
    """By the newest fact that the carts follow from."""
    found = met(*specs)
    assert found.case is not None
    assert found.case.changed_ms == START_MS + 1_000 * seconds


def test_both_sides() -> None:
    """An order is told with both sides, and where it lies."""
    told = conclude(met(N1, shipped("s1", A=1)), DIFFERS)
    assert (told.subject, told.provider, told.partition, told.revision) == (SUBJECT, "sequra", 3, 9)
    assert told.shop == ShopSide(100, 100)
    assert (told.currency, told.difference_minor, told.owed_to, told.action) == ("EUR", -1, "shop", "Ask.")
    assert conclude(met(N1, shipped("s1", A=1)), AGREES).held == AGREES.held


@pytest.mark.parametrize(
    ("finding", "category", "verdict", "text", "action"),
    [
        (AGREES, "not_final", "parked", "has what should be so, and something is left", "cartsync order release"),
        (DIFFERS, "differs", "parked", "seQura has paid less. The order is parked (422: no).", "Ask."),
        (replace(DIFFERS, action=""), "differs", "parked", "is parked", f"cartsync order release {SUBJECT}"),
        (replace(DIFFERS, category="not_final"), "not_final", "parked", "seQura has paid less.", "Ask."),
        (unread("seQura", "503"), "not_compared", "not_read", "seQura did not say", ""),
    ],
    ids=["agrees", "differs", "differs, nothing to do", "not final", "not read"],
)
def test_parked(finding: Finding, category: str, verdict: str, text: str, action: str) -> None:
    """A parked order shows both sides and the reason: it differs, or something is left to be told."""
    told = conclude(met(N1, acked=0, park=PARK), finding)
    assert (told.category, told.verdict, told.reason, told.status) == (category, verdict, "422: no", "parked")
    assert text in told.text
    assert action in told.action


def test_keys_that_differ() -> None:
    """An order of which a part may lie in another partition says so, if it differs."""
    torn = met(N1, has_several_keys=True)
    assert "several record keys" in conclude(torn, DIFFERS).text
    assert conclude(torn, AGREES).text == ""


def test_unknown_there() -> None:
    """An order that its provider does not know is a difference, with the provider's words."""
    found = unknown_there("Qliro", Outcome(OutcomeKind.NOT_FOUND, "404: ORDER_NOT_FOUND", 404), SUBJECT)
    assert (found.category, found.verdict) == ("differs", "unknown_at_provider")
    assert "Qliro knows no such order (404: ORDER_NOT_FOUND)" in found.text
    assert KEEPS_CHANGING.category == "not_final"


def test_foreign_line() -> None:
    """An order that only the provider's ledger names."""
    told = foreign_line("acme", "sequra", "X/1", replace(AGREES, category="not_compared", verdict="unknown_here"))
    assert (told.subject, told.verdict, told.status, told.shop) == ("acme/X/1", "unknown_here", None, None)
