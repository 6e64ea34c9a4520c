"""What `worker/publisher/sender.py` leans on in aiohttp, private things included: an upgrade that changes one is red here.

Each docstring says what we rely on, and in parentheses where. Against real sockets, so that the wire is the witness.
"""

import asyncio
import math
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver
from aiohttp.client_reqrep import ClientRequest
from aiohttp.helpers import TimeoutHandle
from yarl import URL

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


async def put(session: aiohttp.ClientSession, url: str | URL, **options: Any) -> int:
    """One PUT with a body; its status, once the answer was read."""
    async with session.put(url, data=b"{}", **options) as response:
        await response.read()
        return response.status


calls: ContextVar[list[str]] = ContextVar("calls")


class Watched(ClientRequest):
    """Notes each `send` in a variable of the caller's context, as the sender's own request does."""

    async def send(self, conn: Any) -> Any:
        """Notes the call."""
        calls.get().append(self.method)
        return await super().send(conn)


@pytest.fixture
def sends() -> list[str]:
    """What `Watched.send` has noted."""
    noted: list[str] = []
    calls.set(noted)
    return noted


# --- the silent repeat, and what counts it ---


def dies_at_second(number: int) -> bytes | None:
    """Reads the second request, which comes on a kept connection, and dies without an answer."""
    return None if number == 2 else OK


async def test_put_on_a_dead_kept_connection_is_repeated_silently() -> None:
    """Why the repeat is turned off: one call, one 200, and the server had the PUT twice (`HttpSender.__init__`)."""
    async with serving(dies_at_second) as server, aiohttp.ClientSession() as session:
        assert [await put(session, server.url), await put(session, server.url)] == [200, 200]
    assert [request.connection for request in server.seen] == [1, 1, 2]


async def test_retry_connection_off_ends_the_repeat() -> None:
    """`_retry_connection = False` makes of the repeat an error that means "unknown" (`HttpSender.__init__`)."""
    async with serving(dies_at_second) as server, aiohttp.ClientSession() as session:
        assert session._retry_connection
        session._retry_connection = False
        assert await put(session, server.url) == 200
        with pytest.raises(aiohttp.ClientError):
            await put(session, server.url)
    assert len(server.seen) == 2


async def test_every_copy_goes_through_send(sends: list[str]) -> None:
    """`request_class` is honoured, and `send` runs in the caller's context, once for each copy (`_Request.send`)."""
    async with serving(dies_at_second) as server, aiohttp.ClientSession(request_class=Watched) as session:
        await put(session, server.url)
        assert sends == ["PUT"]
        await put(session, server.url)
    assert len(server.seen) == len(sends) == 3


async def test_send_stands_between_connection_and_first_byte() -> None:
    """What raises in `send` does so on an open connection with nothing written, and closes it (`_Request.send`)."""

    class RefusedError(Exception):
        pass

    class Refusing(ClientRequest):
        async def send(self, conn: Any) -> Any:
            assert conn.protocol.connected
            raise RefusedError

    ended: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def read_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended.set_result(await reader.read())
        writer.close()

    async with await asyncio.start_server(read_all, "127.0.0.1", 0) as listening:
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        async with aiohttp.ClientSession(request_class=Refusing) as session:
            with pytest.raises(RefusedError):
                await put(session, url)
            assert await asyncio.wait_for(ended, 10) == b""


async def nothing_listens() -> str:
    """A port where connections are refused."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


async def no_such_host() -> str:
    """A name that does not resolve."""
    return "http://no-such-host.invalid"


@pytest.mark.parametrize("where", [nothing_listens, no_such_host])
async def test_without_connection_there_is_no_send(where: Callable[[], Awaitable[str]], sends: list[str]) -> None:
    """A failure to connect comes before any `send`, as `ClientConnectorError`: "not sent" (`HttpSender.send`)."""
    async with aiohttp.ClientSession(request_class=Watched) as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await put(session, await where())
    assert sends == []


async def test_without_tls_there_is_no_send(sends: list[str]) -> None:
    """A TLS handshake that fails is a `ClientConnectorError` before any `send` too: "not sent" (`HttpSender.send`)."""

    async def speak_no_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(speak_no_tls, "127.0.0.1", 0) as listening:
        url = f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        async with aiohttp.ClientSession(request_class=Watched) as session:
            with pytest.raises(aiohttp.ClientConnectorError):
                await put(session, url)
    assert sends == []


# --- what goes out ---

RAW_PATH = "/merchants/a%2fb%41/orders/A14%2F12345%3F%7e"


async def test_encoded_url_keeps_the_raw_path() -> None:
    """`URL(…, encoded=True)` goes out letter by letter, where a plain text would be rewritten (`HttpSender.send`)."""
    async with serving() as server, aiohttp.ClientSession() as session:
        await put(session, URL(f"{server.url}{RAW_PATH}", encoded=True))
        await put(session, f"{server.url}{RAW_PATH}")
    kept, rewritten = (request.head.split(" ")[1] for request in server.seen)
    assert kept == RAW_PATH
    assert rewritten != RAW_PATH


@pytest.mark.parametrize(("jar", "is_sent"), [(aiohttp.DummyCookieJar, False), (aiohttp.CookieJar, True)])
async def test_dummy_jar_keeps_no_cookie(jar: Callable[..., aiohttp.abc.AbstractCookieJar], is_sent: bool) -> None:
    """With a `DummyCookieJar` one order's session cookie never goes out with another's (`HttpSender.__init__`)."""
    options = {"unsafe": True} if is_sent else {}  # a real jar takes cookies of bare addresses only then
    baked = b"HTTP/1.1 200 OK\r\nSet-Cookie: session=1\r\nContent-Length: 0\r\n\r\n"
    async with serving(lambda _: baked) as server, aiohttp.ClientSession(cookie_jar=jar(**options)) as session:
        await put(session, server.url)
        await put(session, server.url)
    assert ["Cookie: session=1" in request.head for request in server.seen] == [False, is_sent]


# --- connections ---


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

    connector = aiohttp.TCPConnector(socket_factory=make)
    async with serving() as server, aiohttp.ClientSession(connector=connector) as session:
        await put(session, server.url)
    assert [port for _, port in server.peers] == ports


@pytest.mark.parametrize(("closes", "connections"), [(True, 2), (False, 1)])
async def test_closed_response_gives_no_connection_back(closes: bool, connections: int) -> None:
    """After `response.close()` with words still to come the connection is not used again (`HttpSender._read`)."""
    page = b"x" * 3_000_000
    long = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(page) + page
    async with serving(lambda _: long) as server, aiohttp.ClientSession() as session:
        async with session.put(server.url, data=b"{}") as response:
            assert len(await response.content.read(10)) == 10
            if closes:
                response.close()
            else:
                await response.read()
        await put(session, server.url)
    assert server.connections == connections


async def test_given_up_attempt_gives_no_connection_back() -> None:
    """The connection of an attempt that ran out of time is not used again: its late answer would be taken for that of
    the next order (`HttpSender.send`).
    """
    async with serving(lambda number: b"" if number == 1 else OK) as server, aiohttp.ClientSession() as session:
        with pytest.raises(TimeoutError):
            await put(session, server.url, timeout=aiohttp.ClientTimeout(total=0.05))
        await put(session, server.url)
    assert [request.connection for request in server.seen] == [1, 2]


@pytest.mark.parametrize(("keepalive_s", "connections"), [(0.05, 2), (60.0, 1)])
async def test_connection_kept_too_long_is_not_used(keepalive_s: float, connections: int) -> None:
    """After `keepalive_timeout` of idleness a connection is not used again: a frozen process that goes on finds none
    (`HttpSender.__init__`).
    """
    connector = aiohttp.TCPConnector(keepalive_timeout=keepalive_s)
    async with serving() as server, aiohttp.ClientSession(connector=connector) as session:
        await put(session, server.url)
        await asyncio.sleep(0.2)
        await put(session, server.url)
    assert server.connections == connections


# --- the deadline ---


class SilentResolver(AbstractResolver):
    """Never finds an address."""

    async def resolve(self, *_: Any, **__: Any) -> Any:
        """Takes its time."""
        await asyncio.sleep(60)

    async def close(self) -> None:
        """Has nothing to close."""


async def test_total_covers_resolving(sends: list[str]) -> None:
    """`ClientTimeout(total=…)` runs while the name is looked up, and ends it before any `send` (`HttpSender.send`)."""
    connector = aiohttp.TCPConnector(resolver=SilentResolver())
    async with aiohttp.ClientSession(connector=connector, request_class=Watched) as session:
        with pytest.raises(TimeoutError):
            await put(session, "http://provider.example/", timeout=aiohttp.ClientTimeout(total=0.05))
    assert sends == []


async def test_total_covers_the_handshake(sends: list[str]) -> None:
    """`ClientTimeout(total=…)` runs while a peer that accepts is silent in the TLS handshake (`HttpSender.send`)."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with aiohttp.ClientSession(request_class=Watched) as session:
            with pytest.raises(TimeoutError):
                await put(
                    session,
                    f"https://127.0.0.1:{silent.getsockname()[1]}",
                    timeout=aiohttp.ClientTimeout(total=0.05),
                )
    assert sends == []


async def test_total_covers_the_body() -> None:
    """`ClientTimeout(total=…)` runs while the answer is read, so a trickle ends with it (`HttpSender._read`)."""
    begun = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun"
    async with (
        serving(lambda _: begun) as server,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.1)) as session,
        session.put(server.url, data=b"{}") as response,
    ):
        assert response.status == 200
        with pytest.raises(TimeoutError):
            await response.read()


async def test_long_total_is_rounded_up() -> None:
    """From `ceil_threshold` on, 5 s unless said, a total ends with a full second of the loop's clock: `attempt_deadline`
    (8 s) up to 1 s late, past what the lease allows for (`HttpSender.send`).
    """
    assert aiohttp.ClientTimeout().ceil_threshold == 5
    loop = asyncio.get_running_loop()
    async with serving(lambda _: b"") as server, aiohttp.ClientSession() as session:
        may_end_at = math.ceil(loop.time() + 0.05)
        with pytest.raises(TimeoutError):
            await put(session, server.url, timeout=aiohttp.ClientTimeout(total=0.05, ceil_threshold=0.01))
        assert loop.time() > may_end_at - 0.01


async def test_infinite_threshold_makes_a_total_exact() -> None:
    """With `ceil_threshold=math.inf` no total is rounded: the cure of the above (`HttpSender.send`)."""
    loop = asyncio.get_running_loop()
    threshold_s = aiohttp.ClientTimeout(total=8.0, ceil_threshold=math.inf).ceil_threshold
    before = loop.time()
    timer = TimeoutHandle(loop, 8.0, ceil_threshold=threshold_s).start()
    assert timer is not None
    timer.cancel()
    assert before + 8.0 <= timer.when() <= loop.time() + 8.0
