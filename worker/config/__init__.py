"""The configuration: one typed object from a TOML file < environment variables < secret files.

    [worker]                                 the file: --config, CARTSYNC_CONFIG, or ./cartsync.toml when it is there
    lease = "20s"
    CARTSYNC_WORKER__LEASE=20s               the same from the environment; empty counts as not set
    $CARTSYNC_SECRETS_DIR/CARTSYNC_…         a file named like the variable, containing the value
    password_file = "/run/secrets/acme"      on the account, instead of `password`

`Config.load` finds all mistakes at once, and says for each what is wrong, where it was set and what to write instead.
Durations are strings with a unit (`"250ms"`, `"8s"`, `"15m"`, `"6h"`); in code their names end in `_s`. Nothing else
reads the environment.
"""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import PrivateAttr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from worker.config.accounts import ACCOUNT_SECTIONS, AccountSection, AnyAccount, section_of
from worker.config.mistakes import account_name_problems, explained, provider_problems
from worker.config.sections import (
    CallbacksSection,
    ConsoleSection,
    HttpSection,
    KafkaSection,
    LogSection,
    StoreSection,
    WorkerSection,
)
from worker.config.sources import Layer, SettingPath, Tree, Wanted, find_file, read_layers, read_secret
from worker.config.values import format_duration, parse_duration
from worker.core.membership import AUTOMATIC, name_of
from worker.core.policy import DeliveryPolicy
from worker.core.targets import TargetChoice, check_targets
from worker.core.trust import Trust
from worker.errors import ConfigError
from worker.model.account import Account

__all__ = [
    "KNOWN_PROVIDERS",
    "SCENARIO_PROVIDER",
    "AccountSection",
    "Config",
    "HttpSection",
    "KafkaSection",
    "LogSection",
    "StoreSection",
    "WorkerSection",
    "account_from",
    "account_names",
    "all_layers",
    "build",
    "configured_accounts",
    "format_duration",
    "http_section",
    "missing_file",
    "operator_sections",
    "parse_duration",
    "read_secret",
    "refused",
    "state_sections",
    "worker_settings_from",
]

_NO_FILE = "there is no ./cartsync.toml, and neither --config nor CARTSYNC_CONFIG names another file"
LEAVE_MIN_S = 1.0
"""The least time that the last transaction of a revoked partition gets."""
KNOWN_PROVIDERS = frozenset(ACCOUNT_SECTIONS)
"""The names of the folders in `worker/providers`."""
SCENARIO_PROVIDER = "sequra"
"""Of accounts whose scenario does not name one."""


class _Source(PydanticBaseSettingsSource):
    """A layer, as a source of pydantic-settings. Its own source for variables would parse a password as JSON."""

    def __init__(self, settings: type[BaseSettings], tree: Tree) -> None:
        super().__init__(settings)
        self._tree = tree

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 - theirs
        return self._tree.get(field_name), field_name, False

    def __call__(self) -> Tree:
        return self._tree


class Config(BaseSettings):
    """All settings."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    kafka: KafkaSection
    worker: WorkerSection = WorkerSection()
    store: StoreSection = StoreSection()
    accounts: dict[str, AnyAccount]
    http: HttpSection = HttpSection()
    callbacks: CallbacksSection = CallbacksSection()
    console: ConsoleSection = ConsoleSection()
    log: LogSection = LogSection()
    _origins: dict[SettingPath, str] = PrivateAttr(default_factory=dict)

    @classmethod
    def load(
        cls,
        path: Path | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        providers: Collection[str] = KNOWN_PROVIDERS,
        checks: Sequence[Callable[[Self], None]] = (),
    ) -> Self:
        """The configuration of this process.

        `path`: the file, instead of `CARTSYNC_CONFIG` and `./cartsync.toml`. `environ`: instead of the real one.
        `checks`: further checks by modules that this one does not import; each raises `ConfigError`. Raises
        `ConfigError` with one line per mistake.
        """
        environ = _environ(environ)
        file = find_file(path, environ)
        layers = [Layer(tree={"kafka": {}, "accounts": {}}), *read_layers(file, environ)]
        config = build(cls, layers, providers, missing_file(file, environ))
        for layer in layers:
            config._origins |= layer.origins  # noqa: SLF001 - its own
        rules = [_check_policy, _check_times, _check_store, _check_names, _check_targets, _check_jobs, *checks]
        if problems := list(_broken_rules(config, rules)):
            raise refused(problems)
        return config

    def rules(self) -> DeliveryPolicy:
        """The settings that the core uses."""
        return self.worker.rules()

    def leave_s(self) -> float:
        """How long the last transaction of a revoked partition may take after the deadline of its attempts, so that
        both fit into the rebalance timeout (`PROTOCOL.md` section 4, step 18).
        """
        kafka = self.kafka
        return kafka.rebalance_timeout_s - 2 * kafka.heartbeat_s - 5 - self.worker.attempt_deadline_s

    def member_name(self, host: str) -> str:
        """By which the group is to know a worker on this machine again; empty: by nothing."""
        kafka = self.kafka
        if kafka.group_instance_id != AUTOMATIC:
            return kafka.group_instance_id
        # A rebalance drops a dead member that has no name after the rebalance timeout, one that has a name only with
        # its session: where that is longer, a name would cost more than it is worth.
        return name_of(host, self.http.port) if kafka.session_timeout_s <= kafka.rebalance_timeout_s else ""

    def merchant_accounts(self) -> dict[str, Account]:
        """The accounts by name. They contain passwords: never print them."""
        return {name: section.account(name) for name, section in self.accounts.items()}

    def accepted_targets(self) -> dict[str, TargetChoice]:
        """By account: what to do if its target has changed, where that is set."""
        return {name: section.accept_target for name, section in self.accounts.items() if section.accept_target}

    def redacted(self) -> dict[str, Any]:
        """All settings by their names in the file, durations as strings, secrets as `***`."""
        shown: dict[str, Any] = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return shown

    def origin(self, *path: str) -> str:
        """Where a setting was set; `default` if nowhere."""
        return self._origins.get(path, "default")


def account_from(
    name: str,
    members: Mapping[str, Any],
    *,
    providers: Collection[str] = KNOWN_PROVIDERS,
    scenario: bool = False,
) -> Account:
    """Builds an account from the members of `[accounts.NAME]`.

    `scenario`: missing members are filled in as `SCENARIOS.md` says. Raises `ConfigError` with one line per mistake.
    """
    if scenario:
        members = scenario_members(name, members)
    section_type = section_of(members)
    members = dict(members)
    layer = Layer("the scenario" if scenario else "the account", {"accounts": {name: members}})
    problems = [*provider_problems(layer, providers), *account_name_problems(name)]
    try:
        section = section_type.model_validate(members)
    except ValidationError as error:
        problems += explained(error, section_type, layer.origins, ("accounts", name))
        raise refused(problems) from None
    if problems:
        raise refused(problems)
    return section.account(name)


def scenario_members(name: str, members: Mapping[str, Any]) -> dict[str, Any]:
    """The members of a scenario's account, the missing ones filled in as `SCENARIOS.md` says."""
    provider = members.get("provider", SCENARIO_PROVIDER)
    section = ACCOUNT_SECTIONS.get(provider)
    usual = {} if section is None else {"provider": provider, **section.scenario}
    usual = {"callback_secrets": "signs the callbacks of a scenario: {name}", **usual}
    return {member: value.format(name=name) for member, value in usual.items()} | dict(members)


def worker_settings_from(members: Mapping[str, Any]) -> WorkerSection:
    """Builds `[worker]` from its members. Raises `ConfigError` with one line per mistake."""
    try:
        section = WorkerSection.model_validate(dict(members))
    except ValidationError as error:
        raise refused(explained(error, WorkerSection, {}, ("worker",))) from None
    section.rules().check()
    return section


class _Http(BaseSettings):
    model_config = SettingsConfigDict(extra="ignore")

    http: HttpSection = HttpSection()


class _Accounts(BaseSettings):
    model_config = SettingsConfigDict(extra="ignore")

    accounts: dict[str, AnyAccount] = {}


def http_section(path: Path | None = None, environ: Mapping[str, str] | None = None) -> HttpSection:
    """`[http]` alone, for commands that ask a running worker. Raises `ConfigError`."""
    return build(_Http, all_layers(path, environ)).http


class _State(BaseSettings):
    model_config = SettingsConfigDict(extra="ignore")

    kafka: KafkaSection | None = None
    worker: WorkerSection = WorkerSection()


def state_sections(
    path: Path | None = None, environ: Mapping[str, str] | None = None
) -> tuple[KafkaSection, WorkerSection] | None:
    """`[kafka]` and `[worker]`, for commands that read the state topic; `None`: no Kafka is configured. Raises
    `ConfigError`.
    """
    found = build(_State, all_layers(path, environ))
    return None if found.kafka is None else (found.kafka, found.worker)


class _Operating(_State):
    callbacks: CallbacksSection = CallbacksSection()


def operator_sections(
    path: Path | None = None, environ: Mapping[str, str] | None = None
) -> tuple[KafkaSection, Trust] | None:
    """`[kafka]`, and what makes workers believe an operator's events, for commands that write them; `None`: no Kafka is
    configured. Raises `ConfigError`.
    """
    found = build(_Operating, all_layers(path, environ, _is_operators))
    return None if found.kafka is None else (found.kafka, found.callbacks.trust())


def _is_operators(path: SettingPath) -> bool:
    return path[0] == "kafka" or path[:2] in (("callbacks", "record_secrets"), ("callbacks", "record_secrets_file"))


def account_names(path: Path | None = None, environ: Mapping[str, str] | None = None) -> set[str]:
    """The NAME of each `[accounts.NAME]`, without a look at its members; may be empty. Raises `ConfigError`."""
    layers = all_layers(path, environ, _is_operators)
    return {origin[1] for layer in layers for origin in layer.origins if origin[0] == "accounts" and len(origin) > 1}


def configured_accounts(
    path: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    providers: Collection[str] = KNOWN_PROVIDERS,
) -> dict[str, Account]:
    """The accounts alone, by name, for commands that need no Kafka; may be empty. Raises `ConfigError`."""
    sections = build(_Accounts, all_layers(path, environ), providers).accounts
    if problems := _name_problems(sections):
        raise refused(problems)
    return {name: section.account(name) for name, section in sections.items()}


def editor_of(environ: Mapping[str, str] | None = None) -> str:
    """The command of the editor that a person has chosen."""
    environ = _environ(environ)
    return environ.get("VISUAL") or environ.get("EDITOR") or "vi"


_Settings = TypeVar("_Settings", bound=BaseSettings)


def build(
    settings: type[_Settings],
    layers: Sequence[Layer],
    providers: Collection[str] = KNOWN_PROVIDERS,
    hints: Sequence[str] = (),
) -> _Settings:
    """Builds the settings from all layers. Raises `ConfigError` with the problems of every layer and of the result, and
    then what may explain them (`hints`).
    """
    problems = [problem for layer in layers for problem in layer.problems]
    origins: dict[SettingPath, str] = {}
    for layer in layers:
        problems += provider_problems(layer, providers)
        origins |= layer.origins
    try:
        sources = tuple(_Source(settings, layer.tree) for layer in reversed(layers))
        built = settings(_build_sources=(sources, {}))
    except ValidationError as error:
        problems += _name_problems({name for path in origins if path[0] == "accounts" for name in path[1:2]})
        raise refused([*problems, *explained(error, settings, origins), *hints]) from None
    if problems:
        raise refused([*problems, *hints])
    return built


def _name_problems(accounts: Iterable[str]) -> list[str]:
    return [problem for name in sorted(accounts) for problem in account_name_problems(name)]


def all_layers(
    path: Path | None, environ: Mapping[str, str] | None, wanted: Wanted = lambda _path: True
) -> list[Layer]:
    """All layers; later ones take precedence. Secret files of settings that are not `wanted` are not read."""
    environ = _environ(environ)
    return read_layers(find_file(path, environ), environ, wanted)


def missing_file(path: Path | None, environ: Mapping[str, str] | None = None) -> list[str]:
    """That no file was found, which explains whatever else is missing; empty: there is one."""
    return [] if find_file(path, _environ(environ)) is not None else [_NO_FILE]


_TRACES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER")


def wants_traces(environ: Mapping[str, str] | None = None) -> bool:
    """Whether the variables of OpenTelemetry name somebody who takes spans. It reads all others itself."""
    environ = _environ(environ)
    is_off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none"
    return not is_off and any(environ.get(name) for name in _TRACES)


def _environ(environ: Mapping[str, str] | None) -> Mapping[str, str]:
    return os.environ if environ is None else environ


def refused(problems: Sequence[str]) -> ConfigError:
    """The `ConfigError` for these problems, one per line."""
    return ConfigError("\n".join(problems))


def _broken_rules(config: Config, rules: Sequence[Callable[[Any], None]]) -> Iterator[str]:
    for rule in rules:
        try:
            rule(config)
        except ConfigError as error:
            yield str(error)


def _check_policy(config: Config) -> None:
    try:
        config.rules().check()
    except ConfigError as error:
        raise ConfigError(f"[worker] {error}") from None


def _check_store(config: Config) -> None:
    store = config.store
    if store.kind == "disk" and not store.path:
        raise ConfigError('[store] kind = "disk" needs path: a folder on a local disk, of this worker alone')
    if store.kind == "memory" and (unused := sorted(store.model_fields_set - {"kind"})):
        raise ConfigError(f'[store] {unused[0]} has no effect without kind = "disk"')


def _check_names(config: Config) -> None:
    problems = _name_problems(config.accounts)
    if not config.accounts:
        problems.append("[accounts]: no account is configured; add [accounts.NAME]")
    if problems:
        raise refused(problems)


def _check_targets(config: Config) -> None:
    check_targets(config.merchant_accounts())


def _check_jobs(config: Config) -> None:
    """Workers must trust the events that a job writes, and find them in the partition of the order's other events."""
    problems = []
    for name, account in config.accounts.items():
        if getattr(account, "disbursements", False):
            wants = f"[accounts.{name}] disbursements = true"
            if not config.kafka.partitioner:
                problems.append(
                    f"{wants} needs [kafka] partitioner (with event_key), the same as the shop's producers use"
                )
            if not config.callbacks.record_secrets:
                problems.append(f"{wants} needs [callbacks] record_secrets; `openssl rand -hex 32` generates one")
        zone = getattr(account, "timezone", None)
        try:
            if zone is not None:
                ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError):
            problems.append(f"[accounts.{name}] timezone: unknown time zone {zone}; install this system's tzdata")
    if problems:
        raise refused(problems)


def _check_times(config: Config) -> None:
    """`PROTOCOL.md` section 4, step 18: attempts must be able to finish before their partitions are released."""
    worker = config.worker
    if config.leave_s() < LEAVE_MIN_S:
        window_s = config.leave_s() + worker.attempt_deadline_s
        raise ConfigError(
            f"[worker] attempt_deadline ({format_duration(worker.attempt_deadline_s)}) must be shorter by at least "
            f"{format_duration(LEAVE_MIN_S)} than [kafka] rebalance_timeout − 2 × heartbeat − 5s "
            f"({format_duration(max(0.0, window_s))}): a revoked partition waits for its attempts, then commits"
        )
    if worker.commit_interval_s >= config.rules().keep_alive_s:
        raise ConfigError(
            f"[worker] commit_interval ({format_duration(worker.commit_interval_s)}) must be shorter than "
            f"(lease − attempt_deadline) / 3 ({config.rules().keep_alive_s:g}s): commits keep the lease"
        )
