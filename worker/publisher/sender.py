"""The only outbound HTTP: one attempt, its deadline, and what is known of it when there is no answer."""

import math
import socket
from collections.abc import Callable
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import aiohttp
from aiohttp.client_reqrep import ClientRequest
from yarl import URL

from schemas.updates import Fault, HttpRequest, HttpResponse

BODY_MAX_BYTES = 64 * 1024
"""An answer is cut here: only its first words are of use."""


_FAILURES = (TimeoutError, aiohttp.ClientError, OSError, ValueError)
"""What a request can end with instead of an answer."""


@lru_cache(maxsize=16)
def _timeout(total_s: float) -> aiohttp.ClientTimeout:
    # By default aiohttp rounds 5 s and more up to a full second: an attempt would outlive the lease that allowed it.
    return aiohttp.ClientTimeout(total=total_s, ceil_threshold=math.inf)


class _LeaseOverError(Exception):
    """The partition may not send any more; raised before the first byte."""


class _Under:
    """An attempt under way: whether it may go out, and how often its headers did."""

    __slots__ = ("copies", "may_send")

    def __init__(self, may_send: Callable[[], bool]) -> None:
        self.may_send = may_send
        self.copies = 0


_under: ContextVar[_Under] = ContextVar("under")


class _Request(ClientRequest):
    """Asks for the lease once more as late as can be, and counts how often the headers go out.

    aiohttp calls `send` once per copy of a request, right before it writes the headers (3.14, read 2026-11). A trace
    hook sees the same and costs a tenth of the throughput.
    """

    async def send(self, conn: Any) -> Any:
        under = _under.get()
        if not under.may_send():
            raise _LeaseOverError
        under.copies += 1
        return await super().send(conn)


class HttpSender:
    """`ports.Sender` over aiohttp. TLS is verified, redirects are not followed, cookies are not kept."""

    def __init__(self, *, deadline_s: float, user_agent: str, body_max_bytes: int = BODY_MAX_BYTES) -> None:
        self._body_max_bytes = body_max_bytes
        # A process that dies leaves its send buffer to the kernel, which would retransmit for minutes: it must give
        # up when we would have (`protocol.md` section 3).
        connector = aiohttp.TCPConnector(
            limit=0, socket_factory=lambda address: _socket(address, deadline_s), keepalive_timeout=deadline_s
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            request_class=_Request,
            headers={"User-Agent": user_agent},
            timeout=_timeout(deadline_s),
            trust_env=False,
        )
        # aiohttp repeats an idempotent request silently when a kept connection turns out dead, and the first copy may
        # land later. There is no public switch; its own test client sets this one. `copies` stands guard.
        self._session._retry_connection = False  # noqa: SLF001

    async def send(self, request: HttpRequest, deadline_s: float, may_send: Callable[[], bool]) -> HttpResponse | Fault:
        """One attempt. A copy of it that went out beside it makes the outcome unknown even when it was answered."""
        under = _Under(may_send)
        token = _under.set(under)
        try:
            async with self._session.request(
                request.method,
                URL(request.url, encoded=True),
                data=request.body,
                headers=request.headers,
                allow_redirects=False,
                timeout=_timeout(deadline_s),
            ) as response:
                body = b"" if response.status == 204 else await self._read(response)
                if under.copies > 1:
                    said = f"{response.status}, but {under.copies} copies of the request went out"
                    return Fault(True, said, under.copies)
                return HttpResponse(
                    response.status, {name.lower(): value for name, value in response.headers.items()}, body
                )
        except _LeaseOverError:
            return Fault(False, "the lease of the partition ran out before the request went out")
        except _FAILURES as error:
            return Fault(under.copies > 0, _said(error, deadline_s))
        finally:
            _under.reset(token)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        chunks: list[bytes] = []
        size = 0
        try:
            async for chunk in response.content.iter_chunked(self._body_max_bytes):
                chunks.append(chunk)
                size += len(chunk)
                if size >= self._body_max_bytes:
                    response.close()  # the rest is not worth the connection
                    break
        except _FAILURES:
            response.close()  # the status has come, and it decides: what is missing are words
        return b"".join(chunks)[: self._body_max_bytes]

    async def close(self) -> None:
        """Closes all connections."""
        await self._session.close()


def _said(error: Exception, deadline_s: float) -> str:
    """What happened, without the URL: it holds the order's reference."""
    if isinstance(error, TimeoutError):
        return f"no answer within {deadline_s:g} s"
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
