"""Events consumed and committed on a real Kafka, beside a bare loop of the same shape."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec

from schemas import events
from tests.bench.brokers import PRODUCER, Brokers, write_events
from tests.bench.measuring import Figure, Row, Tell, take_turns
from tests.bench.processes import Line, Watch, calm, core_wait_s, run, until
from tests.shops.load import ACCOUNT, EVENTS_PER_ORDER, PARTITIONS, in_log_order
from worker.app import Ports, SystemClock, Worker
from worker.config import worker_settings_from
from worker.kafka.client import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from worker.kafka.events import KafkaEventLog
from worker.kafka.settings import KafkaSettings
from worker.kafka.state import KafkaStateLog
from worker.metrics import Metrics
from worker.providers.sequra.options import SequraAccount
from worker.publisher.sender import HttpSender
from worker.store.rocks import RocksFiles
from worker.store.tables import DiskTables

ROUNDS = 3
ORDERS = 20_000
CACHE_BYTES = 256 * 2**20
"""Of orders on the disk, where they are."""

CONSUME = Row(
    "consume",
    f"events consumed and committed, Kafka, {ORDERS * EVENTS_PER_ORDER:,} events of {ORDERS:,} orders, "
    f"{PARTITIONS} partitions, nothing sent",
    "events/s",
    "getmany, typed decode, a dict, a record per event, a transaction per partition and batch",
    0.65,
)
HISTORY = Row(
    "history",
    "the same events, with a history of each order",
    "events/s",
    "without histories",
    0.90,
)
"""What `[kafka] history_topic` costs, which is there by default. The row above is without it: its limit writes one record an event."""
CATCHUP_EVENTS = 50_000
"""In each partition."""
CATCHUP = Row(
    "catchup",
    f"one partition caught up with by a worker, {CATCHUP_EVENTS:,} events of {CATCHUP_EVENTS // EVENTS_PER_ORDER:,} orders",
    "events/s",
    f"the same worker with {PARTITIONS} such partitions",
    0.90,
)
"""Whether one partition uses a whole core, though it has to wait for its commits. By the clock, less the time in which
others had the core: a core that is never free hides that somebody waits.
"""


async def measure(brokers: Brokers, tell: Tell) -> list[Figure]:
    """The same events for all rounds; a new group and a new state topic for each."""
    tell("starting Kafka, writing events")
    settings = await brokers.topics()
    total = await write_events(settings, in_log_order(2, ORDERS))

    async def half(target: str) -> Any:
        fresh = await brokers.topics(settings["event_topic"])
        return await run(f"consuming:{target}", {"settings": fresh, "total": total})

    figure = Figure(CONSUME)
    for ours, bare in await take_turns(ROUNDS, lambda _: half("ours"), lambda _: half("bare"), tell):
        _add(figure, ours, bare)
    return [figure]


async def measure_history(brokers: Brokers, tell: Tell) -> list[Figure]:
    """Twice the same worker, by turns."""
    tell("starting Kafka, writing events")
    settings = await brokers.topics()
    total = await write_events(settings, in_log_order(2, ORDERS))

    async def half(keeps_history: bool) -> Any:
        fresh = await brokers.topics(settings["event_topic"])
        return await run("consuming:ours", {"settings": fresh, "total": total, "keeps_history": keeps_history})

    figure = Figure(HISTORY)
    for with_it, without in await take_turns(ROUNDS, lambda _: half(True), lambda _: half(False), tell):
        _add(figure, with_it, without)
    return [figure]


async def measure_catchup(brokers: Brokers, tell: Tell) -> list[Figure]:
    """As many orders in each partition: so as many events of one order meet in a transaction."""
    inputs: list[tuple[int, dict[str, Any], int]] = []
    for partitions in (1, PARTITIONS):
        tell(f"writing events of {partitions} partition{'s' * (partitions > 1)}")
        settings = await brokers.topics(partitions=partitions)
        orders = partitions * CATCHUP_EVENTS // EVENTS_PER_ORDER
        inputs.append((partitions, settings, await write_events(settings, in_log_order(2, orders), partitions)))

    async def half(partitions: int, settings: dict[str, Any], total: int) -> Any:
        fresh = await brokers.topics(settings["event_topic"], partitions)
        return await run("consuming:catch_up", {"settings": fresh, "total": total})

    one, all_of_them = inputs
    figure = Figure(CATCHUP)
    for single, several in await take_turns(ROUNDS, lambda _: half(*one), lambda _: half(*all_of_them), tell):
        _add(figure, single, several)
    return [figure]


def _add(figure: Figure, ours: tuple[int, float, float], limit: tuple[int, float, float]) -> None:
    """Both as a count, seconds, and seconds of CPU."""
    (ours_count, ours_s, ours_cpu_s), (count, took_s, cpu_s) = ours, limit
    figure.add(ours_count / ours_s, count / took_s, cpu_s / count * ours_count / ours_cpu_s)


async def ours(
    line: Line,
    settings: dict[str, Any],
    total: int,
    folder: str = "",
    cache_bytes: int = CACHE_BYTES,
    *,
    keeps_history: bool = False,
) -> None:
    """A whole worker that sends nothing, from ready until all is committed. `folder`: where its orders are; empty: in
    memory.
    """
    worker = await _serving(settings, folder, cache_bytes, keeps_history=keeps_history)
    before = _committed(worker)
    watch = Watch()
    await until(lambda: _committed(worker) >= total, every_s=0.02)
    line.say([total - before, *watch.read()])


async def catch_up(line: Line, settings: dict[str, Any], total: int) -> None:
    """The same worker, from the tenth part on, when it is in its stride."""
    worker = await _serving(settings)
    await until(lambda: _committed(worker) >= total // 10, every_s=0.002)
    before, waited_s = _committed(worker), core_wait_s()
    watch = Watch()
    await until(lambda: _committed(worker) >= total, every_s=0.002)
    took_s, cpu_s = watch.read()
    line.say([total - before, took_s - (core_wait_s() - waited_s), cpu_s])


async def _serving(
    settings: dict[str, Any], folder: str = "", cache_bytes: int = CACHE_BYTES, *, keeps_history: bool = False
) -> Worker:
    kafka = KafkaSettings(**settings)
    sender = HttpSender(deadline_s=8.0, user_agent="bench")
    tables = DiskTables(RocksFiles(Path(folder)), SystemClock(), cache_bytes) if folder else None
    ports = Ports(SystemClock(), KafkaEventLog(kafka), KafkaStateLog(kafka), sender, tables=tables)
    account = SequraAccount(ACCOUNT, "sequra", "http://127.0.0.1", "acme", "user", "secret")
    worker = Worker(
        worker_settings_from({"sending": False}),
        {ACCOUNT: account},
        ports,
        owner_id="bench",
        metrics=Metrics(),
        event_topic=kafka.event_topic,
        keeps_history=keeps_history,
    )
    await worker.start()
    calm()
    await worker.serving()
    return worker


def _committed(worker: Worker) -> int:
    return sum(view.next_offset for view in worker.status().partitions)


async def bare(line: Line, settings: dict[str, Any], total: int) -> None:
    """What a person would write who trusts the network."""
    server = settings["bootstrap_servers"]
    consumer = AIOKafkaConsumer(
        bootstrap_servers=server, enable_auto_commit=False, auto_offset_reset="earliest", fetch_max_wait_ms=50
    )
    here = [TopicPartition(settings["event_topic"], partition) for partition in range(PARTITIONS)]
    consumer.assign(here)
    await consumer.start()
    name = settings["transactional_id_prefix"]
    producers = {each: await _producer(server, f"{name}.{each.partition}") for each in here}
    decode = msgspec.json.Decoder(events.Event).decode
    newest: dict[str, bytes] = {}

    async def take(each: Any, records: list[Any]) -> None:
        producer = producers[each]
        await producer.begin_transaction()
        sent = []
        for record in records:
            event = decode(record.value)
            newest[event.subject] = record.value
            key = event.subject.encode()
            sent.append(
                await producer.send(settings["state_topic"], key=key, value=record.value, partition=each.partition)
            )
        await asyncio.gather(*sent)
        await producer.commit_transaction()

    calm()
    watch = Watch()
    done = 0
    while done < total:
        batches = await consumer.getmany(timeout_ms=1000, max_records=2000)
        await asyncio.gather(*(take(each, records) for each, records in batches.items()))
        done += sum(map(len, batches.values()))
    line.say([done, *watch.read()])


async def _producer(server: str, name: str) -> Any:
    producer = AIOKafkaProducer(bootstrap_servers=server, transactional_id=name, **PRODUCER)
    await producer.start()
    return producer
