"""What an answer means: the whole table of errors, unknown outcomes, results that come later."""

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from schemas.facts import ProviderFacts
from tests.asking import question
from tests.shops.events import cart_updated, confirmed, goods, items_cancelled, order, retracted, returned, shipped
from tests.unit.providers.qliro.test_commands import confirm, names
from tests.unit.providers.qliro.turns import ACCOUNT, DAY_S, QLIRO, Client, Faults, item, left, net, opened, order_of
from worker.model.exchange import AwaitResult, Exchange, HttpResponse, Outcome, OutcomeKind, Settled, Unsendable
from worker.model.provider import Question, Update
from worker.providers.qliro.memory import recall
from worker.sandbox.qliro.api import RELEASED
from worker.sandbox.qliro.orders import Result

ORDER = order(confirm(goods("hat", 2, 20_000)), shipped("s1", hat=1))
ASKED = question(QLIRO, ORDER, ACCOUNT, now_ms=1_772_323_200_000)
SEEN: dict[str, Any] = {
    "OrderId": 12345,
    "MerchantReference": "qliro-ref",
    "Currency": "EUR",
    "OrderItemActions": [
        {
            "ActionType": 1,
            "PaymentTransactionId": 7,
            "MerchantReference": "hat",
            "Type": 0,
            "Quantity": 2,
            "PricePerItemIncVat": 100,
            "PricePerItemExVat": 80.0,
        }
    ],
    "PaymentTransactions": [
        {"PaymentTransactionId": 7, "Type": 0, "Status": 4, "Amount": 200, "PaymentMethodName": "QLIRO_INVOICE"}
    ],
    "Customer": {"Email": "somebody@example.com"},
}


def answer(status: int, body: Any = b"", **headers: str) -> HttpResponse:
    """An answer; what is no bytes is JSON."""
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return HttpResponse(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw)


def looked(asked: Question = ASKED, seen: Any = SEEN) -> Question:
    """The question after a look."""
    step = QLIRO.next_step(asked)
    assert isinstance(step, Exchange)
    assert step.is_read
    answered = QLIRO.read_response(asked, step, answer(200, seen))
    assert answered.outcome.kind is OutcomeKind.APPLIED, answered.outcome
    return replace(asked, seen=answered.seen)


def commanded(asked: Question = ASKED) -> Exchange:
    """The command after a look."""
    step = QLIRO.next_step(looked(asked))
    assert isinstance(step, Exchange)
    assert not step.is_read
    return step


def outcome(status: int, body: Any = b"", asked: Question = ASKED, **headers: str) -> Outcome:
    """What becomes of the command."""
    return QLIRO.read_response(asked, commanded(asked), answer(status, body, **headers)).outcome


def refusal(code: str, message: str = "Evaluation, no") -> dict[str, str]:
    """The body of an error."""
    return {"ErrorCode": code, "ErrorMessage": message, "ErrorReference": "d7da92f4"}


def request_id(step: Exchange) -> str:
    """Of a command."""
    return str(msgspec.json.decode(step.request.body)["RequestId"])


# --- commands ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {"PaymentTransactions": [{"PaymentTransactionId": 8, "Status": "Created"}]},
        {"PaymentTransactionId": 8, "Status": "Created", "Type": "UpdateItemsResponse"},
    ],
)
def test_taken(body: Any) -> None:
    """200 means received, in either form; what becomes of it is asked for after a minute."""
    found = outcome(200, body)
    assert (found.kind, found.retry_after_s) == (OutcomeKind.PENDING, 60.0)
    assert found.remote is not None
    assert QLIRO.describe(found.remote) == {
        "order_id": "12345",
        "pending": [8],
        "differs_minor": {"shipped": -10_000, "unshipped": 10_000},
    }


def test_taken_with_a_reversal() -> None:
    """An update may make two transactions; of many the first are named."""
    body = {"PaymentTransactionId": 8, "ReversalPaymentTransactionId": 9}
    assert outcome(200, body).reason == "Qliro works on transaction 9, 8"
    many = {"PaymentTransactions": [{"PaymentTransactionId": 8 + n} for n in range(5)]}
    assert outcome(200, many).reason == "Qliro works on transaction 8, 9, 10 and more"


@pytest.mark.parametrize("body", [b"", b"{}", b'{"PaymentTrans', b"oops", b'{"PaymentTransactions": []}', b"[" * 5_000])
def test_taken_or_not(body: bytes) -> None:
    """An answer without a transaction is no answer."""
    found = outcome(200, body)
    assert found.kind is OutcomeKind.UNKNOWN
    assert found.remote == commanded().remote


TABLE: list[tuple[str, int, Any, OutcomeKind]] = [
    ("C15", 400, refusal("NO_ITEMS_LEFT_IN_RESERVATION", "All items already shipped"), OutcomeKind.PENDING),
    ("C16", 400, refusal("INVALID_ITEM"), OutcomeKind.PERMANENT),
    ("table", 400, refusal("EXCEEDING_QUANTITY"), OutcomeKind.PENDING),
    (
        "table",
        400,
        refusal("OPERATION_NOT_SUPPORTED", "Another transaction is already in process"),
        OutcomeKind.REJECTED,
    ),
    ("table", 400, refusal("OPERATION_NOT_SUPPORTED"), OutcomeKind.PERMANENT),
    ("C21", 400, refusal("INVALID_REQUEST_TOTAL_AMOUNT"), OutcomeKind.PERMANENT),
    ("C22", 400, refusal("INVALID_PAYMENT_TYPE"), OutcomeKind.PENDING),
    ("table", 400, refusal("PAYMENT_REFERENCE_IS_INCORRECT"), OutcomeKind.PENDING),
    ("table", 400, refusal("PAYMENT_ONHOLD"), OutcomeKind.PENDING),
    ("table", 400, refusal("INVALID_INPUT"), OutcomeKind.PERMANENT),
    ("table", 400, refusal("ORDER_EXPIRED"), OutcomeKind.PERMANENT),
    ("table", 400, refusal("MERCHANT_MISMATCH"), OutcomeKind.PERMANENT),
    ("table", 400, refusal("PAYMENT_METHOD_NOT_CONFIGURED"), OutcomeKind.PERMANENT),
    ("C05", 400, refusal("SYSTEM_ERROR", "Input must have no more than two decimal places"), OutcomeKind.PERMANENT),
    ("table", 400, b"<html>", OutcomeKind.PERMANENT),
    ("C30", 500, refusal("SYSTEM_ERROR"), OutcomeKind.UNKNOWN),
    ("C30", 502, b"<html>", OutcomeKind.UNKNOWN),
    ("C30", 503, b"", OutcomeKind.UNKNOWN),
    ("C30", 504, b"", OutcomeKind.UNKNOWN),
    ("C30", 401, refusal("UNAUTHORIZED"), OutcomeKind.CREDENTIALS),
    ("table", 403, refusal("FORBIDDEN"), OutcomeKind.FORBIDDEN),
    ("table", 404, refusal("ORDER_NOT_FOUND"), OutcomeKind.NOT_FOUND),
    ("table", 408, b"", OutcomeKind.UNKNOWN),
    ("table", 429, b"", OutcomeKind.REJECTED),
    ("table", 302, b"", OutcomeKind.PERMANENT),
]


@pytest.mark.parametrize(
    ("case", "status", "body", "kind"), TABLE, ids=[f"{row[0]}-{row[1]}-{n}" for n, row in enumerate(TABLE)]
)
def test_table(case: str, status: int, body: Any, kind: OutcomeKind) -> None:
    """The reference's table of errors."""
    found = outcome(status, body)
    assert (found.kind, found.status) == (kind, status)
    assert found.remote is not None


def test_reason_quotes_the_reference() -> None:
    """Code, message, and what Qliro's support asks for, within what an order's record keeps."""
    assert outcome(400, refusal("INVALID_ITEM")).reason == "400: INVALID_ITEM, Evaluation, no (reference d7da92f4)"
    found = outcome(400, refusal("INVALID_ITEM", "x" * 3_000))
    assert len(found.reason) == 510
    assert found.reason.endswith("(reference d7da92f4)")


def test_retry_after() -> None:
    """A 429 is honoured and holds the account."""
    found = outcome(429, b"", retry_after="7")
    assert (found.retry_after_s, found.throttles_account) == (7.0, True)


@pytest.mark.parametrize("code", ["EXCEEDING_QUANTITY", "INVALID_PAYMENT_TYPE", "PAYMENT_REFERENCE_IS_INCORRECT"])
def test_c22_planned_anew_once(code: str) -> None:
    """C22: a look may have the answer, once; the next time it is over, and a release begins anew."""
    first = outcome(400, refusal(code))
    assert (first.kind, first.retry_after_s) == (OutcomeKind.PENDING, 0.0)
    again = replace(ASKED, remote=first.remote)
    second = outcome(400, refusal(code), again)
    assert second.kind is OutcomeKind.PERMANENT
    released = replace(ASKED, remote=second.remote)
    assert outcome(400, refusal(code), released).kind is OutcomeKind.PENDING
    ids = [request_id(commanded(one)) for one in (ASKED, again, released)]
    assert len(set(ids)) == 3


def test_c18_cancelled_already() -> None:
    """C18: an order that Qliro says is cancelled needs no cancellation, whatever its list shows."""
    gone = order(confirm(goods("hat", 2, 20_000)), items_cancelled("c1", hat=2))
    asked = question(QLIRO, gone, ACCOUNT)
    for code in ("ORDER_HAS_BEEN_CANCELLED", "NO_ITEMS_LEFT_IN_RESERVATION"):
        found = outcome(400, refusal(code), asked)
        assert (found.kind, found.retry_after_s) == (OutcomeKind.PENDING, 0.0)
        assert isinstance(QLIRO.next_step(looked(replace(asked, remote=found.remote))), Settled)
    told = outcome(400, refusal("ORDER_HAS_BEEN_CANCELLED"))
    assert told.kind is OutcomeKind.PENDING
    step = QLIRO.next_step(looked(replace(ASKED, remote=told.remote)))
    assert isinstance(step, Unsendable)
    assert step.why.startswith("2 × hat at 10000 neither captured nor reserved")


def test_prices_without_tax_that_qliro_did_not_say() -> None:
    """They follow from the rate of what it did say, else there is no tax."""
    gone = order(confirm(goods("hat", 2, 20_000)), items_cancelled("c1", hat=1))
    asked = question(QLIRO, gone, ACCOUNT)
    action = {name: value for name, value in SEEN["OrderItemActions"][0].items() if name != "PricePerItemExVat"}

    def told(*more: Any) -> list[Any]:
        step = QLIRO.next_step(looked(asked, SEEN | {"OrderItemActions": [action, *more]}))
        assert isinstance(step, Exchange)
        items = msgspec.json.decode(step.request.body)["Updates"][0]["OrderItems"]
        return [(one["MerchantReference"], one["PricePerItemExVat"]) for one in items]

    assert told() == [("hat", 100)]
    rounding = SEEN["OrderItemActions"][0] | {
        "MerchantReference": "ROUNDING",
        "Type": 2,
        "Quantity": 1,
        "PricePerItemIncVat": 10,
        "PricePerItemExVat": 8,
    }
    assert told(rounding) == [("ROUNDING", 8), ("hat", 80)]
    assert ACCOUNT.merchant == "HATS"


# --- reads -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, OutcomeKind.PERMANENT),
        (401, OutcomeKind.CREDENTIALS),
        (403, OutcomeKind.FORBIDDEN),
        (404, OutcomeKind.NOT_FOUND),
        (429, OutcomeKind.REJECTED),
        (500, OutcomeKind.REJECTED),
        (502, OutcomeKind.UNKNOWN),
    ],
)
def test_reads_that_fail(status: int, kind: OutcomeKind) -> None:
    """A look that fails changes nothing of what is kept."""
    step = QLIRO.next_step(ASKED)
    assert isinstance(step, Exchange)
    found = QLIRO.read_response(ASKED, step, answer(status, refusal("X"))).outcome
    assert (found.kind, found.remote) == (kind, None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"OrderId": 12345, "MerchantReference": "790625-5307',
        b"[" * 5_000,
        msgspec.json.encode(SEEN | {"PaymentTransactions": [SEEN["PaymentTransactions"][0] | {"Amount": 1.005}]}),
        msgspec.json.encode(SEEN | {"PaymentTransactions": [SEEN["PaymentTransactions"][0] | {"Amount": "NaN"}]}),
    ],
)
def test_answers_that_cannot_be_read(body: bytes) -> None:
    """Another attempt may be answered better; nothing of the answer is quoted."""
    step = QLIRO.next_step(ASKED)
    assert isinstance(step, Exchange)
    found = QLIRO.read_response(ASKED, step, HttpResponse(200, {}, body)).outcome
    assert found.kind is OutcomeKind.REJECTED
    assert "response_max_bytes" in found.reason
    assert "790625" not in found.reason


def test_nothing_personal_is_kept() -> None:
    """Of the shopper nothing is decoded."""
    step = QLIRO.next_step(looked())
    assert isinstance(step, Exchange)
    assert b"somebody" not in step.remote + step.request.body


def test_who_is_asked() -> None:
    """By Qliro's id when somebody told it; else by the reference, unless Qliro would take it for an id."""

    def url(reference: str, **members: Any) -> str:
        told = replace(order(confirmed(goods("hat", 1, 100), **members)), reference=reference)
        step = QLIRO.next_step(question(QLIRO, told, ACCOUNT))
        assert isinstance(step, Exchange)
        return step.request.url.removeprefix("https://pago.qit.nu/checkout/adminapi/v2/orders/")

    assert url("A-1", references={"provider": "77"}) == "77"
    assert url("A-1") == "A-1"
    assert url("A-1", references={"provider": "not a number"}) == "A-1"
    told = order(confirmed(goods("hat", 1, 100)))
    for reference in ("12345", "A14/12345", "x" * 26):
        told = replace(told, reference=reference)
        step = QLIRO.next_step(question(QLIRO, told, ACCOUNT))
        assert isinstance(step, AwaitResult)
        assert step.poll_s is None  # only somebody who tells the id brings it on
    known = recall(b"")
    remembered = question(QLIRO, told, ACCOUNT, remote=replace(known, order_id=77).encode())
    step = QLIRO.next_step(remembered)
    assert isinstance(step, Exchange)
    assert step.request.url.endswith("/orders/77")


def test_answers_about_another_order() -> None:
    """An order that is not ours is not believed."""
    by_reference = replace(order(confirmed(goods("hat", 2, 20_000)), shipped("s1", hat=1)), reference="A-1")
    asked = question(QLIRO, by_reference, ACCOUNT)

    def why(asked: Question, **members: Any) -> str:
        step = QLIRO.next_step(looked(asked, SEEN | members))
        return step.reason.removeprefix("another order at Qliro: ") if isinstance(step, Unsendable) else ""

    assert why(asked) == "Qliro's order 12345 is called 'qliro-ref', expected 'A-1'"
    assert why(asked, MerchantReference="A-1") == ""
    assert why(ASKED, OrderId=7) == "Qliro's response is for order 7, the request was for 12345"
    assert why(ASKED, Currency="SEK") == "Qliro's order 12345 is in SEK, the order in EUR"
    later = replace(ASKED, remote=commanded().remote)
    assert why(later, MerchantReference="x") == "Qliro's order 12345 is called 'x', expected 'qliro-ref'"
    other = order(confirmed(goods("hat", 2, 20_000), references={"provider": "7"}), shipped("s1", hat=1))
    moved = question(QLIRO, other, ACCOUNT, remote=later.remote)
    assert why(moved, OrderId=7, MerchantReference="x") == ""  # the shop says that it is another one


def hinted(reference: str, told: str) -> Question:
    """An order of which only a callback said what Qliro calls it."""
    known = replace(order(confirmed(goods("hat", 2, 20_000)), shipped("s1", hat=1)), reference=reference)
    facts = msgspec.structs.replace(known.facts, provider=ProviderFacts(order=((1, 1), told)))
    return question(QLIRO, replace(known, facts=facts), ACCOUNT)


def test_hints_of_callbacks() -> None:
    """They are looked at, and believed when Qliro's order is called as ours; not at all when it could not be."""
    asked = hinted("A-1", "12345")
    step = QLIRO.next_step(asked)
    assert isinstance(step, Exchange)
    assert step.request.url.endswith("/orders/12345")
    assert isinstance(QLIRO.next_step(looked(asked)), Unsendable)
    assert isinstance(QLIRO.next_step(looked(asked, SEEN | {"MerchantReference": "A-1"})), Exchange)
    for told in ("12345", "x"):
        unproven = QLIRO.next_step(hinted("A14/12345", told))
        assert isinstance(unproven, AwaitResult)
        assert unproven.why.startswith("references.provider is missing")
    assert isinstance(QLIRO.next_step(hinted("778", "12345")), Exchange)  # its name is compared after the look
    assert asked.update.digest == hinted("A-1", "777").update.digest


def test_trace() -> None:
    """`traceparent` goes along, as far as every version defines it."""
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    step = QLIRO.next_step(replace(ASKED, trace=parent + "-x"))
    assert isinstance(step, Exchange)
    assert step.request.headers["traceparent"] == parent


# --- results that come later -----------------------------------------------------------------------------------------


def test_polls() -> None:
    """After 1, 5, 15 and 60 minutes, then hourly, each from the last one; after a day somebody is told."""
    client = opened(item("hat", 2, 10_000), fate=lambda _: Result(2 * DAY_S))
    client.tell(confirm(goods("hat", 2, 20_000)), shipped("s1", hat=1))
    assert client.work() == "settled"
    waits = [found.retry_after_s for found in client.outcomes if found.kind is OutcomeKind.PENDING]
    assert waits[:6] == [60.0, 300.0, 900.0, 3_600.0, 3_600.0, 3_600.0]
    overdue = [found.is_overdue for found in client.outcomes if found.kind is OutcomeKind.PENDING]
    assert overdue == sorted(overdue)
    assert overdue.index(True) == 27
    assert len(client.requests) == 1


def test_a_push_brings_it_on() -> None:
    """A look between two polls does not make the next one later."""
    client = opened(item("hat", 2, 10_000), fate=lambda _: Result(70.0))
    client.tell(confirm(goods("hat", 2, 20_000)), shipped("s1", hat=1))
    client.work(turns=1)
    for _ in range(3):
        client.hear()
        client.work(turns=1)
    assert [found.retry_after_s for found in client.outcomes] == [60.0] * 4
    client.pass_time(70.0)
    client.hear()
    assert client.work(seconds=1.0) == "settled"


def test_others_that_are_under_way() -> None:
    """Nothing is sent while anything is under way, whoever began it; a transaction that is not listed yet is."""
    client = opened(item("hat", 2, 10_000)).tell(confirm(goods("hat", 2, 20_000)), shipped("s1", hat=1))
    first = next(iter(order_of(client).transactions.values()))
    first.status, first.result = "OnHold", Result(DAY_S)
    client.work(turns=3)
    assert client.requests == []
    assert client.outcomes[-1].kind is OutcomeKind.PENDING
    taken = outcome(200, {"PaymentTransactions": [{"PaymentTransactionId": 8}]})
    assert isinstance(QLIRO.next_step(looked(replace(ASKED, remote=taken.remote))), AwaitResult)


class Fates:
    """Results in their order, then success."""

    def __init__(self, *results: Result) -> None:
        self.results = list(results)

    def __call__(self, _operation: str) -> Result:
        return self.results.pop(0) if self.results else Result()


def failing(words: str, count: int) -> Fates:
    """So many errors with these words."""
    return Fates(*[Result(1.0, "Error", "PSP_ERROR", words)] * count)


def test_errors_are_tried_again() -> None:
    """Each with another request id, further and further apart; the same again is no other request."""
    client = opened(item("hat", 2, 10_000), method="CREDITCARDS", fate=failing("Duplicate Transaction", 6))
    client.tell(confirm(goods("hat", 2, 20_000)), shipped("s1", hat=2))
    assert client.work() == "settled"
    assert len(client.requests) == 7
    assert len({body["RequestId"] for _, body in client.requests}) == 7
    waits = [found.retry_after_s for found in client.outcomes if "ended in an error" in found.reason]
    assert [round(wait or 0, -1) for wait in waits] == [60, 240, 960, 3_600, 3_600, 3_600]


def test_unknown_errors_are_for_people() -> None:
    """After four in a row somebody is asked; a release begins anew."""
    client = opened(item("hat", 2, 10_000), fate=failing("Card is stolen", 5))
    client.tell(confirm(goods("hat", 2, 20_000)), shipped("s1", hat=2))
    assert client.work() == (
        "parked: failed at Qliro: 4 attempts at MarkItemsAsShipped in a row ended in an error: Card is stolen"
    )
    assert client.shown.get("errors") is None
    client.hear()
    assert client.work() == "settled"
    assert len(client.requests) == 6


def test_failed_in_view() -> None:
    """People see how often it failed, also when Qliro does not say why."""
    client = opened(item("hat", 2, 10_000), fate=failing("", 1))
    client.tell(confirm(goods("hat", 2, 20_000)), shipped("s1", hat=2))
    client.work(turns=2, seconds=90)
    assert client.shown["errors"] == 1


def test_c38_bank_had_let_go() -> None:
    """C38: a cancellation of a card that fails because nothing was held any more has come through."""
    client = opened(
        item("hat", 2, 10_000), method="CREDITCARDS", fate=Fates(Result(1.0, "Error", "DECLINED", RELEASED))
    )
    client.tell(confirm(goods("hat", 2, 20_000)), items_cancelled("c1", hat=2))
    assert client.work() == "settled"
    assert names(client) == ["cancelOrder"]


def test_update_that_failed() -> None:
    """The old reservation stands."""
    client = opened(item("hat", 2, 10_000), fate=failing("Declined", 1))
    client.tell(confirm(goods("hat", 2, 20_000)), items_cancelled("c1", hat=1))
    assert client.work() == "settled"
    assert names(client) == ["UpdateItems", "UpdateItems"]
    assert left(client) == {("hat", 10_000): 1}


# --- workers that stop hard ----------------------------------------------------------------------------------------------


def test_what_a_stopped_worker_did_is_ours() -> None:
    """Nothing was kept of its command; the look finds it, and it is not taken for somebody else's."""
    faults = Faults()
    faults.next = ["crash", "", "crash"]
    client = opened(item("hat", 3, 10_000), faults=faults)
    client.tell(confirm(goods("hat", 3, 30_000)), items_cancelled("c1", hat=1))
    client.work(turns=1)
    client.tell(items_cancelled("c2", hat=1))
    assert client.work() == "settled"
    assert (names(client), left(client)) == (["UpdateItems", "UpdateItems"], {("hat", 10_000): 1})


def test_more_that_the_shop_has_told_is_ours() -> None:
    """Qliro has just what the content asks for: a stopped worker told it, and it may be told otherwise."""
    faults = Faults()
    faults.next = ["crash"]
    client = opened(item("hat", 3, 10_000), faults=faults)
    client.tell(confirm(goods("hat", 3, 30_000)), cart_updated(goods("hat", 5, 50_000, vat_rate_bp=2500)))
    client.work(turns=1)
    client.tell(items_cancelled("c1", hat=4))
    assert client.work() == "settled"
    assert (names(client), left(client)) == (["UpdateItems", "UpdateItems"], {("hat", 10_000): 1})


def test_what_others_did_while_a_worker_stopped() -> None:
    """A capture and an upsell are somebody else's, for all we know."""
    faults = Faults()
    faults.next = ["crash"]
    client = opened(item("hat", 3, 10_000), faults=faults)
    client.tell(confirm(goods("hat", 3, 30_000)), shipped("s1", hat=1))
    client.work(turns=1)
    client.tell(retracted(shipment_id="s1"))
    assert client.work().startswith("parked: unsupported: captured at Qliro by somebody else: 1 × hat")
    more = opened(item("hat", 3, 10_000), faults=Faults())
    more.tell(confirm(goods("hat", 3, 30_000)), items_cancelled("c1", hat=1))
    held = order_of(more)
    held.update(min(held.reserved), [item("hat", 4, 10_000)], more.api.make(held, more.now, Result()))
    more.pass_time(1.0)
    more.record.may_land_late = True
    assert more.work().startswith("parked: unsupported: changed at Qliro: 4 × hat at 10000 reserved there")


def test_what_a_stopped_worker_withheld() -> None:
    """What a refund lacks of its lines are fees and discounts that were told: nothing of it is told again."""
    faults = Faults()
    client = opened(item("hat", 3, 10_000), faults=faults)
    client.tell(confirm(goods("hat", 3, 30_000)), shipped("s1", hat=3))
    client.work()
    faults.next = ["crash"]
    client.tell(returned("r1", hat=1, fee=500, paid=9_000))
    assert client.work() == "settled"
    assert names(client) == ["MarkItemsAsShipped", "ReturnItems"]
    assert order_of(client).captured_minor == 21_500


# --- unknown outcomes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["applied", "late"])
def test_c27_applied_without_an_answer(fault: str) -> None:
    """C27: what is found at Qliro after the hold is ours; there is no second command."""
    faults = Faults()
    faults.next = [fault]
    client = opened(item("hat", 2, 10_000), faults=faults)
    client.tell(confirm(goods("hat", 2, 20_000)), shipped("s1", hat=1))
    assert client.work() == "settled"
    assert len(client.requests) == 1
    client.tell(returned("r1", hat=1))
    assert client.work() == "settled"
    assert names(client) == ["MarkItemsAsShipped", "ReturnItems"]


def test_c27_lost() -> None:
    """C27: what never arrived is sent again: the same bytes, so the same request id."""
    faults = Faults()
    faults.next = ["lost", "500", "429"]
    client = opened(item("hat", 2, 10_000), faults=faults)
    client.tell(confirm(goods("hat", 2, 20_000)), shipped("s1", hat=1))
    assert client.work() == "settled"
    assert len(client.sent_bodies) == 4
    assert len(set(client.sent_bodies)) == 1


def test_fee_of_a_return_that_nobody_saw_the_answer_of() -> None:
    """It was told with the return, and is not told again."""
    faults = Faults()
    client = opened(item("hat", 2, 10_000), faults=faults)
    client.tell(confirm(goods("hat", 2, 20_000)), shipped("s1", hat=2))
    client.work()
    faults.next = ["applied"]
    client.tell(returned("r1", hat=1, fee=500))
    client.work()
    client.tell(returned("r2", hat=1))
    assert client.work() == "settled"
    assert (order_of(client).fees, names(client).count("ReturnItems")) == (500, 2)


@pytest.mark.parametrize("name", ["UpdateItems", "cancelOrder"])
def test_changes_of_a_reservation_that_nobody_saw_the_answer_of(name: str) -> None:
    """They are ours, and not taken for somebody else's afterwards."""
    faults = Faults()
    faults.next = ["applied"]
    client = opened(item("hat", 3, 10_000), faults=faults)
    client.tell(confirm(goods("hat", 3, 30_000)), items_cancelled("c1", hat=1 if name == "UpdateItems" else 3))
    assert client.work() == "settled"
    assert names(client) == [name]
    if name == "UpdateItems":
        client.tell(items_cancelled("c2", hat=1))
        assert client.work() == "settled"
        assert left(client) == {("hat", 10_000): 1}


def test_failure_of_a_command_that_nobody_saw_the_answer_of() -> None:
    """It counts like any other."""
    faults = Faults()
    faults.next = ["applied"]
    client = opened(item("hat", 2, 10_000), faults=faults, fate=failing("Duplicate Transaction", 1))
    client.tell(confirm(goods("hat", 2, 20_000)), shipped("s1", hat=1))
    assert client.work() == "settled"
    assert len(client.requests) == 2
    assert recall(client.record.remote).generation == 1


def test_somebody_else_did_the_like() -> None:
    """What has other items than our command is not ours."""
    faults = Faults()
    faults.next = ["lost"]
    client = opened(item("hat", 3, 10_000), faults=faults)
    client.tell(confirm(goods("hat", 3, 30_000)), shipped("s1", hat=1))
    client.work(turns=1)
    held = order_of(client)
    (which,) = held.reserved
    line = held.reserved[which]["hat", 10_000].of(2)
    held.ship(which, [line], client.api.make(held, client.now, Result()))
    client.api.looked.clear()
    assert client.work().startswith("parked: unsupported: captured at Qliro by somebody else: 1 × hat")
    assert net(client) == {("hat", 10_000): 2}


def test_denial() -> None:
    """A request id that was refused when it came again: held, looked for, and only then sent under another one."""
    faults = Faults()
    client = opened(item("hat", 2, 10_000), faults=faults)
    client.tell(confirm(goods("hat", 2, 20_000)), shipped("s1", hat=1))
    faults.next = ["lost"]
    client.work(turns=1)
    known = client.requests[0][1]["RequestId"]
    client.api.requests[known] = client.now  # refused the first time, which counts: Qliro has seen the id
    assert client.work() == "settled"
    ids = [body["RequestId"] for _, body in client.requests]
    assert ids[:2] == [known, known]
    assert ids[2] not in ids[:2]
    kinds = [found.kind for found in client.outcomes]
    assert kinds[:3] == [OutcomeKind.UNKNOWN, OutcomeKind.UNKNOWN, OutcomeKind.PENDING]
    assert net(client) == {("hat", 10_000): 1}


def test_c28_request_ids() -> None:
    """C28: the same step is the same request; whatever differs makes another one."""
    base = commanded()
    assert request_id(base) == request_id(commanded())
    elsewhere = replace(ACCOUNT, name="other")
    more = order(confirm(goods("hat", 2, 20_000)), shipped("s1", hat=2))
    moved = msgspec.json.decode(msgspec.json.encode(SEEN))
    moved["PaymentTransactions"].append(SEEN["PaymentTransactions"][0] | {"PaymentTransactionId": 6, "Status": 6})
    memory = recall(base.remote)
    others = [
        commanded(question(QLIRO, ORDER, elsewhere)),
        commanded(question(QLIRO, more, ACCOUNT)),
        commanded(replace(ASKED, remote=replace(memory, generation=1).encode())),
        QLIRO.next_step(looked(seen=moved)),
        QLIRO.next_step(looked(seen=SEEN | {"OrderId": 12345, "MerchantReference": "x"})),
    ]
    ids = [request_id(step) for step in others if isinstance(step, Exchange)]
    assert len({request_id(base), *ids[:4]}) == 5
    assert ids[4] == request_id(base)
    assert request_id(commanded(replace(ASKED, generation=3))) == request_id(base)  # an operator's word changes none


def test_adapter_is_what_it_says() -> None:
    """Its name stands in configuration and `origin`; it can be read."""
    assert (QLIRO.name, QLIRO.guarantee, QLIRO.can_read) == ("qliro", "B", True)
    assert QLIRO.describe(b"") == QLIRO.describe(b"\xc1") == {}
    update: Update = QLIRO.render(ORDER, ACCOUNT)
    assert update.digest == QLIRO.digest(ORDER)
    assert update.problem is None


def test_back_to_what_was_so_before() -> None:
    """What was found to be so before a command is not so any more after it, even when it is wanted again."""
    client = opened(item("hat", 2, 10_000), fate=lambda _: Result(30.0))
    client.tell(confirm(goods("hat", 2, 20_000)), shipped("s1", hat=1))
    assert client.work() == "settled"
    client.tell(shipped("s2", hat=1))
    client.work(turns=1)
    client.tell(retracted(shipment_id="s2"))
    client.hear()
    client.pass_time(30.0)
    assert client.work(turns=1) != "settled"
    assert names(client) == ["MarkItemsAsShipped", "MarkItemsAsShipped", "ReturnItems"]


def test_operator_has_it_sent_anew() -> None:
    """When nothing is owed, what differs was done by somebody else; an operator may say that it is to be told."""
    client = Client(opened(item("hat", 2, 10_000)).api).tell(confirm(goods("hat", 2, 20_000)), shipped("s1", hat=1))
    assert client.work() == "settled"
    asked = question(QLIRO, order(confirm(goods("hat", 2, 20_000)), shipped("s1", hat=1)), ACCOUNT)
    asked = replace(asked, remote=client.record.remote, update=asked.update)
    assert isinstance(QLIRO.next_step(looked(asked)), Settled)
    assert isinstance(QLIRO.next_step(looked(replace(asked, generation=1))), Exchange)
