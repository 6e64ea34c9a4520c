"""A year of reports, and some weeks of one: each delivery is told once, all is paid to the cent, breaks are noticed."""

from datetime import UTC, datetime

import pytest

from tests.simulation.breaks import broken
from tests.simulation.year import YearError, play_year
from tests.simulation.year_breaks import breaks

SPRING = datetime(2026, 3, 16, 12, tzinfo=UTC)
AUTUMN = datetime(2026, 10, 12, 12, tzinfo=UTC)
"""Two weeks before clocks are changed in Madrid."""
DAYS, ORDERS = 35, 100
SHOWN_BY = {
    "delivery_reported_again_after_its_page": (0, SPRING, "is told otherwise"),
    "page_made_anew_when_in_doubt": (1, SPRING, "is told otherwise"),
    "refused_page_taken_for_told": (2, SPRING, "seQura never had"),
    "skipped_hour_skips_the_report": (4, SPRING, "no report for 03-29 01:00 UTC"),
    "repeated_hour_reports_twice": (0, AUTUMN, "none is due"),
    "missed_report_not_made_up": (6, SPRING, "no report for"),
    "report_without_its_statistics": (0, SPRING, "stands in no statistics"),
    "order_counted_for_a_day_only": (0, SPRING, "stands in no statistics"),
    "order_closed_that_is_owed": (0, SPRING, "something of it is pending"),
    "observed_order_forgotten_too_soon": (0, SPRING, "days after it was completed"),
    "payment_known_by_its_reading": (4, SPRING, "were never paid for it"),
}
"""By break: the seed and the weeks that show it, and in which words."""
OTHERS = (2, 4, 5, 7)
"""Tried when the code has changed so much that the seed shows it no more; then it is time to search anew."""


@pytest.mark.parametrize(("seed", "begin"), [(0, SPRING), (1, AUTUMN)])
def test_weeks_of_reports(seed: int, begin: datetime) -> None:
    """Whatever goes wrong around a change of the clock, nothing that must not happen does, and all is told and paid."""
    played = play_year(seed, begin=begin, days=DAYS, orders=ORDERS)
    assert played.counts["ended"] > 5
    assert played.sums["paid"] == played.sums["shipped"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_year_of_reports(seed: int) -> None:
    """The same for a year with 2,000 orders; `make year` shows how far it is."""
    assert play_year(seed).counts["orders"] == 2_000


def test_every_break_has_a_seed() -> None:
    """The table speaks of the same breaks."""
    assert SHOWN_BY.keys() == breaks.keys()


@pytest.mark.parametrize("name", breaks)
def test_break_of_a_report_is_noticed(name: str) -> None:
    """With the break in it, the weeks are not sound."""
    seed, begin, words = SHOWN_BY[name]
    found = next(filter(None, (shown_by(name, number, begin) for number in (seed, *OTHERS))), "")
    assert words in found


def shown_by(name: str, seed: int, begin: datetime) -> str:
    """What some weeks with this break in it say; empty: they are sound."""
    try:
        with broken(breaks[name]):
            play_year(seed, begin=begin, days=DAYS, orders=ORDERS)
    except YearError as error:
        return str(error)
    return ""
