"""Writes operators' events, and tells who has asked what came of them once a worker has taken them."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence

from schemas.state import Operated
from worker.core.commands import Command
from worker.core.operator_event import operator_event
from worker.core.placing import Placing
from worker.core.trust import Trust
from worker.errors import LogError
from worker.ports import Clock, CommandOutcome, EventProducer

NOBODY = "unknown"
"""Who did it, where nobody has said so."""
_UIDS_MAX = 1_000
_AT_ONCE_MAX = 100
"""Events that are written and not taken yet, of those about many orders."""


class Operators:
    """Of one worker."""

    def __init__(
        self,
        producer: EventProducer | None,
        placing: Placing | None,
        trust: Callable[[], Trust],
        clock: Clock,
        act: Callable[[str, str], Awaitable[None]],
    ) -> None:
        """`act`: called once with each event about an account (command, account) that any of our partitions takes."""
        self._producer = producer
        self._placing = placing
        self._trust = trust
        self._clock = clock
        self._act = act
        self._waiting: dict[bytes, asyncio.Future[Operated]] = {}
        self._acted: dict[bytes, None] = {}
        self._acting: set[asyncio.Task[None]] = set()

    @property
    def can_write(self) -> bool:
        """Whether workers would believe our events."""
        return self._producer is not None and self._trust().can_sign

    def operated(self, subject: str, deed: Operated) -> None:
        """What an operator did is committed."""
        waiting = self._waiting.pop(deed.uid, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(deed)
        if "/" in subject or deed.uid in self._acted:  # an event about an account is in each of our partitions
            return
        self._acted[deed.uid] = None
        if len(self._acted) > _UIDS_MAX:
            del self._acted[next(iter(self._acted))]

        async def act() -> None:
            await self._act(deed.command, subject)

        task = asyncio.create_task(act(), name=f"operator {deed.command}")
        self._acting.add(task)
        task.add_done_callback(self._acting.discard)

    async def write(
        self, command: Command, target: str, partitions: Sequence[int], served: Sequence[int], by: str, why: str
    ) -> CommandOutcome:
        """Writes the event to these partitions, and waits until one of those that we serve has taken it. Raises
        `UsageError` when no worker would take it, `LogError`. The caller sets a deadline.
        """
        producer = self._producer
        assert producer is not None  # `can_write` says so
        written = operator_event(
            command,
            target,
            event_id=str(self._uuid()),
            by=by or NOBODY,
            why=why,
            now_ms=self._clock.wall_ms(),
            trust=self._trust(),
            placing=self._placing,
        )
        taken: asyncio.Future[Operated] = asyncio.get_running_loop().create_future()
        self._waiting[written.uid] = taken
        try:
            sent = [
                await producer.post(written.key, written.value, written.headers, partition) for partition in partitions
            ]
            failed = [
                each for each in await asyncio.gather(*sent, return_exceptions=True) if isinstance(each, Exception)
            ]
            if failed:
                raise LogError(f"the event was not acknowledged in all partitions: {type(failed[0]).__name__}")
            everywhere = command.about == "account"
            if not served:
                return CommandOutcome(True, f"written to all {len(partitions)} partitions", everywhere)
            deed = await taken
            where = f"; written to all {len(partitions)} partitions" if everywhere else ""
            return CommandOutcome(deed.done, f"{deed.words}{where}", everywhere)
        finally:
            self._waiting.pop(written.uid, None)

    def _uuid(self) -> uuid.UUID:
        """Another one each time; of the clock's chance, so that a simulation repeats."""
        high, low = (int(self._clock.chance() * 2**53) for _ in range(2))
        return uuid.UUID(int=(high << 64 | low << 11) & (2**128 - 1), version=4)

    async def write_all(self, command: Command, targets: Iterable[tuple[str, int]], by: str, why: str) -> int:
        """The same for many orders, each with its partition; to how many there was something to do. With the first
        failure it ends: nothing more is written once the caller has been told.
        """
        left, done = iter(targets), 0

        async def one_by_one() -> None:
            nonlocal done
            for subject, partition in left:
                outcome = await self.write(command, subject, [partition], [partition], by, why)
                done += outcome.done

        writing = [asyncio.create_task(one_by_one(), name="operator of many") for _ in range(_AT_ONCE_MAX)]
        try:
            await asyncio.gather(*writing)
        finally:
            for task in writing:
                task.cancel()
            await asyncio.gather(*writing, return_exceptions=True)
        return done

    async def stop(self) -> None:
        """What is being done ends."""
        for task in self._acting:
            task.cancel()
        await asyncio.gather(*self._acting, return_exceptions=True)
