"""Tokens for SASL OAUTHBEARER: from an OpenID Connect provider for client credentials, or signed for Amazon MSK.

The client library asks for a token whenever it connects. Concurrent callers share one request; a token is renewed when
most of its lifetime is over, and if that fails the old one is used while it is valid.
"""

import asyncio
import json
import re
import ssl
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable
from urllib.parse import quote_plus

import aiohttp
import structlog
from aiokafka import errors as kafka_errors
from aiokafka.abc import AbstractTokenProvider
from msgspec import Struct

from worker.errors import ConfigError
from worker.kafka.settings import KafkaSettings

log = structlog.get_logger(__name__)

FETCH_WITHIN_S = 5.0
"""Below the request timeout, because a broker is waiting for the token."""
_FRESH = 0.8
"""The part of its lifetime after which a token is renewed."""
_LIFE_S = 300.0
"""The lifetime of a token whose provider does not give one."""
_ANSWER_MAX_BYTES = 65_536
_ERROR_CODE = re.compile(r"[a-z_]{1,40}")
"""An error code of RFC 6749 section 5.2: no other text from the provider is shown."""


class TokenError(kafka_errors.KafkaError):  # type: ignore[misc]  # the library has no types
    """No token is available. A subclass of the library's error, because it handles no other exceptions."""

    def __init__(self, text: str, *, refused: bool = False) -> None:
        """`refused`: the provider rejected us, so a retry cannot help."""
        super().__init__(text)
        self.refused = refused


class Token(Struct, frozen=True):
    """A token and its lifetime."""

    value: str
    life_s: float


class Tokens(AbstractTokenProvider):  # type: ignore[misc]  # the library has no types
    """The client library's source of tokens."""

    def __init__(
        self,
        fetch: Callable[[], Awaitable[Token]],
        extensions: dict[str, str] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._extensions = extensions or {}
        self._now = now
        self._value = ""
        self._fresh_until = self._valid_until = 0.0
        self._fetching: asyncio.Task[None] | None = None

    async def token(self) -> str:
        """A token that is valid now. Raises `TokenError`."""
        if self._value and self._now() < self._fresh_until:
            return self._value
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.create_task(self._renew(), name="token")
            self._fetching.add_done_callback(_seen)  # in case all its waiters have given up
        await asyncio.shield(self._fetching)
        return self._value

    def extensions(self) -> dict[str, str]:
        """The SASL extensions to send along with the token."""
        return self._extensions

    async def _renew(self) -> None:
        try:
            token = await self._fetch()
        except TokenError as error:
            if self._now() >= self._valid_until:
                raise
            log.warning("token_not_renewed", error=str(error), left_s=round(self._valid_until - self._now()))
            return
        now = self._now()
        self._value = token.value
        self._fresh_until, self._valid_until = now + _FRESH * token.life_s, now + token.life_s


def _seen(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()


def tokens_of(settings: KafkaSettings) -> Tokens | None:
    """The token source for these settings; `None`: they need no tokens. Raises `ConfigError`."""
    match settings.sasl_mechanism:
        case "OAUTHBEARER":
            return Tokens(_from_provider(settings), settings.oauth_extensions)
        case "AWS_MSK_IAM":
            return Tokens(_signed_for_msk(settings.aws_region))
        case _:
            return None


def _from_provider(settings: KafkaSettings) -> Callable[[], Awaitable[Token]]:
    url = settings.oauth_token_url
    try:
        trusted = ssl.create_default_context(cafile=settings.oauth_ca_file or None)
    except (OSError, ValueError) as error:
        raise ConfigError(f"oauth_ca_file cannot be used ({type(error).__name__})") from error
    # RFC 6749 section 2.3.1: form-encoded first, then encoded for basic authentication.
    client = f"{quote_plus(settings.oauth_client_id)}:{quote_plus(settings.oauth_client_secret)}"
    headers = {"Authorization": f"Basic {b64encode(client.encode()).decode()}", "Accept": "application/json"}
    form = {"grant_type": "client_credentials", "scope": settings.oauth_scope, "audience": settings.oauth_audience}
    form = {name: value for name, value in form.items() if value}

    async def fetch() -> Token:
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=FETCH_WITHIN_S)) as session,
                session.post(url, data=form, headers=headers, ssl=trusted, allow_redirects=False) as response,
            ):
                body = b""
                while len(body) < _ANSWER_MAX_BYTES and (part := await response.content.read(_ANSWER_MAX_BYTES)):
                    body += part  # a read returns what has arrived so far
                return _read(response.status, body[:_ANSWER_MAX_BYTES], settings)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise TokenError(f"no token from {url}: {type(error).__name__}") from None

    return fetch


def _read(status: int, body: bytes, settings: KafkaSettings) -> Token:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    answer = answer if isinstance(answer, dict) else {}
    url = settings.oauth_token_url
    if status in {400, 401, 403}:
        code = str(answer.get("error", ""))
        said = code if _ERROR_CODE.fullmatch(code) else f"status {status}"
        raise TokenError(
            f"{url} rejected oauth_client_id {settings.oauth_client_id!r} ({said}): check oauth_client_id, "
            "oauth_client_secret, oauth_scope and oauth_audience",
            refused=True,
        )
    if status != 200:
        raise TokenError(f"no token from {url}: status {status}")
    value, life_s = answer.get("access_token"), answer.get("expires_in", _LIFE_S)
    try:
        life_s = float(life_s)  # some providers send it as a string
    except (TypeError, ValueError):
        life_s = 0.0
    # Any other character could end the SASL message to the broker early.
    if not isinstance(value, str) or not re.fullmatch(r"[!-~]+", value) or not 0 < life_s < float("inf"):
        raise TokenError(f"no token from {url}: the response is not OAuth 2.0; is oauth_token_url correct?")
    return Token(value, life_s)


def _signed_for_msk(region: str) -> Callable[[], Awaitable[Token]]:
    try:
        from aws_msk_iam_sasl_signer import MSKAuthTokenProvider  # noqa: PLC0415 - an optional dependency
    except ImportError:
        raise ConfigError("sasl_mechanism AWS_MSK_IAM needs another package: install cartsync[msk]") from None

    def sign() -> Token:
        value, ends_ms = MSKAuthTokenProvider.generate_auth_token(region)
        return Token(value, ends_ms / 1000 - time.time())

    async def fetch() -> Token:
        try:
            return await asyncio.to_thread(sign)  # may block: asks the instance metadata service for credentials
        except Exception as error:  # noqa: BLE001 - botocore's errors share no base class with the signer's
            raise TokenError(f"no AWS credentials to sign with ({type(error).__name__})") from None

    return fetch
