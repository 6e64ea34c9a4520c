"""AtaraPay's side: what it takes, answers and notifies, as its documentation has it."""

from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest

from worker.model.exchange import Fault, HttpResponse
from worker.providers.atarapay.tokens import authtoken, notification_token
from worker.providers.atarapay.wire import State
from worker.sandbox.atarapay import escrow as model
from worker.sandbox.atarapay.escrow import Act, Habits, Sandbox
from worker.sandbox.atarapay.troubles import PAGE, Trouble, meet

PUBLIC, PRIVATE = "public", "private"
PHONE = {"phone_number": "+2348012345678"}


def sandbox(state: State = State.PENDING, habits: Habits | None = None) -> Sandbox:
    """With one order in this state."""
    made = Sandbox(PUBLIC, PRIVATE, habits)
    made.open("3021", "12345", 6051900).state = state
    return made


def form(word: str, number: str = "3021", token: str = authtoken(PUBLIC, PRIVATE), **members: str) -> bytes:
    """A call."""
    return urlencode({"authtoken": token, "order": number, "status": word} | members).encode()


def body(answer: HttpResponse | Fault) -> Any:
    """What an answer says."""
    assert isinstance(answer, HttpResponse)
    return msgspec.json.decode(answer.body)


PROCESSED = "Invalid action. This request has already been processed"
REFUSALS: dict[str, tuple[str, State, bytes]] = {
    "token": (model.NO_TOKEN, State.PENDING, form("delivered", token="x", **PHONE)),
    "word": (model.NO_STATUS, State.PENDING, form("rejected")),
    "order": (model.NO_ORDER, State.PENDING, form("order", "9")),
    "phone": (model.NO_PHONE, State.PENDING, form("delivered", phone_number=" ")),
    "delivered before": (model.DELIVERED_BEFORE, State.AWAITING, form("delivered", **PHONE)),
    "delivered after the end": (model.DELIVERED_BEFORE, State.CANCELLED, form("delivered", **PHONE)),
    "cancelled before": (PROCESSED, State.CANCELLED, form("cancelled")),
    "cancelled after acceptance": (PROCESSED, State.ACCEPTED, form("buyer_cancel")),
    "cancelled in dispute": (model.IN_DISPUTE, State.DISPUTED, form("buyer_cancel")),
    "nothing": (model.NO_TOKEN, State.PENDING, b"\xff"),
}


@pytest.mark.parametrize(("message", "state", "call"), REFUSALS.values(), ids=REFUSALS)
@pytest.mark.parametrize("status", [200, 422])
def test_refused(message: str, state: State, call: bytes, status: int) -> None:
    """The body says so, whatever HTTP says; nothing changes and nobody is notified."""
    there = sandbox(state, Habits(refusal_status=status))
    answer = there.call(call)
    assert (answer.status, body(answer)) == (status, {"status": "error", "message": message})
    assert (there.escrows["3021"].state, there.escrows["3021"].words, there.untold) == (state, [], [])


WORDS = {
    "delivered": (State.PENDING, State.AWAITING, "Delivered", "pod_created"),
    "delivered again": (State.SECOND, State.AWAITING, "Delivered", "pod_created"),
    "cancelled": (State.AWAITING, State.CANCELLED, "Canceled", "Transaction is canceled"),
    "buyer_cancel": (State.PENDING, State.CANCELLED, "Rejected", "Transaction is canceled"),
}


@pytest.mark.parametrize(("before", "after", "outer", "message"), WORDS.values(), ids=WORDS)
def test_taken(before: State, after: State, outer: str, message: str, request: pytest.FixtureRequest) -> None:
    """A word that is taken moves the escrow, once, and is notified like an act there."""
    word = request.node.callspec.id.split()[0]
    there = sandbox(before)
    answer = there.call(form(word, **PHONE))
    assert (body(answer)["status"], body(answer)["message"]) == ("success", message)
    assert (there.escrows["3021"].state, there.escrows["3021"].words) == (after, [word])
    assert [told.status for told in there.untold] == [outer]
    assert body(there.call(form(word, **PHONE)))["status"] == "error"


def test_second_delivery_is_a_habit() -> None:
    """Nobody has confirmed that it is taken."""
    there = sandbox(State.SECOND, Habits(takes_second_delivery=False))
    assert body(there.call(form("delivered", **PHONE)))["message"] == model.DELIVERED_BEFORE


@pytest.mark.parametrize(("as_texts", "number"), [(False, 12345), (True, "12345")])
def test_order_status(as_texts: bool, number: object) -> None:
    """Changes nothing; numbers may come as texts."""
    there = sandbox(State.CANCELLED, Habits(cancelled="CANCELLED", numbers_as_texts=as_texts))
    data = body(there.call(form("order")))["data"]
    assert (data["product_id"], data["status"]) == (number, {"id": 9, "title": "CANCELLED", "description": ""})
    assert there.untold == []
    assert there.escrows["3021"].state is State.CANCELLED


LIVES = {
    "accepted": ([Act.DELIVER, Act.ACCEPT, Act.PAY_OUT], ["Delivered", "Accepted"], State.COMPLETED),
    "second attempt": (
        [Act.DELIVER, Act.REJECT, Act.AGREE_SECOND_ATTEMPT, Act.DELIVER],
        ["Delivered", "Rejected", "Pending II", "Delivered"],
        State.AWAITING,
    ),
    "refunded": (
        [Act.DELIVER, Act.REJECT, Act.DISPUTE, Act.REFUND],
        ["Delivered", "Rejected", "Dispute", "Refunded"],
        State.RESOLVED,
    ),
    "dispute dropped": (
        [Act.DELIVER, Act.REJECT, Act.DISPUTE, Act.ESCALATE, Act.DROP_DISPUTE],
        ["Delivered", "Rejected", "Dispute", "Disputed", "Complete"],
        State.COMPLETED,
    ),
    "buyer cancels": ([Act.CANCEL_AS_BUYER], ["Rejected"], State.CANCELLED),
    "seller cancels": ([Act.CANCEL_AS_SELLER], ["Canceled"], State.CANCELLED),
}


@pytest.mark.parametrize(("acts", "told", "state"), LIVES.values(), ids=LIVES)
def test_life(acts: list[Act], told: list[str], state: State) -> None:
    """Each act from where it is allowed, with its notification; then no other act that would undo the end."""
    there = sandbox()
    assert all(there.act("3021", act) for act in acts)
    assert [notification.status for notification in there.untold] == told
    assert {notification.token for notification in there.untold} == {
        notification_token(PUBLIC, PRIVATE, "3021", "6051900")
    }
    assert there.escrows["3021"].state is state
    if state in (State.COMPLETED, State.CANCELLED, State.RESOLVED):
        assert not any(there.act("3021", act) for act in Act)


TAKEN = {None, Trouble.UNANSWERED, Trouble.GATEWAY_TAKEN, Trouble.CUT}


@pytest.mark.parametrize("trouble", [None, *Trouble])
def test_trouble(trouble: Trouble | None) -> None:
    """Whether the call was taken, and what the client sees of it."""
    there = sandbox()
    met = meet(there, form("cancelled"), trouble)
    assert (there.escrows["3021"].words == ["cancelled"]) is (trouble in TAKEN)
    assert met.is_late is (trouble is Trouble.LATE)
    if isinstance(met.answer, Fault):
        assert met.answer.sent is (trouble is not Trouble.NO_CONNECTION)
    elif trouble is Trouble.CUT:
        with pytest.raises(msgspec.DecodeError):
            body(met.answer)
    elif met.answer.status in (502, 504):
        assert met.answer.body == PAGE
    else:
        expected = {None: 200, Trouble.BUSY: 503, Trouble.TOO_MANY: 429, Trouble.BROKEN: 500, Trouble.REDIRECT: 307}
        assert met.answer.status == expected[trouble]
