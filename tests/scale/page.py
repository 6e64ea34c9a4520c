"""`deploy/SCALE.md` and its pictures, from figures that were measured at any time."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.scale.measuring import Axis, Figures, Found, Point, Taken, growth, series_of
from tests.scale.plots import Panel, picture

PAGE, PICTURES, FIGURES = "SCALE.md", "scale", "scale/figures.json"
"""In the folder of the page."""

_HEAD = """\
# How it scales

One thing after the other is made larger, everything else stays: throughput, time to settle, memory, and how late the
event loop runs its timers. `make scale` measures all of it on your machine and writes this page (20 to 30 minutes;
`make scale ARGS="--only accounts"` one part of it, `ARGS=--quick` a look at whether it works). The figures are beside it in
[{figures}]({figures}); `make scale ARGS=--redraw` writes the page again from them.

*Per second* and *to settle* are by the clock, so what other programs take away shows in them; *CPU* is the time of the
workers' processes alone, *loop lag* is cut down to what the loop itself was busy with. Brokers, providers and shops run
on other cores than a worker, where there are any. A worker that waits takes some thousandths of a core: where items are
rare, that is the CPU of each. Memory is what the worker's process grows by, in MiB.
"""
_CPU_IDLE = 0.3
"""Of a core: a machine on which others use more than this is busy."""


def write(folder: Path, axes: Sequence[Axis], figures: Figures) -> None:
    """Writes the page, a picture for each axis that was measured, and the figures."""
    (folder / PICTURES).mkdir(exist_ok=True)
    measured = [axis for axis in axes if axis.name in figures]
    figures = {axis.name: figures[axis.name] for axis in measured}
    (folder / FIGURES).write_bytes(msgspec.json.format(msgspec.json.encode(figures), indent=1) + b"\n")
    figures = read(folder)  # as whoever draws it again has them
    for axis in measured:
        picture_of = folder / PICTURES / f"{axis.name}.svg"
        picture_of.write_text(draw(axis, figures[axis.name].points), encoding="utf-8")
    (folder / PAGE).write_text(text(measured, figures), encoding="utf-8")


def read(folder: Path) -> Figures:
    """The figures beside the page; none when there are none yet. Raises `msgspec.DecodeError`."""
    file = folder / FIGURES
    return msgspec.json.decode(file.read_bytes(), type=dict[str, Found]) if file.exists() else {}


def text(axes: Sequence[Axis], figures: Figures) -> str:
    """The page."""
    parts = [_HEAD.format(figures=FIGURES)]
    for axis in axes:
        found = figures[axis.name]
        parts += [
            f"## {axis.title}\n",
            f"{_sentence(axis, found)}\n",
            f"![{axis.title}: throughput, CPU, time to settle, memory, loop lag]({PICTURES}/{axis.name}.svg)\n",
            _table(axis, found.points),
            f"Measured: {axis.what}. {_taken(found.taken)}\n",
        ]
    return "\n".join(parts)


def _sentence(axis: Axis, found: Found) -> str:
    is_quiet = found.taken.load <= _CPU_IDLE
    lines = series_of(found.points).items()
    grown = [(name, growth(line, by_clock=is_quiet)) for name, line in lines if len(line) > 1]
    said = "; ".join(f"{name}: {how}" if name else how for name, how in grown)
    return f"{said[:1].upper()}{said[1:]}; {axis.bends}." if said else f"{axis.bends[:1].upper()}{axis.bends[1:]}."


def _taken(taken: Taken) -> str:
    busy = ""
    if taken.load > _CPU_IDLE:
        nice = f" and niced by {taken.niceness}" if taken.niceness else ""
        busy = f", beside other work (load {taken.load:.1f}){nice}: go by CPU"
    return f"{taken.date}, {taken.cores} cores of {taken.machine}, {taken.python}, {taken.versions}{busy}."


def _table(axis: Axis, points: Sequence[Point]) -> str:
    own = [axis.own] if axis.own else []
    heads = [
        axis.unit,
        f"{axis.item}s/s" if " " not in axis.item else "per second",
        "CPU, µs each",
        "to settle, s",
        "memory, MiB",
        "loop lag p99, ms",
        *own,
    ]
    rows = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name, line in series_of(points).items():
        for each in line:
            place = f"{each.x:,.0f}{f', {name}' if name else ''}"
            figures = (each.rate, each.cpu_us, each.settle_s, each.memory_mb, each.lag_ms, *([each.own] if own else []))
            rows.append("| " + " | ".join([place, *map(_number, figures)]) + " |")
    return "\n".join([*rows, ""])


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def draw(axis: Axis, points: Sequence[Point]) -> str:
    """Its picture."""
    panels = [
        ("Throughput, per second", "rate"),
        ("CPU of each, µs", "cpu_us"),
        ("Time to settle, s", "settle_s"),
        ("Memory, MiB", "memory_mb"),
        ("Loop lag p99, ms", "lag_ms"),
        *([(f"{axis.own[:1].upper()}{axis.own[1:]}", "own")] if axis.own else []),
    ]
    series = series_of(points)
    return picture(
        axis.title,
        [
            Panel(
                title,
                axis.unit,
                {name: [(each.x, getattr(each, member)) for each in line] for name, line in series.items()},
            )
            for title, member in panels
        ],
    )
