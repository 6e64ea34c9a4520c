"""`cartsync status`: all workers and partitions, whoever serves them and wherever they run.

From the consumer group, the state and dead-letter topics and, where they can be reached, the workers' private ports;
joins no group.
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from contextlib import aclosing

import msgspec

from schemas import state
from schemas.commands import FleetStatus
from worker import http_url
from worker.backend import newest_entries, open_records, open_state_scan
from worker.config.console import ConsoleConfig
from worker.core.view import brief_view
from worker.errors import UsageError
from worker.kafka.client import Connection
from worker.kafka.group import describe_group
from worker.kafka.settings import KafkaSettings
from worker.kafka.topics import require_topics
from worker.tools.console.workers import PrivatePorts
from worker.tools.fleet.picture import Counts, lines_of, picture
from worker.tools.letters import open_desk
from worker.tools.patience import for_a_person
from worker.tools.progress import Progress


def run_status(config: ConsoleConfig, urls: Sequence[str], *, with_orders: bool, as_json: bool) -> int:
    """Prints it; 0. `urls`: private ports to ask; none: those of `[console] workers`, or the one of `[http]`.

    Raises `TopicError`, `ConfigError` or `LogError`.
    """
    status = asyncio.run(_status(config, urls, with_orders))
    if as_json:
        print(msgspec.json.encode(status).decode())
    else:
        print("\n".join(lines_of(status, time.time_ns() // 1_000_000)))
    return 0


async def _status(config: ConsoleConfig, urls: Sequence[str], with_orders: bool) -> FleetStatus:
    settings = for_a_person(config.kafka)
    asked = list(urls) or list(config.console.workers)
    are_named = bool(asked)
    if not asked:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.http.host, config.http.host)  # noqa: S104 - connected to
        asked = [http_url(host, config.http.port)]
    counts = await (_counted(config, settings) if with_orders else _newest(settings))
    ports = PrivatePorts(asked, config.http.token.get_secret_value())
    group, ends, statuses = await asyncio.gather(describe_group(settings), _ends(settings), ports.statuses())
    if not are_named:
        statuses = [each for each in statuses if each[0].ok]  # nobody said that there is one
    return picture(settings.group_id, group, statuses, ends, counts, now_ms=time.time_ns() // 1_000_000)


async def _ends(settings: KafkaSettings) -> dict[int, int]:
    records = open_records(settings)
    await records.start()
    try:
        return dict(await records.input_ends())
    finally:
        await records.stop()


async def _counted(config: ConsoleConfig, settings: KafkaSettings) -> Counts:
    """Everything that the state topic has, and the dead letters."""
    rules, counts = config.worker.rules(), Counts(with_orders=True, accounts=config.providers)
    scan = open_state_scan(settings, lambda _subject: True, counts.note)
    await scan.start()
    now_ms, progress, read = time.time_ns() // 1_000_000, Progress(), 0
    for partition in range(scan.partitions):
        counts.met(partition)
        async with aclosing(scan.orders(partition)) as orders:
            async for subject, value in orders:
                read += 1
                progress.say(lambda: f"partition {partition + 1} of {scan.partitions}: {read} orders read")  # noqa: B023
                try:
                    record = state.decode_order(value)
                    brief = brief_view(record, rules=rules, now_ms=now_ms)
                except (msgspec.MsgspecError, ValueError, ArithmeticError):
                    sys.stderr.write(f"partition {partition}: a record that cartsync did not write was left out\n")
                    continue
                counts.order(partition, subject, brief.status, record.owed_since_ms)
    try:
        desk = await open_desk(config, None)
    except UsageError as error:
        counts.letters_unread = str(error)
        return counts
    async with aclosing(desk.walk(progress)) as letters:
        async for letter in letters:
            counts.letter(letter.row, now_ms)
    return counts


async def _newest(settings: KafkaSettings) -> Counts:
    """What the last records of each partition have: quick, however many orders there are."""
    counts = Counts(with_orders=False)
    connection = Connection(settings)
    topics = await require_topics(connection)
    for partition, entries in (await newest_entries(connection, topics[settings.state_topic].partitions)).items():
        counts.met(partition)
        for entry in entries:
            counts.note(partition, entry.key, entry.value)
    return counts
