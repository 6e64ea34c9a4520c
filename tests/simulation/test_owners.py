"""Two deployments that write to the same state topic: whoever notices stops, and says whom it has met."""

import asyncio

import pytest

from tests.simulation.stage import Stage, play
from worker.app import Worker
from worker.errors import TwoOwnersError


async def _rivals(stage: Stage, *, takeovers: int, apart_s: float) -> Worker:
    """A worker whose partitions another deployment, with a group of its own, takes so often for a moment."""
    ours = await stage.serving("ours")
    for _ in range(takeovers):
        stage.elsewhere.expel("theirs")
        rival = stage.worker("theirs", elsewhere=True)
        await rival.start()
        await rival.serving()
        await rival.kill()
        for partition in range(2):
            stage.log.append(b"k", b"no event", partition=partition)  # a commit, which finds the fence
        await asyncio.sleep(apart_s)
    return ours


@pytest.mark.parametrize(
    ("takeovers", "apart_s", "stops"),
    [(1, 20.0, False), (2, 20.0, True), (3, 90.0, False)],
    ids=["once may be a rebalance under way", "twice within a minute", "rarely"],
)
def test_worker_stops_when_another_deployment_takes_its_partitions(takeovers: int, apart_s: float, stops: bool) -> None:
    """Twice within a minute the barrier of somebody else stood before ours, and no rebalance explains it: exit 71."""

    async def story(stage: Stage) -> None:
        ours = await _rivals(stage, takeovers=takeovers, apart_s=apart_s)
        assert ours.failed.done() == stops
        if stops:
            error = ours.failed.result()
            assert isinstance(error, TwoOwnersError)
            assert error.exit_code == 71
            assert "worker theirs" in str(error)
        else:
            assert set(stage.roles(ours).values()) == {"serving"}
        await ours.kill()

    play(story)


def test_an_ordinary_rebalance_is_no_rivalry() -> None:
    """Partitions that go to another worker and come back were not taken from us."""

    async def story(stage: Stage) -> None:
        ours = await stage.serving("ours")
        for _ in range(3):
            other = await stage.serving("other")
            await asyncio.sleep(1.0)
            await other.stop()
            await asyncio.sleep(1.0)
        assert not ours.failed.done()
        await ours.stop()

    play(story)


@pytest.mark.parametrize("is_young", [True, False])
def test_worker_of_two_with_one_prefix_and_two_state_topics(is_young: bool) -> None:
    """Nobody else writes to its state topic, and yet it is fenced again and again: who came later ends with 71 and
    names the prefix, who was there before goes on.
    """

    async def story(stage: Stage) -> None:
        ours = await stage.serving("ours")
        await asyncio.sleep(1.0 if is_young else 3600.0)
        for _ in range(3):
            stage.log.fence(0)
            stage.log.append(b"k", b"no event", partition=0)
            await asyncio.sleep(5.0)
        assert ours.failed.done() == is_young
        if is_young:
            assert ours.failed.result().exit_code == 71
            assert "has the same transactional_id_prefix (cartsync)" in str(ours.failed.result())
        else:
            assert stage.roles(ours) == {0: "serving", 1: "serving"}
        await ours.stop()

    play(story)


def test_fenced_once_in_a_while_is_no_rivalry() -> None:
    """A transaction that outlived its timeout looks like a fence, too."""

    async def story(stage: Stage) -> None:
        ours = await stage.serving("ours")
        for _ in range(3):
            stage.log.fence(0)
            stage.log.append(b"k", b"no event", partition=0)
            await asyncio.sleep(65.0)
        assert not ours.failed.done()
        await ours.stop()

    play(story)
