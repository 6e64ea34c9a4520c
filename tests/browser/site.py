"""A console over an in-memory broker, on a thread of its own, so that a browser can look at it."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.unit.web.console.scene import Scene
from worker.web.console.answers import Answers
from worker.web.console.auth import Auth

_T = TypeVar("_T")


class Site:
    """Everything around one console, from `with` to its end."""

    def __init__(self, folder: Path, auth: Auth | None = None) -> None:
        self._folder = folder
        self._auth = auth
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._stack = AsyncExitStack()
        self.scene: Scene
        self.answers: Answers

    def __enter__(self) -> Self:
        self._thread.start()
        self.scene = self.do(self._scene())
        self.scene.now_ms = time.time_ns() // 1_000_000
        return self

    async def _scene(self) -> Scene:
        return Scene(self._folder)

    def open(self) -> str:
        """Begins to serve what the scene has; the address."""
        self.answers = self.do(self._stack.enter_async_context(self.scene.open(self._auth)))
        return self.scene.url

    def restart(self) -> None:
        """Ends the console and starts it again, at the same address."""
        port = int(self.scene.url.rpartition(":")[2])
        self.do(self._stack.aclose())
        self.answers = self.do(self._stack.enter_async_context(self.scene.open(self._auth, port=port)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.do(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def do(self, what: Coroutine[Any, Any, _T]) -> _T:
        """On the console's own loop."""
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(30)

    def change(self, what: Callable[[Scene], object]) -> None:
        """Something happens, and is read."""

        async def change() -> None:
            what(self.scene)
            await self.scene.read(self.answers)

        self.do(change())
