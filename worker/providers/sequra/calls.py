"""The common parts of all requests to seQura, and responses as outcomes. Pure."""

from base64 import b64encode
from functools import lru_cache
from urllib.parse import quote

from worker.model.exchange import HttpResponse, Outcome, OutcomeKind
from worker.providers.responses import describe, kind_of_status, outcome_by_status, retry_after_s
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


@lru_cache(maxsize=256)
def merchant_url(base_url: str, merchant_id: str) -> str:
    """The base URL of one merchant."""
    return f"{base_url.rstrip('/')}/merchants/{quote(merchant_id, safe='')}"


def outcome_of(response: HttpResponse, now_ms: int, remote: bytes | None = None) -> Outcome:
    """The status decides: 200 and 202 are success, whatever the body (docs.sequra.com, 2026-10). `remote`: the memory
    after a success.
    """
    status = response.status
    kind = kind_of_status(status)
    wait_s = retry_after_s(response.headers.get("retry-after"), now_ms)
    if kind is OutcomeKind.APPLIED:
        return Outcome(kind, "", status, wait_s, remote=remote)
    return outcome_by_status(status, describe(response), wait_s)


@lru_cache(maxsize=256)
def _basic(username: str, password: str) -> str:
    return "Basic " + b64encode(f"{username}:{password}".encode()).decode()
