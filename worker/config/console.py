"""The configuration of `cartsync console`: the same files and variables, without any credentials of a provider.

Of an account it takes which provider it is with; its secret files may be out of the console's reach.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from msgspec import Struct, field
from pydantic import ConfigDict
from pydantic_settings import BaseSettings, SettingsConfigDict

from worker import is_loopback
from worker.config import all_layers, build, missing_file, operator_sections, refused
from worker.config.sections import ConsoleSection, HttpSection, KafkaSection, LogSection, Section, WorkerSection
from worker.config.sources import SettingPath
from worker.config.values import NonEmpty
from worker.core.trust import Trust
from worker.errors import ConfigError


class _Named(Section):
    """Of `[accounts.NAME]`, what the console goes by."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    provider: NonEmpty


class _Console(BaseSettings):
    model_config = SettingsConfigDict(extra="ignore")

    console: ConsoleSection = ConsoleSection()


class _Watching(_Console):
    kafka: KafkaSection
    worker: WorkerSection = WorkerSection()
    http: HttpSection = HttpSection()
    log: LogSection = LogSection()
    accounts: dict[str, _Named] = {}


class ConsoleConfig(Struct, frozen=True, kw_only=True):
    """Everything that `cartsync console` goes by."""

    console: ConsoleSection
    kafka: KafkaSection
    worker: WorkerSection
    http: HttpSection
    log: LogSection
    providers: Mapping[str, str]
    """By account."""
    trust: Trust = field(default_factory=Trust)
    """What signs the events of operators; without secrets they are asked of the workers' private ports."""


def console_config(
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    host: str | None = None,
    port: int | None = None,
    metrics_port: int | None = None,
    *,
    serves: bool = True,
) -> ConsoleConfig:
    """What the console is to do. `host`, `port`, `metrics_port`: instead of those in `[console]`. `serves`: false for
    commands that read what it reads and open no port. Raises `ConfigError` with one line for every mistake.
    """
    layers = all_layers(path, environ, _is_wanted)
    if not any("kafka" in layer.tree for layer in layers):
        build(_Console, layers)  # its mistakes come first
        missing = "[kafka] bootstrap_servers is missing; set it or CARTSYNC_KAFKA__BOOTSTRAP_SERVERS"
        hint = ", or try `cartsync demo --console`" if serves else ""
        raise refused([missing + hint, *missing_file(path, environ)])
    found = build(_Watching, layers)
    given = {"host": host, "port": port, "metrics_port": metrics_port}
    instead = {name: value for name, value in given.items() if value is not None}
    console = found.console.model_copy(update=instead)
    if problems := list(_problems(console)) if serves else []:
        raise refused(problems)
    return ConsoleConfig(
        console=console,
        kafka=found.kafka,
        worker=found.worker,
        http=found.http,
        log=found.log,
        providers={name: account.provider for name, account in found.accounts.items()},
        trust=_trust(path, environ),
    )


def _trust(path: Path | None, environ: Mapping[str, str] | None) -> Trust:
    """By `[callbacks] record_secrets`, if they are within the console's reach."""
    with suppress(ConfigError):
        if (sections := operator_sections(path, environ)) is not None:
            return sections[1]
    return Trust()


def users_file(path: Path | None = None, environ: Mapping[str, str] | None = None) -> str:
    """`[console] users_file` alone, for those who edit it; empty: none is configured. Raises `ConfigError`."""
    return build(_Console, all_layers(path, environ, _is_wanted)).console.users_file


def _is_wanted(path: SettingPath) -> bool:
    return path[0] not in ("accounts", "callbacks") or path[2:3] == ("provider",)


def _problems(console: ConsoleSection) -> Iterator[str]:
    """DeliveryPolicy between the settings."""
    if console.auth == "none" and not is_loopback(console.host):
        yield (
            f'[console] auth = "none" is for loopback only, and host is {console.host}: anybody who reaches it could '
            'act on orders. Set auth = "basic" (with users_file) or "proxy" (with proxy_from)'
        )
    if console.auth == "basic" and not console.users_file:
        yield '[console] users_file is missing: auth = "basic" needs it; `cartsync console user add NAME` writes it'
    if console.auth == "proxy" and not console.proxy_from:
        yield (
            f'[console] proxy_from is missing: auth = "proxy" believes {console.proxy_header} of these addresses alone'
        )
