"""Slots: who is sent when, within which limits. Under virtual time, with a sender that answers as it is told."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from msgspec.structs import replace

from schemas.facts import Facts, OrderDetails
from schemas.state import Operated
from worker.core.policy import DeliveryPolicy
from worker.errors import CartsyncError
from worker.logs import capture
from worker.metrics import Metrics
from worker.model.account import Account
from worker.model.exchange import Exchange, Fault, HttpRequest, HttpResponse, Outcome, OutcomeKind, Step
from worker.model.order import Cart, Order
from worker.model.provider import Answered, Question
from worker.ports import Attempt
from worker.providers.sequra import Sequra
from worker.providers.sequra.options import SequraAccount
from worker.publisher.publisher import Publisher
from worker.sim.loop import VirtualClock, run

RULES = DeliveryPolicy()


class Answers:
    """A sender that takes a while and answers from a list, 204 when it is empty."""

    def __init__(self, took_s: float = 1.0) -> None:
        self.took_s = took_s
        self.answers: list[HttpResponse | Fault] = []
        self.sent: list[tuple[float, str]] = []
        self.now = 0
        self.most = 0

    async def send(
        self, request: HttpRequest, _deadline_s: float, _may_send: Callable[[], bool]
    ) -> HttpResponse | Fault:
        self.sent.append((asyncio.get_running_loop().time(), request.url.rpartition("/")[2]))
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(self.took_s)
        finally:
            self.now -= 1
        return self.answers.pop(0) if self.answers else HttpResponse(204, {}, b"")

    async def close(self) -> None:
        """Nothing to close."""


class Book:
    """A source whose orders are all owed."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.outcomes: list[tuple[str, Outcome]] = []
        self.closed = False
        self.not_owed: set[str] = set()
        self.generation = 0

    def claim(self, subject: str) -> Attempt | None:
        if self.closed or subject in self.not_owed:
            return None
        reference = subject.partition("/")[2]
        order = Order(reference, "EUR", Cart([], 0), Cart([], 0), OrderDetails(), [], None, 0, Facts())
        update = Sequra().render(order, SequraAccount("acme", "sequra", "https://x", "acme", "u", "p"))
        return Attempt(subject, 1, update, self.clock.now(), lambda: True, None, self.generation)

    def done(self, attempt: Attempt, outcome: Outcome) -> None:
        self.outcomes.append((attempt.subject, outcome))


def account(name: str = "acme", **members: Any) -> Account:
    """A merchant account of a provider that is never reached."""
    return SequraAccount(name, "sequra", "https://x", name, "u", "p", **members)


class Scene:
    """A publisher, its sender and one source."""

    def __init__(self, *accounts: Account, rules: DeliveryPolicy = RULES, adapter: Sequra | None = None) -> None:
        self.clock = VirtualClock(asyncio.get_running_loop())
        self.sender = Answers()
        self.metrics = Metrics()
        self.failures: list[CartsyncError] = []
        self.book = Book(self.clock)
        self.publisher = Publisher(
            {each.name: each for each in accounts},
            {"sequra": adapter or Sequra()},
            self.sender,
            self.clock,
            rules=rules,
            metrics=self.metrics,
            fatal=self.failures.append,
        )

    def offer(self, *subjects: str, owed_since_ms: int = 0) -> None:
        for subject in subjects:
            self.publisher.offer(subject.partition("/")[0], owed_since_ms, subject, self.book)

    def kinds(self) -> list[OutcomeKind]:
        return [outcome.kind for _, outcome in self.book.outcomes]

    def references(self) -> list[str]:
        return [reference for _, reference in self.sender.sent]


def played(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs it on a virtual loop."""
    run(main())


def test_longest_owed_goes_first_within_the_concurrency() -> None:
    """With two slots two are under way at a time, and the oldest waits least."""

    async def main() -> None:
        scene = Scene(account(concurrency=2))
        scene.offer("acme/a", "acme/b", owed_since_ms=50)
        await asyncio.sleep(0.5)
        scene.offer("acme/young", owed_since_ms=90)
        scene.offer("acme/old", owed_since_ms=10)
        await asyncio.sleep(5)
        assert scene.references() == ["a", "b", "old", "young"]
        assert scene.sender.most == 2
        await scene.publisher.stop()

    played(main)


def test_rate_limit() -> None:
    """Two a second: the third in a burst waits."""

    async def main() -> None:
        scene = Scene(account(rate_per_s=2.0))
        scene.offer("acme/a", "acme/b", "acme/c", "acme/d")
        await asyncio.sleep(5)
        times = [at for at, _ in scene.sender.sent]
        assert times[0] == times[1] == 0
        assert times[2] >= 0.5
        assert times[3] >= times[2] + 0.4
        await scene.publisher.stop()

    played(main)


def test_offers_that_need_no_request_use_up_no_rate() -> None:
    """What turns out to be known there already does not hold up what is owed."""

    async def main() -> None:
        scene = Scene(account(rate_per_s=1.0, concurrency=1))
        known = [f"acme/known{number}" for number in range(1_000)]
        scene.book.not_owed.update(known)
        scene.offer("acme/first", *known, "acme/last")
        await asyncio.sleep(30)
        assert [reference for _, reference in scene.sender.sent] == ["first", "last"]
        assert scene.sender.sent[1][0] < 5
        await scene.publisher.stop()

    played(main)


def test_rate_below_one_a_second() -> None:
    """A bucket holds at least one attempt."""

    async def main() -> None:
        scene = Scene(account(rate_per_s=0.5))
        scene.offer("acme/a", "acme/b")
        await asyncio.sleep(10)
        assert [round(at) for at, _ in scene.sender.sent] == [0, 2]
        await scene.publisher.stop()

    played(main)


# --- all accounts of a provider ---

NARROW = DeliveryPolicy(provider_concurrency=2)


def subjects(account: str, count: int) -> list[str]:
    """Orders of an account."""
    return [f"{account}/{account[0]}{number}" for number in range(count)]


def test_provider_bounds_the_attempts_of_all_its_accounts() -> None:
    """However many slots each has: as many attempts, and so sockets, as the provider's places. An account that waits
    for one needs no more slots for more orders.
    """

    async def main() -> None:
        scene = Scene(*[account(f"shop{number}") for number in range(20)], rules=DeliveryPolicy(provider_concurrency=6))
        for number in range(20):
            scene.offer(*subjects(f"shop{number}", 3))
        await asyncio.sleep(0.5)
        tasks = len(asyncio.all_tasks())
        scene.offer(*[f"shop19/late{number}" for number in range(40)])
        assert len(asyncio.all_tasks()) == tasks
        assert sum(view.in_flight for view in scene.publisher.views()) == scene.sender.now == 6
        await asyncio.sleep(60)
        assert scene.sender.most == 6
        assert len(scene.sender.sent) == len({subject for subject, _ in scene.book.outcomes}) == 100
        await scene.publisher.stop()

    played(main)


def test_accounts_of_a_provider_take_turns() -> None:
    """A hundred orders of one account do not keep three of another waiting until they are sent."""

    async def main() -> None:
        scene = Scene(account("acme"), account("beta"), rules=NARROW)
        scene.offer(*subjects("acme", 100))
        await asyncio.sleep(0.5)
        scene.offer(*subjects("beta", 3))
        await asyncio.sleep(4)
        assert sorted(reference[0] for reference in scene.references()[2:8]) == ["a", "a", "a", "b", "b", "b"]
        await scene.publisher.stop()

    played(main)


def test_account_that_stops_at_the_gate_lets_others_pass() -> None:
    """It was paused while it waited for its turn at the provider: the place goes on to the next account."""

    async def main() -> None:
        scene = Scene(account("acme"), account("beta"), account("carl"), rules=NARROW)
        scene.offer(*subjects("acme", 2))
        await asyncio.sleep(0.5)
        scene.offer("beta/b0")
        await asyncio.sleep(0)
        scene.offer("carl/c0", "carl/c1")
        scene.publisher.pause_accounts(scene.book, {"beta": Operated("pause", "me", "", 0, True, "", b"")})
        await asyncio.sleep(2)
        assert scene.references() == ["a0", "a1", "c0", "c1"]
        scene.publisher.pause_accounts(scene.book, {})
        await asyncio.sleep(2)
        assert scene.references()[-1] == "b0"
        await scene.publisher.stop()

    played(main)


def test_rate_limit_takes_no_place_at_the_provider() -> None:
    """An account that may send one in ten seconds keeps nobody waiting."""

    async def main() -> None:
        slow = account("acme", rate_per_s=0.1)
        scene = Scene(slow, account("beta"), rules=NARROW)
        scene.offer(*subjects("acme", 30))
        scene.offer(*subjects("beta", 20))
        await asyncio.sleep(11.5)
        assert sum(reference.startswith("b") for reference in scene.references()) == 20
        await scene.publisher.stop()

    played(main)


def test_slots_that_wait_for_the_provider_do_not_spin() -> None:
    """The end of a throttle wakes slots of an account that has one at the gate: they have nothing to do there."""

    async def main() -> None:
        scene = Scene(account("acme", concurrency=4), account("beta"), rules=DeliveryPolicy(provider_concurrency=4))
        scene.sender.answers = [HttpResponse(429, {"retry-after": "3"}, b"")]
        scene.offer(*subjects("acme", 1))
        await asyncio.sleep(1.5)
        scene.sender.took_s = 100.0
        scene.offer(*subjects("beta", 8))
        scene.offer(*subjects("acme", 8))
        loop_turns = 0
        until = asyncio.get_running_loop().time() + 20
        while asyncio.get_running_loop().time() < until:
            loop_turns += 1
            await asyncio.sleep(1)
        assert loop_turns == 20
        assert len(scene.sender.sent) == 5
        await scene.publisher.stop()

    played(main)


def test_credentials_pause_one_account_until_it_is_resumed() -> None:
    """401 stops the account and no other; its offers wait, and idle slots do not spin."""

    async def main() -> None:
        scene = Scene(account(), account("beta"), rules=DeliveryPolicy(account_probe_s=()))
        scene.sender.answers = [HttpResponse(401, {}, b"HTTP Basic: Access denied.")]
        scene.offer("acme/a")
        await asyncio.sleep(2)
        scene.offer("acme/b", "acme/c", "acme/d", "beta/x")
        await asyncio.sleep(3600)
        assert scene.references() == ["a", "x"]
        assert "Access denied" in (scene.publisher.paused("acme") or "")
        (view,) = [view for view in scene.publisher.views() if view.name == "acme"]
        assert view.paused == "account acme paused: its credentials were rejected (401)"  # everybody may see it
        assert scene.publisher.paused("beta") is None
        assert scene.metrics.value("cartsync_account_paused", account="acme") == 1
        assert scene.publisher.views()[0].probe_s is None
        assert scene.publisher.resume("acme")
        assert not scene.publisher.resume("acme")
        await asyncio.sleep(10)
        assert scene.references() == ["a", "x", "b", "c", "d"]
        assert scene.kinds() == [OutcomeKind.CREDENTIALS] + [OutcomeKind.APPLIED] * 4
        await scene.publisher.stop()

    played(main)


def test_paused_account_probes_by_itself() -> None:
    """With one attempt after a minute, then two; with others than the order that paused it, and goes on when one is
    taken. The log names the order, the status, when it probes next, and what ended the pause.
    """

    async def main() -> None:
        scene = Scene(account())
        scene.sender.answers = [HttpResponse(401, {}, b"Maria"), HttpResponse(401, {}, b"Maria")]
        scene.offer("acme/a")
        await asyncio.sleep(2)
        scene.offer("acme/a", "acme/b", "acme/c", "acme/d")
        await asyncio.sleep(30)
        assert [view.probe_s for view in scene.publisher.views()] == [29.0]
        await asyncio.sleep(300)
        assert [(round(at), reference) for at, reference in scene.sender.sent] == [
            (0, "a"),
            (61, "b"),
            (182, "c"),
            (183, "d"),
            (183, "a"),
        ]
        assert scene.publisher.paused("acme") is None
        assert scene.metrics.value("cartsync_account_paused", account="acme") == 0
        await scene.publisher.stop()

    lines: list[str] = []
    with capture(lines, "info"):
        played(main)
    said = [json.loads(line) for line in lines]
    assert [(line["event"], line.get("order"), line.get("status"), line.get("probe_s")) for line in said] == [
        ("account_paused", "acme/a", 401, 60.0),
        ("account_probed", "acme/b", 401, 120.0),
        ("account_resumed", None, None, None),
    ]
    assert said[-1]["by"] == "probe"
    assert "Maria" not in "".join(lines)


def test_busy_provider_slows_the_account_down() -> None:
    """A 503 without `Retry-After`: a short hold for all, and fewer at once afterwards."""

    async def main() -> None:
        scene = Scene(account(concurrency=4))
        scene.sender.answers = [HttpResponse(503, {}, b"")] * 4
        scene.offer(*(f"acme/{number}" for number in range(40)))
        await asyncio.sleep(1.01)
        assert "its provider is overloaded" in scene.publisher.waits("acme")
        assert 0.2 < scene.publisher.views()[0].waiting_s < 0.4
        scene.sender.most = 0
        await asyncio.sleep(0.6)
        assert scene.sender.most == scene.sender.now == 2
        await asyncio.sleep(60)
        assert scene.sender.most == 4
        assert len(scene.sender.sent) == 40
        await scene.publisher.stop()

    played(main)


def test_backoff_ends_with_its_time_or_with_an_outage() -> None:
    """An order that is offered for later goes then; when an order is taken after nothing was for long, it goes now."""

    async def main() -> None:
        scene = Scene(account())
        scene.offer("acme/first")
        scene.publisher.offer("acme", 0, "acme/early", scene.book, has_failed=True, not_before=300.0)
        await asyncio.sleep(3)
        assert scene.references() == ["first", "early"]
        scene.sender.answers = [HttpResponse(500, {}, b"")]
        scene.publisher.offer("acme", 0, "acme/bad", scene.book, has_failed=True, not_before=300.0)
        await asyncio.sleep(3)
        scene.publisher.offer("acme", 0, "acme/later", scene.book, has_failed=True, not_before=400.0)
        await asyncio.sleep(390)
        assert scene.references() == ["first", "early", "bad"]
        await asyncio.sleep(10)
        assert scene.sender.sent[3:] == [(400.0, "later")]
        await scene.publisher.stop()

    played(main)


def test_retry_after_of_429_holds_the_account() -> None:
    """Nothing of the account goes out before, everything after; another account is not touched."""

    async def main() -> None:
        scene = Scene(account(), account("beta"))
        scene.sender.answers = [HttpResponse(429, {"retry-after": "60"}, b"")]
        scene.offer("acme/a")
        await asyncio.sleep(2)
        scene.offer("acme/b", "acme/c", "beta/x")
        await asyncio.sleep(30)
        assert scene.references() == ["a", "x"]
        waiting = {view.name: view.waiting_s for view in scene.publisher.views()}
        assert round(waiting["acme"]) == 29
        assert waiting["beta"] == 0
        await asyncio.sleep(60)
        assert sorted(scene.references()) == ["a", "b", "c", "x"]
        await scene.publisher.stop()

    played(main)


def test_cut_gives_up_what_is_under_way_and_the_slot_lives_on() -> None:
    """The outcome is unknown, and is told once; other outlets' attempts go on in the same slots."""

    async def main() -> None:
        scene = Scene(account(concurrency=1))
        scene.sender.took_s = 100.0
        scene.offer("acme/a", "acme/b")
        await asyncio.sleep(1)
        scene.publisher.withdraw(scene.book)
        scene.publisher.abandon(scene.book)
        scene.publisher.abandon(scene.book)
        await asyncio.sleep(1)
        assert scene.kinds() == [OutcomeKind.UNKNOWN]
        assert scene.publisher.in_flight() == 0
        scene.sender.took_s = 1.0
        scene.offer("acme/c")
        await asyncio.sleep(2)
        assert scene.references() == ["a", "c"]
        assert scene.kinds() == [OutcomeKind.UNKNOWN, OutcomeKind.APPLIED]
        await scene.publisher.stop()

    played(main)


def test_what_is_not_owed_any_more_is_not_sent() -> None:
    """An source that has nothing to give costs a look."""

    async def main() -> None:
        scene = Scene(account())
        scene.book.closed = True
        scene.offer("acme/a")
        await asyncio.sleep(5)
        assert scene.sender.sent == []
        await scene.publisher.stop()

    played(main)


def test_faults_become_outcomes() -> None:
    """Bytes that left make it unknown, none make it not sent."""

    async def main() -> None:
        scene = Scene(account(concurrency=1))
        scene.sender.answers = [Fault(False, "no connection"), Fault(True, "reset")]
        scene.offer("acme/a", "acme/b")
        await asyncio.sleep(10)
        assert scene.kinds() == [OutcomeKind.NOT_SENT, OutcomeKind.UNKNOWN]
        assert scene.metrics.value("cartsync_delivery_attempts_total", account="acme", **{"class": "unknown"}) == 1
        await scene.publisher.stop()

    played(main)


def test_suspended_begins_nothing() -> None:
    """Offers wait while sending is suspended, and go out when it is not."""

    async def main() -> None:
        scene = Scene(account())
        scene.publisher.suspend(True)
        scene.offer("acme/a", "acme/b")
        await asyncio.sleep(60)
        assert scene.sender.sent == []
        scene.publisher.suspend(False)
        await asyncio.sleep(5)
        assert sorted(scene.references()) == ["a", "b"]
        await scene.publisher.stop()

    played(main)


def test_retries_wait_for_no_busy_slot() -> None:
    """Each goes when it is due, as long as a slot is idle, though whoever waited for the first one is busy with it."""

    async def main() -> None:
        scene = Scene(account(concurrency=4))
        scene.sender.took_s = 8.0
        scene.offer(*[f"acme/w{number}" for number in range(4)])
        await asyncio.sleep(400)  # by then nothing goes early any more
        scene.sender.sent.clear()
        now = scene.clock.now()
        due = [5.0, 5.5, 6.0, 6.5]
        for number, after_s in enumerate(due):
            subject = f"acme/{number}"
            scene.publisher.offer("acme", 0, subject, scene.book, has_failed=True, not_before=now + after_s)
            await asyncio.sleep(0)
        await asyncio.sleep(60)
        assert [at - now for at, _ in scene.sender.sent] == pytest.approx(due)
        await scene.publisher.stop()

    played(main)


class Puzzled(Sequra):
    """An adapter that fails at what the provider has said."""

    def __init__(self, *, is_read: bool, fails_in: str) -> None:
        self.is_read = is_read
        self.fails_in = fails_in

    def next_step(self, asked: Question) -> Step:
        if self.fails_in == "next_step" and asked.seen is not None:
            raise OverflowError("somebody@example.com")
        step = super().next_step(asked)
        return replace(step, is_read=self.is_read) if isinstance(step, Exchange) else step

    def read_response(self, asked: Question, sent: Exchange, response: HttpResponse) -> Answered:  # noqa: ARG002
        if self.fails_in == "read_response":
            raise OverflowError("somebody@example.com")
        return Answered(Outcome(OutcomeKind.APPLIED, "", response.status), "seen")


@pytest.mark.parametrize(
    ("is_read", "fails_in", "expected"),
    [
        (False, "read_response", OutcomeKind.UNKNOWN),
        (True, "read_response", OutcomeKind.REJECTED),
        (True, "next_step", OutcomeKind.REJECTED),
    ],
)
def test_adapter_that_fails_at_a_response(is_read: bool, fails_in: str, expected: OutcomeKind) -> None:
    """It costs that order alone: the same response would come again, to whoever has the partition then. What the
    provider has said is told to nobody.
    """

    async def main() -> None:
        scene = Scene(account(), adapter=Puzzled(is_read=is_read, fails_in=fails_in))
        lines: list[str] = []
        with capture(lines, "critical"):
            scene.offer("acme/a")
            await asyncio.sleep(5)
        assert not scene.failures
        assert scene.kinds() == [expected]
        ((_, outcome),) = scene.book.outcomes
        assert "OverflowError at publisher.py:" in outcome.reason
        assert (outcome.remote is None) is is_read
        (line,) = map(json.loads, lines)
        assert (line["event"], line["order"], line["error"]) == ("adapter_failed", "acme/a", "OverflowError")
        assert line["status"] == 204
        assert "somebody" not in str(lines) + outcome.reason
        await scene.publisher.stop()

    played(main)


def test_slot_that_fails_is_told() -> None:
    """A defect outside the adapters stops the worker instead of stopping an account silently."""

    async def main() -> None:
        scene = Scene(account())

        def broken(subject: str) -> Attempt | None:
            raise RuntimeError(subject)

        scene.book.claim = broken  # type: ignore[method-assign]
        scene.offer("acme/a")
        await asyncio.sleep(1)
        assert len(scene.failures) == 1
        await scene.publisher.stop()

    played(main)


@pytest.mark.parametrize(("generation", "key"), [(0, "acme%2FA14%2F%C3%B1%201:1"), (2, "acme%2FA14%2F%C3%B1%201:1:2")])
def test_idempotency_key_names_order_and_revision(generation: int, key: str) -> None:
    """The subject is percent-encoded, so the key is plain ASCII whatever the reference; what an operator has sent anew
    has a key of its own.
    """

    async def main() -> None:
        scene = Scene(account())
        keys: list[str] = []

        async def send(request: HttpRequest, _deadline_s: float, _may_send: Callable[[], bool]) -> HttpResponse:
            keys.append(request.headers["Idempotency-Key"])
            return HttpResponse(204, {}, b"")

        scene.sender.send = send  # type: ignore[method-assign]
        scene.book.generation = generation
        scene.offer("acme/A14/ñ 1")
        await asyncio.sleep(1)
        assert keys == [key]
        await scene.publisher.stop()

    played(main)
