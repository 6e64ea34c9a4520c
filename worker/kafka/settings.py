"""What the Kafka clients have to be told, with the values that measurements led to."""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from worker import is_loopback
from worker.core.placing import EventKey, PartitionerName, Placing, placing_of
from worker.errors import ConfigError

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "GSSAPI", "AWS_MSK_IAM"]
Isolation = Literal["read_committed", "read_uncommitted"]

TRANSACTION_TIMEOUT_MAX_S = 900.0
"""A broker's `transaction.max.timeout.ms`; above it no producer starts (InvalidTransactionTimeout)."""
_HIDDEN = ("sasl_password", "tls_key_password", "oauth_client_secret")
_PASSWORD = ("sasl_username", "sasl_password")
_TLS = ("tls_ca_file", "tls_cert_file", "tls_key_file", "tls_key_password")
_OAUTH = ("oauth_token_url", "oauth_client_id", "oauth_client_secret")
_OAUTH_MORE = ("oauth_scope", "oauth_audience", "oauth_ca_file", "oauth_extensions")
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "PLAIN": _PASSWORD,
    "SCRAM-SHA-256": _PASSWORD,
    "SCRAM-SHA-512": _PASSWORD,
    "OAUTHBEARER": _OAUTH,
    "GSSAPI": (),
    "AWS_MSK_IAM": ("aws_region",),
}
"""By mechanism, what it cannot do without."""
_USED: Mapping[str, tuple[str, ...]] = {
    **_NEEDED,
    "OAUTHBEARER": _OAUTH + _OAUTH_MORE,
    "GSSAPI": ("kerberos_service_name", "kerberos_domain_name"),
}
"""By mechanism, what it goes by."""
_SASL = tuple(dict.fromkeys(name for names in _USED.values() for name in names))


class KafkaSettings(Struct, frozen=True, kw_only=True):
    """Where Kafka is, who we are there, and how long to wait for it. Times are seconds, sizes bytes."""

    bootstrap_servers: str
    """`host:port`, with commas between several."""
    client_id: str = "cartsync"
    group_id: str = "cartsync"
    transactional_id_prefix: str = "cartsync"
    """The application's name: `<prefix>.<event topic>.<partition>` is what an owner is fenced by."""

    event_topic: str = "orders.events"
    state_topic: str = "cartsync.state"
    dead_letter_topic: str = "cartsync.dlq"
    results_topic: str = "cartsync.results"
    """What other systems are told; empty: nothing."""
    results_with_reasons: bool = False
    """Whether results repeat why an order waits, in the provider's words: they may be personal."""

    partitioner: PartitionerName | Literal[""] = ""
    """How the shop's producers choose an event's partition: `murmur2` is the default of Java, aiokafka and
    kafka-python, `crc32` that of librdkafka. Empty: where events lie is not checked.
    """
    event_key: EventKey = "subject"
    """What the shop's record keys are; checked when `partitioner` is set."""

    security_protocol: SecurityProtocol = "PLAINTEXT"
    allow_plaintext: bool = False
    """Whether a broker on another machine may be spoken to without TLS: orders, and passwords, go in clear."""
    sasl_mechanism: SaslMechanism = "SCRAM-SHA-512"
    """`AWS_MSK_IAM` is OAUTHBEARER with a token that the AWS credentials of the environment sign."""
    sasl_username: str = ""
    sasl_password: str = ""
    oauth_token_url: str = ""
    """Where an OpenID Connect provider gives tokens for client credentials."""
    oauth_client_id: str = ""
    oauth_client_secret: str = ""
    oauth_scope: str = ""
    oauth_audience: str = ""
    oauth_ca_file: str = ""
    """PEM, of the token URL; empty: the system's authorities."""
    oauth_extensions: dict[str, str] = {}
    """What some brokers want beside the token, as Confluent Cloud does `logicalCluster` and `identityPoolId`."""
    kerberos_service_name: str = "kafka"
    kerberos_domain_name: str = ""
    """Empty: the name of the broker's host."""
    aws_region: str = ""
    tls_ca_file: str = ""
    """PEM; empty: the system's authorities."""
    tls_cert_file: str = ""
    """PEM, the client's own certificate with its chain; empty: none."""
    tls_key_file: str = ""
    tls_key_password: str = ""

    input_isolation: Isolation = "read_committed"
    """Costs nothing where the shop writes without transactions."""

    session_timeout_s: float = 30.0
    """A slow failover is safe, a false eviction is dear."""
    heartbeat_s: float = 3.0
    rebalance_timeout_s: float = 45.0
    """What `revoked` may take; past it the partitions go to others while it still runs."""
    max_poll_interval_s: float = 120.0
    group_request_timeout_s: float = 60.0
    """Of the group member; above the rebalance timeout, for it bounds JoinGroup too."""
    request_timeout_s: float = 8.0
    """Of producers and state readers; a frozen bootstrap broker costs one of these."""
    fetch_wait_s: float = 0.05
    """How long a broker may sit on a fetch of input; also how late a resumed partition's records may come."""
    connect_timeout_s: float = 60.0
    """How long the start tries to reach any broker."""
    join_timeout_s: float = 180.0
    """How long the start waits for the first assignment; others may take the rebalance timeout to let go."""
    fence_timeout_s: float = 30.0
    """15.3 s was measured with a frozen coordinator."""
    commit_timeout_s: float = 25.0
    """Sends and commit of one transaction. A broker's crash takes 13 s, a frozen one 20 s; giving up earlier gained
    nothing.
    """
    transaction_timeout_s: float = 60.0
    """After it the broker aborts an open transaction, and fences whoever began it."""

    def check(self) -> None:
        """Raises `ConfigError` naming the rule that the settings break."""
        for name in ("bootstrap_servers", "group_id", "transactional_id_prefix"):
            if not getattr(self, name):
                raise ConfigError(f"{name} must not be empty")
        topics = [self.event_topic, self.state_topic, self.dead_letter_topic, self.results_topic]
        if len(set(topics)) < len(topics):
            raise ConfigError("event_topic, state_topic, dead_letter_topic and results_topic must be different topics")
        if self.results_with_reasons and not self.results_topic:
            raise ConfigError("results_with_reasons is set, but there is no results_topic")
        self._check_security()
        if bool(self.tls_cert_file) != bool(self.tls_key_file):
            raise ConfigError("tls_cert_file and tls_key_file belong together: give both or neither")
        self._check_times()

    def _check_security(self) -> None:
        """What is set and not used is a mistake: somebody believes to be safe."""
        protocol, mechanism = self.security_protocol, self.sasl_mechanism
        if not protocol.endswith("SSL"):
            self._refuse(_TLS, f"security_protocol {protocol} uses no TLS; write SSL or SASL_SSL")
            hosts = [server.strip().rpartition(":")[0].strip("[]") for server in self.bootstrap_servers.split(",")]
            far = [host for host in hosts if host and not is_loopback(host)]
            if far and not self.allow_plaintext:
                raise ConfigError(
                    f"security_protocol {protocol} would send orders (and passwords) in clear to {far[0]}: write SSL "
                    "or SASL_SSL, or allow_plaintext = true where the network may be trusted"
                )
        if not protocol.startswith("SASL"):
            use = f"security_protocol {protocol} uses no SASL; write SASL_SSL"
            self._refuse(("sasl_mechanism", *_SASL), use)
            return
        unused = tuple(name for name in _SASL if name not in _USED[mechanism])
        self._refuse(unused, f"sasl_mechanism {mechanism} does not use it")
        needed = _NEEDED[mechanism]
        if not all(getattr(self, name) for name in needed):
            raise ConfigError(f"{protocol} with {mechanism} needs {' and '.join(needed)}")

    def credentials(self) -> tuple[str, ...]:
        """The settings that say who we are, the first of them the name."""
        names = {"GSSAPI": ("kerberos_service_name", "kerberos_domain_name"), "AWS_MSK_IAM": ("aws_region",)}
        return names.get(self.sasl_mechanism) or tuple(
            name for name in _NEEDED[self.sasl_mechanism] if name != "oauth_token_url"
        )

    def _refuse(self, names: tuple[str, ...], why: str) -> None:
        usual = KafkaSettings(bootstrap_servers=self.bootstrap_servers)
        for name in names:
            value = getattr(self, name)
            if value and value != getattr(usual, name):
                raise ConfigError(f"{name} is set, but {why}")

    def _check_times(self) -> None:
        if self.heartbeat_s * 3 > self.session_timeout_s:
            raise ConfigError(
                f"heartbeat ({self.heartbeat_s:g}s) must be at most a third of session_timeout "
                f"({self.session_timeout_s:g}s): one lost heartbeat must not evict us"
            )
        if self.group_request_timeout_s < self.rebalance_timeout_s + 5:
            raise ConfigError(
                f"group_request_timeout ({self.group_request_timeout_s:g}s) must exceed rebalance_timeout "
                f"({self.rebalance_timeout_s:g}s) by at least 5s: a broker may hold our join that long"
            )
        if self.transaction_timeout_s < self.commit_timeout_s + 5:
            raise ConfigError(
                f"transaction_timeout ({self.transaction_timeout_s:g}s) must exceed commit_timeout "
                f"({self.commit_timeout_s:g}s) by at least 5s: otherwise brokers fence us for being slow"
            )
        if self.transaction_timeout_s > TRANSACTION_TIMEOUT_MAX_S:
            raise ConfigError(
                f"transaction_timeout ({self.transaction_timeout_s:g}s) must be at most "
                f"{TRANSACTION_TIMEOUT_MAX_S:g}s: brokers refuse more"
            )

    def placing(self) -> Placing | None:
        """Where records of orders must lie; `None`: it is not checked."""
        return placing_of(self.partitioner, self.event_key)

    def transactional_id(self, partition: int) -> str:
        """One for each input partition: an id for each worker would fence nothing across a rebalance."""
        return transactional_id(self.transactional_id_prefix, self.event_topic, partition)

    def __repr__(self) -> str:
        shown = (
            f"{name}={'***' if name in _HIDDEN and getattr(self, name) else repr(getattr(self, name))}"
            for name in self.__struct_fields__
        )
        return f"KafkaSettings({', '.join(shown)})"


def transactional_id(prefix: str, event_topic: str, partition: int) -> str:
    """What the owner of a partition is fenced by. Never to be changed: in a rolling upgrade old workers and new ones
    would fence each other no more.
    """
    return f"{prefix}.{event_topic}.{partition}"
