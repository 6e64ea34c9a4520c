"""What is to be written about orders besides events: outcomes of attempts, decisions, operators' commands."""

import asyncio
from collections import deque
from collections.abc import Sequence

from msgspec import Struct

from worker.core.commands import Command
from worker.core.outbox_effects import Decide
from worker.model.exchange import Outcome
from worker.orders.batch import Batch
from worker.ownership.context import Slice
from worker.ports import Attempt


class AskedCommand(Struct, eq=False):
    """What an operator asks of some orders; `done` is resolved once it is committed."""

    subjects: Sequence[str]
    command: Command
    done: asyncio.Future[int]
    changed: int = 0
    """Orders that it changed anything about."""


class Mailbox:
    """In the order in which it came, by kind."""

    def __init__(self) -> None:
        self.outcomes: deque[tuple[Attempt, Outcome, float]] = deque()
        """With when the attempt ended (*now*)."""
        self.decisions: deque[Decide] = deque()
        self._commands: deque[AskedCommand] = deque()
        self._in_transaction: list[AskedCommand] = []

    def __bool__(self) -> bool:
        return bool(self.outcomes or self.decisions or self._commands)

    def command(self, subjects: Sequence[str], command: Command) -> asyncio.Future[int]:
        """Resolved with how many orders it changed, once that is committed."""
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._commands.append(AskedCommand(subjects, command, done))
        return done

    async def fill(self, batch: Batch, work: Slice, bytes_max: int) -> None:
        """Outcomes first, for they end holds; commands last, for they are about what is committed with them, too."""
        while self.outcomes and batch.size < bytes_max:
            if work.is_over():
                await work.pause()
            batch.outcome(*self.outcomes.popleft())
        while self.decisions and batch.size < bytes_max:
            if work.is_over():
                await work.pause()
            batch.decide(self.decisions.popleft())
        while self._commands and batch.size < bytes_max:
            if work.is_over():
                await work.pause()
            asked = self._commands.popleft()
            self._in_transaction.append(asked)
            asked.changed = sum([batch.command(subject, asked.command) for subject in asked.subjects])

    def answer(self) -> None:
        """The transaction is committed: what commands were in it are done."""
        for asked in self._in_transaction:
            if not asked.done.done():
                asked.done.set_result(asked.changed)
        self._in_transaction = []

    def close(self, error: Exception) -> None:
        """Nothing of it will be written any more, or nobody knows."""
        for asked in (*self._in_transaction, *self._commands):
            if not asked.done.done():
                asked.done.set_exception(error)
