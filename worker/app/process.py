"""What every process of ours does as a process: signals, an end in time, exit codes, a collector that is calm."""

import asyncio
import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn

import structlog

from worker import logs

log = structlog.get_logger(__name__)

EXIT_DONE, EXIT_WATCHDOG = 0, 70
EXIT_AT_ONCE = 143
"""It did not leave in order, at a second SIGTERM or because there was no more time: nothing is lost by it, but the next
owner has to hold what was owed.
"""

END_WITHIN_S = 24.0
"""Then the process ends, whatever it is at: below the 30 s that orchestrators give."""
_LAST_LINES_S = 0.5


async def first(*waited: "asyncio.Future[Any]") -> None:
    """Returns once one of them is done."""
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)


def on_signals(reread: Callable[[], None]) -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT; the second ends the process at once. SIGHUP has secrets read again."""
    stopping = asyncio.Event()

    def told() -> None:
        if stopping.is_set():
            end_at_once("second signal: stopping at once")
        stopping.set()
        end_in_time()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told)
    loop.add_signal_handler(signal.SIGHUP, reread)
    return stopping


def private_port_unavailable(host: str, port: int, error: OSError) -> None:
    """Says that the private port cannot be had, and which setting to change."""
    do = "set another [http] port, or CARTSYNC_HTTP__PORT: each process on a machine needs its own, one file or not"
    log.critical("private_port_unavailable", host=host, port=port, error=error.strerror, do=do)


def end_in_time() -> None:
    """Ends the process after `END_WITHIN_S` also when the loop is stuck, or something cannot be closed."""
    timer = threading.Timer(END_WITHIN_S, end_at_once, ("not left in time: stopping at once",))
    timer.daemon = True
    timer.start()


def end_at_once(why: str) -> NoReturn:
    """Ends the process now, with `EXIT_AT_ONCE`; the last lines of the log are written."""
    logs.flush(_LAST_LINES_S)
    with contextlib.suppress(OSError):
        sys.stderr.write(why + "\n")
    os._exit(EXIT_AT_ONCE)


def calm_collector() -> None:
    """A full collection is the latency tail: what start-up made is not looked at again, the rest less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
