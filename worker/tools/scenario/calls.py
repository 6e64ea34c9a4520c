"""The receiver of callbacks in a scenario: its production code, called without a network."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Literal
from urllib.parse import urlencode

import msgspec
from msgspec import UNSET, Struct

from worker.core.placing import Placing
from worker.core.tokens import Address, Tokens
from worker.core.trust import Trust
from worker.metrics import Metrics
from worker.model.callbacks import Caller
from worker.ports import Sender
from worker.providers.registry import CALLBACKS
from worker.sim.producer import MemoryEventProducer
from worker.tools.scenario.steps import CallbackValue
from worker.web.lookups import Lookup
from worker.web.receiver import Receiver

_QUESTIONS = 20
"""Concurrent questions to shops."""
_WRONG = "A" * 43
"""A wrong token of the right length."""
_FORM, _JSON = "application/x-www-form-urlencoded", "application/json"
WhichToken = Literal["right", "wrong", "missing", "of_another_order"]


class Answered(Struct, frozen=True):
    """The response to a call."""

    status: int
    body: bytes


class Calls:
    """The receiver. May be built before its loop runs; is called inside it."""

    def __init__(
        self,
        callers: Mapping[str, Caller],
        sender: Sender,
        producer: MemoryEventProducer,
        trust: Trust,
        placing: Placing,
        wall_ms: Callable[[], int],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """`sender`: sends questions to the shop."""
        self.metrics = Metrics()
        self._producer = producer
        producer.start()
        self._tokens = {name: Tokens(each.callback_secrets) for name, each in callers.items() if each.callback_secrets}
        lookup = Lookup(sender, self.metrics, _QUESTIONS)
        self._receiver = Receiver(
            callers, CALLBACKS, producer, lookup, trust, placing.key_of, self.metrics, wall_ms=wall_ms, loop=loop
        )

    async def call(self, path: str, headers: Mapping[str, str], body: bytes, *, is_away: bool = False) -> Answered:
        """One call. `is_away`: Kafka accepts nothing during it."""
        self._producer.is_away = is_away
        try:
            return Answered(*await self._receiver.hand("POST", path, headers, body))
        finally:
            self._producer.is_away = False

    def path(self, account: str, purpose: str, reference: str, which: WhichToken = "right") -> str:
        """The address, with a valid or an invalid token; an account that is not configured has no valid one."""
        given: str | None = _WRONG
        if which == "missing":
            given = None
        elif which != "wrong" and account in self._tokens:
            other = "" if which == "right" else "another"
            given = self._tokens[account].token(account, purpose, reference + other)
        return Address(account, purpose, given, reference).path()


def content_of(value: CallbackValue) -> tuple[dict[str, str], bytes]:
    """Headers and body of a call."""
    if value.form is not None:
        media_type, body = _FORM, urlencode(value.form).encode()
    elif value.text is not None:
        media_type, body = _JSON, value.text.encode("utf-8", "surrogatepass")
    else:
        media_type, body = _JSON, b"" if value.body is UNSET else msgspec.json.encode(value.body)
    given = {name.lower() for name in value.headers}
    return ({} if "content-type" in given else {"Content-Type": media_type}) | value.headers, body
