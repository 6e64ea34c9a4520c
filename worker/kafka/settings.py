"""The settings of the Kafka clients, with defaults from measurements."""

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
"""The brokers' default `transaction.max.timeout.ms`; above it no producer starts (InvalidTransactionTimeout)."""
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
"""By mechanism: the settings that it requires."""
_USED: Mapping[str, tuple[str, ...]] = {
    **_NEEDED,
    "OAUTHBEARER": _OAUTH + _OAUTH_MORE,
    "GSSAPI": ("kerberos_service_name", "kerberos_domain_name"),
}
"""By mechanism: all settings that it uses."""
_SASL = tuple(dict.fromkeys(name for names in _USED.values() for name in names))


class KafkaSettings(Struct, frozen=True, kw_only=True):
    """Where Kafka is, who we are there, and how long to wait for it. Times are seconds, sizes bytes."""

    bootstrap_servers: str
    """`host:port`; several separated by commas."""
    client_id: str = "cartsync"
    group_id: str = "cartsync"
    group_instance_id: str = ""
    """By which the group knows this member again after a crash (`core.membership`); empty: by nothing."""
    transactional_id_prefix: str = "cartsync"
    """Owners of a partition are fenced by the transactional id `<prefix>.<event topic>.<partition>`."""

    event_topic: str = "orders.events"
    state_topic: str = "cartsync.state"
    dead_letter_topic: str = "cartsync.dlq"
    results_topic: str = "cartsync.results"
    """Topic of the results for other systems; empty: none are written."""
    history_topic: str | None = None
    """Topic of the histories of orders; empty: none are kept; `None`: the state topic's name and `.history`."""
    results_with_reasons: bool = False
    """Whether results include why an order waits, in the provider's words: these may contain personal data."""

    partitioner: PartitionerName | Literal[""] = ""
    """How the shop's producers choose an event's partition: `murmur2` is the default of Java, aiokafka and
    kafka-python, `crc32` that of librdkafka. Empty: the partition of events is not checked.
    """
    event_key: EventKey = "subject"
    """What the shop's record keys contain; checked if `partitioner` is set."""

    security_protocol: SecurityProtocol = "PLAINTEXT"
    allow_plaintext: bool = False
    """Whether to connect to a broker on another machine without TLS: orders and passwords are sent unencrypted."""
    sasl_mechanism: SaslMechanism = "SCRAM-SHA-512"
    """`AWS_MSK_IAM` is OAUTHBEARER with a token signed by the AWS credentials of the environment."""
    sasl_username: str = ""
    sasl_password: str = ""
    oauth_token_url: str = ""
    """The token endpoint of an OpenID Connect provider, for client credentials."""
    oauth_client_id: str = ""
    oauth_client_secret: str = ""
    oauth_scope: str = ""
    oauth_audience: str = ""
    oauth_ca_file: str = ""
    """PEM, for the token URL; empty: the system's CA certificates."""
    oauth_extensions: dict[str, str] = {}
    """SASL extensions that some brokers require, such as `logicalCluster` and `identityPoolId` of Confluent Cloud."""
    kerberos_service_name: str = "kafka"
    kerberos_domain_name: str = ""
    """Empty: the broker's host name."""
    aws_region: str = ""
    tls_ca_file: str = ""
    """PEM; empty: the system's CA certificates."""
    tls_cert_file: str = ""
    """PEM, the client certificate with its chain; empty: none."""
    tls_key_file: str = ""
    tls_key_password: str = ""

    input_isolation: Isolation = "read_committed"
    """read_committed costs nothing if the shop writes without transactions."""

    session_timeout_s: float = 30.0
    """Slow failover is safe; spurious eviction is expensive."""
    heartbeat_s: float = 3.0
    rebalance_timeout_s: float = 45.0
    """The limit for `revoked`; after it the partitions are assigned to others even if it is still running."""
    max_poll_interval_s: float = 120.0
    group_request_timeout_s: float = 60.0
    """For the group member; above the rebalance timeout, because it limits JoinGroup too."""
    request_timeout_s: float = 8.0
    """For producers and state readers; a frozen bootstrap broker costs one such timeout."""
    fetch_wait_s: float = 0.05
    """`fetch.max.wait` for the input; also the longest delay of the records of a resumed partition."""
    connect_timeout_s: float = 60.0
    """How long the start tries to reach a broker."""
    join_timeout_s: float = 180.0
    """How long the start waits for the first assignment; the rebalance timeout is part of it."""
    fence_timeout_s: float = 30.0
    """With a frozen coordinator, 15.3 s was measured."""
    commit_timeout_s: float = 25.0
    """The limit for the sends and the commit of one transaction. A broker crash costs 13 s, a frozen broker 20 s;
    giving up earlier gained nothing.
    """
    transaction_timeout_s: float = 60.0
    """After it the broker aborts an open transaction, and fences its producer."""

    def check(self) -> None:
        """Raises `ConfigError` with the rule that the settings violate."""
        for name in ("bootstrap_servers", "group_id", "transactional_id_prefix"):
            if not getattr(self, name):
                raise ConfigError(f"{name} must not be empty")
        topics = [self.event_topic, self.state_topic, self.dead_letter_topic]
        topics += filter(None, [self.results_topic, self.history])
        if len(set(topics)) < len(topics):
            raise ConfigError(
                "event_topic, state_topic, dead_letter_topic, results_topic and history_topic must be different topics"
            )
        if self.results_with_reasons and not self.results_topic:
            raise ConfigError("results_with_reasons is set, but there is no results_topic")
        self._check_security()
        if bool(self.tls_cert_file) != bool(self.tls_key_file):
            raise ConfigError("tls_cert_file and tls_key_file belong together: set both or neither")
        self._check_times()

    def _check_security(self) -> None:
        """A setting that is set but unused is a mistake: somebody thinks that it protects them."""
        protocol, mechanism = self.security_protocol, self.sasl_mechanism
        if not protocol.endswith("SSL"):
            self._refuse(_TLS, f"security_protocol {protocol} uses no TLS; use SSL or SASL_SSL")
            hosts = [server.strip().rpartition(":")[0].strip("[]") for server in self.bootstrap_servers.split(",")]
            far = [host for host in hosts if host and not is_loopback(host)]
            if far and not self.allow_plaintext:
                raise ConfigError(
                    f"security_protocol {protocol} would send orders (and passwords) unencrypted to {far[0]}: use SSL "
                    "or SASL_SSL, or set allow_plaintext = true if the network can be trusted"
                )
        if not protocol.startswith("SASL"):
            use = f"security_protocol {protocol} uses no SASL; use SASL_SSL"
            self._refuse(("sasl_mechanism", *_SASL), use)
            return
        unused = tuple(name for name in _SASL if name not in _USED[mechanism])
        self._refuse(unused, f"sasl_mechanism {mechanism} does not use it")
        needed = _NEEDED[mechanism]
        if not all(getattr(self, name) for name in needed):
            raise ConfigError(f"{protocol} with {mechanism} needs {' and '.join(needed)}")

    def credentials(self) -> tuple[str, ...]:
        """The settings that identify us; the first is the name."""
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
                f"({self.rebalance_timeout_s:g}s) by at least 5s: a broker may delay our join that long"
            )
        if self.transaction_timeout_s < self.commit_timeout_s + 5:
            raise ConfigError(
                f"transaction_timeout ({self.transaction_timeout_s:g}s) must exceed commit_timeout "
                f"({self.commit_timeout_s:g}s) by at least 5s: otherwise a slow commit gets us fenced"
            )
        if self.transaction_timeout_s > TRANSACTION_TIMEOUT_MAX_S:
            raise ConfigError(
                f"transaction_timeout ({self.transaction_timeout_s:g}s) must be at most "
                f"{TRANSACTION_TIMEOUT_MAX_S:g}s: brokers refuse more"
            )

    @property
    def history(self) -> str:
        """The history topic's name; empty: there is none."""
        return f"{self.state_topic}.history" if self.history_topic is None else self.history_topic

    def placing(self) -> Placing | None:
        """Computes the partition that an order's records belong in; `None`: it is not checked."""
        return placing_of(self.partitioner, self.event_key)

    def transactional_id(self, partition: int) -> str:
        """One id per input partition: an id per worker would fence nothing across a rebalance."""
        return transactional_id(self.transactional_id_prefix, self.event_topic, partition)

    def replaying_id(self, partition: int) -> str:
        """The transactional id of whoever replays letters of a partition of the dead-letter topic."""
        return f"{self.transactional_id_prefix}.{self.event_topic}.letters.{partition}"

    def examining_id(self) -> str:
        """The transactional id of `cartsync doctor`."""
        return f"{self.transactional_id_prefix}.{self.event_topic}.doctor"

    def migrating_id(self) -> str:
        """The transactional id of whoever copies the state for another number of partitions."""
        return f"{self.transactional_id_prefix}.{self.event_topic}.migration"

    def __repr__(self) -> str:
        shown = (
            f"{name}={'***' if name in _HIDDEN and getattr(self, name) else repr(getattr(self, name))}"
            for name in self.__struct_fields__
        )
        return f"KafkaSettings({', '.join(shown)})"


def transactional_id(prefix: str, event_topic: str, partition: int) -> str:
    """The id by which the owner of a partition is fenced. Never change it: in a rolling upgrade, old and new workers
    would no longer fence each other.
    """
    return f"{prefix}.{event_topic}.{partition}"
