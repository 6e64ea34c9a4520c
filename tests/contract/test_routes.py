"""Certificates and proxies by account, against real TLS and a real proxy. On both loops."""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.contract.provider import OK, Provider, listening, providing, put, read_request, yes
from worker.app import Ports, Worker
from worker.app.clock import SystemClock
from worker.app.run import Reread
from worker.config import Config
from worker.errors import ConfigError
from worker.metrics import Metrics
from worker.model.account import Account
from worker.model.exchange import Fault, HttpResponse
from worker.providers.sequra.options import SequraAccount
from worker.publisher.sender import HttpSender
from worker.sim.log import MemoryLog
from worker.web.private_port import PrivatePort

BOTH_LOOPS = True

NO_CONTENT = HttpResponse(204, {}, b"")


def account(**members: Any) -> Account:
    """An account called a."""
    return SequraAccount("a", "sequra", "https://x", "acme", "user", "secret", **members)


@asynccontextmanager
async def sending(**members: Any) -> AsyncIterator[HttpSender]:
    """A sender for an account with these members."""
    sender = HttpSender(deadline_s=5.0, user_agent="x", accounts={"a": account(**members)})
    try:
        yield sender
    finally:
        await sender.close()


def server_context(ca: trustme.CA, *names: str) -> ssl.SSLContext:
    """A server's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*(names or ("localhost", "127.0.0.1"))).configure_cert(context)
    return context


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    """A private authority."""
    return trustme.CA()


@pytest.fixture
def ca_file(ca: trustme.CA, tmp_path: Path) -> Path:
    """Its certificate."""
    file = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(file))
    return file


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_private_authority(ca: trustme.CA, ca_file: Path, host: str) -> None:
    """It is trusted by the account that names it, and by no other."""
    async with providing(tls=server_context(ca)) as provider, sending(tls_ca_file=str(ca_file)) as sender:
        for _ in range(2):
            answer = await sender.send(put(provider.port, scheme="https", host=host, account="a"), 5.0, yes)
            assert answer == NO_CONTENT
        refused = await sender.send(put(provider.port, scheme="https", host=host), 5.0, yes)
        assert isinstance(refused, Fault)
        assert not refused.sent
        assert "certificate verify failed" in refused.detail
    assert [request.connection for request in provider.seen] == [1, 1]


async def test_name_is_verified(ca: trustme.CA, ca_file: Path) -> None:
    """A certificate of the right authority for another server is of no use."""
    async with (
        providing(tls=server_context(ca, "other.example")) as provider,
        sending(tls_ca_file=str(ca_file)) as sender,
    ):
        answer = await sender.send(put(provider.port, scheme="https", account="a"), 5.0, yes)
    assert isinstance(answer, Fault)
    assert not answer.sent
    assert "certificate" in answer.detail
    assert provider.seen == []


async def test_private_authority_stands_alone(ca_file: Path) -> None:
    """What the system trusts is not trusted beside it."""
    async with sending(tls_ca_file=str(ca_file)) as sender:
        route = sender._routes["a"]
        assert route.tls is not None
        assert len(route.tls.get_ca_certs()) == 1


async def test_client_certificate(ca: trustme.CA, ca_file: Path, tmp_path: Path) -> None:
    """A server that wants one gets it."""
    context = server_context(ca)
    context.verify_mode = ssl.CERT_REQUIRED
    ca.configure_trust(context)
    client = ca.issue_cert("client.example")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    client.cert_chain_pems[0].write_to_path(str(cert))
    client.private_key_pem.write_to_path(str(key))
    files = {"tls_ca_file": str(ca_file), "tls_cert_file": str(cert), "tls_key_file": str(key)}
    async with providing(tls=context) as provider:
        async with sending(**files) as sender:
            assert await sender.send(put(provider.port, scheme="https", account="a"), 5.0, yes) == NO_CONTENT
        async with sending(tls_ca_file=str(ca_file)) as sender:
            assert isinstance(await sender.send(put(provider.port, scheme="https", account="a"), 5.0, yes), Fault)


async def test_authority_is_replaced_on_disk(ca: trustme.CA, ca_file: Path) -> None:
    """`reload` picks it up, also for what is connected; what is under way goes on; a mistake changes nothing."""
    new, nonsense = trustme.CA(), trustme.Blob(b"nonsense")
    under_way = asyncio.Event()

    def answer(number: int) -> Any:
        if number == 2:
            under_way.set()
            yield 0.2
        yield OK

    request = {"scheme": "https", "account": "a"}
    accounts = {"a": account(tls_ca_file=str(ca_file))}
    async with (
        providing(answer, tls=server_context(ca)) as old_provider,
        providing(tls=server_context(new)) as new_provider,
        sending(tls_ca_file=str(ca_file)) as sender,
    ):
        assert await sender.send(put(old_provider.port, **request), 5.0, yes) == NO_CONTENT
        nonsense.write_to_path(str(ca_file))
        with pytest.raises(ConfigError, match=r"\[accounts.a\] tls_ca_file = .*ca.pem'"):
            await sender.reload(accounts)
        sending_late = asyncio.create_task(sender.send(put(old_provider.port, **request), 5.0, yes))
        await under_way.wait()
        new.cert_pem.write_to_path(str(ca_file))
        await sender.reload(accounts)
        assert await sending_late == NO_CONTENT
        assert [seen.connection for seen in old_provider.seen] == [1, 1]
        refused = await sender.send(put(old_provider.port, **request), 5.0, yes)
        assert isinstance(refused, Fault)
        assert not refused.sent
        assert await sender.send(put(new_provider.port, **request), 5.0, yes) == NO_CONTENT


async def test_configuration_is_read_again(ca: trustme.CA, ca_file: Path, tmp_path: Path) -> None:
    """What SIGHUP has read: a certificate replaced on disk, and another file, hold for the next request; an account
    whose change waits for a restart keeps its own.
    """
    new, other_file = trustme.CA(), tmp_path / "other.pem"
    new.cert_pem.write_to_path(str(other_file))
    file = tmp_path / "cartsync.toml"

    def write(tls_ca_file: Path, base_url: str = "https://x.example") -> None:
        text = '[kafka]\nbootstrap_servers = "127.0.0.1:1"\n[accounts.a]\nprovider = "sequra"\nmerchant_id = "m"\n'
        text += f'base_url = "{base_url}"\nusername = "u"\npassword = "p"\ntls_ca_file = "{tls_ca_file}"\n'
        file.write_text(text)

    def read() -> Config:
        return Config.load(file, environ={})

    write(ca_file)
    config, clock = read(), SystemClock()
    accounts = config.merchant_accounts()
    log = MemoryLog(1, clock)
    sender = HttpSender(deadline_s=5.0, user_agent="x", accounts=accounts)
    ports = Ports(clock, log.events("w"), log.states("w"), sender)
    worker = Worker(config.worker, accounts, ports, owner_id="w", metrics=Metrics())
    reread = Reread(config, read, worker, PrivatePort(worker), sender)
    try:
        async with providing(tls=server_context(ca)) as before, providing(tls=server_context(new)) as after:

            async def is_trusted(provider: Provider) -> bool:
                request = put(provider.port, scheme="https", account="a")
                return await sender.send(request, 5.0, yes) == NO_CONTENT

            assert (await is_trusted(before), await is_trusted(after)) == (True, False)
            new.cert_pem.write_to_path(str(ca_file))
            await reread()
            assert (await is_trusted(before), await is_trusted(after)) == (False, True)
            ca.cert_pem.write_to_path(str(ca_file))
            write(other_file)
            await reread()
            assert (await is_trusted(before), await is_trusted(after)) == (False, True)
            write(ca_file, base_url="https://elsewhere.example")
            await reread()
            assert (await is_trusted(before), await is_trusted(after)) == (False, True)
            write(ca_file)
            await reread()
            assert (await is_trusted(before), await is_trusted(after)) == (True, False)
    finally:
        await sender.close()


async def test_handshake_ends_with_the_deadline(ca_file: Path) -> None:
    """A server that takes the connection and says nothing more."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while await reader.read(1_000):
                pass
        ended.set()

    ended = asyncio.Event()
    async with listening(silent) as port, sending(tls_ca_file=str(ca_file)) as sender:
        answer = await sender.send(put(port, scheme="https", account="a"), 0.1, yes)
        assert answer == Fault(False, "no connection within 0.1 s")
        await asyncio.wait_for(ended.wait(), 1)


# --- proxies ---


class Proxy:
    """Lets through what its list of statuses says, then everything; remembers what it was asked."""

    def __init__(self, *statuses: int) -> None:
        self._statuses = list(statuses)
        self.asked: list[str] = []
        self.authorizations: list[str | None] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        request = await read_request(reader, 0)
        self.asked.append(request.first)
        self.authorizations.append(request.headers.get("proxy-authorization"))
        status = self._statuses.pop(0) if self._statuses else 200
        if status != 200:
            writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)
            await writer.drain()
            writer.close()
            return
        host, _, port = request.first.split(" ")[1].rpartition(":")
        there, onward = await asyncio.open_connection(host.strip("[]"), int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n")
        await asyncio.gather(_pump(reader, onward), _pump(there, writer))


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65_536):
            target.write(data)
    except OSError:
        pass
    finally:
        target.close()


def login(user: str, password: str) -> str:
    """The header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


async def test_tunnel(ca: trustme.CA, ca_file: Path) -> None:
    """The proxy is asked for a way to the provider, with its credentials; the provider is verified through it."""
    proxy = Proxy()
    async with providing(tls=server_context(ca)) as provider, listening(proxy.serve) as port:
        url = f"http://user:p%40ss@127.0.0.1:{port}"
        async with sending(tls_ca_file=str(ca_file), proxy=url) as sender:
            for _ in range(2):
                answer = await sender.send(put(provider.port, scheme="https", host="localhost", account="a"), 5.0, yes)
                assert answer == NO_CONTENT
        assert proxy.asked == [f"CONNECT localhost:{provider.port} HTTP/1.1"]
        assert proxy.authorizations == [login("user", "p@ss")]
        assert "proxy-authorization" not in provider.seen[0].headers
        async with sending(proxy=url) as sender:
            refused = await sender.send(put(provider.port, scheme="https", account="a"), 5.0, yes)
            assert isinstance(refused, Fault)
            assert not refused.sent
            assert "certificate verify failed" in refused.detail
    assert len(provider.seen) == 2


async def test_clear_text_goes_to_the_proxy_itself() -> None:
    """It is told the whole address, and gets its credentials."""
    async with providing() as proxy, sending(proxy=f"http://user:pass@127.0.0.1:{proxy.port}") as sender:
        assert await sender.send(put(1, "/merchants/a%2Fb", account="a"), 5.0, yes) == NO_CONTENT
    [seen] = proxy.seen
    assert seen.first == "PUT http://127.0.0.1:1/merchants/a%2Fb HTTP/1.1"
    assert seen.headers["host"] == "127.0.0.1:1"
    assert seen.headers["proxy-authorization"] == login("user", "pass")


@pytest.mark.parametrize(
    ("statuses", "asked", "expected"),
    [
        ((407,), 2, NO_CONTENT),
        ((407, 407), 2, Fault(False, "no connection: the proxy responded 407")),
        ((502,), 1, Fault(False, "no connection: the proxy responded 502")),
        ((403,), 1, Fault(False, "no connection: the proxy responded 403")),
    ],
)
async def test_proxy_refuses(
    ca: trustme.CA, ca_file: Path, statuses: tuple[int, ...], asked: int, expected: HttpResponse | Fault
) -> None:
    """407 once more on a new connection, anything else not; nothing was sent."""
    proxy = Proxy(*statuses)
    async with (
        providing(tls=server_context(ca)) as provider,
        listening(proxy.serve) as port,
        sending(tls_ca_file=str(ca_file), proxy=f"http://127.0.0.1:{port}") as sender,
    ):
        assert await sender.send(put(provider.port, scheme="https", account="a"), 5.0, yes) == expected
    assert len(proxy.asked) == asked
    assert proxy.authorizations == [None] * asked


async def test_proxy_of_clear_text_refuses() -> None:
    """Its 407 says that the request went no further: once more, with another look at the lease."""
    looks = iter([True, True])
    refusal = b"HTTP/1.1 407 X\r\nContent-Length: 0\r\n\r\n"
    async with (
        providing(lambda number: [refusal] if number == 1 else [OK]) as proxy,
        sending(proxy=f"http://127.0.0.1:{proxy.port}") as sender,
    ):
        assert await sender.send(put(1, account="a"), 5.0, lambda: next(looks)) == NO_CONTENT
    assert [seen.connection for seen in proxy.seen] == [1, 2]
    assert list(looks) == []


@pytest.mark.parametrize(
    ("said", "detail"),
    [
        (b"", "no connection within 0.2 s"),
        (b"HTTP/1.1 200 X\r\n", "no connection within 0.2 s"),
        (b"HTTP/1.1 200 X\r\nX: " + b"x" * 100_000, "no connection: the proxy responded 200"),
        (b"SSH-2.0-x\r\n\r\n", "no connection: the proxy's response is not HTTP"),
        (b"HTTP/1.1 2000 X\r\n\r\n", "no connection: the proxy's response is not HTTP"),
    ],
)
async def test_proxy_that_is_none(said: bytes, detail: str) -> None:
    """Whatever it says or does not, the deadline holds, and nothing was sent."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader, 0)
        writer.write(said)
        await reader.read()
        writer.close()

    async with listening(serve) as port, sending(proxy=f"http://127.0.0.1:{port}") as sender:
        assert await sender.send(put(1, scheme="https", account="a"), 0.2, yes) == Fault(False, detail)


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is configured is what happens."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
        monkeypatch.setenv(name.lower(), "http://127.0.0.1:1")
    async with providing() as provider, sending() as sender:
        assert await sender.send(put(provider.port, account="a"), 5.0, yes) == NO_CONTENT
