"""The connections of a server, and their limits.

The library limits neither the time a client may take for its header, nor the number of connections. Here both are
limited. On a public port (`evicts`), a connection beyond the limit closes the one that has been idle longest, starting
with unauthenticated clients: opening many idle connections locks nobody out.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from aiohttp import http_exceptions, web

from worker import http_url
from worker.deadlines import Deadlines

log = structlog.get_logger(__name__)

LINGER_S = 1.0
"""How long the rest of an unwanted body is read: without that, the client may not get the response."""


class Connections:
    """A server's connections from `start` to `stop`; also the protocol factory for `create_server`."""

    def __init__(
        self,
        *,
        count_max: int,
        header_within_s: Callable[[], float],
        error_body: Callable[[int], str],
        evicts: bool = False,
        linger_s: float = LINGER_S,
    ) -> None:
        """`error_body`: by status, the body of the response to an unreadable request."""
        self.count_max = count_max
        self.header_within_s = header_within_s
        self.error_body = error_body
        self.linger_s = linger_s
        self._server: asyncio.Server | None = None
        self._runner: web.BaseRunner | None = None
        self.headers: Deadlines
        """Of connections that are to send a header; from `start` on."""
        self._evicts = evicts
        self.open: set[Connection] = set()
        self.strangers: dict[Connection, None] = {}
        """Idle connections that have never had a valid request; longest idle first."""
        self.known: dict[Connection, None] = {}
        """Idle connections that have had a valid request; longest idle first."""

    @property
    def is_listening(self) -> bool:
        """Whether the port accepts connections."""
        return self._server is not None

    async def start(self, runner: web.BaseRunner, host: str, port: int, backlog: int) -> str:
        """Starts serving with `runner`; returns the base URL. Port 0: any free port.

        Raises `OSError` if the port is unavailable.
        """
        await runner.setup()
        loop = asyncio.get_running_loop()
        self.headers = Deadlines(loop)
        try:
            self._server = await loop.create_server(self, host, port, backlog=backlog)
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner
        return http_url(host, self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stops accepting, and waits for responses in progress, up to the runner's `shutdown_timeout`."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
            self.headers.close()

    def __call__(self) -> asyncio.BaseProtocol:
        server = None if self._runner is None else self._runner.server
        if server is None or (len(self.open) >= self.count_max and not self._has_evicted()):
            return _Rejected()
        return Connection(server, self)

    def _has_evicted(self) -> bool:
        longest = next(iter(self.strangers or self.known), None) if self._evicts else None
        if longest is None:
            return False
        longest.abort()
        return True


class _Rejected(asyncio.Protocol):
    """A connection beyond the limit."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class Connection(web.RequestHandler):
    """One connection."""

    def __init__(self, server: web.Server, connections: Connections) -> None:
        loop = asyncio.get_running_loop()
        no_log: Any = None
        super().__init__(
            server,
            loop=loop,
            access_log=no_log,
            lingering_time=connections.linger_s,
            auto_decompress=False,  # an unwanted body is read for a while, but must not be decompressed
        )
        self._event_loop = loop
        self._connections = connections
        self._idle_pool = connections.strangers

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connections.open.add(self)
        self.await_header()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._connections.open.discard(self)
        self.header_came()
        super().connection_lost(exc)

    def header_came(self) -> None:
        """A request has arrived: the connection is not idle."""
        self._idle_pool.pop(self, None)
        self._connections.headers.remove(self)

    def was_right(self) -> None:
        """The request was authenticated: the connection is evicted after those of strangers."""
        self._idle_pool = self._connections.known

    def await_header(self) -> None:
        """The connection is idle: the header of the next request must arrive in time."""
        self.header_came()
        if self in self._connections.open:
            self._idle_pool[self] = None
            self._connections.headers.add(self, self._event_loop.time() + self._connections.header_within_s())

    def expire(self) -> None:
        """No header has arrived in time."""
        self.abort()

    def abort(self) -> None:
        """Closes the connection immediately."""
        self._connections.open.discard(self)
        self._idle_pool.pop(self, None)
        if self.transport is not None:
            self.transport.abort()

    def log_exception(self, *_words: Any, **about: Any) -> None:
        """Logs the library's error without its message, which quotes the request."""
        error = about.get("exc_info")
        kind = type(error).__name__
        if isinstance(error, http_exceptions.HttpProcessingError):
            log.warning("request_unreadable", error=kind, sampled_by=kind)
        else:
            log.error("request_failed", error=kind, sampled_by=kind)

    def handle_error(self, request: Any, status: int = 500, exc: Any = None, message: Any = None) -> Any:
        """Like the library's, without echoing the request."""
        response = super().handle_error(request, status, exc, message)
        if isinstance(response, web.Response):
            response.text = self._connections.error_body(status)
        return response
