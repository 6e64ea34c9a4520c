"""Writes what jobs find out to the event topic: order state has one way in."""

import asyncio
from collections.abc import Callable, Sequence

from worker.core.trust import HEADER, Trust
from worker.errors import LogError
from worker.model.callbacks import Called, Said
from worker.ports import EventProducer
from worker.providers.callbacks import cloud_event

_CONTENT_TYPE = ("content-type", b"application/cloudevents+json")
_AT_ONCE_MAX = 500
"""Records that are handed over before the brokers have acknowledged them."""
WRITE_WITHIN_S = 60.0
"""For so many; then it is begun anew, which does no harm: a repeat of an event changes nothing."""


class JobEvents:
    """Signed, and acknowledged by all in-sync replicas before it counts."""

    def __init__(
        self,
        producer: EventProducer,
        key_of: Callable[[str], bytes],
        trust: Callable[[], Trust],
        wall_ms: Callable[[], int],
    ) -> None:
        """`key_of`: a record's key, of its subject. `trust`: what signs now. `wall_ms`: UTC milliseconds."""
        self._producer = producer
        self._key_of = key_of
        self._trust = trust
        self._wall_ms = wall_ms

    async def write(self, account: str, purpose: str, said: Sequence[Said]) -> None:
        """Returns once the brokers have all of it. Raises `LogError` when they may not."""
        called = Called(
            account=account, purpose=purpose, reference="", media_type="", body=b"", arrived_ms=self._wall_ms()
        )
        try:
            for begin in range(0, len(said), _AT_ONCE_MAX):
                async with asyncio.timeout(WRITE_WITHIN_S):
                    await self._write([cloud_event(called, each) for each in said[begin : begin + _AT_ONCE_MAX]])
        except TimeoutError:
            raise LogError(f"the brokers did not acknowledge events within {WRITE_WITHIN_S:g} s") from None

    async def _write(self, events: list[tuple[str, bytes]]) -> None:
        sent = []
        for subject, value in events:
            key = self._key_of(subject)
            headers = [_CONTENT_TYPE, (HEADER, self._trust().sign(key, value))]
            sent.append(await self._producer.post(key, value, headers))
        results = await asyncio.gather(*sent, return_exceptions=True)
        if failed := [result for result in results if isinstance(result, BaseException)]:
            raise LogError(f"events were not acknowledged: {type(failed[0]).__name__}")
