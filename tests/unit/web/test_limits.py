"""Token buckets, and who somebody is."""

import pytest

from worker.web.limits import KEYS_MAX, Peers, Rate


def test_rate() -> None:
    """So many at once, then as fast as they come back."""
    rate = Rate(2.0)
    assert [rate.take("a", 100.0) for _ in range(5)] == [True] * 4 + [False]
    assert rate.take("b", 100.0)
    assert [rate.take("a", 100.5), rate.take("a", 100.5)] == [True, False]
    assert [rate.take("a", 200.0) for _ in range(5)] == [True] * 4 + [False]


def test_less_than_one_a_second() -> None:
    """There is always room for one."""
    rate = Rate(0.1)
    assert [rate.take("a", 0.0), rate.take("a", 5.0), rate.take("a", 11.0)] == [True, False, True]


def test_given_back() -> None:
    """It did not count; more than a full bucket there is not."""
    rate = Rate(1.0)
    assert [rate.take("a", 0.0), rate.take("a", 0.0), rate.take("a", 0.0)] == [True, True, False]
    rate.give_back("a")
    assert [rate.take("a", 0.0), rate.take("a", 0.0)] == [True, False]
    for _ in range(9):
        rate.give_back("a")
    rate.give_back("nobody")
    assert [rate.take("a", 0.0) for _ in range(3)] == [True, True, False]


def test_keys_are_bounded() -> None:
    """Whoever was not seen for longest is forgotten."""
    rate = Rate(1.0)
    assert [rate.take("a", 0.0) for _ in range(3)][-1] is False
    for number in range(KEYS_MAX):
        rate.take(str(number), 0.0)
    assert rate.take("a", 0.0)


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["198.51.100.7"], "192.0.2.1"),
        ("10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["203.0.113.9, 198.51.100.7, 10.2.0.1"], "198.51.100.7"),
        ("10.0.0.1", ["203.0.113.9", "198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["203.0.113.9, nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["10.0.0.2"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["[2001:db8:1:2:3:4:5:6]"], "2001:db8:1:2::/64"),
        ("::ffff:10.0.0.1", ["::ffff:198.51.100.7"], "198.51.100.7"),
        ("2001:db8:1:2:3:4:5:6", [], "2001:db8:1:2::/64"),
        ("2001:db8:ffff::1", ["198.51.100.7"], "198.51.100.7"),
        ("", [], ""),
    ],
)
def test_peers(peer: str, forwarded: list[str], expected: str) -> None:
    """The last address that no proxy of ours has; a whole site of IPv6 is one client."""
    assert Peers(["10.0.0.0/8", "2001:db8:ffff::/48"]).of(peer, forwarded) == expected
    assert Peers(["10.0.0.0/8", "2001:db8:ffff::/48"]).of(peer, forwarded) == expected


def test_known_proxies_are_bounded() -> None:
    """Whoever asks is looked up once, and not kept for ever."""
    peers = Peers(["10.0.0.1"])
    for number in range(KEYS_MAX + 10):
        peers.of(f"192.0.{number // 256}.{number % 256}", [])
    assert peers.of("10.0.0.1", ["192.0.2.1"]) == "192.0.2.1"
