"""One worker ends and another one goes on: in order, in a hurry, and killed."""

import asyncio
from datetime import timedelta

from tests.integration.conftest import OpenStage
from tests.integration.harness import HOLD_S, TAKEOVER_S, Stage
from tests.integration.process import until, utc_now
from tests.shops.by_hand import ACCOUNT, Carts, line, wanted_after_a_kill, wanted_of
from worker.sandbox.faults import FaultPlan
from worker.tools.shop import History, make_history

FAULTS = (
    "500=0.05,503=0.03,reset_applied=0.03,reset_lost=0.03,timeout_applied=0.03,late_applied=0.03:1500ms,slow=0.1:300ms"
)
"""`late_applied` comes within `settle` (2 s) after the worker gave the request up (1 s)."""


def history(seed: int, orders: int, seconds: float) -> History:
    """What the shop does meanwhile, poisoned events, duplicates and disorder included."""
    return make_history(seed, orders, seconds, account=ACCOUNT, began_at=utc_now())


async def shipped_orders(stage: Stage, name: str, count: int) -> dict[str, Carts | None]:
    """Orders that are shipped at once; what the provider must hold of each."""
    orders = [stage.order(f"{ACCOUNT}/{name}/{number}") for number in range(count)]
    for number, order in enumerate(orders):
        await order.confirm(line("mug", 1000 + number, quantity=2))
        await order.ship("s1", mug=2)
    return {order.subject: (2 * (1000 + number), 0) for number, order in enumerate(orders)}


async def tried(stage: Stage, subjects: dict[str, Carts | None]) -> None:
    """Waits until each order has reached the provider at least once."""
    await until(lambda: all(stage.attempts(subject) for subject in subjects), 10, stage.tails)


async def ended(stage: Stage, subjects: dict[str, Carts | None]) -> None:
    """Waits until an attempt of each order has ended."""

    def all_ended() -> bool:
        return all(any(attempt.ended_at for attempt in stage.attempts(subject)) for subject in subjects)

    await until(all_ended, 10, stage.tails)


async def test_sigterm_hands_over_in_order(open_stage: OpenStage) -> None:
    """Nothing is lost or told twice, and what was owed at the end is told by the next worker without a hold."""
    stage = await open_stage(partitions=2)
    first = await stage.started()
    settled = await shipped_orders(stage, "settled", 20)
    await stage.agreed(settled)
    owed = {f"{ACCOUNT}/owed/{number}": None for number in range(10)}
    stage.script(owed, "500")
    owed_carts = await shipped_orders(stage, "owed", 10)
    await ended(stage, owed_carts)
    shop = stage.play(stream := history(1, 100, 5.0))
    await asyncio.sleep(2.0)

    first.terminate()
    assert await first.ended() == 0
    assert first.log("worker_stopped")
    second = stage.start()
    stage.sandbox.faults.stop()
    await second.serving(2)
    assert all(said["clean"] for said in second.log("partition_serving"))
    assert sum(said["owed"] for said in second.log("partition_serving")) >= len(owed)
    await stage.agreed(owed_carts, within_s=HOLD_S / 2)
    await shop
    await stage.agreed(wanted_of([stream]) | settled | owed_carts, within_s=HOLD_S)
    assert {subject: len(stage.attempts(subject)) for subject in settled} == dict.fromkeys(settled, 1)
    stage.assert_monotone()


async def test_a_second_sigterm_ends_it_at_once(open_stage: OpenStage) -> None:
    """Exit code 143 while attempts are under way; the next worker holds their orders, then tells them."""
    stage = await open_stage()
    first = await stage.started()
    settled = await shipped_orders(stage, "settled", 3)
    await stage.agreed(settled)
    stage.script((f"{ACCOUNT}/slow/{number}" for number in range(5)), "timeout_lost:30s")
    slow = await shipped_orders(stage, "slow", 5)
    await tried(stage, slow)

    first.terminate()
    await asyncio.sleep(0.1)
    assert first.is_running()
    first.terminate()
    assert await first.ended(within_s=0.5) == 143
    second = stage.start()
    await second.answers()
    assert [(await second.get(f"/{probe}"))[0] for probe in ("livez", "readyz", "startupz")] == [200, 503, 503]
    await second.serving(1)
    stage.sandbox.faults.stop()
    assert not second.log("partition_serving")[0]["clean"]
    await stage.agreed(slow | settled, within_s=TAKEOVER_S + 10)
    stage.assert_monotone()


async def test_sigterm_ends_a_worker_that_waits_for_the_group(open_stage: OpenStage) -> None:
    """While the group still waits for a killed member, the next one leaves when it is told to, without an error."""
    stage = await open_stage()
    # Long enough for one that starts on a busy machine.
    patience = {"CARTSYNC_KAFKA__SESSION_TIMEOUT": "12s", "CARTSYNC_KAFKA__REBALANCE_TIMEOUT": "20s"}
    (await stage.started(**patience)).kill()
    # It may get the port of the killed one.
    waiting = stage.start(CARTSYNC_KAFKA__GROUP_INSTANCE_ID="another", **patience)
    await waiting.answers()
    await asyncio.sleep(1.0)
    assert (await waiting.get("/startupz"))[0] == 503
    waiting.terminate()
    assert await waiting.ended(within_s=20) == 0  # the broker answers a join when it misses the killed member
    assert waiting.log("worker_stopped")
    assert [said for said in waiting.log() if said["level"] in ("error", "critical")] == []


async def test_sigkill_loses_nothing_and_what_was_owed_is_held(open_stage: OpenStage) -> None:
    """Under load and faults, with requests that land late: all orders agree, to the cent, and none ever goes back."""
    stage = await open_stage(partitions=2)
    first = await stage.started()
    settled = await shipped_orders(stage, "settled", 10)
    await stage.agreed(settled)
    stage.sandbox.faults.plan = FaultPlan.parse(FAULTS)
    stage.script((f"{ACCOUNT}/unknown/{number}" for number in range(5)), "timeout_lost")
    stage.script((f"{ACCOUNT}/refused/{number}" for number in range(5)), "500")
    owed = await shipped_orders(stage, "unknown", 5) | await shipped_orders(stage, "refused", 5)
    shop = stage.play(stream := history(3, 120, 10.0))
    await ended(stage, owed)
    await asyncio.sleep(2.0)

    first.kill()
    await asyncio.sleep(0.2)  # what it had sent has come by then
    sent_before = stage.sandbox.attempt_count
    stage.sandbox.faults.stop()
    second = await stage.started()
    back = stage.order(next(iter(settled)), told=2)
    await back.take_back("r1", mug=1)
    settled[back.subject] = (1000, 0)
    await stage.agreed({back.subject: (1000, 0)}, within_s=HOLD_S / 2)
    stage.sandbox.faults.plan = FaultPlan.parse(FAULTS)
    await shop
    await asyncio.sleep(HOLD_S)
    stage.sandbox.faults.stop()
    await stage.agreed(wanted_after_a_kill([stream]) | settled | owed)

    for subject in owed:
        after = [attempt for attempt in stage.attempts(subject) if attempt.number > sent_before]
        partition = (await second.shown(subject, "settled")).partition
        free_at = second.fenced_at(partition) + timedelta(seconds=HOLD_S)
        assert after[0].received_at >= free_at, f"{subject}: {after[0]}, free at {free_at}\n{stage.tails()}"
    stage.assert_monotone()
