"""The scripted provider: what it answers, what it remembers, and what it holds."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from worker.model.exchange import Fault, HttpRequest, HttpResponse
from worker.providers.sequra.options import SequraAccount
from worker.sim.loop import VirtualClock, run
from worker.sim.scripted import BODY_MAX_BYTES, Answer, RemoteCarts, ScriptedProvider

BASE = "https://pay.test"
ACCOUNTS = {
    "acme": SequraAccount("acme", "sequra", BASE, "acme", "user", "secret"),
    "beta": SequraAccount("beta", "sequra", f"{BASE}/live/", "shop b", "user", "secret"),
    "twin": SequraAccount("twin", "sequra", BASE, "acme", "user", "secret"),
}
DEADLINE_S = 8.0


def request(reference: str = "1001", shipped: int = 100, account: str = "acme") -> HttpRequest:
    """An update as the adapter sends it."""
    body = {"order": {"shipped_cart": {"order_total_with_tax": shipped}, "unshipped_cart": {"order_total_with_tax": 7}}}
    place = f"{BASE}/live/merchants/shop%20b" if account == "beta" else f"{BASE}/merchants/acme"
    key = f"{account}%2F{reference}:5"
    return HttpRequest("PUT", f"{place}/orders/{reference}", {"Idempotency-Key": key}, json.dumps(body).encode())


def held(shipped: int) -> RemoteCarts:
    """What is held after `request`."""
    return RemoteCarts(shipped, 7)


class Script:
    """A scripted provider with a shorter way to send."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.provider = ScriptedProvider(ACCOUNTS, VirtualClock(loop))
        self.now = loop.time

    async def send(self, sent: HttpRequest | None = None, *, may_send: bool = True) -> HttpResponse | Fault:
        """One attempt."""
        return await self.provider.send(sent or request(), DEADLINE_S, lambda: may_send)

    async def statuses(self, count: int, sent: HttpRequest | None = None) -> list[int | None]:
        """The statuses of so many attempts; None for a fault."""
        answers = [await self.send(sent) for _ in range(count)]
        return [answer.status if isinstance(answer, HttpResponse) else None for answer in answers]


def virtual(test: Callable[[Script], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Runs an async test in virtual time."""

    async def main() -> None:
        await test(Script())

    def wrapped() -> None:
        run(main())

    wrapped.__name__, wrapped.__doc__ = test.__name__, test.__doc__
    return wrapped


@virtual
async def test_accepts_when_nothing_is_scripted(script: Script):
    """Without a script every request is accepted, remembered and held."""
    assert await script.send() == HttpResponse(204, {}, b"")
    [seen] = script.provider.exchanges
    assert (seen.method, seen.url, seen.at) == ("PUT", f"{BASE}/merchants/acme/orders/1001", 0.0)
    assert seen.body["order"]["shipped_cart"] == {"order_total_with_tax": 100}
    assert script.provider.held("1001") == held(100)
    assert script.provider.held("1002") is None


@virtual
async def test_answers_in_order(script: Script):
    """A queue is used up in order, each answer as often as it says; then requests are accepted."""
    script.provider.answer([Answer(500), Answer(409, times=2), Answer(fault="refused")])
    assert await script.statuses(5) == [500, 409, 409, None, 204]
    script.provider.answer([Answer(503, times=None)])
    assert await script.statuses(3) == [503, 503, 503]
    script.provider.answer([])
    assert await script.statuses(1) == [204]


@virtual
async def test_answers_of_one_order(script: Script):
    """Those of `account/reference` come first, then those of the reference, then those for all."""
    script.provider.answer([Answer(501)])
    script.provider.answer_for("1001", [Answer(502)])
    script.provider.answer_for("acme/1001", [Answer(503)])
    assert await script.statuses(1, request(account="beta")) == [502]
    assert await script.statuses(3) == [503, 501, 204]


class Ledger:
    """A model that takes everything below one address."""

    def __init__(self, reference: str | None) -> None:
        self.reference = reference
        self.taken: list[str] = []

    def takes(self, request: HttpRequest) -> bool:
        return request.url.startswith(BASE)

    def order_of(self, request: HttpRequest) -> str | None:  # noqa: ARG002 - of whatever order
        return self.reference

    def answer(self, request: HttpRequest) -> HttpResponse:
        self.taken.append(request.method)
        return HttpResponse(207, {"A": "b"}, b"x")


@virtual
async def test_a_model_answers(script: Script):
    """What no queue has an answer for is the model's, of the account that holds the order, if any does."""
    empty, full = Ledger(None), Ledger("A14")
    script.provider.models |= {"acme": empty, "beta": full}
    assert await script.send() == HttpResponse(207, {"a": "b"}, b"x")
    assert (empty.taken, full.taken) == ([], ["PUT"])
    del script.provider.models["beta"]
    await script.send()
    assert empty.taken == ["PUT"]
    assert script.provider.held("1001") is None


@virtual
async def test_a_model_and_a_script(script: Script):
    """What the script answers the model does not hear of, unless it is said so; of faults their name says it."""
    model = script.provider.models["acme"] = Ledger("A14")
    for answer, count in (
        (Answer(204), 0),
        (Answer(502, applied=True), 1),
        (Answer(fault="reset_lost"), 1),
        (Answer(fault="reset_applied"), 2),
        (Answer(fault="timeout_applied", applied_after_s=DEADLINE_S + 5), 2),
    ):
        script.provider.answer_for("acme/A14", [answer])
        await script.send()
        assert len(model.taken) == count
    await asyncio.sleep(6)
    assert len(model.taken) == 3


@virtual
async def test_answers_that_wait_for_a_method(script: Script):
    """Requests of other methods pass by, to the next queue."""
    script.provider.answer_for("1001", [Answer(502, method="POST"), Answer(503)])
    script.provider.answer([Answer(501)])
    posted = HttpRequest("POST", request().url, {}, b"")
    assert await script.statuses(1) == [501]
    assert await script.statuses(2, posted) == [502, 503]


@virtual
async def test_a_refused_request_that_was_applied(script: Script):
    """Without a model, too, a script may say that what it refuses was taken, or that what it accepts was not."""
    script.provider.answer([Answer(502, applied=True), Answer(204, applied=False)])
    await script.send(request(shipped=1))
    assert script.provider.held("1001") == held(1)
    await script.send(request(shipped=2))
    assert script.provider.held("1001") == held(1)


@virtual
async def test_twins(script: Script):
    """Two accounts with one merchant are told apart by the idempotency key."""
    script.provider.answer_for("twin/1001", [Answer(500)])
    assert await script.statuses(1, request(account="acme")) == [204]
    assert await script.statuses(1, request(account="twin")) == [500]
    assert script.provider.held("twin/1001") is None


@virtual
async def test_held_of_two_accounts(script: Script):
    """The same reference at two accounts is two orders; to ask for it without the account is an error."""
    await script.send(request(shipped=1))
    assert script.provider.held("1001") == held(1)
    await script.send(request(shipped=2, account="beta"))
    assert script.provider.held("acme/1001") == held(1)
    assert script.provider.held("beta/1001") == held(2)
    with pytest.raises(ValueError, match="several accounts"):
        script.provider.held("1001")


@virtual
async def test_only_success_is_held(script: Script):
    """A request that was refused changes nothing at the provider."""
    script.provider.answer([Answer(status) for status in (400, 409, 500, 302, 404, 202)])
    for shipped in range(1, 6):
        await script.send(request(shipped=shipped))
        assert script.provider.held("1001") is None
    await script.send(request(shipped=6))
    assert script.provider.held("1001") == held(6)


@pytest.mark.parametrize(
    ("fault", "sent", "seconds", "applied"),
    [
        ("timeout_applied", True, DEADLINE_S, True),
        ("timeout_lost", True, DEADLINE_S, False),
        ("reset_applied", True, 0.0, True),
        ("reset_lost", True, 0.0, False),
        ("refused", False, 0.0, False),
    ],
)
def test_faults(fault, sent, seconds, applied):
    """A fault says whether bytes may have left, takes its time, and is one attempt; the provider took it or not."""

    async def main():
        script = Script()
        script.provider.answer([Answer(fault=fault)])
        answer = await script.send()
        assert isinstance(answer, Fault)
        assert answer.sent is sent
        assert script.now() == seconds
        assert len(script.provider.exchanges) == 1
        assert script.provider.held("1001") == (held(100) if applied else None)

    run(main())


@virtual
async def test_applied_later(script: Script):
    """A request may land long after its client has given up, and then overwrites what came between."""
    script.provider.answer([Answer(fault="timeout_applied", applied_after_s=20.0)])
    await script.send(request(shipped=1))
    assert script.provider.held("1001") is None
    await script.send(request(shipped=2))
    assert script.provider.held("1001") == held(2)
    await asyncio.sleep(11.9)
    assert script.provider.held("1001") == held(2)
    await asyncio.sleep(0.2)
    assert script.provider.held("1001") == held(1)


@virtual
async def test_cancelled(script: Script):
    """What the provider took, or will take, stays so when the client goes away."""
    script.provider.answer([Answer(fault="timeout_applied"), Answer(fault="timeout_applied", applied_after_s=5.0)])
    for reference in ("1", "2"):
        attempt = asyncio.create_task(script.send(request(reference)))
        await asyncio.sleep(1.0)
        attempt.cancel()
        await asyncio.wait([attempt])
    assert script.provider.held("1") == held(100)
    assert script.provider.held("2") is None
    await asyncio.sleep(10.0)
    assert script.provider.held("2") == held(100)


@virtual
async def test_without_a_lease(script: Script):
    """When the lease is over, nothing is sent: the provider sees no attempt."""
    answer = await script.send(may_send=False)
    assert isinstance(answer, Fault)
    assert not answer.sent
    assert script.provider.exchanges == []


@virtual
async def test_answers_are_cut(script: Script):
    """A body is cut as the real sender cuts it; names of headers are in lower case."""
    script.provider.answer([Answer(400, {"Retry-After": "3"}, b"x" * 10_000_000)])
    assert await script.send() == HttpResponse(400, {"retry-after": "3"}, b"x" * BODY_MAX_BYTES)


@virtual
async def test_requests_of_another_shape(script: Script):
    """What is no update is answered and remembered, but not held."""
    assert await script.statuses(1, HttpRequest("GET", f"{BASE}/other", {}, b"")) == [204]
    assert await script.statuses(1, HttpRequest("PUT", f"{BASE}/merchants/acme/orders/9", {}, b"\xff")) == [204]
    assert [seen.body for seen in script.provider.exchanges] == [None, "\N{REPLACEMENT CHARACTER}"]
    assert script.provider.held("9") is None
    script.provider.answer_for("a/b", [Answer(500)])
    assert await script.statuses(1, request("a%2Fb")) == [500]
