"""What the integration tests of whole workers share: a stage for each."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.integration.harness import Stage
from worker.tools.local_kafka import LocalKafka

OpenStage = Callable[..., Awaitable[Stage]]


@pytest.fixture
async def open_stage(kafka: LocalKafka, tmp_path: Path) -> AsyncIterator[OpenStage]:
    """Opens a stage: `await open_stage(partitions=2)`. It ends with the test, and so do the workers on it."""
    async with AsyncExitStack() as stack:

        async def open_one(partitions: int = 1, **options: Any) -> Stage:
            stage = Stage(kafka.bootstrap, tmp_path / "stage", partitions, **options)
            return await stack.enter_async_context(stage)

        yield open_one
