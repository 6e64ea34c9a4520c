"""Acts by events: `web.console.operator.Operator` over Kafka, for a console that has the secrets to sign them with."""

from collections.abc import Awaitable, Callable, Sequence

from schemas.console import ActionLine
from worker.core.commands import Command
from worker.errors import CartsyncError
from worker.tools.operating import Acts, Target

Places = Callable[[Sequence[str]], Awaitable[dict[str, list[int]]]]
"""The partitions of orders, as far as they are known."""


class ByEvents:
    """Whatever worker serves an order or an account takes the event."""

    def __init__(self, acts: Acts, places: Places) -> None:
        self._acts = acts
        self._places = places

    def why_not(self) -> str:
        """It can act."""
        return ""

    async def submit(self, command: Command, subjects: Sequence[str], *, by: str, why: str) -> list[ActionLine]:
        """One event for each order, in its partition; for an account, in each."""
        try:
            if command.about == "account":
                return [(await self._acts.on_account(command, subject, by, why)).line for subject in subjects]
            places = await self._places(subjects)
            known = [Target(subject, places[subject]) for subject in subjects if places.get(subject)]
            came = iter(await self._acts.on_orders(command, known, by, why) if known else ())
            return [
                next(came).line if places.get(subject) else ActionLine(subject, False, "no such order is known")
                for subject in subjects
            ]
        except CartsyncError as error:
            return [ActionLine(subject, False, str(error)) for subject in subjects]
