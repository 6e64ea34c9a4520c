"""cartsync: reads order events from Kafka, computes carts, keeps payment providers in agreement with them."""

from ipaddress import ip_address

__version__ = "0.1.0"


def is_loopback(host: str) -> bool:
    """Whether only this machine is meant: what listens there is reached by nobody else, what is sent there stays."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
