"""The connections of a port, and what a client may not do with them.

The library lets a client take its time with the header, and as many connections as it likes. Here the header has to
come in time, and there are only so many. Where a port is for anybody (`evicts`), one more connection costs the one that
has waited longest for a request, strangers first: whoever opens many and says nothing keeps nobody out.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from aiohttp import http_exceptions, web

from worker import http_url

log = structlog.get_logger(__name__)

LINGER_S = 1.0
"""How long the rest of a body is read that nobody wants: without, an answer may get lost."""


class Connections:
    """A port from `start` to `stop`; a factory of protocols, as `create_server` wants one."""

    def __init__(
        self,
        *,
        count_max: int,
        header_within_s: Callable[[], float],
        error_body: Callable[[int], str],
        evicts: bool = False,
        linger_s: float = LINGER_S,
    ) -> None:
        """`error_body`: what stands in the answer to what cannot be read, by its status."""
        self.count_max = count_max
        self.header_within_s = header_within_s
        self.error_body = error_body
        self.linger_s = linger_s
        self._server: asyncio.Server | None = None
        self._runner: web.BaseRunner | None = None
        self._evicts = evicts
        self.open: set[Connection] = set()
        self.strangers: dict[Connection, None] = {}
        """That wait for a request, and never had one that was right; the longest first."""
        self.known: dict[Connection, None] = {}
        """That wait for another request; the longest first."""

    @property
    def is_listening(self) -> bool:
        """Whether the port accepts calls."""
        return self._server is not None

    async def start(self, runner: web.BaseRunner, host: str, port: int, backlog: int) -> str:
        """Begins to serve with `runner`; returns the base URL. Port 0 takes any that is free.

        Raises `OSError` when the port cannot be had.
        """
        await runner.setup()
        try:
            self._server = await asyncio.get_running_loop().create_server(self, host, port, backlog=backlog)
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner
        return http_url(host, self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Accepts nothing more, and ends once what is at work was answered: within the runner's `shutdown_timeout`."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    def __call__(self) -> asyncio.BaseProtocol:
        server = None if self._runner is None else self._runner.server
        if server is None or (len(self.open) >= self.count_max and not self._has_evicted()):
            return _Turned()
        return Connection(server, self)

    def _has_evicted(self) -> bool:
        longest = next(iter(self.strangers or self.known), None) if self._evicts else None
        if longest is None:
            return False
        longest.abort()
        return True


class _Turned(asyncio.Protocol):
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
            auto_decompress=False,  # a body that nobody wants is read for a while, and is not to be unpacked
        )
        self._here = loop
        self._connections = connections
        self._waits_among = connections.strangers
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connections.open.add(self)
        self.await_header()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._connections.open.discard(self)
        self.header_came()
        super().connection_lost(exc)

    def header_came(self) -> None:
        """A request is being worked on."""
        self._waits_among.pop(self, None)
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def was_right(self) -> None:
        """The request proves who it is."""
        self._waits_among = self._connections.known

    def await_header(self) -> None:
        """The next request has to come in time."""
        self.header_came()
        if self in self._connections.open:
            self._waits_among[self] = None
            self._patience = self._here.call_later(self._connections.header_within_s(), self.abort)

    def abort(self) -> None:
        """Ends it at once."""
        self._connections.open.discard(self)
        self._waits_among.pop(self, None)
        if self.transport is not None:
            self.transport.abort()

    def log_exception(self, *_words: Any, **about: Any) -> None:
        """What the library has to say, without its words: they hold what was sent."""
        error = about.get("exc_info")
        kind = type(error).__name__
        if isinstance(error, http_exceptions.HttpProcessingError):
            log.warning("request_unreadable", error=kind, sampled_by=kind)
        else:
            log.error("request_failed", error=kind, sampled_by=kind)

    def handle_error(self, request: Any, status: int = 500, exc: Any = None, message: Any = None) -> Any:
        """As the library does, without saying back what was sent."""
        response = super().handle_error(request, status, exc, message)
        if isinstance(response, web.Response):
            response.text = self._connections.error_body(status)
        return response
