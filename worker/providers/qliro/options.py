"""What Qliro wants to know of an account."""

from typing import Literal

from worker.model.account import Account


class QliroAccount(Account, frozen=True):
    """A merchant at Qliro."""

    name: str
    provider: str
    base_url: str
    api_key: str
    """`MerchantApiKey`: in every command, and no secret."""
    api_secret: str
    """Signs what is sent, and never goes along."""
    indivisible: Literal["first", "last"] = "first"
    """With which capture charges and adjustments go."""
    poll_after_s: tuple[float, ...] = (60.0, 300.0, 900.0, 3600.0)
    """How long after a command, and then after each look, a transaction that is not final is looked at; then hourly."""
    overdue_after_s: float = 86_400.0
    """A transaction that is not final by then is announced, and looked at all the same."""

    @property
    def merchant(self) -> str:
        return self.api_key
