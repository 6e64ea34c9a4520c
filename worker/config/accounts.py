"""`[accounts.NAME]`: the settings of a merchant account; its `provider` decides which there are."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Union

import msgspec
from pydantic import BaseModel, ConfigDict, Discriminator, Field, SecretStr, Tag, ValidationInfo, field_validator

from worker.config.sections import LookupsSection, Section
from worker.config.values import (
    BaseUrl,
    Duration,
    Durations,
    MerchantId,
    NonEmpty,
    Password,
    Proxy,
    Secrets,
    Texts,
    TimesOfDay,
    TimeZone,
    UrlPath,
    Username,
    format_duration,
    private_url,
)
from worker.core.targets import TargetChoice
from worker.model.account import Account
from worker.providers.atarapay.options import ALREADY_PROCESSED, TOKEN_REFUSED, AtaraPayAccount
from worker.providers.qliro.options import QliroAccount
from worker.providers.sequra.options import DeliveryMode, SequraAccount


class AccountSection(Section):
    """The settings of every account, whatever its provider."""

    made: ClassVar[type[Account]]
    """What the adapter gets: the members of the same names."""
    scenario: ClassVar[Mapping[str, str]]
    """What an account has in scenarios that do not say it; `{name}` is the account's."""

    provider: NonEmpty
    allow_http: bool = False
    """Whether `base_url` may be an http:// URL on another machine."""
    base_url: BaseUrl
    concurrency: Annotated[int, Field(ge=1, le=1_000)] = 32
    rate_per_s: Annotated[float, Field(ge=0, le=100_000)] = 0.0
    tls_ca_file: str = ""
    tls_cert_file: str = ""
    tls_key_file: str = ""
    proxy: Proxy = SecretStr("")
    """`http://[user:password@]host:port`; proxies from the environment are ignored."""
    trust_origin: bool = True
    """false: changes are sent even if their event says they were made at the provider."""
    callback_secrets: Secrets = ()
    """For the tokens in callback URLs: the first signs, all are accepted."""
    lookups: LookupsSection | None = None
    """Where the receiver of callbacks looks up answers at the shop."""
    accept_target: TargetChoice | None = None
    """What to do if base_url, the merchant or provider has changed; for one start, like `run --accept-target`."""

    @field_validator("base_url")
    @classmethod
    def _is_private(cls, value: str, info: ValidationInfo) -> str:
        hint = "the password and the orders would be sent unencrypted; allow_http = true permits it"
        return private_url(value, info, hint)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Raises `TypeError` for a section whose settings its account would not get, or with another default."""
        super().__pydantic_init_subclass__(**kwargs)
        if hasattr(cls, "made") and (problems := setting_problems(cls)):
            raise TypeError(f"{cls.__name__}: {'; '.join(problems)}")

    def account(self, name: str) -> Account:
        """The account, with its secrets in clear."""
        members = {member: getattr(self, member) for member in type(self).model_fields.keys() - NOT_OF_ACCOUNT}
        return self.made(name=name, **{member: _revealed(value) for member, value in members.items()})


NOT_OF_ACCOUNT = frozenset({"allow_http", "callback_secrets", "lookups", "accept_target"})
"""Settings that others than the adapter use."""


def setting_problems(section: type[AccountSection]) -> list[str]:
    """Where a section and the type that it makes disagree."""
    known = {field.name: field for field in msgspec.structs.fields(section.made)}
    problems = []
    for name, setting in section.model_fields.items():
        if name in NOT_OF_ACCOUNT:
            continue
        if name not in known:
            problems.append(f"{name} is no member of {section.made.__name__}")
        elif not setting.is_required() and _revealed(setting.default) != _default(known[name]):
            problems.append(f"{name} has another default in {section.made.__name__}")
    return problems


def _default(field: msgspec.structs.FieldInfo) -> Any:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def _revealed(value: Any) -> Any:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


_EVERY_MAX_S = 31 * 86_400.0


class SequraSection(AccountSection):
    """seQura."""

    made = SequraAccount
    scenario = MappingProxyType(
        {
            "base_url": "https://sandbox.sequrapi.com",
            "merchant_id": "{name}",
            "username": "user",
            "password": "secret",
        }
    )

    merchant_id: MerchantId
    username: Username
    password: Password
    store_ref: NonEmpty | None = None
    platform: dict[str, str] | None = None
    send_on_confirm: bool = False
    cancellation_reasons: dict[str, NonEmpty] = {}  # noqa: RUF012 - pydantic copies it
    default_cancellation_reason: NonEmpty = "unspecified"
    delivery: DeliveryMode = "update"
    report_at: TimesOfDay = (210,)
    timezone: TimeZone = "Europe/Madrid"
    report_path: UrlPath = "/orders/delivery_reports"
    report_orders_max: Annotated[int, Field(ge=1, le=5_000)] = 5_000
    statistics: bool = False
    disbursements: bool = False
    disbursements_every_s: Annotated[Duration, Field(alias="disbursements_every")] = 21_600.0

    @field_validator("disbursements_every_s")
    @classmethod
    def _is_not_too_often(cls, value: float) -> float:
        if not 1.0 <= value <= _EVERY_MAX_S:
            raise ValueError(f'must be from "1s" to "{format_duration(_EVERY_MAX_S)}"')
        return value


class AtaraPaySection(AccountSection):
    """AtaraPay."""

    made = AtaraPayAccount
    scenario = MappingProxyType(
        {
            "base_url": "https://test-api.atarapay.com/api",
            "public_key": "public-{name}",
            "private_key": "private-{name}",
        }
    )

    public_key: Password
    private_key: Password
    already_processed: Texts = ALREADY_PROCESSED
    token_refused: Texts = TOKEN_REFUSED


class QliroSection(AccountSection):
    """Qliro."""

    made = QliroAccount
    scenario = MappingProxyType(
        {
            "base_url": "https://pago.qit.nu/checkout/adminapi",
            "api_key": "{name}",
            "api_secret": "secret",
        }
    )

    api_key: Annotated[MerchantId, Field(max_length=50)]
    api_secret: Password
    send_on_confirm: bool = False
    indivisible: Literal["first", "last"] = "first"
    poll_after_s: Annotated[Durations, Field(alias="poll_after")] = (60.0, 300.0, 900.0, 3600.0)
    overdue_after_s: Annotated[Duration, Field(alias="overdue_after")] = 86_400.0


class UnknownSection(AccountSection):
    """An account whose provider is unknown or missing: its other settings cannot be checked."""

    model_config = ConfigDict(extra="ignore", frozen=True)


ACCOUNT_SECTIONS: dict[str, type[AccountSection]] = {
    "atarapay": AtaraPaySection,
    "qliro": QliroSection,
    "sequra": SequraSection,
}
"""By provider: whatever is known of a provider's settings follows from this table."""
_UNKNOWN = "unknown"


def _provider_of(value: Any) -> str:
    provider = value.get("provider") if isinstance(value, dict) else getattr(value, "provider", None)
    return str(provider) if provider in ACCOUNT_SECTIONS else _UNKNOWN


if TYPE_CHECKING:
    AnyAccount = AccountSection
else:
    _TAGGED = [
        Annotated[section, Tag(name)] for name, section in (ACCOUNT_SECTIONS | {_UNKNOWN: UnknownSection}).items()
    ]
    AnyAccount = Annotated[Union[tuple(_TAGGED)], Discriminator(_provider_of)]  # noqa: UP007 - of a table
"""The section of an account, by its provider."""


def section_of(members: Mapping[str, Any]) -> type[AccountSection]:
    """The section type for an account with these members."""
    return ACCOUNT_SECTIONS.get(members.get("provider", ""), UnknownSection)


def section_for(provider: str) -> type[BaseModel]:
    """The section type for a provider's name, or for the tag in an error of pydantic."""
    return ACCOUNT_SECTIONS.get(provider, UnknownSection)
