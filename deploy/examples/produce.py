"""Writes the life of one order to the event topic: confirmed, and half of it shipped.

    .venv/bin/python deploy/examples/produce.py --bootstrap localhost:9092 --order acme/A1

Any Kafka client will do. What matters: the key is the same for all events of an order (here its subject), every
producer of the shop chooses partitions in the same way, and `acks=all` with idempotence, so that no event is lost or
doubled on the way to Kafka. It would be harmless if one came twice: `source` and `id` identify it.
"""

import argparse
import asyncio
import json
import uuid
from datetime import UTC, datetime
from typing import Any

from aiokafka import AIOKafkaProducer


def event(kind: str, subject: str, data: dict[str, Any]) -> dict[str, Any]:
    """One CloudEvents 1.0 object, as it happened just now."""
    return {
        "specversion": "1.0",
        "id": str(uuid.uuid4()),
        "source": "/examples/produce",
        "type": kind,
        "time": datetime.now(UTC).isoformat(),
        "subject": subject,
        "data": data,
    }


def life_of(subject: str) -> list[dict[str, Any]]:
    """Two shirts at 12.50 are ordered and approved; one of them leaves the shop."""
    line = {"reference": "shirt", "name": "Shirt", "quantity": 2, "unit_price_minor": 1250, "total_minor": 2500}
    return [
        event("order.confirmed", subject, {"currency": "EUR", "lines": [line]}),
        event("order.items_shipped", subject, {"shipment_id": "s1", "lines": [{"line_id": "shirt", "quantity": 1}]}),
    ]


async def produce(bootstrap: str, topic: str, subject: str) -> None:
    """Writes the events in order, each acknowledged before the next."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True) as producer:
        for each in life_of(subject):
            at = await producer.send_and_wait(topic, json.dumps(each).encode(), key=subject.encode())
            print(f"{each['type']} of {subject}: partition {at.partition}, offset {at.offset}")


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description="Write the life of one order to the event topic.")
    parser.add_argument("--bootstrap", default="localhost:9092", help="host:port (default: localhost:9092)")
    parser.add_argument("--topic", default="orders.events", help="default: orders.events")
    parser.add_argument("--order", default="acme/A1", help="account/reference (default: acme/A1)")
    arguments = parser.parse_args()
    asyncio.run(produce(arguments.bootstrap, arguments.topic, arguments.order))


if __name__ == "__main__":
    main()
