"""The public port over HTTP on loopback: who is let in, what is written, what is answered, and what nobody may do."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from aiohttp import ClientSession
from yarl import URL

from tests.logged import logged
from tests.spans import Spans, header_of, links_of, traceparent
from worker.app.receive import ReceiverProcess, _open_ports, _reread
from worker.config.receiving import receiver_config
from worker.core.placing import Placing
from worker.core.tokens import Address, Tokens
from worker.core.trust import Trust
from worker.metrics import UNCONFIGURED, Metrics
from worker.model.callbacks import Called, Caller, Lookups
from worker.model.exchange import Fault, HttpRequest, HttpResponse
from worker.providers.qliro.callbacks import QliroCallbacks
from worker.providers.registry import CALLBACKS
from worker.sim.log import MemoryLog
from worker.sim.loop import VirtualClock
from worker.sim.producer import MemoryEventProducer, put_into
from worker.web.lookups import Lookup
from worker.web.private_port import Access, PrivatePort
from worker.web.receiver import SAME_ORDER_MAX, Limits, Receiver

SECRET, OLD = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"
RECORD_SECRET = "record-secret-0123456789-0123456789"
PUBLIC, PRIVATE = "b8kP7A1e67s0jc3h98T8pH71dq66J0s3", "PKp6z3jTcLeQNc1h3u9e0ffX77NY91adE12"
NOTIFIED = (
    "YjhrUDdBMWU2N3MwamMzaDk4VDhwSDcxZHE2NkowczM6UEtwNnozalRjTGVRTmMxaDN1OWUwZmZYNzdOWTkxYWRFMTI6MzAyMTo2MDUxOTAw"
)
PUSH = b'{"OrderId":12345,"Status":"Completed","Timestamp":"2016-03-03T11:43:05.567","PaymentTransactionId":1234}'
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
RECEIVED = (200, b'{"CallbackResponse":"received"}')
REFUSED = (401, b"{}")
CONFIGURATION = (
    '[kafka]\nbootstrap_servers = "127.0.0.1:9092"\npartitioner = "murmur2"\n'
    "[callbacks]\nrecord_secrets = [{secrets}]\n"
    f'[accounts.hats]\nprovider = "qliro"\ncallback_secrets = ["{SECRET}"]\n'
)
CHOICES = {
    "hats": {"validation": "OutOfStock", "shipping_methods": "declined", "shipping_addresses": "empty"},
    "acme": {"cancel": "unsupported"},
}


class Shop:
    """`ports.Sender`: a shop's endpoint for questions, which answers as a test says."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.requests: list[HttpRequest] = []
        self.answers: Callable[[], HttpResponse | Fault] = lambda: HttpResponse(200, {}, b'{"accept":true}')
        self.is_open = asyncio.Event()
        self.is_open.set()

    async def send(self, request: HttpRequest, deadline_s: float, may_send: Callable[[], bool]) -> HttpResponse | Fault:
        assert may_send()
        self.requests.append(request)
        self.asked.append(json.loads(request.body))
        try:
            async with asyncio.timeout(deadline_s):
                await self.is_open.wait()
        except TimeoutError:
            return Fault(True, f"no response within {deadline_s:g} s")
        return self.answers()

    async def close(self) -> None:
        """Nothing is open."""


class Stage:
    """A receiver with all that it is put between."""

    def __init__(self, limits: Limits, *, lookups: bool, spans: Spans | None = None) -> None:
        clock = VirtualClock(asyncio.get_running_loop())
        self.log = MemoryLog(3, clock)
        self.placing = Placing("murmur2")
        self.producer = MemoryEventProducer(put_into(self.log, self.placing), clock)
        self.shop = Shop()
        tracing = None if spans is None else spans.tracing
        asks = self.shop if tracing is None else tracing.traced(self.shop)
        self.metrics = Metrics()
        self.receiver = Receiver(
            callers(lookups=lookups),
            CALLBACKS,
            self.producer,
            Lookup(asks, self.metrics, limits.question_slots),
            Trust([RECORD_SECRET]),
            self.placing.key_of,
            self.metrics,
            limits,
            lambda: 1_767_225_600_123,
            tracing,
        )
        self.base = ""
        self.session: ClientSession

    @property
    def port(self) -> int:
        """Of the receiver."""
        return URL(self.base).port or 0

    async def call(
        self, path: str, body: bytes = PUSH, headers: dict[str, str] | None = None, method: str = "POST"
    ) -> tuple[int, bytes]:
        """Status and body of an answer."""
        url = URL(self.base + path, encoded=True)
        async with self.session.request(
            method, url, data=body, headers=headers or {}, allow_redirects=False
        ) as response:
            assert response.headers["Server"] == "cartsync"
            return response.status, await response.read()

    async def raw(self, sent: bytes) -> bytes:
        """All that comes back until the connection ends."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(sent)
        try:
            async with asyncio.timeout(10):
                return await reader.read()
        except ConnectionResetError:
            return b""
        finally:
            writer.close()

    def written(self) -> list[dict[str, Any]]:
        """The events in the topic; each is signed, and lies where its key belongs."""
        found = []
        for partition in range(3):
            for record in self.log.records(partition):
                assert record.key is not None
                assert record.value is not None
                Trust([RECORD_SECRET]).check(record.key, record.value, dict(record.headers)["x-cartsync-mac"])
                assert self.placing.partition(record.key, 3) == partition
                event = json.loads(record.value)
                assert record.key == event["subject"].encode()
                found.append(event)
        return found

    def counted(self, result: str, account: str = "hats", purpose: str = "order-status") -> float:
        """Calls with this result."""
        return self.metrics.value("cartsync_callbacks_total", account=account, purpose=purpose, result=result) or 0.0


def callers(*, lookups: bool = False) -> dict[str, Caller]:
    """An account of each provider."""

    def asks(name: str, provider: str) -> Lookups | None:
        if not lookups:
            return None
        defaults = {
            question: CALLBACKS[provider].default(question, choice, lambda _: b"")
            for question, choice in CHOICES[name].items()
        }
        return Lookups(url="http://127.0.0.1:1/questions", token="shop-token", timeout_s=0.4, defaults=defaults)

    return {
        "hats": Caller(name="hats", provider="qliro", callback_secrets=(SECRET, OLD), lookups=asks("hats", "qliro")),
        "acme": Caller(name="acme", provider="sequra", callback_secrets=(SECRET,), lookups=asks("acme", "sequra")),
        "escrow": Caller(
            name="escrow", provider="atarapay", callback_secrets=(SECRET,), public_key=PUBLIC, private_key=PRIVATE
        ),
        "closed": Caller(name="closed", provider="qliro", callback_secrets=()),
    }


@asynccontextmanager
async def staged(*, lookups: bool = False, spans: Spans | None = None, **limits: Any) -> AsyncIterator[Stage]:
    """A stage with other limits than usual; the deadline is short."""
    stage = Stage(Limits(**{"deadline_s": 0.6, "refused_rate": 1000.0} | limits), lookups=lookups, spans=spans)
    stage.producer.start()
    stage.base = await stage.receiver.start("127.0.0.1", 0)
    async with ClientSession() as stage.session:
        yield stage
    await stage.receiver.stop()
    assert stage.receiver.in_flight_bytes == 0 or stage.producer.silent_s() > 0


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """A stage where all is well."""
    async with staged() as made:
        yield made


async def until(holds: Callable[[], object]) -> None:
    """Waits until something is so."""
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - it is others that make it so
            await asyncio.sleep(0.001)


def path(purpose: str, reference: str = "A14/12345", account: str = "hats", secret: str = SECRET) -> str:
    """The address that a checkout gives a provider."""
    return Address(account, purpose, Tokens([secret]).token(account, purpose, reference), reference).path()


# --- spans ---


async def test_spans() -> None:
    """A call that was let in, with its outcome; its events and the question that it leads to carry its trace."""
    spans = Spans()
    async with staged(lookups=True, spans=spans) as stage:
        assert await stage.call(path("checkout-status"), headers={"traceparent": traceparent(5)}) == RECEIVED
        (span,) = spans.named("callback checkout-status")
        (event,) = stage.written()
        assert event["traceparent"] == header_of(span)
        assert (span.parent, links_of(span)) == (None, [traceparent(5)])
        attributes = dict(span.attributes or {})
        assert (attributes["cartsync.result"], attributes["http.response.status_code"]) == ("received", 200)
        assert "12345" not in span.to_json()
        await stage.call(path("checkout-status", secret="f" * 32))
        assert len(spans.named("callback checkout-status")) == 1

        await stage.call(path("validation"), b'{"MerchantReference":"A14/12345","OrderItems":[]}')
        (asked,) = spans.named("POST")
        (question,) = spans.named("callback validation")
        assert question.context is not None
        assert asked.parent is not None
        assert asked.parent.span_id == question.context.span_id
        assert stage.shop.requests[0].headers["traceparent"] == header_of(asked)


async def test_span_of_a_call_that_is_not_written() -> None:
    """An error: the provider will call again."""
    spans = Spans()
    async with staged(spans=spans, in_flight_max_bytes=1) as stage:
        status, _ = await stage.call(path("checkout-status"))
        assert status == 503
    (span,) = spans.named("callback checkout-status")
    assert (span.status.is_ok, dict(span.attributes or {})["cartsync.result"]) == (False, "busy")


# --- who is let in, and what is written ---


async def test_push_is_written_then_answered(stage: Stage) -> None:
    """C31: success comes after Kafka has it; the record is signed."""
    assert await stage.call(path("checkout-status")) == RECEIVED
    (event,) = stage.written()
    assert event["subject"] == "hats/A14/12345"
    assert event["type"] == "provider.payment_state"
    assert event["data"] == {"provider_order": "12345", "state": "approved", "transaction_id": "1234"}
    assert stage.counted("received", purpose="checkout-status") == 1
    assert stage.metrics.value("cartsync_callback_seconds_count", kind="push") == 1


async def test_repeats_share_an_id(stage: Stage) -> None:
    """C10: the same push again is taken again, and the workers know it by its id."""
    for _ in range(3):
        assert await stage.call(path("checkout-status")) == RECEIVED
    assert len({event["id"] for event in stage.written()}) == 1


@pytest.mark.parametrize("body", [PUSH, b"no JSON", b"x" * 300_000])
async def test_handed_over_without_a_connection(stage: Stage, body: bytes) -> None:
    """It is answered, written and counted as if it had come over one."""
    headers = {"content-type": "application/json"}
    for address in (path("checkout-status"), path("party"), f"{path('checkout-status')}/"):
        over_http = await stage.call(address, body, headers)
        assert await stage.receiver.hand("POST", address, headers, body) == over_http
    assert await stage.receiver.hand("GET", path("checkout-status"), {}, b"") == REFUSED
    assert len(stage.written()) == (2 if body == PUSH else 0)
    assert stage.counted("refused", purpose=UNCONFIGURED) == 2


async def test_handed_over_headers_count(stage: Stage) -> None:
    """In any case of letters."""
    answer = await stage.receiver.hand("POST", path("checkout-status"), {"CONTENT-encoding": "gzip"}, PUSH)
    assert answer[0] == 415


async def test_uses_of_each_secret_are_counted(stage: Stage) -> None:
    """One sees when the last order of an old secret is gone."""
    for secret in (SECRET, OLD, OLD):
        assert await stage.call(path("checkout-status", secret=secret)) == RECEIVED
    uses = [
        stage.metrics.value("cartsync_callback_secret_uses_total", account="hats", secret=number) for number in "12"
    ]
    assert uses == [1, 2]


TOKEN = Tokens([SECRET]).token("hats", "order-status", "A14/12345")


@pytest.mark.parametrize(
    "address",
    [
        path("order-status", secret="x" * 32),
        path("order-status").replace("order-status", "checkout-status"),
        path("order-status").replace("12345", "12346"),
        path("order-status").replace("/hats/", "/caps/"),
        path("order-status").replace("/hats/", "/closed/"),
        path("party"),
        path("validation"),
        path("order-status") + "/",
        path("order-status") + "?x=1",
        path("order-status").replace("%2F", "/"),
        path("order-status", "a/../b"),
        path("order-status", "r" * 201),
        f"/callbacks/hats/order-status/{TOKEN}",
        "/callbacks/hats/order-status",
        "/callbacks/hats/order-status/%C3%BC/A14%2F12345",
        "/callbacks/hats/order-status/%ff/A14%2F12345",
        path("notification", account="escrow"),
        "/callbacks/escrow/notification",
        "/callbacks/acme/ipn",
        "/callbacks/acme/webhook/x/7",
        "/",
        "/metrics",
        "/livez",
        "/callbacks/" + "a" * 6000,
    ],
)
async def test_whatever_is_wrong_gets_the_same_answer(stage: Stage, address: str) -> None:
    """C33: 401 and an empty object, whatever was wrong; nothing is written, and nothing of it stands in the log."""
    with logged() as lines:
        assert await stage.call(address) == REFUSED
    assert stage.written() == []
    said = json.dumps(lines)
    for secret in (TOKEN, "A14", "12345", "callbacks/", "party", "caps", "Completed", SECRET):
        assert secret not in said
    assert [line["event"] for line in lines] == ["callback_refused"]


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD", "DELETE", "OPTIONS"])
async def test_other_methods_are_refused(stage: Stage, method: str) -> None:
    """There is nothing to be had but by POST."""
    status, _ = await stage.call(path("order-status"), b"", method=method)
    assert (status, stage.written()) == (401, [])


async def test_refusals_are_counted_by_known_names_alone(stage: Stage) -> None:
    """Labels are those of the configuration, whatever somebody sends."""
    await stage.call("/callbacks/hats/order-status/x/1")
    await stage.call("/callbacks/hats/party/x/1")
    await stage.call("/callbacks/caps/order-status/x/1")
    assert stage.counted("refused") == 1
    assert stage.counted("refused", purpose=UNCONFIGURED) == 1
    assert stage.counted("refused", account=UNCONFIGURED, purpose=UNCONFIGURED) == 1
    assert b"party" not in stage.metrics.render()


async def test_every_reference_comes_through(stage: Stage) -> None:
    """References that some providers cannot carry are legal."""
    references = ["A14/12345", "100 %", "ü ?#&+", "a%2Fb", '"\n', "x" * 200]
    for reference in references:
        assert await stage.call(path("checkout-status", reference)) == RECEIVED
    assert {event["subject"] for event in stage.written()} == {f"hats/{each}" for each in references}


@pytest.mark.parametrize(
    ("body", "status"), [(b"{", 400), (b"\x00", 400), (b"", 400), (b"[1]", 200), (b'{"Status":"Foo"}', 200)]
)
async def test_bodies_that_make_no_sense(stage: Stage, body: bytes, status: int) -> None:
    """Bytes that are no JSON get 400; JSON that nobody understands is shown, and ends the calls."""
    assert (await stage.call(path("checkout-status"), body))[0] == status
    assert [event["type"] for event in stage.written()] == (["provider.unmapped"] if status == 200 else [])


# --- seQura ---


def form(**members: str) -> bytes:
    """A webhook of seQura's."""
    return urlencode({"utf8": "\N{SQUARE ROOT}", "order_ref": "u-1", **members}).encode()


async def test_webhook(stage: Stage) -> None:
    """The token stands in the address."""
    body = form(event="cancelled", order_ref_1="A14/12345")
    assert await stage.call(path("webhook", account="acme"), body, FORM) == (200, b"{}")
    (event,) = stage.written()
    assert (event["type"], event["subject"], event["data"]["by"]) == (
        "provider.cancelled",
        "acme/A14/12345",
        "provider",
    )


async def test_webhook_with_the_token_in_its_body(stage: Stage) -> None:
    """It is about the order that it names, with the token of that order."""
    token = Tokens([SECRET]).token("acme", "webhook", "A14/12345")
    body = form(event="approved", order_ref_1="A14/12345", m_token=token)
    assert await stage.call("/callbacks/acme/webhook", body, FORM) == (200, b"{}")
    (event,) = stage.written()
    assert event["subject"] == "acme/A14/12345"
    assert stage.metrics.value("cartsync_callback_secret_uses_total", account="acme", secret="1") == 1
    for wrong in (
        form(event="approved", order_ref_1="A14/12346", m_token=token),
        form(event="approved", order_ref_1="A14/12345", m_token="x" * 43),
        form(event="approved", order_ref_1="A14/12345"),
        form(event="approved", order_ref_1="..", m_token=Tokens([SECRET]).token("acme", "webhook", "..")),
        form(event="approved", m_token=token),
    ):
        assert await stage.call("/callbacks/acme/webhook", wrong, FORM) == REFUSED
    assert (await stage.call("/callbacks/acme/webhook", b"\xff", FORM))[0] == 400
    assert len(stage.written()) == 1


async def test_webhook_about_another_order(stage: Stage) -> None:
    """The body must not name another order than the address."""
    body = form(event="cancelled", order_ref_1="A14/99999")
    assert await stage.call(path("webhook", account="acme"), body, FORM) == REFUSED
    assert stage.written() == []


async def test_unknown_webhook(stage: Stage) -> None:
    """501, and nothing is written."""
    body = form(event="foo", order_ref_1="A14/12345")
    assert await stage.call(path("webhook", account="acme"), body, FORM) == (501, b'{"error":"Unknown event \'foo\'"}')
    assert stage.written() == []


async def test_cancel_without_lookups(stage: Stage) -> None:
    """It is unsupported, once Kafka has that it was asked."""
    body = form(event="cancel", order_ref_1="A14/12345")
    status, said = await stage.call(path("webhook", account="acme"), body, FORM)
    assert (status, said) == (501, b'{"error":"Unknown event \'cancel\'"}')
    assert [event["type"] for event in stage.written()] == ["provider.cancel_asked"]
    stage.producer.is_hanging = True
    assert (await stage.call(path("webhook", account="acme"), body, FORM))[0] == 503
    stage.producer.recover()


# --- AtaraPay ---


def notification(token: str = NOTIFIED, **members: Any) -> bytes:
    """Of AtaraPay's."""
    data = {"id": 3021, "product_id": 7, "amount_payed": 6051900, "customers": {"name": "Zainab Bello"}} | members
    return json.dumps({"status": "Delivered", "message": "m", "token": token, "data": data}).encode()


async def test_notification(stage: Stage) -> None:
    """C54: both tokens have to be right; neither keys nor people get anywhere."""
    address = Address("escrow", "notification", Tokens([SECRET]).token("escrow", "notification")).path()
    with logged() as lines:
        assert await stage.call(address, notification()) == (200, b'{"status":"success"}')
        assert await stage.call(address, notification("x" * 40)) == REFUSED
        assert await stage.call(address, notification(product_id="A14")) == (200, b'{"status":"success"}')
        assert (await stage.call(address, b"no"))[0] == 400
    (event,) = stage.written()
    assert (event["subject"], event["data"]) == ("escrow/7", {"provider_order": "3021", "state": "delivered"})
    everything = json.dumps([lines, stage.written()]) + stage.metrics.render().decode()
    for secret in (PUBLIC, PRIVATE, NOTIFIED, NOTIFIED[:40], "Zainab", SECRET):
        assert secret not in everything


# --- Kafka ---


async def test_503_while_kafka_hangs(stage: Stage) -> None:
    """C34: by the deadline, and when Kafka is back the repeat is taken."""
    stage.producer.is_hanging = True
    began = asyncio.get_running_loop().time()
    assert await stage.call(path("checkout-status")) == (503, b"{}")
    assert 0.5 < asyncio.get_running_loop().time() - began < 0.9
    assert stage.counted("not_written", purpose="checkout-status") == 1
    assert stage.receiver.in_flight_bytes > 0
    stage.producer.recover()
    assert await stage.call(path("checkout-status")) == RECEIVED
    assert stage.receiver.in_flight_bytes == 0
    assert len({event["id"] for event in stage.written()}) == 1


@pytest.mark.parametrize("how", ["is_away", "is_failing"])
async def test_503_while_kafka_is_not_there(stage: Stage, how: str) -> None:
    """Whether nobody answers or all is refused; nothing stays in flight."""
    setattr(stage.producer, how, True)
    assert await stage.call(path("checkout-status")) == (503, b"{}")
    assert stage.receiver.in_flight_bytes == 0
    stage.producer.recover()
    assert await stage.call(path("checkout-status")) == RECEIVED


async def test_bytes_on_their_way_are_bounded() -> None:
    """Above the bound it is 503 at once, whatever was promised to others."""
    async with staged(in_flight_max_bytes=1_000) as stage:
        stage.producer.is_hanging = True
        calls = [asyncio.create_task(stage.call(path("checkout-status", str(n)))) for n in range(12)]
        await until(lambda: stage.producer.hanging + sum(call.done() for call in calls) == 12)
        at_once = [call.result()[0] for call in calls if call.done()]
        assert at_once == [503] * len(at_once)
        assert 6 <= len(at_once) < 12
        assert 0 < stage.receiver.in_flight_bytes <= 1_000
        stage.producer.recover()
        answers = [status for status, _ in await asyncio.gather(*calls)]
        assert answers.count(200) == 12 - len(at_once)
        assert stage.receiver.in_flight_bytes == 0


# --- bounds ---


async def test_body_that_says_it_is_too_large(stage: Stage) -> None:
    """It is not read."""
    size = stage.receiver.limits.body_max_bytes + 1
    head = f"POST {path('order-status')} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"
    assert (await stage.raw(head.encode())).startswith(b"HTTP/1.1 413 ")
    assert stage.counted("too_large") == 1


async def test_body_that_turns_out_to_be_too_large(stage: Stage) -> None:
    """A chunked one is read up to the bound."""
    head = f"POST {path('order-status')} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    assert b" 413 " in await stage.raw(head.encode() + chunk * 5)


async def test_body_of_the_greatest_size(stage: Stage) -> None:
    """It is read in parts, and taken."""
    body = PUSH[:-1] + b',"Later":"' + b"x" * (stage.receiver.limits.body_max_bytes - len(PUSH) - 11) + b'"}'
    assert len(body) == stage.receiver.limits.body_max_bytes - 0
    assert await stage.call(path("checkout-status"), body) == RECEIVED


async def test_encoded_bodies_are_refused(stage: Stage) -> None:
    """Nothing is unpacked: a small body could become a large one."""
    status, _ = await stage.call(path("checkout-status"), gzip.compress(PUSH), {"Content-Encoding": "gzip"})
    assert (status, stage.written()) == (415, [])
    assert await stage.call(path("checkout-status"), PUSH, {"Content-Encoding": "identity"}) == RECEIVED


async def test_body_that_does_not_come(stage: Stage) -> None:
    """The deadline is for all of it."""
    head = f"POST {path('order-status')} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"
    began = asyncio.get_running_loop().time()
    assert (await stage.raw(head.encode() + b"{")).startswith(b"HTTP/1.1 503 ")
    assert asyncio.get_running_loop().time() - began < 1.5
    assert stage.counted("late") == 1


async def test_broken_chunks(stage: Stage) -> None:
    """Framing that is none is no body."""
    head = f"POST {path('order-status')} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert (await stage.raw(head.encode() + b"zz\r\n")).startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))


async def test_client_that_waits_for_a_word(stage: Stage) -> None:
    """`Expect: 100-continue` is answered once the token was right, and not before."""
    length = f"Host: x\r\nContent-Length: {len(PUSH)}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
    writer.write(f"POST {path('checkout-status')} HTTP/1.1\r\n{length}".encode())
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(PUSH)
    assert (await reader.read()).endswith(RECEIVED[1])
    writer.close()
    assert (await stage.raw(f"POST /callbacks/hats/order-status/x/1 HTTP/1.1\r\n{length}".encode())).startswith(
        b"HTTP/1.1 401 "
    )


@pytest.mark.parametrize("head", [b"", b"POST /callbacks/hats", b"POST / HTTP/1.1\r\nHost: x\r\n"])
async def test_header_that_does_not_come(head: bytes) -> None:
    """Whoever does not finish it is hung up on."""
    async with staged(header_timeout_s=0.1) as stage:
        assert await stage.raw(head) == b""


async def test_connection_is_kept(stage: Stage) -> None:
    """One after the other on the same connection, also after a refusal."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
    for address, status in ((path("checkout-status"), b"200"), ("/x", b"401"), (path("checkout-status"), b"200")):
        writer.write(f"POST {address} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(PUSH)}\r\n\r\n".encode() + PUSH)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.split()[1] == status
        size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(size)
    writer.close()


async def test_slow_clients_keep_nobody_out() -> None:
    """Many connections that say nothing: each new one costs the one that has waited longest."""
    async with staged(connections=20, question_slots=5) as stage:
        idle = [await asyncio.open_connection("127.0.0.1", stage.port) for _ in range(60)]
        for number in range(5):
            assert await stage.call(path("checkout-status", str(number))) == RECEIVED
        assert stage.receiver.connections <= 20
        for _, writer in idle:
            writer.close()


async def test_strangers_lose_their_places_first() -> None:
    """A connection on which a right call has come is kept while there are others."""
    async with staged(connections=10, question_slots=2) as stage:
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
        call = (
            f"POST {path('checkout-status')} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(PUSH)}\r\n\r\n".encode() + PUSH
        )
        idle = []
        for _ in range(2):
            writer.write(call)
            assert (await reader.readuntil(RECEIVED[1])).startswith(b"HTTP/1.1 200 ")
            idle += [await asyncio.open_connection("127.0.0.1", stage.port) for _ in range(30)]
        for _, each in [*idle, (reader, writer)]:
            each.close()


async def test_known_clients_alone_lose_theirs_to_others() -> None:
    """Whoever has a right address keeps nobody out with it."""
    async with staged(connections=10, question_slots=2) as stage:
        call = (
            f"POST {path('checkout-status')} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(PUSH)}\r\n\r\n".encode() + PUSH
        )
        pairs = []
        for _ in range(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
            writer.write(call)
            await reader.readuntil(RECEIVED[1])
            pairs.append((reader, writer))
        assert await stage.call(path("checkout-status", "another")) == RECEIVED
        for _, each in pairs:
            each.close()


async def test_when_all_are_at_work_one_more_is_turned_away() -> None:
    """Nobody whose call is being read is hung up on."""
    async with staged(connections=10, lookups=True) as stage:
        head = "HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"
        reading = [
            asyncio.create_task(stage.raw(f"POST {path('validation', str(n))} {head}".encode())) for n in range(10)
        ]
        await until(lambda: stage.receiver.connections == 10 and not stage.receiver.waiting)
        assert await stage.raw(b"") == b""
        assert all(answer.startswith(b"HTTP/1.1 400 ") for answer in await asyncio.gather(*reading))


async def test_what_is_not_let_in_is_limited() -> None:
    """After some refusals there is only 429, and no connection; who has a right token is answered all the same."""
    async with staged(refused_rate=5.0) as stage:
        answers = [(await stage.call("/callbacks/hats/order-status/x/1"))[0] for _ in range(15)]
        assert answers[:10] == [401] * 10
        assert 429 in answers[10:]
        assert (await stage.raw(b"POST /x HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(b"HTTP/1.1 429 ")
        assert await stage.call(path("checkout-status")) == RECEIVED


async def test_bodies_that_have_to_prove_themselves_are_limited() -> None:
    """Those that do so do not count; the others do."""
    async with staged(body_token_rate=2.0) as stage:
        token = Tokens([SECRET]).token("acme", "webhook", "7")
        good = form(event="approved", order_ref_1="7", m_token=token)
        for _ in range(10):
            assert await stage.call("/callbacks/acme/webhook", good, FORM) == (200, b"{}")
        answers = [
            (await stage.call("/callbacks/acme/webhook", form(m_token="x", order_ref_1="7"), FORM))[0] for _ in range(6)
        ]
        assert (answers[0], answers[-1]) == (401, 429)


async def test_forged_calls_do_not_use_up_the_rate_of_body_tokens() -> None:
    """After more refusals than an address may have, a call that is verified by its body is read all the same."""
    async with staged(refused_rate=1.0) as stage:
        forged = [(await stage.call("/callbacks/hats/order-status/x/1"))[0] for _ in range(8)]
        assert forged[-1] == 429
        good = form(event="approved", order_ref_1="7", m_token=Tokens([SECRET]).token("acme", "webhook", "7"))
        assert await stage.call("/callbacks/acme/webhook", good, FORM) == (200, b"{}")


@pytest.mark.parametrize("limits", [{"account_rate": 2.0}, {"peer_rate": 2.0}])
async def test_too_many_pushes(limits: dict[str, Any]) -> None:
    """They are told to come again, 4 at once being two seconds' worth."""
    async with staged(**limits) as stage:
        answers = [(await stage.call(path("checkout-status", str(n))))[0] for n in range(8)]
        assert (answers[:4], answers[-1]) == ([200] * 4, 429)
        assert stage.counted("limited", purpose="checkout-status") >= 1


async def test_forwarded_addresses_count_from_proxies_alone() -> None:
    """Behind a proxy of ours each client has its own limits; of anybody else the header is worth nothing."""
    for forwarded_from, last in ((("127.0.0.0/8",), 200), ((), 429)):
        async with staged(peer_rate=2.0, forwarded_from=forwarded_from) as stage:
            answers = [
                (await stage.call(path("checkout-status", str(n)), headers={"X-Forwarded-For": f"192.0.2.{n}"}))[0]
                for n in range(8)
            ]
            assert answers[-1] == last


async def test_one_leaked_address_takes_little() -> None:
    """Of one order only so many are at work at once; others are not kept waiting."""
    async with staged(deadline_s=1.0) as stage:
        stage.producer.is_hanging = True
        calls = [asyncio.create_task(stage.call(path("checkout-status"))) for _ in range(SAME_ORDER_MAX + 3)]
        await until(lambda: stage.producer.hanging == SAME_ORDER_MAX and sum(call.done() for call in calls) == 3)
        assert [call.result() for call in calls if call.done()] == [(503, b"{}")] * 3
        stage.producer.recover()
        assert await stage.call(path("checkout-status", "another")) == RECEIVED
        assert [call for call in await asyncio.gather(*calls) if call == RECEIVED] == [RECEIVED] * SAME_ORDER_MAX


# --- questions ---


async def test_validation() -> None:
    """C40: the shop is asked with our names, and its answer is Qliro's."""
    async with staged(lookups=True) as stage:
        body = b'{"OrderId":1,"Currency":"SEK","Customer":{"Email":"a@example.com"}}'
        assert await stage.call(path("validation"), body) == (200, b"{}")
        stage.shop.answers = lambda: HttpResponse(200, {}, b'{"decline":"OutOfStock"}')
        assert await stage.call(path("validation"), body) == (400, b'{"DeclineReason":"OutOfStock"}')
        assert stage.shop.asked[0] == {
            "question": "validation",
            "account": "hats",
            "reference": "A14/12345",
            "provider": "qliro",
            "provider_order": "1",
            "currency": "SEK",
            "customer": {"email": "a@example.com"},
        }
        assert stage.shop.requests[0].headers["Authorization"] == "Bearer shop-token"
        assert stage.written() == []
        count = stage.metrics.value("cartsync_lookups_total", account="hats", question="validation", result="answered")
        assert count == 2


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (Fault(False, "no connection: refused"), "failed"),
        (HttpResponse(500, {}, b"{}"), "failed"),
        (HttpResponse(302, {}, b'{"accept":true}'), "failed"),
        (HttpResponse(200, {}, b"<html>"), "malformed"),
        (HttpResponse(200, {}, b'{"decline":"Moody"}'), "malformed"),
        (None, "late"),
    ],
)
async def test_the_default_is_given(answer: HttpResponse | Fault | None, result: str) -> None:
    """C40: what the merchant has chosen, by the deadline; it is counted, and the log has no personal data."""
    async with staged(lookups=True) as stage:
        if answer is None:
            stage.shop.is_open.clear()
        else:
            stage.shop.answers = lambda: answer
        began = asyncio.get_running_loop().time()
        with logged() as lines:
            answered = await stage.call(path("validation"), b'{"Customer":{"Email":"a@example.com"}}')
        assert answered == (400, b'{"DeclineReason":"OutOfStock"}')
        assert asyncio.get_running_loop().time() - began < 0.6
        assert "example.com" not in json.dumps(lines)
        (line,) = [line for line in lines if line["event"] == "lookup_default_given"]
        assert (line["account"], line["question"], line["result"]) == ("hats", "validation", result)
        count = stage.metrics.value("cartsync_lookups_total", account="hats", question="validation", result=result)
        assert count == 1


@pytest.mark.parametrize(
    ("body", "headers", "result"),
    [
        (b"{", {}, "unreadable"),
        (b"", {}, "unreadable"),
        (b"\xff", {}, "unreadable"),
        (gzip.compress(b"{}"), {"Content-Encoding": "gzip"}, "unreadable"),
        (b" " * 262_145, {}, "too_large"),
    ],
)
@pytest.mark.parametrize(
    ("purpose", "default"),
    [
        ("validation", (400, b'{"DeclineReason":"OutOfStock"}')),
        ("shipping-methods", (400, b'{"DeclineReason":"PostalCodeIsNotSupported"}')),
        ("shipping-addresses", (200, b'{"AvailableShippingAddresses":[]}')),
    ],
)
async def test_questions_that_cannot_be_read_get_the_default(
    body: bytes, headers: dict[str, str], result: str, purpose: str, default: tuple[int, bytes]
) -> None:
    """Qliro approves what has no answer that it knows: the merchant's choice holds, and it is counted."""
    async with staged(lookups=True) as stage:
        assert await stage.call(path(purpose), body, headers) == default
        assert stage.shop.asked == []
        assert stage.counted(result, purpose=purpose) == 1
        question = purpose.replace("-", "_")
        count = stage.metrics.value("cartsync_lookups_total", account="hats", question=question, result="unreadable")
        assert count == 1


async def test_question_that_meets_a_defect_gets_the_default() -> None:
    """A defect of ours approves no order; without a right token it is 401 as ever."""

    def breaks() -> HttpResponse:
        raise ZeroDivisionError

    async with staged(lookups=True) as stage:
        stage.shop.answers = breaks
        assert await stage.call(path("validation"), b"{}") == (400, b'{"DeclineReason":"OutOfStock"}')
        assert stage.counted("failed", purpose="validation") == 1
        assert await stage.call(path("validation", secret="x" * 32), b"{") == REFUSED


@pytest.mark.parametrize("value", [b"1e400", b"9" * 5_000])
async def test_numbers_that_nothing_can_hold(value: bytes) -> None:
    """The shop is asked without them; what happened is written without them."""
    async with staged(lookups=True) as stage:
        line = b'{"MerchantReference":"r","Quantity":1,"PricePerItemIncVat":1,"Metadata":{"a":%b}}' % value
        assert await stage.call(path("validation"), b'{"OrderId":1,"OrderItems":[%b]}' % line) == (200, b"{}")
        assert len(stage.shop.asked) == 1
        body = (
            b'{"OrderId":1,"EventType":"SHIPPING_PROVIDER_UPDATE","IsSuccess":true,"Provider":"p","Payload":{"a":%b}}'
        )
        assert await stage.call(path("notification"), body % value) == RECEIVED
        assert [event["type"] for event in stage.written()] == ["provider.unmapped"]


async def test_questions_are_answered_while_kafka_hangs() -> None:
    """Pushes that wait take none of what is reserved for questions."""
    async with staged(lookups=True, connections=20, question_slots=10, deadline_s=1.5) as stage:
        stage.producer.is_hanging = True
        pushes = [asyncio.create_task(stage.call(path("checkout-status", str(n)))) for n in range(40)]
        await until(lambda: stage.producer.hanging == 8)
        began = asyncio.get_running_loop().time()
        for number in range(10):
            assert await stage.call(path("validation", str(number)), b"{}") == (200, b"{}")
        assert asyncio.get_running_loop().time() - began < 1.0
        stage.producer.recover()
        assert {status for status, _ in await asyncio.gather(*pushes)} == {200, 503}


async def test_more_questions_than_slots() -> None:
    """The default is given at once, and nobody waits for a slot."""
    async with staged(lookups=True, question_slots=2, deadline_s=1.0) as stage:
        stage.shop.is_open.clear()
        asked = [asyncio.create_task(stage.call(path("validation", str(n)), b"{}")) for n in range(5)]
        await until(lambda: len(stage.shop.asked) == 2 and sum(task.done() for task in asked) == 3)
        assert [task.result()[0] for task in asked if task.done()] == [400] * 3
        stage.shop.is_open.set()
        assert sorted(status for status, _ in await asyncio.gather(*asked)) == [200, 200, 400, 400, 400]


async def test_too_many_questions_get_the_default() -> None:
    """Qliro approves what is not answered, so even then there is an answer."""
    async with staged(lookups=True, account_rate=1.0) as stage:
        answers = [(await stage.call(path("validation", str(n)), b"{}"))[0] for n in range(4)]
        assert answers == [200, 200, 400, 400]


async def test_question_whose_body_does_not_come() -> None:
    """The default, before the deadline."""
    async with staged(lookups=True) as stage:
        head = f"POST {path('validation')} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"
        answer = await stage.raw(head.encode())
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"Connection: close" in answer
        assert stage.counted("late", purpose="validation") == 1
        assert stage.shop.asked == []


async def test_answer_that_is_cut_is_logged() -> None:
    """The names of what was left out, not its texts."""
    async with staged(lookups=True) as stage:
        method = {"reference": "r", "name": "n", "price_minor": 1, "price_ex_vat_minor": 1, "brand": "b" * 51}
        stage.shop.answers = lambda: HttpResponse(200, {}, json.dumps({"methods": [method]}).encode())
        with logged() as lines:
            assert (await stage.call(path("shipping-methods"), b"{}"))[0] == 200
        (line,) = [line for line in lines if line["event"] == "lookup_answer_cut"]
        assert line["left_out"] == ["brand"]


async def test_shipping_defaults() -> None:
    """C41: no methods; no addresses."""
    async with staged(lookups=True) as stage:
        stage.shop.answers = lambda: Fault(False, "away")
        assert await stage.call(path("shipping-methods"), b"{}") == (
            400,
            b'{"DeclineReason":"PostalCodeIsNotSupported"}',
        )
        assert await stage.call(path("shipping-addresses"), b"{}") == (200, b'{"AvailableShippingAddresses":[]}')


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b'{"cancelled":true}', (200, b'{"result":"cancelled"}')),
        (b'{"too_late_minutes":125}', (200, b'{"result":"toolate","since":125}')),
        (b"{}", (501, b'{"error":"Unknown event \'cancel\'"}')),
    ],
)
async def test_cancel(answer: bytes, expected: tuple[int, bytes]) -> None:
    """G5: the shop decides; that it was asked is written in any case."""
    async with staged(lookups=True) as stage:
        stage.shop.answers = lambda: HttpResponse(200, {}, answer)
        body = form(event="cancel", order_ref_1="A14/12345")
        assert await stage.call(path("webhook", account="acme"), body, FORM) == expected
        assert stage.shop.asked == [
            {
                "question": "cancel",
                "account": "acme",
                "reference": "A14/12345",
                "provider": "sequra",
                "provider_order": "u-1",
            }
        ]
        assert [event["type"] for event in stage.written()] == ["provider.cancel_asked"]


@pytest.mark.parametrize(("answer", "status"), [(b'{"cancelled":true}', 200), (b"{}", 503)])
@pytest.mark.parametrize("how", ["is_away", "is_hanging", "is_failing"])
async def test_cancel_while_kafka_is_away(answer: bytes, status: int, how: str) -> None:
    """The shop's answer does not wait for Kafka; `unsupported` does, for seQura would not ask again."""
    async with staged(lookups=True) as stage:
        setattr(stage.producer, how, True)
        stage.shop.answers = lambda: HttpResponse(200, {}, answer)
        body = form(event="cancel", order_ref_1="A14/12345")
        assert (await stage.call(path("webhook", account="acme"), body, FORM))[0] == status
        stage.producer.recover()
        await until(lambda: stage.receiver.in_flight_bytes == 0)


# --- defects, and the end ---


async def test_defect_is_not_told(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """503, so that it comes again; the log says where it was, and nothing of what came."""

    def read(_self: QliroCallbacks, called: Called) -> Any:
        raise RuntimeError(called.body.decode())

    monkeypatch.setattr(QliroCallbacks, "read", read)
    with logged() as lines:
        assert await stage.call(path("checkout-status")) == (503, b"{}")
    (line,) = lines
    assert (line["event"], line["error"]) == ("callback_failed", "RuntimeError")
    assert line["where"].startswith("test_receiver.py:")
    assert "Completed" not in json.dumps(lines)
    assert stage.counted("failed", purpose="checkout-status") == 1


@pytest.mark.parametrize(
    "head",
    [
        f"POST {path('order-status')} HTTP/9.x\r\nHost: x\r\n\r\n",
        f"POST {path('order-status')} HTTP/1.1\r\nHost: x\r\nX-T: {TOKEN}\x01\r\n\r\n",
        f"POST {path('order-status')}{'x' * 9000} HTTP/1.1\r\nHost: x\r\n\r\n",
        f"POST {path('order-status')} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ],
)
async def test_what_cannot_be_parsed_is_not_repeated(stage: Stage, head: str) -> None:
    """Neither in an answer nor in the log, whatever the library thinks of it."""
    with logged() as lines:
        answer = await stage.raw(head.encode())
    assert b" 400 " in answer.split(b"\r\n")[0]
    assert TOKEN.encode() not in answer
    assert TOKEN not in json.dumps(lines)
    assert {line["event"] for line in lines} == {"request_unreadable"}


async def test_defect_beside_the_work_on_a_call(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """What only the library catches has a name of ours, and none of its words."""

    def fails(*_about: str) -> None:
        raise RuntimeError(TOKEN)

    monkeypatch.setattr(stage.metrics, "callback", fails)
    head = f"POST {path('order-status')} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    with logged() as lines:
        assert b" 500 " in (await stage.raw(head.encode())).split(b"\r\n")[0]
    (line,) = [line for line in lines if line["level"] == "error"]
    assert (line["event"], line["error"]) == ("request_failed", "RuntimeError")
    assert TOKEN not in json.dumps(lines)


async def test_other_secrets_hold_from_now_on(stage: Stage) -> None:
    """An account that is gone is unknown, one that came is not, and old secrets are old."""
    known = callers()
    del known["acme"]
    known["hats"] = Caller(name="hats", provider="qliro", callback_secrets=(OLD,))
    known["caps"] = Caller(name="caps", provider="qliro", callback_secrets=(SECRET,))
    stage.receiver.reconfigure(known, Trust([RECORD_SECRET]))
    assert await stage.call(path("order-status")) == REFUSED
    assert (await stage.call(path("checkout-status", secret=OLD)))[0] == 200
    assert (await stage.call(path("checkout-status", account="caps")))[0] == 200
    assert await stage.call(path("webhook", account="acme"), form(event="approved"), FORM) == REFUSED


async def test_other_record_secrets_hold_from_now_on(stage: Stage, tmp_path: Path) -> None:
    """Workers take them at SIGHUP, too, and would not believe what is signed with the old ones."""
    assert await stage.call(path("checkout-status")) == RECEIVED
    file = tmp_path / "receive.toml"
    file.write_text(CONFIGURATION.format(secrets=f'"{RECORD_SECRET[::-1]}", "{RECORD_SECRET}"'))
    _reread(stage.receiver, lambda: receiver_config(file, {}))
    assert await stage.call(path("checkout-status")) == RECEIVED
    signed = [
        (dict(record.headers)["x-cartsync-mac"], record.key or b"", record.value or b"")
        for partition in range(3)
        for record in stage.log.records(partition)
    ]
    assert [mac for mac, _, _ in signed] == [
        Trust([secret]).sign(key, value)
        for secret, (_, key, value) in zip((RECORD_SECRET, RECORD_SECRET[::-1]), signed, strict=True)
    ]


async def test_private_port_that_a_worker_has(stage: Stage, tmp_path: Path) -> None:
    """With one file for both, the setting that has to differ is named."""
    process: Any = ReceiverProcess
    operations = PrivatePort(process(stage.receiver, stage.producer, stage.metrics), Access())
    file = tmp_path / "receive.toml"
    file.write_text(CONFIGURATION.format(secrets=f'"{RECORD_SECRET}"') + f"[http]\nport = {stage.port}\n")
    with logged() as lines:
        assert not await _open_ports(stage.receiver, operations, receiver_config(file, {}), "127.0.0.1")
    (line,) = lines
    assert line["event"] == "private_port_unavailable"
    assert "[http] port" in line["do"]
    assert "CARTSYNC_HTTP__PORT" in line["do"]


async def test_stop_lets_calls_end() -> None:
    """What is at work is answered; nothing new is accepted; idle connections end."""
    async with staged(deadline_s=2.0) as stage:
        stage.producer.is_hanging = True
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
        call = asyncio.create_task(stage.call(path("checkout-status")))
        await until(lambda: stage.producer.hanging)
        assert stage.receiver.is_listening
        stopping = asyncio.create_task(stage.receiver.stop())
        await until(lambda: not stage.receiver.is_listening)
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        with pytest.raises(OSError, match=r"refused|Connect call failed"):
            await asyncio.open_connection("127.0.0.1", stage.port)
        stage.producer.recover()
        assert await call == RECEIVED
        async with asyncio.timeout(1):
            await stopping
        writer.close()


async def test_port_that_is_taken(stage: Stage) -> None:
    """It is said."""
    with pytest.raises(OSError, match="in use"):
        await Stage(Limits(), lookups=False).receiver.start("127.0.0.1", stage.port)


async def test_quote_is_what_the_manual_says(stage: Stage) -> None:
    """An address made with other means is the same."""
    token = Tokens([SECRET]).token("hats", "checkout-status", "A14/12345")
    assert await stage.call(f"/callbacks/hats/checkout-status/{token}/{quote('A14/12345', safe='')}") == RECEIVED


async def test_flood_of_forged_tokens_beside_good_ones() -> None:
    """Good pushes are answered within a second beside thousands of forged ones."""
    async with staged(refused_rate=10.0, deadline_s=4.0) as stage:

        async def forge() -> None:
            for number in range(100):
                with suppress(OSError):
                    await stage.raw(
                        f"POST /callbacks/hats/order-status/{number}/1 HTTP/1.1\r\nConnection: close\r\n\r\n".encode()
                    )

        forging = [asyncio.create_task(forge()) for _ in range(10)]
        slowest = 0.0
        for number in range(50):
            began = asyncio.get_running_loop().time()
            assert await stage.call(path("checkout-status", str(number))) == RECEIVED
            slowest = max(slowest, asyncio.get_running_loop().time() - began)
        await asyncio.gather(*forging)
        assert slowest < 1.0
        assert len(stage.written()) == 50
