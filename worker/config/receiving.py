"""The configuration of `cartsync receive`: the same files and variables, of which it needs less.

Of an account it takes what proves callbacks and answers questions. What else stands there is the worker's, is not used,
and need not be there: the receiver holds no credentials of a provider, and its secret files may be out of its reach.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct
from pydantic import ConfigDict, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from worker.config import all_layers, build, refused
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
from worker.errors import ConfigError
from worker.model.callbacks import Answered, Caller, Lookups
from worker.providers.registry import CALLBACKS

FILE_MAX_BYTES = 262_144
"""Of a file with the answer to a question."""


class CallerSection(Section):
    """Of `[accounts.NAME]`, what the receiver goes by."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    provider: NonEmpty
    callback_secrets: Secrets = ()
    public_key: Secret = SecretStr("")
    private_key: Secret = SecretStr("")
    lookups: LookupsSection | None = None


class _Addresses(BaseSettings):
    model_config = SettingsConfigDict(extra="ignore")

    callbacks: CallbacksSection = CallbacksSection()
    accounts: dict[str, dict[str, Any]] = {}


class _Receiving(_Addresses):
    kafka: KafkaSection
    http: HttpSection = HttpSection()
    log: LogSection = LogSection()


class ReceiverConfig(Struct, frozen=True, kw_only=True):
    """Everything that `cartsync receive` goes by."""

    kafka: KafkaSection
    http: HttpSection
    callbacks: CallbacksSection
    log: LogSection
    callers: Mapping[str, Caller]


def receiver_config(path: Path | None = None, environ: Mapping[str, str] | None = None) -> ReceiverConfig:
    """What the receiver is to do. Raises `ConfigError` with one line for every mistake."""
    layers = all_layers(path, environ, _is_wanted)
    if not any("kafka" in layer.tree for layer in layers):
        layers[0].tree["kafka"] = {}  # so that what is missing in it is said
    found = build(_Receiving, layers, CALLBACKS)
    origins = {path: origin for layer in layers for path, origin in layer.origins.items()}
    problems, callers = [*_problems(found)], {}
    for name, members in found.accounts.items():
        try:
            callers[name] = _caller(name, members, origins, found.callbacks)
        except ConfigError as error:
            problems += str(error).splitlines()
    if not problems and not any(caller.callback_secrets for caller in callers.values()):
        problems.append("[accounts]: none has callback_secrets, so no callback could prove where it comes from")
    if problems:
        raise refused(problems)
    return ReceiverConfig(kafka=found.kafka, http=found.http, callbacks=found.callbacks, log=found.log, callers=callers)


def callers(path: Path | None = None, environ: Mapping[str, str] | None = None) -> tuple[str, dict[str, Caller]]:
    """`public_url`, and the accounts as the receiver knows them, for those who need no Kafka. Raises `ConfigError`."""
    layers = all_layers(path, environ, _is_wanted)
    found = build(_Addresses, layers, CALLBACKS)
    origins = {path: origin for layer in layers for path, origin in layer.origins.items()}
    known = {name: _caller(name, members, origins, found.callbacks) for name, members in found.accounts.items()}
    return found.callbacks.public_url, known


def caller_from(name: str, members: Mapping[str, Any]) -> Caller:
    """One account of its members as they stand in `[accounts.NAME]`. Raises `ConfigError` with one line a mistake."""
    return _caller(name, members, {}, CallbacksSection())


_WANTED = frozenset(CallerSection.model_fields)


def _is_wanted(path: SettingPath) -> bool:
    return path[0] != "accounts" or len(path) < 3 or path[2] in _WANTED


def _problems(found: _Receiving) -> Iterator[str]:
    """Rules between the sections."""
    if not found.kafka.partitioner:
        yield (
            "[kafka] partitioner: must be set (with event_key), as what providers say is written to the event topic: "
            "murmur2 where the shop's producers are Java, aiokafka or kafka-python, crc32 where they are librdkafka"
        )
    if not found.callbacks.record_secrets:
        yield (
            "[callbacks] record_secrets is missing: workers believe what the receiver writes by them alone; "
            "`openssl rand -hex 32` makes one"
        )
    if found.callbacks.question_slots >= found.callbacks.connections:
        yield "[callbacks] question_slots: must be fewer than connections: the others are for pushes"


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
    if section.provider == "atarapay" and section.callback_secrets:
        problems += [
            f"{setting_name((*above, key))} is missing: AtaraPay's notifications are checked by it"
            for key in ("public_key", "private_key")
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
        raise ConfigError(f"[{'.'.join(above)}]: {provider} asks nothing that a shop would have to answer")
    problems = []
    if section.timeout_s >= callbacks.deadline_s:
        problems.append(
            f"{setting_name((*above, 'timeout'))} ({format_duration(section.timeout_s)}) must be shorter than "
            f"[callbacks] deadline ({format_duration(callbacks.deadline_s)})"
        )
    problems += [
        f"{where}: there is no question {name!r}; {provider} asks {', '.join(adapter.questions)}"
        for name in section.default
        if name not in adapter.questions
    ]
    defaults: dict[str, Answered] = {}
    for question in adapter.questions:
        if question not in section.default:
            problems.append(f"{where}.{question} is missing: say what is answered when the shop does not in time")
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
