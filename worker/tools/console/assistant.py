"""A process that computes rows of the index while it is built, so that a second core is used: for no longer than that.

What it cannot do, the console does itself. It may end at any time, and only time is lost.
"""

import asyncio
import fcntl
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress

import structlog

from worker.core.policy import DeliveryPolicy
from worker.ports import Chunk
from worker.tools.console import computing
from worker.tools.console.computing import PREFIX, Settings, Work, message_of, read_lines
from worker.web.console.follower import Assistance
from worker.web.console.index import keyed
from worker.web.console.rows import StateLines

log = structlog.get_logger(__name__)

_GIVEN_MAX = 6
"""Chunks that wait for it: enough that it always has one."""
_PIPE_BYTES = 2**20
"""A chunk: otherwise both wait for each other, some sixteenth of it after the other."""
_END_WITHIN_S = 3.0


def assistance(rules: DeliveryPolicy, providers: Mapping[str, str], now_ms: Callable[[], int]) -> Assistance:
    """One who helps for as long as it is entered; `None` where no process can be started."""

    @asynccontextmanager
    async def helped() -> AsyncIterator[_Helper | None]:
        given, giving = os.pipe()
        try:
            with suppress(OSError):  # it works with less
                fcntl.fcntl(giving, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            command = (sys.executable, "-m", computing.__name__)
            process = await asyncio.create_subprocess_exec(
                *command, stdin=given, stdout=PIPE, limit=_PIPE_BYTES, start_new_session=True
            )
        except OSError as error:
            os.close(giving)
            log.warning("console_builds_alone", error=error.strerror)
            yield None
            return
        finally:
            os.close(given)
        pipe, _ = await asyncio.get_running_loop().connect_write_pipe(asyncio.Protocol, os.fdopen(giving, "wb"))
        helper = _Helper(process, pipe, Settings(rules, dict(providers)), now_ms)
        try:
            yield helper
        finally:
            await helper.close()

    return helped


class _Helper:
    """`follower.Assistant`."""

    def __init__(
        self, process: Process, pipe: asyncio.WriteTransport, settings: Settings, now_ms: Callable[[], int]
    ) -> None:
        self._process = process
        self._pipe = pipe
        self._now_ms = now_ms
        self._given: deque[asyncio.Future[StateLines | None]] = deque()
        self._is_there = False
        """It has begun; that takes as long as thousands of orders."""
        pipe.write(message_of(settings))
        self._hearing = asyncio.create_task(self._hear(), name="console-assistant")

    def lines(self, chunk: Chunk) -> "asyncio.Future[StateLines | None] | None":
        """Of a chunk, unless it has enough to do."""
        if not self._is_there or len(self._given) >= _GIVEN_MAX:
            return None
        answer: asyncio.Future[StateLines | None] = asyncio.get_running_loop().create_future()
        self._given.append(answer)
        self._pipe.write(message_of(Work(chunk.partition, self._now_ms(), keyed(chunk))))
        return answer

    async def _hear(self) -> None:
        try:
            await self._next()
            self._is_there = True
            while True:
                found = read_lines(await self._next())
                self._given.popleft().set_result(found)
        except (asyncio.IncompleteReadError, ConnectionError):
            log.warning("console_builds_alone", error="the process that helped has ended")
        finally:
            self._is_there = False
            for answer in self._given:
                answer.set_result(None)

    async def _next(self) -> bytes:
        assert self._process.stdout is not None  # we asked for a pipe
        size = int.from_bytes(await self._process.stdout.readexactly(PREFIX))
        return await self._process.stdout.readexactly(size)

    async def close(self) -> None:
        """Ends it."""
        if not self._pipe.is_closing():  # it is when the process has died
            self._pipe.abort()
        self._hearing.cancel()
        await asyncio.gather(self._hearing, return_exceptions=True)
        with suppress(ProcessLookupError):
            self._process.kill()
        async with asyncio.timeout(_END_WITHIN_S):
            await self._process.wait()
