"""Whether this process makes spans, and where they go: as OpenTelemetry's own environment variables say."""

import asyncio
import threading
from typing import TYPE_CHECKING

import structlog

from worker import __version__
from worker.config import wants_traces

if TYPE_CHECKING:
    from worker.tracing import Tracing

log = structlog.get_logger(__name__)

_FLUSH_S = 2.0


def open_tracing() -> "Tracing | None":
    """Spans that are sent by OTLP over HTTP, from a thread of their own; `None`: nobody wants any, or the extra is
    missing.
    """
    if not wants_traces():
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        do = "install cartsync[otel], or unset OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_TRACES_EXPORTER"
        log.warning("tracing_unavailable", error=str(error), do=do)
        return None
    from worker import logs  # noqa: PLC0415
    from worker.tracing import Tracing, current_ids  # noqa: PLC0415

    ours = Resource({SERVICE_NAME: "cartsync", SERVICE_VERSION: __version__})
    provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    logs.add_to_lines(current_ids)
    log.info("tracing_on")
    return Tracing(provider, provider.force_flush)


async def close_tracing(tracing: "Tracing | None") -> None:
    """Sends what is left, if that takes no longer than two seconds."""
    if tracing is None:
        return
    flushing = threading.Thread(target=tracing.flush, args=(round(1000 * _FLUSH_S),), daemon=True)
    flushing.start()
    await asyncio.to_thread(flushing.join, _FLUSH_S)
