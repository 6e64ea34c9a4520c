"""Asking providers within their limits, orders that change meanwhile, and what is printed; in virtual time."""

import asyncio
import io
import json
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from rich.console import Console

from schemas.facts import seal_facts
from schemas.reconciliation import ComparedOrder, ProviderSide, Reconciliation, ShopSide
from schemas.state import OrderRecord, decode_order, encode
from tests.shops.events import SUBJECT, confirmed, facts_of, goods, shipped
from tests.unit.providers.qliro.test_order import action, transaction
from tests.unit.providers.sequra.test_disbursements import LISTED
from worker.core.policy import DeliveryPolicy
from worker.errors import DamagedStateError
from worker.model.account import Account
from worker.model.exchange import Fault, HttpRequest, HttpResponse, OutcomeKind
from worker.model.provider import Answered
from worker.model.reconcile import Terms
from worker.ports import PartitionWriter
from worker.providers.qliro.options import QliroAccount
from worker.providers.responses import kind_of_status, outcome_by_status, retry_after_s
from worker.providers.sequra.options import SequraAccount
from worker.sim.log import MemoryLog
from worker.sim.loop import VirtualClock, run
from worker.tools.reconcile.asking import ATTEMPTS_MAX, SILENT_MAX, Asking
from worker.tools.reconcile.comparing import ROUNDS_MAX, SUSPECTS_MAX, Comparison
from worker.tools.reconcile.printing import ROWS_MAX, Lines, Tables
from worker.tools.reconcile.tally import Tally

QLIRO = QliroAccount(name="acme", provider="qliro", base_url="https://q.example", api_key="K", api_secret="s")
SEQURA = SequraAccount("paid", "sequra", "https://s.example", "m1", "user", "secret")
REQUEST = HttpRequest("GET", "https://q.example/v2/orders/1", {}, b"", "acme")
Reply = Callable[[HttpRequest], Awaitable[HttpResponse | Fault]]


class Provider:
    """`ports.Sender`: every request is answered by a function."""

    def __init__(self, reply: Reply) -> None:
        self.requests: list[tuple[float, HttpRequest]] = []
        self._reply = reply

    async def send(
        self, request: HttpRequest, _deadline_s: float, may_send: Callable[[], bool]
    ) -> HttpResponse | Fault:
        """One attempt, which takes a moment."""
        assert may_send()
        self.requests.append((asyncio.get_running_loop().time(), request))
        await asyncio.sleep(0.01)
        return await self._reply(request)

    async def close(self) -> None:
        """Nothing to close."""


def answers(*statuses: int | HttpResponse | Fault) -> Reply:
    """One after the other; the last one from then on."""
    left = list(statuses)

    async def reply(_request: HttpRequest) -> HttpResponse | Fault:
        now = left.pop(0) if len(left) > 1 else left[0]
        return HttpResponse(now, {}, b"") if isinstance(now, int) else now

    return reply


def by_status(response: HttpResponse, now_ms: int) -> Answered:
    """What an answer means, by its status alone."""
    wait_s = retry_after_s(response.headers.get("retry-after"), now_ms)
    kind = OutcomeKind.REJECTED if response.body == b"cut" else kind_of_status(response.status)
    return Answered(outcome_by_status(response.status, f"{response.status}", wait_s, kind))


def asked(
    reply: Reply, *, times: int = 1, account: Account = QLIRO, rate: float | None = None
) -> tuple[list[OutcomeKind], Asking, Provider, float]:
    """What came of so many questions, and how long that took."""

    async def main() -> tuple[list[OutcomeKind], Asking, Provider, float]:
        loop = asyncio.get_running_loop()
        provider = Provider(reply)
        asking = Asking(account, provider, VirtualClock(loop), DeliveryPolicy(), rate)
        found = [(await asking.answer(REQUEST, by_status)).outcome.kind for _ in range(times)]
        return found, asking, provider, loop.time()

    return run(main())


# --- asking ----------------------------------------------------------------------------------------------------------


def test_transient_failures_are_tried_again() -> None:
    """503, a reset and a time-out are followed by another attempt, a little later."""
    found, asking, provider, took_s = asked(answers(503, Fault(True, "reset"), 500, 200))
    assert found == [OutcomeKind.APPLIED]
    assert len(provider.requests) == 4
    assert took_s > 0.6
    assert asking.problem is None


def test_retry_after_is_kept() -> None:
    """Nobody asks before the provider wants to be asked; for much longer than somebody waits, the account is left."""
    found, _, provider, _ = asked(answers(HttpResponse(429, {"retry-after": "30"}, b""), 200))
    assert found == [OutcomeKind.APPLIED]
    (first, _), (second, _) = provider.requests
    assert second - first > 30
    found, asking, provider, _ = asked(answers(HttpResponse(503, {"retry-after": "3600"}, b"")), times=2)
    assert len(provider.requests) == 1
    assert asking.problem is not None
    assert asking.problem.exit_code == 75
    assert "asks to be left alone for 3600 s" in asking.problem.text
    assert found == [OutcomeKind.NOT_SENT] * 2


def test_provider_that_is_down() -> None:
    """After some orders without an answer the account is given up, and nobody is asked any more."""
    found, asking, provider, _ = asked(answers(Fault(False, "no connection")), times=SILENT_MAX + 5)
    assert found == [OutcomeKind.NOT_SENT] * (SILENT_MAX + 5)
    assert len(provider.requests) == SILENT_MAX * ATTEMPTS_MAX
    assert asking.problem is not None
    assert asking.problem.text == "account acme: Qliro does not answer (no connection)"
    assert asking.problem.exit_code == 75


def test_an_answer_in_between() -> None:
    """Orders that fail one by one are their own matter."""
    down = [Fault(False, "no connection")] * ATTEMPTS_MAX
    found, asking, _, _ = asked(answers(*down, *down, 200, *down, *down, 404), times=6)
    assert found.count(OutcomeKind.NOT_SENT) == 4
    assert asking.problem is None


def test_an_answer_that_cannot_be_read() -> None:
    """It costs its order alone, however many there are."""
    found, asking, _, _ = asked(answers(HttpResponse(200, {}, b"cut")), times=SILENT_MAX + 1)
    assert found == [OutcomeKind.REJECTED] * (SILENT_MAX + 1)
    assert asking.problem is None


@pytest.mark.parametrize(("status", "requests"), [(401, 1), (403, 3)], ids=["credentials", "forbidden"])
def test_account_that_is_refused(status: int, requests: int) -> None:
    """Wrong credentials end it at once, several 403 in a row as well: what to do is said, with the exit code."""
    _, asking, provider, _ = asked(answers(status), times=6)
    assert len(provider.requests) == requests
    assert asking.problem is not None
    assert asking.problem.exit_code == 64
    assert ("cartsync account resume acme" in asking.problem.text) is (status == 401)


@pytest.mark.parametrize(
    ("rate", "of_account", "expected"),
    [(None, 0.0, 10.0), (2.0, 0.0, 2.0), (None, 4.0, 4.0), (2.0, 4.0, 2.0), (100.0, 4.0, 4.0), (100.0, 0.0, 100.0)],
    ids=["by itself", "wished", "the account's", "below the account's", "above it", "above the usual"],
)
def test_rate(rate: float | None, of_account: float, expected: float) -> None:
    """Never faster than the account may be asked, nor than the operator allows."""
    count = int(6 * expected)
    _, asking, provider, _ = asked(answers(200), times=count, account=replace(QLIRO, rate_per_s=of_account), rate=rate)
    assert asking.rate_per_s == expected
    assert provider.requests[-1][0] >= (count - 1) / expected - 1.1
    assert asking.concurrency <= QLIRO.concurrency


# --- comparing -------------------------------------------------------------------------------------------------------

TERMS = Terms(1_790_000_000_000, 31, False)
N1 = confirmed(goods("hat", 2, 20_000), references={"provider": "12345"})


def record_of(*, revision: int = 5, acked: int | None = None, count: int = 2, **members: Any) -> OrderRecord:
    """An order of two hats, of which so many were shipped."""
    facts = facts_of(N1, shipped("s1", hat=count)) if count else facts_of(N1)
    return OrderRecord(
        revision=revision, acked=revision if acked is None else acked, sealed=seal_facts(facts), **members
    )


def get_order(captured: int) -> HttpResponse:
    """What Qliro has: two hats reserved, so many of them captured."""
    actions = [action("Reserve", 1, "hat", 100, 2)]
    transactions = [transaction(1, "Preauthorization", 200)]
    if captured:
        actions.append(action("Ship", 2, "hat", 100, captured))
        transactions.append(transaction(2, "Capture", 100 * captured, OriginalPaymentTransactionId=1))
    body = {
        "OrderId": 12345,
        "MerchantReference": "x",
        "Currency": "EUR",
        "OrderItemActions": actions,
        "PaymentTransactions": transactions,
    }
    return HttpResponse(200, {}, msgspec.json.encode(body))


class Scene:
    """Orders in a state topic, and what comes of comparing them."""

    def __init__(self) -> None:
        self.told: list[ComparedOrder] = []
        self.log = MemoryLog(2, VirtualClock(asyncio.get_running_loop()))
        self.owner: PartitionWriter | None = None

    async def write(self, records: dict[str, OrderRecord | bytes | None]) -> None:
        """Commits records of the first partition."""
        if self.owner is None:
            states = self.log.states("worker")
            await states.start()
            self.owner = states.partition(0)
            await self.owner.fence()
        await self.owner.write(
            [
                (f"o:{subject}".encode(), record if record is None or isinstance(record, bytes) else encode(record))
                for subject, record in records.items()
            ]
        )

    async def compare(self, reply: Reply, *accounts: Account) -> dict[str, ComparedOrder]:
        """All orders, each once."""
        clock = VirtualClock(asyncio.get_running_loop())
        askings = {
            each.name: Asking(each, Provider(reply), clock, DeliveryPolicy(), 1_000.0) for each in accounts or [QLIRO]
        }
        scan = self.log.scan(lambda _subject: True)
        await Comparison(scan, askings, self.told.append, terms=TERMS, rules=DeliveryPolicy()).run()
        found = {each.subject: each for each in self.told}
        assert len(found) == len(self.told), "told twice"
        return found


def test_what_agrees_and_what_differs() -> None:
    """Orders are told once each: those that agree, that differ, that Qliro does not know, that nobody can be asked of."""

    async def main() -> dict[str, ComparedOrder]:
        scene = Scene()
        names = {f"acme/{number}": record_of() for number in range(SUSPECTS_MAX + 20)}
        await scene.write({**names, "acme/half": record_of(count=1), "other/1": record_of()})
        return await scene.compare(answers(get_order(1)))

    found = run(main())
    assert len(found) == SUSPECTS_MAX + 22
    assert found["acme/half"].category == "agrees"
    assert found["other/1"].verdict == "no_account"
    assert found["acme/7"].verdict == "captured_less"
    assert found["acme/7"].shop == ShopSide(20_000, 0)


def test_unknown_there() -> None:
    """404 is a difference of its own."""

    async def main() -> dict[str, ComparedOrder]:
        scene = Scene()
        await scene.write({SUBJECT: record_of()})
        return await scene.compare(answers(404))

    assert run(main())[SUBJECT].verdict == "unknown_at_provider"


@pytest.mark.parametrize(
    ("later", "answer", "verdict"),
    [
        (record_of(count=1, revision=6), 1, "agrees"),
        (record_of(count=2, revision=5, acked=0), 1, "owed"),
        (record_of(count=2, revision=6), 1, "captured_less"),
        (None, 1, None),
    ],
    ids=["and agrees now", "and is owed now", "and differs all the same", "and is gone"],
)
def test_order_that_changes_meanwhile(later: OrderRecord | None, answer: int, verdict: str | None) -> None:
    """What was read of an order is old when it was written since: it is compared again as it is."""

    async def main() -> dict[str, ComparedOrder]:
        scene, is_first = Scene(), True
        await scene.write({SUBJECT: record_of()})

        async def reply(_request: HttpRequest) -> HttpResponse:
            nonlocal is_first
            if is_first:
                is_first = False
                await scene.write({SUBJECT: later})
            return get_order(answer)

        return await scene.compare(reply)

    found = run(main())
    assert (found[SUBJECT].verdict if found else None) == verdict


def test_order_that_keeps_changing() -> None:
    """After some rounds it is left as not final."""
    count = 0

    async def main() -> dict[str, ComparedOrder]:
        scene = Scene()
        await scene.write({SUBJECT: record_of()})

        async def reply(_request: HttpRequest) -> HttpResponse:
            nonlocal count
            count += 1
            await scene.write({SUBJECT: record_of(revision=5 + count)})
            return get_order(1)

        return await scene.compare(reply)

    found = run(main())
    assert (found[SUBJECT].category, found[SUBJECT].verdict) == ("not_final", "keeps_changing")
    assert count == ROUNDS_MAX


def test_record_of_somebody_else() -> None:
    """What is no record of ours is not passed over."""

    async def main() -> None:
        scene = Scene()
        await scene.write({SUBJECT: b"\xc1"})
        await scene.compare(answers(get_order(2)))

    with pytest.raises(DamagedStateError, match="partition 0 of the state topic"):
        run(main())


def test_account_with_a_problem() -> None:
    """Its orders are named as not read, at once; those of others are compared."""

    async def main() -> dict[str, ComparedOrder]:
        scene = Scene()
        await scene.write({f"acme/{number}": record_of() for number in range(300)})
        return await scene.compare(answers(401))

    found = run(main())
    assert {each.verdict for each in found.values()} == {"not_read"}
    assert len(found) == 300


def paid_out(*lines: Any) -> Reply:
    """seQura's disbursements: one, with these lines."""

    async def reply(request: HttpRequest) -> HttpResponse:
        is_list = request.url.endswith("/disbursements")
        return HttpResponse(200, {}, msgspec.json.encode([LISTED] if is_list else {"lines": list(lines)}))

    return reply


def test_ledger() -> None:
    """It is read before the orders; what only it names is told in the end, and an order that changes is found in it."""

    async def main() -> dict[str, ComparedOrder]:
        scene = Scene()
        await scene.write({"paid/1": record_of(), "paid/2": record_of(), "paid/3": record_of(acked=0)})
        lines = [{"order_ref_1": name, "amount_with_tax": 20_000} for name in ("1", "3", "unknown")]
        return await scene.compare(paid_out(*lines), SEQURA)

    found = run(main())
    assert {name: each.verdict for name, each in found.items()} == {
        "paid/1": "agrees",
        "paid/2": "paid_less",
        "paid/3": "owed",
        "paid/unknown": "unknown_here",
    }
    assert found["paid/unknown"].provider == "sequra"


def test_ledger_entry_of_an_order_that_changes() -> None:
    """It is compared again with what was paid of it, as it is now."""

    async def main() -> dict[str, ComparedOrder]:
        scene = Scene()
        await scene.write({"paid/1": record_of()})
        scan = scene.log.scan(lambda _subject: True)
        clock = VirtualClock(asyncio.get_running_loop())
        reply = paid_out({"order_ref_1": "1", "amount_with_tax": 10_000})
        asking = Asking(SEQURA, Provider(reply), clock, DeliveryPolicy(), None)
        comparison = Comparison(scan, {"paid": asking}, scene.told.append, terms=TERMS, rules=DeliveryPolicy())
        before = scan.changed

        async def changed(partition: int, subjects: Any) -> dict[str, bytes | None]:
            if not scene.told and len(subjects) == 1 and not done:
                done.append(1)
                await scene.write({"paid/1": record_of(count=1, revision=6)})
            return await before(partition, subjects)

        done: list[int] = []
        scan.changed = changed  # type: ignore[method-assign]
        await comparison.run()
        return {each.subject: each for each in scene.told}

    assert run(main())["paid/1"].verdict == "agrees"


@pytest.mark.parametrize("broken", ["list", "item"])
def test_ledger_that_cannot_be_read(broken: str) -> None:
    """Then sums would be wrong: no order of the account is compared, and why is said."""

    async def main() -> tuple[dict[str, ComparedOrder], Asking]:
        scene = Scene()
        await scene.write({"paid/1": record_of()})

        async def reply(request: HttpRequest) -> HttpResponse:
            is_list = request.url.endswith("/disbursements")
            if is_list is (broken == "list"):
                return HttpResponse(404, {}, b"")
            return HttpResponse(200, {}, msgspec.json.encode([LISTED]))

        clock = VirtualClock(asyncio.get_running_loop())
        asking = Asking(SEQURA, Provider(reply), clock, DeliveryPolicy(), None)
        scan = scene.log.scan(lambda _subject: True)
        await Comparison(scan, {"paid": asking}, scene.told.append, terms=TERMS, rules=DeliveryPolicy()).run()
        return {each.subject: each for each in scene.told}, asking

    found, asking = run(main())
    assert found["paid/1"].verdict == "not_read"
    assert asking.problem is not None
    assert "did not tell its disbursements (404)" in asking.problem.text


def test_records_are_read_back() -> None:
    """A record that is compared for equality is the same when it was written and read."""
    assert decode_order(encode(record_of())) == record_of()


# --- printing --------------------------------------------------------------------------------------------------------


def order_of(number: int = 1, **members: Any) -> ComparedOrder:
    """An order that differs."""
    usual: dict[str, Any] = {
        "subject": f"hats/{number}",
        "provider": "qliro",
        "category": "differs",
        "verdict": "captured_more",
        "text": "Qliro has 1.00 SEK more. \x1b[31m",
        "action": "cartsync order resend hats/1",
        "difference_minor": 100,
        "currency": "SEK",
        "shop": ShopSide(500, 0),
        "held": ProviderSide(order="1", captured_minor=600, reserved_minor=0),
    }
    return ComparedOrder(**usual | members)


AGREES = order_of(2, category="agrees", verdict="agrees", text="", action="", difference_minor=None)
WAITS = order_of(3, category="not_final", verdict="owed", text="An update is on its way.", held=None)
HELD = order_of(
    4,
    category="not_compared",
    verdict="unknown_here",
    shop=None,
    currency=None,
    provider="",
    held=ProviderSide(
        state="Pending", amount_minor=1, reported_minor=2, paid_minor=3, currency="EUR", reference="R-1", pending=[7]
    ),
)


def tallied(*orders: ComparedOrder, problem: str = "") -> Tally:
    """The counts of these orders."""
    tally = Tally()
    for each in orders:
        tally.add(each)
    if problem:
        tally.problems.append(problem)
    return tally


@pytest.mark.parametrize(("is_all", "numbers"), [(False, [1, 3]), (True, [1, 2, 3])])
def test_lines(is_all: bool, numbers: list[int]) -> None:
    """One JSON object a line, at once; those that agree only if wished; the summary is the last."""
    out = io.StringIO()
    lines = Lines(out, is_all=is_all)
    orders = [order_of(), AGREES, WAITS]
    for each in orders:
        lines.tell(each)
    lines.conclude(tallied(*orders), 1)
    *told, last = out.getvalue().splitlines()
    assert [msgspec.json.decode(line, type=ComparedOrder).subject for line in told] == [f"hats/{n}" for n in numbers]
    assert json.loads(told[0])["type"] == "order"
    summary = msgspec.json.decode(last, type=Reconciliation)
    assert (summary.orders, summary.differs, summary.is_complete, summary.exit_code) == (3, 1, True, 1)
    (hats,) = summary.accounts
    assert (hats.orders, hats.agrees, hats.differs, hats.not_final, hats.not_compared) == (3, 1, 1, 1, 0)
    assert hats.difference_minor == {"SEK": 100}
    assert hats.verdicts == {"agrees": 1, "captured_more": 1, "owed": 1}


def printed(*orders: ComparedOrder, is_all: bool = False, problem: str = "") -> str:
    """What people see."""
    console = Console(width=160, file=io.StringIO())
    tables = Tables(console, is_all=is_all)
    for each in orders:
        tables.tell(each)
    tables.conclude(tallied(*orders, problem=problem), 0)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_tables() -> None:
    """Both sides, the sentence, what to do, and the counts; nothing that a terminal would take for a command."""
    text = printed(order_of(), AGREES, WAITS, HELD)
    assert "captured 6.00 SEK" in text
    assert "shipped 5.00 SEK" in text
    assert "→ cartsync order resend hats/1" in text
    assert "\\x1b[31m" in text
    assert "1 of 4 orders differ" in text
    assert "1 of 4 orders were not compared; --all names them" in text
    assert "hats/3" not in text
    everything = printed(order_of(), AGREES, WAITS, HELD, is_all=True)
    assert "hats/3" in everything
    for part in ("Pending", "cost 0.01 EUR", "told 0.02 EUR", "paid out 0.03 EUR", "called R-1"):
        assert part in everything


@pytest.mark.parametrize(
    ("orders", "problem", "last"),
    [
        ([], "", "there are no orders to compare"),
        ([AGREES], "", "1 of 1 orders agree, 0 differ"),
        ([AGREES, WAITS], "", "1 of 2 orders agree, 0 differ, 1 are not final yet"),
        ([AGREES], "interrupted", "none of the 1 orders that were looked at differs; that is not all of them"),
        ([order_of()], "interrupted", "1 of 1 orders differ"),
        ([AGREES, HELD], "account x: down", "1 of 2 orders were not compared"),
    ],
    ids=["nothing", "all", "some wait", "a part", "a part that differs", "not compared"],
)
def test_last_words(orders: list[ComparedOrder], problem: str, last: str) -> None:
    """What it comes to in a line; a part is never called all."""
    text = printed(*orders, problem=problem)
    assert last in text
    assert (f"partial: {problem}" in text) is bool(problem)


def test_account_that_is_not_configured() -> None:
    """Its orders cannot be compared: that is no agreement, and no difference."""
    tally = Tally()
    for each in (AGREES, replace(HELD, subject="nope/1", verdict="no_account", provider="")):
        tally.add(each)
    assert tally.note_not_asked() == 64
    assert tally.problems == ["account nope is not configured: its 1 order was not compared"]
    assert not tally.summary(64).is_complete
    assert tally.note_not_asked() == 0  # it is said once


def test_many_rows() -> None:
    """The table is bounded; the rest is counted."""
    text = printed(*[order_of(number) for number in range(ROWS_MAX + 7)])
    assert "and 7 more; --json names them all" in text
    assert f"{ROWS_MAX + 7} of {ROWS_MAX + 7} orders differ" in text
