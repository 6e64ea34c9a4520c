"""What `worker/publisher/sender.py` leans on in aiohttp, beyond what it documents: an upgrade that changes one is red here.

`BaseConnector.connect`, `Connection.close` and `Connection.release` are documented; that a `ClientRequest` may stand for
others, `StreamWriter` and `ResponseHandler` are not. Each docstring says what we rely on, and in parentheses where.
Against real sockets, so that the wire is the witness.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
import pytest
import uvloop
from aiohttp.abc import AbstractResolver
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from aiohttp.helpers import ceil_timeout
from aiohttp.http import HttpProcessingError, StreamWriter
from multidict import CIMultiDict
from yarl import URL

from worker.publisher.sender import _connecting

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Seen(NamedTuple):
    """A request as it came."""

    connection: int
    head: str
    body: bytes


class Server:
    """Answers requests and remembers them; an answer of `None` resets the connection."""

    def __init__(self, answer: Callable[[int], bytes | None]) -> None:
        self._answer = answer
        self.connections = 0
        self.peers: list[tuple[str, int]] = []
        self.seen: list[Seen] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection until it ends."""
        self.connections += 1
        connection = self.connections
        self.peers.append(writer.get_extra_info("peername"))
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                lengths = [line[16:] for line in head.split("\r\n") if line.lower().startswith("content-length: ")]
                self.seen.append(Seen(connection, head, await reader.readexactly(int(lengths[0]) if lengths else 0)))
                answer = self._answer(len(self.seen))
                if answer is None:
                    return
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass  # the client has closed
        finally:
            writer.transport.abort()


@asynccontextmanager
async def serving(answer: Callable[[int], bytes | None] = lambda _: OK) -> AsyncIterator[Server]:
    """A server on a free port; `answer` is given the number of the request, from 1."""
    server = Server(answer)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listening.close()


@asynccontextmanager
async def connecting(**options: Any) -> AsyncIterator[aiohttp.TCPConnector]:
    """A connector with these options."""
    connector = aiohttp.TCPConnector(limit=0, **options)
    yield connector
    await connector.close()


def address(url: str) -> ClientRequest:
    """What stands for all requests to a server."""
    return ClientRequest("PUT", URL(url, encoded=True), loop=asyncio.get_running_loop())


async def begin(connector: aiohttp.TCPConnector, server: ClientRequest, path: str = "/") -> Connection:
    """Sends a request as the sender does; the answer is still to come."""
    connection = await connector.connect(server, [], _connecting(10.0))
    writer = StreamWriter(protocol_of(connection), asyncio.get_running_loop())
    await writer.write_headers(f"PUT {path} HTTP/1.1", CIMultiDict({"Host": "x", "Content-Length": "2"}))
    await writer.write(b"{}", drain=False)
    protocol_of(connection).set_response_params(read_until_eof=True)
    return connection


def protocol_of(connection: Connection) -> ResponseHandler:
    """What reads and writes."""
    assert connection.protocol is not None
    return connection.protocol


async def put(connector: aiohttp.TCPConnector, server: ClientRequest, path: str = "/") -> int:
    """One PUT with a body; its status, once the answer was read and the connection given back."""
    connection = await begin(connector, server, path)
    try:
        message, content = await protocol_of(connection).read()
        while not content.at_eof():
            await content.readany()
        connection.release()
    finally:
        connection.close()
    return message.code


# --- why the session is not used ---


def dies_at_second(number: int) -> bytes | None:
    """Reads the second request, which comes on a kept connection, and dies without an answer."""
    return None if number == 2 else OK


async def test_session_repeats_a_put_on_a_dead_kept_connection() -> None:
    """Why `ClientSession` is not used: one call, one 200, and the server had the PUT twice; no public switch."""
    async with serving(dies_at_second) as server, aiohttp.ClientSession() as session:
        for _ in range(2):
            async with session.put(server.url, data=b"{}") as response:
                assert response.status == 200
    assert [request.connection for request in server.seen] == [1, 1, 2]


async def test_connection_that_dies_is_an_error() -> None:
    """`ResponseHandler.read` raises when the connection is lost: "unknown" (`HttpSender._hear`)."""
    async with serving(dies_at_second) as server, connecting() as connector:
        assert await put(connector, address(server.url)) == 200
        with pytest.raises(aiohttp.ClientError):
            await put(connector, address(server.url))
    assert len(server.seen) == 2


# --- connections ---


async def nothing_listens() -> str:
    """A port where connections are refused."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


async def no_such_host() -> str:
    """A name that does not resolve."""
    return "http://no-such-host.invalid"


@pytest.mark.parametrize("where", [nothing_listens, no_such_host])
async def test_failure_to_connect_comes_from_connect(where: Callable[[], Awaitable[str]]) -> None:
    """Nothing can have been sent then; `os_error` says what is wrong (`HttpSender._tell`, `_said`)."""
    async with connecting() as connector:
        with pytest.raises(aiohttp.ClientConnectorError) as raised:
            await connector.connect(address(await where()), [], _connecting(10.0))
    assert isinstance(raised.value.os_error, OSError)


async def test_failure_of_tls_comes_from_connect() -> None:
    """A handshake that fails is a `ClientConnectorError` of `connect` too (`HttpSender._tell`)."""

    async def speak_no_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(speak_no_tls, "127.0.0.1", 0) as listening, connecting() as connector:
        url = f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        with pytest.raises(aiohttp.ClientConnectorError):
            await connector.connect(address(url), [], _connecting(10.0))


async def test_tls_is_verified_unless_said() -> None:
    """A request that says nothing of TLS has its certificate and name checked (`HttpSender._meet`)."""
    assert address("https://provider.example").ssl is True
    key = address("https://provider.example").connection_key
    assert (key.host, key.port, key.is_ssl, key.ssl, key.proxy) == ("provider.example", 443, True, True, None)


async def test_one_request_stands_for_many() -> None:
    """A `ClientRequest` that is never sent gets any number of connections, each with one owner, and those that were
    given back again (`_Server.address`).
    """
    async with serving() as server, connecting() as connector:
        shared = address(server.url)
        owned = await asyncio.gather(*(connector.connect(shared, [], _connecting(10.0)) for _ in range(3)))
        protocols = {protocol_of(connection) for connection in owned}
        assert len(protocols) == 3
        for connection in owned:
            connection.release()
        again = [await connector.connect(shared, [], _connecting(10.0)) for _ in range(3)]
        assert {protocol_of(connection) for connection in again} == protocols
        for connection in again:
            connection.close()


async def test_close_after_release_does_nothing() -> None:
    """`close` in a `finally` closes only what was not given back (`HttpSender._tell`)."""
    async with serving() as server, connecting() as connector:
        for _ in range(2):
            connection = await begin(connector, address(server.url))
            await protocol_of(connection).read()
            await asyncio.sleep(0)
            connection.release()
            connection.close()
    assert [request.connection for request in server.seen] == [1, 1]


async def test_socket_factory_makes_the_socket() -> None:
    """`socket_factory` is given an `addrinfo`, and what it makes carries the request: there TCP_USER_TIMEOUT and
    SO_LINGER are set (`_socket`).
    """
    ports: list[int] = []

    def make(address: tuple[Any, ...]) -> socket.socket:
        family, kind, proto, _, (host, *_) = address
        made = socket.socket(family, kind, proto)
        made.bind((host, 0))
        ports.append(made.getsockname()[1])
        return made

    async with serving() as server, connecting(socket_factory=make) as connector:
        await put(connector, address(server.url))
    assert [port for _, port in server.peers] == ports


@pytest.mark.parametrize(("is_read", "connections"), [(False, 2), (True, 1)])
async def test_connection_with_words_to_come_is_not_used_again(is_read: bool, connections: int) -> None:
    """`release` closes it, so an answer can be cut (`HttpSender._hear`)."""
    page = b"x" * 3_000_000
    long = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(page) + page
    async with serving(lambda _: long) as server, connecting() as connector:
        connection = await begin(connector, address(server.url))
        _, content = await protocol_of(connection).read()
        assert await content.readany()
        while is_read and not content.at_eof():
            await content.readany()
        connection.release()
        await put(connector, address(server.url))
    assert server.connections == connections


async def test_given_up_attempt_gives_no_connection_back() -> None:
    """The connection of an attempt that ran out of time is not used again: its late answer would be taken for that of
    the next order (`HttpSender._tell`).
    """
    async with serving(lambda number: b"" if number == 1 else OK) as server, connecting() as connector:
        connection = await begin(connector, address(server.url))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await protocol_of(connection).read()
        connection.close()
        await put(connector, address(server.url))
    assert [request.connection for request in server.seen] == [1, 2]


async def test_unasked_words_show() -> None:
    """`should_close` tells that a server has spoken on an idle connection, which `connect` hands out all the same
    (`HttpSender._tell`).
    """
    idle, over = asyncio.Event(), asyncio.Event()

    async def say_more(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(OK)
        await idle.wait()
        writer.write(OK)
        await over.wait()
        writer.close()

    async with await asyncio.start_server(say_more, "127.0.0.1", 0) as listening, connecting() as connector:
        server = address(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}")
        assert await put(connector, server) == 200
        idle.set()
        await asyncio.sleep(0.1)
        connection = await connector.connect(server, [], _connecting(10.0))
        assert protocol_of(connection).should_close
        connection.close()
        over.set()


@pytest.mark.parametrize(("keepalive_s", "connections"), [(0.05, 2), (60.0, 1)])
async def test_connection_kept_too_long_is_not_used(keepalive_s: float, connections: int) -> None:
    """After `keepalive_timeout` of idleness a connection is not used again: a frozen process that goes on finds none
    (`HttpSender.__init__`).
    """
    async with serving() as server, connecting(keepalive_timeout=keepalive_s) as connector:
        await put(connector, address(server.url))
        await asyncio.sleep(0.2)
        await put(connector, address(server.url))
    assert server.connections == connections


# --- what goes out ---


class _Wire(asyncio.Transport):
    """Notes what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: Any) -> None:
        """Notes it."""
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        """Never."""
        return False


async def test_headers_wait_for_the_body() -> None:
    """`write_headers` writes nothing; `write` writes both at once, before it returns and without a turn of the loop:
    so the lease can be asked for in between (`HttpSender._tell`).
    """
    protocol = ResponseHandler(asyncio.get_running_loop())
    protocol.transport = wire = _Wire()
    writer = StreamWriter(protocol, asyncio.get_running_loop())
    for step in (writer.write_headers("PUT / HTTP/1.1", CIMultiDict({"A": "b"})), writer.write(b"{}", drain=False)):
        assert wire.written == []
        with pytest.raises(StopIteration):
            step.send(None)
    assert wire.written == [b"PUT / HTTP/1.1\r\nA: b\r\n\r\n{}"]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_written_bytes_leave_at_once(run: Callable[..., None]) -> None:
    """Both loops hand a request to the kernel before `transport.write` returns (uvloop 0.23): nothing but a paused
    process comes between the last look at the lease and the bytes (`HttpSender._tell`).
    """

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            transport, _ = await asyncio.get_running_loop().create_connection(
                asyncio.Protocol, *listening.getsockname()
            )
            peer, _ = listening.accept()
            with peer:
                peer.settimeout(10)
                transport.write(b"x" * 4000)
                assert transport.get_write_buffer_size() == 0
                assert peer.recv(1) == b"x"
                transport.close()
                await asyncio.sleep(0.05)

    run(main())


async def test_write_waits_for_nobody() -> None:
    """With `drain=False` a body of any size is left to the transport, and `writing_paused` tells that it has not gone
    out (`HttpSender._tell`).
    """
    async with serving() as server, connecting() as connector:
        connection = await connector.connect(address(server.url), [], _connecting(10.0))
        writer = StreamWriter(protocol_of(connection), asyncio.get_running_loop())
        await writer.write_headers("PUT / HTTP/1.1", CIMultiDict({"Content-Length": "30000000"}))
        with pytest.raises(StopIteration):
            writer.write(b"x" * 30_000_000, drain=False).send(None)
        assert protocol_of(connection).writing_paused
        connection.close()


async def test_transport_that_is_closing_takes_nothing() -> None:
    """`write` raises a `ClientError` then (`HttpSender._tell`)."""
    async with serving() as server, connecting() as connector:
        connection = await connector.connect(address(server.url), [], _connecting(10.0))
        writer = StreamWriter(protocol_of(connection), asyncio.get_running_loop())
        await writer.write_headers("PUT / HTTP/1.1", CIMultiDict({"Content-Length": "2"}))
        connection.close()
        with pytest.raises(aiohttp.ClientError):
            await writer.write(b"{}", drain=False)


@pytest.mark.parametrize(
    ("line", "headers"),
    [("PUT /a\r\nB: c HTTP/1.1", {}), ("PUT / HTTP/1.1", {"A": "b\r\nC: d"}), ("PUT / HTTP/1.1", {"A\n": "b"})],
)
async def test_line_break_in_a_header_is_refused(line: str, headers: dict[str, str]) -> None:
    """`write_headers` raises `ValueError`: no value becomes a header of its own (`HttpSender._tell`)."""
    writer = StreamWriter(ResponseHandler(asyncio.get_running_loop()), asyncio.get_running_loop())
    with pytest.raises(ValueError, match="header"):
        await writer.write_headers(line, CIMultiDict(headers))


RAW_PATH = "/merchants/a%2fb%41/orders/A14%2F12345%3F%7e"


async def test_request_target_goes_out_letter_by_letter() -> None:
    """What is given as the first line is the first line (`HttpSender._tell`)."""
    async with serving() as server, connecting() as connector:
        await put(connector, address(server.url), RAW_PATH)
    assert server.seen[0].head.split(" ")[1] == RAW_PATH


# --- what comes back ---


async def test_what_is_no_http_is_an_error() -> None:
    """`read` raises `HttpProcessingError`, which is no `ClientError` (`_FAILURES`)."""
    assert not issubclass(HttpProcessingError, aiohttp.ClientError)
    async with serving(lambda _: b"220 smtp.example ESMTP\r\n") as server, connecting() as connector:
        connection = await begin(connector, address(server.url))
        with pytest.raises(HttpProcessingError):
            await protocol_of(connection).read()
        connection.close()


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"],
)
async def test_answer_without_a_body_is_at_its_end(answer: bytes) -> None:
    """Nothing is waited for then (`HttpSender._hear`)."""
    async with serving(lambda _: answer) as server, connecting() as connector:
        connection = await begin(connector, address(server.url))
        _, content = await protocol_of(connection).read()
        assert content.at_eof()
        connection.close()


async def test_interim_answers_are_messages() -> None:
    """102 and its like come before the answer, as messages of their own (`HttpSender._hear`)."""
    async with serving(lambda _: b"HTTP/1.1 102 Processing\r\n\r\n" + OK) as server, connecting() as connector:
        connection = await begin(connector, address(server.url))
        assert [(await protocol_of(connection).read())[0].code for _ in range(2)] == [102, 200]
        connection.close()


# --- the deadline ---


class SilentResolver(AbstractResolver):
    """Never finds an address."""

    async def resolve(self, *_: Any, **__: Any) -> Any:
        """Takes its time."""
        await asyncio.sleep(60)

    async def close(self) -> None:
        """Has nothing to close."""


async def test_connect_covers_resolving() -> None:
    """`ClientTimeout(connect=…)` ends `connect` while the name is looked up (`_connecting`)."""
    async with connecting(resolver=SilentResolver()) as connector:
        with pytest.raises(TimeoutError):
            await connector.connect(address("http://provider.example/"), [], _connecting(0.05))


async def test_connect_covers_the_handshake() -> None:
    """`ClientTimeout(connect=…)` ends `connect` while a peer that accepts is silent in the TLS handshake
    (`_connecting`).
    """
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with connecting() as connector:
            server = address(f"https://127.0.0.1:{silent.getsockname()[1]}")
            with pytest.raises(TimeoutError):
                await connector.connect(server, [], _connecting(0.05))


async def test_connect_is_not_rounded_up() -> None:
    """From `ceil_threshold` on, 5 s unless said, a timeout ends with a full second of the loop's clock: up to 1 s
    late, past what the lease allows for. With `math.inf` none is rounded (`_connecting`).
    """
    assert aiohttp.ClientTimeout().ceil_threshold == 5
    loop = asyncio.get_running_loop()
    before = loop.time()
    async with ceil_timeout(8.0, _connecting(8.0).ceil_threshold) as timeout:
        at = timeout.when()
        assert at is not None
        assert before + 8.0 <= at <= loop.time() + 8.0


async def test_connection_that_is_aborted_ends_the_wait_for_an_answer() -> None:
    """`transport.abort` makes `ResponseHandler.read` raise a `ClientError` (`_Exchange.expire`)."""
    async with serving(lambda _: b"") as server, connecting() as connector:
        connection = await begin(connector, address(server.url))
        assert connection.transport is not None
        asyncio.get_running_loop().call_later(0.05, connection.transport.abort)
        with pytest.raises(aiohttp.ClientError):
            await protocol_of(connection).read()
        connection.close()


@pytest.mark.parametrize("length", [b"Content-Length: 100\r\n", b"Transfer-Encoding: chunked\r\n"])
async def test_connection_that_is_aborted_ends_the_wait_for_the_body(length: bytes) -> None:
    """`transport.abort` makes `StreamReader.readany` raise a `ClientError`, so a trickle ends with the deadline
    (`_Exchange.expire`).
    """
    begun = b"HTTP/1.1 200 OK\r\n" + length + b"\r\n5\r\nbegun"
    async with serving(lambda _: begun) as server, connecting() as connector:
        connection = await begin(connector, address(server.url))
        message, content = await protocol_of(connection).read()
        assert (message.code, (await content.readany())[-5:]) == (200, b"begun")
        assert connection.transport is not None
        asyncio.get_running_loop().call_later(0.05, connection.transport.abort)
        with pytest.raises(aiohttp.ClientError):
            await content.readany()
        connection.close()


async def test_body_without_a_length_ends_with_its_connection() -> None:
    """Where the end of the connection is that of the body, `transport.abort` ends it, too (`_Exchange.expire`)."""
    async with serving(lambda _: b"HTTP/1.1 200 OK\r\n\r\nbegun") as server, connecting() as connector:
        connection = await begin(connector, address(server.url))
        _, content = await protocol_of(connection).read()
        assert await content.readany() == b"begun"
        assert connection.transport is not None
        asyncio.get_running_loop().call_later(0.05, connection.transport.abort)
        assert await content.readany() == b""
        assert content.at_eof()
        connection.close()
