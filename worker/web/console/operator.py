"""What people do to orders and accounts, through whoever can carry it out."""

from collections.abc import Sequence
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


class Operator(Protocol):
    """Carries out commands. Pages and `/api` know no more of how that is done."""

    def why_not(self) -> str:
        """Why nothing can be carried out, and what to configure; empty: it can."""
        ...

    async def submit(self, command: Command, subjects: Sequence[str], *, by: str, why: str) -> list[ActionLine]:
        """Does it to each of the orders or accounts; what became of each, in the same order, once that is committed.
        Never raises for what cannot be done.
        """
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

    async def submit(self, _command: Command, subjects: Sequence[str], *, by: str, why: str) -> list[ActionLine]:  # noqa: ARG002
        """Nothing."""
        return [ActionLine(subject, False, self.why_not()) for subject in subjects]

    async def statuses(self) -> list[tuple[WorkerLine, StatusView | None]]:
        """Nobody."""
        return []

    async def show(self, _subject: str) -> tuple[str, OrderView] | None:
        """Nobody serves it."""
        return None
