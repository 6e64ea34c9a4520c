"""What the pages are looked at with: a quiet shop, one in trouble, and none at all."""

from typing import Any

from schemas import state
from schemas.console import WorkerLine
from schemas.state import NextRecord, Operated, OwnerRecord
from schemas.views import AccountView, PartitionView, StatusView
from tests.shops.events import EventSpec, confirmed, goods, payment, shipped
from tests.unit.web.console.scene import Scene, owed, parked, record, settled

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
CATALOGUE = confirmed(
    {
        "line_id": "mug",
        "reference": "mug-blue",
        "name": "Blue mug",
        "quantity": 2,
        "unit_price_minor": 1250,
        "total_minor": 2500,
    },
    {
        "line_id": "atlas",
        "reference": "book-atlas",
        "name": "Atlas of the World",
        "quantity": 1,
        "unit_price_minor": 6900,
        "total_minor": 6900,
    },
    {"type": "handling", "line_id": "ship", "reference": "ship-std", "name": "Shipping", "total_minor": 495},
)
SHIPPED = shipped("s1", mug=2)


def quiet(scene: Scene) -> None:
    """Some orders, all but one settled."""
    now_ms = scene.now_ms
    for number in range(70):
        event_ms = now_ms - number * 7 * MINUTE_MS
        scene.put(f"acme/A14-{1000 + number}", settled(event_ms=event_ms), number % 2)
    scene.put("hats/H-77", record(CATALOGUE, SHIPPED, owed_since_ms=now_ms - 9_000, event_ms=now_ms - 9_000), 1)
    scene.tell(
        "hats/H-77", 1, status="settled", revision=1, acked=1, currency="EUR", shipped_minor=0, unshipped_minor=9895
    )
    scene.tell(
        "hats/H-77", 2, status="owed", revision=2, acked=1, currency="EUR", shipped_minor=2632, unshipped_minor=7263
    )
    for partition in range(2):
        scene.log.write_foreign(
            partition, b"m:owner", state.encode(OwnerRecord(state.SCHEMA, "worker-7f9c", now_ms - HOUR_MS, "1"))
        )
        scene.log.write_foreign(partition, b"m:next", state.encode(NextRecord(state.SCHEMA, 40, 0, False, "1")))
    scene.deeds.says = [worker("http://10.0.0.7:8080", 0, 1)]


def eventful(scene: Scene) -> None:
    """One order to which nearly everything happened that can, beside the quiet shop."""
    quiet(scene)
    scene.trace_url = "https://traces.example/trace/{trace_id}"
    now_ms = scene.now_ms
    subject, at = "acme/A14-4711", now_ms - 3 * HOUR_MS
    trace = "0af7651916cd43dd8448eb211c80319c"
    carts: dict[str, Any] = {"currency": "EUR", "shipped_minor": 2632, "unshipped_minor": 7263}
    deed = Operated("release", "ana", "price corrected, ticket 4711", at + 95 * MINUTE_MS, True, "released", b"u")
    noted = Operated("note", "ana", "the shopper called", at + 60 * MINUTE_MS, True, "noted", b"v")
    reason = "422: unit price … does not match the total"
    happened: tuple[tuple[int, dict[str, Any]], ...] = (
        (0, {"what": "order.confirmed", "event_id": "shop:1", "offset": 118, "amount_minor": 9895, "currency": "EUR"}),
        (31, {"what": "order.items_shipped", "event_id": "shop:2", "offset": 131, "units": 2, "trace": trace}),
        (31, {"kind": "attempt", "what": "unknown", "event_id": "shop:2", "took_ms": 10_004, "hold_ms": 60_000, "reason": "no response within 10 s", **carts, "trace": trace}),
        (33, {"kind": "decision", "what": "held", "hold_ms": 43_000}),
        (34, {"kind": "attempt", "what": "permanent", "event_id": "shop:2", "http_status": 422, "took_ms": 212, "status": "parked", "reason": reason, **carts}),
        (60, {"kind": "operator", "what": "note", "by": "ana", "done": True, "reason": "noted"}),
        (62, {"what": "order.items_returned", "event_id": "shop:3", "offset": 162, "units": 1, "amount_minor": 1250, "superseded": True}),
        (95, {"kind": "operator", "what": "release", "by": "ana", "done": True, "reason": "released"}),
        (95, {"kind": "attempt", "what": "applied", "event_id": "shop:2", "http_status": 204, "took_ms": 188, "status": "settled", **carts}),
        (120, {"what": "provider.transaction", "event_id": "seq-9", "offset": 170, "word": "capture succeeded", "amount_minor": 2632, "currency": "EUR"}),
    )  # fmt: skip
    for number, (minutes, members) in enumerate(happened, 1):
        revision = 1 if number == 1 else 2
        scene.happen(subject, number, at_ms=at + minutes * MINUTE_MS, revision=revision, **members)
    event_ms = at + 120 * MINUTE_MS
    whole = record(
        CATALOGUE, SHIPPED, acked=2, event_ms=event_ms, event_id="shop:2", operated=(noted, deed), entries=10
    )
    whole.trace = f"00-{trace}-b7ad6b7169203331-01"
    scene.put(subject, whole)
    scene.refuse(
        b'{"specversion":"1.0","id":"shop:4","type":"order.items_shipped","subject":"acme/A14-4711","data":{}}',
        "$.data: expected a member shipment_id",
    )


def troubled(scene: Scene) -> None:
    """Everything that can be wrong at once."""
    quiet(scene)
    now_ms = scene.now_ms
    for number in range(6):
        reason = f"422: unit_price_with_tax of item {number} does not match the total, see order {1000 + number}"
        scene.put(f"acme/B20-{number}", parked(reason, now_ms - number * HOUR_MS, event_ms=now_ms - number * HOUR_MS))
    scene.put("acme/B21", parked("409: the order was cancelled by the shopper", now_ms - 2 * HOUR_MS))
    scene.put("acme/C1", owed(now_ms - 3 * HOUR_MS, reason="503: the provider is away", may_land_late=True))
    scene.put(
        "acme/C2",
        record(
            confirmed(goods("A", 1, 100)), shipped("s", A=2), inconsistent_since_ms=now_ms - MINUTE_MS, event_ms=now_ms
        ),
    )
    scene.put("acme/C3", record(shipped("s", A=1), unconfirmed_since_ms=now_ms - 5 * HOUR_MS))
    scene.put("acme/C4", record(confirmed(goods("A", 1, 125_000)), payment("on_hold"), owed_since_ms=now_ms))
    long = "acme/" + "a-very-long-reference-of-a-shop-that-puts-everything-into-it-" * 3
    scene.put(long, parked("500: " + "x" * 300, now_ms))
    scene.put(
        "acmee/typo-1", record(EventSpec("order.cancelled", {"by": "merchant"}), unconfirmed_since_ms=now_ms - HOUR_MS)
    )
    event = (
        b'{"specversion":"1.0","id":"e-9","type":"order.confirmed","subject":"acme/B21","data":{"currency":"EUR",'
        b'"customer":{"given_names":"Ana","email":"ana@example.org"},"lines":[{"reference":"mug","quantity":"two",'
        b'"name":"Blue mug"}]}}'
    )
    scene.refuse(event, "$.data.lines[0].quantity: expected an integer from 1 to 1000000, got a text")
    scene.refuse(b"no json at all", "$: expected JSON, byte 0 is not", "not_json")
    for number in range(30):
        scene.tell(f"acme/B20-{number % 6}", number, status="parked", revision=2, acked=1)
    paused = worker("http://10.0.0.7:8080", 0, paused="401: credentials refused; probing again in 120 s")
    scene.deeds.says = [
        paused,
        (WorkerLine("http://10.0.0.8:8080", False, "no worker responds: connection refused"), None),
    ]


def worker(url: str, *partitions: int, paused: str | None = None) -> tuple[WorkerLine, StatusView]:
    """A worker that answers."""
    views = [PartitionView(each, "serving", "", 40, 0, 0, 0, 0, 0, 0.0, 18.0) for each in partitions]
    account = AccountView("acme", "sequra", "D", paused, 0.0, 0, 0)
    return WorkerLine(url, True, "", "0.1.0", len(views), 18.0), StatusView("0.1.0", True, views, [account])
