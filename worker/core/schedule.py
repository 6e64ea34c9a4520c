"""When what comes due is due: at local times of the day, over changes of the clock, and every so often. Pure.

A run is known by the instant it was due at, in UTC milliseconds, and the newest one that was made is all that has to be
remembered. Whatever was missed since is made up for by one run.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache

_DAY = timedelta(days=1)
_SECOND = timedelta(seconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def due_run(done_ms: int, now_ms: int, times: Sequence[int], zone: tzinfo) -> int | None:
    """The newest run that is due and was not made: after `done_ms`, up to now; `None`: there is none.

    `times`: minutes after midnight, at least one. `done_ms`: of the last run, or when the account was first seen: a new
    account begins at its next time.
    """
    newest = max(_near(now_ms, times, zone, latest_ms=now_ms))
    return newest if newest > done_ms else None


def next_run(now_ms: int, times: Sequence[int], zone: tzinfo) -> int:
    """The next run after now."""
    return min(instant for instant in _near(now_ms, times, zone) if instant > now_ms)


def due_every(done_ms: int, now_ms: int, every_s: float) -> int:
    """When the next run of an interval is due; one that was never made (`done_ms` 0) is due now.

    A clock that was set back must not silence it: at most one interval from now.
    """
    every_ms = round(every_s * 1000)
    return min(done_ms + every_ms, now_ms + every_ms) if done_ms else now_ms


def _near(now_ms: int, times: Sequence[int], zone: tzinfo, latest_ms: int | None = None) -> set[int]:
    """The runs of the days around; a zone may lack a whole day, so three on each side."""
    today = (_EPOCH + timedelta(milliseconds=now_ms)).astimezone(zone).date()
    runs = {
        _first_instant(datetime(day.year, day.month, day.day) + timedelta(minutes=minutes), zone)  # noqa: DTZ001
        for day in (today + number * _DAY for number in range(-3, 4))
        for minutes in times
    }
    return {run for run in runs if latest_ms is None or run <= latest_ms}


@lru_cache(maxsize=1024)
def _first_instant(wall: datetime, zone: tzinfo) -> int:
    """When clocks of this zone first show this time, or the first one after it where they skip it."""
    shown_s = _seconds(wall.replace(tzinfo=zone))
    if _wall(shown_s, zone) != wall:
        shown_s = _end_of_gap(wall, zone)
    return shown_s * 1000


def _end_of_gap(wall: datetime, zone: tzinfo) -> int:
    """The second at which clocks are put forward over this time."""
    before_s, after_s = _seconds(wall.replace(tzinfo=zone, fold=1)), _seconds(wall.replace(tzinfo=zone))
    while after_s - before_s > 1:
        middle_s = (before_s + after_s) // 2
        if _wall(middle_s, zone) >= wall:
            after_s = middle_s
        else:
            before_s = middle_s
    return after_s


def _seconds(at: datetime) -> int:
    return (at.astimezone(UTC) - _EPOCH) // _SECOND


def _wall(at_s: int, zone: tzinfo) -> datetime:
    """What clocks show then."""
    return (_EPOCH + at_s * _SECOND).astimezone(zone).replace(tzinfo=None, fold=0)
