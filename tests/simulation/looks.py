"""Who has looked at an order at its provider since the last command about it: who has not must not send another."""

from typing import Any

from tests.simulation.sides import Request


class Looks:
    """The orders of a provider that can be read."""

    def __init__(self) -> None:
        self.commands: dict[str, Request] = {}
        """By subject, the last one."""
        self.at: dict[str, float] = {}
        """By subject, when the newest read that was answered went out."""
        self._seen: dict[tuple[str, str], Any] = {}
        """By subject and process."""

    def commanded(self, request: Request) -> None:
        """What anybody has seen before is worth nothing any more."""
        self.commands[request.subject] = request
        for key in [key for key in self._seen if key[0] == request.subject]:
            del self._seen[key]

    def looked(self, request: Request, seen: Any) -> None:
        """A read was answered with this."""
        last = self.commands.get(request.subject)
        if last is None or request.sent_at > last.sent_at:
            self._seen[request.subject, request.process] = seen
        self.at[request.subject] = max(request.sent_at, self.at.get(request.subject, 0.0))

    def seen(self, request: Request) -> Any:
        """What the sender of a request has seen since the last command; `None`: nothing."""
        return self._seen.get((request.subject, request.process))
