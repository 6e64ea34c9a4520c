"""`cartsync receive` as a process, with a Kafka that comes, freezes, and goes on."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from yarl import URL

from tests.integration.process import WorkerProcess
from tests.kafka_settings import settings_of
from worker.core.placing import Placing
from worker.core.tokens import Address, Tokens
from worker.core.trust import HEADER, Trust
from worker.kafka.producer import KafkaEventProducer
from worker.kafka.settings import KafkaSettings
from worker.kafka.topics import create_topics
from worker.tools.kafka_ports import free_ports
from worker.tools.local_kafka import LocalKafka

PROJECT = Path(__file__).parents[2]
SECRET, RECORD_SECRET = "0123456789abcdef0123456789abcdef", "record-secret-0123456789-0123456789"
PUSH = b'{"OrderId":12345,"Status":"Completed","Timestamp":"2016-03-03T11:43:05.567","PaymentTransactionId":1234}'
RECEIVED = (200, b'{"CallbackResponse":"received"}')
PARTITIONS = 3


class Receiver:
    """A running `cartsync receive`."""

    def __init__(self, process: WorkerProcess, port: int) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"

    async def call(self, purpose: str, reference: str, body: bytes = PUSH) -> tuple[int, bytes, float]:
        """Status and body of an answer, and how long it took."""
        token = Tokens([SECRET]).token("hats", purpose, reference)
        url = URL(self.url + Address("hats", purpose, token, reference).path(), encoded=True)
        began = time.monotonic()
        async with aiohttp.ClientSession() as session, session.post(url, data=body) as response:
            return response.status, await response.read(), time.monotonic() - began

    async def metric(self, name: str) -> float:
        """The value of a metric without labels."""
        _, page = await self.process.get("/metrics")
        (line,) = [line for line in page.decode().splitlines() if line.startswith(f"{name} ")]
        return float(line.split()[1])


@pytest.fixture
async def receive(tmp_path: Path) -> AsyncIterator[Callable[[KafkaSettings], Any]]:
    """Starts a receiver of these topics; it is killed when the test ends and it still runs."""
    running: list[WorkerProcess] = []

    @asynccontextmanager
    async def start(settings: KafkaSettings) -> AsyncIterator[Receiver]:
        private, public = free_ports(2)
        (tmp_path / "receive.toml").write_text(
            f'[kafka]\nbootstrap_servers = "{settings.bootstrap_servers}"\nevent_topic = "{settings.event_topic}"\n'
            f'partitioner = "murmur2"\nconnect_timeout = "2s"\n'
            f'[callbacks]\nport = {public}\nrecord_secrets = ["{RECORD_SECRET}"]\ndeadline = "2s"\n'
            f'[http]\nport = {private}\n[log]\nformat = "json"\n'
            f'[accounts.hats]\nprovider = "qliro"\ncallback_secrets = ["{SECRET}"]\napi_secret_file = "/nowhere"\n'
            '[accounts.hats.lookups]\nurl = "http://127.0.0.1:9/nobody"\ntoken = "0123456789abcdef"\ntimeout = "1s"\n'
            '[accounts.hats.lookups.default]\nvalidation = "OutOfStock"\nshipping_methods = "declined"\n'
            'shipping_addresses = "empty"\n'
        )
        log_file = tmp_path / "receive.log"
        environment = {"PYTHONPATH": str(PROJECT), "PATH": os.environ["PATH"]}
        with log_file.open("wb") as log:
            process = subprocess.Popen(  # noqa: ASYNC220 - it takes no time
                [sys.executable, "-m", "worker", "receive", "--config", "receive.toml"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=tmp_path,
                env=environment,
            )
        worker = WorkerProcess("receiver", process, log_file, private)
        running.append(worker)
        await worker.answers()
        yield Receiver(worker, public)

    yield start
    for each in running:
        if each.is_running():
            each.kill()


async def records(settings: KafkaSettings) -> list[Any]:
    """All that is in the event topic; each lies where its key belongs, and is signed."""
    places = [TopicPartition(settings.event_topic, partition) for partition in range(PARTITIONS)]
    found: list[Any] = []
    async with AIOKafkaConsumer(bootstrap_servers=settings.bootstrap_servers) as consumer:
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        ends = await consumer.end_offsets(places)
        while any([await consumer.position(place) < ends[place] for place in places]):
            for batch in (await consumer.getmany(timeout_ms=200)).values():
                found += batch
    for record in found:
        assert Placing("murmur2").partition(record.key, PARTITIONS) == record.partition
        Trust([RECORD_SECRET]).check(record.key, record.value, dict(record.headers)[HEADER])
    return found


async def test_callback_becomes_a_signed_record(receive: Callable[[KafkaSettings], Any], kafka: LocalKafka) -> None:
    """The provider hears success once it is there; 120 at once are all there, each once."""
    settings = settings_of(kafka.bootstrap)
    await create_topics(settings, PARTITIONS)
    async with receive(settings) as receiver:
        assert await receiver.process.get("/readyz") == (200, b'{"ok":true,"detail":""}')
        status, body, _ = await receiver.call("checkout-status", "A14/12345")
        assert (status, body) == RECEIVED
        (record,) = await records(settings)
        assert record.key == b"hats/A14/12345"
        event = json.loads(record.value)
        assert (event["type"], event["source"]) == ("provider.payment_state", "/cartsync/hats/checkout-status")
        assert event["data"] == {"provider_order": "12345", "state": "approved", "transaction_id": "1234"}
        answers = await asyncio.gather(*(receiver.call("checkout-status", str(n)) for n in range(120)))
        assert {answer[:2] for answer in answers} == {RECEIVED}
        assert len(await records(settings)) == 121
        assert await receiver.metric("cartsync_kafka_unreachable_seconds") == 0
        receiver.process.terminate()
        assert await receiver.process.ended() == 0
        events = [line["event"] for line in receiver.process.log()]
        assert events == [
            "receiver_starting",
            "private_port_open",
            "public_port_open",
            "receiver_draining",
            "receiver_stopped",
        ]


async def test_kafka_comes_freezes_and_goes_on(receive: Callable[[KafkaSettings], Any], kafka_jars: Path) -> None:
    """Without Kafka it is ready, pushes get 503 by the deadline and questions their answers; with it all is taken."""
    (port,) = free_ports(1)
    kafka = LocalKafka(jars=kafka_jars, port=port)
    settings = settings_of(kafka.bootstrap)
    async with receive(settings) as receiver:
        assert (await receiver.process.get("/readyz"))[0] == 200
        await refused(receiver)
        assert await receiver.metric("cartsync_kafka_unreachable_seconds") > 0
        await asyncio.to_thread(kafka.start)
        try:
            await create_topics(settings, PARTITIONS)
            await taken(receiver, "1", within_s=20)
            kafka.freeze(1)
            await refused(receiver)
            kafka.thaw(1)
            await taken(receiver, "2", within_s=20)
            # What was refused may have been written since: a repeat shares its id.
            found = await records(settings)
            assert {record.key for record in found} >= {b"hats/1", b"hats/2"}
            by_order: dict[bytes, set[str]] = {}
            for record in found:
                by_order.setdefault(record.key, set()).add(json.loads(record.value)["id"])
            assert all(len(ids) == 1 for ids in by_order.values())
            receiver.process.terminate()
            assert await receiver.process.ended() == 0
        finally:
            await asyncio.to_thread(kafka.stop)
        text = json.dumps(receiver.process.log())
        assert not [secret for secret in (SECRET, RECORD_SECRET, "Completed", "/callbacks/") if secret in text]


async def refused(receiver: Receiver) -> None:
    """A push comes again, by the deadline; a question has the merchant's default."""
    status, body, took_s = await receiver.call("checkout-status", "0")
    assert (status, body) == (503, b"{}")
    assert took_s < 2.6
    status, body, took_s = await receiver.call("validation", "0", b"{}")
    assert (status, body) == (400, b'{"DeclineReason":"OutOfStock"}')
    assert took_s < 2.0


async def taken(receiver: Receiver, reference: str, within_s: float) -> None:
    """A push is taken, soon."""
    until = time.monotonic() + within_s
    while (answer := await receiver.call("checkout-status", reference))[:2] != RECEIVED:
        assert time.monotonic() < until, f"{answer}\n{receiver.process.tail()}"


async def test_what_kafka_refuses_is_not_acknowledged(kafka: LocalKafka) -> None:
    """A record that is too large for the topic fails, with what was on its way beside it; what comes later is written,
    and nothing was acknowledged that is not there.
    """
    settings = settings_of(kafka.bootstrap)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics(
        [NewTopic(settings.event_topic, PARTITIONS, 1, topic_configs={"max.message.bytes": "3000"})]
    )
    await admin.close()
    producer = KafkaEventProducer(settings, Placing("murmur2"))
    producer.start()
    acknowledged: set[bytes] = set()

    async def write(value: bytes) -> None:
        async with asyncio.timeout(20):
            await (await producer.post(b"k", value, ()))
        acknowledged.add(value[:10])

    await write(b"before    ")
    outcomes = await asyncio.gather(
        *(write(f"{number:10}".encode()) for number in range(5)),
        write(b"too large " + os.urandom(8_000)),
        *(write(f"{number:10}".encode()) for number in range(5, 10)),
        return_exceptions=True,
    )
    assert any(isinstance(outcome, Exception) for outcome in outcomes)
    assert producer.silent_s() > 0
    await write(b"after     ")
    assert producer.silent_s() == 0
    await producer.stop()
    place = TopicPartition(settings.event_topic, Placing("murmur2").partition(b"k", PARTITIONS))
    found: set[bytes] = set()
    async with AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap) as consumer:
        consumer.assign([place])
        await consumer.seek_to_beginning(place)
        ends = await consumer.end_offsets([place])
        while await consumer.position(place) < ends[place]:
            found |= {record.value for record in (await consumer.getmany(timeout_ms=200)).get(place, [])}
    assert {b"before    ", b"after     "} <= acknowledged <= found


async def test_what_is_given_up_is_not_acknowledged(kafka_jars: Path) -> None:
    """With a broker that is frozen a stop ends soon, and what was on its way has failed: nobody is told that it is done."""
    with LocalKafka(jars=kafka_jars) as kafka:
        settings = settings_of(kafka.bootstrap)
        await create_topics(settings, PARTITIONS)
        producer = KafkaEventProducer(settings, Placing("murmur2"))
        producer.start()
        await (await producer.post(b"k", b"1", ()))
        kafka.freeze(1)
        try:
            waiting = [await producer.post(b"k", str(number).encode(), ()) for number in range(5)]
            began = time.monotonic()
            await producer.stop()
            assert time.monotonic() - began < 10
            assert all(each.exception() is not None for each in waiting)
        finally:
            kafka.thaw(1)


async def test_ports_that_are_taken(receive: Callable[[KafkaSettings], Any], tmp_path: Path) -> None:
    """It ends with 64, and says which."""
    async with receive(settings_of("127.0.0.1:9")) as receiver:
        ran = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "worker", "receive", "--config", "receive.toml"],
            capture_output=True,
            cwd=tmp_path,
            env={"PYTHONPATH": str(PROJECT), "PATH": os.environ["PATH"], "CARTSYNC_HTTP__PORT": "0"},
            timeout=30,
            check=False,
        )
        assert ran.returncode == 64
        assert b'"event":"public_port_unavailable"' in ran.stdout
        receiver.process.terminate()
        assert await receiver.process.ended() == 0
