"""`cartsync order …` and `cartsync account …` by events, over Kafka."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing

import msgspec

from schemas import state
from worker.backend import find_orders, open_records, open_state_scan
from worker.config import KafkaSection
from worker.core.commands import Command
from worker.core.status import is_parked
from worker.core.trust import Trust
from worker.errors import LogError
from worker.kafka.producer import KafkaEventProducer
from worker.kafka.settings import KafkaSettings
from worker.model.order import account_of
from worker.ports import StateScan
from worker.tools.control import means, printable
from worker.tools.operating import PER_S, Acts, Came, Target, pick
from worker.tools.patience import for_a_person
from worker.tools.progress import Progress
from worker.tools.state_topic import teller
from worker.tools.walking import Walk
from worker.web.private_port import Done


def acts_on(settings: KafkaSettings, trust: Trust, per_s: float = PER_S) -> Acts:
    """Acts in this Kafka, with at most so many events a second. Raises `ConfigError`."""
    placing = settings.placing()
    return Acts(
        lambda: open_records(settings),
        lambda: KafkaEventProducer(settings, placing),
        placing,
        trust,
        lambda: time.time_ns() // 1_000_000,
        per_s=per_s,
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


def operate_parked_by_event(
    command: Command,
    account: str,
    reason_contains: str,
    kafka: KafkaSection,
    trust: Trust,
    *,
    who: str,
    why: str,
    per_s: float,
    as_json: bool,
) -> int:
    """Does it to all parked orders of an account, or those whose reason contains a text, by an event for each, at most
    `per_s` a second; 0 once workers have taken all of them. Raises like `operate_by_event`.
    """
    settings = for_a_person(kafka)
    scan = open_state_scan(settings, lambda subject: account_of(subject) == account)
    progress = Progress()

    async def run() -> list[Came]:
        orders = await parked(scan, reason_contains)

        count = 0

        def say(came: Sequence[Came]) -> None:
            nonlocal count
            count += len(came)
            progress.say(lambda: f"{count} of {len(orders)} orders: taken")

        return await acts_on(settings, trust, per_s).on_orders(command, orders, who, why, progress=say)

    came = asyncio.run(run())
    done = sum(each.line.done for each in came)
    words = command.words_of_parked(done, is_filtered=bool(reason_contains))
    if as_json:
        print(msgspec.json.encode(Done(done > 0, detail=words, released=done, everywhere=True)).decode())
    else:
        print(f"account {printable(account)}: {words}")
    left = [each.line for each in came if not each.is_taken]
    if left:
        raise LogError(f"{len(left)} of {len(came)} orders are left: {printable(left[0].subject)}: {left[0].detail}")
    return 0


async def parked(scan: StateScan, reason_contains: str) -> list[Target]:
    """The parked orders, or those whose reason contains a text, with the partitions where they lie. Raises `LogError`,
    `TopicError`.
    """
    walk = Walk(scan, lambda subject, partition, value: (subject, partition, state.decode_header(value)), "read")
    await scan.start()
    places: dict[str, list[int]] = {}
    async with aclosing(walk.everywhere()) as found:
        async for subject, partition, header in found:
            if header.park is not None and is_parked(header) and reason_contains in header.park.reason:
                places.setdefault(subject, []).append(partition)
    return [Target(subject, partitions) for subject, partitions in places.items()]


async def _operate(command: Command, target: str, settings: KafkaSettings, trust: Trust, who: str, why: str) -> Came:
    acts = acts_on(settings, trust)
    if command.about == "account":
        return await acts.on_account(command, target, who, why)
    found: Sequence[tuple[int, str, bytes]] = await find_orders(settings, means(target), teller(settings.state_topic))
    order = pick(target, ((partition, subject) for partition, subject, _ in found))
    return (await acts.on_orders(command, [order], who, why))[0]
