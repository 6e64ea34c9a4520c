"""Acts, and looks, through the private ports of running workers: `web.console.operator.Operator` and `Workers`."""

import asyncio
from collections.abc import Sequence
from urllib.parse import quote

import msgspec

from schemas.console import ActionLine, WorkerLine
from schemas.views import OrderView, StatusView
from worker.core.commands import Command
from worker.errors import CartsyncError, UsageError
from worker.tools.control import Port, UnknownOrderError, ask, read_status
from worker.web.console.operator import STOPPED, ActionProgress

_AT_ONCE = 8
"""Requests to workers."""
_LOOK_WITHIN_S = 3.0
_ACT_WITHIN_S = 60.0


class _Answer(msgspec.Struct):
    done: bool = True
    detail: str = ""
    everywhere: bool = False
    """Who was asked has told all others."""


class PrivatePorts:
    """All workers that are configured; each order has one that serves it."""

    def __init__(self, urls: Sequence[str], token: str) -> None:
        self._ports = [Port(url.rstrip("/"), token) for url in urls]
        self._slots = asyncio.Semaphore(_AT_ONCE)

    def why_not(self) -> str:
        """It can act."""
        return ""

    async def statuses(self) -> list[tuple[WorkerLine, StatusView | None]]:
        """Each worker's `/status`."""
        return list(await asyncio.gather(*(self._status(port) for port in self._ports)))

    async def _status(self, port: Port) -> tuple[WorkerLine, StatusView | None]:
        try:
            async with self._slots:
                status = await asyncio.to_thread(read_status, port, within_s=_LOOK_WITHIN_S)
        except CartsyncError as error:
            return WorkerLine(str(port), False, str(error)), None
        leases = [view.lease_left_s for view in status.partitions if view.role == "serving"]
        detail = "" if status.ready else status.why
        if not status.sending:
            detail = "; ".join(filter(None, [detail, "sending is off"]))
        return (
            WorkerLine(
                str(port),
                True,
                detail,
                status.version,
                len(status.partitions),
                min(leases, default=None),
            ),
            status,
        )

    async def show(self, subject: str) -> tuple[str, OrderView] | None:
        """The order by the first worker that serves it."""

        async def look(port: Port) -> tuple[str, OrderView] | None:
            try:
                body = await self._asked(port, "GET", f"/orders/{quote(subject, safe='')}", _LOOK_WITHIN_S)
                return str(port), msgspec.json.decode(body, type=OrderView)
            except (CartsyncError, msgspec.MsgspecError):
                return None

        found = await asyncio.gather(*(look(port) for port in self._ports))
        return next((each for each in found if each is not None), None)

    async def submit(
        self, command: Command, subjects: Sequence[str], *, by: str, why: str, progress: ActionProgress
    ) -> list[ActionLine]:
        """One request for each order, to whoever serves it; for an account, to each worker, unless the first tells all
        others.
        """
        asking = msgspec.json.encode({"why": why, "who": by})
        act = self._change_account if command.about == "account" else self._change
        turns = asyncio.Semaphore(_AT_ONCE)

        async def one(subject: str) -> ActionLine:
            async with turns:
                if progress.is_stopped:
                    return ActionLine(subject, False, STOPPED)
                line = await act(command, subject, asking)
                progress.tell(line)
                return line

        return list(await asyncio.gather(*(one(subject) for subject in subjects)))

    async def _change(self, command: Command, subject: str, asking: bytes) -> ActionLine:
        problem = "no worker that was asked serves it; are all of them named in [console] workers?"
        for port in self._ports:
            try:
                path = f"/orders/{quote(subject, safe='')}/{command.name}"
                body = await self._asked(port, "POST", path, _ACT_WITHIN_S, asking)
                answer = msgspec.json.decode(body, type=_Answer)
                return ActionLine(subject, answer.done, answer.detail)
            except UnknownOrderError:
                continue
            except UsageError as error:
                return ActionLine(subject, False, str(error))
            except (CartsyncError, msgspec.MsgspecError) as error:
                problem = str(error)
        return ActionLine(subject, False, problem)

    async def _change_account(self, command: Command, name: str, asking: bytes) -> ActionLine:
        said, done = [], False
        for port in self._ports:
            try:
                path = f"/accounts/{quote(name, safe='')}/{command.name}"
                body = await self._asked(port, "POST", path, _ACT_WITHIN_S, asking)
                answer = msgspec.json.decode(body, type=_Answer)
                done |= answer.done
                if answer.everywhere:
                    return ActionLine(name, answer.done, answer.detail)
                said.append(f"{port}: {answer.detail or 'done'}")
            except (CartsyncError, msgspec.MsgspecError) as error:
                said.append(f"{port}: {error}")
        return ActionLine(name, done, "; ".join(said))

    async def _asked(self, port: Port, method: str, path: str, within_s: float, body: bytes = b"") -> bytes:
        async with self._slots:
            return await asyncio.to_thread(ask, port, method, path, body, within_s=within_s)
