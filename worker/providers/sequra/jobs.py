"""seQura's jobs for the shell: the delivery report, and disbursements. Pure."""

from collections.abc import Sequence
from typing import Any

from msgspec import Raw, msgpack

from schemas.state import OrderRecord
from worker.core.deliveries import deliveries_of
from worker.core.order import assess
from worker.model.exchange import HttpRequest, HttpResponse, Outcome, OutcomeKind
from worker.model.jobs import Became, Fate, Kept, Listed, Move, Page, Schedule, Weighed
from worker.providers.sequra import disbursements, memory, pages, report, statistics, wire
from worker.providers.sequra.options import SequraAccount
from worker.providers.sequra.pages import Candidate, Composing
from worker.providers.sequra.responses import outcome_of
from worker.providers.sequra.steps import Sequra

_NOTHING, _BROKEN = Weighed("nothing"), Weighed("broken")
_sequra = Sequra()


class SequraReports:
    """`Reporter`."""

    def is_wanted(self, account: SequraAccount) -> bool:
        return account.delivery != "update" or account.statistics

    def schedule(self, account: SequraAccount) -> Schedule:
        return Schedule(account.report_at, account.timezone)

    def entries_max(self, account: SequraAccount) -> int:
        return account.report_orders_max

    def read_kept(self, value: bytes) -> Kept:
        return pages.read_kept(value)

    def write_kept(self, kept: Kept) -> bytes:
        return msgpack.encode(kept) if kept.pages else b""

    def inherited(self, page: Page) -> Page:
        return pages.inherited(page)

    def weigh(self, reference: str, record: OrderRecord, account: SequraAccount, run_ms: int) -> Weighed:
        if account.delivery == "update":
            return _NOTHING
        facts = record.facts
        standing = assess(facts, reference)
        if standing.state == "inconsistent":
            return _BROKEN if any(fact.units for fact in facts.shipments.values()) else _NOTHING
        if standing.state != "ready":
            return _NOTHING
        order = standing.order
        assert order is not None  # ready means that there are carts
        reported = memory.read(record.remote)
        verdict = report.judge(
            report.situation_of(order),
            reported,
            account.delivery,
            may_land_late=record.may_land_late,
            remote_unknown=record.remote_unknown,
        )
        if verdict.kind == "broken":
            return _BROKEN
        if verdict.kind != "due":
            return _NOTHING
        assert reported is not None  # otherwise the verdict would be different
        if reported.refused_ms >= run_ms:
            return _BROKEN  # in this very run
        most = account.report_orders_max
        entries = report.entries_of(order, deliveries_of(order, reported.shipments), reported, most=most)
        candidate = Candidate(reference, reported, entries, record.revision, _sequra.digest(order))
        grows_bytes = len(pages.while_under_way(candidate)) - len(record.remote)
        return Weighed("due", candidate, reported.refused_ms, grows_bytes)

    def composing(self, account: SequraAccount) -> Composing:
        return Composing(account)

    def part_of(self, remote: bytes) -> bytes:
        return pages.part_of(remote)

    def request_of(self, page: Page, parts: Sequence[bytes], account: SequraAccount) -> HttpRequest:
        return pages.request_of(page, parts, account)

    def outcome(self, response: HttpResponse, now_ms: int) -> Outcome:
        return outcome_of(response, now_ms)

    def after(self, page: Page, outcome: Outcome, run_ms: int) -> Move:
        return pages.after(page, outcome, run_ms)

    def decided(self, page: Page, *, is_taken: bool) -> Move:
        return pages.decided(page, is_taken=is_taken)

    def fate_of(self, remote: bytes, became: Became, outcome: Outcome, now_ms: int) -> Fate:
        return pages.fate_of(remote, became, outcome, now_ms)

    def broken(self, reference: str, record: OrderRecord) -> Raw:
        return report.broken_entry(reference, assess(record.facts, reference).order, memory.read(record.remote))

    def has_statistics(self, account: SequraAccount) -> bool:
        return account.statistics

    def counted_since_ms(self, now_ms: int) -> int:
        return now_ms - statistics.WINDOW_MS

    def statistics(self, reference: str, record: OrderRecord, now_ms: int) -> wire.StatisticsEntry | None:
        facts = record.facts
        return statistics.statistics_of(reference, facts, assess(facts, reference).order, now_ms)

    def other_requests(
        self,
        broken: Sequence[Raw],
        statistics: Sequence[wire.StatisticsEntry],
        account: SequraAccount,
        *,
        is_always: bool,
    ) -> list[HttpRequest]:
        return pages.other_requests(broken, statistics, account, is_always=is_always)


class SequraDisbursements:
    """`Lister`."""

    job = "disbursements"
    purpose = disbursements.PURPOSE

    def every_s(self, account: SequraAccount) -> float | None:
        return account.disbursements_every_s if account.disbursements else None

    def list_request(self, account: SequraAccount) -> HttpRequest:
        return disbursements.list_request(account)

    def read_list(self, response: HttpResponse, now_ms: int) -> Listed:
        read = disbursements.read_list(response, now_ms)
        return Listed(read.outcome, read.disbursements)

    def unread(self, kept: bytes, found: Any) -> list[Any]:
        return list(disbursements.unread(disbursements.read_seen(kept), found))

    def item_request(self, account: SequraAccount, item: disbursements.Disbursement) -> HttpRequest:
        return disbursements.detail_request(account, item)

    def read_item(self, item: disbursements.Disbursement, response: HttpResponse, now_ms: int) -> Listed:
        read = disbursements.read_detail(response, now_ms)
        is_read = read.outcome.kind is OutcomeKind.APPLIED
        return Listed(read.outcome, disbursements.said_of(item, read.lines) if is_read else [])

    def after_reading(self, kept: bytes, found: Any, item: disbursements.Disbursement) -> bytes:
        seen = disbursements.after_reading(disbursements.read_seen(kept), found, item)
        return disbursements.kept_seen(seen)
