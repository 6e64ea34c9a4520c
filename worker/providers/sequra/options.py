"""What seQura wants to know of an account."""

from typing import Literal

from worker.model.account import Account

DeliveryMode = Literal["update", "report", "report_then_update"]
"""How an order is told: by Order Update, by the daily delivery report, or by report until its first one was taken and
by Order Update from then on. seQura calls the two alternatives (docs.sequra.com, Delivery Report, 2026-10)."""


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
    """Of `report_at`, by its IANA name."""
    report_path: str = "/orders/delivery_reports"
    """Below `base_url`. seQura's documentation and its current library have this one, its old PHP client posts to
    `/delivery_reports` (2026-10)."""
    report_orders_max: int = 5000
    """Entries of a page at most; seQura's own library sends pages of 5,000 (2026-10)."""
    statistics: bool = False
    """Whether all orders of the last 7 days are told, whatever they were paid with."""
    disbursements: bool = False
    """Whether it is polled what was paid out."""
    disbursements_every_s: float = 21_600.0

    @property
    def merchant(self) -> str:
        return self.merchant_id
