"""Order histories to measure with: ten events each, as large and as varied as those of a real shop.

Every order has three articles and a handling line, is changed once, ships in two parcels, and has something returned
and refunded; all of it fits together, so each order ends as one that may be told. Everything comes from the seed.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import msgspec
from msgspec import Struct

ACCOUNT = "acme"
EVENTS_PER_ORDER = 10
PARTITIONS = 4
"""Of every topic here."""

_BEGAN_AT = datetime(2026, 3, 1, tzinfo=UTC)
_SPAN_S = 8 * 24 * 3600.0
_ARTICLES = (
    ("shirt-red-m", "Camiseta de algodón, roja, M", 1990),
    ("jacket-rain", "Chaqueta impermeable", 7100),
    ("mug-blue", "Taza azul", 1250),
    ("tea-green-250", "Té verde, 250 g", 890),
    ("lamp-desk", "Lámpara de escritorio", 4575),
    ("book-atlas", "Atlas del mundo", 3333),
    ("socks-wool", "Calcetines de lana", 799),
    ("chair-oak", "Silla de roble", 14900),
)
_CITIES = (("Madrid", "28013"), ("Barcelona", "08013"), ("Valencia", "46002"), ("Bilbao", "48001"))
_encoder = msgspec.json.Encoder()


class BenchEvent(Struct, frozen=True):
    """`ports.InputRecord`."""

    offset: int
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp: int = round(_BEGAN_AT.timestamp() * 1000 + _SPAN_S * 1000)


def partition_of(number: int) -> int:
    """The partition of the order with this number."""
    return number % PARTITIONS


def subject_of(number: int) -> str:
    """The subject of the order with this number."""
    return f"{ACCOUNT}/{reference_of(number)}"


def reference_of(number: int) -> str:
    """The reference of the order with this number."""
    return f"A14-{1_000_000 + number}"


def in_log_order(seed: int, orders: int, events_per_order: int = EVENTS_PER_ORDER) -> Iterator[tuple[int, bytes]]:
    """The events of so many orders, each with the number of its order, as a log has them.

    All orders go on at the same time, so two events of one order are seldom in one transaction.
    """
    random = Random(seed)
    due: list[tuple[float, int, int]] = []
    for number in range(orders):
        at = random.random()
        for step in range(events_per_order):
            due.append((at, number, step))
            at += random.uniform(0.2, 1.8)
    made: dict[int, list[bytes]] = {}
    for _, number, step in sorted(due):
        if number not in made:
            made[number] = list(history(seed, number, events_per_order))
        yield number, made[number][step]


def history(seed: int, number: int, events: int = EVENTS_PER_ORDER) -> Iterator[bytes]:
    """The first events of one order's ten, in their order."""
    random = Random(seed * 1_000_003 + number)
    return _events(random, number, _steps(random)[:events])


def parcels(number: int, count: int) -> Iterator[bytes]:
    """The events of an order that leaves in so many parcels."""
    random = Random(number)
    line = _line(_ARTICLES[0], count)
    steps = [("confirmed", {"currency": "EUR", "lines": [line], **_details(random)})]
    shipped = [_shipment(random, f"s{parcel}", [(line["reference"], 1)]) for parcel in range(count)]
    return _events(random, number, steps + [("items_shipped", shipment) for shipment in shipped])


def wide(number: int, lines: int) -> Iterator[bytes]:
    """The events of an order of so many lines: confirmed, changed, and the first half of it sent."""
    random = Random(number)
    goods = [_line((f"sku-{line}", f"Artículo {line}", 1990), 2) for line in range(lines)]
    sent = [(line["reference"], 2) for line in goods[: (lines + 1) // 2]]
    steps = [
        ("confirmed", {"currency": "EUR", "lines": goods, **_details(random)}),
        ("cart_updated", {"currency": "EUR", "cart_version": 2, "lines": [_cheaper(goods[0]), *goods[1:]]}),
        ("items_shipped", _shipment(random, "s1", sent)),
    ]
    return _events(random, number, steps)


def _events(random: Random, number: int, steps: list[tuple[str, dict[str, Any]]]) -> Iterator[bytes]:
    subject = subject_of(number)
    at = _BEGAN_AT + timedelta(seconds=random.uniform(0, _SPAN_S / 2))
    for step, (kind, data) in enumerate(steps):
        at += timedelta(seconds=random.uniform(600, 20_000))
        event = {
            "specversion": "1.0",
            "id": f"{random.getrandbits(64):016x}",
            "source": "/shops/acme",
            "type": f"order.{kind}",
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "subject": subject,
            "sequence": str(step + 1),
            "traceparent": f"00-{random.getrandbits(128):032x}-{random.getrandbits(64):016x}-01",
            "data": data,
        }
        yield _encoder.encode(event)


def _steps(random: Random) -> list[tuple[str, dict[str, Any]]]:
    articles = random.sample(_ARTICLES, 3)
    counts = [random.randint(2, 4) for _ in articles]
    lines = [_line(article, count) for article, count in zip(articles, counts, strict=True)]
    lines.append({"type": "handling", "reference": "ship-std", "name": "Gastos de envío", "total_minor": 495})
    first, second, third = (reference for reference, _, _ in articles)
    return [
        ("confirmed", {"currency": "EUR", "lines": lines, **_details(random)}),
        ("details_changed", {"delivery_address": _address(random)}),
        # A coupon that came late: total_minor need not be quantity × unit price.
        ("cart_updated", {"currency": "EUR", "cart_version": 2, "lines": [_cheaper(lines[0]), *lines[1:]]}),
        ("items_shipped", _shipment(random, "s1", [(first, counts[0]), (second, 1)])),
        ("items_delivered", {"shipment_id": "s1", "delivered_at": "2026-03-04T10:12:00+01:00"}),
        ("items_shipped", _shipment(random, "s2", [(second, counts[1] - 1), (third, counts[2] - 1)])),
        ("items_cancelled", {"cancellation_id": "c1", "lines": _units([(third, 1)]), "reason": "out_of_stock"}),
        ("items_delivered", {"shipment_id": "s2", "delivered_at": "2026-03-06T17:40:00+01:00"}),
        ("items_returned", {"return_id": "r1", "lines": _units([(first, 1)])}),
        ("refunded", {"refund_id": "f1", "amount_minor": random.randint(1, 500), "name": "Goodwill"}),
    ]


def _line(article: tuple[str, str, int], count: int) -> dict[str, Any]:
    reference, name, minor = article
    return {
        "reference": reference,
        "name": name,
        "quantity": count,
        "unit_price_minor": minor,
        "total_minor": count * minor,
    }


def _cheaper(line: dict[str, Any]) -> dict[str, Any]:
    return line | {"total_minor": line["total_minor"] * 9 // 10}


def _units(pairs: list[tuple[str, int]]) -> list[dict[str, Any]]:
    return [{"line_id": line_id, "quantity": count} for line_id, count in pairs]


def _shipment(random: Random, name: str, pairs: list[tuple[str, int]]) -> dict[str, Any]:
    code = f"PQ{random.getrandbits(40)}ES"
    tracking = {
        "reference": f"parcel-{name}",
        "type": "postal",
        "carrier": "Correos",
        "tracking_number": code,
        "tracking_url": f"https://correos.example/track/{code}",
    }
    return {"shipment_id": name, "lines": _units(pairs), "tracking": [tracking]}


def _details(random: Random) -> dict[str, Any]:
    customer = {
        "given_names": "Nora",
        "surnames": "Vidal Ferrer",
        "email": f"nora.{random.getrandbits(32)}@shop.example",
        "ref": str(random.getrandbits(24)),
        "nin": f"{random.getrandbits(26):08d}X",
    }
    method = {"name": "Envío estándar", "days": "2-4", "provider": "Correos", "home_delivery": True}
    return {
        "customer": customer,
        "delivery_address": _address(random),
        "invoice_address": _address(random),
        "delivery_method": method,
    }


def _address(random: Random) -> dict[str, Any]:
    city, postal_code = random.choice(_CITIES)
    return {
        "given_names": "Nora",
        "surnames": "Vidal Ferrer",
        "company": "",
        "line_1": f"Calle de Ejemplo {random.randint(1, 400)}",
        "line_2": f"{random.randint(1, 9)}º {random.choice('ABCD')}",
        "postal_code": postal_code,
        "city": city,
        "country_code": "ES",
        "mobile_phone": f"6{random.randint(10**7, 10**8 - 1)}",
    }
