"""Topics that are not what they were: what is noticed, what is said, and what is none of it."""

import asyncio

import msgspec

from tests.simulation.stage import Stage, play
from worker.sim.scripted import Answer


def test_markers_of_a_quiet_partition_are_no_gap() -> None:
    """A shop's transactions leave markers behind its last event; once retention has removed all, nothing is missing."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        stage.log.append(b"k", b"no event", partition=0)
        stage.log.skip(0, 3)
        await asyncio.sleep(10.0)
        assert {view.partition: view.next_offset for view in worker.status().partitions} == {0: 4, 1: 0}
        assert stage.log.group_offset(0) == 4
        stage.log.truncate(0, 4)
        await worker.stop()
        heir = await stage.serving("w2")
        stage.log.append(b"k", b"no event", partition=0)
        await asyncio.sleep(3.0)
        assert stage.roles(heir) == {0: "serving", 1: "serving"}
        assert {view.partition: view.next_offset for view in heir.status().partitions} == {0: 5, 1: 0}
        await heir.stop()

    play(story)


def test_events_that_were_dropped_at_the_end_are_not_passed() -> None:
    """Markers behind an event that a leaving worker did not take do not make it pass the event."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        stage.provider.answer([Answer(fault="timeout_lost")])
        tell_shipped(stage, "1")
        await asyncio.sleep(1.0)  # the attempt is under way, and a stop waits for it
        taken = stage.log.end_offset(0)
        stage.log.append(b"k", b"no event", partition=0)
        stage.log.skip(0, 1)

        async def gate(op: str, _process: str, partition: int) -> None:
            if op == "write" and partition == 0:
                await asyncio.sleep(3.0)

        stage.log.gate = gate
        stage.log.append(b"k", b"no event", partition=0)
        await asyncio.sleep(1.0)  # the first is being committed
        stage.log.append(b"k", b"no event", partition=0)
        stage.log.skip(0, 1)
        await asyncio.sleep(1.5)
        await worker.stop()
        assert stage.next_offset(0) < stage.log.end_offset(0) - 1
        assert stage.next_offset(0) > taken
        heir = await stage.serving("w2")
        await asyncio.sleep(10.0)
        await heir.stop()
        assert stage.next_offset(0) == stage.log.end_offset(0)
        assert len(stage.log.dead_letters) == 3

    play(story)


def tell_shipped(stage: Stage, reference: str) -> None:
    """An order is confirmed, and all of it leaves."""
    line = {"line_id": "a", "reference": "a", "name": "A", "quantity": 1, "unit_price_minor": 100, "total_minor": 100}
    shipped = {"shipment_id": "s1", "lines": [{"line_id": "a", "quantity": 1}]}
    for kind, data in (("confirmed", {"currency": "EUR", "lines": [line]}), ("items_shipped", shipped)):
        event = {
            "specversion": "1.0",
            "id": f"{reference} {kind}",
            "source": "/shop",
            "type": f"order.{kind}",
            "time": "2026-01-01T00:00:00Z",
            "subject": f"acme/{reference}",
            "data": data,
        }
        stage.log.append(b"k", msgspec.json.encode(event), partition=0)
