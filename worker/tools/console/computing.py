"""The helping process itself (`assistant.py`): rows of records, until what it is given ends.

It imports only what rows need: it should be there before the console has read its first orders.
"""

import gc
import os
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
read_lines = msgpack.Decoder(StateLines | None).decode


def message_of(content: object) -> bytes:
    """With its length before it."""
    packed = msgpack.encode(content)
    return len(packed).to_bytes(PREFIX) + packed


def _messages(given: BinaryIO) -> Iterator[bytes]:
    """Until they end, be it in the middle of one."""
    while len(prefix := given.read(PREFIX)) == PREFIX:
        size = int.from_bytes(prefix)
        if len(message := given.read(size)) < size:
            return
        yield message


def _help(given: BinaryIO, answers: BinaryIO) -> None:
    def say(content: StateLines | None) -> None:
        try:
            message = message_of(content)
        except OverflowError:  # a number that no file can hold, either: the console counts and leaves it out
            message = message_of(None)
        answers.write(message)
        answers.flush()

    messages = _messages(given)
    for first in messages:
        settings = _settings(first)
        describe = describer(settings.providers)
        say(None)
        for message in messages:
            work = _work(message)
            say(state_lines(work.partition, work.records, rules=settings.rules, now_ms=work.now_ms, describe=describe))


if __name__ == "__main__":
    gc.set_threshold(50_000)  # as `app.process.tune_gc`
    try:
        _help(sys.stdin.buffer, sys.stdout.buffer)
    except BrokenPipeError:  # the console has ended
        os._exit(1)  # otherwise Python flushes once more at its exit, and prints that error
