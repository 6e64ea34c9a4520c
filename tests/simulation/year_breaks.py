"""Breaks of what a year of reports is held by (`breaks.Breaks`)."""

from datetime import UTC, datetime, tzinfo
from itertools import count
from typing import Any

from msgspec.structs import replace

from tests.simulation.breaks import Breaks
from worker.core import retention, schedule
from worker.jobs import report as report_job
from worker.jobs.report import ReportJob
from worker.model.exchange import OutcomeKind
from worker.model.jobs import Move
from worker.orders.closing import Closing
from worker.providers.sequra import disbursements, memory
from worker.providers.sequra.jobs import SequraReports

breaks = Breaks()


@breaks(memory, "accepted")
def delivery_reported_again_after_its_page(_: Any) -> Any:
    """What a page told is not kept: the next report tells it again."""
    return lambda reported: replace(reported, under_way=None)


@breaks(SequraReports, "after")
def page_made_anew_when_in_doubt(real: Any) -> Any:
    """Instead of being repeated as it was: what came meanwhile is in it, too."""

    def after(self: Any, page: Any, outcome: Any, run_ms: int) -> Move:
        if outcome.kind is OutcomeKind.UNKNOWN:
            return Move(None, free=[each for some in page.lists for each in some], then="next_report")
        return real(self, page, outcome, run_ms)  # type: ignore[no-any-return]

    return after


@breaks(SequraReports, "after")
def refused_page_taken_for_told(real: Any) -> Any:
    """Its orders count as told, and seQura has none of it."""

    def after(self: Any, page: Any, outcome: Any, run_ms: int) -> Move:
        is_refused = outcome.status == 409 and not page.in_doubt
        return Move(None, reported=page.lists[0]) if is_refused else real(self, page, outcome, run_ms)

    return after


@breaks(schedule, "_first_instant")
def skipped_hour_skips_the_report(real: Any) -> Any:
    """Where clocks are put forward over its time there is no report that day."""

    def first_instant(wall: datetime, zone: tzinfo) -> int:
        there = wall.replace(tzinfo=zone).astimezone(UTC).astimezone(zone).replace(tzinfo=None, fold=0)
        return int(real(wall, zone)) + (0 if there == wall else 400 * 86_400_000)

    return first_instant


@breaks(schedule, "_near")
def repeated_hour_reports_twice(real: Any) -> Any:
    """Where clocks show its time twice there are two reports."""

    def near(now_ms: int, times: Any, zone: tzinfo, latest_ms: int | None = None) -> set[int]:
        again = set()
        for at in real(now_ms, times, zone, latest_ms):
            walls = [
                datetime.fromtimestamp(ms / 1000, zone).replace(tzinfo=None, fold=0) for ms in (at, at + 3_600_000)
            ]
            again |= {at + 3_600_000} if walls[0] == walls[1] else set()
        return {run for run in real(now_ms, times, zone, latest_ms) | again if latest_ms is None or run <= latest_ms}

    return near


@breaks(report_job, "due_run")
def missed_report_not_made_up(real: Any) -> Any:
    """Of what was due while nobody was there nothing comes."""

    def due_run(done_ms: int, now_ms: int, times: Any, zone: tzinfo) -> int | None:
        found = real(done_ms, now_ms, times, zone)
        return None if found is None or found < now_ms - 1_800_000 else int(found)

    return due_run


@breaks(ReportJob, "_send_other")
def report_without_its_statistics(_: Any) -> Any:
    """It counts as made."""

    async def send_other(*_: Any) -> bool:
        return False

    return send_other


@breaks(SequraReports, "counted_since_ms")
def order_counted_for_a_day_only(real: Any) -> Any:
    """Statistics are of seven."""
    return lambda self, now_ms: real(self, now_ms) + 6 * 86_400_000


@breaks(retention, "is_at_rest")
def order_closed_that_is_owed(_: Any) -> Any:
    """Only its age counts."""
    return lambda record: True  # noqa: ARG005


@breaks(Closing, "look")  # type: ignore[no-redef]
def order_closed_that_is_owed(real: Any) -> Any:  # noqa: F811
    """And it may be in the outbox."""

    def look(self: Any, orders: Any, outbox: Any, context: Any) -> None:
        real(self, orders, outbox, context)
        owed = [subject for subject in orders.subjects() if subject in outbox]
        self.due += retention.find_due(owed, orders.get, context.clock.wall_ms(), retention.DAY_MS)

    return look


@breaks(retention, "KEEP_OBSERVED_DAYS")
def observed_order_forgotten_too_soon(_: Any) -> Any:
    """Before the statistics have counted it for a week."""
    return 3


@breaks(disbursements, "said_of")
def payment_known_by_its_reading(real: Any) -> Any:
    """Instead of by its line: read again, it is another one."""
    numbers = count()

    def said_of(found: Any, lines: Any) -> Any:
        return [replace(said, known_by=(*said.known_by, str(next(numbers)))) for said in real(found, lines)]

    return said_of


@breaks(disbursements, "after_reading")  # type: ignore[no-redef]
def payment_known_by_its_reading(_: Any) -> Any:  # noqa: F811
    """And it is read again and again."""
    return lambda seen, listed, one: seen  # noqa: ARG005
