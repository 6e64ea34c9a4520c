"""The demo: three shops, a worker, a receiver of callbacks, and a sandbox of each provider with faults on.

It runs until they agree.

The log is embedded (or a real Kafka, with `--kafka`), HTTP is real, in both directions. Deadlines, holds and delays are
short, so that minutes in production become seconds; they are printed.
"""

import asyncio
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, nullcontext
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.console import Console
from rich.live import Live

from schemas.reference import REASONS
from schemas.views import OrderView
from worker import logs
from worker.app import Worker
from worker.core.commands import COMMANDS
from worker.publisher.sender import HttpSender
from worker.tools.demo import telling
from worker.tools.demo.merchants import AtAtaraPay, AtQliro, AtSequra, Merchant, Plot, Verdict
from worker.tools.demo.stage import SETTINGS, Append, Stage, Wire, memory_wire
from worker.tools.sandbox_server import pusher
from worker.tools.shop import ShopEvent

PATH = Path(".cartsync/demo.json")
"""The orders of the last demo, for `cartsync order show`."""

END_S = 45.0
_FAULTS_OFF_S = 3.0
"""After the shops' last event."""
_LOOK_S = 0.1
_SAY_S = 3.0
_RESTS_S = 3.0
"""How long nothing may happen before the demo gives up although not all agree."""


def run_demo(
    *,
    orders: int = 300,
    seconds: float = 15.0,
    seed: int = 1,
    kafka: bool = False,
    console_port: int | None = None,
) -> int:
    """Runs the demo; 0 if all orders agree at the end, 1 if not. `orders`: of all three shops together. `console_port`:
    of the console, which stays open until it is interrupted; `None`: no console.
    """
    return asyncio.run(_run(Console(), max(1, orders // 3), seconds, seed, kafka=kafka, console_port=console_port))


async def _run(
    console: Console, orders: int, seconds: float, seed: int, *, kafka: bool, console_port: int | None
) -> int:
    """`orders`: of each shop."""
    async with AsyncExitStack() as stack:
        log_lines: list[str] = []
        stack.enter_context(logs.capture(log_lines, "warning"))
        wire = await _wire(stack, kafka=kafka)
        sender = HttpSender(deadline_s=1.0, user_agent="cartsync-demo")
        stack.push_async_callback(sender.close)
        send = pusher(sender)
        plot = Plot(orders, seconds, seed, datetime.now(UTC).replace(microsecond=0))
        merchants = [AtSequra(plot, send), AtQliro(plot, send), AtAtaraPay(plot, send)]
        stage = Stage(wire, {each.name: each.caller() for each in merchants}, sender)
        callbacks = await stage.receive(stack)
        for each in merchants:
            await each.open(callbacks)
            stack.push_async_callback(each.sandbox.stop)
        log = "a real Kafka on this machine" if kafka else "an embedded log (no broker)"
        settings = ", ".join(f"{k} {' '.join(v) if isinstance(v, list) else v}" for k, v in SETTINGS.items())
        telling.introduce(console, merchants, log, settings, _FAULTS_OFF_S)
        worker = await stage.work({each.name: each.account for each in merchants}, stack)
        address = ""
        if console_port is not None:
            from worker.tools.demo.watching import open_demo_console  # noqa: PLC0415 - templates; only when asked for

            providers = {each.name: each.account.provider for each in merchants}
            address = await open_demo_console(stack, wire, worker, providers, console_port)
            telling.at_console(console, address)
        demo = _Demo(console, merchants, worker, wire.append, plot)
        is_settled = await demo.watch()
        views = {subject: worker.show(subject) for each in merchants for subject in each.history.orders}
        dead = int(sum(stage.metrics.value("cartsync_dlq_total", reason=each) or 0 for each in REASONS))
        code = demo.conclude(views, dead, is_settled=is_settled)
        if address:
            from worker.tools.demo.watching import until_interrupted  # noqa: PLC0415 - as above

            telling.at_console(console, address, "it stays open until Ctrl-C")
            await until_interrupted()
        return code


async def _wire(stack: AsyncExitStack, *, kafka: bool) -> Wire:
    if not kafka:
        return memory_wire()
    from worker.tools.demo.kafka import kafka_wire  # noqa: PLC0415 - needs Java; only when asked for

    return await kafka_wire(stack)


class _Demo:
    """The run, from the first event to the final table."""

    def __init__(self, console: Console, merchants: list[Merchant], worker: Worker, append: Append, plot: Plot) -> None:
        self.console = console
        self.merchants = merchants
        self.worker = worker
        self.append = append
        self.began = time.monotonic()
        self.written = 0
        self.released: list[tuple[str, str]] = []
        self.phase = f"the shops are open for {plot.seconds:g} s"

    # --- watching ---

    async def watch(self) -> bool:
        """Until all agree, or nothing happens any more, or it takes too long; whether nothing is left to do."""
        shop = asyncio.create_task(self._shop())
        is_terminal = self.console.is_terminal
        live = Live(console=self.console, refresh_per_second=8) if is_terminal else None
        said_at = rests_since = 0.0
        with live or nullcontext():
            while self._elapsed() < END_S:
                await asyncio.sleep(_LOOK_S)
                await self._happen()
                now, counts = self._elapsed(), self._count(self.worker.show)
                if live is not None or now - said_at >= _SAY_S:
                    said_at = now
                    self._show(live, counts)
                if not shop.done():
                    continue
                await self._operate()
                if not self._rests():
                    rests_since = now
                elif not any(each["differs"] for each in counts.values()) or now - rests_since > _RESTS_S:
                    break
            self._show(live, self._count(self.worker.show))
        await shop
        return self._rests()

    async def _shop(self) -> None:
        events = sorted(
            ((event, each) for each in self.merchants for event in each.history.events), key=lambda both: both[0].at_s
        )
        placed: set[str] = set()
        for event, merchant in events:
            wait_s = event.at_s - self._elapsed()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            if event.subject not in placed:
                placed.add(event.subject)
                merchant.place(merchant.history.orders[event.subject])
            await self._write(event)
        self.phase = "the shops are closed; sending what is owed"
        await asyncio.sleep(_FAULTS_OFF_S)
        for merchant in self.merchants:
            merchant.sandbox.faults.stop()
        self.phase = "faults are off"

    async def _write(self, event: ShopEvent) -> None:
        await self.append(event.subject, event.value)
        self.written += 1

    async def _happen(self) -> None:
        """What buyers do at the providers, and how the shops react."""
        for merchant in self.merchants:
            for event in merchant.happen(self._elapsed()):
                await self._write(event)

    async def _operate(self) -> None:
        """Acts as an operator: checks parked orders, and releases those that another attempt may help."""
        for merchant in self.merchants:
            for subject in merchant.history.orders:
                view = self.worker.show(subject)
                if view is not None and view.status == "parked" and not view.reason.startswith("unsupported"):
                    self.released.append((subject, view.reason))
                    await self.worker.operate(COMMANDS["release"], subject)

    def _rests(self) -> bool:
        return self.worker.is_idle() and all(each.is_over for each in self.merchants)

    def _elapsed(self) -> float:
        return time.monotonic() - self.began

    def _count(self, view_of: Callable[[str], OrderView | None]) -> dict[str, Counter[Verdict]]:
        return {
            each.name: Counter(each.verdict(order, view_of(subject)) for subject, order in each.history.orders.items())
            for each in self.merchants
        }

    def _show(self, live: Live | None, counts: dict[str, Counter[Verdict]]) -> None:
        agreeing = {name: each["agrees"] + each["unsupported"] for name, each in counts.items()}
        rows = telling.figures(self.merchants, self.worker, agreeing)
        head = f"{self._elapsed():.1f} s, {self.written} events, {len(self.released)} released; {self.phase}"
        if live is not None:
            live.update(telling.progress(head, self.merchants, rows))
        else:
            self.console.print(telling.line(head, self.merchants, rows), highlight=False, soft_wrap=True)
            sys.stdout.flush()

    # --- the end ---

    def conclude(self, views: telling.Views, dead: int, *, is_settled: bool) -> int:
        """Prints the result; the exit code. `dead`: the number of dead letters."""
        say = self.console.print
        if self.released:
            say(telling.released(self.released))
        if (parked := telling.unsupported(self.merchants, views)) is not None:
            say(parked)
        say(telling.examples(self.merchants, views))
        counts = self._count(views.__getitem__)
        say(telling.result(self.merchants, counts))
        poisoned = sum(each.history.poisoned for each in self.merchants)
        say(f"refused events in the dead-letter topic: {dead}, poisoned ones written: {poisoned}")
        differing = [
            subject
            for each in self.merchants
            for subject, order in each.history.orders.items()
            if each.verdict(order, views[subject]) == "differs"
        ]
        self._leave(views, (differing or ["acme/grown"])[0])
        if differing or not is_settled or dead != poisoned:
            say("[red]not in agreement[/red]")
            return 1
        say(f"[green]in agreement[/green] after {self._elapsed():.1f} s")
        return 0

    def _leave(self, views: telling.Views, example: str) -> None:
        shown = {subject: view for subject, view in views.items() if view is not None}
        try:
            leave(PATH, msgspec.json.format(msgspec.json.encode({"orders": shown})))
            self.console.print(f"\nshow one order: [bold]{_program()} order show {example}[/bold]  (from {PATH})")
        except OSError as error:
            self.console.print(f"\nno orders saved for `order show`: {PATH}: {error.strerror}")


def leave(path: Path, content: bytes) -> None:
    """Writes a file into a folder of ours in the current one, without following links, which may be somebody else's."""
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
    """How the user can call us again: `make demo` puts nothing on the PATH."""
    here = Path(sys.argv[0])
    is_on_path = shutil.which(here.name) is not None or here.name != "cartsync"
    return "cartsync" if is_on_path or not here.is_file() else os.path.relpath(here)
