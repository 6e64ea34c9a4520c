"""Spans of a worker, in virtual time: what each is about, and what it links to."""

import asyncio

import msgspec
import pytest

from tests.logged import logged
from tests.simulation.stage import LINE, Stage, order_event, play
from tests.spans import Spans, header_of, links_of, traceparent
from worker.sim.scripted import Answer

SHIPPED = {"shipment_id": "s1", "lines": [{"line_id": "a", "quantity": 1}]}


def write(stage: Stage, kind: str, data: object, number: int) -> None:
    """An event of order acme/1 with a `traceparent`."""
    body = msgspec.json.decode(order_event("1", kind, data)) | {"traceparent": traceparent(number)}
    stage.log.append(b"k", msgspec.json.encode(body), partition=0)


def test_events_and_their_request() -> None:
    """The request is below the newest event, links to the others in it, and tells the provider so."""
    spans = Spans()

    async def story(stage: Stage) -> None:
        write(stage, "confirmed", {"currency": "EUR", "lines": [LINE]}, 1)
        write(stage, "items_shipped", SHIPPED, 2)
        with logged() as lines:
            worker = await stage.serving("w1", tracing=spans.tracing)
            await asyncio.sleep(20.0)
        (process,) = spans.named("process orders.events")
        assert links_of(process) == [traceparent(1), traceparent(2)]
        attributes = dict(process.attributes or {})
        assert attributes["messaging.batch.message_count"] == 2
        assert attributes["messaging.destination.partition.id"] == "0"
        (put,) = spans.named("PUT")
        assert put.parent is not None
        assert put.context is not None
        assert put.context.trace_id == put.parent.trace_id == 2
        assert links_of(put) == [traceparent(1)]
        (exchange,) = stage.provider.exchanges
        assert exchange.headers["traceparent"] == header_of(put)
        attributes = dict(put.attributes or {})
        assert attributes["server.address"] == "provider.example"
        assert attributes["http.response.status_code"] == 204
        assert "acme/1" not in f"{attributes} {process.attributes}"
        noted = [(line["event"], line["trace_id"]) for line in lines if line.get("order") == "acme/1"]
        assert noted == [("order_settled", f"{2:032x}")]

        # What was told already is in no later request.
        write(stage, "items_returned", {"return_id": "r1", "lines": [{"line_id": "a", "quantity": 1}]}, 3)
        await asyncio.sleep(20.0)
        await worker.stop()
        _, put = spans.named("PUT")
        assert put.parent is not None
        assert (put.parent.trace_id, links_of(put)) == (3, [])

    play(story)


def test_a_request_that_is_refused() -> None:
    """An error each time; the events are linked until the provider has them."""
    spans = Spans()

    async def story(stage: Stage) -> None:
        stage.provider.answer([Answer(500, times=2)])
        write(stage, "confirmed", {"currency": "EUR", "lines": [LINE]}, 1)
        write(stage, "items_shipped", SHIPPED, 2)
        worker = await stage.serving("w1", tracing=spans.tracing)
        await asyncio.sleep(120.0)
        await worker.stop()
        puts = spans.named("PUT")
        assert [span.status.is_ok for span in puts] == [False, False, True]
        assert [links_of(span) for span in puts] == [[traceparent(1)]] * 3
        assert len({header_of(span) for span in puts}) == 3

    play(story)


@pytest.mark.parametrize("is_traced", [False, True])
def test_nobody_wants_any(is_traced: bool) -> None:
    """Without, the provider gets the event's own trace, as ever."""
    spans = Spans()

    async def story(stage: Stage) -> None:
        write(stage, "confirmed", {"currency": "EUR", "lines": [LINE]}, 1)
        write(stage, "items_shipped", SHIPPED, 2)
        worker = await stage.serving("w1", tracing=spans.tracing if is_traced else None)
        await asyncio.sleep(20.0)
        await worker.stop()
        (exchange,) = stage.provider.exchanges
        assert (exchange.headers["traceparent"] == traceparent(2)) is not is_traced

    play(story)
