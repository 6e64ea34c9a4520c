"""Connecting to a host with several addresses, one of which swallows packets."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from aiokafka import client as kafka_client
from aiokafka import conn as kafka_conn

from worker.kafka import client

HOST, SWALLOWING, ANSWERING = "kafka.example", "127.0.0.2", "127.0.0.3"


@pytest.fixture
def swallowing_port() -> Iterator[int]:
    """A port of an address where nobody takes connections, and where the queue of those that wait is full."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind((SWALLOWING, 0))
        listening.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]


async def test_next_address_is_tried_within_seconds(swallowing_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first address never answers: the second one does."""
    loop = asyncio.get_running_loop()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await asyncio.open_connection(SWALLOWING, swallowing_port)

    async def resolve(host: str, port: int, **_options: object) -> list[object]:
        assert host == HOST
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in (SWALLOWING, ANSWERING)]

    monkeypatch.setattr(loop, "getaddrinfo", resolve)
    greeted = asyncio.Event()

    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        greeted.set()
        writer.close()

    server = await asyncio.start_server(greet, ANSWERING, swallowing_port)
    async with server:
        connection = client._HappyEyeballsConnection(HOST, swallowing_port, request_timeout_ms=4_000)
        began = loop.time()
        with pytest.raises(client.kafka_errors.KafkaConnectionError):  # whom it reached is no Kafka
            await connection.connect()
        assert greeted.is_set()
        assert loop.time() - began < 2.0


async def test_no_address_answers(swallowing_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up soon, though a member of a group may wait a minute for an answer to a request."""
    monkeypatch.setattr(client, "_DIAL_S", 0.3)
    began = asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError):
        await client._HappyEyeballsConnection(SWALLOWING, swallowing_port, request_timeout_ms=60_000).connect()
    assert asyncio.get_running_loop().time() - began < 2.0


async def test_every_client_dials_so() -> None:
    """The library makes such connections, asks for no topic so that it comes to be, and keeps none for long."""
    assert kafka_conn.AIOKafkaConnection is client._HappyEyeballsConnection
    request = kafka_client.MetadataRequest(["gone"]).prepare({3: (0, 5)})
    assert request.to_object() == {"topics": ["gone"], "allow_auto_topic_creation": False}
