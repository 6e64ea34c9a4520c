"""From an event to its acknowledged update, at a steady rate, on a real Kafka, beside bare transactions and PUTs."""

import asyncio
import time
from typing import Any

import aiohttp
import msgspec

from schemas import events
from tests.bench.brokers import PRODUCER, Brokers, write_events
from tests.bench.measuring import Figure, Row, Tell, take_turns
from tests.bench.processes import Line, Process, ProcessError, Watch, calm, until
from tests.bench.serving import serve
from tests.shops.load import ACCOUNT, PARTITIONS, history, partition_of, reference_of, subject_of
from worker.app import Ports, SystemClock, Worker
from worker.config import worker_settings_from
from worker.kafka.client import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from worker.kafka.events import KafkaEventLog
from worker.kafka.settings import KafkaSettings
from worker.kafka.state import KafkaStateLog
from worker.metrics import Metrics
from worker.providers.sequra.options import SequraAccount
from worker.publisher.sender import HttpSender

ROUNDS = 3
RATE_PER_S = 1_000
SECONDS = 10
WARM = 1_000
"""Events at the beginning that are not counted."""
SHIPMENT = 3
"""Which of an order's events is measured; before it only the confirmation is known, which nobody is told."""
SETTINGS = {"commit_interval": "10ms", "commits_per_second": 10_000}

_LIMIT = "getmany, a transaction per partition and batch, a PUT per event"
P50 = Row(
    "p50",
    f"event to acknowledged update, median, {RATE_PER_S:,} events/s, Kafka, commit_interval 10 ms",
    "ms",
    _LIMIT,
    2.0,
    is_cost=True,
    decimals=1,
)
P99 = Row("p99", "the same, 99th percentile", "ms", _LIMIT, 3.0, is_cost=True, decimals=1)


async def measure(brokers: Brokers, tell: Tell) -> list[Figure]:
    """The shop and the provider are one process, which has the clock for both ends."""
    count = RATE_PER_S * SECONDS
    tell("starting Kafka")

    async def half(target: str) -> Any:
        settings = await brokers.topics()
        known = ((number, next(history(4, number))) for number in range(count))
        total = await write_events(settings, known)
        async with Process("answering:shop", {"settings": settings, "count": count}, measured=False) as shop:
            arguments = {"settings": settings, "base_url": await shop.hear(), "known": total}
            async with Process(f"answering:{target}", arguments) as worker:
                await worker.hear()
                shop.go()
                percentiles = await shop.hear()
                worker.go()
                return percentiles, await worker.hear()

    figures = [Figure(P50), Figure(P99)]
    for (ours, ours_cpu_s), (bare, bare_cpu_s) in await take_turns(
        ROUNDS, lambda _: half("ours"), lambda _: half("bare"), tell
    ):
        for figure, value, limit in zip(figures, ours, bare, strict=True):
            figure.add(value, limit, ours_cpu_s / bare_cpu_s)
        tell(f"of a core: cartsync {ours_cpu_s / SECONDS:.0%}, the limit {bare_cpu_s / SECONDS:.0%}")
    return figures


async def shop(line: Line, settings: dict[str, Any], count: int) -> None:
    """Writes the shipments at the rate, takes their updates, and says the percentiles in ms."""
    answered_at: dict[str, float] = {}
    all_answered = asyncio.Event()

    def took(path: bytes) -> None:
        answered_at[path.decode().rpartition("/")[2]] = time.perf_counter()
        if len(answered_at) == count:
            all_answered.set()

    line.say(await serve(took))
    shipments = [list(history(4, number))[SHIPMENT] for number in range(count)]
    producer = AIOKafkaProducer(bootstrap_servers=settings["bootstrap_servers"], acks="all")
    await producer.start()
    await line.wait()
    calm()
    if answered_at:
        raise ProcessError("orders were told that nobody had shipped")
    due_at = []
    began = time.perf_counter() + 0.1
    for number, value in enumerate(shipments):
        due_at.append(began + number / RATE_PER_S)
        if (wait_s := due_at[-1] - time.perf_counter()) > 0:
            await asyncio.sleep(wait_s)
        key, partition = subject_of(number).encode(), partition_of(number)
        await producer.send(settings["event_topic"], key=key, value=value, partition=partition)
    await all_answered.wait()
    # From when it was due: a shop that is held up must not hide what others wait.
    waited_s = sorted(answered_at[reference_of(number)] - due_at[number] for number in range(WARM, count))
    line.say([1000 * waited_s[len(waited_s) * percent // 100] for percent in (50, 99)])


async def ours(line: Line, settings: dict[str, Any], base_url: str, known: int) -> None:
    """A whole worker; says when it has taken up what is known of the orders."""
    kafka = KafkaSettings(**settings)
    sender = HttpSender(deadline_s=8.0, user_agent="bench")
    ports = Ports(SystemClock(), KafkaEventLog(kafka), KafkaStateLog(kafka), sender)
    worker = Worker(
        worker_settings_from(SETTINGS),
        {ACCOUNT: SequraAccount(ACCOUNT, "sequra", base_url, "acme", "user", "secret")},
        ports,
        owner_id="bench",
        metrics=Metrics(),
        event_topic=kafka.event_topic,
    )
    await worker.start()
    calm()
    await worker.serving()
    await until(
        lambda: sum(view.next_offset for view in worker.status().partitions) >= known and worker.is_idle(), every_s=0.05
    )
    await _ready(line)


async def bare(line: Line, settings: dict[str, Any], base_url: str, known: int) -> None:
    """For each batch a transaction with a record per event, then a PUT per event, beside the next batch."""
    server = settings["bootstrap_servers"]
    consumer = AIOKafkaConsumer(
        bootstrap_servers=server, enable_auto_commit=False, auto_offset_reset="earliest", fetch_max_wait_ms=50
    )
    here = [TopicPartition(settings["event_topic"], partition) for partition in range(PARTITIONS)]
    consumer.assign(here)
    await consumer.start()
    decode = msgspec.json.Decoder(events.Event).decode
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=32))
    puts: set[asyncio.Task[None]] = set()
    state_topic = settings["state_topic"]

    async def put(subject: str, body: bytes) -> None:
        reference = subject.partition("/")[2]
        async with session.put(f"{base_url}/merchants/acme/orders/{reference}", data=body) as response:
            await response.read()

    async def work(each: Any, inbox: asyncio.Queue[Any]) -> None:
        name = f"{settings['transactional_id_prefix']}.{each.partition}"
        producer = AIOKafkaProducer(bootstrap_servers=server, transactional_id=name, **PRODUCER)
        await producer.start()
        while True:
            records = [await inbox.get()]
            while not inbox.empty():
                records.append(inbox.get_nowait())
            taken = [(decode(record.value), record) for record in records]
            async with producer.transaction():
                sent = [
                    await producer.send(state_topic, key=record.key, value=record.value, partition=each.partition)
                    for _, record in taken
                ]
                await asyncio.gather(*sent)
            for event, record in taken:
                if isinstance(event, events.ItemsShipped):
                    task = asyncio.create_task(put(event.subject, record.value))
                    puts.add(task)
                    task.add_done_callback(puts.discard)

    inboxes: dict[Any, asyncio.Queue[Any]] = {each: asyncio.Queue() for each in here}
    workers = [asyncio.create_task(work(each, inbox)) for each, inbox in inboxes.items()]
    calm()
    done = 0
    ready: asyncio.Task[None] | None = None
    while not any(worker.done() for worker in workers):
        for each, records in (await consumer.getmany(timeout_ms=1000, max_records=2000)).items():
            for record in records:
                inboxes[each].put_nowait(record)
            done += len(records)
        if ready is None and done == known and all(inbox.empty() for inbox in inboxes.values()):
            ready = asyncio.create_task(_ready(line))


async def _ready(line: Line) -> None:
    """Says that the shop may begin, and when it has ended what CPU time that took, in seconds."""
    line.say("ready")
    watch = Watch()
    await line.wait()
    line.say(watch.read()[1])
    await asyncio.Event().wait()
