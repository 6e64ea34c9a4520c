"""One turn of an order: its adapter is asked for one step after the other, reads and at most one command."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from schemas.events import CancelledData
from schemas.state import Operated
from worker.core.policy import DeliveryPolicy
from worker.metrics import Metrics
from worker.model.account import Account
from worker.model.exchange import (
    AwaitResult,
    Exchange,
    Fault,
    HttpRequest,
    HttpResponse,
    Outcome,
    OutcomeKind,
    Settled,
    Step,
    Unsendable,
)
from worker.model.order import Order
from worker.model.provider import Answered, GuaranteeLevel, Question, Update
from worker.ports import Attempt, Errand, Sender
from worker.publisher.publisher import Publisher
from worker.sim.loop import VirtualClock, run

UPDATE = Update(b"d", None, msgspec.Raw(b"null"))
READ = Exchange(HttpRequest("GET", "https://x/read", {}, b""), is_read=True)
COMMAND = Exchange(HttpRequest("POST", "https://x/command", {}, b""), remote=b"sent")
OK, BUSY, GATEWAY = (HttpResponse(status, {}, b"body") for status in (200, 500, 502))
FOUND = CancelledData(by="provider")
KINDS = {200: OutcomeKind.APPLIED, 500: OutcomeKind.REJECTED, 502: OutcomeKind.UNKNOWN}


class Listed:
    """An adapter that wants these steps, and reads answers by their status."""

    name = "listed"
    guarantee: GuaranteeLevel = "B"
    can_read = True

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps)
        self.asked: list[Question] = []

    def render(self, order: Order, account: Account) -> Update:  # noqa: ARG002
        return UPDATE

    def digest(self, order: Order) -> bytes:  # noqa: ARG002
        return UPDATE.digest

    def next_step(self, asked: Question) -> Step:
        self.asked.append(asked)
        return self.steps.pop(0)

    def read_response(self, asked: Question, sent: Exchange, response: HttpResponse) -> Answered:  # noqa: ARG002
        outcome = Outcome(KINDS[response.status], "said", response.status)
        return Answered(outcome, seen=(*(asked.seen or ()), response.body))

    def describe(self, remote: bytes) -> dict[str, Any]:  # noqa: ARG002
        return {}


class Answers:
    """A sender that answers from a list, after a second each."""

    def __init__(self, *answers: HttpResponse | Fault) -> None:
        self.answers = list(answers)
        self.sent: list[str] = []

    async def send(self, request: HttpRequest, _deadline_s: float, may_send: Callable[[], bool]) -> Any:
        if not may_send():
            return Fault(sent=False, detail="may not be sent any more")
        self.sent.append(request.method)
        await asyncio.sleep(1)
        return self.answers.pop(0)

    async def close(self) -> None:
        """Nothing to close."""


class Book:
    """An source with one order, or one job, which may be sent until `until` (*now*)."""

    def __init__(self, clock: VirtualClock, until: float, errand: Errand | None = None) -> None:
        self.clock, self.until, self.errand = clock, until, errand
        self.outcomes: list[Outcome] = []

    def claim(self, subject: str) -> Attempt:
        may_send = lambda: self.clock.now() < self.until  # noqa: E731
        order = Attempt(subject, 1, UPDATE, self.clock.now(), may_send, remote=b"kept", may_land_late=True)
        order.errand = self.errand
        return order

    def done(self, attempt: Attempt, outcome: Outcome) -> None:  # noqa: ARG002
        self.outcomes.append(outcome)


class Played(msgspec.Struct):
    """What came of a turn."""

    outcome: Outcome
    sent: list[str]
    asked: list[Question]


def publisher_of(adapter: Listed, sender: Sender, clock: VirtualClock, rate_per_s: float = 0.0) -> Publisher:
    """Of one account, `shop`."""
    accounts = {"shop": Account(name="shop", provider="listed", base_url="https://x", rate_per_s=rate_per_s)}
    return Publisher(
        accounts,
        {"listed": adapter},
        sender,
        clock,
        rules=DeliveryPolicy(),
        metrics=Metrics(),
        fatal=lambda error: pytest.fail(str(error)),
    )


def played(
    adapter: Listed,
    *answers: HttpResponse | Fault,
    until: float = 100.0,
    cut_after_s: float = 50.0,
    errand: Errand | None = None,
) -> Played:
    """One order's turn; it is given up after a while."""

    async def main() -> Played:
        clock = VirtualClock(asyncio.get_running_loop())
        sender, book = Answers(*answers), Book(clock, clock.now() + until, errand)
        publisher = publisher_of(adapter, sender, clock)
        publisher.offer("shop", 0, "shop/1", book)
        await asyncio.sleep(cut_after_s)
        publisher.abandon(book)
        await asyncio.sleep(50)
        await publisher.stop()
        [outcome] = book.outcomes
        return Played(outcome, sender.sent, adapter.asked)

    return run(main())


def test_reads_then_one_command() -> None:
    """What reads have shown goes into the next question; the answer to a command ends the turn."""
    turn = played(Listed(READ, READ, COMMAND), OK, OK, OK)
    assert turn.sent == ["GET", "GET", "POST"]
    assert [asked.seen for asked in turn.asked] == [None, (b"body",), (b"body", b"body")]
    assert [(asked.remote, asked.may_land_late) for asked in turn.asked] == [(b"kept", True)] * 3
    assert turn.asked[0].now_ms < turn.asked[1].now_ms
    assert turn.outcome == Outcome(OutcomeKind.APPLIED, "said", 200)


ENDS = {
    Settled(b"known"): Outcome(OutcomeKind.APPLIED, "", 200, remote=b"known"),
    AwaitResult(60.0, "a capture", b"known", is_overdue=True): Outcome(
        OutcomeKind.PENDING, "a capture", 200, 60.0, remote=b"known", is_overdue=True
    ),
    Settled(b"known", FOUND): Outcome(OutcomeKind.APPLIED, "", 200, remote=b"known", found=FOUND),
    Unsendable("no such thing", b"known", found=FOUND): Outcome(
        OutcomeKind.UNSUPPORTED, "unsupported: no such thing", 200, remote=b"known", found=FOUND
    ),
    Unsendable("no shipment", None, "changed after its report"): Outcome(
        OutcomeKind.UNSUPPORTED, "changed after its report: no shipment", 200
    ),
}


@pytest.mark.parametrize("step", ENDS, ids=lambda step: type(step).__name__)
def test_turns_without_a_command(step: Step) -> None:
    """A read may show that nothing is to be told, now or at all."""
    turn = played(Listed(READ, step), OK)
    assert (turn.sent, turn.outcome) == (["GET"], ENDS[step])


def test_nothing_to_ask() -> None:
    """What is known need not be read: then there was no answer either."""
    assert played(Listed(Settled())).outcome == Outcome(OutcomeKind.APPLIED, remote=b"")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (BUSY, OutcomeKind.REJECTED),
        (GATEWAY, OutcomeKind.REJECTED),
        (Fault(sent=True, detail="reset"), OutcomeKind.NOT_SENT),
        (Fault(sent=False, detail="refused"), OutcomeKind.NOT_SENT),
    ],
    ids=["500", "502", "reset", "refused"],
)
def test_failed_read_leaves_nothing_that_could_land(answer: HttpResponse | Fault, kind: OutcomeKind) -> None:
    """It is repeated after its delay, without a hold; what is kept of the provider stays."""
    turn = played(Listed(READ), answer)
    assert (turn.outcome.kind, turn.outcome.remote) == (kind, None)


@pytest.mark.parametrize(
    ("answer", "kind", "remote"),
    [
        (GATEWAY, OutcomeKind.UNKNOWN, None),
        (Fault(sent=True, detail="reset"), OutcomeKind.UNKNOWN, b"sent"),
        (Fault(sent=False, detail="refused"), OutcomeKind.NOT_SENT, None),
    ],
    ids=["502", "reset", "refused"],
)
def test_command_without_an_answer(answer: HttpResponse | Fault, kind: OutcomeKind, remote: bytes | None) -> None:
    """What may have arrived is kept; an adapter that read an answer says itself what is."""
    turn = played(Listed(READ, COMMAND), OK, answer)
    assert (turn.outcome.kind, turn.outcome.remote) == (kind, remote)


def test_turn_that_is_given_up() -> None:
    """During a read nothing can land; during a command nobody knows."""
    read = played(Listed(READ), OK, cut_after_s=0.5).outcome
    assert (read.kind, read.remote) == (OutcomeKind.NOT_SENT, None)
    command = played(Listed(READ, COMMAND), OK, OK, cut_after_s=1.5).outcome
    assert (command.kind, command.remote) == (OutcomeKind.UNKNOWN, b"sent")


def test_lease_that_ends_between_read_and_command() -> None:
    """Each request needs leave of its own."""
    turn = played(Listed(READ, COMMAND), OK, until=0.5)
    assert (turn.sent, turn.outcome.kind) == (["GET"], OutcomeKind.NOT_SENT)


def test_account_that_an_operator_pauses_between_read_and_command() -> None:
    """The command waits for the resume, and its order is asked about anew."""

    async def main() -> tuple[list[str], list[Outcome]]:
        clock = VirtualClock(asyncio.get_running_loop())
        sender, book = Answers(OK, OK, OK), Book(clock, clock.now() + 100.0)
        publisher = publisher_of(Listed(READ, COMMAND, READ, COMMAND), sender, clock)
        publisher.offer("shop", 0, "shop/1", book)
        await asyncio.sleep(0.5)
        publisher.pause_accounts(book, {"shop": Operated("pause", "me", "", 0, True, "", b"")})
        publisher.offer("shop", 0, "shop/1", book)
        await asyncio.sleep(10)
        assert sender.sent == ["GET"]
        publisher.pause_accounts(book, {})
        await asyncio.sleep(10)
        await publisher.stop()
        return sender.sent, book.outcomes

    sent, (paused, told) = run(main())
    assert sent == ["GET", "GET", "POST"]
    assert paused == Outcome(OutcomeKind.NOT_SENT, "an operator has paused the account")
    assert told.kind is OutcomeKind.APPLIED


def test_adapter_that_reads_on_and_on() -> None:
    """It is told off like any failure, and stops nobody else."""
    turn = played(Listed(*[READ] * 30), *[OK] * 30)
    assert turn.outcome == Outcome(OutcomeKind.REJECTED, "listed was read 20 times in one turn")


# --- what jobs send ----------------------------------------------------------------------------------------------------

LOST, REFUSED = Fault(sent=True, detail="no answer"), Fault(sent=False, detail="no connection")


@pytest.mark.parametrize(
    ("is_read", "answer", "kind"),
    [
        (False, OK, OutcomeKind.APPLIED),
        (False, BUSY, OutcomeKind.REJECTED),
        (False, GATEWAY, OutcomeKind.UNKNOWN),
        (False, LOST, OutcomeKind.UNKNOWN),
        (False, REFUSED, OutcomeKind.NOT_SENT),
        (True, OK, OutcomeKind.APPLIED),
        (True, GATEWAY, OutcomeKind.REJECTED),
        (True, LOST, OutcomeKind.NOT_SENT),
    ],
)
def test_errand(is_read: bool, answer: HttpResponse | Fault, kind: OutcomeKind) -> None:
    """It is sent as it is, and no adapter is asked; what is only read leaves nothing that might land later."""
    errand = Errand(
        COMMAND.request, lambda response, _now_ms: Outcome(KINDS[response.status], "said", response.status), is_read
    )
    turn = played(Listed(), answer, errand=errand)
    assert (turn.sent, turn.outcome.kind) == (["POST"], kind)
    assert errand.answer is (answer if isinstance(answer, HttpResponse) else None)


def test_errand_that_is_given_up() -> None:
    """Nobody knows what becomes of it."""
    errand = Errand(COMMAND.request, lambda _response, _now_ms: Outcome(OutcomeKind.APPLIED))
    assert played(Listed(), OK, errand=errand, cut_after_s=0.5).outcome.kind is OutcomeKind.UNKNOWN


def test_errand_without_a_lease() -> None:
    """It is not sent, as no order would be."""
    errand = Errand(COMMAND.request, lambda _response, _now_ms: Outcome(OutcomeKind.APPLIED))
    turn = played(Listed(), errand=errand, until=0.0)
    assert (turn.sent, turn.outcome.kind) == ([], OutcomeKind.NOT_SENT)
