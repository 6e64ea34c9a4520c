"""`make bench-peers`: the `consume` row beside the same events in Quix Streams, exactly-once, on the same broker and core.

Quix Streams is no library of ours. It is looked for in an environment of its own, `.venv-quix` (or that of the
interpreter `QUIX_PYTHON`):

    python3.11 -m venv .venv-quix && .venv-quix/bin/pip install quixstreams

Without it only cartsync is measured, and that is said. What the other program does is less (`quix.py`), so the ratio is
not one of like to like: it says what order of magnitude a general framework in Python has.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.brokers import Brokers, write_events
from tests.bench.measuring import Tell
from tests.bench.processes import ROOT, ProcessError, cores, run
from tests.shops.load import EVENTS_PER_ORDER, in_log_order

ORDERS = 20_000
ROUNDS = 3
INTERVALS_S = (0.1, 1.0)
"""Between two commits of Quix Streams; cartsync's are 50 to 100 ms apart."""
WITHIN_S = 600.0

Taken = tuple[int, float, float]
"""Events, seconds, seconds of CPU."""


def python_with_quix() -> Path | None:
    """The interpreter that has Quix Streams, if one does."""
    python = Path(os.environ.get("QUIX_PYTHON", ROOT / ".venv-quix" / "bin" / "python"))
    if not python.exists():
        return None
    found = subprocess.run([python, "-c", "import quixstreams"], capture_output=True, check=False)
    return python if found.returncode == 0 else None


async def quix(python: Path, settings: dict[str, Any], total: int, commit_interval_s: float) -> Taken:
    """One run, in a process of its own on the measured core. Raises `ProcessError`."""
    with tempfile.TemporaryDirectory() as folder:
        asked = settings | {"total": total, "commit_interval_s": commit_interval_s, "folder": folder}
        child = await asyncio.create_subprocess_exec(
            *["taskset", "-c", ",".join(map(str, cores()[0]))],
            *[str(python), str(Path(__file__).with_name("quix.py")), json.dumps(asked)],
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            said, complaints = await asyncio.wait_for(child.communicate(), WITHIN_S)
        except TimeoutError:
            child.kill()
            raise ProcessError(f"Quix Streams: nothing for {WITHIN_S:g} s") from None
    if child.returncode:
        raise ProcessError(f"Quix Streams has failed\n{complaints.decode(errors='replace')[-4000:]}")
    count, took_s, cpu_s = json.loads(said.splitlines()[-1])
    return count, took_s, cpu_s


async def measure(orders: int, rounds: int, tell: Tell) -> dict[str, list[Taken]]:
    """All by turns; each begins anew."""
    python = python_with_quix()
    if python is None:
        tell("skipped: Quix Streams is not installed (python3.11 -m venv .venv-quix, pip install quixstreams there)")
    found: dict[str, list[Taken]] = {}
    with Brokers() as brokers:
        tell("starting Kafka, writing events")
        settings = await brokers.topics()
        total = await write_events(settings, in_log_order(2, orders))
        for number in range(rounds):
            tell(f"round {number + 1} of {rounds}: cartsync")
            fresh = await brokers.topics(settings["event_topic"])
            taken: Taken = await run("consuming:ours", {"settings": fresh, "total": total}, WITHIN_S)
            found.setdefault("cartsync", []).append(taken)
            for interval_s in INTERVALS_S if python is not None else ():
                name = f"Quix Streams, exactly-once, commits every {interval_s:g} s"
                tell(f"round {number + 1} of {rounds}: {name}")
                assert python is not None
                fresh = brokers.settings(settings["event_topic"])
                found.setdefault(name, []).append(await quix(python, fresh, total, interval_s))
    return found


def show(found: dict[str, list[Taken]]) -> Table:
    """The medians, and CPU beside cartsync's of the same round."""
    table = Table("what", "events/s", "CPU, µs each", "CPU beside cartsync")
    ours = [cpu_s / count for count, _, cpu_s in found["cartsync"]]
    for name, rounds in found.items():
        costs = [cpu_s / count for count, _, cpu_s in rounds]
        table.add_row(
            name,
            f"{median(count / took_s for count, took_s, _ in rounds):,.0f}",
            f"{1e6 * median(costs):.1f}",
            f"{median(cost / our for cost, our in zip(costs, ours, strict=True)):.2f}",
        )
    return table


def main() -> int:
    """0 when something was measured."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.peers", description="Others who take the same events")
    parser.add_argument("--orders", type=int, default=ORDERS, help=f"with {EVENTS_PER_ORDER} events each")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    asked = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 150)

    def tell(text: str) -> None:
        console.print(text, markup=False, highlight=False)

    console.print(show(asyncio.run(measure(asked.orders, asked.rounds, tell))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
