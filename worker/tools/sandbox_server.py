"""`cartsync sandbox`: a provider on this machine to try things against, until Ctrl-C."""

import asyncio
import signal
import sys
from collections.abc import Iterable

from worker.errors import UsageError
from worker.sim.sandbox import FaultPlan, Sandbox


def run_sandbox(*, host: str, port: int, accounts: Iterable[str], faults: str = "", seed: int = 0) -> int:
    """Serves until SIGINT or SIGTERM; 0.

    `accounts`: `merchant:username:password` each. `faults`: a plan, such as `500=0.05,reset_applied=0.02`. Raises
    `UsageError` for what cannot be read, or when the port is taken.
    """
    known = dict(_account(text) for text in accounts)
    return asyncio.run(_serve(Sandbox(known, FaultPlan.parse(faults), seed), host, port, known))


def _account(text: str) -> tuple[str, tuple[str, str]]:
    merchant, *credentials = text.split(":", 2)
    if not merchant or len(credentials) != 2 or not all(credentials):
        raise UsageError(f"account {text!r}: expected merchant:username:password")
    return merchant, (credentials[0], credentials[1])


async def _serve(sandbox: Sandbox, host: str, port: int, known: Iterable[str]) -> int:
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    try:
        url = await sandbox.start(host, port)
    except OSError as error:
        raise UsageError(f"{host}:{port} cannot be had: {error.strerror}; choose another with --port") from None
    print(f"sandbox provider at {url} for {', '.join(known)}; what it holds: {url}/; Ctrl-C ends it")
    sys.stdout.flush()
    await stopping.wait()
    await sandbox.stop()
    return 0
