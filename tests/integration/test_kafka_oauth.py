"""SASL OAUTHBEARER with a real Kafka: tokens of a provider on this machine, which the broker believes unsigned."""

import json
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import web
from msgspec.structs import replace

from tests.kafka_settings import settings_of
from worker import logs
from worker.errors import ConfigError, LogError
from worker.kafka.settings import KafkaSettings
from worker.kafka.state import KafkaStateLog
from worker.kafka.topics import create_topics
from worker.tools.kafka_ports import free_ports
from worker.tools.local_kafka import LocalKafka


def unsigned(subject: str, life_s: float) -> str:
    """A token as Kafka takes it where no keys are configured: a JSON Web Token without a signature."""
    now = time.time()
    parts = ({"alg": "none"}, {"sub": subject, "iat": now - 1, "exp": now + life_s})
    return ".".join(urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + "."


class Provider:
    """Gives tokens to whoever asks."""

    def __init__(self) -> None:
        self.life_s = 60.0
        self.given: list[str] = []
        self.status = 200
        self.url = ""

    async def handle(self, _request: web.Request) -> web.Response:
        if self.status != 200:
            return web.json_response({"error": "invalid_client"}, status=self.status)
        self.given.append(unsigned("cartsync", self.life_s))
        return web.json_response({"access_token": self.given[-1], "expires_in": max(1.0, self.life_s)})


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    """The provider, open."""
    found = Provider()
    app = web.Application()
    app.router.add_post("/token", found.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}/token"
    yield found
    await runner.cleanup()


@pytest.fixture(scope="module")
def guarded(kafka_jars: Path) -> Iterator[str]:
    """The address of a listener that wants tokens."""
    kafka = LocalKafka(jars=kafka_jars)
    (port,) = free_ports(1)
    plain, controller = kafka.bootstrap, kafka._controller_ports[1]
    kafka._settings |= {
        "listeners": f"CLIENTS://{plain},CONTROLLER://127.0.0.1:{controller},GUARDED://127.0.0.1:{port}",
        "listener.security.protocol.map": "CLIENTS:PLAINTEXT,CONTROLLER:PLAINTEXT,GUARDED:SASL_PLAINTEXT",
        "listener.name.guarded.sasl.enabled.mechanisms": "OAUTHBEARER",
        "listener.name.guarded.oauthbearer.sasl.jaas.config": (
            "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required "
            'unsecuredLoginStringClaim_sub="broker";'
        ),
    }
    with kafka:
        yield f"127.0.0.1:{port}"


@pytest.fixture
def settings(guarded: str, provider: Provider) -> KafkaSettings:
    """Settings that the listener accepts."""
    return settings_of(
        guarded,
        connect_timeout_s=3.0,
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="OAUTHBEARER",
        oauth_token_url=provider.url,
        oauth_client_id="cartsync",
        oauth_client_secret="s3cr3t-99",
    )


async def test_a_token_opens_every_connection(settings: KafkaSettings, provider: Provider) -> None:
    """Topics are made and a transaction is written; one token serves all connections of a client, and is not logged."""
    lines: list[str] = []
    with logs.capture(lines):
        await create_topics(settings, 1)
        states = KafkaStateLog(settings)
        await states.start()
        hold = states.partition(0)
        before = len(provider.given)
        try:
            await hold.fence()
            last = await hold.write([(b"a", b"1")])
            assert [entry.value async for entries in hold.read(0, last) for entry in entries] == [b"1"]
        finally:
            await hold.close()
    assert 1 <= before <= len(provider.given) <= before + 1
    text = "".join(lines)
    assert lines
    assert "s3cr3t-99" not in text
    assert not [token for token in provider.given if token in text]


async def test_client_that_the_provider_refuses(settings: KafkaSettings, provider: Provider) -> None:
    """Wrong client credentials are the operator's error, in words that name the settings."""
    provider.status = 401
    with pytest.raises(ConfigError, match=r"invalid_client.*check oauth_client_id, oauth_client_secret") as caught:
        await KafkaStateLog(settings).start()
    assert "s3cr3t-99" not in str(caught.value)


async def test_provider_that_is_away(settings: KafkaSettings, provider: Provider) -> None:
    """A provider that does not work now may do so later."""
    provider.status = 503
    with pytest.raises(LogError, match=r"no token from .*status 503"):
        await KafkaStateLog(replace(settings, connect_timeout_s=0.5)).start()


async def test_token_that_the_broker_refuses(settings: KafkaSettings, provider: Provider) -> None:
    """A token that the broker does not believe is told as refused credentials."""
    provider.life_s = -600.0
    with pytest.raises(ConfigError, match="rejects OAUTHBEARER as 'cartsync'"):
        await KafkaStateLog(replace(settings, connect_timeout_s=0.5)).start()
