"""Two workers of one group: they share the partitions, and one goes on where the other is killed."""

import asyncio

from tests.integration.conftest import OpenStage
from tests.integration.harness import HOLD_S, SESSION_S, TAKEOVER_S
from tests.integration.process import utc_now
from tests.shops.by_hand import ACCOUNT, wanted_after_a_kill, wanted_of
from worker.sandbox.faults import FaultPlan
from worker.tools.shop import make_history

FAULTS = "500=0.05,reset_applied=0.03,timeout_applied=0.03,late_applied=0.03:1500ms,slow=0.1:300ms"


async def test_a_killed_worker_is_replaced_by_the_other(open_stage: OpenStage) -> None:
    """The partitions were shared, then the survivor has all of them; all orders agree and none ever goes back."""
    stage = await open_stage(partitions=4)
    first, second = stage.start(), stage.start()
    await first.serving(2)
    await second.serving(2)
    assert sorted(await first.served() + await second.served()) == [0, 1, 2, 3]
    lost = await first.served()
    stage.sandbox.faults.plan = FaultPlan.parse(FAULTS)
    shop = stage.play(stream := make_history(5, 120, 9.0, account=ACCOUNT, began_at=utc_now()))
    await asyncio.sleep(4.0)

    first.kill()
    await second.serving(4, within_s=SESSION_S + 15)
    taken = [said for said in second.log("partition_serving")[-4:] if said["partition"] in lost]
    assert not any(said["clean"] for said in taken), taken
    await shop
    stage.sandbox.faults.stop()
    await stage.agreed(wanted_after_a_kill([stream]), within_s=TAKEOVER_S + 10)
    stage.assert_monotone()


async def test_a_killed_worker_that_comes_back_disturbs_nobody(open_stage: OpenStage) -> None:
    """Its partitions are its own again before its session has ended; the other one keeps what it has, and goes on."""
    stage = await open_stage(partitions=4)
    first, second = stage.start(), stage.start()
    await first.serving(2)
    await second.serving(2)
    had, revoked = await first.served(), second.log("partitions_revoked")
    shop = stage.play(stream := make_history(7, 120, 6.0, account=ACCOUNT, began_at=utc_now()))
    await asyncio.sleep(2.0)

    first.kill()
    again = stage.start(CARTSYNC_HTTP__PORT=str(first.port))
    await again.serving(2, within_s=SESSION_S - 1)
    assert await again.served() == had
    await shop
    await stage.agreed(wanted_after_a_kill([stream]), within_s=TAKEOVER_S + 10)
    assert second.log("partitions_revoked") == revoked
    stage.assert_monotone()


async def test_a_second_worker_takes_its_share_without_a_hold(open_stage: OpenStage) -> None:
    """A worker that joins gets half of the partitions in order: what was owed in them is told at once, by it."""
    stage = await open_stage(partitions=4)
    first = await stage.started()
    stream = make_history(6, 60, 1.0, account=ACCOUNT, began_at=utc_now(), odd=False)
    stage.sandbox.faults.plan = FaultPlan.parse("500=1")
    await stage.play(stream)
    await asyncio.sleep(1.0)
    assert not stage.sandbox.held

    second = stage.start()
    await second.serving(2)
    await first.serving(2)
    assert all(said["clean"] for said in second.log("partition_serving"))
    stage.sandbox.faults.stop()
    await stage.agreed(wanted_of([stream]), within_s=HOLD_S / 2)
    theirs = await second.status()
    assert sum(view.orders for view in theirs.partitions) > 0
    stage.assert_monotone()
