"""`cartsync sandbox`: a local fake provider, until Ctrl-C."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from worker.errors import UsageError
from worker.model.exchange import Fault, HttpRequest
from worker.publisher.sender import HttpSender
from worker.sandbox.faults import FaultPlan
from worker.sandbox.pushes import Push
from worker.sandbox.registry import SANDBOXES, SandboxKind

PUSH_DEADLINE_S = 5.0
"""How long seQura waits for a response (docs.sequra.com, read 2026-11); used for all providers."""
HASTE = 10.0
"""How much faster than documented pushes are repeated: nobody wants to wait for days."""


def run_sandbox(
    *,
    provider: str = "sequra",
    host: str,
    port: int,
    accounts: Sequence[str] = (),
    faults: str = "",
    seed: int = 0,
    callback_url: str = "",
) -> int:
    """Serves until SIGINT or SIGTERM; 0.

    `accounts`: credentials, in the form of the provider's. `faults`: a plan, such as `500=0.05,push_late=0.1`.
    `callback_url`: the only address of callbacks, where there is but one. Raises `UsageError` for invalid arguments,
    or if the port is in use.
    """
    kind = SANDBOXES.get(provider)
    if kind is None:
        raise UsageError(f"unknown provider {provider!r}; known are {', '.join(SANDBOXES)}")
    if callback_url and not kind.takes_callback_url:
        whose = ", ".join(each.title for each in SANDBOXES.values() if each.takes_callback_url)
        raise UsageError(f"--callback-url is only for {whose}; {provider} gets its addresses with POST /checkout")
    known = [_account(kind.form, text) for text in accounts or [kind.example]]
    if len(known) > 1 and not kind.has_many:
        raise UsageError(f"--account: a sandbox of {provider} has one merchant, got {len(known)}")
    options: dict[str, Any] = {"faults": FaultPlan.parse(faults), "seed": seed, "haste": HASTE}
    if kind.takes_callback_url:
        options["callback_url"] = callback_url

    async def serve() -> int:
        sender = HttpSender(deadline_s=PUSH_DEADLINE_S, user_agent="cartsync-sandbox")
        try:
            return await _serve(kind, known, options | {"send": pusher(sender)}, host, port)
        finally:
            await sender.close()

    return asyncio.run(serve())


def _account(form: str, text: str) -> list[str]:
    parts = text.split(":", form.count(":"))
    if len(parts) != form.count(":") + 1 or not all(parts):
        raise UsageError(f"account {text!r}: expected {form.lower()}")
    return parts


def pusher(sender: HttpSender) -> Callable[[Push], Awaitable[tuple[int, bytes] | None]]:
    """How a sandbox calls back."""

    async def send(push: Push) -> tuple[int, bytes] | None:
        request = HttpRequest("POST", push.url, {"Content-Type": push.content_type}, push.body)
        answer = await sender.send(request, PUSH_DEADLINE_S, lambda: True)
        return None if isinstance(answer, Fault) else (answer.status, answer.body)

    return send


async def _serve(
    kind: SandboxKind, known: Sequence[Sequence[str]], options: Mapping[str, Any], host: str, port: int
) -> int:
    sandbox = kind.make(known, **options)
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    try:
        url = await sandbox.start(host, port)
    except OSError as error:
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror}; choose another port with --port") from None
    names = f" for {', '.join(each[0] for each in known)}" if kind.is_named else ""
    print(f"{sandbox.name} sandbox at {url}{names}; its orders: {url}/; Ctrl-C stops it")
    sys.stdout.flush()
    await stopping.wait()
    await sandbox.stop()
    return 0
