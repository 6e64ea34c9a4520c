"""The connection pool: connections to providers are opened, kept alive for the next request, and closed in time.

Names are resolved again regularly (a name moves, a site is drained): a connection lives for a minute at most, and it is
closed after a response that tells us to go elsewhere (5xx, 421). Idle connections are closed before the server closes
them, because a request that crosses with the server's close has an unknown outcome.
"""

import asyncio
import errno
import re
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import aiohappyeyeballs
from msgspec import Struct

from worker.deadlines import Deadlines
from worker.publisher.link import Link
from worker.publisher.routes import Proxy


class Limits(Struct, frozen=True):
    """The limits of the pool."""

    age_max_s: float = 60.0
    """No request is sent on an older connection."""
    idle_max_s: float = 4.0
    """How long an idle connection is kept: many servers close theirs after 5 s."""
    idle_max: int = 256
    """Maximum idle connections of all accounts."""
    name_s: float = 5.0
    """How long resolved addresses are cached."""
    next_address_s: float = 0.25
    """The delay before the next address is tried in parallel (RFC 8305)."""


DEFAULT_LIMITS = Limits()
_TUNNEL_HEAD_MAX_BYTES = 16 * 1024
_TUNNEL_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r\n]")

AddressInfo = tuple[Any, Any, int, str, tuple[Any, ...]]
LookUp = Callable[[str, int], Awaitable[list[AddressInfo]]]
"""The addresses of a host and port, as `getaddrinfo` gives them."""


class Server(Struct, eq=False):
    """An origin as reached by one route, and its idle connections."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    """`None`: unencrypted."""
    proxy: Proxy | None
    prefix: str
    """Precedes the path in the request line: the origin, if a proxy needs it (absolute-form)."""
    head: str
    """The headers of every request."""
    idle: dict[Link, None] = {}
    """Longest idle first."""
    is_replaced: bool = False
    """The account's route was reloaded: its connections must not be kept."""

    @property
    def tunnel(self) -> Proxy | None:
        """The proxy to CONNECT through. Without TLS the proxy gets the request itself, and there is no tunnel."""
        return None if self.tls is None else self.proxy


class TunnelRefusedError(OSError):
    """A proxy refused CONNECT."""

    def __init__(self, status: int) -> None:
        super().__init__(
            errno.ECONNREFUSED, f"the proxy responded {status}" if status else "the proxy's response is not HTTP"
        )
        self.status = status


class Connections:
    """The pool for all accounts and servers."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        deadline_s: float,
        user_agent: str,
        limits: Limits = DEFAULT_LIMITS,
        look_up: LookUp | None = None,
    ) -> None:
        self._loop = loop
        self._deadline_s = deadline_s
        self._limits = limits
        self._idle_s = min(limits.idle_max_s, deadline_s)
        self._user_agent = user_agent
        self._idle = Deadlines(loop)
        self._names = _Names(loop, look_up or self._look_up, limits.name_s)
        self._is_closed = False

    def take(self, server: Server) -> Link | None:
        """Takes the most recently used idle connection from the pool, if one is usable."""
        while server.idle:
            link, _ = server.idle.popitem()
            link.home = None
            self._idle.remove(link)
            # Not the loop's clock: it stands still during one iteration of the loop, however long that takes, and the
            # server may have closed the connection meanwhile.
            if link.is_open and link.idle_until > time.monotonic():
                return link
            link.abort()
        return None

    def give_back(self, link: Link, server: Server) -> None:
        """Keeps a connection for the next request, or closes it."""
        if not link.end() or server.is_replaced or self._is_closed or len(self._idle) >= self._limits.idle_max:
            link.abort()
            return
        idle_s = self._idle_s
        if (kept_s := link.keeps_for_s()) is not None:
            idle_s = min(
                idle_s, kept_s / 2
            )  # the server's timeout counts from when it sent the response, ours from when it arrived
        now = time.monotonic()
        idle_s = min(idle_s, link.made_at + self._limits.age_max_s - now)
        if idle_s <= 0:
            link.abort()
            return
        link.idle_until = now + idle_s
        server.idle[link] = None
        link.home = server.idle
        self._idle.add(link, self._loop.time() + idle_s)

    async def open(self, server: Server) -> Link:
        """Opens a connection and verifies its certificate. Raises `OSError`; the caller sets the deadline."""
        try:
            return await self._open(server)
        except TunnelRefusedError as refused:
            if refused.status != 407:
                raise
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self.close_idle()  # frees file descriptors for the next attempt
            raise
        # 407: the proxy has forwarded nothing, and may accept the same credentials on a new connection. One retry.
        return await self._open(server)

    async def _open(self, server: Server) -> Link:
        peer = server.proxy or server
        sock = await aiohappyeyeballs.start_connection(
            await self._names.find(peer.host, peer.port),
            happy_eyeballs_delay=self._limits.next_address_s,
            loop=self._loop,
            socket_factory=self._socket,
        )
        if server.tunnel is not None:
            try:
                await self._tunnel(sock, server, server.tunnel)
            except BaseException:
                sock.close()
                raise
        verified: dict[str, Any] = {} if server.tls is None else {"ssl": server.tls, "server_hostname": server.host}
        _, link = await self._loop.create_connection(lambda: Link(self._loop), sock=sock, **verified)
        return link

    async def _tunnel(self, sock: socket.socket, server: Server, proxy: Proxy) -> None:
        """Sends CONNECT to the proxy. Nothing may follow its response: in TLS the client speaks first."""
        host = f"[{server.host}]" if ":" in server.host else server.host
        lines = [
            f"CONNECT {host}:{server.port} HTTP/1.1",
            f"Host: {host}:{server.port}",
            f"User-Agent: {self._user_agent}",
        ]
        if proxy.authorization is not None:
            lines.append(f"Proxy-Authorization: {proxy.authorization}")
        await self._loop.sock_sendall(sock, "\r\n".join([*lines, "", ""]).encode())
        head = b""
        while b"\r\n\r\n" not in head:
            received = await self._loop.sock_recv(sock, 4096)
            head += received
            if not received or len(head) > _TUNNEL_HEAD_MAX_BYTES:
                break
        status = int(match[1]) if (match := _TUNNEL_STATUS.match(head)) else 0
        if not 200 <= status < 300 or not head.endswith(b"\r\n\r\n"):
            raise TunnelRefusedError(status)

    async def _look_up(self, host: str, port: int) -> list[AddressInfo]:
        return list(await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))

    def _socket(self, address: AddressInfo) -> socket.socket:
        """When a process dies, the kernel keeps retransmitting its send buffer for minutes. The options make it give up
        when we would have, and drop the buffer on close (`PROTOCOL.md` section 3).
        """
        family, kind, proto, _, _ = address
        sock = socket.socket(family=family, type=kind, proto=proto)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self._deadline_s * 1000))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")  # on, 0 s: reset
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def close_idle(self) -> None:
        """Closes all idle connections."""
        self._idle.expire_all()

    async def close(self) -> None:
        """Closes all idle connections; the others are closed when they are given back."""
        self._is_closed = True
        self.close_idle()
        self._idle.close()
        self._names.close()
        await asyncio.sleep(0)  # lets the transports run their close callbacks


class _Names:
    """A DNS cache. Concurrent callers for one name share a lookup, so that a hanging resolver blocks one thread, not
    all of them.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, look_up: LookUp, kept_s: float) -> None:
        self._loop = loop
        self._look_up = look_up
        self._kept_s = kept_s
        self._looked_up: dict[tuple[str, int], asyncio.Future[list[AddressInfo]]] = {}

    async def find(self, host: str, port: int) -> list[AddressInfo]:
        """The addresses of a name, rotated at each call. Raises `OSError`."""
        name = (host, port)
        task = self._looked_up.get(name)
        if task is None:
            task = self._looked_up[name] = asyncio.ensure_future(self._look_up(host, port), loop=self._loop)
            task.add_done_callback(partial(self._found, name))
        found = await asyncio.shield(task)
        found.append(found.pop(0))
        return list(found)

    def _found(self, name: tuple[str, int], task: "asyncio.Future[list[AddressInfo]]") -> None:
        if task.cancelled() or task.exception() is not None:
            self._looked_up.pop(name, None)
        else:
            self._loop.call_later(self._kept_s, self._looked_up.pop, name, None)

    def close(self) -> None:
        for task in self._looked_up.values():
            task.cancel()
