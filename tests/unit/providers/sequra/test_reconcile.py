"""What seQura has paid out compared with what it was told is shipped and kept: the rule, to the cent, and its edges."""

from datetime import UTC, date, datetime
from typing import Any

import pytest
from msgspec.structs import replace

from schemas.reconciliation import ProviderSide
from tests.shops.events import START_MS, EventSpec, confirmed, facts_of, goods, order, returned, said, shipped
from tests.unit.providers.sequra.test_disbursements import LINE, LISTED, PATH, answer
from tests.unit.providers.sequra.test_report import ACCOUNT as REPORTING
from worker.core.order import assess
from worker.model.callbacks import Said
from worker.model.exchange import Outcome, OutcomeKind
from worker.model.order import Order
from worker.model.provider import Question
from worker.model.reconcile import Case, Finding, Terms
from worker.providers.registry import RECONCILERS
from worker.providers.sequra import Sequra, memory
from worker.providers.sequra.cents import amounts_of
from worker.providers.sequra.disbursements import Disbursement
from worker.providers.sequra.jobs import SequraDisbursements
from worker.providers.sequra.memory import Reported
from worker.providers.sequra.reconcile import Paid, SequraLedger

RECONCILER = RECONCILERS["sequra"]
UPDATING = replace(REPORTING, delivery="update", disbursements=True)
N12 = confirmed(goods("A", 1, 300), goods("B", 1, 500), goods("C", 1, 1_000))
"""Of the documentation's example (seQura's Disbursement API): all shipped, then B came back, then C."""
ALL = shipped("s1", A=1, B=1, C=1)
CHANGED_ON = datetime.fromtimestamp(START_MS / 1000, UTC).date()
LATER = date(2026, 6, 1)


def paid(minor: int, number: int = 1) -> EventSpec:
    """A line of a disbursement, as the job has written it."""
    members = {"disbursement": f"/d/{number}", "amount_minor": minor, "issued_on": "2026-03-20"}
    return said("disbursed", by="disbursements", **members)


def case_of(found: Order, account: Any = UPDATING, told: Reported | None = None) -> Case:
    """As it is compared."""
    update = Sequra().render(found, account)
    remote = b"" if told is None else memory.kept(told)
    return Case(Question(found.reference, account, update, remote), found, START_MS)


def compared(*specs: EventSpec, fetched: int | None = None, due_before: date = LATER, **members: Any) -> Finding:
    """What the comparison comes to."""
    account = members.pop("account", UPDATING)
    return RECONCILER.compare(
        case_of(order(*specs), account, members.pop("told", None)), Paid(fetched, due_before, **members)
    )


@pytest.mark.parametrize(
    ("specs", "fetched", "due_before", "category", "verdict", "minor", "owed_to"),
    [
        ([N12], None, LATER, "agrees", "agrees", None, None),
        ([N12, ALL, returned("r1", B=1), paid(1_300)], None, LATER, "agrees", "agrees", None, None),
        (
            [N12, ALL, returned("r1", B=1), returned("r2", C=1), paid(1_300), paid(-1_000, 2)],
            *(None, LATER, "agrees", "agrees", None, None),
        ),
        ([N12, ALL, paid(1_799)], None, LATER, "differs", "paid_less", -1, "shop"),
        ([N12, ALL, paid(1_801)], None, LATER, "differs", "paid_more", 1, "provider"),
        ([N12, ALL], None, LATER, "differs", "paid_less", -1_800, "shop"),
        ([N12, ALL], None, CHANGED_ON, "not_final", "payout_due", -1_800, None),
        ([N12, ALL, paid(1_799)], None, CHANGED_ON, "not_final", "payout_due", -1, None),
        ([N12, ALL, paid(1_800)], 1_800, LATER, "agrees", "agrees", None, None),
        ([N12, ALL, paid(1_800)], 1_799, LATER, "differs", "paid_less", -1, "shop"),
        ([N12, ALL], 1_800, LATER, "not_final", "payouts_not_read", None, None),
        ([N12, paid(5)], 0, LATER, "not_final", "payouts_not_read", None, None),
    ],
    ids=[
        *("nothing shipped", "the documentation's first line", "its second", "a cent short", "a cent too much"),
        *("never paid", "paid later", "short, and may come", "fetched, the same", "fetched, a cent short"),
        *("fetched, not read here", "read here, and gone there"),
    ],
)
def test_verdicts(
    specs: list[EventSpec],
    fetched: int | None,
    due_before: date,
    category: str,
    verdict: str,
    minor: int | None,
    owed_to: str | None,
) -> None:
    """What disbursements add up to is the shipped cart, to the cent, once they have counted its newest change."""
    found = compared(*specs, fetched=fetched, due_before=due_before)
    assert (found.category, found.verdict, found.difference_minor, found.owed_to) == (
        *(category, verdict, minor, owed_to),
    )


def test_sentences() -> None:
    """A difference says in a sentence who is owed what, and what to do."""
    found = compared(N12, ALL, paid(1_799))
    assert found.text == (
        "seQura has paid out 0.01 EUR less than what was shipped and kept, 18.00 EUR. The shop is owed 0.01 EUR."
    )
    assert "cartsync order resend acme/A14/12345" in found.action
    assert found.held == ProviderSide(reported_minor=1_800, paid_minor=1_799)
    assert "seQura is owed 2.00 EUR." in compared(N12, ALL, paid(2_000)).text
    assert "cartsync account report acme" in compared(N12, ALL, fetched=1_800).text


def test_fetched_without_the_job() -> None:
    """Where the account's disbursements are not read by the job, nothing is missing here."""
    account = replace(UPDATING, disbursements=False)
    assert compared(N12, ALL, fetched=1_800, account=account).verdict == "agrees"


def test_other_currency() -> None:
    """It is said, whatever the amounts are; of nothing there is no currency."""
    found = compared(N12, ALL, fetched=1_800, currency="USD")
    assert (found.category, found.verdict) == ("differs", "other_currency")
    assert found.held is not None
    assert found.held.currency == "USD"
    assert compared(N12, fetched=0, currency="USD").verdict == "agrees"
    assert compared(
        N12, ALL, fetched=1_800, currency="EUR", account=replace(UPDATING, disbursements=False)
    ).verdict == ("agrees")


@pytest.mark.parametrize(
    ("reported", "by_update", "mode", "verdict", "minor", "owed_to"),
    [
        ([N12, ALL], False, "report", "reported_differs", 500, "shopper"),
        ([N12, shipped("s1", A=1)], False, "report", "reported_differs", -1_000, "shop"),
        ([N12, ALL, returned("r1", B=1)], True, "report_then_update", "agrees", None, None),
        ([N12, ALL], False, "update", "agrees", None, None),
        ([N12], False, "report", "agrees", None, None),
    ],
    ids=["returned after its report", "less reported", "updated since", "whole by update", "nothing reported"],
)
def test_tie_out_with_what_was_reported(
    reported: list[EventSpec], by_update: bool, mode: str, verdict: str, minor: int | None, owed_to: str | None
) -> None:
    """Reports tell what cannot be taken back: what they add up to is what seQura pays, beside what the cart is now."""
    before = order(*reported)
    is_told = bool(before.shipped.items)
    told = Reported(
        by_update=by_update, shipments={"s1": 1} if is_told else {}, shipped=amounts_of(before.shipped.items)
    )
    account = replace(REPORTING, delivery=mode, disbursements=True)
    found = compared(N12, ALL, returned("r1", B=1), paid(1_300), account=account, told=told)
    assert (found.verdict, found.difference_minor, found.owed_to) == (verdict, minor, owed_to), found
    if minor is not None:
        assert found.held is not None
        assert found.held.reported_minor == 1_300 + minor
        assert f"{abs(minor) / 100:.2f} EUR." in found.text


def test_kept_by_a_newer_version() -> None:
    """What a newer version has kept of the reports nobody can read: then the cart is what counts."""
    account = replace(REPORTING, disbursements=True)
    found = order(N12, ALL, paid(1_800))
    case = Case(Question(found.reference, account, Sequra().render(found, account), b"\xc1"), found, START_MS)
    assert RECONCILER.compare(case, Paid(None, LATER)).verdict == "agrees"


# --- the ledger ------------------------------------------------------------------------------------------------------

NOW_MS = START_MS + 40 * 86_400_000


def ledger_of(**members: Any) -> SequraLedger:
    """The ledger of an account."""
    is_fetching = members.pop("is_fetching", True)
    found = RECONCILER.ledger(replace(UPDATING, **members), Terms(NOW_MS, 31, is_fetching))
    assert isinstance(found, SequraLedger)
    return found


def test_what_is_fetched() -> None:
    """What the job has read is not read again, unless it is wished, or the job is off."""
    assert isinstance(ledger_of(is_fetching=True).lister, SequraDisbursements)
    assert isinstance(ledger_of(is_fetching=False, disbursements=False).lister, SequraDisbursements)
    assert ledger_of(is_fetching=False).lister is None


def test_ledger_adds_up() -> None:
    """All lines of an order, over all disbursements; what no order was compared under is left, if it comes to something."""
    ledger, lister = ledger_of(), SequraDisbursements()
    (listed,) = lister.unread(b"", lister.read_list(answer([LISTED]), NOW_MS).found)
    lines = [LINE, LINE | {"amount_with_tax": -1_000}, LINE | {"order_ref_1": "B"}, LINE | {"order_ref_1": "C"}]
    ledger.add(listed, lister.read_item(listed, answer({"lines": lines}), NOW_MS).found)
    ledger.add(replace(listed, currency=None), [Said("disbursed", {"amount_minor": -1_300}, (), "", "C")])
    assert ledger.take("A14/12345") == Paid(300, date(2026, 3, 10), "EUR")
    assert ledger.take("A14/12345") == Paid(0, date(2026, 3, 10))
    ((reference, found),) = ledger.left()
    assert (reference, found.category, found.verdict) == ("B", "not_compared", "unknown_here")
    assert found.text == "seQura has paid out 13.00 EUR for an order that cartsync does not know."


@pytest.mark.parametrize(
    ("to_date", "due_before"),
    [("2026-04-05", "2026-04-05"), ("2026-02-10", "2026-03-10"), (None, "2026-03-10"), ("soon", "2026-03-10")],
    ids=["newer than the days given", "older", "not said", "no date"],
)
def test_what_is_due(to_date: str | None, due_before: str) -> None:
    """What changed before the newest `to_date`, or `payout_days` ago, has been paid out."""
    ledger = ledger_of()
    ledger.note_list([Disbursement(date(2026, 2, 27), PATH, None, to_date)])
    assert ledger.take("A").due_before == date.fromisoformat(due_before)


def test_facts_alone() -> None:
    """Without fetching the order's own facts have what was paid."""
    assert ledger_of(is_fetching=False).take("A") == Paid(None, date(2026, 3, 10))


def test_never_asked_order_by_order() -> None:
    """seQura cannot be asked what it holds of an order."""
    facts = facts_of(N12)
    found = assess(facts, "A14/12345").order
    assert found is not None
    with pytest.raises(AssertionError, match="has a ledger"):
        RECONCILER.question(case_of(found))
    assert not RECONCILER.is_unknown(UPDATING, Outcome(OutcomeKind.NOT_FOUND))
    assert RECONCILER.title == "seQura"
