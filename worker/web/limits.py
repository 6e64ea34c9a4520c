"""Rate limits of the public port per client and per account: a bounded number of token buckets. Pure."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

KEYS_MAX = 10_000
"""Maximum buckets; beyond it the least recently used is dropped, and starts full when its key comes back."""
_IPV6_SITE = 64
"""The bits of an IPv6 address that identify a client: it can choose the rest freely."""

Network = IPv4Network | IPv6Network


class Rate:
    """At most `per_s` per second and key, with bursts of `burst_s` seconds' worth."""

    def __init__(self, per_s: float, burst_s: float = 2.0) -> None:
        self._per_s = per_s
        self._full = max(1.0, per_s * burst_s)
        self._buckets: dict[str, tuple[float, float]] = {}
        """By key: the tokens left, and as of when; least recently used first."""

    def take(self, key: str, now_s: float) -> bool:
        """Takes a token; false: none is left."""
        left, at = self._buckets.pop(key, (self._full, now_s))
        left = min(self._full, left + (now_s - at) * self._per_s)
        allowed = left >= 1.0
        self._buckets[key] = (left - 1.0 if allowed else left, now_s)
        if len(self._buckets) > KEYS_MAX:
            del self._buckets[next(iter(self._buckets))]
        return allowed

    def give_back(self, key: str) -> None:
        """Returns a token that should not have been counted."""
        if key in self._buckets:
            left, at = self._buckets[key]
            self._buckets[key] = (min(self._full, left + 1.0), at)


class Peers:
    """Identifies clients for rate limits only: by their address, or by the one that our proxy forwards."""

    def __init__(self, forwarded_from: Iterable[str]) -> None:
        """`forwarded_from`: addresses or networks whose `X-Forwarded-For` is trusted. Raises `ValueError`."""
        self._proxies: tuple[Network, ...] = tuple(ip_network(each) for each in forwarded_from)
        self._known: dict[str, bool] = {}

    def of(self, peer: str, forwarded: Iterable[str]) -> str:
        """`forwarded`: all `X-Forwarded-For` headers, in order. The last address that is not one of our proxies counts:
        everything before it was written by the client.
        """
        if not self._proxies or not self._is_proxy(peer):
            return _site(peer)
        for each in reversed([part.strip() for header in forwarded for part in header.split(",")]):
            found = _address(each)
            if found is None:
                break
            if not self._contains(found):
                return _site(each)
        return _site(peer)

    def _is_proxy(self, peer: str) -> bool:
        known = self._known.get(peer)
        if known is None:
            found = _address(peer)
            known = found is not None and self._contains(found)
            if len(self._known) >= KEYS_MAX:
                self._known.clear()
            self._known[peer] = known
        return known

    def _contains(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address.version == proxy.version and address in proxy for proxy in self._proxies)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.strip("[]"))
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _site(text: str) -> str:
    address = _address(text) if ":" in text else None
    if isinstance(address, IPv6Address):
        return str(IPv6Network((address.packed[:8] + bytes(8), _IPV6_SITE)))
    return text if address is None else str(address)
