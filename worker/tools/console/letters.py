"""Dead letters that are dealt with in the console: `web.console.operator.Letters`, by the code of `cartsync dlq …`."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from msgspec.structs import replace

from schemas.commands import ReplayedLetter
from schemas.console import ActionLine
from worker.errors import CartsyncError
from worker.tools.letters import Desk
from worker.tools.letters import Place as LetterPlace
from worker.tools.letters.replaying import Mending, Wishes, mend_one, replay_each
from worker.web.console.operator import STOPPED, ActionProgress, Place

_WISHES = Wishes(hint="")


class AtTheDesk:
    """One action after the other: two of one console would only fence each other."""

    def __init__(self, open_desk: Callable[[], Awaitable[Desk]]) -> None:
        """`open_desk`: anew for each action, for topics grow."""
        self._open_desk = open_desk
        self._turn = asyncio.Lock()

    def why_not(self) -> str:
        """It can act; what it may not write to, the brokers say."""
        return ""

    async def replay(self, places: Sequence[Place], *, by: str, why: str, progress: ActionProgress) -> list[ActionLine]:
        """As they are."""
        return await self._each(places, replace(_WISHES, by=by, why=why), progress)

    async def dismiss(
        self, places: Sequence[Place], *, by: str, why: str, progress: ActionProgress
    ) -> list[ActionLine]:
        """Only marked."""
        return await self._each(places, replace(_WISHES, by=by, why=why, dismisses=True), progress)

    async def _each(self, places: Sequence[Place], wishes: Wishes, progress: ActionProgress) -> list[ActionLine]:
        lines: dict[Place, ActionLine] = {}

        def tell(line: ReplayedLetter) -> None:
            partition, _, offset = line.letter.partition("/")
            words = line.detail or (f"written as {line.to}" if line.to else "dismissed")
            told = lines[int(partition), int(offset)] = ActionLine(line.letter, line.done, words)
            progress.tell(told)

        chosen: dict[int, list[int]] = {}
        for partition, offset in places:
            chosen.setdefault(partition, []).append(offset)
        why_not = ""
        try:
            async with self._turn:
                desk = await self._open_desk()
                for partition in [each for each in chosen if each >= desk.partitions]:
                    del chosen[partition]
                await replay_each(desk, chosen, wishes, tell, is_stopped=lambda: progress.is_stopped)
        except CartsyncError as error:
            why_not = str(error)
        missing = why_not or (STOPPED if progress.is_stopped else "there is no such letter")
        return [
            lines.get(place) or ActionLine(str(LetterPlace(*place)), False, missing) for place in dict.fromkeys(places)
        ]

    async def mend(self, place: Place, event: str, *, by: str, why: str) -> ActionLine:
        """The whole event instead."""
        line = await self._mended(place, event, replace(_WISHES, by=by, why=why))
        return ActionLine(line.letter, line.done, line.detail or f"written as {line.to}")

    async def check(self, place: Place, event: str) -> None:
        """A dry run."""
        await self._mended(place, event, replace(_WISHES, is_dry=True))

    async def _mended(self, place: Place, event: str, wishes: Wishes) -> ReplayedLetter:
        async with self._turn:
            desk = await self._open_desk()
            _, line = await mend_one(desk, LetterPlace(*place), Mending(whole=event), wishes)
        return line
