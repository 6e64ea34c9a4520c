"""The Kafka client library: the parts that we use, how it connects, how it is stopped, how its errors map to ours.

Written against aiokafka 0.14.0 and measured with Apache Kafka 4.3.1. Where this package works around a behavior of
the library, a comment says which; `tests/contract` and `tests/integration` pin those behaviors.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable
from functools import partial
from importlib.util import find_spec
from itertools import chain
from typing import Any

import aiokafka.conn
import structlog
from aiohappyeyeballs import start_connection
from aiokafka import (
    AIOKafkaConsumer,
    AIOKafkaProducer,
    ConsumerRebalanceListener,
    TopicPartition,
)
from aiokafka import client as kafka_client
from aiokafka import conn as kafka_conn
from aiokafka import errors as kafka_errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection, collect_hosts, create_conn
from aiokafka.coordinator.assignors.sticky.sticky_assignor import (
    StickyPartitionAssignor,
)
from aiokafka.helpers import create_ssl_context
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from worker.errors import CartsyncError, ConfigError, FencedError, LogError
from worker.kafka.oauth import TokenError, tokens_of
from worker.kafka.settings import KafkaSettings

__all__ = [
    "REFUSED_ACCESS",
    "AIOKafkaAdminClient",
    "AIOKafkaClient",
    "AIOKafkaConsumer",
    "AIOKafkaProducer",
    "ConfigResource",
    "ConfigResourceType",
    "Connection",
    "ConsumerRebalanceListener",
    "NewTopic",
    "StickyPartitionAssignor",
    "TopicPartition",
    "as_cartsync_error",
    "as_log_error",
    "kafka_errors",
    "silence_unretrieved_errors",
    "stop_consumer",
    "stop_producer",
]

log = structlog.get_logger(__name__)

_REFUSED_CREDENTIALS = (
    kafka_errors.AuthenticationFailedError,
    kafka_errors.AuthenticationMethodNotSupported,
    kafka_errors.IllegalSaslStateError,
    kafka_errors.SaslAuthenticationFailed,
    kafka_errors.UnsupportedSaslMechanismError,
)
REFUSED_ACCESS = (
    kafka_errors.ClusterAuthorizationFailedError,
    kafka_errors.GroupAuthorizationFailedError,
    kafka_errors.TopicAuthorizationFailedError,
    kafka_errors.TransactionalIdAuthorizationFailed,
)
_LEFTOVERS_S = 1.0
_IDLE_MS = 180_000
"""Idle connections are closed before a load balancer or firewall drops them silently, usually after four minutes: a
request on a dropped connection would wait for its timeout.
"""
_METADATA_MS = 30_000
"""How long it may take a client to notice new partitions of a topic."""
_DIAL_S = 5.0
"""The limit for one connection, over all addresses of its host."""
_BOOTSTRAP_AGAIN_S = 5.0
_NEXT_ADDRESS_S = 0.25
"""The delay before the next address is tried in parallel (RFC 8305)."""

for _name in ("aiokafka.conn", "aiokafka.producer.producer"):
    # At debug the first logs every request, including the SASL password; the second the key and value of every record.
    logging.getLogger(_name).setLevel(logging.INFO)


class _Passing(logging.Filter):
    """Demotes the library's warnings about normal operation, such as a new group or a rebalance, to debug: these
    conditions resolve by themselves, or another line reports that they do not.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        said = str(record.msg)
        passes = said.startswith(("Marking the coordinator dead", "Heartbeat failed for group %s because it is rebal"))
        if said.startswith("Group Coordinator Request failed"):
            args = record.args if isinstance(record.args, tuple) else ()
            passes = any(isinstance(each, kafka_errors.GroupCoordinatorNotAvailableError) for each in args)
        if passes:
            record.levelno, record.levelname = logging.DEBUG, "DEBUG"
        return logging.getLogger(record.name).isEnabledFor(record.levelno)


logging.getLogger("aiokafka.consumer.group_coordinator").addFilter(_Passing())


class _Authenticator(aiokafka.conn.OAuthAuthenticator):  # type: ignore[misc]  # the library has no types
    """Detects that a broker rejects a token. The library takes any response for success, and fails obscurely later."""

    async def step(self, payload: bytes | None) -> Any:
        if self._token_sent and payload:  # RFC 7628 section 3.2.3
            raise kafka_errors.SaslAuthenticationFailed("the broker rejected the token")
        return await super().step(payload)


aiokafka.conn.OAuthAuthenticator = _Authenticator  # the library has no public way to replace it


class _HappyEyeballsLoop:
    """The event loop as the library sees it, except for `create_connection`: the library would try a host's addresses
    one after the other, and wait minutes for one that drops packets (so does uvloop).
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def create_connection(self, factory: Any, host: str, port: int, ssl: Any = None) -> Any:
        """Connects to the first address that accepts."""
        async with asyncio.timeout(_DIAL_S):
            found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            sock = await start_connection(found, happy_eyeballs_delay=_NEXT_ADDRESS_S, interleave=1, loop=self._loop)
        return await self._loop.create_connection(factory, sock=sock, ssl=ssl, server_hostname=host if ssl else None)


class _HappyEyeballsConnection(AIOKafkaConnection):  # type: ignore[misc]  # the library has no types
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._loop: Any = _HappyEyeballsLoop(asyncio.get_running_loop())


kafka_conn.AIOKafkaConnection = _HappyEyeballsConnection  # the class that `create_conn` instantiates, for every client
# FENCED_INSTANCE_ID: somebody else has joined under the name. The library does not know it, and would end the consumer.
kafka_errors.kafka_errors[82] = kafka_errors.UnknownMemberIdError
# By default a metadata request for a deleted topic recreates it, with the broker's default settings.
kafka_client.MetadataRequest = partial(kafka_client.MetadataRequest, allow_auto_topic_creation=False)


class Connection:
    """How every client of this process connects. Reads the certificates once: replacing them needs a restart."""

    def __init__(self, settings: KafkaSettings) -> None:
        """Raises `ConfigError` if the settings or the certificates are unusable."""
        settings.check()
        self.settings = settings
        try:
            self._hosts = collect_hosts(settings.bootstrap_servers)
        except ValueError as error:
            raise ConfigError(f"bootstrap_servers: {settings.bootstrap_servers!r} is not host:port,…") from error
        self._security = _security(settings)

    def options(self, request_timeout_s: float) -> dict[str, Any]:
        """The arguments common to all of the library's clients."""
        return {
            "bootstrap_servers": self.settings.bootstrap_servers,
            "client_id": self.settings.client_id,
            "request_timeout_ms": _ms(request_timeout_s),
            "metadata_max_age_ms": _METADATA_MS,
            "connections_max_idle_ms": _IDLE_MS,
            **self._security,
        }

    def follow(self, client: Any) -> None:
        """Makes a client of the library fall back to `bootstrap_servers` if none of the brokers it knows responds. The
        library never does, although all brokers may have moved (KIP-899).
        """
        update = client._metadata_update  # noqa: SLF001 - no public hook
        loop = asyncio.get_running_loop()
        not_before = 0.0

        async def follow(cluster: Any, topics: Any) -> bool:
            nonlocal not_before
            if await update(cluster, topics):
                return True
            if loop.time() < not_before:
                return False
            not_before = loop.time() + _BOOTSTRAP_AGAIN_S
            fresh = AIOKafkaClient(**self.options(self.settings.request_timeout_s))
            try:
                await fresh.bootstrap()
                # Straight into the client's own cluster metadata, in one step: metadata without topics would rebalance.
                found: bool = await fresh._metadata_update(cluster, topics)  # noqa: SLF001
            except kafka_errors.KafkaError:
                return False
            finally:
                await fresh.close()
            return found

        client._metadata_update = follow  # noqa: SLF001

    def tries(self) -> AsyncRetrying:
        """Retries on `LogError` for `connect_timeout_s`: another broker may respond."""
        return AsyncRetrying(
            retry=retry_if_exception_type(LogError),
            stop=stop_after_delay(self.settings.connect_timeout_s),
            wait=wait_random_exponential(multiplier=0.2, max=5.0),
            reraise=True,
        )

    async def start(self, client: Any) -> None:
        """Starts a client, and retries while no broker responds.

        Raises `ConfigError` if a broker rejects us, `LogError` if none responded within `connect_timeout_s`.
        """
        async for attempt in self.tries():
            with attempt:
                try:
                    await client.start()
                except kafka_errors.KafkaConnectionError:
                    raise await self._why_unreachable() from None
                except kafka_errors.KafkaError as error:
                    raise as_cartsync_error(error, "connecting to Kafka") from error

    async def _why_unreachable(self) -> CartsyncError:
        """Connects to each broker once more to find out why: the client only logs the reason, and does not raise it."""
        said = ""
        for host, port, _ in self._hosts:
            where = f"{host}:{port}"
            options = self.options(self.settings.request_timeout_s)
            for name in ("bootstrap_servers", "metadata_max_age_ms", "connections_max_idle_ms"):
                del options[name]
            try:
                connection = await create_conn(host, port, **options)
            except TokenError as error:
                return ConfigError(str(error)) if error.refused else LogError(str(error))
            except _REFUSED_CREDENTIALS as error:
                mechanism, names = self.settings.sasl_mechanism, self.settings.credentials()
                return ConfigError(
                    f"Kafka at {where} rejects {mechanism} as {getattr(self.settings, names[0])!r} "
                    f"({type(error).__name__}): check sasl_mechanism, {' and '.join(names)}"
                )
            except ssl.SSLCertVerificationError as error:
                return ConfigError(
                    f"the certificate of Kafka at {where} is not trusted ({error.verify_message}): check tls_ca_file"
                )
            except (OSError, kafka_errors.KafkaError) as error:
                said = f" ({where}: {type(error).__name__}; is security_protocol {self.settings.security_protocol}?)"
            else:
                connection.close()
        return LogError(f"no Kafka broker responds at {self.settings.bootstrap_servers}{said}")


def _security(settings: KafkaSettings) -> dict[str, Any]:
    options: dict[str, Any] = {"security_protocol": settings.security_protocol}
    if settings.security_protocol.endswith("SSL"):
        try:
            options["ssl_context"] = create_ssl_context(
                cafile=settings.tls_ca_file or None,
                certfile=settings.tls_cert_file or None,
                keyfile=settings.tls_key_file or None,
                # A string even if it is empty: otherwise OpenSSL would prompt for it on the terminal.
                password=settings.tls_key_password,
            )
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"tls_ca_file, tls_cert_file or tls_key_file cannot be used ({type(error).__name__})"
            ) from error
    if settings.security_protocol.startswith("SASL"):
        tokens = tokens_of(settings)
        options |= {
            "sasl_mechanism": settings.sasl_mechanism if tokens is None else "OAUTHBEARER",
            "sasl_plain_username": settings.sasl_username,
            "sasl_plain_password": settings.sasl_password,
            "sasl_oauth_token_provider": tokens,
            "sasl_kerberos_service_name": settings.kerberos_service_name,
            "sasl_kerberos_domain_name": settings.kerberos_domain_name or None,
        }
        if settings.sasl_mechanism == "GSSAPI" and find_spec("gssapi") is None:
            raise ConfigError("sasl_mechanism GSSAPI needs another package: install cartsync[gssapi]")
    return options


def as_log_error(error: BaseException, doing: str) -> LogError:
    """Our error for an exception of the library; never contains the content of a record."""
    text = f"{doing}: {type(error).__name__}"
    if isinstance(error, kafka_errors.KafkaError | AssertionError | TimeoutError) and str(error):
        text = f"{text}: {error}"
    if isinstance(error, REFUSED_ACCESS):
        text = f"{text}: a permission (ACL) is missing"
    if isinstance(error, kafka_errors.ProducerFenced | kafka_errors.InvalidProducerEpoch):
        return FencedError(text)
    return LogError(text)


def as_cartsync_error(error: BaseException, doing: str) -> CartsyncError:
    """Like `as_log_error`, but a `ConfigError` for what only an operator can fix, so that it is not retried."""
    log_error = as_log_error(error, doing)
    return ConfigError(str(log_error)) if isinstance(error, REFUSED_ACCESS) else log_error


def silence_unretrieved_errors(loop: asyncio.AbstractEventLoop) -> None:
    """Keeps unretrieved errors of the library out of the log: it drops futures and tasks without retrieving their
    exceptions (34 `ProducerFenced` in a run with 136 takeovers), and asyncio would log each with a traceback.
    """

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, kafka_errors.KafkaError) and "never retrieved" in context["message"]:
            log.debug("kafka_client_error_ignored", error=type(error).__name__)
        else:
            loop.default_exception_handler(context)

    loop.set_exception_handler(handle)


async def stop_producer(producer: Any, within_s: float) -> None:
    """Stops a producer in any state, and everything that it would leave running. Never raises.

    The library's `stop()` waits for all records in flight, without a limit (10 s and more with a frozen broker). If it
    is cancelled, it leaves behind the sender task, the flush it was waiting for, and all connections; and calling it
    again returns immediately.
    """
    if await _stopped(producer.stop(), within_s):
        return
    accumulator = producer._message_accumulator  # noqa: SLF001 - no public way to end that flush
    for batch in [*accumulator._pending_batches, *chain.from_iterable(accumulator._batches.values())]:  # noqa: SLF001
        batch.done_noack()  # its waiters have given up: an exception would never be retrieved, and asyncio would log it
    if (sender := producer._sender.sender_task) is not None:  # noqa: SLF001 - no public way to end it
        sender.cancel()
        await asyncio.wait({sender}, timeout=_LEFTOVERS_S)
    await _stopped(producer.client.close(), _LEFTOVERS_S)


async def stop_consumer(consumer: Any, within_s: float) -> None:
    """Stops a consumer and everything it would leave running. Never raises. (`stop()` may hang: aiokafka issue 773.)"""
    if not await _stopped(consumer.stop(), within_s):
        await _stopped(consumer._client.close(), _LEFTOVERS_S)  # noqa: SLF001 - no public way to close the connections


async def _stopped(stopping: Awaitable[None], within_s: float) -> bool:
    try:
        async with asyncio.timeout(within_s):
            await stopping
    except asyncio.CancelledError:
        # A consumer that is stopped right after its start raises this although nobody has cancelled us: only a real
        # cancellation goes on.
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise
        return False
    except Exception as error:  # noqa: BLE001 - the caller is closing and cannot handle an error
        log.debug("kafka_client_stopped_late", error=type(error).__name__)
        return False
    return True


def _ms(seconds: float) -> int:
    return round(1000 * seconds)
