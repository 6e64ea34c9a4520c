"""An axis of scale: what is made larger, the points that are measured, and what was found at each."""

import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from statistics import median

from msgspec import Struct

from tests.bench.brokers import Brokers
from tests.bench.measuring import Tell


class Point(Struct, frozen=True):
    """What was measured at one point, or the median of several times."""

    x: float
    series: str
    """Empty where the axis has but one."""
    rate: float
    """Items per second, by the clock."""
    cpu_us: float
    """Of all workers, per item."""
    settle_s: float
    """From the moment that there is something to do until nothing is left, by the clock."""
    memory_mb: float
    """What the workers' processes grew by, at most; MiB."""
    lag_ms: float
    """The 99th percentile of how late a worker's loop ran a timer that may be due at any moment."""
    own: float = 0.0
    """What this axis measures besides."""


class Bench(Struct, frozen=True):
    """What an axis measures with."""

    brokers: Brokers
    tell: Tell


class Axis(Struct, frozen=True):
    """One thing that is made larger while all else stays."""

    name: str
    """For `--only`, and of its plot's file."""
    title: str
    unit: str
    """Of its points."""
    item: str
    """What is counted per second."""
    what: str
    """How it is measured."""
    points: tuple[float, ...]
    quick: tuple[float, ...]
    """For a look at whether all works."""
    measure: Callable[[Bench, float], Awaitable[list[Point]]]
    """Measures one point, once: a `Point` for each series."""
    bends: str
    """What gives way first, and what to turn then: half a sentence."""
    rounds: int = 3
    own: str = ""
    """What `Point.own` is, with its unit."""


class Taken(Struct, frozen=True):
    """Where and with what an axis was measured."""

    date: str
    machine: str
    cores: int
    python: str
    versions: str
    load: float
    """Of the machine, over the minute before it began: others were at work if that is more than nothing."""
    niceness: int


class Found(Struct, frozen=True):
    """An axis as it was measured."""

    taken: Taken
    points: list[Point]


Figures = dict[str, Found]
"""By the name of the axis."""


def medians(points: Iterable[Point]) -> list[Point]:
    """One point for each place, of all that were measured there."""
    places: dict[tuple[float, str], list[Point]] = {}
    for point in points:
        places.setdefault((point.x, point.series), []).append(point)
    members = [name for name in Point.__struct_fields__ if name not in {"x", "series"}]
    return [
        Point(x, series, **{name: _rounded(median(getattr(each, name) for each in there)) for name in members})
        for (x, series), there in places.items()
    ]


def _rounded(value: float) -> float:
    """Four digits: no figure here is better than that."""
    return float(f"{value:.4g}")


def series_of(points: Iterable[Point]) -> Mapping[str, list[Point]]:
    """The points by series, each in the order of the axis."""
    series: dict[str, list[Point]] = {}
    for point in sorted(points, key=lambda each: each.x):
        series.setdefault(point.series, []).append(point)
    return series


def growth(points: list[Point]) -> str:
    """What becomes of the figures from the first point of an axis to its last, in words."""
    first, last = points[0], points[-1]
    parts = []
    members = {"throughput": "rate", "CPU per item": "cpu_us", "memory": "memory_mb", "loop lag": "lag_ms"}
    for name, value in members.items():
        before, after = getattr(first, value), getattr(last, value)
        if before > 0:
            parts.append(f"{name} {after / before:.2g} ×")
    times = last.x / first.x
    return f"{', '.join(parts)} when it grows {_times(times)} ×"


def _times(times: float) -> str:
    return f"{times:,.0f}" if times >= 10 or math.isclose(times, round(times)) else f"{times:.1f}"
