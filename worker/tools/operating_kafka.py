"""`cartsync order …` and `cartsync account …` by events, over Kafka."""

import asyncio
import time
from collections.abc import Sequence

import msgspec

from worker.backend import find_orders, open_records
from worker.config import KafkaSection
from worker.core.commands import Command
from worker.core.trust import Trust
from worker.errors import LogError
from worker.kafka.producer import KafkaEventProducer
from worker.kafka.settings import KafkaSettings
from worker.tools.control import means, printable
from worker.tools.operating import Acts, Came, pick
from worker.tools.patience import for_a_person
from worker.tools.state_topic import teller


def acts_on(settings: KafkaSettings, trust: Trust) -> Acts:
    """Acts in this Kafka. Raises `ConfigError`."""
    placing = settings.placing()
    return Acts(
        lambda: open_records(settings),
        lambda: KafkaEventProducer(settings, placing),
        placing,
        trust,
        lambda: time.time_ns() // 1_000_000,
    )


def operate_by_event(
    command: Command, target: str, kafka: KafkaSection, trust: Trust, *, who: str, why: str, as_json: bool
) -> int:
    """Does to an order (`account/reference`, or a reference that only one account has) or an account what an operator
    asks, by an event; 0 once workers have taken it, or if nothing was to do.

    Raises `UsageError`, `ConfigError`, `TopicError`; `LogError` when it was not written, or nobody has taken it.
    """
    came = asyncio.run(_operate(command, target, for_a_person(kafka), trust, who, why))
    line = came.line
    if not came.is_taken:
        raise LogError(f"{line.subject}: {line.detail}")
    of = "account " if command.about == "account" else ""
    print(msgspec.json.encode(line).decode() if as_json else f"{of}{printable(line.subject)}: {printable(line.detail)}")
    return 0


async def _operate(command: Command, target: str, settings: KafkaSettings, trust: Trust, who: str, why: str) -> Came:
    acts = acts_on(settings, trust)
    if command.about == "account":
        return await acts.on_account(command, target, who, why)
    found: Sequence[tuple[int, str, bytes]] = await find_orders(settings, means(target), teller(settings.state_topic))
    order = pick(target, ((partition, subject) for partition, subject, _ in found))
    return (await acts.on_orders(command, [order], who, why))[0]
