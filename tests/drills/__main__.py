"""`make drills`: each alert is provoked on real processes, and its section of the runbook is done word for word.

    python -m tests.drills                             all of them, 20 minutes at most
    python -m tests.drills --only CartsyncOrdersParked one (or several, with commas), a minute
    python -m tests.drills --write                     writes the table of deploy/DRILLS.md, too
    python -m tests.drills --list                      their names, and how each is provoked

Exits with 0 when every alert fired, its section helped, and it was over; 1 when one did not; 2 when something that
drills need is missing. What is needed: Kafka (Java and Maven), and a Prometheus on the PATH or made by `make tools`.
"""

import argparse
import asyncio
import shutil
import signal
import sys
import time
import traceback
from contextlib import AsyncExitStack
from pathlib import Path

import uvloop
from rich.console import Console

from tests.drills import input as _input
from tests.drills import owning, receiving, sending, table, watching
from tests.drills.drill import DRILLS, Drill
from tests.drills.rules import rules
from tests.drills.scene import Scene, Watched
from tests.programs import find_program
from worker.tools.local_kafka import JARS, LocalKafka, missing_requirements

MODULES = (_input, owning, receiving, sending, watching)
"""Those that define drills."""
FOLDER = Path(".cartsync/drills")
_WITHIN_S = 300.0
"""One drill."""


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.drills", description="Every alert, and what its section says"
    )
    parser.add_argument("--only", default="", help="names of alerts, with commas")
    parser.add_argument(
        "--at-once", type=int, default=3, help="so many drills at a time (default: 3): they mostly wait"
    )
    parser.add_argument("--write", action="store_true", help="write what came of it into deploy/DRILLS.md")
    parser.add_argument("--list", action="store_true", help="only say which there are")
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"for logs; emptied before (default: {FOLDER})")
    return parser.parse_args()


async def play(drill: Drill, shared: LocalKafka, folder: Path, program: str) -> Watched:
    """Plays one drill. Raises what went wrong in it."""
    async with asyncio.timeout(_WITHIN_S), AsyncExitStack() as stack:
        kafka = shared
        if drill.nodes:
            kafka = LocalKafka(drill.nodes)
            stack.callback(kafka.stop)
            await asyncio.to_thread(kafka.start)
        scene = Scene(drill, kafka, folder / drill.alert, program)
        await stack.enter_async_context(scene)
        await drill.play(scene)
        return scene.seen


async def _play_all(drills: list[Drill], options: argparse.Namespace, program: str, console: Console) -> int:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    folder, at_once = options.folder.absolute(), asyncio.Semaphore(options.at_once)
    seen: dict[str, Watched] = {}
    failed: list[str] = []
    began = time.monotonic()

    async def one(drill: Drill) -> None:
        async with at_once:
            began_at = time.monotonic()
            try:
                seen[drill.alert] = found = await play(drill, shared, folder, program)
            except Exception:  # noqa: BLE001 - the others go on
                failed.append(drill.alert)
                text = f"FAILED {drill.alert}: logs in {folder / drill.alert}\n{traceback.format_exc()}"
            else:
                others = f"; also {', '.join(sorted(found.others))}" if found.others else ""
                text = f"fired after {found.fired_s:.1f} s, over after {found.resolved_s:.1f} s{others}"
            took = f"{time.monotonic() - began:5.0f} s  {drill.alert} ({time.monotonic() - began_at:.0f} s): {text}"
            console.print(took, highlight=False, markup=False, soft_wrap=True)

    shared = LocalKafka()
    await asyncio.to_thread(shared.start)
    try:
        async with asyncio.TaskGroup() as group:
            for drill in drills:
                group.create_task(one(drill))
    finally:
        await asyncio.to_thread(shared.stop)
    if options.write:
        table.write(seen)
    text = (
        f"{len(seen)} of {len(drills)} alerts fired and were ended by their sections; {time.monotonic() - began:.0f} s"
    )
    console.print(text, highlight=False)
    return 1 if failed else 0


def main() -> int:
    """The exit code."""
    options = _options()
    console = Console(width=None if sys.stdout.isatty() else 140)
    wanted = [name for name in options.only.split(",") if name] or [rule["alert"] for rule in rules()]
    if unknown := [name for name in wanted if name not in DRILLS]:
        console.print(f"no drill of {', '.join(unknown)}; there are {', '.join(DRILLS)}", highlight=False)
        return 2
    drills = [DRILLS[name] for name in wanted]
    if options.list:
        for drill in drills:
            console.print(f"{drill.alert}: {drill.provoked}", highlight=False, markup=False, soft_wrap=True)
        return 0
    program = find_program("prometheus")
    missing = missing_requirements(JARS) + ([] if program else ["no prometheus on the PATH: `make tools` builds one"])
    if missing or program is None:
        console.print("; ".join(missing), markup=False, highlight=False)
        return 2
    shutil.rmtree(options.folder, ignore_errors=True)
    options.folder.mkdir(parents=True)
    try:
        return uvloop.run(_play_all(drills, options, program, console))
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("stopped: everything that was started has ended")
        return 130


if __name__ == "__main__":
    sys.exit(main())
