"""What turns with reads, and turns without any request, are to their account: its rate, its pauses."""

import asyncio
from collections.abc import Callable

import pytest

from tests.unit.publisher.test_turns import COMMAND, OK, READ, Book, Listed, publisher_of
from worker.core.account import AccountQueue
from worker.core.policy import DeliveryPolicy
from worker.model.exchange import HttpRequest, HttpResponse, Outcome, OutcomeKind
from worker.sim.loop import VirtualClock, run


class Quick:
    """A sender that counts, and answers at once."""

    def __init__(self) -> None:
        self.count = 0

    async def send(self, _request: HttpRequest, _deadline_s: float, _may_send: Callable[[], bool]) -> HttpResponse:
        self.count += 1
        return OK

    async def close(self) -> None:
        """Nothing to close."""


def test_rate_counts_every_request() -> None:
    """A turn of ten reads and a command is eleven requests, not one."""

    async def main() -> None:
        clock, sender = VirtualClock(asyncio.get_running_loop()), Quick()
        adapter = Listed(*([*[READ] * 10, COMMAND] * 5))
        publisher = publisher_of(adapter, sender, clock, rate_per_s=1.0)
        book = Book(clock, 1e9)
        for number in range(5):
            publisher.offer("shop", 0, f"shop/{number}", book)
        await asyncio.sleep(4.5)
        await publisher.stop()
        assert 4 <= sender.count <= 6

    run(main())


PROBED = {
    "what cannot be told, after a look": (Outcome(OutcomeKind.UNSUPPORTED, "a part", 200), False),
    "pending, after a look": (Outcome(OutcomeKind.PENDING, "a capture", 200, 60.0), False),
    "nothing to tell, nobody was asked": (Outcome(OutcomeKind.APPLIED), True),
    "waits, nobody was asked": (Outcome(OutcomeKind.PENDING, "waits"), True),
    "cannot be told, nobody was asked": (Outcome(OutcomeKind.UNSUPPORTED, "no phone"), True),
}


@pytest.mark.parametrize("case", PROBED)
def test_who_was_not_asked_has_let_nobody_in(case: str) -> None:
    """A turn without a request says nothing of the credentials: the pause stays, and its probes are as far apart."""
    outcome, is_paused = PROBED[case]
    queue: AccountQueue[None] = AccountQueue(1, DeliveryPolicy())
    for subject, at, came in (("a", 0.0, Outcome(OutcomeKind.CREDENTIALS, "401", 401)), ("b", 100.0, outcome)):
        queue.offer(subject, 0, None, at)
        turn = queue.next(at)
        assert turn is not None
        queue.begin(turn, at)
        queue.end(turn, came, at + 1.0, 0.5)
    assert (queue.pause is not None) is is_paused
    assert queue.pause is None or queue.pause.probes == 0
