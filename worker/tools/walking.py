"""All orders of the state, each made into something; those that cannot be read are named, and left out."""

import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Generic, TypeVar

import msgspec

from worker.errors import DamagedStateError
from worker.ports import StateScan
from worker.tools.control import printable
from worker.tools.progress import Progress

_Made = TypeVar("_Made")


class Walk(Generic[_Made]):
    """Over one partition after the other."""

    def __init__(self, scan: StateScan, make: Callable[[str, int, bytes], _Made], done: str) -> None:
        """`make`: of subject, partition and value. `done`: what has become of orders, for the progress."""
        self._scan = scan
        self._make = make
        self._done = done
        self._progress = Progress()
        self._read = self._damaged = 0

    async def over(self, partition: int) -> AsyncGenerator[_Made, None]:
        """What is made of its orders."""
        async with aclosing(self._scan.orders(partition)) as orders:
            async for subject, value in orders:
                self._read += 1
                self._progress.say(
                    lambda: f"partition {partition + 1} of {self._scan.partitions}: {self._read} orders {self._done}"
                )
                try:
                    made = self._make(subject, partition, value)
                except (msgspec.MsgspecError, ValueError, ArithmeticError):
                    self._damaged += 1
                    sys.stderr.write(
                        f"{printable(subject)}: left out, because its record in partition {partition} was not written "
                        "by cartsync, or by a newer version\n"
                    )
                    continue
                yield made

    async def everywhere(self) -> AsyncGenerator[_Made, None]:
        """What is made of all orders."""
        for partition in range(self._scan.partitions):
            async with aclosing(self.over(partition)) as found:
                async for made in found:
                    yield made

    @property
    def exit_code(self) -> int:
        """Of the command."""
        return DamagedStateError.exit_code if self._damaged else 0
