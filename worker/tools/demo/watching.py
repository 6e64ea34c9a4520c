"""`cartsync demo --console`: the console over the demo's own log, acting on its worker in this process."""

import asyncio
import signal
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from schemas.console import ActionLine, WorkerLine
from schemas.views import OrderView, StatusView
from worker.app import Worker
from worker.config import worker_settings_from
from worker.config.sections import ConsoleSection
from worker.core.commands import Command
from worker.errors import CartsyncError
from worker.tools.console.letters import AtTheDesk
from worker.tools.console.run import open_console
from worker.tools.demo.stage import SETTINGS, Wire
from worker.web.console.operator import STOPPED, ActionProgress

_HERE = "the demo's worker"


class WorkerHere:
    """`web.console.operator.Operator` and `Workers` of a worker in this process."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def why_not(self) -> str:
        """It can act."""
        return ""

    async def submit(
        self, command: Command, subjects: Sequence[str], *, by: str, why: str, progress: ActionProgress
    ) -> list[ActionLine]:
        """One after the other."""
        lines = []
        for subject in subjects:
            line = ActionLine(subject, False, STOPPED)
            if not progress.is_stopped:
                line = await self._done(command, subject, by, why)
                progress.tell(line)
            lines.append(line)
        return lines

    async def _done(self, command: Command, subject: str, by: str, why: str) -> ActionLine:
        try:
            came = await self._worker.operate(command, subject, by, why)
        except CartsyncError as error:
            return ActionLine(subject, False, str(error))
        return ActionLine(subject, came.done, came.words or ("done" if came.done else "there was nothing to do"))

    async def statuses(self) -> list[tuple[WorkerLine, StatusView | None]]:
        """The worker's."""
        status = self._worker.status()
        leases = [view.lease_left_s for view in status.partitions]
        count = len(status.partitions)
        return [(WorkerLine(_HERE, True, "", status.version, count, min(leases, default=None)), status)]

    async def show(self, subject: str) -> tuple[str, OrderView] | None:
        """As the worker has it."""
        view = self._worker.show(subject)
        return None if view is None else (_HERE, view)


async def open_demo_console(
    stack: AsyncExitStack, wire: Wire, worker: Worker, providers: Mapping[str, str], port: int
) -> str:
    """The console's address; it is closed with the stack, and its index goes with it. Raises `ConfigError`."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cartsync-demo-"))
    here = WorkerHere(worker)
    opened = await open_console(
        stack,
        ConsoleSection(port=port),
        records=wire.records(),
        operator=here,
        letters=AtTheDesk(wire.desk()),
        workers=here,
        rules=worker_settings_from(SETTINGS).rules(),
        providers=providers,
        index=Path(folder) / "index.sqlite",
        port_setting="--console-port",
    )
    return opened.url


async def until_interrupted() -> None:
    """Goes on showing until Ctrl-C, or SIGTERM."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    await stopping.wait()
