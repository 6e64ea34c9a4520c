"""The sections of the configuration: settings, bounds and defaults."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator

from worker.config.values import (
    BaseUrl,
    Count,
    Duration,
    Durations,
    HostNames,
    InstanceName,
    KeepFor,
    Networks,
    NonEmpty,
    PublicUrl,
    Secret,
    Secrets,
    Servers,
    Size,
    Texts,
    Token,
    TokenUrl,
    private_url,
)
from worker.core.membership import AUTOMATIC
from worker.core.placing import EventKey, PartitionerName
from worker.core.policy import DeliveryPolicy
from worker.core.trust import Trust

_RULES = DeliveryPolicy()


def _key(name: str) -> str:
    """`lease_s` in code is `lease` in the file, where the value names its unit."""
    return name.removesuffix("_s")


class Section(BaseModel):
    """A table of settings."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class _TimedSection(Section):
    model_config = ConfigDict(alias_generator=_key)


class KafkaSection(_TimedSection):
    """`[kafka]`: the members of `kafka.settings.KafkaSettings`, which explains the times."""

    bootstrap_servers: Servers
    """`host:port`; several separated by commas, or a list."""
    client_id: NonEmpty = "cartsync"
    group_id: NonEmpty = "cartsync"
    group_instance_id: InstanceName = AUTOMATIC
    """By which the group knows a worker again after a crash; `auto`: by its machine and private port, empty: by
    nothing."""
    transactional_id_prefix: NonEmpty = "cartsync"
    event_topic: NonEmpty = "orders.events"
    state_topic: NonEmpty = "cartsync.state"
    dead_letter_topic: NonEmpty = "cartsync.dlq"
    results_topic: str = "cartsync.results"
    """Topic of the results for other systems; empty: none are written."""
    history_topic: str | None = Field(default=None, validate_default=True)
    """Topic of the histories of orders, compacted; empty: none are kept. Default: the state topic's name and
    `.history`."""
    results_with_reasons: bool = False
    """Whether results include why an order waits, in the provider's words: these may contain personal data."""
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

    @field_validator("history_topic")
    @classmethod
    def _beside_the_state(cls, name: str | None, info: ValidationInfo) -> str | None:
        return f"{info.data['state_topic']}.history" if name is None and "state_topic" in info.data else name

    def members(self) -> dict[str, Any]:
        """All members by their names in code, passwords in clear: `KafkaSettings(**members)`."""
        members = {name: getattr(self, name) for name in type(self).model_fields}
        return {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in members.items()
        }


class WorkerSection(_TimedSection):
    """`[worker]`: the times and counts of the protocol (`DOMAIN.md` section 6, `PROTOCOL.md` section 3)."""

    attempt_deadline_s: Duration = _RULES.attempt_deadline_s
    """The whole of one HTTP attempt, connecting included."""
    settle_s: Duration = _RULES.settle_s
    """How long a request that timed out may still take effect at the provider (ask them)."""
    lease_s: Duration = _RULES.lease_s
    """How long a commit entitles us to send."""
    provider_concurrency: Annotated[int, Field(ge=1, le=16_000)] = _RULES.provider_concurrency
    """Maximum attempts in flight at one provider, over all its accounts; they take turns at it. Bounds the sockets."""
    retry_initial_s: Duration = _RULES.retry_initial_s
    retry_max_s: Duration = _RULES.retry_max_s
    conflict_attempts: Count = _RULES.conflict_attempts
    not_found_attempts: Count = _RULES.not_found_attempts
    not_found_delays_s: Durations = _RULES.not_found_delays_s
    inconsistent_after_s: Duration = _RULES.inconsistent_after_s
    unconfirmed_after_s: Duration = _RULES.unconfirmed_after_s
    account_probe_s: Durations = _RULES.account_probe_s
    """Delays before a paused account is probed with one attempt; the last one repeats; []: never."""
    forbidden_orders: Count = _RULES.forbidden_orders
    """A 403 for this many different orders in a row pauses their account."""
    park_limit: Count = _RULES.park_limit
    """If more orders of an account than this are rejected for good within `park_within`, and no more are accepted
    meanwhile, the account is paused and the orders are not parked.
    """
    park_within_s: Duration = _RULES.park_within_s
    commit_interval_s: Duration = 0.05
    """A busy partition commits at most this often, unless a whole batch waits."""
    commits_per_second: Annotated[float, Field(gt=0, le=1_000_000)] = 40.0
    """Maximum transactions per second over all partitions of a worker, those of a whole batch not counted."""
    max_poll_records: Count = 2_000
    max_batch_records: Count = 5_000
    """Maximum events in one transaction."""
    max_inbox_records: Count = 10_000
    """Maximum events queued for one partition before its input is paused."""
    start_at: Literal["earliest", "latest"] = "earliest"
    """Where the very first start begins reading."""
    topic_epoch: Annotated[int, Field(ge=0, le=511)] = 0
    """Raise it for a rebuild of the state or a new partition count; `epoch << 44` must stay below 2^53."""
    sending: bool = True
    """false: shadow mode; nothing is sent."""
    keep_settled_s: KeepFor = 69_120_000.0
    """A settled order without an event for this long is removed from the state; 0: never."""
    warm_s: Duration = 900.0
    """How long the state of a revoked partition is kept in memory."""
    adopt_state: bool = False
    """Takes over the state of another deployment (another group_id, transactional_id_prefix, event topic or cluster)
    that has stopped. Like `cartsync run --adopt-state`.
    """
    unreachable_exit_s: Duration = 600.0
    """A worker that has reached no Kafka broker for this long exits with 75."""
    restore_budget_s: Duration = 300.0
    """`/readyz` fails while a partition takes longer than this to restore."""

    def rules(self) -> DeliveryPolicy:
        """The settings that the core uses."""
        return DeliveryPolicy(**{name: getattr(self, name) for name in DeliveryPolicy.__struct_fields__})


class StoreSection(Section):
    """`[store]`: where a worker keeps its orders."""

    kind: Literal["memory", "disk"] = "memory"
    """disk: for more orders than memory; only what is used stays in memory."""
    path: str = ""
    """The folder on a local disk; each worker needs its own. What is in it may be lost or deleted."""
    cache: Size = 256 * 2**20
    """How much of what is on the disk is kept in memory, for all partitions together."""


class HttpSection(Section):
    """`[http]`: the private port, and how much of a provider's response is read."""

    host: NonEmpty = "127.0.0.1"
    """0.0.0.0 in a container: orders and commands then need `token`; probes and metrics stay open."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    """0: any free port."""
    allowed_hosts: HostNames = ()
    """Host names by which the port is reached, in addition to IP addresses and localhost."""
    token: Token = SecretStr("")
    """Required to see orders and run commands if the port is not bound to loopback."""
    response_max_bytes: Annotated[int, Field(ge=1_024, le=16_777_216)] = 1_048_576
    """Longer response bodies are truncated."""


class LogSection(Section):
    """`[log]`."""

    format: Literal["json", "console", "auto"] = "auto"
    """auto: text on a terminal, JSON otherwise."""
    level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    orders: Literal["plain", "hashed"] = "plain"
    """hashed: for references that may identify a person; lines have `account/` and 16 hex digits of its SHA-256."""


class CallbacksSection(_TimedSection):
    """`[callbacks]`: the public port of `cartsync receive`, and whose events workers trust."""

    record_secrets: Secrets = ()
    """The receiver signs its events with the first; workers accept any of them."""
    host: NonEmpty = "127.0.0.1"
    """Host of the public port; 0.0.0.0 in a container."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8081
    """0: any free port."""
    public_url: PublicUrl = ""
    """The part of callback URLs before `/callbacks/…`."""
    forwarded_from: Networks = ()
    """Addresses and networks of our proxies: their X-Forwarded-For names the client, for rate limits only."""
    deadline_s: Annotated[Duration, Field(ge=0.5, le=4.5)] = 4.0
    """From a callback's header to our response, whatever Kafka and the shop do: providers wait for 5 s."""
    header_timeout_s: Annotated[Duration, Field(ge=0.1, le=60)] = 5.0
    body_max_bytes: Annotated[int, Field(ge=4_096, le=1_000_000)] = 262_144
    connections: Annotated[int, Field(ge=10, le=10_000)] = 200
    """Maximum open connections; one more closes the one that has been idle longest."""
    question_slots: Annotated[int, Field(ge=1, le=1_000)] = 20
    """Connections reserved for questions; also how many questions the shop is asked concurrently."""
    account_rate: Annotated[float, Field(gt=0, le=1_000_000)] = 1000.0
    """Maximum callbacks per second of one account, with a valid token; questions and pushes count separately."""
    peer_rate: Annotated[float, Field(gt=0, le=1_000_000)] = 1000.0
    """The same for one client address."""
    refused_rate: Annotated[float, Field(gt=0, le=1_000_000)] = 10.0
    """Maximum callbacks per second of one client address that get an error response."""
    body_token_rate: Annotated[float, Field(gt=0, le=1_000_000)] = 200.0
    """Maximum callbacks per second of one client address whose body is read for a token and has no valid one."""
    in_flight_max_bytes: Annotated[int, Field(ge=1_000_000, le=1_000_000_000)] = 16_777_216
    """Maximum bytes of callbacks on their way to Kafka; above it providers are asked to retry."""

    def trust(self) -> Trust:
        """The object that signs and verifies with `record_secrets`."""
        return Trust([secret.get_secret_value() for secret in self.record_secrets])


class LookupsSection(_TimedSection):
    """`[accounts.NAME.lookups]`: where the receiver looks up answers that only the shop knows."""

    allow_http: bool = False
    """Whether `url` may be an http:// URL on another machine."""
    url: BaseUrl
    token: Annotated[Token, Field(min_length=1)]
    """Sent as a bearer token."""
    timeout_s: Annotated[Duration, Field(ge=0.1, le=4.4)] = 3.5
    default: dict[str, str]
    """By question: the answer to give if the shop does not answer in time. Has no default: you must choose."""

    @field_validator("url")
    @classmethod
    def _is_private(cls, value: str, info: ValidationInfo) -> str:
        return private_url(value, info, "shoppers' data would be sent unencrypted; allow_http = true permits it")


class ConsoleSection(Section):
    """`[console]`: the pages of `cartsync console`, who may see them, and how they act."""

    host: NonEmpty = "127.0.0.1"
    """0.0.0.0 in a container: needs `auth` other than none."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8082
    """0: any that is free."""
    allowed_hosts: HostNames = ()
    """Names by which the console is called, beside addresses and localhost."""
    auth: Literal["none", "basic", "proxy"] = "none"
    """none: everybody on this machine is an operator, and nobody else is let in. basic: by `users_file`. proxy: whom
    the proxies of `proxy_from` name.
    """
    users_file: str = ""
    """Written by `cartsync console user add`."""
    proxy_header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,100}$")] = "X-Forwarded-User"
    """Names who asks, as the proxy found out."""
    proxy_from: Networks = ()
    """Addresses and networks of the proxies that are believed."""
    forwarded_from: Networks = ()
    """Addresses and networks of our proxies: their X-Forwarded-For names the client, to limit wrong passwords only."""
    proxy_operators: Texts = ()
    """Of those whom the proxy names, who may act; all others only look."""
    index: NonEmpty = "cartsync-console.sqlite"
    """The file that the console keeps; each console needs its own. Without personal data, but for order references."""
    workers: Texts = ()
    """Private ports of all workers (http://host:port): through them it acts, and knows what they do. They want the
    token of `[http]` where they are not on loopback.
    """
    connections: Annotated[int, Field(ge=10, le=10_000)] = 200
    """At once."""
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] = 0
    """Where its metrics and probes are asked for, on `host`, by whoever reaches it; 0: nowhere."""
    with_worker: bool = False
    """`cartsync run` serves the console, too, as a process of its own: for one worker on one machine."""
    trace_url: str = ""
    """Where a trace is looked at: an address with `{trace_id}` in it. Empty: an order's page names traces only."""

    @field_validator("trace_url")
    @classmethod
    def _has_a_place(cls, value: str) -> str:
        if value and not re.fullmatch(r"https?://[!-z|~]+", value.replace("{trace_id}", "0", 1)):
            raise ValueError(
                'must be an address with {trace_id} once, such as "https://traces.example/trace/{trace_id}"'
            )
        if value and "{trace_id}" not in value:
            raise ValueError("must have {trace_id} where the id of the trace belongs")
        return value

    @field_validator("workers")
    @classmethod
    def _are_urls(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(not re.fullmatch(r"https?://[!-.0->A-~]+(:\d+)?/?", each) for each in value):
            raise ValueError('must be private ports of workers, such as "http://10.0.0.7:8080"')
        return value


SECTIONS: Mapping[str, type[BaseModel]] = {
    "kafka": KafkaSection,
    "worker": WorkerSection,
    "store": StoreSection,
    "http": HttpSection,
    "callbacks": CallbacksSection,
    "console": ConsoleSection,
    "log": LogSection,
}
"""By name; the section of `[accounts.NAME]` depends on its provider (`accounts.py`)."""
