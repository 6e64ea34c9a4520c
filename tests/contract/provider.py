"""A provider on a socket that says what a test wants it to say, byte by byte; a proxy; certificates."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

from worker.model.exchange import HttpRequest

OK = b"HTTP/1.1 204 No Content\r\n\r\n"
CLOSE = None
"""In an answer: the connection ends here."""
Part = bytes | float | None
"""Bytes, seconds to wait, or the end."""


class Seen(NamedTuple):
    """A request as it came."""

    connection: int
    first: str
    headers: dict[str, str]
    body: bytes


class Provider:
    """Answers requests and remembers them."""

    def __init__(self, answer: Callable[[int], Iterable[Part]]) -> None:
        self._answer = answer
        self.connections = 0
        self.open = 0
        self.ended = asyncio.Event()
        """A connection has ended."""
        self.said = asyncio.Event()
        """An answer has gone out whole, or its connection has ended."""
        self.sent_bytes = 0
        self.seen: list[Seen] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until it ends."""
        self.connections += 1
        self.open += 1
        connection = self.connections
        try:
            while True:
                self.seen.append(await read_request(reader, connection))
                for part in self._answer(len(self.seen)):
                    if part is CLOSE:
                        return
                    if isinstance(part, float):
                        await asyncio.sleep(part)
                        continue
                    writer.write(part)
                    self.sent_bytes += len(part)
                    await writer.drain()
                self.said.set()
        except (asyncio.IncompleteReadError, OSError, RuntimeError):
            pass  # the client has closed; RuntimeError: uvloop's word for a write after that
        finally:
            self.open -= 1
            self.ended.set()
            self.said.set()
            with suppress(OSError, RuntimeError):
                writer.close()


async def read_request(reader: asyncio.StreamReader, connection: int) -> Seen:
    """A request to its end."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().removesuffix("\r\n\r\n").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return Seen(connection, first, headers, await reader.readexactly(int(headers.get("content-length", "0"))))


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(
    serve: Serve, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Serves connections; gives the port. What is under way at the end is ended."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await serve(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            tasks.discard(task)

    server = await asyncio.start_server(serve_one, host, port, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def providing(
    answer: Callable[[int], Iterable[Part]] = lambda _: [OK],
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Provider]:
    """A provider; `answer` is given the number of the request, from 1."""
    provider = Provider(answer)
    async with listening(provider.serve, host, port, tls) as provider.port:
        yield provider


def put(
    port: int, path: str = "/x", *, scheme: str = "http", host: str = "127.0.0.1", account: str = ""
) -> HttpRequest:
    """An order update."""
    return HttpRequest("PUT", f"{scheme}://{host}:{port}{path}", {"Authorization": "Basic eDp5"}, b"{}", account)


def yes() -> bool:
    """The lease is good."""
    return True
