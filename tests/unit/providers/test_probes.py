"""The read that shows whether credentials are accepted: it changes nothing, and its answers are told apart."""

from typing import Any

import pytest

from tests.unit.providers.atarapay.reported import ACCOUNT as ESCROW
from tests.unit.providers.qliro.turns import ACCOUNT as HATS
from tests.unit.providers.sequra.test_report import ACCOUNT as ACME
from worker.model.exchange import HttpResponse, OutcomeKind
from worker.providers.registry import RECONCILERS

ACCOUNTS = {account.provider: account for account in (ACME, HATS, ESCROW)}


@pytest.mark.parametrize(
    ("provider", "method", "url"),
    [
        ("sequra", "GET", f"{ACME.base_url}/merchants/{ACME.merchant_id}/disbursements"),
        ("qliro", "GET", f"{HATS.base_url}/v2/orders/cartsync-doctor"),
        ("atarapay", "POST", f"{ESCROW.base_url}/callback/order"),
    ],
)
def test_probe(provider: str, method: str, url: str) -> None:
    """A list, or an order that there is not; AtaraPay reads with POST, and says by a word that it is a read."""
    request = RECONCILERS[provider].probe(ACCOUNTS[provider])
    assert (request.method, request.url, request.account) == (method, url, ACCOUNTS[provider].name)
    if provider == "atarapay":
        assert b"order=cartsync-doctor&status=" in request.body
    else:
        assert request.body == b""


def test_probes_cover_all_providers() -> None:
    """Each has one."""
    assert ACCOUNTS.keys() == RECONCILERS.keys()


@pytest.mark.parametrize(
    ("provider", "status", "body", "kind", "is_unknown"),
    [
        ("sequra", 200, b"[]", OutcomeKind.APPLIED, False),
        ("sequra", 401, b"", OutcomeKind.CREDENTIALS, False),
        ("sequra", 403, b"", OutcomeKind.FORBIDDEN, False),
        ("qliro", 404, b"", OutcomeKind.NOT_FOUND, True),
        ("qliro", 401, b"", OutcomeKind.CREDENTIALS, False),
        ("atarapay", 200, b'{"status": "error", "message": "No such order"}', None, True),
        ("atarapay", 401, b"", OutcomeKind.CREDENTIALS, False),
    ],
)
def test_what_an_answer_means(
    provider: str, status: int, body: bytes, kind: OutcomeKind | None, is_unknown: bool
) -> None:
    """Accepted, known to be of nobody, or rejected."""
    reconciler: Any = RECONCILERS[provider]
    account = ACCOUNTS[provider]
    outcome = reconciler.probed(account, HttpResponse(status, {}, body), 0)
    assert kind in (None, outcome.kind)
    assert reconciler.is_unknown(account, outcome) is is_unknown
