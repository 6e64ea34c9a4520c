"""`cartsync sandbox`: a local fake provider, until Ctrl-C."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence

from worker.errors import UsageError
from worker.model.exchange import Fault, HttpRequest
from worker.publisher.sender import HttpSender
from worker.sandbox.atarapay.sandbox import AtaraPaySandbox
from worker.sandbox.faults import FaultPlan
from worker.sandbox.pushes import Push
from worker.sandbox.qliro.sandbox import QliroSandbox
from worker.sandbox.sequra.sandbox import SequraSandbox
from worker.sandbox.server import Sandbox

PUSH_DEADLINE_S = 5.0
"""How long seQura waits for a response (docs.sequra.com, read 2026-11); used for all providers."""
HASTE = 10.0
"""How much faster than documented pushes are repeated: nobody wants to wait for days."""

_FORMS = {"sequra": "MERCHANT:USER:PASSWORD", "qliro": "KEY:SECRET", "atarapay": "PUBLIC_KEY:PRIVATE_KEY"}
_DEFAULTS = {"sequra": "acme:user:secret", "qliro": "HATS:secret", "atarapay": "public:private"}
PROVIDERS = tuple(_FORMS)


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

    `accounts`: credentials, in the form of `_FORMS`; seQura may have several. `faults`: a plan, such as
    `500=0.05,push_late=0.1`. `callback_url`: AtaraPay's only address. Raises `UsageError` for invalid arguments, or
    if the port is in use.
    """
    if provider not in _FORMS:
        raise UsageError(f"unknown provider {provider!r}; known are {', '.join(_FORMS)}")
    if callback_url and provider != "atarapay":
        raise UsageError(f"--callback-url is only for AtaraPay; {provider} gets its addresses with POST /checkout")
    known = [_account(provider, text) for text in accounts or [_DEFAULTS[provider]]]
    if len(known) > 1 and provider != "sequra":
        raise UsageError(f"--account: a sandbox of {provider} has one merchant, got {len(known)}")
    plan = FaultPlan.parse(faults)

    async def serve() -> int:
        sender = HttpSender(deadline_s=PUSH_DEADLINE_S, user_agent="cartsync-sandbox")
        try:
            return await _serve(_made(provider, known, plan, seed, sender, callback_url), host, port, known)
        finally:
            await sender.close()

    return asyncio.run(serve())


def _account(provider: str, text: str) -> list[str]:
    form = _FORMS[provider]
    parts = text.split(":", form.count(":"))
    if len(parts) != form.count(":") + 1 or not all(parts):
        raise UsageError(f"account {text!r}: expected {form.lower()}")
    return parts


def _made(
    provider: str, known: Sequence[Sequence[str]], plan: FaultPlan, seed: int, sender: HttpSender, callback_url: str
) -> Sandbox:
    send = pusher(sender)
    if provider == "qliro":
        return QliroSandbox(known[0][0], known[0][1], plan, seed, send=send, haste=HASTE)
    if provider == "atarapay":
        return AtaraPaySandbox(known[0][0], known[0][1], plan, seed, send=send, haste=HASTE, callback_url=callback_url)
    merchants = {merchant: (user, password) for merchant, user, password in known}
    return SequraSandbox(merchants, plan, seed, send=send, haste=HASTE)


def pusher(sender: HttpSender) -> Callable[[Push], Awaitable[tuple[int, bytes] | None]]:
    """How a sandbox calls back."""

    async def send(push: Push) -> tuple[int, bytes] | None:
        request = HttpRequest("POST", push.url, {"Content-Type": push.content_type}, push.body)
        answer = await sender.send(request, PUSH_DEADLINE_S, lambda: True)
        return None if isinstance(answer, Fault) else (answer.status, answer.body)

    return send


async def _serve(sandbox: Sandbox, host: str, port: int, known: Sequence[Sequence[str]]) -> int:
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    try:
        url = await sandbox.start(host, port)
    except OSError as error:
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror}; choose another port with --port") from None
    names = "" if sandbox.name == "AtaraPay" else f" for {', '.join(each[0] for each in known)}"
    print(f"{sandbox.name} sandbox at {url}{names}; its orders: {url}/; Ctrl-C stops it")
    sys.stdout.flush()
    await stopping.wait()
    await sandbox.stop()
    return 0
