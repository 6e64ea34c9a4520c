"""The sandbox provider over real HTTP: its answers, what it holds, and how it misbehaves."""

import asyncio
import io
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import aiohttp
import msgspec
import pytest
from aiohttp.test_utils import RawTestServer, unused_port
from yarl import URL

from worker.errors import UsageError
from worker.model.callbacks import Called
from worker.model.callbacks import Push as CallbackPush
from worker.providers.sequra.callbacks import SequraCallbacks
from worker.sandbox.attempts import Attempt
from worker.sandbox.faults import FaultPlan
from worker.sandbox.pushes import Push, Send
from worker.sandbox.sequra.sandbox import SequraSandbox, parse_order_url
from worker.sandbox.server import create_server

ACCOUNTS = {"acme": ("user", "secret"), "other": ("other", "pass:word"), "acme-fr": ("user", "secret")}
SHIRT = {
    "reference": "shirt1234",
    "name": "Camiseta ñ €",
    "price_with_tax": 1250,
    "quantity": 1,
    "total_with_tax": 1250,
    "downloadable": False,
}


def body(
    shipped_minor: int = 0,
    unshipped_minor: int = 1250,
    *,
    merchant: str = "acme",
    ref: str = "1001",
    currency: str = "EUR",
) -> bytes:
    """Return an update whose carts have one item each, or none."""

    def cart(total: int) -> dict[str, Any]:
        items = [SHIRT | {"price_with_tax": total, "total_with_tax": total}] if total else []
        return {"currency": currency, "order_total_with_tax": total, "items": items}

    order = {
        "merchant": {"id": merchant},
        "merchant_reference": {"order_ref_1": ref},
        "shipped_cart": cart(shipped_minor),
        "unshipped_cart": cart(unshipped_minor),
        "platform": dict.fromkeys(("name", "version", "uname", "db_name", "db_version"), "x"),
    }
    return msgspec.json.encode({"order": order})


class Ticking:
    """A wall clock that goes on by one second with every look."""

    def __init__(self) -> None:
        self.at = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        """Return the next second."""
        self.at += timedelta(seconds=1)
        return self.at


class Client:
    """A sender that sends once: with a new connection each time, and no repetition behind its back."""

    def __init__(self, base_url: str, session: aiohttp.ClientSession) -> None:
        self.base_url = base_url
        self.session = session

    async def put(
        self,
        data: bytes | io.BytesIO | None = None,
        path: str = "/merchants/acme/orders/1001",
        auth: tuple[str, str] | None = ("user", "secret"),
        key: str | None = None,
    ) -> aiohttp.ClientResponse:
        """Send an update and read the whole answer."""
        headers = {"Content-Type": "application/json"}
        if auth is not None:
            headers["Authorization"] = aiohttp.encode_basic_auth(*auth)
        if key is not None:
            headers["Idempotency-Key"] = key
        url = URL(self.base_url + path, encoded=True)
        async with self.session.put(
            url,
            data=body() if data is None else data,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=5.0),
        ) as response:
            await response.read()
            return response

    async def get(self, path: str) -> Any:
        """Get a path and return its JSON."""
        async with self.session.get(URL(self.base_url + path, encoded=True)) as response:
            assert response.status == 200, await response.text()
            return await response.json()


@pytest.fixture
def sandbox(request: pytest.FixtureRequest) -> SequraSandbox:
    """Return a sandbox that has not started, with the options that a test gives."""
    options = {"seed": 1, "wall": Ticking(), "send": request.getfixturevalue("send")} | getattr(request, "param", {})
    return SequraSandbox(ACCOUNTS, **options)


@pytest.fixture
def pushed() -> list[Push]:
    """Return what was pushed."""
    return []


@pytest.fixture
def send(pushed: list[Push]) -> Send:
    """Return a shop that takes everything."""

    async def take(push: Push) -> tuple[int, bytes]:
        pushed.append(push)
        return 200, b""

    return take


def with_options(**options: Any) -> pytest.MarkDecorator:
    """Return a mark that builds the sandbox of a test with options."""
    return pytest.mark.parametrize("sandbox", [options], indirect=True, ids=["-".join(options)])


@pytest.fixture
async def client(sandbox: SequraSandbox) -> AsyncIterator[Client]:
    """Return a client of the started sandbox."""
    base_url = await sandbox.start()
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        session._retry_connection = False  # aiohttp 3.14 would send a PUT again after a reset, without a word
        yield Client(base_url, session)
    await sandbox.stop()


async def given_up(sandbox: SequraSandbox, sending: Coroutine[Any, Any, object]) -> None:
    """Sends a request that its client gives up once it has arrived, however long that takes on a busy machine."""
    arrived = len(sandbox.log)
    task = asyncio.create_task(sending)
    await until(lambda: len(sandbox.log) > arrived)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that another task is about to do."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the sandbox has no events for its tests
            await asyncio.sleep(0.001)


async def errors_of(response: aiohttp.ClientResponse) -> list[str]:
    """Return the texts of an answer in the shape of seQura's errors."""
    assert response.content_type == "application/json"
    errors = (await response.json())["errors"]
    assert isinstance(errors, list)
    return errors


# --- updates


async def test_applied(sandbox: SequraSandbox, client: Client) -> None:
    """A sound update is answered 204 without a body, and held."""
    data = body(7100, 1250)
    response = await client.put(data, key="acme/1001:3")
    assert (response.status, await response.text()) == (204, "")
    held = sandbox.held["acme", "1001"]
    assert (held.currency, held.shipped_minor, held.unshipped_minor) == ("EUR", 7100, 1250)
    assert (held.body, held.idempotency_key, held.count) == (data, "acme/1001:3", 1)
    assert held.applied_at.tzinfo is UTC


async def test_applied_again(sandbox: SequraSandbox, client: Client) -> None:
    """An update replaces what was held, the same one too; only the count tells."""
    for shipped_minor in (0, 1250, 1250):
        await client.put(body(shipped_minor, 1250 - shipped_minor))
    held = sandbox.held["acme", "1001"]
    assert (held.shipped_minor, held.unshipped_minor, held.count) == (1250, 0, 3)


async def test_request_id(client: Client) -> None:
    """Each answer has its own X-Request-Id."""
    answers = [await client.put() for _ in range(2)]
    assert [answer.headers["X-Request-Id"] for answer in answers] == ["sandbox-1", "sandbox-2"]


@pytest.mark.parametrize(
    ("ref", "segment"),
    [
        ("A14/12345", "A14%2F12345"),
        ("A14/12345", "A14%2f12345"),
        ("a b", "a%20b"),
        ("a+b", "a+b"),
        ("100%", "100%25"),
        ("%2F", "%252F"),
        ("año?#", "a%C3%B1o%3F%23"),
        ("..", "%2E%2E"),
    ],
)
async def test_encoded_reference(sandbox: SequraSandbox, client: Client, ref: str, segment: str) -> None:
    """A reference is decoded once, from the path as it was sent."""
    path = f"/merchants/acme/orders/{segment}"
    response = await client.put(body(ref=ref), path)
    assert response.status == 204
    assert list(sandbox.held) == [("acme", ref)]
    assert sandbox.log[-1].raw_path == path


def test_order_url() -> None:
    """The docs' example names its order; merchants are decoded as well, a query does not count."""
    assert parse_order_url("/merchants/camisasonline/orders/A14%2F12345") == ("camisasonline", "A14/12345")
    assert parse_order_url("/merchants/a%2Fb/orders/1?x=/y") == ("a/b", "1")


@pytest.mark.parametrize(
    "path",
    [
        "/merchants/acme/orders/A14/12345",
        "/merchants/acme/orders/",
        "/merchants//orders/1",
        "/merchants/acme/orders",
        "/merchants/acme/orders/1/",
        "/orders/1001",
        "/merchants/acme/orders/100%",
        "/merchants/acme/orders/%zz",
        "/merchants/acme/orders/%ff",
    ],
)
async def test_no_order_url(sandbox: SequraSandbox, client: Client, path: str) -> None:
    """A slash that is not encoded, and an encoding that is none, lead nowhere: 404, and the log has the path."""
    response = await client.put(path=path)
    assert (response.status, response.content_type) == (404, "text/html")
    attempt = sandbox.log[-1]
    assert (attempt.raw_path, attempt.merchant, attempt.order_ref, attempt.status) == (path, None, None, 404)


@pytest.mark.parametrize("auth", [None, ("user", "wrong"), ("", ""), ("secret", "user")])
async def test_wrong_credentials(client: Client, auth: tuple[str, str] | None) -> None:
    """Wrong credentials are answered 401 in plain text, whatever the body."""
    response = await client.put(b"{", auth=auth)
    assert (response.status, response.content_type) == (401, "text/plain")
    assert (await response.text()).strip() == "HTTP Basic: Access denied."


async def test_other_scheme(sandbox: SequraSandbox, client: Client) -> None:
    """The scheme is Basic, in any case of letters; a bearer of the same token is nobody."""
    token = aiohttp.encode_basic_auth("user", "secret").partition(" ")[2]
    url = f"{client.base_url}/merchants/acme/orders/1001"
    for scheme, status in (("bAsIc", 204), ("Bearer", 401)):
        headers = {"Authorization": f"{scheme} {token}"}
        async with client.session.put(url, data=body(), headers=headers) as response:
            assert response.status == status


async def test_other_merchant(sandbox: SequraSandbox, client: Client) -> None:
    """A merchant of other credentials, or of none, is answered 403, before the body is looked at."""
    for merchant in ("other", "nobody"):
        response = await client.put(b"{", f"/merchants/{merchant}/orders/1")
        assert response.status == 403
        assert await errors_of(response) == ["You do not have access to this URL"]


async def test_credentials_of_two_merchants(client: Client) -> None:
    """Credentials may open several merchants, and a password may hold a colon."""
    path = "/merchants/{}/orders/1001"
    assert (await client.put(body(merchant="acme-fr"), path.format("acme-fr"))).status == 204
    other = await client.put(body(merchant="other"), path.format("other"), auth=("other", "pass:word"))
    assert other.status == 204


async def test_denied(sandbox: SequraSandbox, client: Client) -> None:
    """Credentials can be turned off for one merchant, and on again."""
    sandbox.faults.denied.add("acme")
    assert (await client.put()).status == 401
    other = await client.put(body(merchant="acme-fr"), "/merchants/acme-fr/orders/1001")
    assert other.status == 204
    sandbox.faults.denied.clear()
    assert (await client.put()).status == 204


@pytest.mark.parametrize("data", [b"{", b"{}", b"", '{"order": "ñ"}'.encode("latin-1")])
async def test_malformed_body(client: Client, data: bytes) -> None:
    """What is not JSON with an order is answered 400."""
    response = await client.put(data)
    assert response.status == 400
    assert len(await errors_of(response)) == 1


async def test_refused_body(sandbox: SequraSandbox, client: Client) -> None:
    """A broken rule is answered 409 with the texts of the rules, again and again, and nothing is held."""
    data = body().replace(b'"order_total_with_tax":1250', b'"order_total_with_tax":1292')
    for _ in range(2):
        response = await client.put(data)
        assert response.status == 409
        (text,) = await errors_of(response)
        assert text.startswith("Invalid data: In unshipped_cart, items' total_with_tax add up to 1250 (1250)")
    assert not sandbox.held


async def test_reference_differs_from_url(client: Client) -> None:
    """Merchant and reference in the body are compared with the decoded URL."""
    response = await client.put(body(ref="1002", merchant="acme-fr"))
    assert response.status == 409
    assert [text.split()[2] for text in await errors_of(response)] == [
        "merchant.id",
        "merchant_reference.order_ref_1",
    ]


async def test_currency_stays(sandbox: SequraSandbox, client: Client) -> None:
    """An order keeps the currency that it began with."""
    await client.put()
    response = await client.put(body(currency="USD"))
    assert response.status == 409
    assert "in USD" in (await errors_of(response))[0]
    assert sandbox.held["acme", "1001"].currency == "EUR"


async def test_growth_over_first(sandbox: SequraSandbox, client: Client) -> None:
    """Growth is measured against the first total, not against the last one."""
    sent = [(10_000, 204), (11_000, 204), (11_500, 204), (11_501, 409), (5_000, 204), (11_500, 204)]
    assert [(total, (await client.put(body(0, total))).status) for total, _ in sent] == sent
    assert sandbox.held["acme", "1001"].unshipped_minor == 11_500


async def test_growth_over_registered(sandbox: SequraSandbox, client: Client) -> None:
    """With the total of the checkout registered, growth is measured against that, over both carts."""
    sandbox.register("acme", "1001", 10_000)
    assert (await client.put(body(4_000, 1_000))).status == 204
    assert (await client.put(body(4_000, 7_500))).status == 204
    response = await client.put(body(4_001, 7_500))
    assert response.status == 409
    assert "11501" in (await errors_of(response))[0]


async def test_growth_from_nothing(client: Client) -> None:
    """An order that was first told empty may still be filled: there is no share of 0."""
    assert (await client.put(body(0, 0))).status == 204
    assert (await client.put(body(0, 10_000))).status == 204
    assert (await client.put(body(0, 11_501))).status == 409


async def test_unknown_order(client: Client, sandbox: SequraSandbox) -> None:
    """Without a list of known orders, every order is known."""
    assert (await client.put(body(ref="never-seen"), "/merchants/acme/orders/never-seen")).status == 204


@with_options(known={("acme", "1001")})
async def test_known_orders(client: Client, sandbox: SequraSandbox) -> None:
    """With a list of known orders, others are answered 404 until they are registered."""
    assert (await client.put()).status == 204
    path = "/merchants/acme/orders/1002"
    assert (await client.put(body(ref="1002"), path)).status == 404
    sandbox.register("acme", "1002", 1250)
    assert (await client.put(body(ref="1002"), path)).status == 204


@with_options(validate=False)
async def test_without_rules(client: Client, sandbox: SequraSandbox) -> None:
    """Without validation wrong sums pass, while credentials and the shape of the carts still count."""
    data = body(0, 1250).replace(b'"quantity":1', b'"quantity":0').replace(b'"platform"', b'"form"')
    assert (await client.put(data)).status == 204
    assert sandbox.held["acme", "1001"].unshipped_minor == 1250
    assert (await client.put(data, auth=None)).status == 401
    assert (await client.put(b'{"order": {}}')).status == 400
    assert (await client.get("/orders/acme/1001"))["unshipped_items"][0]["quantity"] == 0


async def test_body_too_large(client: Client) -> None:
    """A body beyond the bound is answered 413."""
    response = await client.put(io.BytesIO(b" " * (16 * 1024**2 + 1)))
    assert response.status == 413


async def test_big_body(client: Client) -> None:
    """An order of a few thousand items, above the server's usual bound of 1 MiB, is taken."""
    order = msgspec.json.decode(body())
    items = [SHIRT] * 12_000
    order["order"]["unshipped_cart"] |= {"items": items, "order_total_with_tax": 12_000 * 1250}
    data = msgspec.json.encode(order)
    assert len(data) > 1024**2
    assert (await client.put(io.BytesIO(data))).status == 204


# --- the log


async def test_log(sandbox: SequraSandbox, client: Client) -> None:
    """Each attempt is logged with what was sent, what was answered, and when."""
    await client.put(key="k1")
    await client.put(b"{", key=None)
    first, second = sandbox.log
    assert (first.number, first.merchant, first.order_ref, first.idempotency_key) == (1, "acme", "1001", "k1")
    assert (first.status, first.fault, first.applied) == (204, None, True)
    assert first.applied_at is not None
    assert first.ended_at is not None
    assert first.received_at < first.applied_at < first.ended_at
    assert (second.number, second.status, second.idempotency_key) == (2, 400, None)
    assert (second.applied, second.applied_at) == (False, None)
    assert re.fullmatch("[0-9a-f]{16}", first.body_digest)
    assert first.body_digest != second.body_digest
    assert sandbox.status_counts == {204: 1, 400: 1}


@with_options(log_limit=2)
async def test_log_limit(sandbox: SequraSandbox, client: Client) -> None:
    """The log keeps the newest attempts, the count goes on."""
    for _ in range(3):
        await client.put()
    assert [attempt.number for attempt in sandbox.log] == [2, 3]
    assert sandbox.attempt_count == 3


# --- faults


@pytest.mark.parametrize("status", [400, 408, 409, 422, 429, 500, 502, 503, 504])
async def test_status_fault(sandbox: SequraSandbox, client: Client, status: int) -> None:
    """A faulty status is answered instead of an update, and the next request goes through."""
    sandbox.faults.script("acme", "1001", str(status))
    response = await client.put()
    assert response.status == status
    assert not sandbox.held
    if status < 500:
        assert await errors_of(response) == [f"Sandbox fault {status}"]
    else:
        assert response.content_type == "text/html"
    assert (await client.put()).status == 204
    assert [(a.fault, a.status, a.applied) for a in sandbox.log] == [
        (str(status), status, False),
        (None, 204, True),
    ]
    assert sandbox.fault_counts == {str(status): 1}
    assert sandbox.status_counts == {status: 1, 204: 1}


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (401, "HTTP Basic: Access denied.\n"),
        (403, '{"errors":["You do not have access to this URL"]}'),
        (404, "<!doctype html><title>Not Found</title><h1>Not Found</h1>\n"),
    ],
)
async def test_status_fault_of_the_provider(sandbox: SequraSandbox, client: Client, status: int, text: str) -> None:
    """A faulty status that the provider also gives for a reason has the same body."""
    sandbox.faults.script("acme", "1001", str(status))
    response = await client.put()
    assert (response.status, await response.text()) == (status, text)


@pytest.mark.parametrize(
    ("fault", "retry_after"), [("429", "1"), ("429:7s", "7"), ("503", None), ("503:2m", "120"), ("500", None)]
)
async def test_retry_after(sandbox: SequraSandbox, client: Client, fault: str, retry_after: str | None) -> None:
    """429 and 503 say in seconds when to come again."""
    sandbox.faults.script("acme", "1001", fault)
    assert (await client.put()).headers.get("Retry-After") == retry_after


async def test_applied_behind_gateway(sandbox: SequraSandbox, client: Client) -> None:
    """An update can be applied although a gateway answers 502."""
    sandbox.faults.script("acme", "1001", "502_applied")
    assert (await client.put()).status == 502
    assert sandbox.held["acme", "1001"].count == 1
    assert sandbox.log[-1].applied


@pytest.mark.parametrize(("fault", "applied"), [("reset_applied", True), ("reset_lost", False)])
async def test_reset(sandbox: SequraSandbox, client: Client, fault: str, applied: bool) -> None:
    """The connection is reset, and the client cannot tell whether the update was applied."""
    sandbox.faults.script("acme", "1001", fault)
    with pytest.raises(aiohttp.ClientOSError, match="reset by peer"):
        await client.put()
    assert bool(sandbox.held) is applied
    attempt = sandbox.log[-1]
    assert (attempt.fault, attempt.status, attempt.applied) == (fault, None, applied)
    assert attempt.ended_at is not None
    assert not sandbox.status_counts


@pytest.mark.parametrize(("fault", "applied"), [("timeout_applied", True), ("timeout_lost", False)])
async def test_timeout(sandbox: SequraSandbox, client: Client, fault: str, applied: bool) -> None:
    """There is no answer until the client gives up, and the log notices that it did."""
    sandbox.faults.script("acme", "1001", fault)
    await given_up(sandbox, client.put())
    assert bool(sandbox.held) is applied
    attempt = sandbox.log[-1]
    await until(lambda: attempt.ended_at)
    assert (attempt.fault, attempt.status, attempt.applied) == (fault, None, applied)


async def test_timeout_bound(sandbox: SequraSandbox, client: Client) -> None:
    """A client that waits longer than the fault lasts is reset."""
    sandbox.faults.script("acme", "1001", "timeout_applied:5ms")
    with pytest.raises(aiohttp.ClientOSError, match="reset by peer"):
        await client.put()
    assert sandbox.log[-1].applied


@with_options(silence_max_s=0.005)
@pytest.mark.parametrize("fault", ["timeout_lost:1m", "late_applied:1m"])
async def test_silence_bound(sandbox: SequraSandbox, client: Client, fault: str) -> None:
    """No request is held longer than the sandbox's own bound."""
    sandbox.faults.script("acme", "1001", fault)
    with pytest.raises(aiohttp.ClientOSError, match="reset by peer"):
        await client.put()


async def test_slow(sandbox: SequraSandbox, client: Client) -> None:
    """A slow answer is the usual one, late; the update is applied at once."""
    sandbox.faults.script("acme", "1001", "slow:300ms")
    begun = asyncio.get_running_loop().time()
    sending = asyncio.create_task(client.put())
    await until(lambda: sandbox.held)
    assert not sending.done()
    assert (await sending).status == 204
    assert asyncio.get_running_loop().time() - begun >= 0.3
    assert sandbox.log[-1].status == 204


async def test_slow_refusal(sandbox: SequraSandbox, client: Client) -> None:
    """A slow answer to a wrong update is its refusal."""
    sandbox.faults.script("acme", "1001", "slow:1ms")
    assert (await client.put(body(ref="other"))).status == 409
    assert not sandbox.held


async def test_late(sandbox: SequraSandbox, client: Client) -> None:
    """An update is applied after its client has given up, over a newer one."""
    sandbox.faults.script("acme", "1001", "late_applied:500ms")
    await given_up(sandbox, client.put(body(0, 1250)))
    assert sandbox.late_count == 1
    assert (await client.put(body(1250, 0))).status == 204
    assert sandbox.held["acme", "1001"].shipped_minor == 1250
    await until(lambda: sandbox.late_count == 0)
    held = sandbox.held["acme", "1001"]
    assert (held.shipped_minor, held.unshipped_minor, held.count) == (0, 1250, 2)
    late, newer = sandbox.log
    assert late.applied_at is not None
    assert late.ended_at is not None
    assert newer.applied_at is not None
    assert late.ended_at < newer.applied_at < late.applied_at


async def test_late_refusal(sandbox: SequraSandbox, client: Client) -> None:
    """A late update is judged when it is applied."""
    sandbox.faults.script("acme", "1001", "late_applied:500ms")
    await given_up(sandbox, client.put())
    sandbox.faults.denied.add("acme")
    await until(lambda: sandbox.late_count == 0)
    assert not sandbox.held
    assert not sandbox.log[0].applied


@pytest.mark.parametrize("fault", ["reset_applied", "timeout_applied:1ms"])
async def test_wrong_update_is_not_applied(sandbox: SequraSandbox, client: Client, fault: str) -> None:
    """A fault after which updates are applied does not make a wrong one right."""
    sandbox.faults.script("acme", "1001", fault)
    with pytest.raises(aiohttp.ClientOSError, match="reset by peer"):
        await client.put(body(ref="other"))
    assert not sandbox.held
    assert not sandbox.log[-1].applied


async def test_stopped_faults(sandbox: SequraSandbox, client: Client) -> None:
    """Faults strike by their plan until they are stopped."""
    sandbox.faults.plan = FaultPlan.parse("500=1")
    assert (await client.put()).status == 500
    sandbox.faults.stop()
    assert (await client.put()).status == 204


@with_options(faults=FaultPlan.parse("409=0.5"), seed=5)
async def test_repeatable(client: Client, sandbox: SequraSandbox) -> None:
    """The seed alone decides what the requests of an order meet."""
    statuses = [(await client.put()).status for _ in range(20)]
    assert set(statuses) == {204, 409}
    twin = SequraSandbox(ACCOUNTS, FaultPlan.parse("409=0.5"), seed=5)
    drawn = [twin.faults.draw("acme", "1001") for _ in range(20)]
    assert [204 if fault is None else fault.status for fault in drawn] == statuses


# --- looking on


async def test_orders(client: Client) -> None:
    """The orders are listed newest first, with the items of both carts."""
    await client.put(body(1250, 2500), key="k1")
    await client.put(body(ref="A/2"), "/merchants/acme/orders/A%2F2")
    shown = await client.get("/orders")
    assert shown["count"] == 2
    assert [order["order_ref"] for order in shown["orders"]] == ["A/2", "1001"]
    order = shown["orders"][1]
    assert (order["shipped_minor"], order["unshipped_minor"], order["currency"]) == (1250, 2500, "EUR")
    assert (order["idempotency_key"], order["count"]) == ("k1", 1)
    assert order["shipped_items"] == [SHIRT]
    assert [item["total_with_tax"] for item in order["unshipped_items"]] == [2500]
    assert len((await client.get("/orders?limit=1"))["orders"]) == 1


async def test_one_order(client: Client) -> None:
    """One order is shown with the body as it was sent; its reference is encoded as in the update."""
    data = body(ref="A/2")
    await client.put(data, "/merchants/acme/orders/A%2F2")
    order = await client.get("/orders/acme/A%2F2")
    assert (order["merchant"], order["order_ref"]) == ("acme", "A/2")
    assert order["body"] == msgspec.json.decode(data)


async def test_log_as_json(sandbox: SequraSandbox, client: Client) -> None:
    """The log is read on from a number, oldest first."""
    sandbox.faults.script("acme", "1001", "409")
    for _ in range(4):
        await client.put()
    shown = await client.get("/log?after=2")
    assert shown["count"] == 4
    assert [attempt["number"] for attempt in shown["attempts"]] == [3, 4]
    first = (await client.get("/log"))["attempts"][0]
    assert (first["number"], first["fault"], first["status"], first["applied_at"]) == (1, "409", 409, None)


async def test_log_page_is_bounded(sandbox: SequraSandbox, client: Client) -> None:
    """One answer has at most a thousand attempts, the oldest that were asked for."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    sandbox.log.extend(Attempt(number, at, "/", None, None, None, "") for number in range(1, 1501))
    attempts = (await client.get("/log?after=100"))["attempts"]
    assert [attempts[0]["number"], attempts[-1]["number"], len(attempts)] == [101, 1100, 1000]


async def test_page(sandbox: SequraSandbox, client: Client) -> None:
    """The page shows orders and attempts, loads nothing from elsewhere, and escapes what was sent."""
    sandbox.faults.plan = FaultPlan.parse("500=0")
    sandbox.faults.script("acme", "1001", "409")
    await client.put()
    ref = "<b>&1"
    await client.put(body(ref=ref), "/merchants/acme/orders/%3Cb%3E%261", key="<i>")
    async with client.session.get(client.base_url + "/") as response:
        text = await response.text()
        assert response.content_type == "text/html"
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "&lt;b&gt;&amp;1" in text
    assert "&lt;i&gt;" in text
    assert "<b>" not in text
    assert "<i>" not in text
    assert 'value="500=0"' in text
    assert "fault 409" in text
    assert not re.search(r"<script|<img|<link|https?://", text)


@pytest.mark.parametrize("path", ["/nowhere", "/orders/acme", "/orders/acme/1001", "/log/1", "//"])
async def test_nothing_there(client: Client, path: str) -> None:
    """What is not there is answered 404."""
    async with client.session.get(URL(client.base_url + path, encoded=True)) as response:
        assert response.status == 404


@pytest.mark.parametrize("path", ["/log?after=x", "/log?after=-1", "/orders?limit=%C2%B2", "/orders/acme/%zz"])
async def test_bad_question(client: Client, path: str) -> None:
    """A question that makes no sense is answered 400 and says why."""
    async with client.session.get(URL(client.base_url + path, encoded=True)) as response:
        assert response.status == 400
        assert await errors_of(response)


async def test_other_methods(client: Client) -> None:
    """An order takes nothing but PUT."""
    for method in ("GET", "POST", "DELETE"):
        url = client.base_url + "/merchants/acme/orders/1001"
        async with client.session.request(method, url) as response:
            assert response.status == 404


async def test_set_plan_as_text(sandbox: SequraSandbox, client: Client) -> None:
    """A plan is set by its text."""
    async with client.session.post(client.base_url + "/faults", data=b"500=1") as response:
        assert await response.json() == {"plan": "500=1", "denied": []}
    assert (await client.put()).status == 500


async def test_set_plan_as_form(sandbox: SequraSandbox, client: Client) -> None:
    """The page's form sets the plan and leads back to the page; an empty one ends the faults."""
    url = client.base_url + "/faults"
    for text in ("500=1", ""):
        async with client.session.post(url, data={"plan": text}, allow_redirects=False) as response:
            assert (response.status, response.headers["Location"]) == (303, "/")
        assert str(sandbox.faults.plan) == text


async def test_plan_of_another_site(sandbox: SequraSandbox, client: Client) -> None:
    """A page that somebody has open in a browser cannot change it."""
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "http://["}, {"Sec-Fetch-Site": "cross-site"}):
        async with client.session.post(client.base_url + "/faults", data=b"500=1", headers=headers) as response:
            assert response.status == 403
    assert sandbox.faults.plan == FaultPlan()


async def test_set_faults_as_json(sandbox: SequraSandbox, client: Client) -> None:
    """JSON sets the plan, scripts and denied merchants; what it does not name stays."""
    url = client.base_url + "/faults"
    script = {"merchant": "acme", "order_ref": "1001", "faults": ["500", "ok"]}
    async with client.session.post(url, json={"plan": "409=1", "scripts": [script]}) as response:
        assert response.status == 200
    async with client.session.post(url, json={"denied": ["other"]}) as response:
        assert await response.json() == {"plan": "409=1", "denied": ["other"]}
    assert [(await client.put()).status for _ in range(3)] == [500, 204, 409]
    assert sandbox.faults.denied == {"other"}


@pytest.mark.parametrize(
    "change",
    [
        {"plan": "crash=1"},
        {"plan": 1},
        {"plam": ""},
        {
            "plan": "500=1",
            "scripts": [
                {"merchant": "acme", "order_ref": "1001", "faults": ["500"]},
                {"merchant": "acme", "order_ref": "1001", "faults": ["crash"]},
            ],
        },
    ],
)
async def test_bad_faults(sandbox: SequraSandbox, client: Client, change: Any) -> None:
    """A change that makes no sense is answered 400 with the reason, and changes nothing."""
    async with client.session.post(client.base_url + "/faults", json=change) as response:
        assert response.status == 400
        assert await errors_of(response)
    assert sandbox.faults.plan == FaultPlan()
    assert (await client.put()).status == 204


# --- what seQura tells of its own accord, and what it is reported


def told_of(client: Client, path: str, told: dict[str, Any]) -> Any:
    """Post to what is no interface of seQura's."""
    return client.session.post(client.base_url + path, json=told)


async def test_webhook(sandbox: SequraSandbox, client: Client, pushed: list[Push]) -> None:
    """What happens at seQura goes to the address that the checkout gave, as a form."""
    order = {"merchant": "acme", "order_ref": "A/2"}
    async with told_of(client, "/acts", order | {"event": "approved"}) as response:
        assert (response.status, await errors_of(response)) == (400, ["no checkout has said where events of A/2 go"])
    checkout = order | {"total_minor": 10_000, "webhook": "http://shop.example/hook"}
    for path, told in (
        ("/checkout", checkout),
        ("/acts", order | {"event": "risk_assessment", "risk_level": "low_risk"}),
    ):
        async with told_of(client, path, told) as response:
            assert response.status == 200
    await until(lambda: pushed)
    form = parse_qs(pushed[0].body.decode())
    assert (pushed[0].url, pushed[0].content_type) == ("http://shop.example/hook", "application/x-www-form-urlencoded")
    assert (form["event"], form["risk_level"], form["order_ref_1"]) == (["risk_assessment"], ["low_risk"], ["A/2"])
    assert (await client.put(body(0, 11_501, ref="A/2"), "/merchants/acme/orders/A%2F2")).status == 409


@pytest.mark.parametrize(
    ("answer", "is_right"),
    [
        ((200, b'{"result":"cancelled"}'), True),
        ((200, b'{"result":"toolate","since":12}'), True),
        ((501, b"{}"), True),
        ((503, b'{"result":"cancelled"}'), False),
        ((200, b'{"result":"maybe"}'), False),
        ((200, b"yes"), False),
        (None, False),
    ],
)
async def test_asks_whether_an_order_can_be_cancelled(answer: tuple[int, bytes] | None, *, is_right: bool) -> None:
    """The question is a webhook whose answer counts; what seQura could not use about it is said."""
    asked: list[Push] = []

    async def send(push: Push) -> tuple[int, bytes] | None:
        asked.append(push)
        return answer

    sandbox = SequraSandbox({}, send=send)
    sandbox.checkout(b'{"merchant": "acme", "order_ref": "A/2", "webhook": "http://shop.example/hook"}')
    found = await sandbox.ask(b'{"merchant": "acme", "order_ref": "A/2"}')
    assert (found.problem == "", len(asked)) == (is_right, 1)
    form = parse_qs(asked[0].body.decode())
    assert (form["event"], form["order_ref_1"]) == (["cancel"], ["A/2"])
    with pytest.raises(UsageError):
        await sandbox.ask(b'{"merchant": "acme", "order_ref": "A/3"}')


def test_what_counts_as_taken(sandbox: SequraSandbox) -> None:
    """An event that the shop does not support is not sent again."""
    assert [sandbox.is_taken(status, b"") for status in (200, 204, 501, 500, 401)] == [True, True, True, False, False]


async def test_report(sandbox: SequraSandbox, client: Client) -> None:
    """A delivery report needs the merchant's credentials, and is judged and kept as one of that merchant."""
    platform = dict.fromkeys(("name", "version", "uname", "db_name", "db_version"), "x")
    report = {"delivery_report": {"merchant": {"id": "acme"}, "orders": [], "platform": platform}}
    url = client.base_url + "/orders/delivery_reports"
    statuses = []
    for auth, told in (
        (("user", "no"), report),
        (("other", "pass:word"), report),
        (("user", "secret"), report),
        (("user", "secret"), {"delivery_report": 1}),
    ):
        headers = {"Authorization": aiohttp.encode_basic_auth(*auth)}
        async with client.session.post(url, json=told, headers=headers) as response:
            statuses.append(response.status)
    assert statuses == [401, 403, 204, 404]
    assert sandbox.reports["acme"].count == 1
    assert [attempt.applied for attempt in sandbox.log] == [False, False, True, False]


# --- starting and stopping


async def test_bad_plan_as_text(client: Client) -> None:
    """A bad plan in plain text is refused with the entry that is wrong; bytes that are no text as well."""
    for data in (b"slow=2", b"\xff"):
        async with client.session.post(client.base_url + "/faults", data=data) as response:
            assert response.status == 400
            assert await errors_of(response)


async def test_base_url(sandbox: SequraSandbox) -> None:
    """The base URL has the address and the port asked for, and brackets around IPv6."""
    port = unused_port()
    assert await sandbox.start(port=port) == f"http://127.0.0.1:{port}"
    other = SequraSandbox(ACCOUNTS)
    with pytest.raises(OSError, match="address already in use"):
        await other.start(port=port)
    await other.stop()
    await sandbox.stop()


async def test_stop_with_held_requests(sandbox: SequraSandbox, client: Client) -> None:
    """Stopping waits neither for requests that are held back nor for late applications."""
    sandbox.faults.script("acme", "1001", "timeout_lost", "late_applied")
    sending = [asyncio.create_task(client.put()) for _ in range(2)]
    await until(lambda: len(sandbox.log) == 2)
    async with asyncio.timeout(2):
        await sandbox.stop()
    failures = await asyncio.gather(*sending, return_exceptions=True)
    assert all(isinstance(failure, aiohttp.ClientError) for failure in failures)
    assert sandbox.late_count == 0
    await sandbox.stop()


async def test_own_server(sandbox: SequraSandbox) -> None:
    """The sandbox also runs on a server that a test brings along."""
    async with RawTestServer(sandbox.handle) as server, aiohttp.ClientSession() as session:
        headers = {"Authorization": aiohttp.encode_basic_auth("user", "secret")}
        url = server.make_url("/merchants/acme/orders/1001")
        async with session.put(url, data=body(), headers=headers) as response:
            assert response.status == 204
    assert sandbox.held["acme", "1001"].unshipped_minor == 1250
    assert create_server(sandbox).requests_count == 0


async def test_ipn(sandbox: SequraSandbox, client: Client, pushed: list[Push]) -> None:
    """The end of a checkout, as our receiver reads it; an act is one thing at a time."""
    order = {"merchant": "acme", "order_ref": "A/2"}
    checkout = order | {"notify_url": "http://shop.example/ipn"}
    for path, told in (("/checkout", checkout), ("/acts", order | {"sq_state": "needs_review"})):
        async with told_of(client, path, told) as response:
            assert response.status == 200
    await until(lambda: pushed)
    called = Called(
        account="acme",
        purpose="ipn",
        reference="A/2",
        media_type=pushed[0].content_type,
        body=pushed[0].body,
        arrived_ms=0,
    )
    reading = SequraCallbacks().read(called)
    assert isinstance(reading, CallbackPush)
    assert [(each.type, each.data["state"]) for each in reading.said] == [("payment_state", "on_hold")]
    for wrong in (order, order | {"event": "approved", "sq_state": "approved"}):
        async with told_of(client, "/acts", wrong) as response:
            assert response.status == 400
