"""Looks up at the shop the answers that only the shop knows, while a provider is waiting."""

import asyncio

import msgspec
import structlog

from worker.metrics import LookupResult, Metrics
from worker.model.callbacks import Answered, Ask, Callbacks, Called, Caller
from worker.model.exchange import Fault, HttpRequest
from worker.ports import Sender

log = structlog.get_logger(__name__)

_encode = msgspec.json.Encoder().encode


class Lookup:
    """Asks shops, with limited concurrency. The default replaces a late, failed or malformed answer, and is counted."""

    def __init__(self, sender: Sender, metrics: Metrics, slots: int) -> None:
        self._sender = sender
        self._metrics = metrics
        self._slots = slots
        self._asked = 0

    async def ask(self, caller: Caller, adapter: Callbacks, called: Called, ask: Ask, until: float) -> Answered:
        """The answer for the provider. `until`: on the loop's clock. The caller must have lookups. Never raises."""
        if self._asked >= self._slots:
            return self.default(caller, ask.name, "busy")
        self._asked += 1
        try:
            return await self._answer(caller, adapter, called, ask, until)
        finally:
            self._asked -= 1

    async def _answer(self, caller: Caller, adapter: Callbacks, called: Called, ask: Ask, until: float) -> Answered:
        lookups = caller.lookups
        assert lookups is not None, "the receiver asks only for accounts with lookups"
        question = {
            "question": ask.name,
            "account": called.account,
            "reference": called.reference,
            "provider": caller.provider,
            **ask.question,
        }
        headers = {
            "Authorization": f"Bearer {lookups.token}",
            "Content-Type": "application/json",
            "Accept": "application/json",
        }
        request = HttpRequest("POST", lookups.url, headers, _encode(question))
        left_s = min(lookups.timeout_s, until - asyncio.get_running_loop().time())
        if left_s <= 0:
            return self.default(caller, ask.name, "late")
        response = await self._sender.send(request, left_s, lambda: True)
        if isinstance(response, Fault):
            is_late = asyncio.get_running_loop().time() >= until or f"within {left_s:g} s" in response.detail
            return self.default(caller, ask.name, "late" if is_late else "failed", response.detail)
        if response.status != 200:
            return self.default(caller, ask.name, "failed", f"responded {response.status}")
        found = adapter.answer(ask.name, response.body)
        if found.reply is None:
            return self.default(caller, ask.name, "malformed", "not an answer to this question")
        if found.left_out:
            log.warning(
                "lookup_answer_cut",
                account=caller.name,
                question=ask.name,
                left_out=list(found.left_out),
                sampled_by=caller.name,
            )
        self._metrics.lookup(caller.name, ask.name, "answered")
        return found

    def default(self, caller: Caller, name: str, result: LookupResult, why: str = "") -> Answered:
        """The default answer that the merchant has configured."""
        assert caller.lookups is not None, "the receiver asks only for accounts with lookups"
        self._metrics.lookup(caller.name, name, result)
        log.warning(
            "lookup_default_given",
            account=caller.name,
            question=name,
            result=result,
            error=why or result,
            sampled_by=f"{caller.name} {result}",
        )
        return caller.lookups.defaults[name]
