"""cartsync: reads order events from Kafka, computes carts, keeps payment providers in agreement with them."""

from collections.abc import Mapping
from ipaddress import ip_address

__version__ = "0.1.0"


def is_loopback(host: str) -> bool:
    """Whether only this machine is meant: what listens there is reached by nobody else, what is sent there stays."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def http_url(host: str, port: int) -> str:
    """The base URL of what listens there, without a slash at its end."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_cross_site(headers: Mapping[str, str]) -> bool:
    """Whether a browser sends this on behalf of a page that is not ours (a form needs no leave to post)."""
    if headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
        return True
    origin = headers.get("Origin")
    return origin is not None and origin.partition("://")[2] != headers.get("Host")
