"""A provider that costs as little as can be, so that what is measured is the client: 204 to whatever comes, or more."""

import asyncio
from collections.abc import Callable
from typing import cast

_ANSWER = b"HTTP/1.1 204 No Content\r\nDate: Mon, 02 Mar 2026 08:00:00 GMT\r\nX-Request-Id: 7f3a\r\n\r\n"
Answer = Callable[[bytes, bytes], bytes]
_END = b"\r\n\r\n"
_servers: list[asyncio.Server] = []
"""uvloop closes one that nobody holds."""


class _Connection(asyncio.Protocol):
    """Knows of HTTP where a request ends; no pipelining."""

    def __init__(self, took: Callable[[bytes], None] | None, answer: Answer | None, after_s: float) -> None:
        self._took = took
        self._answer = answer
        self._after_s = after_s
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._data = data = self._data + data if self._data else data
        head = data.find(_END)
        if head < 0:
            return
        lower = data[:head].lower()
        length = lower.find(b"content-length:")
        size = int(lower[length + 15 :].split(b"\r\n", 1)[0]) if length >= 0 else 0
        if len(data) < head + 4 + size:
            return
        self._data = b""
        response = _ANSWER if self._answer is None else self._answer(data[:head], data[head + 4 :])
        if self._after_s:
            asyncio.get_running_loop().call_later(self._after_s, self._transport.write, response)
        else:
            self._transport.write(response)
        if self._took is not None:
            self._took(data.split(b" ", 2)[1])


async def serve(took: Callable[[bytes], None] | None = None, answer: Answer | None = None, after_s: float = 0.0) -> str:
    """Serves for as long as the process lives; the base URL. `took` is told each path that was answered; `answer` makes
    a whole response of a request's head and body, which goes out `after_s` later.
    """
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(took, answer, after_s), "127.0.0.1", 0, backlog=2048)
    _servers.append(server)
    return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
