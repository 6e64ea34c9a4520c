"""`make bench`: what cartsync does in a second, each figure beside a limit that was measured in the same run.

    python -m tests.bench                 all rows, about ten minutes
    python -m tests.bench --only reduce   one of them
    BENCH_JSON=FILE                       also writes the figures there

A limit is what the least program does that a person could write for the same task with the same libraries, without
any of the guarantees: no fence, no outbox, no carts. The absolute numbers are of this machine and of this moment;
the ratios are what to compare.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench import (
    answering,
    capturing,
    console,
    consuming,
    disk,
    receiving,
    reducing,
    restoring,
    sending,
    takeover,
    worst,
)
from tests.bench.brokers import Brokers
from tests.bench.measuring import Figure, Row, Tell
from tests.bench.processes import ProcessError
from worker.errors import CartsyncError

Measure = Callable[[Brokers, Tell], Awaitable[list[Figure]]]

MEASURES: tuple[tuple[Measure, tuple[Row, ...]], ...] = (
    (reducing.measure, (reducing.REDUCE,)),
    (reducing.measure_shipment, (reducing.SHIPMENT,)),
    (worst.measure, (worst.WORST,)),
    (consuming.measure, (consuming.CONSUME,)),
    (consuming.measure_history, (consuming.HISTORY,)),
    (consuming.measure_catchup, (consuming.CATCHUP,)),
    (sending.measure, (sending.UPDATE,)),
    (sending.measure_log, (sending.LOG_FILE, sending.LOG_PIPE)),
    (capturing.measure, (capturing.CAPTURE,)),
    (answering.measure, (answering.P50, answering.P99)),
    (receiving.measure, (receiving.RECEIVE,)),
    (receiving.measure_wait, (receiving.RECEIVE_P99,)),
    (receiving.measure_questions, (receiving.ASK,)),
    (restoring.measure, (restoring.RESTORE, restoring.MEMORY)),
    (disk.measure_consume, (disk.CONSUME_ROW,)),
    (disk.measure_consume_cold, (disk.CONSUME_COLD_ROW,)),
    (disk.measure, disk.ROWS),
    (takeover.measure, (takeover.TAKEOVER,)),
    (console.measure, console.ROWS),
)
NOTES = """\
ratio: the median over rounds, which take turns with the limit's; spread: its least and greatest; by CPU: the same in
CPU time of the measured process. What is measured runs alone in a process pinned to one core; brokers, servers and
shops run on the others. Both sides use uvloop, the collector settings of `cartsync run`, and log from `warning` on.\
"""


async def _run(only: str | None, console: Console) -> tuple[list[Figure], bool]:
    """The figures, and whether some of them could not be had."""
    figures: list[Figure] = []
    is_lacking = False
    began = time.monotonic()
    with Brokers() as brokers:
        for measure, rows in MEASURES:
            names = [row.name for row in rows]
            if only is not None and only not in names:
                continue

            def tell(text: str, names: list[str] = names) -> None:
                console.print(f"{time.monotonic() - began:5.0f} s  {', '.join(names)}: {text}", highlight=False)

            try:
                figures += [figure for figure in await measure(brokers, tell) if only in (None, figure.row.name)]
            except (ProcessError, CartsyncError) as error:
                is_lacking = True
                console.print(f"not measured: {', '.join(names)}: {error}", markup=False, highlight=False)
    return figures, is_lacking


def _show(figures: list[Figure], console: Console) -> None:
    table = Table(show_lines=True)
    for column in ("row", "what", "cartsync", "limit", "ratio", "spread", "by CPU", "target", "met"):
        table.add_column(column, justify="right" if column in {"cartsync", "ratio", "by CPU"} else "left")
    for figure in figures:
        table.add_row(*figure.as_texts())
    console.print(table)
    console.print(NOTES, highlight=False, markup=False)


def main() -> int:
    """0 when all was measured, whether or not the targets are met; 1 when something could not be."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Figures beside their limits")
    parser.add_argument("--only", choices=[row.name for _, rows in MEASURES for row in rows], help="one row")
    console = Console(width=None if sys.stdout.isatty() else 150)
    figures, is_lacking = asyncio.run(_run(parser.parse_args().only, console))
    _show(figures, console)
    if file := os.environ.get("BENCH_JSON"):
        Path(file).write_text(json.dumps([figure.as_json() for figure in figures], indent=2) + "\n")
    return int(is_lacking)


if __name__ == "__main__":
    sys.exit(main())
