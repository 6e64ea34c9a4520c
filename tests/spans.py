"""Spans that a test looks at, kept by OpenTelemetry's own exporter in memory."""

from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import format_span_id, format_trace_id

from worker.tracing import Tracing


class Spans:
    """What was exported so far."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = Tracing(provider)

    def named(self, name: str) -> Sequence[ReadableSpan]:
        """Those of this name, in the order in which they ended."""
        return [span for span in self._exporter.get_finished_spans() if span.name == name]


def traceparent(number: int) -> str:
    """Of some event."""
    return f"00-{number:032x}-{number:016x}-01"


def header_of(span: ReadableSpan) -> str:
    """How others are told of a span."""
    context = span.get_span_context()
    assert context is not None
    return f"00-{format_trace_id(context.trace_id)}-{format_span_id(context.span_id)}-{context.trace_flags:02x}"


def links_of(span: ReadableSpan) -> list[str]:
    """`traceparent` of what it links to."""
    return [
        f"00-{format_trace_id(link.context.trace_id)}-{format_span_id(link.context.span_id)}-01" for link in span.links
    ]
