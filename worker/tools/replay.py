"""Runs events from a JSON-lines file through the same reducer and publisher as a worker does.

Each line is one CloudEvents object, as a record's value in structured mode; its subject serves as the key. Nothing is
sent unless it is asked for: the updates are printed, and no time passes but on a virtual clock.

Sending overwrites what the provider holds with what the file alone leads to. So it is said which orders these are, it
is refused beside a running worker, whose state would be another one from then on, and its idempotency keys are its own.
"""

import asyncio
import json
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import msgspec
from msgspec.structs import replace

from schemas.views import OrderView
from worker import __version__, logs
from worker.app import Ports, SystemClock, Worker
from worker.config import worker_settings_from
from worker.core.policy import DeliveryPolicy
from worker.errors import TwoOwnersError, UsageError
from worker.metrics import Metrics
from worker.model.account import Account
from worker.model.exchange import Fault, HttpRequest, HttpResponse
from worker.ports import Clock, Sender
from worker.publisher.sender import HttpSender
from worker.sim.log import MemoryLog
from worker.sim.loop import VirtualClock, VirtualLoop

_SETTINGS = {"max_poll_records": 1_000_000, "max_batch_records": 1_000_000}
_PROGRESS_S = 2.0
_SHOWN_MAX = 20
"""Orders that are named before they are overwritten."""


class _Printer:
    """`ports.Sender` that prints what would be sent, and takes it as sent."""

    def __init__(self, out: TextIO | None, as_json: bool) -> None:
        """`out`: `None` to print nothing."""
        self.failure: OSError | None = None
        """Why nothing more can be printed."""
        self.told: dict[str, None] = {}
        """`METHOD url` of what would be sent, each once."""
        self.is_silent = out is None
        self._out = out
        self._as_json = as_json

    async def send(
        self, request: HttpRequest, _deadline_s: float, _may_send: Callable[[], bool]
    ) -> HttpResponse | Fault:
        """Prints the request, its credentials left out."""
        self.told[f"{request.method} {request.url}"] = None
        if self._out is None:
            return HttpResponse(204, {}, b"")
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


class _OwnKeys:
    """`ports.Sender` whose idempotency keys no worker has used, nor another replay: a provider that honours keys would
    otherwise take a new request for one that it knows.
    """

    def __init__(self, sender: Sender, run_id: str) -> None:
        self._sender = sender
        self._prefix = f"replay-{run_id}:"

    async def send(self, request: HttpRequest, deadline_s: float, may_send: Callable[[], bool]) -> HttpResponse | Fault:
        """Sends the request under a key of this run."""
        key = request.headers.get("Idempotency-Key")
        if key is not None:
            request = replace(request, headers=request.headers | {"Idempotency-Key": self._prefix + key})
        return await self._sender.send(request, deadline_s, may_send)

    async def close(self) -> None:
        """Closes all connections."""
        await self._sender.close()


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


def run_replay(
    path: Path,
    accounts: Mapping[str, Account],
    *,
    send: bool,
    as_json: bool = False,
    workers: Callable[[], Sequence[str]] | None = None,
) -> int:
    """Replays the file; 0 when every event was taken and every order settled, 1 when not.

    `workers`: tells which workers are running, where that can be known. Raises `TwoOwnersError` when there are any and
    something is to be sent.
    """
    lines = read_lines(path)
    if not send:
        return _rehearse(lines, accounts, _Printer(sys.stdout, as_json), as_json)
    if workers is not None and (running := workers()):
        raise TwoOwnersError(
            f"replay --send beside running workers ({', '.join(running)}) would overwrite what they told, and they "
            "would not know: stop them first, or have them tell an order again with `cartsync order resend`"
        )
    _announce(path, lines, accounts)
    return asyncio.run(_replay_for_real(lines, accounts, as_json))


def _rehearse(
    lines: list[tuple[int, bytes, bytes]], accounts: Mapping[str, Account], printer: _Printer, as_json: bool
) -> int:
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(_replay(lines, accounts, VirtualClock(loop), printer, as_json))
    finally:
        loop.close()


def _announce(path: Path, lines: list[tuple[int, bytes, bytes]], accounts: Mapping[str, Account]) -> None:
    """Says what is about to be overwritten."""
    printer = _Printer(None, as_json=False)
    with logs.capture([]):  # it will all be said again
        _rehearse(lines, accounts, printer, as_json=False)
    sys.stderr.write(
        f"{len(printer.told)} orders are overwritten with what {path} alone leads to, whatever is held of them now:\n"
    )
    for told in list(printer.told)[:_SHOWN_MAX]:
        sys.stderr.write(f"  {told}\n")
    if len(printer.told) > _SHOWN_MAX:
        sys.stderr.write(f"  and {len(printer.told) - _SHOWN_MAX} more\n")


async def _replay_for_real(
    lines: list[tuple[int, bytes, bytes]], accounts: Mapping[str, Account], as_json: bool
) -> int:
    http = HttpSender(
        deadline_s=DeliveryPolicy().attempt_deadline_s, user_agent=f"cartsync/{__version__}", accounts=accounts
    )
    sender = _OwnKeys(http, uuid.uuid4().hex[:12])
    try:
        return await _replay(lines, accounts, SystemClock(), sender, as_json)
    finally:
        await sender.close()


async def _replay(
    lines: list[tuple[int, bytes, bytes]],
    accounts: Mapping[str, Account],
    clock: Clock,
    sender: Sender,
    as_json: bool,
) -> int:
    log = MemoryLog(1, clock)
    # As if they were written now, whatever the clock says that a dry run goes by.
    now_ms = time.time_ns() // 1_000_000
    offsets = {log.append(key, value, timestamp_ms=now_ms)[1]: number for number, key, value in lines}
    settings = worker_settings_from(_SETTINGS)
    printer = sender if isinstance(sender, _Printer) else None
    ports = Ports(clock, log.events("replay"), log.states("replay"), sender)
    worker = Worker(settings, accounts, ports, owner_id="replay", metrics=Metrics())
    await worker.start()
    await worker.serving()
    while not (_at_rest(worker) or (printer is not None and printer.failure)):
        if worker.failed.done():
            raise worker.failed.result()
        await asyncio.sleep(_PROGRESS_S if printer is None else 0.05)
        if printer is None:
            sys.stderr.write(f"{sum(p.owed for p in worker.status().partitions)} orders owed\n")
    views = worker.shown()
    await worker.stop(drain_s=0.0)
    if printer is not None and printer.failure is not None:
        raise printer.failure
    if printer is not None and printer.is_silent:
        return 0
    for letter in log.dead_letters:
        said = dict(letter.headers)
        number = offsets[int(said["x-dlq-offset"])]
        sys.stderr.write(f"line {number} refused: {said['x-dlq-reason'].decode()}: {said['x-dlq-detail'].decode()}\n")
    return _conclude(views, len(log.dead_letters), as_json)


def _at_rest(worker: Worker) -> bool:
    """Nothing more will happen by itself: what is still owed waits for an account."""
    return worker.is_idle() or worker.is_blocked()


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
