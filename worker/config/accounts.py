"""`[accounts.NAME]`: the settings of a merchant account; its `provider` decides which there are."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

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

    def account(self, name: str) -> Account:
        """The account, with its secrets in clear."""
        members = {
            member: getattr(self, member) for member in self.made.__struct_fields__ if member in type(self).model_fields
        }
        return self.made(name=name, **{member: _revealed(value) for member, value in members.items()})


def _revealed(value: Any) -> Any:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


_EVERY_MAX_S = 31 * 86_400.0


class SequraSection(AccountSection):
    """seQura."""

    made = SequraAccount

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

    public_key: Password
    private_key: Password
    already_processed: Texts = ALREADY_PROCESSED
    token_refused: Texts = TOKEN_REFUSED


class QliroSection(AccountSection):
    """Qliro."""

    made = QliroAccount

    api_key: Annotated[MerchantId, Field(max_length=50)]
    api_secret: Password
    send_on_confirm: bool = False
    indivisible: Literal["first", "last"] = "first"
    poll_after_s: Annotated[Durations, Field(alias="poll_after")] = (60.0, 300.0, 900.0, 3600.0)
    overdue_after_s: Annotated[Duration, Field(alias="overdue_after")] = 86_400.0


class UnknownSection(AccountSection):
    """An account whose provider is unknown or missing: its other settings cannot be checked."""

    model_config = ConfigDict(extra="ignore", frozen=True)


ACCOUNT_SECTIONS: Mapping[str, type[AccountSection]] = {
    "atarapay": AtaraPaySection,
    "qliro": QliroSection,
    "sequra": SequraSection,
}
"""By provider."""
_UNKNOWN = "unknown"


def _provider_of(value: Any) -> str:
    provider = value.get("provider") if isinstance(value, dict) else getattr(value, "provider", None)
    return str(provider) if provider in ACCOUNT_SECTIONS else _UNKNOWN


AnyAccount = Annotated[
    Annotated[AtaraPaySection, Tag("atarapay")]
    | Annotated[QliroSection, Tag("qliro")]
    | Annotated[SequraSection, Tag("sequra")]
    | Annotated[UnknownSection, Tag(_UNKNOWN)],
    Discriminator(_provider_of),
]
"""The section of an account, by its provider."""


def section_of(members: Mapping[str, Any]) -> type[AccountSection]:
    """The section type for an account with these members."""
    return ACCOUNT_SECTIONS.get(members.get("provider", ""), UnknownSection)


def section_for(provider: str) -> type[BaseModel]:
    """The section type for a provider's name, or for the tag in an error of pydantic."""
    return ACCOUNT_SECTIONS.get(provider, UnknownSection)
