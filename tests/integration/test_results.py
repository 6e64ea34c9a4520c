"""What other systems read of the results topic, with a worker that is killed in the middle of it."""

import asyncio
from collections import defaultdict
from itertools import pairwise

import msgspec

from schemas.results import OrderChanged
from tests.integration.conftest import OpenStage
from tests.integration.harness import TAKEOVER_S
from tests.integration.test_restart import FAULTS, history
from tests.shops.by_hand import wanted_of
from worker.sandbox.faults import FaultPlan


async def test_results_of_a_worker_that_is_killed(open_stage: OpenStage) -> None:
    """Read committed, the results of each order count up without a gap, each says something new, and the last one says
    what the provider holds.
    """
    stage = await open_stage(partitions=2)
    stage.sandbox.faults.plan = FaultPlan.parse(FAULTS)
    first = await stage.started()
    shop = stage.play(stream := history(5, 150, 8.0))
    await asyncio.sleep(4.0)
    first.kill()
    second = await stage.started()
    await shop
    stage.sandbox.faults.stop()
    wanted = wanted_of([stream])
    await stage.agreed(wanted, within_s=TAKEOVER_S + 60)
    second.terminate()
    assert await second.ended() == 0

    results: dict[str, list[OrderChanged]] = defaultdict(list)
    for each in await stage.results(len(wanted)):
        result = msgspec.json.decode(each.value, type=OrderChanged)
        assert each.key == result.subject.encode()
        results[result.subject].append(result)
    assert results.keys() >= {subject for subject, carts in wanted.items() if carts is not None}
    for subject, row in results.items():
        assert [int(result.sequence) for result in row] == list(range(1, len(row) + 1)), subject
        assert {result.source for result in row} == {f"/cartsync/{stage.name}"}
        news = [(result.data.status, result.data.acked) for result in row]
        assert all(one != other for one, other in pairwise(news)), row
        last, carts = row[-1].data, wanted.get(subject)
        assert (last.status, last.acked) == ("settled", last.revision), row
        if carts is not None:
            assert (last.shipped_minor, last.unshipped_minor) == carts, row
