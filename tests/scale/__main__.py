"""`make scale`: how throughput, time to settle, memory and loop lag grow, as tables and pictures in `deploy/SCALE.md`.

python -m tests.scale                                        everything, 20 to 30 minutes on two cores
python -m tests.scale --only accounts latency                some axes; the others stay as they were measured
python -m tests.scale --only accounts --points 1 100         other points of one axis
python -m tests.scale --quick                                few small points, into .cartsync/scale/
python -m tests.scale --redraw                               the page again, from the figures beside it
"""

import argparse
import asyncio
import os
import platform
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from msgspec.structs import replace
from rich.console import Console

from tests.bench.brokers import Brokers
from tests.bench.processes import ROOT, ProcessError
from tests.scale import page
from tests.scale.axes import AXES
from tests.scale.measuring import Axis, Bench, Figures, Found, Point, Taken, medians
from worker.errors import CartsyncError
from worker.tools.kafka_jars import JARS

_LIBRARIES = ("aiokafka", "httptools", "msgspec", "uvloop")


def _kafka() -> str:
    """The version of the jars that the brokers are started from."""
    jars = Path(os.environ.get("KAFKA_JARS", JARS))
    return next((file.stem.removeprefix("kafka-clients-") for file in jars.glob("kafka-clients-*.jar")), "unknown")


def _taken() -> Taken:
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return Taken(
        date=datetime.now(UTC).date().isoformat(),
        machine=cpu,
        cores=len(os.sched_getaffinity(0)),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        versions=", ".join([f"Kafka {_kafka()}", *(f"{name} {version(name)}" for name in _LIBRARIES)]),
        load=round(os.getloadavg()[0], 1),
        niceness=os.nice(0),
    )


async def _measure(axes: Sequence[Axis], folder: Path, console: Console) -> bool:
    """Writes the page after each axis, so that an end in between costs one. False: some could not be measured."""
    figures: Figures = page.read(folder)
    is_complete = True
    began = time.monotonic()
    with Brokers() as brokers:
        for axis in axes:
            taken = _taken()
            points: list[Point] = []
            try:
                for x in axis.points:
                    for number in range(axis.rounds):

                        def tell(text: str, axis: Axis = axis, x: float = x) -> None:
                            console.print(
                                f"{time.monotonic() - began:5.0f} s  {axis.name} {x:,.0f}: {text}", highlight=False
                            )

                        tell(f"round {number + 1} of {axis.rounds}")
                        found = await axis.measure(Bench(brokers, tell), x)
                        points += found
                        for each in found:
                            settle = f"{each.rate:,.0f}/s, {each.cpu_us:,.1f} µs, {each.settle_s:.2f} s"
                            tell(
                                f"{each.series or axis.item}: {settle}, {each.memory_mb:,.0f} MiB, lag {each.lag_ms:.1f} ms"
                            )
            except (ProcessError, CartsyncError) as error:
                is_complete = False
                console.print(f"not measured: {axis.name}: {error}", markup=False, highlight=False)
                continue
            figures[axis.name] = Found(taken, medians(points))
            page.write(folder, AXES, figures)
    return is_complete


def main() -> int:
    """0 when all was measured; 1 when something could not be."""
    names = [axis.name for axis in AXES]
    parser = argparse.ArgumentParser(prog="python -m tests.scale", description="How it grows, as tables and pictures")
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="some axes")
    parser.add_argument("--points", nargs="+", type=float, help="other points; with one axis of --only")
    parser.add_argument("--rounds", type=int, help="how often each point is measured; the median counts")
    parser.add_argument("--quick", action="store_true", help="few small points, once, into .cartsync/scale/")
    parser.add_argument("--redraw", action="store_true", help="the page again, without measuring")
    parser.add_argument("--into", type=Path, help="the folder of the page (deploy)")
    asked = parser.parse_args()
    if asked.points and len(asked.only) != 1:
        parser.error("--points needs --only with one axis")
    folder: Path = asked.into or (ROOT / ".cartsync" / "scale" if asked.quick else ROOT / "deploy")
    folder.mkdir(parents=True, exist_ok=True)
    console = Console(width=None if sys.stdout.isatty() else 150)
    if asked.redraw:
        page.write(folder, AXES, page.read(folder))
        return 0
    axes = [
        replace(
            axis,
            points=tuple(asked.points or (axis.quick if asked.quick else axis.points)),
            rounds=asked.rounds or (1 if asked.quick else axis.rounds),
        )
        for axis in AXES
        if axis.name in asked.only
    ]
    is_complete = asyncio.run(_measure(axes, folder, console))
    console.print(f"written: {folder / page.PAGE}", highlight=False)
    return int(not is_complete)


if __name__ == "__main__":
    sys.exit(main())
