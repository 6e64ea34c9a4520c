"""The console beside a worker: a process of its own, so that nothing it does can hold up the worker's event loop.

It ends with the worker, whatever becomes of that: it reads from a pipe whose other end only the worker holds. It runs
at a lower priority, is started again when it ends, and never ends the worker.
"""

import asyncio
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from pathlib import Path

import structlog

from worker import http_url
from worker.errors import ConfigError
from worker.own_process import own_command

log = structlog.get_logger(__name__)

_AGAIN_S, _AGAIN_MAX_S = 1.0, 60.0
_STABLE_AFTER_S = 60.0
_STOP_S = 3.0


def console_command(config: Path | None, host: str, port: int) -> list[str]:
    """How the console of a worker with this private port is started."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - connected to, not bound
    named = [] if config is None else ["--config", str(config)]
    return own_command("worker", "console", "--beside", http_url(reached, port), *named)


async def keep_console(command: list[str]) -> None:
    """Runs the console, again whenever it ends, until cancelled; it has then ended, too."""
    loop = asyncio.get_running_loop()
    again_s = _AGAIN_S
    while True:
        began = loop.time()
        try:
            process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, start_new_session=True)
        except OSError as error:
            log.warning("console_not_started", error=error.strerror, again_s=again_s)
        else:
            log.info("console_started", pid=process.pid)
            try:
                code = await process.wait()
            finally:
                await _end(process)
            if code == ConfigError.exit_code:
                log.error("console_given_up", exit_code=code, do="correct [console], then restart the worker")
                return
            log.warning("console_ended", exit_code=code, again_s=again_s)
        if loop.time() - began > _STABLE_AFTER_S:
            again_s = _AGAIN_S
        await asyncio.sleep(again_s)
        again_s = min(again_s * 2, _AGAIN_MAX_S)


async def _end(process: Process) -> None:
    """Ends it in order if it can, at once if it cannot."""
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(_STOP_S):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
