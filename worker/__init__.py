"""cartsync: reads order events from Kafka, computes carts, keeps payment providers in sync with them."""

from collections.abc import Mapping
from ipaddress import ip_address

__version__ = "0.1.0"


def is_loopback(host: str) -> bool:
    """Whether this is a loopback address or `localhost`: reachable from this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def http_url(host: str, port: int) -> str:
    """The base URL of a server, without a trailing slash. IPv6 addresses are put in brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_cross_site(headers: Mapping[str, str]) -> bool:
    """Whether a browser sends this for another site's page (CORS does not stop a form from posting here)."""
    if headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
        return True
    origin = headers.get("Origin")
    return origin is not None and origin.partition("://")[2] != headers.get("Host")
