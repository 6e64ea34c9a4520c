"""Runs events from a JSON-lines file through the same reducer and publisher as a worker does.

Each line is one CloudEvents object, as a record's value in structured mode; its subject is the key. By default updates
are only printed, on a virtual clock.

Sending overwrites the provider's state with the result of the file alone. So it first lists the affected orders, it is
refused while workers are running, because their state would no longer match, and it uses its own idempotency keys.
"""

import asyncio
import json
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from io import StringIO
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
"""Orders that are listed before they are overwritten."""


class _Printer:
    """`ports.Sender` that prints requests, and treats them as accepted."""

    def __init__(self, out: TextIO | None, as_json: bool) -> None:
        """`out`: `None` to print nothing."""
        self.failure: OSError | None = None
        """Why nothing more can be printed."""
        self.requests: dict[str, None] = {}
        """`METHOD url` of each request, once."""
        self._out = out
        self._as_json = as_json

    async def send(
        self, request: HttpRequest, _deadline_s: float, _may_send: Callable[[], bool]
    ) -> HttpResponse | Fault:
        """Prints the request without its credentials."""
        self.requests[f"{request.method} {request.url}"] = None
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
    """`ports.Sender` with idempotency keys that no worker and no other replay has used: otherwise a provider that
    honors keys would treat a new request as a repetition.
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
    """(line number, key, value) of each line that is not empty. Raises `UsageError` for unreadable input."""
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
    """Replays the file; 0 if every event was accepted and every order settled, 1 if not.

    `workers`: returns the running workers, if that can be known. Raises `TwoOwnersError` if there are any and `send` is
    set.
    """
    lines = read_lines(path)
    if not send:
        return _conclude(_rehearse(lines, accounts, _Printer(sys.stdout, as_json)), as_json)
    if workers is not None and (running := workers()):
        raise TwoOwnersError(
            f"replay --send would overwrite what running workers ({', '.join(running)}) have sent, without their "
            "knowledge: stop them first, or send single orders again with `cartsync order resend`"
        )
    _announce(path, lines, accounts)
    return asyncio.run(_replay_for_real(lines, accounts, as_json))


class Replayed(msgspec.Struct, frozen=True):
    """What became of the events."""

    views: list[OrderView]
    refused: list[str]
    """Which line, and why."""


def rehearse(
    lines: list[tuple[int, bytes, bytes]], accounts: Mapping[str, Account]
) -> tuple[list[dict[str, Any]], Replayed]:
    """What would be sent for these lines (method, URL, body), and what would become of their orders. No time passes."""
    out = StringIO()
    replayed = _rehearse(lines, accounts, _Printer(out, as_json=True))
    return [json.loads(line) for line in out.getvalue().splitlines()], replayed


def _rehearse(lines: list[tuple[int, bytes, bytes]], accounts: Mapping[str, Account], printer: _Printer) -> Replayed:
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(_replay(lines, accounts, VirtualClock(loop), printer))
    finally:
        loop.close()


def _announce(path: Path, lines: list[tuple[int, bytes, bytes]], accounts: Mapping[str, Account]) -> None:
    """Prints which orders will be overwritten."""
    printer = _Printer(None, as_json=False)
    with logs.capture([]):  # the same lines follow when it is sent
        _rehearse(lines, accounts, printer)
    sys.stderr.write(
        f"{len(printer.requests)} orders will be overwritten at their providers with the result of {path} alone:\n"
    )
    for requests in list(printer.requests)[:_SHOWN_MAX]:
        sys.stderr.write(f"  {requests}\n")
    if len(printer.requests) > _SHOWN_MAX:
        sys.stderr.write(f"  and {len(printer.requests) - _SHOWN_MAX} more\n")


async def _replay_for_real(
    lines: list[tuple[int, bytes, bytes]], accounts: Mapping[str, Account], as_json: bool
) -> int:
    http = HttpSender(
        deadline_s=DeliveryPolicy().attempt_deadline_s, user_agent=f"cartsync/{__version__}", accounts=accounts
    )
    sender = _OwnKeys(http, uuid.uuid4().hex[:12])
    try:
        return _conclude(await _replay(lines, accounts, SystemClock(), sender), as_json)
    finally:
        await sender.close()


async def _replay(
    lines: list[tuple[int, bytes, bytes]],
    accounts: Mapping[str, Account],
    clock: Clock,
    sender: Sender,
) -> Replayed:
    log = MemoryLog(1, clock)
    # As if they were written now, whatever the dry run's clock says.
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
    refused = []
    for letter in log.dead_letters:
        said = dict(letter.headers)
        number = offsets[int(said["x-dlq-offset"])]
        refused.append(f"line {number} refused: {said['x-dlq-reason'].decode()}: {said['x-dlq-detail'].decode()}")
    return Replayed(views, refused)


def _at_rest(worker: Worker) -> bool:
    """Nothing more will happen on its own: orders that are still owed wait for their account."""
    return worker.is_idle() or worker.is_blocked()


def _conclude(replayed: Replayed, as_json: bool) -> int:
    views, refused = replayed.views, len(replayed.refused)
    for text in replayed.refused:
        sys.stderr.write(f"{text}\n")
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
