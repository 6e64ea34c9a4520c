"""The outbound HTTP client: makes one attempt within its deadline, and knows its outcome even without a response.

Theory of operation. We write requests ourselves, on our own connections (`connections`), and llhttp parses the
responses (`link`): a general HTTP client does much that an order update does not need (redirects, cookies, a task that
writes the body), and repeats a PUT by itself if a pooled connection turns out to be dead. Nothing happens between the
last check of the lease and writing the bytes, not even an iteration of the loop, and a request is written to a
connection at most once. It is written a second time only if the first response was 421, or a proxy's 407, because then
nobody has processed it (RFC 9110 sections 15.5.8 and 15.5.20). The same deadline applies, and the lease is checked
again.
"""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import structlog

from worker.deadlines import Deadlines
from worker.model.account import Account
from worker.model.exchange import Fault, HttpRequest, HttpResponse
from worker.publisher.connections import DEFAULT_LIMITS, Connections, Limits, LookUp, Server
from worker.publisher.link import Link
from worker.publisher.routes import Route, default_tls, routes_of

log = structlog.get_logger(__name__)

BODY_MAX_BYTES = 64 * 1024
"""Longer response bodies are truncated: only the beginning is useful."""


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
        """Reads the accounts' certificate files; raises `ConfigError`. `look_up`: instead of the system's resolver."""
        self._body_max_bytes = body_max_bytes
        self._user_agent = user_agent
        self._loop = asyncio.get_running_loop()
        self._deadlines = Deadlines(self._loop)
        self._connections = Connections(
            self._loop, deadline_s=deadline_s, user_agent=user_agent, limits=limits, look_up=look_up
        )
        self._routes, self._tls = routes_of(accounts or {}), default_tls()
        self._servers: dict[tuple[str, str], Server] = {}
        """By account and origin; bounded by the number of configured accounts."""
        self._shared: dict[tuple[str, Route], Server] = {}
        """By origin and route: accounts with neither files nor a proxy of their own share connections, since a request
        has its credentials in itself. With hundreds of accounts most requests would open a connection otherwise.
        """

    async def reload(self, accounts: Mapping[str, Account]) -> None:
        """Rereads the files of all accounts. Requests in flight finish on their connections, which are then closed.

        Raises `ConfigError`: then nothing has changed.
        """
        self._routes, self._tls = await asyncio.to_thread(_read_again, accounts)
        for server in self._servers.values():
            server.is_replaced = True
        self._servers.clear()
        self._shared.clear()
        self._connections.close_idle()

    async def send(self, request: HttpRequest, deadline_s: float, may_send: Callable[[], bool]) -> HttpResponse | Fault:
        until = self._loop.time() + deadline_s
        try:
            origin, target = _split(request.url)
            server = self._servers.get((request.account, origin)) or self._server_for(request.account, origin)
            raw = _serialize(request, server, target)
        except ValueError as error:
            return Fault(False, f"not a request: {type(error).__name__}")
        response: HttpResponse | Fault
        # First on a pooled connection, if there is one. A second time, on a new one, only if the first response shows
        # that nobody has processed the request.
        for pooled in (self._connections.take(server), None):
            link = pooled or await self._connect(server, until, deadline_s)
            if isinstance(link, Fault):
                return link
            body_max_bytes = request.answer_max_bytes or self._body_max_bytes
            response = await self._exchange(link, server, raw, until, deadline_s, body_max_bytes, may_send)
            if isinstance(response, Fault) or not _is_misdirected(response, server):
                break
        return response

    async def _connect(self, server: Server, until: float, deadline_s: float) -> Link | Fault:
        try:
            async with asyncio.timeout_at(until):
                link = await self._connections.open(server)
        except Exception as error:  # noqa: BLE001 - `ports.Sender` never raises: every error is an outcome
            if isinstance(error, TimeoutError) and error.errno is None:  # our deadline, not the kernel's ETIMEDOUT
                return Fault(False, f"no connection within {deadline_s:g} s")
            return Fault(False, f"no connection: {_describe(error)}")
        # The loop may have been busy since the connection was established.
        if self._loop.time() < until and link.is_open:
            return link
        link.abort()
        return Fault(False, "the connection was established too late, or closed right away")

    async def _exchange(
        self,
        link: Link,
        server: Server,
        raw: bytes,
        until: float,
        deadline_s: float,
        body_max_bytes: int,
        may_send: Callable[[], bool],
    ) -> HttpResponse | Fault:
        complete = link.begin(body_max_bytes, deadline_s)
        self._deadlines.add(link, until)
        try:
            # No await between this check and the write: the lease must still be valid when the bytes are written.
            if not may_send():
                return Fault(False, "the partition's lease expired before the request was sent")
            link.write(raw)
            await complete
            return link.outcome()
        except Exception as error:  # noqa: BLE001 - see above
            return Fault(True, _describe(error))
        finally:
            self._deadlines.remove(link)
            self._connections.give_back(link, server)

    def _server_for(self, account: str, origin: str) -> Server:
        url = urlsplit(origin)
        if url.scheme not in {"http", "https"} or not url.hostname or "@" in url.netloc:
            raise ValueError("not an http(s) URL")
        route = self._routes.get(account, Route())
        if (shared := self._shared.get((origin, route))) is not None:
            self._servers[account, origin] = shared
            return shared
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
        server = self._servers[account, origin] = self._shared[origin, route] = Server(
            url.hostname, url.port or standard, tls, route.proxy, prefix, head
        )
        return server

    async def close(self) -> None:
        self._deadlines.close()
        await self._connections.close()


def _read_again(accounts: Mapping[str, Account]) -> tuple[dict[str, Route], ssl.SSLContext]:
    routes = routes_of(accounts)
    default_tls.cache_clear()
    return routes, default_tls()


def _split(url: str) -> tuple[str, str]:
    """Splits off the origin, and keeps the rest byte by byte: an encoded slash must stay encoded."""
    scheme, _, rest = url.partition("://")
    authority, _, path = rest.partition("/")
    return f"{scheme}://{authority}", f"/{path}"


def _serialize(request: HttpRequest, server: Server, target: str) -> bytes:
    """The bytes of the request. Raises `ValueError` if a header value contains a line break (header injection)."""
    lines = [f"{request.method} {server.prefix}{target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    # Looked for before our own are put in: to count those costs more than all else here but copying the body.
    given = "".join(lines)
    if "\r" in given or "\n" in given:
        raise ValueError("a line break")
    lines.append(f"Content-Length: {len(request.body)}\r\n{server.head}\r\n")
    return "\r\n".join(lines).encode() + request.body


def _is_misdirected(response: HttpResponse, server: Server) -> bool:
    """Whether nobody has processed the request: the wrong server (421), or a proxy that wants credentials (407)."""
    return response.status == 421 or (response.status == 407 and server.proxy is not None)


def _describe(error: Exception) -> str:
    """What happened, without the URL, which contains the order's reference."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    log.warning("attempt_failed_unexpectedly", error=type(error).__name__)
    return type(error).__name__
