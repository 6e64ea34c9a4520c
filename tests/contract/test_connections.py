"""Which connection a request takes, for how long, and what is tried when one does not come about. On both loops."""

import asyncio
import errno
import os
import resource
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tests.contract.provider import CLOSE, OK, Part, Provider, providing, put, yes
from worker.model.exchange import Fault, HttpResponse
from worker.providers.sequra.options import SequraAccount
from worker.publisher.connections import AddressInfo, Limits
from worker.publisher.sender import HttpSender

BOTH_LOOPS = True

NAME = "provider.example"


class Names:
    """The addresses of names, as a test wants them; counts who asked."""

    def __init__(self, *addresses: tuple[str, int]) -> None:
        self.addresses = list(addresses)
        self.asked: Counter[str] = Counter()

    async def look_up(self, host: str, _port: int) -> list[AddressInfo]:
        """As `getaddrinfo`."""
        self.asked[host] += 1
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, there))
            for address, there in self.addresses
        ]


@asynccontextmanager
async def sending(**options: Any) -> AsyncIterator[HttpSender]:
    """A sender with these options."""
    sender = HttpSender(**{"deadline_s": 5.0, "user_agent": "x", **options})
    try:
        yield sender
    finally:
        await sender.close()


def answering(status: int, *headers: bytes) -> list[Part]:
    """An answer without a body."""
    return [b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n" % status + b"".join(h + b"\r\n" for h in headers) + b"\r\n"]


def connections(provider: Provider) -> list[int]:
    """Which connection each request took."""
    return [request.connection for request in provider.seen]


async def ends(provider: Provider, within_s: float) -> None:
    """Until a connection has ended."""
    await asyncio.wait_for(provider.ended.wait(), within_s)


# --- how long a connection is used ---


async def test_busy_connection_follows_the_name() -> None:
    """Requests without a pause reach the new address as soon as the connection is too old, and the old one no more."""
    names = Names()
    async with (
        providing() as old,
        providing() as new,
        sending(limits=Limits(age_max_s=0.2, name_s=0.05), look_up=names.look_up) as sender,
    ):
        names.addresses = [("127.0.0.1", old.port)]
        for _ in range(3):
            await sender.send(put(1, host=NAME), 5.0, yes)
        assert connections(old) == [1, 1, 1]
        names.addresses = [("127.0.0.1", new.port)]
        loop = asyncio.get_running_loop()
        moved_at = loop.time()
        while not new.seen:
            assert loop.time() - moved_at < 1
            assert await sender.send(put(1, host=NAME), 5.0, yes) == HttpResponse(204, {}, b"")
        await ends(old, 1)
        told = len(old.seen)
        await sender.send(put(1, host=NAME), 5.0, yes)
        assert (len(old.seen), len(new.seen)) == (told, 2)


@pytest.mark.parametrize("status", [421, 500, 502, 503, 504, 599])
async def test_connection_ends_with_such_an_answer(status: int) -> None:
    """A site that was drained says so on the connections that it has kept."""
    async with providing(lambda _: answering(status)) as provider, sending() as sender:
        await sender.send(put(provider.port), 5.0, yes)
        await ends(provider, 1)
        await sender.send(put(provider.port), 5.0, yes)
    assert len(set(connections(provider))) == len(provider.seen)


@pytest.mark.parametrize("status", [200, 302, 401, 404, 407, 409, 422, 429])
async def test_connection_goes_on_after_others(status: int) -> None:
    """They say nothing about the way there."""
    async with providing(lambda _: answering(status)) as provider, sending() as sender:
        for _ in range(2):
            await sender.send(put(provider.port), 5.0, yes)
    assert connections(provider) == ([1, 2] if status == 407 else [1, 1])


@pytest.mark.parametrize(
    ("said", "kept_s"),
    [
        *(
            (b"Keep-Alive: timeout=1", 0.5),
            (b"Keep-Alive: Timeout=1, max=100", 0.5),
            (b"Keep-Alive: max=5,timeout=1", 0.5),
        ),
        *((b"X: y", 0.8), (b"Keep-Alive: timeout=60", 0.8), (b"Keep-Alive: timeout=x", 0.8), (b"Keep-Alive: y", 0.8)),
        (b"Keep-Alive: timeout=99999999999999999999", 0.8),
    ],
)
async def test_idle_connection_is_closed_before_the_provider_does(said: bytes, kept_s: float) -> None:
    """By half of what it says, and after our own limit in any case; until then it is used again."""
    async with providing(lambda _: answering(200, said)) as provider, sending(limits=Limits(idle_max_s=0.8)) as sender:
        for _ in range(2):
            await sender.send(put(provider.port), 5.0, yes)
        await asyncio.sleep(kept_s - 0.25)
        assert provider.open == 1
        await ends(provider, 0.6)
    assert connections(provider) == [1, 1]


async def test_connection_that_the_provider_does_not_keep() -> None:
    """`timeout=0` is as good as `Connection: close`."""
    async with providing(lambda _: answering(200, b"Keep-Alive: timeout=0")) as provider, sending() as sender:
        await sender.send(put(provider.port), 5.0, yes)
        await ends(provider, 0.3)


async def test_connection_that_has_ended_is_not_used() -> None:
    """The provider closed it while it waited: the next request takes another, and is sent once."""
    async with providing(lambda n: [OK, CLOSE] if n == 1 else [OK]) as provider, sending() as sender:
        await sender.send(put(provider.port), 5.0, yes)
        await ends(provider, 1)
        await asyncio.sleep(0.05)
        assert await sender.send(put(provider.port), 5.0, yes) == HttpResponse(204, {}, b"")
    assert connections(provider) == [1, 2]


async def test_idle_connections_are_bounded_over_all_accounts() -> None:
    """Whatever the accounts have had under way."""
    together = asyncio.Event()

    def answer(number: int) -> Iterator[Part]:
        if number == 12:
            together.set()
        yield 0.1
        yield OK

    async with providing(answer) as one, providing(answer) as two, sending(limits=Limits(idle_max=3)) as sender:
        requests = [put((one, two)[n % 2].port, account=("a", "b", "c")[n % 3]) for n in range(12)]
        answers = await asyncio.gather(*(sender.send(request, 5.0, yes) for request in requests))
        assert answers == [HttpResponse(204, {}, b"")] * 12
        assert one.connections + two.connections == 12
        await asyncio.sleep(0.1)
        assert one.open + two.open == 3


async def test_accounts_share_connections_where_their_routes_are_one() -> None:
    """A request has its credentials in itself, so accounts differ by their certificates and proxies alone."""
    behind = {name: SequraAccount(name, "sequra", "http://x", name, "u", "p", proxy="") for name in ("a", "b")}
    async with providing() as provider, providing() as proxy, sending(accounts=behind) as sender:
        for account in ("a", "b", "a", "b"):
            await sender.send(put(provider.port, account=account), 5.0, yes)
        through = f"http://127.0.0.1:{proxy.port}"
        await sender.reload(behind | {"b": replace(behind["b"], proxy=through)})
        for account in ("a", "b", "a", "b"):
            await sender.send(put(provider.port, account=account), 5.0, yes)
    assert connections(provider) == [1, 1, 1, 1, 2, 2]
    assert connections(proxy) == [1, 1]


# --- names and addresses ---


async def test_name_is_looked_up_once_for_all_who_wait() -> None:
    """And its addresses are forgotten soon; a failure at once."""
    names = Names()
    limits = Limits(name_s=0.1, age_max_s=0.0)
    async with providing() as provider, sending(limits=limits, look_up=names.look_up) as sender:
        answer = await sender.send(put(1, host=NAME), 5.0, yes)
        assert answer == Fault(False, "no connection: Name or service not known")
        names.addresses = [("127.0.0.1", provider.port)]
        for _ in range(3):
            answers = await asyncio.gather(*(sender.send(put(1, host=NAME), 5.0, yes) for _ in range(5)))
            assert answers == [HttpResponse(204, {}, b"")] * 5
        assert names.asked[NAME] == 2
        await asyncio.sleep(0.15)
        await sender.send(put(1, host=NAME), 5.0, yes)
        assert names.asked[NAME] == 3


async def test_lookup_that_hangs_ends_with_the_deadline() -> None:
    """Those who come later wait with it, instead of asking again."""
    asked = 0

    async def look_up(host: str, port: int) -> list[AddressInfo]:
        nonlocal asked
        asked += 1
        await asyncio.sleep(60)
        return []

    async with sending(look_up=look_up) as sender:
        for _ in range(2):
            assert await sender.send(put(1, host=NAME), 0.05, yes) == Fault(False, "no connection within 0.05 s")
    assert asked == 1


@contextmanager
def swallowing() -> Iterator[tuple[str, int]]:
    """An address where nobody answers: its queue of connections is full."""
    with socket.create_server(("127.0.0.2", 0), backlog=0) as server:
        address = server.getsockname()
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        yield address
        for filler in fillers:
            filler.close()


def refusing() -> tuple[str, int]:
    """An address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address: tuple[str, int] = free.getsockname()
        return address


async def test_next_address_is_tried() -> None:
    """When one does not answer, beside it after a moment; when one refuses, at once."""
    with swallowing() as silent:
        async with providing() as provider:
            for dead in ([silent], [refusing()], [("::1", refusing()[1])], [silent, refusing()]):
                names = Names(*dead, ("127.0.0.1", provider.port))
                limits = Limits(next_address_s=0.05, age_max_s=0.0)
                async with sending(look_up=names.look_up, limits=limits) as sender, asyncio.timeout(1):
                    for _ in range(3):  # each time another address comes first
                        assert await sender.send(put(1, host=NAME), 5.0, yes) == HttpResponse(204, {}, b"")


async def test_no_address_answers() -> None:
    """The deadline covers them all, and nothing was sent."""
    with swallowing() as silent:
        async with sending(look_up=Names(silent, silent).look_up) as sender:
            began = asyncio.get_running_loop().time()
            assert await sender.send(put(1, host=NAME), 0.3, yes) == Fault(False, "no connection within 0.3 s")
            assert asyncio.get_running_loop().time() - began < 1


# --- once more, where nothing was processed ---


@pytest.mark.parametrize("is_kept", [False, True])
async def test_misdirected_request_is_sent_again(is_kept: bool) -> None:
    """421: once, on a new connection, with another look at the lease."""
    looks = 0

    def may_send() -> bool:
        nonlocal looks
        looks += 1
        return True

    wrong = 2 if is_kept else 1
    async with providing(lambda n: answering(421) if n == wrong else [OK]) as provider, sending() as sender:
        if is_kept:
            await sender.send(put(provider.port, "/before"), 5.0, yes)
        assert await sender.send(put(provider.port, "/x"), 5.0, may_send) == HttpResponse(204, {}, b"")
    sent = [request for request in provider.seen if "/x" in request.first]
    assert looks == len(sent) == 2
    assert sent[0].connection != sent[1].connection
    assert sent[0][1:] == sent[1][1:]


async def test_misdirected_twice_is_the_answer() -> None:
    """It is not tried for ever."""
    async with providing(lambda _: answering(421)) as provider, sending() as sender:
        answer = await sender.send(put(provider.port), 5.0, yes)
        assert isinstance(answer, HttpResponse)
        assert answer.status == 421
    assert connections(provider) == [1, 2]


async def test_lease_may_end_between_the_two() -> None:
    """Then it was not processed, and is not sent again."""
    async with providing(lambda _: answering(421)) as provider, sending() as sender:
        looks = iter([True, False])
        answer = await sender.send(put(provider.port), 5.0, lambda: next(looks))
        assert isinstance(answer, Fault)
        assert (answer.sent, len(provider.seen)) == (False, 1)


async def test_deadline_covers_both() -> None:
    """What the first has taken is gone; the second went out, so nothing is known."""

    def answer(number: int) -> Iterator[Part]:
        yield 0.2 if number == 1 else 60.0
        yield from answering(421)

    async with providing(answer) as provider, sending() as sender:
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await sender.send(put(provider.port), 0.4, yes) == Fault(True, "no response within 0.4 s")
        assert loop.time() - began < 0.58
        assert len(provider.seen) == 2


async def test_proxy_that_was_not_asked_for_is_not_believed() -> None:
    """407 without a proxy is an answer like any other."""
    async with providing(lambda _: answering(407)) as provider, sending() as sender:
        answer = await sender.send(put(provider.port), 5.0, yes)
        assert isinstance(answer, HttpResponse)
    assert len(provider.seen) == 1


# --- too few of everything ---


@contextmanager
def no_more_files() -> Iterator[None]:
    """Lets the process open no file any more but in the place of one that it closes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(each.name) for each in Path("/proc/self/fd").iterdir())
    fillers: list[int] = []
    while not fillers or fillers[-1] < highest:
        fillers.append(os.open("/dev/null", os.O_RDONLY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (fillers[-1] + 1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for filler in fillers:
            os.close(filler)


async def test_too_many_open_files() -> None:
    """Nothing was sent, what others keep is closed, and so the next attempt finds room."""
    async with AsyncExitStack() as stack:
        kept, wanted = [await stack.enter_async_context(providing()) for _ in range(2)]
        sender = await stack.enter_async_context(sending())
        await asyncio.gather(*(sender.send(put(kept.port), 5.0, yes) for _ in range(4)))
        assert kept.open == 4
        with no_more_files():
            answer = await sender.send(put(wanted.port), 5.0, yes)
            assert answer == Fault(False, f"no connection: {os.strerror(errno.EMFILE)}")
            await asyncio.sleep(0.1)
            assert kept.open == 0
            assert await sender.send(put(wanted.port), 5.0, yes) == HttpResponse(204, {}, b"")


# --- what the loops promise ---


async def test_written_bytes_leave_at_once() -> None:
    """Both loops hand a request to the kernel before `transport.write` returns: nothing but a paused process comes
    between the last look at the lease and the bytes.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(asyncio.Protocol, *server.getsockname())
        peer, _ = server.accept()
        with peer:
            peer.settimeout(10)
            transport.write(b"x" * 4000)
            assert transport.get_write_buffer_size() == 0
            assert peer.recv(1) == b"x"
            transport.abort()
            await asyncio.sleep(0.05)


async def test_request_is_one_write_after_the_look() -> None:
    """No byte is there before the lease was looked at, and all of them are when nothing else has run since."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        peers: list[socket.socket] = []
        found: list[bytes] = []

        def may_send() -> bool:
            peers.append(server.accept()[0])
            peers[0].setblocking(False)
            with pytest.raises(BlockingIOError):
                peers[0].recv(1)
            loop.call_soon(lambda: found.append(peers[0].recv(65_536)))
            return True

        loop = asyncio.get_running_loop()
        async with sending() as sender:
            request = put(server.getsockname()[1])
            answer = await sender.send(request, 0.1, may_send)
            assert answer == Fault(True, "no response within 0.1 s")
        peers[0].close()
    [whole] = found
    assert whole.startswith(b"PUT /x HTTP/1.1\r\n")
    assert whole.endswith(b"\r\n\r\n{}")
