"""The demo: a shop, a worker and a sandbox provider with faults on, to be watched until they agree.

The log is embedded (or a real Kafka, with `--kafka`), the HTTP is real. Deadlines, holds and delays are short, so that
what takes minutes in production is seen in seconds; they are printed as such.
"""

import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import msgspec
from rich.console import Console
from rich.live import Live
from rich.table import Table

from schemas.views import OrderView
from worker import logs
from worker.app import Ports, SystemClock, Worker
from worker.config import worker_settings_from
from worker.metrics import Metrics
from worker.ports import EventLog, StateLog
from worker.providers.sequra.options import SequraAccount
from worker.publisher.sender import HttpSender
from worker.sandbox.faults import FaultPlan
from worker.sandbox.sequra.sandbox import SequraSandbox
from worker.sim.log import MemoryLog
from worker.tools.shop import History, ShopEvent, ShopLine, ShopOrder, make_history

SETTINGS = {
    "attempt_deadline": "1s",
    "settle": "2s",
    "lease": "5s",
    "commit_interval": "20ms",
    "retry_initial": "100ms",
    "retry_max": "2s",
    "inconsistent_after": "4s",
    "not_found_delays": ["1s", "2s"],
}
FAULTS = (
    "500=0.04,503=0.02:1s,429=0.01:1s,409=0.03,reset_applied=0.02,reset_lost=0.02,timeout_applied=0.02,slow=0.1:0.3s"
)
ACCOUNT = SequraAccount("acme", "sequra", "", "acme", "demo", "demo-secret", concurrency=16)
PATH = Path(".cartsync/demo.json")
"""What the demo leaves for `cartsync order show`."""

END_S = 45.0
_FAULTS_OFF_S = 4.0
"""After the shop's last event."""

Append = Callable[[str, bytes], Awaitable[None]]


def run_demo(*, orders: int = 300, seconds: float = 15.0, seed: int = 1, kafka: bool = False) -> int:
    """Runs it; 0 when all orders agree in the end, 1 when not."""
    console = Console()
    return asyncio.run(_Demo(console, orders, seconds, seed, kafka).run())


class _Demo:
    def __init__(self, console: Console, orders: int, seconds: float, seed: int, kafka: bool) -> None:
        self.console = console
        self.kafka = kafka
        self.seconds = seconds
        self.metrics = Metrics()
        self.history = _with_grown_order(
            make_history(seed, orders, seconds, began_at=datetime.now(UTC).replace(microsecond=0)), seconds
        )
        self.sandbox = SequraSandbox(
            {ACCOUNT.merchant_id: (ACCOUNT.username, ACCOUNT.password)}, FaultPlan.parse(FAULTS), seed
        )
        self.written = 0
        self.released: list[tuple[str, str]] = []
        self.began = time.monotonic()
        self.phase = "the shop is open"
        picked = Random(seed).sample([s for s, order in self.history.orders.items() if order.told], 3)
        for subject in picked:
            self.sandbox.faults.script(ACCOUNT.merchant_id, subject.partition("/")[2], "422")

    async def run(self) -> int:
        async with AsyncExitStack() as stack:
            base_url = await self.sandbox.start()
            stack.push_async_callback(self.sandbox.stop)
            log_lines: list[str] = []
            stack.enter_context(logs.capture(log_lines, "warning"))
            self._introduce(base_url)
            events, states, append = await self._log(stack)
            sender = HttpSender(deadline_s=1.0, user_agent="cartsync-demo")
            stack.push_async_callback(sender.close)
            worker = Worker(
                worker_settings_from(SETTINGS),
                {"acme": msgspec.structs.replace(ACCOUNT, base_url=base_url)},
                Ports(SystemClock(), events, states, sender),
                owner_id="demo",
                metrics=self.metrics,
            )
            await worker.start()
            await worker.serving()
            agreed = await self._watch(worker, append)
            views = {subject: worker.show(subject) for subject in self.history.orders}
            await worker.stop()
        return self._conclude(agreed, views)

    def _introduce(self, base_url: str) -> None:
        say = self.console.print
        log = "a real Kafka on this machine" if self.kafka else "an embedded log (no broker)"
        say(f"[bold]cartsync demo[/bold]: {len(self.history.orders)} orders, {len(self.history.events)} events, {log}")
        say(f"provider: sandbox at {base_url} (a page shows what it holds)")
        say(f"faults until {_FAULTS_OFF_S:g} s after the last event: {FAULTS}", highlight=False)
        settings = ", ".join(f"{k} {' '.join(v) if isinstance(v, list) else v}" for k, v in SETTINGS.items())
        say(f"demo settings, much shorter than the defaults: {settings}\n", highlight=False)

    async def _log(self, stack: AsyncExitStack) -> tuple[EventLog, StateLog, Append]:
        if self.kafka:
            from worker.tools.demo_kafka import kafka_log  # noqa: PLC0415 - needs Java; only when asked for

            return await kafka_log(stack)
        log = MemoryLog(4, SystemClock())

        async def append(key: str, value: bytes) -> None:
            log.append(key.encode(), value, timestamp_ms=time.time_ns() // 1_000_000)

        return log.events("demo"), log.states("demo"), append

    # --- watching ---

    async def _watch(self, worker: Worker, append: Append) -> bool:
        shop = asyncio.create_task(self._shop(append))
        tty = self.console.is_terminal
        with Live(self._progress(worker), console=self.console, refresh_per_second=8) if tty else _Silent() as live:
            told_at = 0.0
            while self._elapsed() < END_S:
                await asyncio.sleep(0.1)
                if isinstance(live, Live):
                    live.update(self._progress(worker))
                elif self._elapsed() - told_at >= 3:
                    told_at = self._elapsed()
                    self.console.print(self._line(worker), highlight=False)
                if shop.done():
                    await self._operate(worker)
                    if worker.idle() and not self._parked(worker) and not self.sandbox.late_count:
                        self.phase = "agreement"
                        break
            if isinstance(live, Live):
                live.update(self._progress(worker))
        await shop
        return worker.idle()

    async def _shop(self, append: Append) -> None:
        for event in self.history.events:
            wait_s = event.at_s - self._elapsed()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            await append(event.subject, event.value)
            self.written += 1
        self.phase = "the shop is closed; working off what is owed"
        await asyncio.sleep(_FAULTS_OFF_S)
        self.sandbox.faults.stop()
        self.phase = "faults are off"

    async def _operate(self, worker: Worker) -> None:
        """What an operator does: looks at what is parked, and releases it."""
        for subject in self._parked(worker):
            view = worker.show(subject)
            if view is not None:
                self.released.append((subject, view.reason))
                await worker.release(subject)

    def _parked(self, worker: Worker) -> list[str]:
        views = ((subject, worker.show(subject)) for subject in self.history.orders)
        return [subject for subject, view in views if view is not None and view.status == "parked"]

    def _elapsed(self) -> float:
        return time.monotonic() - self.began

    def _figures(self, worker: Worker) -> dict[str, str]:
        partitions = worker.status().partitions
        answers = self.sandbox.status_counts
        refused = sum(count for status, count in answers.items() if status >= 300)
        faults = sum(self.sandbox.fault_counts.values())
        return {
            "time": f"{self._elapsed():.1f} s",
            "events written": f"{self.written} of {len(self.history.events)}",
            "updates accepted": str(answers[204]),
            "refused or failed": str(refused + faults),
            "owed now": str(sum(p.owed for p in partitions)),
            "held now": str(sum(p.held for p in partitions)),
            "parked now": str(sum(p.parked for p in partitions)),
            "released": str(len(self.released)),
            "in agreement": f"{self._agreeing()} of {len(self.history.orders)}",
        }

    def _progress(self, worker: Worker) -> Table:
        table = Table(title=self.phase, min_width=44)
        table.add_column("what")
        table.add_column("now", justify="right")
        for what, value in self._figures(worker).items():
            table.add_row(what, value)
        return table

    def _line(self, worker: Worker) -> str:
        return ", ".join(f"{what} {value}" for what, value in self._figures(worker).items())

    # --- the end ---

    def _held(self, subject: str) -> tuple[int, int] | None:
        held = self.sandbox.held.get((ACCOUNT.merchant_id, subject.partition("/")[2]))
        return None if held is None else (held.shipped_minor, held.unshipped_minor)

    def _differs(self, order: ShopOrder) -> bool:
        wanted, held = order.carts_minor(), self._held(order.subject)
        return held is not None if wanted is None else held != wanted

    def _agreeing(self) -> int:
        return sum(not self._differs(order) for order in self.history.orders.values())

    def _conclude(self, settled: bool, views: dict[str, OrderView | None]) -> int:
        say = self.console.print
        if self.released:
            table = Table(title="parked, shown to an operator, and released")
            table.add_column("order")
            table.add_column("why it was parked", overflow="fold")
            for subject, reason in self.released:
                table.add_row(subject, reason)
            say(table)
        table = Table(title="what the shop knows and what the provider holds (cents: shipped | to ship)")
        for column in ("order", "shop", "provider", ""):
            table.add_column(column, justify="left" if column in ("order", "") else "right")
        orders = list(self.history.orders.values())
        differing = [order for order in orders if self._differs(order)]
        for order in (differing + [order for order in orders if order.told])[:12]:
            mark = "[red]differs[/red]" if order in differing else "[green]agrees[/green]"
            table.add_row(order.subject, _pair(order.carts_minor()), _pair(self._held(order.subject)), mark)
        table.add_row("…", "", "", "")
        dead = int(sum(self.metrics.value("cartsync_dlq_total", reason=r) or 0 for r in _REASONS))
        table.add_row(f"all {len(orders)}", "", "", f"{len(orders) - len(differing)} agree, {len(differing)} differ")
        say(table)
        say(f"refused events in the dead-letter topic: {dead}, poisoned ones written: {self.history.poisoned}")
        shown = {subject: view for subject, view in views.items() if view is not None}
        example = (differing or orders)[-1].subject
        try:
            leave(PATH, msgspec.json.format(msgspec.json.encode({"orders": shown})))
            say(f"\nlook at one order: [bold]{_program()} order show {example}[/bold]  (left in {PATH})")
        except OSError as error:
            say(f"\nnothing is left for `order show`: {PATH}: {error.strerror}")
        if differing or not settled or dead != self.history.poisoned:
            say("[red]not in agreement[/red]")
            return 1
        say(f"[green]in agreement[/green] after {self._elapsed():.1f} s")
        return 0


_REASONS = (
    "no_key",
    "too_large",
    "not_utf8",
    "not_json",
    "not_cloudevents",
    "not_trusted",
    "unknown_type",
    "invalid_data",
)


class _Silent:
    """Instead of a live display, where there is no terminal."""

    def __enter__(self) -> "_Silent":
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout.flush()


def leave(path: Path, content: bytes) -> None:
    """Writes a file into a folder of ours in the current one, and follows no link there: whose it is nobody knows."""
    path.parent.mkdir(exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        new = f"{path.name}.{os.getpid()}"
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder), "wb") as file:  # noqa: PTH123
            file.write(content)
        os.replace(new, path.name, src_dir_fd=folder, dst_dir_fd=folder)  # a link is replaced, not followed
    finally:
        os.close(folder)


def _program() -> str:
    """How the person who started us can call us again: `make demo` leaves nothing on the PATH."""
    here = Path(sys.argv[0])
    is_on_path = shutil.which(here.name) is not None or here.name != "cartsync"
    return "cartsync" if is_on_path or not here.is_file() else os.path.relpath(here)


def _pair(carts: tuple[int, int] | None) -> str:
    return "nothing told" if carts is None else f"{carts[0]} | {carts[1]}"


def _with_grown_order(history: History, seconds: float) -> History:
    """One order that grows by a fifth: seQura would refuse it, so it is parked until the shop corrects it."""
    subject = "acme/grown"
    sizes = ((0.5, "order.confirmed", 10), (1.5, "order.cart_updated", 12), (seconds * 0.7, "order.cart_updated", 11))
    events: list[ShopEvent] = []
    for number, (at_s, kind, count) in enumerate(sizes):
        line = {"reference": "mug", "name": "Mug", "quantity": count, "unit_price_minor": 1000}
        event = {
            "specversion": "1.0",
            "id": f"grown-{number}",
            "source": "/shops/demo",
            "type": kind,
            "time": datetime.now(UTC).replace(microsecond=number).isoformat(timespec="microseconds"),
            "subject": subject,
            "data": {"currency": "EUR", "lines": [line | {"total_minor": 1000 * count}]},
        }
        events.append(ShopEvent(at_s, subject, json.dumps(event).encode()))
    order = ShopOrder(subject, [ShopLine("mug", "Mug", 1000, 11)], 0, told=True)
    merged = sorted([*history.events, *events], key=lambda event: event.at_s)
    return History(merged, history.orders | {subject: order}, history.poisoned)
