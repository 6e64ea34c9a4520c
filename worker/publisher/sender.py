"""The only outbound HTTP: one attempt, its deadline, and what is known of it when there is no answer.

Theory of operation. Connections are aiohttp's (names, TLS, the pool, `TCPConnector.connect`), and so are the writer of
headers and the parser of answers. The lines between them are ours, because `ClientSession.request` does much that an
order update has no use for (redirects, cookies, middlewares, a task that writes the body): a PUT takes 63 us of CPU
with it and 21 without, the loop included (2026-11). They also say more plainly what we promise. Between the last look
at the lease and the bytes stands nothing, not even a turn of the loop, as it does where a task writes the body and the
headers with it; and a request is written once, for there is nobody who could repeat it.
"""

import asyncio
import math
import socket
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import aiohttp
import structlog
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from aiohttp.http import HttpProcessingError, RawResponseMessage, StreamWriter
from aiohttp.streams import StreamReader
from msgspec import Struct
from multidict import CIMultiDict
from yarl import URL

from schemas.updates import Fault, HttpRequest, HttpResponse
from worker.publisher.deadlines import Deadlines

log = structlog.get_logger(__name__)

BODY_MAX_BYTES = 64 * 1024
"""An answer is cut here: only its first words are of use."""

_FAILURES = (TimeoutError, aiohttp.ClientError, HttpProcessingError, OSError, ValueError)
"""What a request can end with instead of an answer."""


@lru_cache(maxsize=16)
def _connecting(deadline_s: float) -> aiohttp.ClientTimeout:
    # By default aiohttp rounds 5 s and more up to a full second: an attempt would outlive the lease that allowed it.
    return aiohttp.ClientTimeout(connect=deadline_s, sock_connect=None, ceil_threshold=math.inf)


class _Server(Struct, frozen=True):
    """What all requests to one origin have in common."""

    address: ClientRequest
    """Stands for them when a connection is asked for; it is never sent."""
    host: str
    """The header."""


class _Exchange(Struct, eq=False):
    """What is known so far of a request under way."""

    protocol: ResponseHandler | None = None
    """While it has a connection."""
    content: StreamReader | None = None
    """Of the answer, while it is read."""
    sent: bool = False
    """Whether bytes of it may have left."""
    message: RawResponseMessage | None = None
    """Status and headers of the answer."""
    body: bytes = b""
    is_late: bool = False
    """The deadline has passed."""

    def expire(self) -> None:
        """`Expiring`. Whoever waits is told, too: the end of a connection that a malformed body has closed already
        reaches nobody. Connecting has the same deadline.
        """
        self.is_late = True
        if self.content is not None:
            self.content.set_exception(TimeoutError())
        if self.protocol is not None:
            self.protocol.set_exception(TimeoutError())
            if self.protocol.transport is not None:
                self.protocol.transport.abort()


class HttpSender:
    """`ports.Sender` over aiohttp. TLS is verified, redirects are not followed, cookies are not kept."""

    def __init__(self, *, deadline_s: float, user_agent: str, body_max_bytes: int = BODY_MAX_BYTES) -> None:
        self._body_max_bytes = body_max_bytes
        self._user_agent = user_agent
        self._loop = asyncio.get_running_loop()
        self._deadlines = Deadlines(self._loop)
        # A process that dies leaves its send buffer to the kernel, which would retransmit for minutes: it must give
        # up when we would have (`protocol.md` section 3).
        self._connector = aiohttp.TCPConnector(
            limit=0, socket_factory=lambda address: _socket(address, deadline_s), keepalive_timeout=deadline_s
        )
        self._servers: dict[str, _Server] = {}
        """By origin: as many as accounts are configured."""

    async def send(self, request: HttpRequest, deadline_s: float, may_send: Callable[[], bool]) -> HttpResponse | Fault:
        """One attempt, written once or not at all."""
        exchange = _Exchange()
        try:
            self._deadlines.add(exchange, self._loop.time() + deadline_s)
            await self._tell(request, exchange, _connecting(deadline_s), may_send)
        except Exception as error:  # noqa: BLE001 - `ports.Sender` never raises: whatever it was, an outcome follows
            if not isinstance(error, _FAILURES):
                log.warning("attempt_failed_oddly", error=type(error).__name__)
            if exchange.message is None:
                is_late = exchange.is_late or isinstance(error, TimeoutError)
                return Fault(exchange.sent, f"no answer within {deadline_s:g} s" if is_late else _said(error))
            # The status has come, and it decides: what is missing are words.
        finally:
            self._deadlines.remove(exchange)
        if exchange.message is None:
            return Fault(False, "the lease of the partition ran out before the request went out")
        headers = {name.lower(): value for name, value in exchange.message.headers.items()}
        return HttpResponse(exchange.message.code, headers, exchange.body)

    async def _tell(
        self,
        request: HttpRequest,
        exchange: _Exchange,
        connecting: aiohttp.ClientTimeout,
        may_send: Callable[[], bool],
    ) -> None:
        """Fills `exchange`; leaves it as it is when the lease is over."""
        origin, target = _split(request.url)
        server = self._servers.get(origin) or self._meet(origin)
        connection = await self._connector.connect(server.address, [], connecting)
        protocol = connection.protocol
        assert protocol is not None
        try:
            if exchange.is_late:
                raise TimeoutError
            if protocol.should_close:  # it spoke unasked while it was idle: that would be taken for our answer
                raise aiohttp.ClientConnectionError
            exchange.protocol = protocol
            writer = StreamWriter(protocol, self._loop)
            await writer.write_headers(f"{request.method} {target} HTTP/1.1", self._headers(request, server))
            if not may_send():
                return
            exchange.sent = True
            await writer.write(request.body, drain=False)  # with the headers, which were only put together before
            await self._hear(protocol, exchange)
            if not protocol.writing_paused:  # or the answer came before we had said all
                connection.release()
        finally:
            exchange.protocol = exchange.content = None
            if connection.transport is not None:  # not released: what has not left yet is not to leave any more
                connection.transport.abort()
            connection.close()

    def _meet(self, origin: str) -> _Server:
        url = URL(origin, encoded=True)
        host = url.host_port_subcomponent
        if url.scheme not in {"http", "https"} or host is None:
            raise ValueError("no address of a server")
        server = self._servers[origin] = _Server(ClientRequest("PUT", url, loop=self._loop), host)
        return server

    def _headers(self, request: HttpRequest, server: _Server) -> CIMultiDict[str]:
        return CIMultiDict(
            {
                "Host": server.host,
                "User-Agent": self._user_agent,
                **request.headers,
                "Content-Length": str(len(request.body)),
            }
        )

    async def _hear(self, protocol: ResponseHandler, exchange: _Exchange) -> None:
        """The answer, as far as it comes."""
        protocol.set_response_params(read_until_eof=True)
        message, content = await protocol.read()
        while 100 <= message.code < 200 and message.code != 101:
            message, content = await protocol.read()  # what comes first is not the answer
        exchange.message, exchange.content = message, content
        while len(exchange.body) < self._body_max_bytes and not content.at_eof():
            exchange.body += await content.readany()
        exchange.body = exchange.body[: self._body_max_bytes]

    async def close(self) -> None:
        """Closes all connections."""
        self._deadlines.close()
        await self._connector.close()


def _split(url: str) -> tuple[str, str]:
    """Origin and request target, letter by letter: an encoded slash stays encoded."""
    scheme, _, rest = url.partition("://")
    authority, _, path = rest.partition("/")
    return f"{scheme}://{authority}", f"/{path}"


def _said(error: Exception) -> str:
    """What happened, without the URL: it holds the order's reference."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection: {error.os_error.strerror or type(error.os_error).__name__}"
    return f"{type(error).__name__}"


def _socket(address: tuple[Any, ...], deadline_s: float) -> socket.socket:
    family, kind, proto, _, _ = address
    made = socket.socket(family=family, type=kind, proto=proto)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(deadline_s * 1000))
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")  # on, 0 s: reset
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made
