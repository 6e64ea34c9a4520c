"""Pages of the report: which orders stand in one, its bytes, and what becomes of it."""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import pytest
from msgspec import Raw, msgpack
from msgspec.structs import replace

from tests.shops.events import order, shipped
from tests.unit.providers.sequra.test_report import ACCOUNT, TWO
from worker.core.deliveries import deliveries_of
from worker.model.exchange import HttpRequest, Outcome, OutcomeKind
from worker.model.jobs import IN_DOUBT_MAX, Composed, Kept, Move, Page
from worker.providers.responses import outcome_by_status
from worker.providers.sequra import memory, wire
from worker.providers.sequra import pages as p
from worker.providers.sequra.memory import NOTHING, Reported
from worker.providers.sequra.pages import Candidate
from worker.providers.sequra.report import entries_of

K = OutcomeKind
RUN = 1_000


def candidate(reference: str, told: Reported = NOTHING, store: str | None = None, shipments: int = 1) -> Candidate:
    """An order with so many deliveries that are due."""
    specs = [shipped("s1", A=1), shipped("s2", A=1), shipped("s3", B=1)][:shipments]
    found = replace(order(TWO, *specs), reference=reference)
    entries = replace(entries_of(found, deliveries_of(found, {}), told, most=9), store_ref=store)
    return Candidate(reference, told, entries, 7, b"digest")


def composed(*candidates: Candidate, most: int = 5000) -> Composed:
    """The page that is made of them first."""
    found = p.compose(candidates, replace(ACCOUNT, report_orders_max=most))
    assert found is not None
    return found


def names(found: Composed) -> list[str]:
    """Who stands in it."""
    [only] = found.page.lists
    assert only == list(found.remotes)
    return only


def request(page: Page, remotes: Mapping[str, bytes], account: Any = ACCOUNT) -> HttpRequest:
    """What is sent of it, when the records of its orders keep this."""
    return p.request_of(page, [p.part_of(remotes[name]) for name in page.lists[0]], account)


def body(found: Composed, account: Any = ACCOUNT) -> dict[str, Any]:
    """What is sent."""
    told: dict[str, Any] = msgspec.json.decode(request(found.page, found.remotes, account).body)
    return told


# --- which orders --------------------------------------------------------------------------------------------------


def test_as_many_as_a_page_takes() -> None:
    """Entries are counted, and all of one order stand in one page."""
    many = [candidate("a", shipments=2), candidate("b"), candidate("c", shipments=2), candidate("d")]
    assert names(composed(*many, most=5)) == ["a", "b", "c"]
    assert names(composed(*many, most=4)) == ["a", "b"]
    assert names(composed(*many, most=1)) == ["a"]
    assert p.compose([], ACCOUNT) is None


def test_bytes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of entries and those of references; one order alone may have more."""
    size = len(memory.read(composed(candidate("a")).remotes["a"]).under_way.entries)  # type: ignore[union-attr]
    monkeypatch.setattr(p, "PAGE_MAX_BYTES", 2 * size)
    assert names(composed(candidate("a"), candidate("b"), candidate("c"))) == ["a", "b"]
    monkeypatch.setattr(p, "PAGE_MAX_BYTES", 1)
    assert names(composed(candidate("a"), candidate("b"))) == ["a"]
    monkeypatch.undo()
    monkeypatch.setattr(p, "NAMES_MAX_BYTES", 4)
    assert names(composed(candidate("ñ"), candidate("ñ "), candidate("c"))) == ["ñ"]


def test_orders_that_were_refused_stand_apart() -> None:
    """So one that is bad does not hold up the good ones again."""
    was = memory.refused(NOTHING, 409, 5)
    assert names(composed(candidate("a"), candidate("b", was), candidate("c"))) == ["a", "c"]
    assert names(composed(candidate("b", was), candidate("a"), candidate("d", was))) == ["b", "d"]


def test_stores_stand_apart() -> None:
    """A report is in the name of one."""
    found = composed(candidate("a", store="s1"), candidate("b"), candidate("c", store="s1"))
    assert names(found) == ["a", "c"]
    assert body(found)["delivery_report"]["merchant"] == {"id": "m1", "store_ref": "s1"}
    assert body(composed(candidate("b")))["delivery_report"]["merchant"] == {"id": "m1"}
    of_account = p.compose([candidate("b")], replace(ACCOUNT, store_ref="s9"))
    assert of_account is not None
    assert body(of_account)["delivery_report"]["merchant"] == {"id": "m1", "store_ref": "s9"}


# --- its bytes -----------------------------------------------------------------------------------------------------


def test_request() -> None:
    """`POST {base}/orders/delivery_reports`, with the entries of all its orders in their order."""
    found = composed(candidate("a", shipments=2), candidate("b"))
    made = request(found.page, found.remotes)
    assert (made.method, made.url) == ("POST", "https://sandbox.example/orders/delivery_reports")
    assert made.headers["Authorization"].startswith("Basic ")
    assert made.headers["Sequra-Merchant-Id"] == "m1"
    report = body(found)["delivery_report"]
    assert list(report) == ["merchant", "orders", "platform"]
    assert [each["merchant_reference"]["order_ref_1"] for each in report["orders"]] == ["a", "a", "b"]
    assert report["platform"] == wire.PLATFORM


def test_the_same_bytes_whatever_else_changes() -> None:
    """A new release, another platform, another store: what was written down is what is sent."""
    found = composed(candidate("a"), candidate("b"))
    before = request(found.page, found.remotes)
    later = replace(ACCOUNT, platform={"name": "x"}, store_ref="s2", report_path="/delivery_reports", password="new")
    kept = p.read_kept(msgpack.encode(Kept(pages=[found.page]))).pages[0]
    again = request(kept, found.remotes, later)
    assert again.body == before.body
    assert again.headers["Idempotency-Key"] == before.headers["Idempotency-Key"]
    assert again.url == "https://sandbox.example/delivery_reports"
    assert request(replace(kept, lists=[["a"]]), found.remotes, later).body != before.body


def test_page_is_named_by_its_orders() -> None:
    """So that an operator's word is about one page: the same as long as it is sent as it is, another for other orders."""
    page = Page([["a", "b"], ["c"]], b"{}", b"{}")
    assert page.id == replace(page, lists=[["a", "b"]], in_doubt=True, refusals=3).id
    assert len({page.id, replace(page, lists=[["a"]]).id, replace(page, lists=[["ab"]]).id}) == 3


def test_platform_of_the_account() -> None:
    """As in updates."""
    found = p.compose([candidate("a")], replace(ACCOUNT, platform={"name": "shop"}))
    assert found is not None
    assert body(found)["delivery_report"]["platform"] == wire.PLATFORM | {"name": "shop"}


def test_what_a_report_has_beside_deliveries() -> None:
    """Broken orders and statistics, at most so many in each list; a report every day, though it be empty."""
    broken = [Raw(b'{"merchant_reference":{"order_ref_1":"b%d"}}' % number) for number in range(3)]
    numbers = [wire.StatisticsEntry("t", "EUR", wire.MerchantReference(f"o{number}")) for number in range(5)]
    account = replace(ACCOUNT, report_orders_max=2)
    sent = [
        msgspec.json.decode(each.body)["delivery_report"]
        for each in p.other_requests(broken, numbers, account, is_always=False)
    ]
    assert [len(each.get("broken_orders", [])) for each in sent] == [2, 1, 0]
    assert [len(each.get("statistics", {"orders": []})["orders"]) for each in sent] == [2, 2, 1]
    assert all(each["orders"] == [] for each in sent)
    assert p.other_requests([], [], account, is_always=False) == []
    [empty] = p.other_requests([], [], account, is_always=True)
    assert msgspec.json.decode(empty.body)["delivery_report"] == {
        "merchant": {"id": "m1"},
        "orders": [],
        "platform": wire.PLATFORM,
    }


# --- what becomes of it --------------------------------------------------------------------------------------------

MANY = Page([["a", "b", "c"], ["d"]], b"{}", b"{}")
ONE = Page([["a"], ["d"]], b"{}", b"{}")
DOUBT = replace(MANY, in_doubt=True, retries=2)
TAKEN = Outcome(K.APPLIED, "", 204)
REFUSED = outcome_by_status(409, "409: no", None)


@pytest.mark.parametrize(
    ("page", "outcome", "expected"),
    [
        (MANY, TAKEN, Move(replace(MANY, lists=[["d"]]), reported=["a", "b", "c"])),
        (replace(MANY, lists=[["a"]], spent=3), TAKEN, Move(None, reported=["a"])),
        (replace(DOUBT, refusals=3, spent=9), TAKEN, Move(replace(MANY, lists=[["d"]], spent=9), reported=["a", "b", "c"])),
        (MANY, outcome_by_status(503, "503", None), Move(replace(MANY, retries=1), then="backoff")),
        (MANY, Outcome(K.NOT_SENT, "no route"), Move(replace(MANY, retries=1), then="backoff")),
        (DOUBT, outcome_by_status(429, "429", None), Move(replace(DOUBT, retries=3), then="backoff")),
        (MANY, outcome_by_status(500, "500", None), Move(replace(MANY, in_doubt=True, retries=1), then="backoff")),
        (MANY, Outcome(K.UNKNOWN, "timeout"), Move(replace(MANY, in_doubt=True, retries=1), then="hold")),
        (MANY, Outcome(K.CREDENTIALS, "401", 401), Move(MANY, then="account")),
        (DOUBT, Outcome(K.FORBIDDEN, "403", 403), Move(DOUBT, then="account")),
        (MANY, REFUSED, Move(replace(MANY, lists=[["a"], ["b", "c"], ["d"]], spent=1))),
        (ONE, REFUSED, Move(replace(ONE, lists=[["d"]], spent=1), broken=["a"])),
        (replace(ONE, lists=[["a"]]), outcome_by_status(422, "422", None), Move(None, broken=["a"])),
        (replace(MANY, spent=63), REFUSED, Move(None, free=["a", "b", "c", "d"], then="next_report", is_refused=True)),
        (ONE, outcome_by_status(404, "404", None), Move(None, free=["a", "d"], then="next_report", is_refused=True)),
        (ONE, outcome_by_status(301, "301", None), Move(None, free=["a", "d"], then="next_report", is_refused=True)),
        (DOUBT, REFUSED, Move(replace(DOUBT, lists=[["a", "b", "c"]], refusals=1, retries=0, refused_in_ms=RUN), free=["d"], then="next_report", is_refused=True)),
        (DOUBT, outcome_by_status(404, "404", None), Move(replace(DOUBT, lists=[["a", "b", "c"]], refusals=1, retries=0, refused_in_ms=RUN), free=["d"], then="next_report", is_refused=True)),
    ],
)  # fmt: skip
def test_table(page: Page, outcome: Outcome, expected: Move) -> None:
    """The table of `pages.py`."""
    assert p.after(page, outcome, RUN) == expected


def test_stuck_after_four_refusals_in_doubt() -> None:
    """Then an operator has to say what became of it."""
    page = DOUBT
    seen = []
    for run in range(1, 5):
        move = p.after(page, REFUSED, run)
        assert move.page is not None
        page = move.page
        seen.append(page.is_stuck)
    assert seen == [False, False, False, True]
    assert p.decided(page, is_taken=True) == Move(None, reported=["a", "b", "c"])
    assert p.decided(DOUBT, is_taken=True) == Move(None, reported=["a", "b", "c"], free=["d"])
    assert p.decided(DOUBT, is_taken=False) == Move(None, free=["a", "b", "c", "d"])


def test_worker_that_did_not_leave_in_order() -> None:
    """It may have sent the page."""
    assert p.inherited(MANY) == replace(MANY, in_doubt=True)


def test_a_bad_order_is_found_in_a_few_attempts() -> None:
    """Halves of halves, each sent once: 5,000 orders with a bad one take 27 requests."""
    page: Page | None = Page([[str(number) for number in range(5000)]], b"{}", b"{}")
    told: list[str] = []
    broken: list[str] = []
    attempts = 0
    while page is not None:
        attempts += 1
        move = p.after(page, REFUSED if "1234" in page.lists[0] else TAKEN, RUN)
        told, broken, page = told + move.reported, broken + move.broken, move.page
    assert (len(told), broken) == (4999, ["1234"])
    assert attempts == 27


@pytest.mark.parametrize(
    ("became", "kind", "reason"),
    [
        ("reported", K.APPLIED, ""),
        ("broken", K.PENDING, "its report was rejected: 409: no"),
        ("free", K.PENDING, "waits for its report"),
    ],
)
def test_what_becomes_of_an_order(
    became: Literal["reported", "free", "broken"], kind: OutcomeKind, reason: str
) -> None:
    """As if an attempt with the revision and the digest of the page had come to that."""
    found = composed(candidate("a", memory.refused(NOTHING, 422, 5)))
    fate = p.fate_of(found.remotes["a"], became, REFUSED, 77)
    assert (fate.revision, fate.digest, fate.outcome.kind, fate.outcome.reason) == (7, b"digest", kind, reason)
    told = memory.read(fate.outcome.remote or b"")
    assert told is not None
    assert told.under_way is None
    assert told.is_reported is (became == "reported")
    refused = {"reported": (0, 0), "broken": (77, 409), "free": (5, 422)}[became]
    assert (told.refused_ms, told.refused_status) == refused


def test_kept() -> None:
    """At most so many pages in doubt are kept; nothing is an empty one."""
    assert p.read_kept(b"") == Kept()
    assert Kept().may_write
    assert not Kept(pages=[MANY] * IN_DOUBT_MAX).may_write
    assert p.read_kept(msgpack.encode(Kept(pages=[DOUBT]))) == Kept(pages=[DOUBT])
