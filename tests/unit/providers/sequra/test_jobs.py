"""seQura's jobs as the shell asks for them: whose turn it is in a report, and what is read of what was paid out."""

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from schemas.facts import seal_facts
from schemas.state import OrderRecord
from tests.shops.events import (
    REFERENCE,
    START_MS,
    EventSpec,
    cart_updated,
    confirmed,
    facts_of,
    goods,
    payment,
    shipped,
)
from tests.unit.providers.sequra.test_disbursements import LINE, LISTED, PATH, answer
from tests.unit.providers.sequra.test_report import ACCOUNT, PEOPLE, TWO
from worker.model.exchange import Outcome, OutcomeKind
from worker.model.jobs import Kept, Page, Schedule, Weighed
from worker.providers.registry import JOBS
from worker.providers.sequra import memory
from worker.providers.sequra.disbursements import RESPONSE_MAX_BYTES
from worker.providers.sequra.jobs import SequraDisbursements, SequraReports
from worker.providers.sequra.memory import Reported

REPORTS, PAID_OUT = SequraReports(), SequraDisbursements()
RUN_MS = START_MS + 86_400_000
OK = Outcome(OutcomeKind.APPLIED, status=204)


def record(*specs: EventSpec, **members: Any) -> OrderRecord:
    """An order that is owed, after these specs."""
    return OrderRecord(revision=9, sealed=seal_facts(facts_of(*specs)), **members)


def weighed(*specs: EventSpec, account: Any = ACCOUNT, **members: Any) -> Weighed:
    """What the report of the run has to do with it."""
    return REPORTS.weigh(REFERENCE, record(*specs, **members), account, RUN_MS)


def test_accounts_with_jobs() -> None:
    """Those whose orders are told by report, or that are counted; the schedule is that of the account."""
    assert JOBS["sequra"].reporter is not None
    update = replace(ACCOUNT, delivery="update")
    assert [REPORTS.is_wanted(each) for each in (ACCOUNT, update, replace(update, statistics=True))] == [
        True,
        False,
        True,
    ]
    assert REPORTS.schedule(ACCOUNT) == Schedule((210,), "Europe/Madrid")
    assert (REPORTS.entries_max(ACCOUNT), REPORTS.has_statistics(ACCOUNT)) == (5000, False)
    assert PAID_OUT.every_s(update) is None
    assert PAID_OUT.every_s(replace(update, disbursements=True)) == 21_600.0


@pytest.mark.parametrize(
    ("specs", "kind"),
    [
        ([TWO, shipped("s1", A=1)], "due"),
        ([TWO], "nothing"),
        ([shipped("s1", A=1)], "nothing"),
        ([confirmed(goods("A", 1, 100)), shipped("s1", A=1)], "broken"),
        ([TWO, shipped("s1", A=9)], "broken"),
        ([TWO, cart_updated(goods("A", 2, 200), currency="USD")], "nothing"),
        ([TWO, shipped("s1", A=1), payment("on_hold")], "nothing"),
    ],
    ids=["left", "still here", "unconfirmed", "lacks people", "contradicts", "contradicts, nothing left", "on hold"],
)
def test_whose_turn_it_is(specs: list[EventSpec], kind: str) -> None:
    """What left and can be told is due; what left and cannot be told is named as broken."""
    assert weighed(*specs).kind == kind


def test_nobody_is_reported_where_updates_are_sent() -> None:
    """Such an account may have a report for its statistics alone."""
    assert weighed(TWO, shipped("s1", A=1), account=replace(ACCOUNT, delivery="update")).kind == "nothing"


@pytest.mark.parametrize(("refused_ms", "kind"), [(RUN_MS - 1, "due"), (RUN_MS, "broken"), (RUN_MS + 5, "broken")])
def test_refused_before_and_in_this_run(refused_ms: int, kind: str) -> None:
    """It is tried again with the next report, not in the same one."""
    kept = memory.kept(Reported(refused_ms=refused_ms))
    found = weighed(TWO, shipped("s1", A=1), remote=kept)
    assert found.kind == kind
    assert found.refused_ms == (refused_ms if kind == "due" else 0)


def test_page_from_its_orders_to_their_fates() -> None:
    """What is written down is what is sent, and what becomes of its orders once it was taken."""
    found = weighed(TWO, shipped("s1", A=1))
    composing = REPORTS.composing(ACCOUNT)
    assert composing.composed() is None
    assert composing.add(found.candidate) == "taken"
    composed = composing.composed()
    assert composed is not None
    (remote,) = composed.remotes.values()
    assert found.grows_bytes == len(remote)
    request = REPORTS.request_of(composed.page, [REPORTS.part_of(remote)], ACCOUNT)
    (entry,) = msgspec.json.decode(request.body)["delivery_report"]["orders"]
    assert entry["cart"]["order_total_with_tax"] == 100
    assert REPORTS.outcome(answer(b"", 204), START_MS).kind is OutcomeKind.APPLIED
    assert REPORTS.after(composed.page, OK, RUN_MS).reported == [REFERENCE]
    fate = REPORTS.fate_of(remote, "reported", OK, RUN_MS)
    assert (fate.revision, fate.outcome.kind) == (9, OutcomeKind.APPLIED)
    doubtful = REPORTS.inherited(composed.page)
    assert doubtful.in_doubt
    assert REPORTS.decided(doubtful, is_taken=False).free == [REFERENCE]


def test_what_is_kept_of_pages() -> None:
    """Nothing, where there is none: the record stays small."""
    kept = Kept(pages=[Page([["A"]], b"{}", b"{}")])
    assert REPORTS.read_kept(REPORTS.write_kept(kept)) == kept
    assert REPORTS.write_kept(Kept()) == b""
    assert REPORTS.read_kept(b"") == Kept()


def test_beside_deliveries() -> None:
    """Broken orders by what is known of them, and orders of the last 7 days."""
    lacking = record(confirmed(goods("A", 1, 100), delivery_method=PEOPLE["delivery_method"]), shipped("s1", A=1))
    broken = REPORTS.broken(REFERENCE, lacking)
    counted = REPORTS.statistics(REFERENCE, lacking, START_MS)
    assert counted is not None
    assert REPORTS.counted_since_ms(START_MS) == START_MS - 7 * 86_400_000
    (request,) = REPORTS.other_requests([broken], [counted], ACCOUNT, is_always=False)
    report = msgspec.json.decode(request.body)["delivery_report"]
    assert "customer" not in report["broken_orders"][0]
    assert report["statistics"]["orders"][0]["amount"] == 100
    assert REPORTS.other_requests([], [], ACCOUNT, is_always=False) == []


def test_disbursements_from_the_list_to_events() -> None:
    """Each item of the list is read once; what it says is known by what it is."""
    listed = PAID_OUT.read_list(answer([LISTED]), START_MS)
    assert listed.outcome.kind is OutcomeKind.APPLIED
    (item,) = PAID_OUT.unread(b"", listed.found)
    assert PAID_OUT.list_request(ACCOUNT).url.endswith("/merchants/m1/disbursements")
    assert PAID_OUT.item_request(ACCOUNT, item).url.endswith(PATH)
    assert PAID_OUT.item_request(ACCOUNT, item).answer_max_bytes == RESPONSE_MAX_BYTES
    read = PAID_OUT.read_item(item, answer({"lines": [LINE]}), START_MS)
    assert [(said.type, said.reference, said.data["amount_minor"]) for said in read.found] == [
        ("disbursed", LINE["order_ref_1"], 1300)
    ]
    kept = PAID_OUT.after_reading(b"", listed.found, item)
    assert PAID_OUT.unread(kept, listed.found) == []


@pytest.mark.parametrize("status", [500, 404, 200])
def test_item_that_cannot_be_read(status: int) -> None:
    """Nothing of it is said."""
    listed = PAID_OUT.read_list(answer([LISTED]), START_MS)
    (item,) = PAID_OUT.unread(b"", listed.found)
    read = PAID_OUT.read_item(item, answer(b"[{", status), START_MS)
    assert read.outcome.kind is not OutcomeKind.APPLIED
    assert read.found == []
