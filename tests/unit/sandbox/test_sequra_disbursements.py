"""What the sandbox pays out: over all disbursements the shipped carts, as the adapter reads them, over HTTP."""

from collections.abc import AsyncIterator
from datetime import date

import aiohttp
import msgspec
import pytest
from msgspec.structs import replace
from yarl import URL

from tests.unit.providers.sequra.test_report import ACCOUNT
from tests.unit.sandbox.asking import Client
from tests.unit.sandbox.test_sequra_reports import DELIVERY, report
from worker.model.exchange import HttpResponse, OutcomeKind
from worker.providers.sequra import disbursements as d
from worker.providers.sequra.calls import headers
from worker.sandbox.sequra.sandbox import SequraSandbox

HEADERS = headers(ACCOUNT)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """A sandbox of one merchant, which judges no update."""
    sandbox = SequraSandbox({"m1": ("user", "secret")}, validate=False)
    base_url = await sandbox.start()
    async with aiohttp.ClientSession() as session:
        yield Client(sandbox, session, base_url)
    await sandbox.stop()


async def hold(client: Client, reference: str, shipped: int, unshipped: int = 0) -> None:
    """An update."""
    carts = {
        "shipped_cart": {"currency": "EUR", "order_total_with_tax": shipped},
        "unshipped_cart": {"currency": "EUR", "order_total_with_tax": unshipped},
    }
    body = msgspec.json.encode({"order": carts})
    url = f"{client.base_url}/merchants/m1/orders/{reference}"
    async with client.session.put(url, data=body, headers=HEADERS) as response:
        assert response.status == 204


async def paid(client: Client) -> list[list[tuple[str, int]]]:
    """Reference and amount of each line, by disbursement, as the adapter understands them."""
    account = replace(ACCOUNT, base_url=client.base_url)
    listed = d.read_list(await answer(client, d.list_request(account).url), 0)
    assert listed.outcome.kind is OutcomeKind.APPLIED
    found = []
    for each in listed.disbursements:
        detail = d.read_detail(await answer(client, d.detail_request(account, each).url), 0)
        found.append([(str(line.order_ref_1), line.amount_with_tax) for line in detail.lines])
    return found


async def answer(client: Client, url: str) -> HttpResponse:
    """Of a read."""
    async with client.session.get(url, headers=HEADERS) as response:
        return HttpResponse(response.status, {}, await response.read())


async def test_disbursements_add_up_to_the_shipped_carts(client: Client) -> None:
    """Each pays what has changed since the last one, returns below zero; a line may be made wrong."""
    assert await paid(client) == []
    await hold(client, "A", 1_300, 500)
    await hold(client, "B", 0, 700)
    assert await client.tell("/acts", {"merchant": "m1", "event": "disburse", "on": "2026-03-20"}) == (200, {})
    await hold(client, "A", 300)
    body = {"delivery_report": report(DELIVERY)}
    assert (await answer_of_report(client, body)) == 204
    off = {"merchant": "m1", "event": "disburse", "off_minor": {"o1": -1}}
    assert await client.tell("/acts", off) == (200, {})
    assert await client.tell("/acts", {"merchant": "m1", "event": "disburse"}) == (200, {})
    assert await paid(client) == [[("A", 1_300)], [("o1", 99), ("A", -1_000)], [("o1", 1)]]
    sandbox = client.sandbox
    assert isinstance(sandbox, SequraSandbox)
    first = sandbox.disbursements["m1"].issued[0]
    assert (first["issue_date"], first["currency"], first["disbursed_amount"]) == ("2026-03-20", "EUR", 1_300)
    assert sandbox.disbursements["m1"].lines[first["path"]][0]["maximum_amount_with_tax"] == 1_800
    assert sandbox.disburse("m1", date(2026, 4, 1)) == sandbox.disbursements["m1"].issued[-1]["path"]


async def answer_of_report(client: Client, body: object) -> int:
    """The status."""
    url = f"{client.base_url}/orders/delivery_reports"
    async with client.session.post(url, data=msgspec.json.encode(body), headers=HEADERS) as response:
        return response.status


@pytest.mark.parametrize(
    ("path", "credentials", "status"),
    [
        ("/merchants/m1/disbursements", HEADERS, 200),
        ("/merchants/m1/disbursements", {}, 401),
        ("/merchants/m2/disbursements", HEADERS, 403),
        ("/merchants/m1/disbursements/unknown", HEADERS, 404),
        ("/merchants/%FF/disbursements", HEADERS, 404),
        ("/merchants//disbursements", HEADERS, 404),
    ],
    ids=["the list", "without credentials", "of another merchant", "unknown", "no name", "an empty one"],
)
async def test_who_may_read(client: Client, path: str, credentials: dict[str, str], status: int) -> None:
    """Only who has the merchant's credentials, and only what is there."""

    async with client.session.get(URL(client.base_url + path, encoded=True), headers=credentials) as response:
        assert response.status == status
