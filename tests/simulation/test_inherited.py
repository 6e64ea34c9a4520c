"""What owners before the last one left in flight: nobody sends something newer before it must have landed."""

import asyncio

from tests.simulation.stage import LINE, Stage, order_event, play
from worker.core.policy import DeliveryPolicy
from worker.sim.scripted import Answer


async def _killed_with_an_attempt_in_flight(stage: Stage, *events: bytes) -> float:
    """A worker that had order 1 in flight, and took these events then; when it was killed."""
    stage.provider.answer_for("1", [Answer(fault="timeout_applied")])
    worker = await stage.serving("w1")
    stage.tell_shipped("1")
    await asyncio.sleep(1.0)
    assert len(stage.provider.exchanges) == 1
    for event in events:
        stage.log.append(b"k", event, partition=0)
    await asyncio.sleep(1.0)
    stage.log.crash("w1")
    await worker.kill()
    stage.log.expel("w1")
    return stage.clock.now()


def test_hold_outlives_an_owner_that_does_not_send() -> None:
    """One in shadow mode takes over, and leaves in order: it has sent nothing, but what was in flight still may be."""

    async def story(stage: Stage) -> None:
        killed_at = await _killed_with_an_attempt_in_flight(stage)
        shadow = await stage.serving("w2", settings={"sending": False})
        await asyncio.sleep(5.0)
        await shadow.stop()
        worker = await stage.serving("w3")
        await asyncio.sleep(600.0)
        assert stage.provider.exchanges[1].at >= killed_at + DeliveryPolicy().takeover_hold_s
        await worker.stop()

    play(story)


def test_order_that_becomes_small_enough_again_is_held() -> None:
    """It was in flight when its owner died, and its record is too large for the state topic at the next one. The
    one after that, which takes over from one that left in order, waits as well.
    """

    async def story(stage: Stage) -> None:
        large = {"currency": "EUR", "lines": [LINE | {"name": "N" * 1_000}]}
        killed_at = await _killed_with_an_attempt_in_flight(stage, order_event("1", "cart_updated", large))
        stage.log.settings.value_max_bytes = 9_000
        worker = await stage.serving("w2")
        assert "1 orders are not sent" in worker.status().partitions[0].detail
        later = order_event("1", "cart_updated", {"currency": "EUR", "lines": [LINE]})
        later = later.replace(b"2026-01-01", b"2026-01-02")
        stage.log.append(b"k", later.replace(b'"1 cart_updated"', b'"1 smaller"'), partition=0)
        await asyncio.sleep(5.0)
        await worker.stop()
        assert stage.left_in_order() == [True, True]
        worker = await stage.serving("w3")
        await asyncio.sleep(600.0)
        assert stage.provider.exchanges[1].at >= killed_at + DeliveryPolicy().takeover_hold_s
        await worker.stop()

    play(story)
