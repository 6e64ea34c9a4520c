"""The configuration of `cartsync receive`: the same files and variables as the worker's, but fewer settings.

From an account it reads only what it needs to verify callbacks and to answer questions. Everything else is for the
worker, is ignored and may be absent: the receiver has no provider credentials, and need not be able to read the
worker's secret files.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct
from pydantic import ConfigDict, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from worker.config import all_layers, build, missing_file, refused
from worker.config.mistakes import account_name_problems, explained
from worker.config.sections import (
    CallbacksSection,
    HttpSection,
    KafkaSection,
    LogSection,
    LookupsSection,
    Section,
)
from worker.config.sources import SettingPath, setting_name
from worker.config.values import NonEmpty, Secret, Secrets, format_duration
from worker.core.trust import Trust
from worker.errors import ConfigError
from worker.model.callbacks import Answered, Caller, Lookups
from worker.providers.registry import CALLBACKS, RECONCILERS

FILE_MAX_BYTES = 262_144
"""The largest file with the answer to a question."""


class CallerSection(Section):
    """The members of `[accounts.NAME]` that the receiver uses."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    provider: NonEmpty
    callback_secrets: Secrets = ()
    public_key: Secret = SecretStr("")
    private_key: Secret = SecretStr("")
    lookups: LookupsSection | None = None


class _Believed(BaseSettings):
    model_config = SettingsConfigDict(extra="ignore")

    callbacks: CallbacksSection = CallbacksSection()


class _Addresses(BaseSettings):
    model_config = SettingsConfigDict(extra="ignore")

    callbacks: CallbacksSection = CallbacksSection()
    accounts: dict[str, dict[str, Any]] = {}


class _Receiving(_Addresses):
    kafka: KafkaSection
    http: HttpSection = HttpSection()
    log: LogSection = LogSection()


class ReceiverConfig(Struct, frozen=True, kw_only=True):
    """All settings of `cartsync receive`."""

    kafka: KafkaSection
    http: HttpSection
    callbacks: CallbacksSection
    log: LogSection
    callers: Mapping[str, Caller]


def receiver_config(path: Path | None = None, environ: Mapping[str, str] | None = None) -> ReceiverConfig:
    """The receiver's configuration. Raises `ConfigError` with one line per mistake."""
    layers = all_layers(path, environ, _is_wanted)
    if not any("kafka" in layer.tree for layer in layers):
        layers[0].tree["kafka"] = {}  # so that its missing settings are reported
    found = build(_Receiving, layers, CALLBACKS, missing_file(path, environ))
    origins = {path: origin for layer in layers for path, origin in layer.origins.items()}
    problems, callers = [*_problems(found)], {}
    for name, members in found.accounts.items():
        try:
            callers[name] = _caller(name, members, origins, found.callbacks)
        except ConfigError as error:
            problems += str(error).splitlines()
    if not problems and not any(caller.callback_secrets for caller in callers.values()):
        problems.append("[accounts]: no account has callback_secrets, so no callback could be verified")
    if problems:
        raise refused(problems)
    return ReceiverConfig(kafka=found.kafka, http=found.http, callbacks=found.callbacks, log=found.log, callers=callers)


def callers(path: Path | None = None, environ: Mapping[str, str] | None = None) -> tuple[str, dict[str, Caller]]:
    """`public_url`, and the accounts as the receiver sees them, for commands without Kafka. Raises `ConfigError`."""
    layers = all_layers(path, environ, _is_wanted)
    found = build(_Addresses, layers, CALLBACKS)
    if not found.accounts:
        raise refused(["[accounts]: no account is configured; add [accounts.NAME]", *missing_file(path, environ)])
    origins = {path: origin for layer in layers for path, origin in layer.origins.items()}
    known = {name: _caller(name, members, origins, found.callbacks) for name, members in found.accounts.items()}
    return found.callbacks.public_url, known


def believed(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Trust | None:
    """Whose events workers believe, for commands that judge events; `None`: no secret can be had here."""
    try:
        found = build(_Believed, all_layers(path, environ, lambda wanted: wanted[0] == "callbacks"))
    except ConfigError:
        return None
    return found.callbacks.trust() if found.callbacks.record_secrets else None


def caller_from(name: str, members: Mapping[str, Any]) -> Caller:
    """Builds an account from the members of `[accounts.NAME]`. Raises `ConfigError` with one line per mistake."""
    return _caller(name, members, {}, CallbacksSection())


_WANTED = frozenset(CallerSection.model_fields)


def _is_wanted(path: SettingPath) -> bool:
    return path[0] != "accounts" or len(path) < 3 or path[2] in _WANTED


def _problems(found: _Receiving) -> Iterator[str]:
    """Checks across sections."""
    if not found.kafka.partitioner:
        yield (
            "[kafka] partitioner: must be set (with event_key), because callbacks are written to the event topic: "
            "murmur2 if the shop's producers use Java, aiokafka or kafka-python, crc32 if they use librdkafka"
        )
    if not found.callbacks.record_secrets:
        yield (
            "[callbacks] record_secrets is missing: workers trust only events that the receiver has signed with it; "
            "`openssl rand -hex 32` generates one"
        )
    if found.callbacks.question_slots >= found.callbacks.connections:
        yield "[callbacks] question_slots: must be less than connections: the rest is for pushes"


def _caller(
    name: str, members: Mapping[str, Any], origins: Mapping[SettingPath, str], callbacks: CallbacksSection
) -> Caller:
    """Raises `ConfigError`."""
    above = ("accounts", name)
    problems = list(account_name_problems(name))
    try:
        section = CallerSection.model_validate(members)
    except ValidationError as error:
        raise refused(problems + explained(error, CallerSection, origins, above)) from None
    if section.callback_secrets and section.provider in CALLBACKS:
        title = RECONCILERS[section.provider].title
        problems += [
            f"{setting_name((*above, key))} is missing: it is needed to verify {title}'s notifications"
            for key in CALLBACKS[section.provider].account_keys
            if not getattr(section, key).get_secret_value()
        ]
    lookups = None
    if section.lookups is not None:
        try:
            lookups = _lookups(section.provider, section.lookups, (*above, "lookups"), callbacks)
        except ConfigError as error:
            problems += str(error).splitlines()
    if problems:
        raise refused(problems)
    return Caller(
        name=name,
        provider=section.provider,
        callback_secrets=tuple(secret.get_secret_value() for secret in section.callback_secrets),
        public_key=section.public_key.get_secret_value(),
        private_key=section.private_key.get_secret_value(),
        lookups=lookups,
    )


def _lookups(provider: str, section: LookupsSection, above: SettingPath, callbacks: CallbacksSection) -> Lookups:
    """Raises `ConfigError`."""
    adapter = CALLBACKS[provider]
    where = setting_name((*above, "default"))
    if not adapter.questions:
        raise ConfigError(f"[{'.'.join(above)}]: {provider} asks no questions that a shop has to answer")
    problems = []
    if section.timeout_s >= callbacks.deadline_s:
        problems.append(
            f"{setting_name((*above, 'timeout'))} ({format_duration(section.timeout_s)}) must be shorter than "
            f"[callbacks] deadline ({format_duration(callbacks.deadline_s)})"
        )
    problems += [
        f"{where}: unknown question {name!r}; {provider} asks {', '.join(adapter.questions)}"
        for name in section.default
        if name not in adapter.questions
    ]
    defaults: dict[str, Answered] = {}
    for question in adapter.questions:
        if question not in section.default:
            problems.append(
                f"{where}.{question} is missing: set the answer to give if the shop does not answer in time"
            )
            continue
        try:
            defaults[question] = adapter.default(question, section.default[question], _read)
        except ConfigError as error:
            problems.append(f"{where}.{question} = {section.default[question]!r}: {error}")
    if problems:
        raise refused(problems)
    return Lookups(
        url=section.url, token=section.token.get_secret_value(), timeout_s=section.timeout_s, defaults=defaults
    )


def _read(file: str) -> bytes:
    try:
        with Path(file).open("rb") as stream:
            return stream.read(FILE_MAX_BYTES)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}") from None
