"""Connections to providers: made, kept for the next request, and not kept for too long.

An address is asked for again and again (a name moves, a site is drained): a connection lives for a minute at most, and
does not outlive an answer that says that it is better to go elsewhere. One that waits is closed before the other side
thinks of it, for a request that crosses with such an end has an unknown outcome.
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

from worker.publisher.deadlines import Deadlines
from worker.publisher.link import Link
from worker.publisher.routes import Proxy


class Limits(Struct, frozen=True):
    """How long and how many."""

    age_max_s: float = 60.0
    """Nothing is sent on a connection that is older."""
    idle_max_s: float = 4.0
    """For which no connection is kept without a request: many servers close theirs after 5 s."""
    idle_max: int = 256
    """Connections without a request that are kept, of all accounts."""
    name_s: float = 5.0
    """How long the addresses of a name are used."""
    next_address_s: float = 0.25
    """How long an address may take before the next one is tried beside it (RFC 8305)."""


DEFAULT_LIMITS = Limits()
_TUNNEL_HEAD_MAX_BYTES = 16 * 1024
_TUNNEL_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r\n]")

AddressInfo = tuple[Any, Any, int, str, tuple[Any, ...]]
LookUp = Callable[[str, int], Awaitable[list[AddressInfo]]]
"""The addresses of a host and port, as `getaddrinfo` gives them."""


class Server(Struct, eq=False):
    """An origin as one account reaches it, with the connections to it that wait."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    """`None`: in clear text."""
    proxy: Proxy | None
    prefix: str
    """Before the path of a request: the origin, where a proxy has to know it."""
    head: str
    """Headers of every request."""
    idle: dict[Link, None] = {}
    """The longest idle first."""
    is_over: bool = False
    """The route was read anew."""

    @property
    def tunnel(self) -> Proxy | None:
        """The proxy that is asked for a way to the server; in clear text it is asked for the thing itself."""
        return None if self.tls is None else self.proxy


class TunnelRefusedError(OSError):
    """A proxy does not let us through."""

    def __init__(self, status: int) -> None:
        super().__init__(errno.ECONNREFUSED, f"the proxy answered {status}" if status else "the proxy speaks no HTTP")
        self.status = status


class Connections:
    """All that there are."""

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
        """One that waits for a request; the one that has waited least."""
        while server.idle:
            link, _ = server.idle.popitem()
            link.home = None
            self._idle.remove(link)
            # Not the loop's clock, which stands still while a turn of the loop lasts, as long as that may be.
            if link.is_open and link.idle_until > time.monotonic():
                return link
            link.abort()
        return None

    def give_back(self, link: Link, server: Server) -> None:
        """Keeps it for the next request, or closes it."""
        if not link.end() or server.is_over or self._is_closed or len(self._idle) >= self._limits.idle_max:
            link.abort()
            return
        idle_s = self._idle_s
        if (kept_s := link.keeps_for_s()) is not None:
            idle_s = min(idle_s, kept_s / 2)  # the way there takes time, too
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
        """A new one, verified. Raises `OSError`; whoever calls sets the deadline."""
        try:
            return await self._open(server)
        except TunnelRefusedError as refused:
            if refused.status != 407:
                raise
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self.close_idle()  # the next one finds room
            raise
        return await self._open(server)

    async def _open(self, server: Server) -> Link:
        way = server.proxy or server
        made = await aiohappyeyeballs.start_connection(
            await self._names.find(way.host, way.port),
            happy_eyeballs_delay=self._limits.next_address_s,
            loop=self._loop,
            socket_factory=self._socket,
        )
        if server.tunnel is not None:
            try:
                await self._tunnel(made, server, server.tunnel)
            except BaseException:
                made.close()
                raise
        verified: dict[str, Any] = {} if server.tls is None else {"ssl": server.tls, "server_hostname": server.host}
        _, link = await self._loop.create_connection(lambda: Link(self._loop), sock=made, **verified)
        return link

    async def _tunnel(self, made: socket.socket, server: Server, proxy: Proxy) -> None:
        """Asks the proxy for a way to the server. It says nothing more after its answer: TLS begins on our side."""
        host = f"[{server.host}]" if ":" in server.host else server.host
        lines = [
            f"CONNECT {host}:{server.port} HTTP/1.1",
            f"Host: {host}:{server.port}",
            f"User-Agent: {self._user_agent}",
        ]
        if proxy.authorization is not None:
            lines.append(f"Proxy-Authorization: {proxy.authorization}")
        await self._loop.sock_sendall(made, "\r\n".join([*lines, "", ""]).encode())
        head = b""
        while b"\r\n\r\n" not in head:
            said = await self._loop.sock_recv(made, 4096)
            head += said
            if not said or len(head) > _TUNNEL_HEAD_MAX_BYTES:
                break
        status = int(match[1]) if (match := _TUNNEL_STATUS.match(head)) else 0
        if not 200 <= status < 300 or not head.endswith(b"\r\n\r\n"):
            raise TunnelRefusedError(status)

    async def _look_up(self, host: str, port: int) -> list[AddressInfo]:
        return list(await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))

    def _socket(self, address: AddressInfo) -> socket.socket:
        """A process that dies leaves its send buffer to the kernel, which would retransmit for minutes: it must give up
        when we would have (`PROTOCOL.md` section 3).
        """
        family, kind, proto, _, _ = address
        made = socket.socket(family=family, type=kind, proto=proto)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self._deadline_s * 1000))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")  # on, 0 s: reset
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def close_idle(self) -> None:
        """Closes all that wait for a request."""
        self._idle.expire_all()

    async def close(self) -> None:
        """Closes all that wait, and keeps no other."""
        self._is_closed = True
        self.close_idle()
        self._idle.close()
        self._names.close()
        await asyncio.sleep(0)  # for the transports to hear of it


class _Names:
    """Addresses by name. Whoever asks while a name is looked up waits with the others: a resolver that hangs holds one
    thread, not all.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, look_up: LookUp, kept_s: float) -> None:
        self._loop = loop
        self._look_up = look_up
        self._kept_s = kept_s
        self._looked_up: dict[tuple[str, int], asyncio.Future[list[AddressInfo]]] = {}

    async def find(self, host: str, port: int) -> list[AddressInfo]:
        """In turns another one first. Raises `OSError`."""
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
