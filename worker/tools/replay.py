"""Runs events from a JSON-lines file through the same reducer and publisher as a worker does.

Each line is one CloudEvents object, as a record's value in structured mode; its subject serves as the key. With
`--dry-run` nothing is sent: the updates are printed, and no time passes but on a virtual clock.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

import msgspec

from schemas.updates import Account, Fault, HttpRequest, HttpResponse
from schemas.views import OrderView
from worker import __version__
from worker.app import Ports, SystemClock, Worker
from worker.config import worker_settings_from
from worker.core.rules import Rules
from worker.errors import UsageError
from worker.metrics import Metrics
from worker.ports import Clock, Sender
from worker.publisher.sender import HttpSender
from worker.sim.log import MemoryLog
from worker.sim.loop import VirtualClock, VirtualLoop

_SETTINGS = {"max_poll_records": 1_000_000, "max_batch_records": 1_000_000}
_PROGRESS_S = 2.0


class _Printer:
    """`ports.Sender` that prints what would be sent, and takes it as sent."""

    def __init__(self, out: TextIO, as_json: bool) -> None:
        self.failure: OSError | None = None
        """Why nothing more can be printed."""
        self._out = out
        self._as_json = as_json

    async def send(
        self, request: HttpRequest, _deadline_s: float, _may_send: Callable[[], bool]
    ) -> HttpResponse | Fault:
        """Prints the request, its credentials left out."""
        body: Any = json.loads(request.body)
        if self._as_json:
            line = {"method": request.method, "url": request.url, "body": body}
            text = json.dumps(line, ensure_ascii=False) + "\n"
        else:
            text = f"{request.method} {request.url}\n{json.dumps(body, indent=2, ensure_ascii=False)}\n"
        try:
            self._out.write(text)
        except OSError as error:
            self.failure = error
        return HttpResponse(204, {}, b"")

    async def close(self) -> None:
        """Nothing to close."""


def read_lines(path: Path) -> list[tuple[int, bytes, bytes]]:
    """(line number, key, value) of each line that is not empty. Raises `UsageError` for what cannot be read."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    found: list[tuple[int, bytes, bytes]] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                event = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UsageError(f"{path}, line {number}: expected a JSON object: {error}") from None
            if not isinstance(event, dict):
                raise UsageError(f"{path}, line {number}: expected a JSON object")
            found.append((number, str(event.get("subject") or number).encode("utf-8", "surrogatepass"), line))
    return found


def run_replay(path: Path, accounts: Mapping[str, Account], *, dry_run: bool, as_json: bool = False) -> int:
    """Replays the file; 0 when every event was taken and every order settled, 1 when not."""
    lines = read_lines(path)
    if dry_run:
        loop = VirtualLoop()
        try:
            return loop.run_until_complete(_replay(lines, accounts, VirtualClock(loop), None, as_json))
        finally:
            loop.close()
    return asyncio.run(_replay_for_real(lines, accounts, as_json))


async def _replay_for_real(
    lines: list[tuple[int, bytes, bytes]], accounts: Mapping[str, Account], as_json: bool
) -> int:
    sender = HttpSender(deadline_s=Rules().attempt_deadline_s, user_agent=f"cartsync/{__version__}", accounts=accounts)
    try:
        return await _replay(lines, accounts, SystemClock(), sender, as_json)
    finally:
        await sender.close()


async def _replay(
    lines: list[tuple[int, bytes, bytes]],
    accounts: Mapping[str, Account],
    clock: Clock,
    sender: Sender | None,
    as_json: bool,
) -> int:
    log = MemoryLog(1, clock)
    # As if they were written now, whatever the clock says that a dry run goes by.
    now_ms = time.time_ns() // 1_000_000
    offsets = {log.append(key, value, timestamp_ms=now_ms)[1]: number for number, key, value in lines}
    settings = worker_settings_from(_SETTINGS)
    printer = _Printer(sys.stdout, as_json)
    ports = Ports(clock, log.events("replay"), log.states("replay"), sender or printer)
    worker = Worker(settings, accounts, ports, owner_id="replay", metrics=Metrics())
    await worker.start()
    await worker.serving()
    while not (_at_rest(worker) or printer.failure):
        if worker.failed.done():
            raise worker.failed.result()
        await asyncio.sleep(_PROGRESS_S if sender is not None else 0.05)
        if sender is not None:
            sys.stderr.write(f"{sum(p.owed for p in worker.status().partitions)} orders owed\n")
    views = worker.shown()
    await worker.stop(drain_s=0.0)
    if printer.failure is not None:
        raise printer.failure
    for letter in log.dead_letters:
        said = dict(letter.headers)
        number = offsets[int(said["x-dlq-offset"])]
        sys.stderr.write(f"line {number} refused: {said['x-dlq-reason'].decode()}: {said['x-dlq-detail'].decode()}\n")
    return _conclude(views, len(log.dead_letters), as_json)


def _at_rest(worker: Worker) -> bool:
    """Nothing more will happen by itself: what is still owed waits for an account."""
    return worker.idle() or worker.is_stuck()


def _conclude(views: list[OrderView], refused: int, as_json: bool) -> int:
    counts = Counter(view.status for view in views)
    for view in views:
        if view.status != "settled":
            sys.stderr.write(f"{view.subject}: {view.status}: {view.reason}\n")
    summary = {"orders": len(views), "refused_events": refused}
    summary |= {str(status): count for status, count in counts.items()}
    if as_json:
        sys.stdout.write(msgspec.json.encode({"summary": summary}).decode() + "\n")
    else:
        sys.stdout.write(", ".join(f"{name.replace('_', ' ')} {count}" for name, count in summary.items()) + "\n")
    return 1 if refused or counts.total() != counts["settled"] else 0
