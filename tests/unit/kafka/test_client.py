"""The client library: what it leaves behind, and what of that is shown."""

import asyncio
import gc
import logging

import pytest

from worker.kafka.client import hush_leftovers, kafka_errors


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
    hush_leftovers(loop)
    with caplog.at_level(logging.ERROR, "asyncio"):
        loop.create_future().set_exception(error)
        gc.collect()
    assert bool(caplog.records) is is_shown
