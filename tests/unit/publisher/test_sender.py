"""The only way out: what is on the wire, and what is said when no answer comes. Against a real socket."""

import asyncio
import math
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from schemas.updates import Fault, HttpRequest, HttpResponse
from worker.publisher.sender import HttpSender

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def yes() -> bool:
    """The lease is good."""
    return True


def put(url: str, body: bytes = b"{}") -> HttpRequest:
    """An order update."""
    return HttpRequest("PUT", url, {"Content-Type": "application/json", "Authorization": "Basic eDp5"}, body)


async def read_request(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes]:
    """Request line, headers in lower case, body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.strip().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return first, headers, await reader.readexactly(int(headers.get("content-length", "0")))


@asynccontextmanager
async def served(handler: Handler) -> AsyncIterator[str]:
    """A server on a free port; its base URL."""
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@pytest.fixture
async def sender() -> AsyncIterator[HttpSender]:
    """The sender under test."""
    made = HttpSender(deadline_s=2.0, user_agent="cartsync/test", body_max_bytes=1000)
    yield made
    await made.close()


def answering(raw: bytes, seen: list[tuple[str, dict[str, str], bytes]] | None = None) -> Handler:
    """Answers every connection with these bytes."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_request(reader)
        if seen is not None:
            seen.append(request)
        writer.write(raw)
        await writer.drain()
        writer.close()

    return handle


async def test_path_and_bytes_go_out_as_they_are(sender: HttpSender) -> None:
    """An encoded slash stays encoded, UTF-8 bytes are counted, nothing is added to the body."""
    seen: list[tuple[str, dict[str, str], bytes]] = []
    body = '{"name":"Camiseta ñ €"}'.encode()
    async with served(answering(b"HTTP/1.1 204 No Content\r\n\r\n", seen)) as base:
        answer = await sender.send(put(f"{base}/merchants/a%2Fb%20c/orders/A14%2F12345%3F", body), 2.0, yes)
    assert answer == HttpResponse(204, {}, b"")
    [(first, headers, got)] = seen
    assert first == "PUT /merchants/a%2Fb%20c/orders/A14%2F12345%3F HTTP/1.1"
    assert got == body
    assert headers["content-length"] == str(len(body))
    assert headers["authorization"] == "basic edp5"
    assert "cookie" not in headers


async def test_answer_is_cut_at_the_cap(sender: HttpSender) -> None:
    """A page of megabytes costs a thousand bytes."""
    page = b"x" * 3_000_000
    raw = b"HTTP/1.1 409 Conflict\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(page)
    async with served(answering(raw + page)) as base:
        answer = await sender.send(put(base), 2.0, yes)
    assert isinstance(answer, HttpResponse)
    assert (answer.status, len(answer.body), answer.headers["content-type"]) == (409, 1000, "text/html")


async def test_redirect_is_not_followed(sender: HttpSender) -> None:
    """Credentials go nowhere else."""
    seen: list[tuple[str, dict[str, str], bytes]] = []
    raw = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"
    async with served(answering(raw, seen)) as base:
        answer = await sender.send(put(base), 2.0, yes)
    assert isinstance(answer, HttpResponse)
    assert answer.status == 307
    assert len(seen) == 1


async def test_status_decides_when_the_body_breaks_off(sender: HttpSender) -> None:
    """A 200 whose body never ends is a 200."""
    async with served(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nshort")) as base:
        answer = await sender.send(put(base), 2.0, yes)
    assert isinstance(answer, HttpResponse)
    assert (answer.status, answer.body) == (200, b"short")


async def test_refused_connection_was_not_sent(sender: HttpSender) -> None:
    """Nobody listens: no byte can have arrived."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    answer = await sender.send(put(f"http://127.0.0.1:{port}/"), 2.0, yes)
    assert isinstance(answer, Fault)
    assert not answer.sent


async def test_bad_name_was_not_sent(sender: HttpSender) -> None:
    """A host that does not resolve is a fault of the kind that needs no hold."""
    answer = await sender.send(put("http://no-such-host.invalid/"), 2.0, yes)
    assert isinstance(answer, Fault)
    assert not answer.sent


async def test_silence_is_unknown(sender: HttpSender) -> None:
    """The request went out, no answer came within the deadline: it may have been applied."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await reader.read()  # until the client gives up

    async with served(handle) as base:
        answer = await sender.send(put(base), 0.05, yes)
    assert isinstance(answer, Fault)
    assert answer.sent
    assert "0.05 s" in answer.detail


async def test_deadline_is_kept_to_the_moment() -> None:
    """Deadlines of 5 s and more are not rounded up, as aiohttp would: the lease counts on them."""
    sender = HttpSender(deadline_s=8.0, user_agent="x")
    assert sender._session.timeout.ceil_threshold == math.inf
    await sender.close()


async def test_reset_is_unknown(sender: HttpSender) -> None:
    """A reset after the request was read says nothing about its effect."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.transport.abort()

    async with served(handle) as base:
        answer = await sender.send(put(base), 2.0, yes)
    assert isinstance(answer, Fault)
    assert answer.sent


async def test_lease_is_asked_for_right_before_the_headers(sender: HttpSender) -> None:
    """A lease that ran out while a connection was made lets nothing out."""
    seen: list[tuple[str, dict[str, str], bytes]] = []
    async with served(answering(b"HTTP/1.1 204 No Content\r\n\r\n", seen)) as base:
        answer = await sender.send(put(base), 2.0, lambda: False)
        await asyncio.sleep(0)
    assert isinstance(answer, Fault)
    assert not answer.sent
    assert "lease" in answer.detail
    assert seen == []


async def test_dead_kept_connection_is_not_repeated(sender: HttpSender) -> None:
    """aiohttp would repeat a PUT silently on a kept connection that turns out dead; ours goes out once."""
    seen: list[tuple[str, dict[str, str], bytes]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await writer.drain()
        seen.append(await read_request(reader))  # the second on the same connection
        writer.transport.abort()

    async with served(handle) as base:
        first = await sender.send(put(base), 2.0, yes)
        second = await sender.send(put(base), 2.0, yes)
    assert isinstance(first, HttpResponse)
    assert isinstance(second, Fault)
    assert second.sent
    assert len(seen) == 2


async def test_copies_make_the_outcome_unknown(sender: HttpSender) -> None:
    """Were the repeat on again, an answer would not hide that two copies went out."""
    sender._session._retry_connection = True
    served_count = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served_count
        while True:
            await read_request(reader)
            served_count += 1
            if served_count == 2:
                writer.transport.abort()
                return
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            await writer.drain()

    async with served(handle) as base:
        await sender.send(put(base), 2.0, yes)
        answer = await sender.send(put(base), 2.0, yes)
    assert served_count == 3
    assert isinstance(answer, Fault)
    assert (answer.sent, answer.copies) == (True, 2)


async def test_socket_gives_up_when_we_do() -> None:
    """The kernel must not retransmit for minutes what a killed process left: TCP_USER_TIMEOUT and SO_LINGER (1, 0)."""
    sender = HttpSender(deadline_s=3.0, user_agent="x")
    factory = sender._session.connector._socket_factory  # type: ignore[union-attr]
    with factory((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 1))) as made:
        assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 3000
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == b"\x01\x00\x00\x00\x00\x00\x00\x00"
    await sender.close()
