"""What people do to orders and accounts, through whoever can carry it out."""

from collections.abc import Callable, Sequence
from typing import Protocol

from schemas.console import ActionLine, WorkerLine
from schemas.views import OrderView, StatusView
from worker.core.commands import COMMANDS, Command
from worker.errors import UsageError


def command_named(name: str) -> Command:
    """The command. Raises `UsageError` if there is none of this name."""
    command = COMMANDS.get(name)
    if command is None:
        raise UsageError(f"command: expected one of {', '.join(COMMANDS)}")
    return command


STOPPED = "not tried: it was stopped"
"""What became of those that were left when an action was stopped."""


class ActionProgress:
    """What has become of an action so far, and whether the rest of it is still wanted. Of one event loop."""

    def __init__(self) -> None:
        self.lines: list[ActionLine] = []
        self.done = 0
        """Of the lines, how many have something done."""
        self.is_stopped = False
        """No more are to be tried; what is under way ends as it may."""
        self.told: Callable[[], None] = lambda: None
        """Called after each change."""

    def tell(self, *lines: ActionLine) -> None:
        """What became of these."""
        self.lines.extend(lines)
        self.done += sum(line.done for line in lines)
        self.told()

    def end(self, lines: list[ActionLine]) -> None:
        """What became of all, in their order."""
        self.lines, self.done = [], 0
        self.tell(*lines)


class Operator(Protocol):
    """Carries out commands. Pages and `/api` know no more of how that is done."""

    def why_not(self) -> str:
        """Why nothing can be carried out, and what to configure; empty: it can."""
        ...

    async def submit(
        self, command: Command, subjects: Sequence[str], *, by: str, why: str, progress: ActionProgress
    ) -> list[ActionLine]:
        """Does it to each of the orders or accounts; what became of each, in the same order, once that is committed.
        `progress` is told of each as it comes, and asked whether to go on. Never raises for what cannot be done.
        """
        ...


Place = tuple[int, int]
"""Of a dead letter: partition and offset."""


class Letters(Protocol):
    """Deals with dead letters, each once, whoever else does."""

    def why_not(self) -> str:
        """Why nothing can be done, and what to do; empty: it can."""
        ...

    async def replay(self, places: Sequence[Place], *, by: str, why: str, progress: ActionProgress) -> list[ActionLine]:
        """Writes their events again as they are, at a bounded rate; what became of each, in any order, once that is
        committed. `progress` is told of each as it comes, and asked whether to go on. Never raises for what cannot be
        done.
        """
        ...

    async def dismiss(
        self, places: Sequence[Place], *, by: str, why: str, progress: ActionProgress
    ) -> list[ActionLine]:
        """Marks them as dealt with, as `replay`."""
        ...

    async def mend(self, place: Place, event: str, *, by: str, why: str) -> ActionLine:
        """Writes this event, JSON of its attributes and `data`, instead. Raises `UsageError` when it would still be
        refused, or is none; `LogError`.
        """
        ...

    async def check(self, place: Place, event: str) -> None:
        """Nothing is written. Raises as `mend`."""
        ...


class Workers(Protocol):
    """What running workers say of themselves, where they can be asked."""

    async def statuses(self) -> list[tuple[WorkerLine, StatusView | None]]:
        """Each of them; without a status when it does not answer."""
        ...

    async def show(self, subject: str) -> tuple[str, OrderView] | None:
        """An order as its owner sees it, and who that is; `None`: nobody who can be asked serves it."""
        ...


class Nobody:
    """`Operator` and `Workers` where no worker is configured."""

    def why_not(self) -> str:
        """What to configure."""
        return (
            "no way to act is configured: set [callbacks] record_secrets as the workers have them, or name the private"
            " ports of all workers in [console] workers"
        )

    async def submit(
        self,
        _command: Command,
        subjects: Sequence[str],
        *,
        by: str,  # noqa: ARG002
        why: str,  # noqa: ARG002
        progress: ActionProgress,  # noqa: ARG002
    ) -> list[ActionLine]:
        """Nothing."""
        return [ActionLine(subject, False, self.why_not()) for subject in subjects]

    async def statuses(self) -> list[tuple[WorkerLine, StatusView | None]]:
        """Nobody."""
        return []

    async def show(self, _subject: str) -> tuple[str, OrderView] | None:
        """Nobody serves it."""
        return None


class NoLetters:
    """`Letters` where nobody can deal with them."""

    def why_not(self) -> str:
        """What to do."""
        return "dead letters are dealt with by a console over Kafka: `cartsync console`"

    async def replay(
        self,
        places: Sequence[Place],
        *,
        by: str,  # noqa: ARG002
        why: str,  # noqa: ARG002
        progress: ActionProgress,  # noqa: ARG002
    ) -> list[ActionLine]:
        """Nothing."""
        return [ActionLine(f"{partition}/{offset}", False, self.why_not()) for partition, offset in places]

    dismiss = replay

    async def mend(self, place: Place, event: str, *, by: str, why: str) -> ActionLine:  # noqa: ARG002
        """Nothing."""
        raise UsageError(self.why_not())

    async def check(self, place: Place, event: str) -> None:  # noqa: ARG002
        """Nothing."""
        raise UsageError(self.why_not())
