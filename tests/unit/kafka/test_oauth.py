"""Tokens for Kafka: how they are got, kept and renewed, and what is said when there is none."""

import asyncio
import json
from base64 import b64decode
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web

from worker.errors import ConfigError
from worker.kafka import oauth
from worker.kafka.oauth import Token, TokenError, Tokens, tokens_of
from worker.kafka.settings import KafkaSettings

SECRET = "s3cr3t:99 ñ"


class Endpoint:
    """A provider of tokens on this machine."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.answer: tuple[int, bytes] = (200, b'{"access_token":"abc.def","expires_in":3600,"token_type":"Bearer"}')
        self.parts = 0
        """In so many parts it is sent; 0: as a whole."""
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.asked.append((request.headers["Authorization"], form))
        await self.goes_on.wait()
        status, body = self.answer
        if not self.parts:
            return web.Response(status=status, body=body, headers={"Location": self.url})
        response = web.StreamResponse()
        await response.prepare(request)
        for start in range(0, len(body), size := -(-len(body) // self.parts)):
            await response.write(body[start : start + size])
            await asyncio.sleep(0.02)
        return response


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    """The provider, open."""
    found = Endpoint()
    app = web.Application()
    app.router.add_post("/token", found.handle)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}/token"
    yield found
    await runner.cleanup()


def settings_of(url: str, **more: str) -> KafkaSettings:
    """Settings with this provider."""
    return KafkaSettings(
        bootstrap_servers="kafka:9092",
        security_protocol="SASL_SSL",
        sasl_mechanism="OAUTHBEARER",
        oauth_token_url=url,
        oauth_client_id="cart/sync",
        oauth_client_secret=SECRET,
        oauth_extensions={"logicalCluster": "lkc-1"},
        **more,  # type: ignore[arg-type]
    )


def tokens_from(url: str, **more: str) -> Tokens:
    """Tokens of this provider."""
    found = tokens_of(settings_of(url, **more))
    assert found is not None
    return found


async def test_client_credentials(endpoint: Endpoint) -> None:
    """The request is that of RFC 6749 section 4.4; the extensions go to the broker."""
    tokens = tokens_from(endpoint.url, oauth_scope="kafka.write", oauth_audience="https://kafka")
    assert await tokens.token() == "abc.def"
    ((authorization, form),) = endpoint.asked
    assert form == {"grant_type": "client_credentials", "scope": "kafka.write", "audience": "https://kafka"}
    scheme, _, credentials = authorization.partition(" ")
    assert (scheme, b64decode(credentials)) == ("Basic", b"cart%2Fsync:s3cr3t%3A99+%C3%B1")
    assert tokens.extensions() == {"logicalCluster": "lkc-1"}


@pytest.mark.parametrize(
    ("status", "body", "refused", "said"),
    [
        (
            401,
            b'{"error":"invalid_client","error_description":"s3cr3t:99"}',
            True,
            "(invalid_client): check oauth_client_id",
        ),
        (400, b'{"error":"unauthorized s3cr3t"}', True, "(status 400)"),
        (403, b"<html>", True, "(status 403)"),
        (500, b"", False, "status 500"),
        (302, b"", False, "status 302"),
        (200, b"<html>", False, "not OAuth 2.0"),
        (200, b"[1]", False, "not OAuth 2.0"),
        (200, b'{"access_token":7}', False, "not OAuth 2.0"),
        (200, b'{"access_token":"a b","expires_in":1}', False, "not OAuth 2.0"),
        (200, b'{"access_token":"a","expires_in":"soon"}', False, "not OAuth 2.0"),
        (200, b'{"access_token":"a","expires_in":0}', False, "not OAuth 2.0"),
        (200, b'{"access_token":"a","expires_in":NaN}', False, "not OAuth 2.0"),
        (200, b"[" * 60_000, False, "not OAuth 2.0"),
    ],
)
async def test_refusals(endpoint: Endpoint, status: int, body: bytes, refused: bool, said: str) -> None:
    """What the operator has to mend is told from what passes; nothing of the provider's text is repeated."""
    endpoint.answer = status, body
    with pytest.raises(TokenError) as caught:
        await tokens_from(endpoint.url).token()
    assert (caught.value.refused, said in str(caught.value)) == (refused, True)
    assert "s3cr3t" not in str(caught.value)
    assert len(endpoint.asked) == 1


async def test_answer_in_parts(endpoint: Endpoint) -> None:
    """A token may be larger than a packet; one that goes on for ever is cut."""
    endpoint.parts = 3
    assert await tokens_from(endpoint.url).token() == "abc.def"
    endpoint.answer = (200, b'{"access_token":"' + b"x" * 100_000 + b'"}')
    with pytest.raises(TokenError, match="not OAuth"):
        await tokens_from(endpoint.url).token()


async def test_provider_that_hangs(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not waited for."""
    monkeypatch.setattr(oauth, "FETCH_WITHIN_S", 0.05)
    endpoint.goes_on.clear()
    with pytest.raises(TokenError, match=r"no token from .*Timeout"):
        await tokens_from(endpoint.url).token()
    endpoint.goes_on.set()


async def test_nobody_there() -> None:
    """Nor is one that is not there."""
    with pytest.raises(TokenError, match=r"no token from http://127\.0\.0\.1:1/token: ClientConnectorError"):
        await tokens_from("http://127.0.0.1:1/token").token()


async def test_life_that_is_a_text_or_is_not_told(endpoint: Endpoint) -> None:
    """Some providers write a text, some nothing."""
    for answer in ({"expires_in": "60"}, {}):
        endpoint.answer = 200, json.dumps({"access_token": "a"} | answer).encode()
        assert await tokens_from(endpoint.url).token() == "a"


def test_certificate_authority_that_is_not_there() -> None:
    """A file that cannot be read is the operator's error, before anything is asked."""
    with pytest.raises(ConfigError, match="oauth_ca_file"):
        tokens_from("https://login.example", oauth_ca_file="/nowhere.pem")


class Source:
    """Gives tokens, numbered, each for 100 s."""

    def __init__(self) -> None:
        self.now = 0.0
        self.count = 0
        self.fails: TokenError | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def fetch(self) -> Token:
        self.count += 1
        count = self.count
        await self.gate.wait()
        if self.fails is not None:
            raise self.fails
        return Token(f"t{count}", 100.0)

    def clock(self) -> Callable[[], float]:
        return lambda: self.now


async def test_renewed_before_it_ends() -> None:
    """A token is kept for most of its life; nobody connects with one that is about to end."""
    source = Source()
    tokens = Tokens(source.fetch, now=source.clock())
    found = []
    for source.now in (0.0, 79.0, 81.0, 160.0, 162.0):
        found.append(await tokens.token())
    assert found == ["t1", "t1", "t2", "t2", "t3"]


async def test_one_request_for_all_who_ask() -> None:
    """However many connections are made at once, one token is asked for, also when one of them gives up."""
    source = Source()
    source.gate.clear()
    tokens = Tokens(source.fetch, now=source.clock())
    asking = [asyncio.create_task(tokens.token()) for _ in range(20)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asking.pop(0).cancel()
    source.gate.set()
    assert set(await asyncio.gather(*asking)) == {"t1"}
    assert source.count == 1


async def test_old_one_serves_while_it_is_valid() -> None:
    """A provider that is away for a while stops nobody from connecting, until the old token is over."""
    source = Source()
    tokens = Tokens(source.fetch, now=source.clock())
    await tokens.token()
    source.fails = TokenError("no token")
    source.now = 90.0
    assert await tokens.token() == "t1"
    source.now = 100.0
    with pytest.raises(TokenError):
        await tokens.token()
    source.fails = None
    assert await tokens.token() == "t4"


def test_other_mechanisms_need_none() -> None:
    """Who has a password needs no token."""
    assert tokens_of(KafkaSettings(bootstrap_servers="kafka:9092")) is None
