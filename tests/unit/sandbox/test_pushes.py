"""What a sandbox calls back with: late, twice, out of order, and again until it was taken."""

import asyncio

from tests.unit.sandbox.asking import Shop
from worker.sandbox.faults import FaultPlan, Faults
from worker.sandbox.pushes import Push, Pushes

TAKEN, REFUSED = (200, b"taken"), (503, b"")


def push(word: str, ref: str = "1001", url: str = "http://shop.example/") -> Push:
    """Return a push of an order."""
    return Push(merchant="acme", order_ref=ref, what=word, url=url, content_type="text/plain", body=word.encode())


def pushes_to(shop: Shop, plan: str = "", retries_s: tuple[float, ...] = (0.0, 0.0)) -> Pushes:
    """Return pushes to a shop."""
    return Pushes(shop.send, Faults(FaultPlan.parse(plan), 1), retries_s, lambda status, body: (status, body) == TAKEN)


async def at_rest(pushes: Pushes) -> None:
    """Wait until nothing is on its way."""
    async with asyncio.timeout(5):
        while pushes.pending:  # noqa: ASYNC110 - a sandbox has no events for its tests
            await asyncio.sleep(0)


async def test_taken_at_once() -> None:
    """What is taken is not sent again."""
    shop = Shop(TAKEN)
    pushes = pushes_to(shop)
    pushes.post(push("a"))
    await at_rest(pushes)
    assert [each.what for each in shop.pushes] == ["a"]
    assert pushes.counts == {"made": 1, "taken": 1}


async def test_again_until_taken() -> None:
    """What is not taken comes again, after no answer and after a wrong one."""
    shop = Shop(None, (200, b"not yet"), TAKEN)
    pushes = pushes_to(shop)
    pushes.post(push("a"))
    await at_rest(pushes)
    assert len(shop.pushes) == 3
    assert pushes.counts == {"made": 1, "not taken": 2, "taken": 1}
    assert [each.result for each in pushes.log] == ["no answer", "200", "200"]


async def test_given_up() -> None:
    """It comes as often as is documented, and not once more."""
    shop = Shop(REFUSED)
    pushes = pushes_to(shop)
    pushes.post(push("a"))
    await at_rest(pushes)
    assert len(shop.pushes) == 3
    assert pushes.counts["given up"] == 1


async def test_lost() -> None:
    """A lost one never arrives; it comes again where the provider sends again, and else is gone."""
    for retries_s, arrived in (((0.0,), 1), ((), 0)):
        shop = Shop(TAKEN)
        pushes = pushes_to(shop, "push_lost=1", retries_s)
        pushes.post(push("a"))
        await at_rest(pushes)
        assert (len(shop.pushes), pushes.counts["lost"], pushes.counts["taken"]) == (arrived, 1, arrived)


async def test_doubled() -> None:
    """A doubled one comes twice."""
    shop = Shop(TAKEN)
    pushes = pushes_to(shop, "push_doubled=1")
    pushes.post(push("a"))
    await at_rest(pushes)
    assert [each.what for each in shop.pushes] == ["a", "a"]
    assert pushes.counts == {"made": 1, "doubled": 1, "taken": 2}


async def test_late_is_overtaken() -> None:
    """A late one is overtaken by newer ones of its order, and that is counted; those of other orders do not count."""
    shop = Shop(TAKEN)
    faults = Faults(FaultPlan.parse("push_late=1:20ms"), 1)
    pushes = Pushes(shop.send, faults, (), lambda status, _body: status == 200)
    pushes.post(push("old"))
    faults.stop()
    pushes.post(push("of another", "1002"))
    pushes.post(push("new"))
    await at_rest(pushes)
    assert [each.what for each in shop.pushes] == ["of another", "new", "old"]
    assert (pushes.counts["late"], pushes.counts["out of order"]) == (1, 1)


async def test_nobody_to_call() -> None:
    """Without an address, or without a way to call, nothing is pushed."""
    shop = Shop(TAKEN)
    pushes_to(shop).post(push("a", url=""))
    mute = Pushes(None, Faults(FaultPlan(), 1), (), lambda *_: True)
    mute.post(push("a"))
    assert (shop.pushes, mute.pending, mute.counts) == ([], 0, {})


async def test_stop() -> None:
    """Stopping drops what is still to come."""
    shop = Shop(REFUSED)
    pushes = pushes_to(shop, retries_s=(3600.0,))
    pushes.post(push("a"))
    while not shop.pushes:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0)
    await pushes.stop()
    assert (pushes.pending, pushes.counts["given up"]) == (0, 0)
