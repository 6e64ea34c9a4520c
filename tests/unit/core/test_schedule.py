"""When reports and polls are due, over changes of the clock and after times in which nobody ran."""

import random
from datetime import UTC, date, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import pytest

from worker.core.schedule import due_every, due_run, next_run

MADRID = ZoneInfo("Europe/Madrid")
HOUR_MS, DAY_MS = 3_600_000, 86_400_000


def ms(text: str) -> int:
    """An instant with its offset."""
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def minutes(*texts: str) -> list[int]:
    """`HH:MM` as minutes after midnight."""
    return [int(text[:2]) * 60 + int(text[3:]) for text in texts]


def runs(begin: str, end: str, times: list[int], zone: tzinfo) -> list[str]:
    """The runs between two instants, in local time."""
    found, at = [], next_run(ms(begin), times, zone)
    while at <= ms(end):
        found.append(datetime.fromtimestamp(at / 1000, UTC).astimezone(zone).isoformat(timespec="minutes"))
        at = next_run(at, times, zone)
    return found


def test_every_day_at_its_time() -> None:
    """Several times of a day are several runs."""
    assert runs("2026-06-01T00:00Z", "2026-06-03T00:00Z", minutes("03:30", "15:00"), MADRID) == [
        "2026-06-01T03:30+02:00",
        "2026-06-01T15:00+02:00",
        "2026-06-02T03:30+02:00",
        "2026-06-02T15:00+02:00",
    ]


@pytest.mark.parametrize(
    ("zone", "begin", "end", "times", "expected"),
    [
        # 02:00 to 03:00 is skipped: right after it, and two times in it are one run
        ("Europe/Madrid", "2026-03-28T23:00Z", "2026-03-29T22:00Z", ("02:15", "02:45"), ["2026-03-29T03:00+02:00"]),
        # 02:00 to 03:00 comes twice: the first
        ("Europe/Madrid", "2026-10-24T22:00Z", "2026-10-25T23:00Z", ("02:30",), ["2026-10-25T02:30+02:00"]),
        # half an hour is skipped, and comes twice
        ("Australia/Lord_Howe", "2026-10-03T14:00Z", "2026-10-04T12:00Z", ("02:10",), ["2026-10-04T02:30+11:00"]),
        ("Australia/Lord_Howe", "2026-04-04T12:00Z", "2026-04-05T12:00Z", ("01:45",), ["2026-04-05T01:45+11:00"]),
        # the hour that is skipped ends the day
        ("America/Nuuk", "2026-03-28T12:00Z", "2026-03-29T12:00Z", ("23:30",), ["2026-03-29T00:00-01:00"]),
        # the whole day is skipped
        (
            "Pacific/Apia",
            "2011-12-29T12:00Z",
            "2011-12-31T00:00Z",
            ("12:00",),
            ["2011-12-29T12:00-10:00", "2011-12-31T00:00+14:00", "2011-12-31T12:00+14:00"],
        ),
    ],
)
def test_changes_of_the_clock(zone: str, begin: str, end: str, times: tuple[str, ...], expected: list[str]) -> None:
    """A time that is skipped is due right after it, one that comes twice is due once."""
    assert runs(begin, end, minutes(*times), ZoneInfo(zone)) == expected


def test_missed_runs_are_one() -> None:
    """Who was away for days makes the newest run alone; a run that was made is not due again."""
    times, done = minutes("03:30"), ms("2026-06-01T03:30+02:00")
    assert due_run(done, ms("2026-06-02T03:29:59+02:00"), times, MADRID) is None
    assert due_run(done, ms("2026-06-02T03:30+02:00"), times, MADRID) == ms("2026-06-02T03:30+02:00")
    assert due_run(done, ms("2026-06-09T12:00+02:00"), times, MADRID) == ms("2026-06-09T03:30+02:00")


def test_new_account_waits_for_its_time() -> None:
    """It was first seen after today's time."""
    times, seen = minutes("03:30"), ms("2026-06-01T09:00+02:00")
    assert due_run(seen, seen, times, MADRID) is None
    assert next_run(seen, times, MADRID) == ms("2026-06-02T03:30+02:00")


ZONES = (
    "Europe/Madrid", "America/Bogota", "Asia/Kolkata", "Australia/Lord_Howe", "America/Nuuk", "America/Sao_Paulo",
    "Asia/Tehran", "Africa/Casablanca", "Antarctica/Troll", "Pacific/Chatham", "UTC",
)  # fmt: skip


@pytest.mark.parametrize("year", [2017, 2026])
@pytest.mark.parametrize("name", ZONES)
def test_a_year(name: str, year: int) -> None:
    """In steps of five minutes: a run is due when clocks first show its time on a day, or more where they skip it; every day
    has each of its times once, whatever times it was looked at.
    """
    zone, chance = ZoneInfo(name), random.Random(f"{name} {year}")
    times = sorted([*chance.sample(range(0, 24 * 60, 5), 2), 150])
    begin = int(datetime(year, 1, 1, tzinfo=UTC).timestamp())
    expected: dict[tuple[date, int], int] = {}
    first_day = datetime.fromtimestamp(begin, zone).date()
    for minute in range(0, 366 * 24 * 60, 5):
        local = datetime.fromtimestamp(begin + minute * 60, zone)
        shown = local.hour * 60 + local.minute
        for time in times:
            if shown >= time and local.date() != first_day:
                expected.setdefault((local.date(), time), (begin + minute * 60) * 1000)
    made: list[int] = []
    wanted = sorted(set(expected.values()))
    done = now = wanted[0] - 60_000
    while (now := now + chance.choice((60_000, HOUR_MS, 5 * HOUR_MS, 70 * HOUR_MS))) < wanted[-1]:
        run = due_run(done, now, times, zone)
        missed = [at for at in wanted if done < at <= now]
        assert run == (missed[-1] if missed else None)
        assert next_run(now, times, zone) == next(at for at in wanted if at > now)
        if run is not None:
            made.append(run)
            done = run
    assert len(set(made)) == len(made)
    last_day = max(day for day, _ in expected)
    days = {day for day, _ in expected} - {last_day}
    assert {(day, time) for day, time in expected if day != last_day} == {(day, time) for day in days for time in times}


def test_interval() -> None:
    """At once when it was never made, then an interval later; missed ones are one; a clock that was set back does not
    silence it.
    """
    assert due_every(0, 7 * DAY_MS, 60.0) == 7 * DAY_MS
    assert due_every(DAY_MS, DAY_MS + 1, 60.0) == DAY_MS + 60_000
    assert due_every(DAY_MS, 9 * DAY_MS, 60.0) == DAY_MS + 60_000
    assert due_every(9 * DAY_MS, DAY_MS, 60.0) == DAY_MS + 60_000


def test_instants_are_whole_seconds() -> None:
    """Now may be any millisecond."""
    assert next_run(ms("2026-06-01T03:30+02:00") - 1, minutes("03:30"), MADRID) == ms("2026-06-01T03:30+02:00")
    assert timedelta(milliseconds=next_run(1, [0], UTC)) == timedelta(days=1)
