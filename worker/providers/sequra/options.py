"""What seQura wants to know of an account."""

from worker.model.account import Account


class SequraAccount(Account, frozen=True):
    """A merchant at seQura."""

    name: str
    provider: str
    base_url: str
    merchant_id: str
    username: str
    password: str
    store_ref: str | None = None
    platform: dict[str, str] | None = None
    cancellation_reasons: dict[str, str] = {}  # noqa: RUF012 - msgspec copies it
    """From the shop's reason to the provider's code."""
    default_cancellation_reason: str = "unspecified"

    @property
    def merchant(self) -> str:
        return self.merchant_id
