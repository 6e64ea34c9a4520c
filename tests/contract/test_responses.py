"""Whatever a server says after a status line, and however the network cuts it: the status decides, and no answer is
taken for that of another request. On both loops, over real sockets.
"""

import asyncio
import gzip
import tracemalloc
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.contract.provider import CLOSE, OK, Part, providing, put, yes
from worker.model.exchange import Fault, HttpResponse
from worker.publisher.sender import HttpSender

BOTH_LOOPS = True

BODY_MAX_BYTES = 4_096


@pytest.fixture
async def sender() -> AsyncIterator[HttpSender]:
    """The sender under test."""
    made = HttpSender(deadline_s=5.0, user_agent="x", body_max_bytes=BODY_MAX_BYTES)
    yield made
    await made.close()


def with_body(status: bytes, body: bytes, *headers: bytes) -> tuple[bytes, bytes]:
    """An answer of two parts."""
    head = b"".join(header + b"\r\n" for header in headers)
    return b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n" % (status, head, len(body)), body


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
ANSWERS: dict[str, tuple[bytes, bytes]] = {
    "as it should be": (OK, b""),
    "204 with a body": (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", b"hello"),
    "204 with an empty chunk": (b"HTTP/1.1 204 No Content\r\n" + CHUNKED, b"0\r\n\r\n"),
    "bytes after a 204": (OK, b"hello"),
    "two answers": (OK, b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"),
    "an answer and the beginning of another": (OK, b"HTTP/1.1 5"),
    "body longer than its length": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"hello"),
    "length given twice": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n", b"ok"),
    "two lengths": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n", b"ok"),
    "length and chunks": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + CHUNKED, b"2\r\nok\r\n0\r\n\r\n"),
    "bad chunk": (b"HTTP/1.1 200 OK\r\n" + CHUNKED, b"zz\r\n"),
    "chunk of a huge size": (b"HTTP/1.1 200 OK\r\n" + CHUNKED, b"2\r\nok\r\nffffffffffffffffffffff\r\n"),
    "trailers": (b"HTTP/1.1 200 OK\r\n" + CHUNKED, b"2\r\nok\r\n0\r\nX: y\r\n\r\n"),
    "header line of 9 KB": (b"HTTP/1.1 204 No Content\r\nX: " + b"x" * 9_000, b"\r\n\r\n"),
    "header line of 100 KB": (b"HTTP/1.1 204 No Content\r\nX: " + b"x" * 100_000, b"\r\n\r\n"),
    "reason of 9 KB": (b"HTTP/1.1 204 " + b"x" * 9_000, b"\r\n\r\n"),
    "200 headers": (b"HTTP/1.1 204 No Content\r\n" + b"Set-Cookie: a=b\r\n" * 200, b"\r\n"),
    "header without a name": (b"HTTP/1.1 204 No Content\r\n: x\r\n", b"\r\n"),
    "space in the name of a header": (b"HTTP/1.1 204 No Content\r\nX Y: a\r\n", b"\r\n"),
    "folded header": (b"HTTP/1.1 204 No Content\r\nX: a\r\n b\r\n", b"\r\n"),
    "control characters in a header": (b"HTTP/1.1 204 No Content\r\nX: \x00\x01\r\n", b"\r\n"),
    "Latin-1": (b"HTTP/1.1 204 Modificaci\xf3n\r\nX: \xf3\r\n", b"\r\n"),
    "no reason": (b"HTTP/1.1 204\r\n", b"\r\n"),
    "line feeds alone": (b"HTTP/1.1 204 No Content\nX: y\n", b"\n"),
    "brotli": with_body(b"200 OK", b"\x0b\x02\x80{}\x03", b"Content-Encoding: br"),
    "zstd": with_body(b"200 OK", b"\x28\xb5\x2f\xfd", b"Content-Encoding: zstd"),
    "no gzip": with_body(b"200 OK", b"not gzip at all", b"Content-Encoding: gzip"),
    "gzip bomb": with_body(b"200 OK", gzip.compress(bytes(2**20)), b"Content-Encoding: gzip"),
    "page of a megabyte": with_body(b"200 OK", b"x" * 2**20),
    "103 first": (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", OK),
    "100 and 102 first": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n", OK),
    "Connection: close": (b"HTTP/1.1 204 No Content\r\nConnection: close\r\n", b"\r\n"),
    "HTTP/1.0": (b"HTTP/1.0 204 No Content\r\n", b"\r\n"),
    "another protocol after a 204": (b"HTTP/1.1 204 X\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", b"PRI"),
}


def cut(head: bytes, rest: bytes, how: str) -> Iterator[Part]:
    """The answer in one segment, in two, or in as many as there are bytes."""
    if how == "one":
        yield head + rest
    elif how == "two":
        yield from (head, 0.02, rest)
    else:
        for byte in (head + rest)[:300]:
            yield from (bytes([byte]), 0.0)
        yield (head + rest)[300:]


@pytest.mark.parametrize("how", ["one", "two", "bytes"])
@pytest.mark.parametrize("name", ANSWERS)
async def test_final_2xx_is_final(sender: HttpSender, name: str, how: str) -> None:
    """And the next request gets its own answer."""
    head, rest = ANSWERS[name]

    def answer(number: int) -> list[Part]:
        return list(cut(head, rest, how)) if number == 1 else [b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"]

    async with providing(answer) as provider, asyncio.timeout(2):
        first = await sender.send(put(provider.port, "/1"), 5.0, yes)
        assert isinstance(first, HttpResponse)
        assert first.status in {200, 204}
        await provider.said.wait()  # what comes after the next request would be taken for its answer
        await asyncio.sleep(0.02)
        second = await sender.send(put(provider.port, "/2"), 5.0, yes)
        assert isinstance(second, HttpResponse)
        assert second.status == 202
    assert [request.first.split(" ")[1] for request in provider.seen] == ["/1", "/2"]
    assert {request.headers["accept-encoding"] for request in provider.seen} == {"identity"}


@pytest.mark.parametrize("status", [200, 409, 429, 503])
@pytest.mark.parametrize("length", [b"Content-Length: 500\r\n\r\n", CHUNKED + b"5\r\n", b"\r\n"])
async def test_body_that_breaks_off(sender: HttpSender, status: int, length: bytes) -> None:
    """What came of it is kept."""
    answer = b"HTTP/1.1 %d X\r\nRetry-After: 7\r\n%bbegun" % (status, length)
    async with providing(lambda _: [answer, CLOSE]) as provider, asyncio.timeout(2):
        got = await sender.send(put(provider.port), 5.0, yes)
    assert isinstance(got, HttpResponse)
    assert (got.status, got.headers["retry-after"], got.body) == (status, "7", b"begun")


@pytest.mark.parametrize(
    "answer",
    [
        *(
            b"",
            b"HTTP/1.1 2",
            b"HTTP/1.1 20",
            b"HTTP/1.1 2045 X\r\n\r\n",
            b"HTTP/1.1 20 X\r\n\r\n",
            b"HTTP/2 200\r\n\r\n",
        ),
        *(
            b"220 smtp.example ESMTP\r\n",
            b"HTTP/1.1 099 X\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n",
        ),
        *(b"HTTP/1.1 100 Continue\r\n\r\ngarbage\r\n", b"HTTP/1.1 103 X\r\nContent-Length: 5\r\n\r\nHTTP/1.1 2"),
    ],
)
async def test_without_a_status_nothing_is_known(sender: HttpSender, answer: bytes) -> None:
    """Nothing that looks nearly like one is taken for one, nor the status of the request before."""
    async with providing(lambda number: [OK] if number == 1 else [answer, CLOSE]) as provider, asyncio.timeout(2):
        assert await sender.send(put(provider.port), 5.0, yes) == HttpResponse(204, {}, b"")
        got = await sender.send(put(provider.port), 5.0, yes)
    assert isinstance(got, Fault)
    assert got.sent
    assert {request.connection for request in provider.seen} == {1}


# --- what never ends ---

ENDLESS: dict[str, tuple[bytes, bytes, int | None]] = {
    "empty lines": (b"", b"\r\n", None),
    "reason": (b"HTTP/1.1 204 ", b"x", 204),
    "header": (b"HTTP/1.1 204 No Content\r\nX: ", b"x", 204),
    "name": (b"HTTP/1.1 409 No\r\n", b"x", 409),
    "headers": (b"HTTP/1.1 204 No Content\r\n", b"X: y\r\n", 204),
    "interim answers": (b"", b"HTTP/1.1 102 Processing\r\n\r\n", None),
    "body": (b"HTTP/1.1 200 OK\r\n\r\n", b"x", 200),
    "chunks": (b"HTTP/1.1 200 OK\r\n" + CHUNKED, b"1\r\nx\r\n", 200),
    "size of a chunk": (b"HTTP/1.1 200 OK\r\n" + CHUNKED, b"0", 200),
    "extension of a chunk": (b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"1;", b"x", 200),
    "trailers": (b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"0\r\n", b"X: y\r\n", 200),
    "trailer": (b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"0\r\nX: ", b"x", 200),
}


def check(got: HttpResponse | Fault, status: int | None) -> None:
    """The status if it came, otherwise nothing but that the request went out."""
    if status is None:
        assert isinstance(got, Fault)
        assert got.sent
    else:
        assert isinstance(got, HttpResponse)
        assert got.status == status
        assert len(got.body) <= BODY_MAX_BYTES


@pytest.mark.parametrize("name", ENDLESS)
async def test_flood_is_bounded(sender: HttpSender, name: str) -> None:
    """As much as the network carries is not read for as long as the deadline allows."""
    begin, flood, status = ENDLESS[name]
    piece = flood * (16_384 // len(flood))

    def answer(_: int) -> Iterator[Part]:
        yield begin
        for _ in range(10_000):
            yield piece

    tracemalloc.start()
    try:
        async with providing(answer) as provider, asyncio.timeout(4):
            got = await sender.send(put(provider.port), 5.0, yes)
            await provider.ended.wait()
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    check(got, status)
    assert provider.sent_bytes < 20_000_000


@pytest.mark.parametrize("name", ENDLESS)
async def test_trickle_ends_with_the_deadline(sender: HttpSender, name: str) -> None:
    """A little now and then holds nobody longer than silence would."""
    begin, trickle, status = ENDLESS[name]

    def answer(_: int) -> Iterator[Part]:
        yield begin
        while True:
            yield from (trickle, 0.02)

    async with providing(answer) as provider:
        began = asyncio.get_running_loop().time()
        got = await sender.send(put(provider.port), 0.2, yes)
        assert 0.19 <= asyncio.get_running_loop().time() - began < 1  # uvloop counts milliseconds
        await asyncio.wait_for(provider.ended.wait(), 1)
    check(got, status)
