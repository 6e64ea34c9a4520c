"""A process that computes rows of the index while it is built, so that a second core is used: for no longer than that.

What it cannot do, the console does itself. It may end at any time, and only time is lost.
"""

import asyncio
import fcntl
import os
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import structlog

from worker.core.policy import DeliveryPolicy
from worker.own_process import own_command
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
        async with AsyncExitStack() as opened:
            try:
                helper = await _opened(opened, Settings(rules, dict(providers)), now_ms)
            except OSError as error:
                log.warning("console_builds_alone", error=error.strerror)
                helper = None
            yield helper

    return helped


async def _opened(opened: AsyncExitStack, settings: Settings, now_ms: Callable[[], int]) -> "_Helper":
    """Raises `OSError` when there can be none."""
    given, giving = os.pipe()
    pipe_end = os.fdopen(giving, "wb", buffering=0)
    try:
        with suppress(OSError):  # it works with less
            fcntl.fcntl(giving, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        process = await asyncio.create_subprocess_exec(
            *own_command(computing.__name__), stdin=given, stdout=PIPE, limit=_PIPE_BYTES, start_new_session=True
        )
        opened.push_async_callback(_end, process)
        pipe, _ = await asyncio.get_running_loop().connect_write_pipe(asyncio.Protocol, pipe_end)
    except BaseException:
        with suppress(OSError):  # uvloop has closed it, where it was cancelled while it took it over
            pipe_end.close()
        raise
    finally:
        os.close(given)
    helper = _Helper(process, pipe, settings, now_ms)
    opened.push_async_callback(helper.close)
    return helper


async def _end(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()
    try:
        async with asyncio.timeout(_END_WITHIN_S):
            await process.wait()
    except TimeoutError:
        log.warning("console_helper_remains", pid=process.pid)


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
        # The pipe may be closed already when the end of what it says has not been heard yet.
        if not self._is_there or self._pipe.is_closing() or len(self._given) >= _GIVEN_MAX:
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
            while self._given:
                self._given.popleft().set_result(None)

    async def _next(self) -> bytes:
        assert self._process.stdout is not None  # we asked for a pipe
        size = int.from_bytes(await self._process.stdout.readexactly(PREFIX))
        return await self._process.stdout.readexactly(size)

    async def close(self) -> None:
        """Neither gives nor hears any more."""
        if not self._pipe.is_closing():
            self._pipe.abort()
        self._hearing.cancel()
        await asyncio.gather(self._hearing, return_exceptions=True)
