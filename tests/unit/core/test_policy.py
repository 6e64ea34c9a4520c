"""The settings of the core: what follows from them, and which break a rule with another one."""

from typing import Any

import pytest
from msgspec.structs import replace

from worker.core.policy import DeliveryPolicy
from worker.errors import ConfigError


def test_defaults_are_sound() -> None:
    """The defaults keep every rule, and are those of `DOMAIN.md` section 6."""
    rules = DeliveryPolicy()
    rules.check()
    assert (rules.attempt_deadline_s, rules.settle_s, rules.lease_s) == (8.0, 30.0, 20.0)
    assert (rules.retry_initial_s, rules.retry_max_s) == (0.2, 300.0)
    assert (rules.conflict_attempts, rules.not_found_attempts) == (4, 5)
    assert list(rules.not_found_delays_s) == [30, 300, 1800, 10800]
    assert (rules.inconsistent_after_s, rules.unconfirmed_after_s) == (900.0, 3600.0)
    assert rules.account_probe_s == (60.0, 120.0, 300.0, 900.0)
    assert (rules.forbidden_orders, rules.park_limit, rules.park_within_s) == (3, 50, 600.0)


def test_takeover_hold_covers_lease_and_settle() -> None:
    """A successor waits until an unclean predecessor's request must have landed, by any clock."""
    rules = DeliveryPolicy()
    assert rules.takeover_hold_s == pytest.approx((20 + 30) * 1.01 + 1)
    assert rules.keep_alive_s == pytest.approx(4)


@pytest.mark.parametrize(
    ("hold_ms", "expected"), [(-1, (20 + 30) * 1.01 + 1), (0, 0.0), (10_000, 10.1), (90_000, 90.9)]
)
def test_hold_goes_on_at_the_successor(hold_ms: int, expected: float) -> None:
    """For as long as its predecessor said, by a clock that may be faster; in full when it said nothing."""
    assert DeliveryPolicy().inherited_hold_s(hold_ms) == pytest.approx(expected)


BROKEN: list[tuple[dict[str, Any], str]] = [
    *(
        ({name: value}, f"{name.removesuffix('_s')} must be above 0")
        for name in ("attempt_deadline_s", "settle_s", "lease_s", "retry_initial_s", "retry_max_s", "park_within_s")
        for value in (0, -1)
    ),
    ({"attempt_deadline_s": 20.0}, "must be shorter than lease"),
    ({"attempt_deadline_s": 18.5}, "lease \\(20s\\) must exceed attempt_deadline \\(18.5s\\)"),
    ({"retry_initial_s": 301.0}, "retry_initial \\(301s\\) must not be above retry_max \\(300s\\)"),
    ({"conflict_attempts": 0}, "must be at least 1"),
    ({"provider_concurrency": 0}, "provider_concurrency must be at least 1"),
    ({"not_found_attempts": 0}, "must be at least 1"),
    ({"forbidden_orders": 0}, "forbidden_orders must be at least 1"),
    ({"park_limit": 0}, "park_limit must be at least 1"),
    ({"account_probe_s": (60.0, 0.0)}, "account_probe must name delays above 0"),
    ({"not_found_delays_s": ()}, "at least one delay"),
]


@pytest.mark.parametrize(("change", "words"), BROKEN)
def test_broken_rule_is_named(change: dict[str, Any], words: str) -> None:
    """The error names the setting and what it collides with."""
    with pytest.raises(ConfigError, match=words):
        replace(DeliveryPolicy(), **change).check()


@pytest.mark.parametrize(
    "change",
    [{"attempt_deadline_s": 18.4}, {"retry_initial_s": 300.0}, {"conflict_attempts": 1}, {"account_probe_s": ()}],
)
def test_rule_at_its_bound(change: dict[str, Any]) -> None:
    """What the rules just allow passes."""
    replace(DeliveryPolicy(), **change).check()
