"""A client of a sandbox, and a shop that it calls back."""

from typing import Any

import aiohttp
import msgspec

from worker.sandbox.pushes import Push
from worker.sandbox.server import Sandbox


class Shop:
    """Takes pushes, and answers what it is told to answer; None: nothing."""

    def __init__(self, *answers: tuple[int, bytes] | None) -> None:
        self.answers = list(answers)
        self.pushes: list[Push] = []

    async def send(self, push: Push) -> tuple[int, bytes] | None:
        """Be called; the last answer is given from then on."""
        self.pushes.append(push)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def bodies(self) -> list[Any]:
        """Return what it was told, of JSON."""
        return [msgspec.json.decode(push.body) for push in self.pushes]


class Client:
    """Asks a sandbox over HTTP."""

    def __init__(self, sandbox: Sandbox, session: aiohttp.ClientSession, base_url: str) -> None:
        self.sandbox, self.session, self.base_url = sandbox, session, base_url

    async def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, Any]:
        """Return status and JSON."""
        url = self.base_url + path
        async with self.session.request(method, url, data=body, headers=headers) as response:
            return response.status, msgspec.json.decode(await response.read())

    async def tell(self, path: str, told: Any) -> tuple[int, Any]:
        """Post JSON."""
        return await self.ask("POST", path, msgspec.json.encode(told))
