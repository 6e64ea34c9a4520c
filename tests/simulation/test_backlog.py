"""An account with a long backlog, in virtual time: nobody's assessment waits for its turn."""

import asyncio

from tests.simulation.stage import Stage, play
from worker.providers.sequra.options import SequraAccount

SLOW = SequraAccount("acme", "sequra", "https://provider.example", "acme", "u", "p", rate_per_s=0.01)


def test_contradiction_in_a_long_backlog_is_announced_in_time() -> None:
    """Four hundred orders are ahead of it, more than are prepared, and hours: it is parked after `inconsistent_after`
    and counted as such all the same.
    """

    async def story(stage: Stage) -> None:
        worker = stage.worker("w1", {"inconsistent_after": "15m"}, accounts={"acme": SLOW})
        await worker.start()
        await worker.serving()
        for number in range(400):
            stage.tell_shipped(f"{number:03}")
        stage.tell_shipped("wrong", units=9)
        await asyncio.sleep(18 * 60.0)
        view = worker.show("acme/wrong")
        assert view is not None
        assert view.status == "parked"
        assert [partition.parked for partition in worker.status().partitions] == [1, 0]
        assert sum(partition.owed for partition in worker.status().partitions) > 300
        await worker.stop(0.0)

    play(story)
