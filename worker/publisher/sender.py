"""The only outbound HTTP: one attempt, its deadline, and what is known of it when there is no answer.

Theory of operation. Requests are written by us, on connections of our own (`connections`), and answers are read by
llhttp (`link`): an HTTP client does much that an order update has no use for (redirects, cookies, a task that writes
the body), and repeats a PUT on its own when a kept connection turns out to be dead. Between the last look at the lease
and the bytes stands nothing, not even a turn of the loop, and a request is written at most once to a connection. It is
written a second time only when the first was answered with 421, or by a proxy with 407: nobody has processed it then
(RFC 9110 sections 15.5.8 and 15.5.20). That is within the same deadline, and the lease is looked at again.
"""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import structlog

from worker.model.account import Account
from worker.model.exchange import Fault, HttpRequest, HttpResponse
from worker.publisher.connections import DEFAULT_LIMITS, Connections, Limits, LookUp, Server
from worker.publisher.deadlines import Deadlines
from worker.publisher.link import Link
from worker.publisher.routes import Route, default_tls, routes_of

log = structlog.get_logger(__name__)

BODY_MAX_BYTES = 64 * 1024
"""An answer is cut here: only its first words are of use."""


class HttpSender:
    """`ports.Sender`. TLS is verified, redirects are not followed, cookies are not kept."""

    def __init__(
        self,
        *,
        deadline_s: float,
        user_agent: str,
        body_max_bytes: int = BODY_MAX_BYTES,
        accounts: Mapping[str, Account] | None = None,
        limits: Limits = DEFAULT_LIMITS,
        look_up: LookUp | None = None,
    ) -> None:
        """Reads the files of the accounts; raises `ConfigError`. `look_up`: instead of what the system finds."""
        self._body_max_bytes = body_max_bytes
        self._user_agent = user_agent
        self._loop = asyncio.get_running_loop()
        self._deadlines = Deadlines(self._loop)
        self._connections = Connections(
            self._loop, deadline_s=deadline_s, user_agent=user_agent, limits=limits, look_up=look_up
        )
        self._routes, self._tls = routes_of(accounts or {}), default_tls()
        self._servers: dict[tuple[str, str], Server] = {}
        """By account and origin: as many as accounts are configured."""

    async def reload(self, accounts: Mapping[str, Account]) -> None:
        """Reads the files of all accounts again; what waits on a connection of before goes on there, and is the last.

        Raises `ConfigError`: then all stays as it was.
        """
        self._routes, self._tls = await asyncio.to_thread(_read_again, accounts)
        for server in self._servers.values():
            server.is_over = True
        self._servers.clear()
        self._connections.close_idle()

    async def send(self, request: HttpRequest, deadline_s: float, may_send: Callable[[], bool]) -> HttpResponse | Fault:
        """One attempt."""
        until = self._loop.time() + deadline_s
        try:
            origin, target = _split(request.url)
            server = self._servers.get((request.account, origin)) or self._meet(request.account, origin)
            wire = _wire(request, server, target)
        except ValueError as error:
            return Fault(False, f"not a request: {type(error).__name__}")
        answer: HttpResponse | Fault
        for link in (self._connections.take(server), None):
            fresh = link or await self._connect(server, until, deadline_s)
            if isinstance(fresh, Fault):
                return fresh
            body_max_bytes = request.answer_max_bytes or self._body_max_bytes
            answer = await self._exchange(fresh, server, wire, until, deadline_s, body_max_bytes, may_send)
            if isinstance(answer, Fault) or not _is_misdirected(answer, server):
                break
        return answer

    async def _connect(self, server: Server, until: float, deadline_s: float) -> Link | Fault:
        try:
            async with asyncio.timeout_at(until):
                link = await self._connections.open(server)
        except Exception as error:  # noqa: BLE001 - `ports.Sender` never raises: whatever it was, an outcome follows
            if isinstance(error, TimeoutError) and error.errno is None:
                return Fault(False, f"no connection within {deadline_s:g} s")
            return Fault(False, f"no connection: {_said(error)}")
        if self._loop.time() < until and link.is_open:
            return link
        link.abort()
        return Fault(False, "the connection was of no use any more when it was there")

    async def _exchange(
        self,
        link: Link,
        server: Server,
        wire: bytes,
        until: float,
        deadline_s: float,
        body_max_bytes: int,
        may_send: Callable[[], bool],
    ) -> HttpResponse | Fault:
        answered = link.begin(body_max_bytes, deadline_s)
        self._deadlines.add(link, until)
        try:
            if not may_send():
                return Fault(False, "the lease of the partition ran out before the request went out")
            link.write(wire)
            await answered
            return link.outcome()
        except Exception as error:  # noqa: BLE001 - see above
            return Fault(True, _said(error))
        finally:
            self._deadlines.remove(link)
            self._connections.give_back(link, server)

    def _meet(self, account: str, origin: str) -> Server:
        url = urlsplit(origin)
        if url.scheme not in {"http", "https"} or not url.hostname or "@" in url.netloc:
            raise ValueError("no address of a server")
        route = self._routes.get(account, Route())
        tls = (route.tls or self._tls) if url.scheme == "https" else None
        standard = 443 if tls else 80
        host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
        named = host if url.port in {None, standard} else f"{host}:{url.port}"
        head = f"Host: {named}\r\nUser-Agent: {self._user_agent}\r\nAccept-Encoding: identity\r\n"
        prefix = ""
        if route.proxy is not None and tls is None:
            prefix = origin
            if route.proxy.authorization is not None:
                head += f"Proxy-Authorization: {route.proxy.authorization}\r\n"
        server = self._servers[account, origin] = Server(
            url.hostname, url.port or standard, tls, route.proxy, prefix, head
        )
        return server

    async def close(self) -> None:
        """Closes all connections."""
        self._deadlines.close()
        await self._connections.close()


def _read_again(accounts: Mapping[str, Account]) -> tuple[dict[str, Route], ssl.SSLContext]:
    routes = routes_of(accounts)
    default_tls.cache_clear()
    return routes, default_tls()


def _split(url: str) -> tuple[str, str]:
    """Origin and request target, letter by letter: an encoded slash stays encoded."""
    scheme, _, rest = url.partition("://")
    authority, _, path = rest.partition("/")
    return f"{scheme}://{authority}", f"/{path}"


def _wire(request: HttpRequest, server: Server, target: str) -> bytes:
    """All the bytes. Raises `ValueError` when a value would become a header of its own."""
    lines = [f"{request.method} {server.prefix}{target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    lines.append(f"Content-Length: {len(request.body)}\r\n{server.head}\r\n")
    head = "\r\n".join(lines)
    if not head.count("\r") == head.count("\n") == len(lines) + 1 + server.head.count("\n"):
        raise ValueError("a line break")
    return head.encode() + request.body


def _is_misdirected(answer: HttpResponse, server: Server) -> bool:
    """Whether the request was sent back unprocessed by a server that is not for it, or by a proxy."""
    return answer.status == 421 or (answer.status == 407 and server.proxy is not None)


def _said(error: Exception) -> str:
    """What happened, without the URL: it holds the order's reference."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    log.warning("attempt_failed_unexpectedly", error=type(error).__name__)
    return type(error).__name__
