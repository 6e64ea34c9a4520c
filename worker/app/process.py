"""What all our processes have in common: signals, a bounded shutdown, exit codes, garbage collection settings."""

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
"""The process did not drain, because of a second SIGTERM or a timeout: nothing is lost, but the next owner must hold
the orders that it had in flight.
"""

END_WITHIN_S = 24.0
"""The process ends after this, whatever it is doing: below the 30 s that orchestrators allow."""
_LAST_LINES_S = 0.5


async def first(*waited: "asyncio.Future[Any]") -> None:
    """Returns as soon as one of them is done."""
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)


def on_signals(reread: Callable[[], None]) -> asyncio.Event:
    """An event set by the first SIGTERM or SIGINT; the second one exits immediately. SIGHUP calls `reread`."""
    stopping = asyncio.Event()

    def stop() -> None:
        if stopping.is_set():
            end_at_once("second signal: exiting immediately")
        stopping.set()
        end_in_time()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, reread)
    return stopping


def private_port_unavailable(host: str, port: int, error: OSError) -> None:
    """Logs that the private port is unavailable, and which setting to change."""
    do = "set another [http] port, or CARTSYNC_HTTP__PORT: every process on a machine needs its own"
    log.critical("private_port_unavailable", host=host, port=port, error=error.strerror, do=do)


def end_in_time() -> None:
    """Ends the process after `END_WITHIN_S` even if the loop is stuck or something cannot be closed."""
    timer = threading.Timer(END_WITHIN_S, end_at_once, ("not drained in time: exiting immediately",))
    timer.daemon = True
    timer.start()


def end_at_once(why: str) -> NoReturn:
    """Ends the process now with `EXIT_AT_ONCE`, after writing the last log lines."""
    logs.flush(_LAST_LINES_S)
    with contextlib.suppress(OSError):
        sys.stderr.write(why + "\n")
    os._exit(EXIT_AT_ONCE)


def tune_gc() -> None:
    """Full collections cause the latency tail: exempts the objects of the startup, collects the rest less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
