"""The sections of the configuration: what can be set, within which bounds, and what it is otherwise."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator

from worker.config.values import (
    BaseUrl,
    Count,
    Duration,
    Durations,
    HostNames,
    KeepFor,
    Networks,
    NonEmpty,
    PublicUrl,
    Secret,
    Secrets,
    Servers,
    Token,
    TokenUrl,
    private_url,
)
from worker.core.placing import EventKey, PartitionerName
from worker.core.policy import DeliveryPolicy
from worker.core.trust import Trust

_RULES = DeliveryPolicy()


def _key(name: str) -> str:
    """`lease_s` in code is `lease` in the file, where the text names its unit."""
    return name.removesuffix("_s")


class Section(BaseModel):
    """A table of settings."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class _TimedSection(Section):
    model_config = ConfigDict(alias_generator=_key)


class KafkaSection(_TimedSection):
    """`[kafka]`: the members of `kafka.settings.KafkaSettings`, which has the reasons for the times."""

    bootstrap_servers: Servers
    """`host:port`, with commas between several, or a list."""
    client_id: NonEmpty = "cartsync"
    group_id: NonEmpty = "cartsync"
    transactional_id_prefix: NonEmpty = "cartsync"
    event_topic: NonEmpty = "orders.events"
    state_topic: NonEmpty = "cartsync.state"
    dead_letter_topic: NonEmpty = "cartsync.dlq"
    results_topic: str = "cartsync.results"
    """What other systems are told; empty: nothing."""
    results_with_reasons: bool = False
    """Whether results repeat why an order waits, in the provider's words: they may be personal."""
    partitioner: PartitionerName | Literal[""] = ""
    event_key: EventKey = "subject"
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    allow_plaintext: bool = False
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "GSSAPI", "AWS_MSK_IAM"] = (
        "SCRAM-SHA-512"
    )
    sasl_username: str = ""
    sasl_password: Secret = SecretStr("")
    oauth_token_url: TokenUrl = ""
    oauth_client_id: str = ""
    oauth_client_secret: Secret = SecretStr("")
    oauth_scope: str = ""
    oauth_audience: str = ""
    oauth_ca_file: str = ""
    oauth_extensions: dict[str, str] = {}
    kerberos_service_name: NonEmpty = "kafka"
    kerberos_domain_name: str = ""
    aws_region: str = ""
    tls_ca_file: str = ""
    tls_cert_file: str = ""
    tls_key_file: str = ""
    tls_key_password: Secret = SecretStr("")
    input_isolation: Literal["read_committed", "read_uncommitted"] = "read_committed"
    session_timeout_s: Duration = 30.0
    heartbeat_s: Duration = 3.0
    rebalance_timeout_s: Duration = 45.0
    max_poll_interval_s: Duration = 120.0
    group_request_timeout_s: Duration = 60.0
    request_timeout_s: Duration = 8.0
    fetch_wait_s: Duration = 0.05
    connect_timeout_s: Duration = 60.0
    join_timeout_s: Duration = 180.0
    fence_timeout_s: Duration = 30.0
    commit_timeout_s: Duration = 25.0
    transaction_timeout_s: Duration = 60.0

    def members(self) -> dict[str, Any]:
        """Everything by its name in code, passwords as they are: `KafkaSettings(**members)`."""
        members = {name: getattr(self, name) for name in type(self).model_fields}
        return {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in members.items()
        }


class WorkerSection(_TimedSection):
    """`[worker]`: the times and counts of the protocol (`DOMAIN.md` section 6, `PROTOCOL.md` section 3)."""

    attempt_deadline_s: Duration = _RULES.attempt_deadline_s
    """The whole of one HTTP attempt, connecting included."""
    settle_s: Duration = _RULES.settle_s
    """The longest that a request we gave up on may still be applied. Ask the provider."""
    lease_s: Duration = _RULES.lease_s
    """For how long a commit lets us send."""
    retry_initial_s: Duration = _RULES.retry_initial_s
    retry_max_s: Duration = _RULES.retry_max_s
    conflict_attempts: Count = _RULES.conflict_attempts
    not_found_attempts: Count = _RULES.not_found_attempts
    not_found_delays_s: Durations = _RULES.not_found_delays_s
    inconsistent_after_s: Duration = _RULES.inconsistent_after_s
    unconfirmed_after_s: Duration = _RULES.unconfirmed_after_s
    account_probe_s: Durations = _RULES.account_probe_s
    """After these a paused account is tried with one attempt, the last one again and again; []: never."""
    forbidden_orders: Count = _RULES.forbidden_orders
    """A 403 for so many different orders in a row pauses their account."""
    park_limit: Count = _RULES.park_limit
    """More orders of an account than these, refused for good within `park_within`, pause it instead of being parked."""
    park_within_s: Duration = _RULES.park_within_s
    commit_interval_s: Duration = 0.05
    """A busy partition commits at most this often."""
    commits_per_second: Annotated[float, Field(gt=0, le=1_000_000)] = 40.0
    """Transactions over all partitions of a worker, at most."""
    max_poll_records: Count = 2_000
    max_batch_records: Count = 2_000
    """Events in one transaction, at most."""
    max_inbox_records: Count = 10_000
    """Events waiting in one partition before its input is paused."""
    start_at: Literal["earliest", "latest"] = "earliest"
    """Where the very first start begins to read."""
    topic_epoch: Annotated[int, Field(ge=0, le=511)] = 0
    """Raised by a rebuild or a new partition count; `epoch << 44` has to stay below 2^53."""
    sending: bool = True
    """false: shadow mode, nothing is sent."""
    keep_settled_s: KeepFor = 69_120_000.0
    """An order that is settled, and had no event for so long, is removed from the state; 0: none is."""
    warm_s: Duration = 900.0
    """For how long the state of a revoked partition is kept in memory."""
    adopt_state: bool = False
    """Goes on with a state that another deployment has written (another group_id, transactional_id_prefix, event topic
    or cluster), once that one has stopped. As `cartsync run --adopt-state`.
    """
    unreachable_exit_s: Duration = 600.0
    """A worker that no Kafka broker has answered for so long ends with 75."""
    restore_budget_s: Duration = 300.0
    """A partition that takes longer to restore makes `/readyz` fail."""

    def rules(self) -> DeliveryPolicy:
        """The part that the core goes by."""
        return DeliveryPolicy(**{name: getattr(self, name) for name in DeliveryPolicy.__struct_fields__})


class HttpSection(Section):
    """`[http]`: the private port, and what is taken of a provider's answer."""

    host: NonEmpty = "127.0.0.1"
    """0.0.0.0 in a container: orders and acts then need `token`; probes and metrics are open to all."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    """0: any that is free."""
    allowed_hosts: HostNames = ()
    """Names by which the port is called, beside addresses and localhost."""
    token: Token = SecretStr("")
    """Who gives it may see orders and act where the port is not bound to loopback."""
    response_max_bytes: Annotated[int, Field(ge=1_024, le=16_777_216)] = 1_048_576
    """An answer's body is cut here."""


class LogSection(Section):
    """`[log]`."""

    format: Literal["json", "console", "auto"] = "auto"
    """auto: text on a terminal, JSON otherwise."""
    level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    orders: Literal["plain", "hashed"] = "plain"
    """hashed: where a reference may say who somebody is, lines have `account/` and 16 digits of its SHA-256 instead."""


class CallbacksSection(_TimedSection):
    """`[callbacks]`: the public port of `cartsync receive`, and whom the workers believe."""

    record_secrets: Secrets = ()
    """The receiver signs what it writes with the first; workers believe any of them."""
    host: NonEmpty = "127.0.0.1"
    """Of the public port; 0.0.0.0 in a container."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8081
    """0: any that is free."""
    public_url: PublicUrl = ""
    """What stands before `/callbacks/…` in the addresses that providers are given."""
    forwarded_from: Networks = ()
    """Addresses and networks of proxies of ours: their X-Forwarded-For says who somebody is, for limits alone."""
    deadline_s: Annotated[Duration, Field(ge=0.5, le=4.5)] = 4.0
    """From a request's header to its answer, whatever Kafka and the shop do: providers wait for 5 s."""
    header_timeout_s: Annotated[Duration, Field(ge=0.1, le=60)] = 5.0
    body_max_bytes: Annotated[int, Field(ge=4_096, le=1_000_000)] = 262_144
    connections: Annotated[int, Field(ge=10, le=10_000)] = 200
    """At once; one more costs the one that has waited longest for a request."""
    question_slots: Annotated[int, Field(ge=1, le=1_000)] = 20
    """Of the connections, what pushes leave free; also how many questions the shop is asked at once."""
    account_rate: Annotated[float, Field(gt=0, le=1_000_000)] = 1000.0
    """Callbacks a second of one account, with a right token; questions and pushes each."""
    peer_rate: Annotated[float, Field(gt=0, le=1_000_000)] = 1000.0
    """The same of one address."""
    refused_rate: Annotated[float, Field(gt=0, le=1_000_000)] = 10.0
    """Callbacks a second of one address that are told what is wrong with them; and those whose token stands in the
    body."""
    in_flight_max_bytes: Annotated[int, Field(ge=1_000_000, le=1_000_000_000)] = 16_777_216
    """On their way to Kafka; above it providers are told to come again."""

    def trust(self) -> Trust:
        """The same as what signs and checks by them."""
        return Trust([secret.get_secret_value() for secret in self.record_secrets])


class LookupsSection(_TimedSection):
    """`[accounts.NAME.lookups]`: whom the receiver asks what only the shop can answer."""

    allow_http: bool = False
    """Whether `url` may be http:// of another machine."""
    url: BaseUrl
    token: Annotated[Token, Field(min_length=1)]
    """Sent as bearer."""
    timeout_s: Annotated[Duration, Field(ge=0.1, le=4.4)] = 3.5
    default: dict[str, str]
    """By question, what is said when the shop does not answer in time. There is no usual one: somebody must choose."""

    @field_validator("url")
    @classmethod
    def _is_private(cls, value: str, info: ValidationInfo) -> str:
        return private_url(value, info, "shoppers' data goes in clear, which allow_http = true beside it allows")


SECTIONS: Mapping[str, type[BaseModel]] = {
    "kafka": KafkaSection,
    "worker": WorkerSection,
    "http": HttpSection,
    "callbacks": CallbacksSection,
    "log": LogSection,
}
"""By name; `[accounts.NAME]` is a matter of its provider (`accounts.py`)."""
