"""The times and counts that the protocol goes by, checked against each other."""

from msgspec import Struct

from worker.errors import ConfigError

CLOCK_RATE_ERROR = 0.01
"""How far the rates of two machines' clocks may differ."""


class DeliveryPolicy(Struct, frozen=True):
    """Settings of the core, in seconds and counts (`DOMAIN.md` section 6, `PROTOCOL.md` section 3)."""

    attempt_deadline_s: float = 8.0
    """D: the whole of one HTTP attempt, connecting included."""
    settle_s: float = 30.0
    """G: the longest that a request we gave up on may still be applied."""
    lease_s: float = 20.0
    """L: for how long a commit lets us send."""
    provider_concurrency: int = 512
    """Attempts in flight at one provider, over all its accounts in a worker."""
    retry_initial_s: float = 0.2
    retry_max_s: float = 300.0
    conflict_attempts: int = 4
    not_found_attempts: int = 5
    not_found_delays_s: tuple[float, ...] = (30.0, 300.0, 1800.0, 10800.0)
    inconsistent_after_s: float = 900.0
    unconfirmed_after_s: float = 3600.0
    account_probe_s: tuple[float, ...] = (60.0, 120.0, 300.0, 900.0)
    """After these a paused account is tried with one attempt, the last one again and again; empty: never."""
    forbidden_orders: int = 3
    """A 403 for so many different orders in a row pauses their account."""
    park_limit: int = 50
    """More orders of an account than these refused for good within `park_within_s`, and no more taken: it pauses."""
    park_within_s: float = 600.0

    @property
    def hold_max_s(self) -> float:
        """The longest hold after an attempt (`core.retry.hold_s`)."""
        return self.settle_s

    @property
    def takeover_hold_s(self) -> float:
        """H: until then a request of an unclean predecessor may still land: L and the longest hold, with a margin for
        the clocks.
        """
        return (self.lease_s + self.hold_max_s) * (1 + CLOCK_RATE_ERROR) + 1.0

    def inherited_hold_s(self, hold_ms: int) -> float:
        """For how many seconds an owner that takes over holds what is in doubt. `hold_ms`: what is left of the holds of
        the one before it, which left in order and knew; -1: that one did not tell.
        """
        return self.takeover_hold_s if hold_ms < 0 else hold_ms / 1000 * (1 + CLOCK_RATE_ERROR)

    @property
    def keep_alive_s(self) -> float:
        """How early a lease that is needed is renewed."""
        return (self.lease_s - self.attempt_deadline_s) / 3

    def permits_attempt(self, now: float, lease_until: float) -> bool:
        """Whether an attempt that begins now ends before the lease does (I6)."""
        return now + self.attempt_deadline_s <= lease_until

    def check(self) -> None:
        """Raises `ConfigError` naming the rule that the settings break."""
        for name in ("attempt_deadline_s", "settle_s", "lease_s", "retry_initial_s", "retry_max_s", "park_within_s"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name.removesuffix('_s')} must be above 0")
        if self.attempt_deadline_s >= self.lease_s:
            raise ConfigError(
                f"attempt_deadline ({self.attempt_deadline_s:g}s) must be shorter than lease ({self.lease_s:g}s): "
                "an attempt must have ended before another owner may send"
            )
        if self.keep_alive_s + 1.0 >= self.lease_s - self.attempt_deadline_s:
            raise ConfigError(
                f"lease ({self.lease_s:g}s) must exceed attempt_deadline ({self.attempt_deadline_s:g}s) by more than "
                "1.5s: otherwise nothing could be sent between two commits"
            )
        if self.retry_initial_s > self.retry_max_s:
            raise ConfigError(
                f"retry_initial ({self.retry_initial_s:g}s) must not be above retry_max ({self.retry_max_s:g}s)"
            )
        counts = ("provider_concurrency", "conflict_attempts", "not_found_attempts", "forbidden_orders", "park_limit")
        for name in counts:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1")
        if len(self.not_found_delays_s) < 1:
            raise ConfigError("not_found_delays must name at least one delay")
        if min(self.account_probe_s, default=1.0) <= 0:
            raise ConfigError("account_probe must name delays above 0, or none at all ([]): then nothing probes")
