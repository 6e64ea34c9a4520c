"""The common parts of all requests to seQura. Pure."""

from base64 import b64encode
from functools import lru_cache
from urllib.parse import quote

from worker.providers.sequra.options import SequraAccount


def headers(account: SequraAccount) -> dict[str, str]:
    """The headers of every request; seQura's own clients have sent `Sequra-Merchant-Id` since July 2025."""
    return {
        "Accept": "application/json",
        "Content-Type": "application/json",
        "Authorization": _basic(account.username, account.password),
        "Sequra-Merchant-Id": account.merchant_id,
    }


def url_of(account: SequraAccount, path: str) -> str:
    """The URL of an encoded path below the account's address."""
    return account.base_url.rstrip("/") + path


@lru_cache(maxsize=1_024)
def merchant_url(base_url: str, merchant_id: str) -> str:
    """The base URL of one merchant."""
    return f"{base_url.rstrip('/')}/merchants/{quote(merchant_id, safe='')}"


@lru_cache(maxsize=1_024)
def _basic(username: str, password: str) -> str:
    return "Basic " + b64encode(f"{username}:{password}".encode()).decode()
