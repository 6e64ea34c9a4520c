"""Workers with their orders on a disk: killed, and started again on the same folder."""

import pytest

from tests.integration.conftest import OpenStage
from tests.integration.harness import HOLD_S, TAKEOVER_S
from tests.integration.test_restart import ended, shipped_orders
from tests.shops.by_hand import ACCOUNT
from worker.errors import GapError
from worker.kafka.state import KafkaStateLog

pytestmark = pytest.mark.slow


async def test_killed_worker_goes_on_from_its_disk(open_stage: OpenStage) -> None:
    """It reads the end of the state topic, finds what it owes, and nothing is lost; nor is it when the folder is gone."""
    stage = await open_stage(partitions=2)
    folder = stage.folder / "orders"
    on_disk = {"CARTSYNC_STORE__KIND": "disk", "CARTSYNC_STORE__PATH": str(folder), "CARTSYNC_STORE__CACHE": "1MiB"}
    first = await stage.started(**on_disk)
    assert [said["position"] for said in first.log("store_opened")] == [0, 0]
    settled = await shipped_orders(stage, "settled", 40)
    await stage.agreed(settled)
    stage.script((f"{ACCOUNT}/owed/{number}" for number in range(5)), "500")
    owed = await shipped_orders(stage, "owed", 5)
    await ended(stage, owed)

    other = stage.start(**on_disk)
    assert await other.ended() == 64
    assert "used by another worker" in other.log("worker_start_failed")[0]["error"]

    first.kill()
    second = stage.start(**on_disk)
    await second.serving(2)
    assert all(said["position"] > 0 for said in second.log("store_opened"))
    serving = second.log("partition_serving")
    assert sum(said["orders"] for said in serving) == 45
    assert sum(said["owed"] for said in serving) >= 5
    assert sum(said["records"] for said in serving) < 40
    stage.sandbox.faults.stop()
    await stage.agreed(settled | owed, within_s=TAKEOVER_S + 10)

    second.terminate()
    assert await second.ended() == 0
    for file in folder.rglob("*.sst"):
        file.write_bytes(b"damaged")
    (folder / "partition-0" / "CURRENT").unlink()
    third = stage.start(**on_disk)
    await third.serving(2)
    assert sum(said["orders"] for said in third.log("partition_serving")) == 45
    assert third.log("store_thrown_away")
    more = await shipped_orders(stage, "more", 5)
    await stage.agreed(settled | owed | more, within_s=HOLD_S + 10)
    stage.assert_monotone()


async def test_position_that_the_topic_does_not_reach_back_to(open_stage: OpenStage) -> None:
    """Kafka says so, and it is told apart from brokers that fail."""
    stage = await open_stage()
    log = KafkaStateLog(stage.settings)
    await log.start()
    writer = log.partition(0)
    await writer.fence()
    last = await writer.write([(b"m:owner", b"")])
    with pytest.raises(GapError, match="does not hold offset"):
        async for _ in writer.read(last + 1_000, last + 2_000):
            pass
    await writer.close()
    await log.stop()
