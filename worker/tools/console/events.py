"""Acts by events: `web.console.operator.Operator` over Kafka, for a console that has the secrets to sign them with."""

from collections.abc import Awaitable, Callable, Sequence

from schemas.console import ActionLine
from worker.core.commands import Command
from worker.errors import CartsyncError
from worker.tools.operating import Acts, Target
from worker.web.console.operator import STOPPED, ActionProgress

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

    async def submit(
        self, command: Command, subjects: Sequence[str], *, by: str, why: str, progress: ActionProgress
    ) -> list[ActionLine]:
        """One event for each order, in its partition; for an account, in each."""
        lines: dict[str, ActionLine] = {}

        def tell(came: Sequence[ActionLine]) -> None:
            lines.update((line.subject, line) for line in came)
            progress.tell(*came)

        missing = STOPPED
        try:
            if command.about == "account":
                for subject in subjects:
                    tell([(await self._acts.on_account(command, subject, by, why)).line])
            elif subjects:
                places = await self._places(subjects)
                known = [Target(subject, places[subject]) for subject in subjects if places.get(subject)]
                unknown = [subject for subject in subjects if not places.get(subject)]
                tell([ActionLine(subject, False, "no such order is known") for subject in unknown])
                if known:
                    came = await self._acts.on_orders(
                        command,
                        known,
                        by,
                        why,
                        progress=lambda some: tell([each.line for each in some]),
                        is_stopped=lambda: progress.is_stopped,
                    )
                    lines.update((each.line.subject, each.line) for each in came)
        except CartsyncError as error:
            missing = str(error)
        return [lines.get(subject) or ActionLine(subject, False, missing) for subject in subjects]
