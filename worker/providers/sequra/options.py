"""An account's settings for seQura."""

from typing import Literal

from worker.model.account import Account

DeliveryMode = Literal["update", "report", "report_then_update"]
"""How an order is sent: by Order Update, in the daily delivery report, or in reports until its first one was accepted
and by Order Update from then on. seQura calls the two alternatives (docs.sequra.com, Delivery Report, 2026-10)."""


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
    delivery: DeliveryMode = "update"
    report_at: tuple[int, ...] = (210,)
    """Minutes after midnight, at least one."""
    timezone: str = "Europe/Madrid"
    """The time zone of `report_at`, by its IANA name."""
    report_path: str = "/orders/delivery_reports"
    """Below `base_url`. seQura's documentation and its current library use this path, its old PHP client posts to
    `/delivery_reports` (2026-10)."""
    report_orders_max: int = 5000
    """Maximum number of entries per page; seQura's own library sends pages of 5,000 (2026-10)."""
    statistics: bool = False
    """Whether to send all orders of the last 7 days, however they were paid."""
    disbursements: bool = False
    """Whether to poll what was paid out."""
    disbursements_every_s: float = 21_600.0

    @property
    def merchant(self) -> str:
        return self.merchant_id
