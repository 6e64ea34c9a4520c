"""The receiver's producer while Kafka says nothing: it is seen, in the metric and in the log."""

import asyncio
from typing import Any

import pytest

from tests.logged import logged
from worker.core.placing import Placing
from worker.kafka.producer import KafkaEventProducer
from worker.kafka.settings import KafkaSettings


class TopicIsMissing:
    """What the library's producer does when brokers do not know a topic: it asks again for as long as it is let."""

    async def partitions_for(self, _topic: str) -> set[int]:
        """Never says."""
        await asyncio.get_running_loop().create_future()
        raise AssertionError


@pytest.mark.parametrize("connected", [None, TopicIsMissing()], ids=["no broker", "no topic"])
async def test_record_that_is_given_up_before_anybody_took_it(connected: Any) -> None:
    """The deadline of a callback is all that ends the wait: no error of Kafka's does."""
    settings = KafkaSettings(bootstrap_servers="127.0.0.1:1", event_topic="orders")
    producer = KafkaEventProducer(settings, Placing("murmur2"))
    producer._producer = connected
    with logged() as lines:
        assert producer.silent_s() == 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await producer.post(b"hats/1", b"{}", ())
        assert producer.silent_s() > 0
    (line,) = [line for line in lines if line["event"] == "events_not_written"]
    assert "orders" in line["error"]
