"""Spans of requests and callbacks, by OpenTelemetry's own SDK, and when there are any at all."""

import sys
from collections.abc import Callable

import pytest
import structlog
from opentelemetry.trace import SpanKind, StatusCode

from tests.logged import logged
from tests.spans import Spans, header_of, links_of, traceparent
from worker import logs
from worker.app.tracing import open_tracing
from worker.config import wants_traces
from worker.model.exchange import Fault, HttpRequest, HttpResponse
from worker.tracing import LINKS_MAX, current_ids


class Provider:
    """`ports.Sender`: answers what it was given."""

    def __init__(self, answer: HttpResponse | Fault) -> None:
        self.answer = answer
        self.sent: list[HttpRequest] = []
        self.is_closed = False

    async def send(self, request: HttpRequest, deadline_s: float, may_send: Callable[[], bool]) -> HttpResponse | Fault:
        assert may_send()
        assert deadline_s == 1.0
        self.sent.append(request)
        return self.answer

    async def close(self) -> None:
        self.is_closed = True


def request(**headers: str) -> HttpRequest:
    """With a reference in its path, which nobody is to see."""
    return HttpRequest("PUT", "https://provider.example:8443/orders/anna", {"X": "y"} | headers, b"anna", "acme")


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (HttpResponse(200, {}, b""), StatusCode.UNSET, 200),
        (HttpResponse(422, {}, b"anna"), StatusCode.ERROR, 422),
        (Fault(True, "anna"), StatusCode.ERROR, None),
        (Fault(False, "anna"), StatusCode.ERROR, None),
    ],
)
async def test_request(answer: HttpResponse | Fault, status: StatusCode, code: int | None) -> None:
    """Its verb and its outcome; nothing of path, body or answer; and the provider is told of it."""
    spans, provider = Spans(), Provider(answer)
    sender = spans.tracing.traced(provider)
    assert await sender.send(request(traceparent=traceparent(7)), 1.0, lambda: True) is answer
    (span,) = spans.named("PUT")
    assert (span.kind, span.status.status_code) == (SpanKind.CLIENT, status)
    attributes = dict(span.attributes or {})
    assert attributes.get("http.response.status_code") == code
    assert (attributes["server.address"], attributes["server.port"]) == ("provider.example", "8443")
    assert attributes["cartsync.account"] == "acme"
    assert "anna" not in span.to_json()
    assert span.parent is not None
    assert span.parent.trace_id == 7
    assert provider.sent[0].headers == {"X": "y", "traceparent": header_of(span)}
    await sender.close()
    assert provider.is_closed


async def test_request_of_no_event() -> None:
    """A report is below nothing; a header that is none does no harm."""
    spans, provider = Spans(), Provider(HttpResponse(200, {}, b""))
    sender = spans.tracing.traced(provider)
    await sender.send(request(), 1.0, lambda: True)
    await sender.send(request(traceparent="nonsense"), 1.0, lambda: True)
    assert [span.parent for span in spans.named("PUT")] == [None, None]
    assert [sent.headers["traceparent"] for sent in provider.sent] == [header_of(each) for each in spans.named("PUT")]


async def test_request_that_breaks_off() -> None:
    """It ends, and says nothing of what was raised."""

    class Broken(Provider):
        async def send(self, *_: object) -> HttpResponse | Fault:
            raise ValueError("anna")

    spans = Spans()
    with pytest.raises(ValueError, match="anna"):
        await spans.tracing.traced(Broken(Fault(True, ""))).send(request(), 1.0, lambda: True)
    (span,) = spans.named("PUT")
    assert "ValueError" not in span.to_json()


def test_links_are_bounded() -> None:
    """However many events one transaction takes."""
    spans = Spans()
    span = spans.tracing.begin_processing("orders.events", 0, "g")
    traces = [(f"acme/{number}", traceparent(number + 1)) for number in range(500)]
    with spans.tracing.processed(span, 500, traces):
        assert current_ids()["trace_id"]
    (done,) = spans.named("process orders.events")
    assert links_of(done) == [each for _, each in traces[-LINKS_MAX:]]
    assert current_ids() == {}


def test_transaction_without_events_is_none() -> None:
    """Keep-alives are no news; one that was not committed is."""
    spans = Spans()
    span = spans.tracing.begin_processing("orders.events", 0, "g")
    with spans.tracing.processed(span, 0, []):
        assert current_ids() == {}
    assert spans.named("process orders.events") == []
    spans.tracing.fail_processing(spans.tracing.begin_processing("orders.events", 0, "g"))
    assert spans.named("process orders.events")[0].status.status_code is StatusCode.ERROR


def test_what_is_remembered_of_orders_is_bounded() -> None:
    """The newest 16 events of an order, until they were told."""
    spans = Spans()
    spans.tracing.remember([("acme/1", traceparent(number + 1)) for number in range(20)])
    spans.tracing.takes_turn("acme/1")
    with spans.tracing.request(request()):
        pass
    spans.tracing.remember([("acme/1", traceparent(99))])
    spans.tracing.told("acme/1")
    spans.tracing.takes_turn("acme/1")
    with spans.tracing.request(request()):
        pass
    first, second = spans.named("PUT")
    assert links_of(first) == [traceparent(number) for number in range(5, 21)]
    assert links_of(second) == [traceparent(99)]
    spans.tracing.remember([(f"b/{number}", traceparent(5)) for number in range(10_000)])
    spans.tracing.takes_turn("acme/1")
    with spans.tracing.request(request()):
        pass
    assert links_of(spans.named("PUT")[-1]) == []


def test_id_of() -> None:
    """For lines of the log."""
    spans = Spans()
    assert spans.tracing.id_of(traceparent(10)) == f"{10:032x}"
    assert spans.tracing.id_of(None) == spans.tracing.id_of("nonsense") == ""


# --- whether there are any ---


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, False),
        ({"OTEL_SERVICE_NAME": "cartsync"}, False),
    ],
)
def test_who_wants_any(environ: dict[str, str], wanted: bool) -> None:
    """As OpenTelemetry's own variables say."""
    assert wants_traces(environ) is wanted


def test_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of OpenTelemetry is even read."""
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER"):
        monkeypatch.delenv(name, raising=False)
    assert open_tracing() is None


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wanted and not installed: the worker says so, and runs."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with logged() as lines:
        assert open_tracing() is None
    assert [line["event"] for line in lines] == ["tracing_unavailable"]


def test_lines_carry_the_span_that_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what they say themselves stays."""
    monkeypatch.setattr(logs, "_more", None)
    logs.add_to_lines(lambda: {"trace_id": "a", "event": "b"})
    with logged() as lines:
        structlog.get_logger(__name__).warning("something")
    assert [(line["event"], line["trace_id"]) for line in lines] == [("something", "a")]
