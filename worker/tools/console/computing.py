"""The helping process itself (`assistant.py`): rows of records, until what it is given ends.

It imports only what rows need: it should be there before the console has read its first orders.
"""

import gc
import sys
from collections.abc import Iterator
from typing import BinaryIO

from msgspec import Struct, msgpack

from worker.core.policy import DeliveryPolicy
from worker.providers.registry import describer
from worker.web.console.rows import Keyed, StateLines, state_lines

PREFIX = 4
"""Bytes before each message: its length, big-endian."""


class Settings(Struct, array_like=True):
    """The first message."""

    rules: DeliveryPolicy
    providers: dict[str, str]


class Work(Struct, array_like=True):
    """Each other one; what it comes to is the answer."""

    partition: int
    now_ms: int
    records: list[Keyed]


_settings = msgpack.Decoder(Settings).decode
_work = msgpack.Decoder(Work).decode
read_lines = msgpack.Decoder(StateLines).decode


def message_of(content: object) -> bytes:
    """With its length before it."""
    packed = msgpack.encode(content)
    return len(packed).to_bytes(PREFIX) + packed


def _help(given: BinaryIO, answers: BinaryIO) -> None:
    """Until what is given ends."""

    def say(content: object) -> None:
        answers.write(message_of(content))
        answers.flush()

    def messages() -> Iterator[bytes]:
        while prefix := given.read(PREFIX):
            yield given.read(int.from_bytes(prefix))

    waiting = messages()
    settings = _settings(next(waiting))
    describe = describer(settings.providers)
    say(None)
    for message in waiting:
        work = _work(message)
        say(state_lines(work.partition, work.records, rules=settings.rules, now_ms=work.now_ms, describe=describe))


if __name__ == "__main__":
    gc.set_threshold(50_000)  # as `app.process.tune_gc`
    _help(sys.stdin.buffer, sys.stdout.buffer)
