"""What the tests of sandboxes share."""

from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest

from tests.unit.sandbox.asking import Client
from worker.sandbox.server import Sandbox

Serve = Callable[[Sandbox], Awaitable[Client]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Return a way to start a sandbox; it stops with the test."""
    started: list[Sandbox] = []
    async with aiohttp.ClientSession() as session:

        async def start(sandbox: Sandbox) -> Client:
            started.append(sandbox)
            return Client(sandbox, session, await sandbox.start())

        yield start
        for sandbox in started:
            await sandbox.stop()
