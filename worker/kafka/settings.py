"""What the Kafka clients have to be told, with the values that measurements led to."""

from typing import Literal

from msgspec import Struct

from worker.errors import ConfigError

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
Isolation = Literal["read_committed", "read_uncommitted"]

TRANSACTION_TIMEOUT_MAX_S = 900.0
"""A broker's `transaction.max.timeout.ms`; above it no producer starts (InvalidTransactionTimeout)."""
_HIDDEN = ("sasl_password", "tls_key_password")


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

    security_protocol: SecurityProtocol = "PLAINTEXT"
    sasl_mechanism: SaslMechanism = "SCRAM-SHA-512"
    sasl_username: str = ""
    sasl_password: str = ""
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
        if len({self.event_topic, self.state_topic, self.dead_letter_topic}) < 3:
            raise ConfigError("event_topic, state_topic and dead_letter_topic must be three topics")
        if self.security_protocol.startswith("SASL") and not (self.sasl_username and self.sasl_password):
            raise ConfigError(f"{self.security_protocol} needs sasl_username and sasl_password")
        if bool(self.tls_cert_file) != bool(self.tls_key_file):
            raise ConfigError("tls_cert_file and tls_key_file belong together: give both or neither")
        self._check_times()

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
