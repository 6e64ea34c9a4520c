"""Actions of many while they go on, and what came of each: in the memory of this process, and no longer than it lives.

An action belongs to the console, not to the page or the request that began it: it goes on when those are gone. At a
restart it ends where it is. What was done by then is committed, and what was not still matches what was asked for.
"""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable

import structlog

from schemas.console import ActionDone, ActionLine, ActionState, ActionView
from worker.errors import UsageError
from worker.web.console.auth import User
from worker.web.console.operator import STOPPED, ActionProgress

log = structlog.get_logger(__name__)

AT_ONCE_MAX = 8
"""Actions of many that go on."""
KEPT_MAX = 200
"""Actions whose outcome can still be looked at, and all lines of them; the oldest go first."""
LINES_MAX = 20_000

Do = Callable[[ActionProgress], Awaitable[list[ActionLine]]]
"""Carries an action out; what became of each."""


class Action:
    """One of them."""

    def __init__(self, key: str, command: str, by: str, *, total: int, left: int, asked: str, began_ms: int) -> None:
        self.key = key
        """A word that nobody guesses."""
        self.by = by
        self.progress = ActionProgress()
        self.state: ActionState = "running"
        self.detail = ""
        self.command = command
        self.total = total
        self._left = left
        self._asked = asked
        self._began_ms = began_ms

    def view(self, *, with_lines: bool = True) -> ActionView:
        """How it stands."""
        progress = self.progress
        return ActionView(
            self.command,
            list(progress.lines) if with_lines else [],
            self._left,
            self.key,
            self.state,
            self.detail,
            self.by,
            self._began_ms,
            self.total,
            progress.done,
            len(progress.lines) - progress.done,
            progress.is_stopped,
            self._asked,
        )

    def is_for(self, user: User) -> bool:
        """Whether this user may see what came of it: whose it was, and, of many, operators."""
        return user.name == self.by or (bool(self._asked) and user.role == "operator")


class Actions:
    """All of them, of the newest."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self.version = 0
        """Another one whenever one of them has come further."""
        self._now_ms = now_ms
        self._kept: OrderedDict[str, Action] = OrderedDict()
        self._running: dict[str, asyncio.Task[None]] = {}

    def start(self, command: str, user: User, do: Do, *, total: int, left: int = 0, asked: str = "") -> Action:
        """Begins one, which goes on by itself. `total`: how many are tried; `left`: how many more match; `asked`: what
        was asked for, as the parameters of an address. Raises `UsageError` when too many go on already.
        """
        if len(self._running) >= AT_ONCE_MAX:
            raise UsageError(f"{AT_ONCE_MAX} actions go on already; wait until one of them has ended, or stop one")
        action = self._add(command, user, total=total, left=left, asked=asked)
        action.progress.told = self._changed
        self._running[action.key] = asyncio.create_task(self._run(action, do), name="console-action")
        return action

    def keep(self, done: ActionDone, user: User) -> Action:
        """One that was done at once."""
        action = self._add(done.command, user, total=len(done.lines), left=done.left, asked="")
        action.progress.tell(*done.lines)
        action.state = "done"
        self._trim()
        return action

    def find(self, key: str) -> Action | None:
        """By its key; `None`: it is not kept, or there was none."""
        return self._kept.get(key)

    def views(self, user: User) -> list[ActionView]:
        """Those that this user may see, the newest first, without their lines."""
        return [each.view(with_lines=False) for each in reversed(self._kept.values()) if each.is_for(user)]

    def running(self) -> list[ActionView]:
        """Those that go on, the oldest first, without their lines."""
        return [self._kept[key].view(with_lines=False) for key in self._running]

    async def ended(self, action: Action, within_s: float | None = None) -> None:
        """Until it has ended, or some time has passed. It goes on when whoever waits is cancelled."""
        if (task := self._running.get(action.key)) is not None:
            await asyncio.wait([task], timeout=within_s)

    def stop(self, action: Action) -> None:
        """What is under way is waited for, the rest is not tried. Does nothing to one that has ended."""
        action.progress.is_stopped = True
        self._changed()

    async def close(self) -> None:
        """Ends all where they are."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _add(self, command: str, user: User, *, total: int, left: int, asked: str) -> Action:
        key, now_ms = secrets.token_urlsafe(12), self._now_ms()
        action = Action(key, command, user.name, total=total, left=left, asked=asked, began_ms=now_ms)
        self._kept[key] = action
        return action

    def _changed(self) -> None:
        self.version += 1

    async def _run(self, action: Action, do: Do) -> None:
        try:
            lines = await do(action.progress)
            action.progress.end(lines)
            was_stopped = action.progress.is_stopped and any(line.detail == STOPPED for line in lines)
            action.state = "stopped" if was_stopped else "done"
        except asyncio.CancelledError:
            action.state = "failed"
            done, total = action.progress.done, action.total
            log.warning("console_action_interrupted", command=action.command, by=action.by, done=done, of=total)
            raise
        except Exception:
            log.exception("console_failed", method="POST", what="actions")
            action.state, action.detail = "failed", "a defect of the console; its log has more"
        finally:
            del self._running[action.key]
            self._trim()
            self._changed()

    def _trim(self) -> None:
        """Forgets the oldest that have ended."""
        lines = sum(len(each.progress.lines) for each in self._kept.values())
        for key, each in list(self._kept.items()):
            if len(self._kept) <= KEPT_MAX and lines <= LINES_MAX:
                break
            if key not in self._running:
                lines -= len(each.progress.lines)
                del self._kept[key]
