"""Spans for OpenTelemetry, of the optional extra `cartsync[otel]`. Who has no `Tracing` makes none, and pays nothing.

* `process <event topic>` (consumer): a transaction that took events. Links to their `traceparent`.
* `PUT`, or another verb (client): a request to a provider or, of a receiver, to a shop. It is below the newest event's
  trace, which thus goes to the provider, and links to the other events in it. One of a report is below nothing.
* `callback <purpose>` (server): a provider's call that was let in. Its events carry its trace; it links to the
  caller's.

What a span says is bounded and names nobody: no path, no body, no reference of an order.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from urllib.parse import urlsplit

from msgspec.structs import replace
from opentelemetry import trace
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from worker import __version__
from worker.model.exchange import Fault, HttpRequest, HttpResponse
from worker.ports import Sender

_HEADER = "traceparent"
_LENGTH = 55
"""Of the part that all versions share (W3C Trace Context, section 3.2)."""
LINKS_MAX = 100
"""Of a span."""
_EVENTS_MAX = 16
"""Of an order, that were not told yet; older ones have no link."""
_ORDERS_MAX = 10_000
"""Orders whose events are remembered; others have the newest alone, from their record."""

_propagator = TraceContextTextMapPropagator()


def _context_of(traceparent: str) -> trace.SpanContext:
    """Where an event or a call comes from; not valid for what is no `traceparent`."""
    found = _propagator.extract({_HEADER: traceparent[:_LENGTH]})
    return trace.get_current_span(found).get_span_context()


def _links(traceparents: Sequence[str]) -> list[Link]:
    contexts = map(_context_of, traceparents[-LINKS_MAX:])
    return [Link(context) for context in contexts if context.is_valid]


def traceparent_of(span: Span) -> str:
    """As others are told of it."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, trace.set_span_in_context(span))
    return carrier.get(_HEADER, "")


def current_ids() -> Mapping[str, str]:
    """Of the span that is under way, for a line of the log; empty: there is none."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {"trace_id": trace.format_trace_id(context.trace_id), "span_id": trace.format_span_id(context.span_id)}


class Tracing:
    """All spans of a process. Everything in it happens on one event loop; a thread of its own exports them."""

    def __init__(self, provider: TracerProvider, flush: Callable[[int], object] = lambda _timeout_ms: None) -> None:
        """`flush`: exports what is left, within so many milliseconds."""
        self.flush = flush
        self._tracer = provider.get_tracer("cartsync", __version__)
        self._untold: OrderedDict[str, list[str]] = OrderedDict()
        """By order, `traceparent` of events that its provider was not told of yet."""
        self._in_turn: ContextVar[tuple[str, ...]] = ContextVar("in_turn", default=())
        """Of the order whose turn it is in this task."""

    # --- events ---

    def begin_processing(self, topic: str, partition: int, group: str) -> Span:
        """Of a transaction in the making; not ended, it never was."""
        return self._tracer.start_span(
            f"process {topic}",
            context=trace.set_span_in_context(trace.INVALID_SPAN),
            kind=SpanKind.CONSUMER,
            attributes={
                "messaging.system": "kafka",
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.destination.name": topic,
                "messaging.destination.partition.id": str(partition),
                "messaging.consumer.group.name": group,
            },
        )

    @contextmanager
    def processed(self, span: Span, count: int, traces: Sequence[tuple[str, str]]) -> Iterator[None]:
        """It was committed, with so many events; lines of the log come under it. `traces`: (subject, `traceparent`) of
        those that changed an order.
        """
        if not count:
            yield
            return
        for link in _links([traceparent for _, traceparent in traces]):
            span.add_link(link.context)
        span.set_attribute("messaging.batch.message_count", count)
        with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            yield

    def fail_processing(self, span: Span) -> None:
        """It was not committed, as far as is known."""
        span.set_status(Status(StatusCode.ERROR, "not committed"))
        span.end()

    def remember(self, traces: Sequence[tuple[str, str]]) -> None:
        """Events that are committed, and that their providers are to be told of."""
        for subject, traceparent in traces:
            self._remember(subject, traceparent)

    def _remember(self, subject: str, traceparent: str) -> None:
        known = self._untold.setdefault(subject, [])
        known.append(traceparent)
        del known[:-_EVENTS_MAX]
        self._untold.move_to_end(subject)
        if len(self._untold) > _ORDERS_MAX:
            self._untold.popitem(last=False)

    @staticmethod
    def id_of(traceparent: str | None) -> str:
        """The part that names the trace; empty: there is none."""
        context = None if traceparent is None else _context_of(traceparent)
        return trace.format_trace_id(context.trace_id) if context is not None and context.is_valid else ""

    # --- requests ---

    def takes_turn(self, subject: str) -> None:
        """What is sent from this task from now on is about this order, with all of its events so far."""
        self._in_turn.set(tuple(self._untold.get(subject, ())))

    def told(self, subject: str) -> None:
        """The provider has what the turn was about."""
        left = [each for each in self._untold.get(subject, ()) if each not in self._in_turn.get()]
        if left:
            self._untold[subject] = left
        else:
            self._untold.pop(subject, None)

    def traced(self, sender: Sender) -> "TracedSender":
        """A sender that makes a span of each request."""
        return TracedSender(sender, self)

    @contextmanager
    def request(self, request: HttpRequest) -> Iterator[tuple[Span, HttpRequest]]:
        """The span of a request, and the request with it in its header."""
        newest = request.headers.get(_HEADER, "")
        parent = _propagator.extract({_HEADER: newest}) if newest else None
        others = [each for each in self._in_turn.get() if each[:_LENGTH] != newest]
        url = urlsplit(request.url)
        attributes = {"http.request.method": request.method, "server.address": url.hostname or ""}
        if url.port:
            attributes |= {"server.port": str(url.port)}
        if request.account:
            attributes |= {"cartsync.account": request.account}
        with self._tracer.start_as_current_span(
            request.method,
            parent,
            SpanKind.CLIENT,
            attributes,
            _links(others),
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            yield span, replace(request, headers=request.headers | {_HEADER: traceparent_of(span)})

    # --- callbacks ---

    @contextmanager
    def callback(self, account: str, purpose: str, traceparent: str) -> Iterator[Span]:
        """The span of a call. Its trace is ours: anybody may send us a header."""
        with self._tracer.start_as_current_span(
            f"callback {purpose}",
            trace.set_span_in_context(trace.INVALID_SPAN),
            SpanKind.SERVER,
            {"http.request.method": "POST", "cartsync.account": account, "cartsync.purpose": purpose},
            _links([traceparent] if traceparent else []),
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            yield span

    @staticmethod
    def answered(span: Span, status: int, result: str) -> None:
        """What the caller got."""
        span.set_attribute("http.response.status_code", status)
        span.set_attribute("cartsync.result", result)
        if status >= 500:
            span.set_status(Status(StatusCode.ERROR, result))

    @staticmethod
    def current() -> str:
        """`traceparent` of the span that is under way; empty: there is none."""
        return traceparent_of(trace.get_current_span())


class TracedSender:
    """`ports.Sender`."""

    def __init__(self, sender: Sender, tracing: Tracing) -> None:
        self._sender = sender
        self._tracing = tracing

    async def send(self, request: HttpRequest, deadline_s: float, may_send: Callable[[], bool]) -> HttpResponse | Fault:
        with self._tracing.request(request) as (span, told):
            found = await self._sender.send(told, deadline_s, may_send)
            if isinstance(found, Fault):
                span.set_status(Status(StatusCode.ERROR, "no response" if found.sent else "not sent"))
            else:
                span.set_attribute("http.response.status_code", found.status)
                if found.status >= 400:
                    span.set_status(Status(StatusCode.ERROR))
        return found

    async def close(self) -> None:
        await self._sender.close()
