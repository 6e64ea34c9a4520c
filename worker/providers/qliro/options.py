"""An account's settings for Qliro."""

from typing import Literal

from worker.model.account import Account


class QliroAccount(Account, frozen=True):
    """A merchant at Qliro."""

    name: str
    provider: str
    base_url: str
    api_key: str
    """`MerchantApiKey`: part of every command, and not secret."""
    api_secret: str
    """Signs requests, and is never sent."""
    indivisible: Literal["first", "last"] = "first"
    """The capture that includes charges and adjustments."""
    poll_after_s: tuple[float, ...] = (60.0, 300.0, 900.0, 3600.0)
    """How long after a command, and then after each read, a pending transaction is read again; then hourly."""
    overdue_after_s: float = 86_400.0
    """A transaction that is not final by then is announced, and still read."""

    @property
    def merchant(self) -> str:
        return self.api_key
