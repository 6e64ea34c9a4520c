"""The only way out: what is on the wire, and what is said when no answer comes. Against a real socket."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from worker.model.exchange import Fault, HttpRequest, HttpResponse
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
    handlers: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        try:
            await handler(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in handlers:
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)


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


async def test_trickle_ends_with_the_deadline(sender: HttpSender) -> None:
    """A body that never ends does not hold the attempt: its status has come, and what of it has."""
    raw = b"HTTP/1.1 409 Conflict\r\nContent-Length: 500\r\n\r\nbegun"

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(raw)
        await reader.read()  # until the client gives up

    async with served(handle) as base:
        answer = await sender.send(put(base), 0.05, yes)
    assert isinstance(answer, HttpResponse)
    assert (answer.status, answer.body) == (409, b"begun")


async def test_handshake_that_takes_too_long_was_not_sent(sender: HttpSender) -> None:
    """The deadline covers connecting, and no byte of the request has left by then."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        answer = await sender.send(put(f"https://127.0.0.1:{silent.getsockname()[1]}/"), 0.05, yes)
    assert answer == Fault(False, "no connection within 0.05 s")


async def test_deadline_is_kept_to_the_moment() -> None:
    """Deadlines of 5 s and more are not rounded up, as aiohttp would: the lease counts on them."""
    sender = HttpSender(deadline_s=8.0, user_agent="x")
    loop = asyncio.get_running_loop()
    timers: list[float] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        timers.extend(timer.when() for timer in loop._scheduled if not timer.cancelled())  # type: ignore[attr-defined]
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await reader.read()

    async with served(handle) as base:
        before = loop.time()
        await sender.send(put(base), 8.0, yes)
        assert any(before + 8.0 <= at <= loop.time() + 8.0 for at in timers)
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


@pytest.mark.parametrize("words", [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 20", b"x"])
async def test_unasked_words_are_no_answer(sender: HttpSender, words: bytes) -> None:
    """What a server says on an idle connection is not taken for the answer to the next request, which takes another."""
    seen: list[str] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, _, _ = await read_request(reader)
        seen.append(first)
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        if len(seen) == 1:
            await idle.wait()
            writer.write(words)
            with suppress(ConnectionError):
                assert await reader.read() == b""
            spoken.set()

    idle, spoken = asyncio.Event(), asyncio.Event()
    async with served(handle) as base:
        await sender.send(put(f"{base}/1"), 2.0, yes)
        idle.set()
        await asyncio.wait_for(spoken.wait(), 2)
        assert await sender.send(put(f"{base}/2"), 2.0, yes) == HttpResponse(204, {}, b"")
    assert seen == ["PUT /1 HTTP/1.1", "PUT /2 HTTP/1.1"]


async def test_interim_answers_are_passed_over(sender: HttpSender) -> None:
    """102 and its like say that the answer is still to come."""
    raw = b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 409 Conflict\r\nContent-Length: 2\r\n\r\nno"
    async with served(answering(raw)) as base:
        assert await sender.send(put(base), 2.0, yes) == HttpResponse(409, {"content-length": "2"}, b"no")


async def test_early_answer_leaves_no_connection(sender: HttpSender) -> None:
    """An answer that comes before the request has gone out counts, and the rest of that goes nowhere."""
    connections = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
        with suppress(ConnectionError):
            await reader.read()  # until the client gives up
        writer.close()

    async with served(handle) as base:
        for _ in range(2):
            answer = await sender.send(put(base, b"x" * 30_000_000), 2.0, yes)
            assert isinstance(answer, HttpResponse)
            assert answer.status == 413
    assert connections == 2


async def test_answer_that_is_no_http_is_unknown(sender: HttpSender) -> None:
    """The request was read by somebody, whatever that is."""
    async with served(answering(b"220 smtp.example ESMTP\r\n")) as base:
        answer = await sender.send(put(base), 2.0, yes)
    assert isinstance(answer, Fault)
    assert answer.sent


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "http:///x", "nonsense", "http://127.0.0.1:99999/"])
async def test_impossible_address_was_not_sent(sender: HttpSender, url: str) -> None:
    """What is not an http(s) URL is a fault like any other."""
    answer = await sender.send(put(url), 2.0, yes)
    assert isinstance(answer, Fault)
    assert not answer.sent


async def test_line_break_in_a_header_lets_nothing_out(sender: HttpSender) -> None:
    """No value can become a header of its own, or a request."""
    seen: list[tuple[str, dict[str, str], bytes]] = []
    async with served(answering(b"HTTP/1.1 204 No Content\r\n\r\n", seen)) as base:
        for request in (HttpRequest("PUT", base, {"A": "b\r\nC: d"}, b""), put(f"{base}/a HTTP/1.1\r\nC: d")):
            answer = await sender.send(request, 2.0, yes)
            assert isinstance(answer, Fault)
            assert not answer.sent
    assert seen == []


async def test_attempt_that_is_cut_closes_its_connection(sender: HttpSender) -> None:
    """A late answer has nobody to reach."""
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    began = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        began.set()
        with suppress(ConnectionError):
            await reader.read()
        ended.set_result(None)
        writer.close()

    async with served(handle) as base:
        attempt = asyncio.create_task(sender.send(put(base), 2.0, yes))
        await began.wait()
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        await asyncio.wait_for(ended, 2)


async def test_many_at_once_share_no_connection(sender: HttpSender) -> None:
    """Each attempt under way has a connection to itself; afterwards they are used again."""
    connections = 0
    together = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        try:
            while True:
                first, _, _ = await read_request(reader)
                if connections == 5:
                    together.set()
                await together.wait()
                name = first.split(" ")[1].encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(name), name))
                await writer.drain()
        except asyncio.IncompleteReadError:
            writer.close()

    async with served(handle) as base:
        for _ in range(2):
            answers = await asyncio.gather(*(sender.send(put(f"{base}/{n}"), 2.0, yes) for n in range(5)))
            assert [answer.body for answer in answers if isinstance(answer, HttpResponse)] == [
                b"/%d" % n for n in range(5)
            ]
        assert connections == 5
        await sender.close()


async def test_socket_gives_up_when_we_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel must not retransmit for minutes what a killed process left: TCP_USER_TIMEOUT and SO_LINGER (1, 0)."""
    made: asyncio.Queue[socket.socket] = asyncio.Queue()

    class Watched(socket.socket):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            made.put_nowait(self)

    sender = HttpSender(deadline_s=3.0, user_agent="x")
    async with served(answering(b"HTTP/1.1 204 No Content\r\n\r\n")) as base:
        monkeypatch.setattr(socket, "socket", Watched)
        sending = asyncio.create_task(sender.send(put(base), 2.0, yes))
        ours = await made.get()
        await asyncio.sleep(0)
        assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 3000
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == b"\x01\x00\x00\x00\x00\x00\x00\x00"
        monkeypatch.undo()
        assert await sending == HttpResponse(204, {}, b"")
    await sender.close()


MALFORMED = {
    "second chunk": b"2\r\nab\r\nzz\r\n",
    "chunk of a huge size": b"2\r\nab\r\nfffffffffffffffffff\r\n",
    "trailer": b"2\r\nab\r\n0\r\n\x00: \x00\r\n\r\n",
}


@pytest.mark.parametrize("status", [200, 409])
@pytest.mark.parametrize("rest", MALFORMED.values(), ids=MALFORMED)
async def test_body_that_turns_out_malformed(sender: HttpSender, rest: bytes, status: int) -> None:
    """The status has come and decides, at the deadline at the latest; the connection is not used again."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 %d Said\r\nTransfer-Encoding: chunked\r\n\r\n" % status)
        await writer.drain()
        await asyncio.sleep(0.02)  # another packet: what is read together is refused together
        writer.write(rest)
        await asyncio.sleep(10)

    async with served(handle) as base, asyncio.timeout(1.5):
        answer = await sender.send(put(base), 0.3, yes)
    assert isinstance(answer, HttpResponse)
    assert answer.status == status


async def test_whatever_the_client_raises_becomes_an_outcome(
    sender: HttpSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its loop may raise what nobody has listed (uvloop: RuntimeError for OSError): that must not end a worker."""

    async def connect(*_: object) -> None:
        raise RuntimeError("File descriptor 7 is used by transport")

    monkeypatch.setattr(sender._connections, "open", connect)
    assert await sender.send(put("http://127.0.0.1:1"), 2.0, yes) == Fault(False, "no connection: RuntimeError")


async def test_given_up_attempt_sends_nothing_more(sender: HttpSender) -> None:
    """A body that is still on its way out when its attempt is cut does not go on to leave."""
    received = 0
    go_on = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        nonlocal received
        await reader.readuntil(b"\r\n\r\n")
        await go_on.wait()
        with suppress(ConnectionError):
            while chunk := await reader.read(65_536):
                received += len(chunk)

    body = b"x" * 30_000_000
    async with served(handle) as base:
        sending = asyncio.create_task(sender.send(put(base, body), 5.0, yes))
        await asyncio.sleep(0.1)
        sending.cancel()
        await asyncio.wait({sending})
        go_on.set()
        await asyncio.sleep(0.2)
    assert received < len(body) / 2
