"""The client library: what it leaves behind, and what of that is shown."""

import asyncio
import gc
import logging

import pytest

from worker.kafka.client import kafka_errors, silence_unretrieved_errors

COORDINATOR = "aiokafka.consumer.group_coordinator"


@pytest.mark.parametrize(
    ("error", "is_shown"),
    [(kafka_errors.ProducerFenced(), False), (kafka_errors.NodeNotReadyError(), False), (ValueError("ours"), True)],
    ids=lambda value: type(value).__name__,
)
async def test_leftovers_of_the_library_are_not_shown(
    error: Exception, is_shown: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception of the library that nobody asked for is its own affair; any other is a defect to be seen."""
    loop = asyncio.get_running_loop()
    silence_unretrieved_errors(loop)
    with caplog.at_level(logging.ERROR, "asyncio"):
        loop.create_future().set_exception(error)
        gc.collect()
    assert bool(caplog.records) is is_shown


@pytest.mark.parametrize(
    ("said", "args", "is_shown"),
    [
        ("Group Coordinator Request failed: %s", (kafka_errors.GroupCoordinatorNotAvailableError(),), False),
        ("Group Coordinator Request failed: %s", (kafka_errors.GroupAuthorizationFailedError(),), True),
        ("Marking the coordinator dead (node %s)for group %s.", (1, "cartsync"), False),
        ("Heartbeat failed for group %s because it is rebalancing", ("cartsync",), False),
        ("Heartbeat failed for group %s: generation id is not  current.", ("cartsync",), True),
    ],
)
def test_moments_that_pass_are_not_shown(
    said: str, args: tuple[object, ...], is_shown: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A first start and a rebalance are no warning, let alone an error; whoever asks for debug lines sees them."""
    with caplog.at_level(logging.WARNING, COORDINATOR):
        logging.getLogger(COORDINATOR).error(said, *args)
    assert bool(caplog.records) is is_shown
    caplog.clear()
    with caplog.at_level(logging.DEBUG, COORDINATOR):
        logging.getLogger(COORDINATOR).error(said, *args)
    assert [record.levelname for record in caplog.records] == ["ERROR" if is_shown else "DEBUG"]
