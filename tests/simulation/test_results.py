"""What other systems are told, story by story, in virtual time."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from schemas.facts import Facts
from schemas.state import OrderRecord, decode_order
from tests.logged import logged
from tests.simulation.stage import LINE, Stage, order_event, play
from worker.core.commands import COMMANDS
from worker.core.results import Reporting
from worker.core.trust import HEADER, Trust
from worker.sim.scripted import Answer

QUIET, OPEN = Reporting("/cartsync/g"), Reporting("/cartsync/g", with_reasons=True)
TRUST = Trust(("what the receiver of these stories signs with",))
CONFIRMED = {"currency": "EUR", "lines": [LINE]}


def write(stage: Stage, reference: str, kind: str, data: object, **attributes: str) -> None:
    """An event of an order of account acme."""
    body = msgspec.json.decode(order_event(reference, kind, data)) | attributes
    value = msgspec.json.encode(body)
    headers = [(HEADER, TRUST.sign(b"k", value))] if body["type"].startswith("provider.") else []
    stage.log.append(b"k", value, headers, partition=0)


def say(stage: Stage, reference: str, kind: str, data: object) -> None:
    """Something that the provider says."""
    write(stage, reference, kind, data, type=f"provider.{kind}")


def told(stage: Stage) -> list[dict[str, Any]]:
    """Everything, in its order; the key is always the order's."""
    found = [msgspec.json.decode(each.value) for each in stage.log.results]
    assert [each.key.decode() for each in stage.log.results] == [each["subject"] for each in found]
    return found


def statuses(stage: Stage) -> list[str]:
    """Of all results, in their order."""
    return [each["data"].get("status", each["type"]) for each in told(stage)]


def record_of(stage: Stage, reference: str) -> OrderRecord:
    """The order as it is committed."""
    found = {entry.key: entry.value for entry in stage.log.entries(0)}[f"o:acme/{reference}".encode()]
    assert found is not None
    return decode_order(found)


def test_order_that_is_told_at_once() -> None:
    """One word for what was confirmed and is held already, one for what was told; each with what is so then."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1", reporting=QUIET)
        write(stage, "1", "confirmed", CONFIRMED)
        await asyncio.sleep(1.0)
        assert statuses(stage) == ["settled"]
        stage.tell_shipped("1")
        await asyncio.sleep(20.0)
        first, second = told(stage)
        amounts = [(each["data"]["shipped_minor"], each["data"]["unshipped_minor"]) for each in (first, second)]
        assert amounts == [(0, 100), (100, 0)]
        assert second["data"]["acked"] == second["data"]["revision"] == 3
        assert [each["sequence"] for each in (first, second)] == ["1", "2"]
        assert len({first["id"], second["id"]}) == 2
        await worker.stop()

    play(story)


def test_outage_is_told_once() -> None:
    """However many attempts fail, and for whatever reasons, the order is owed; then it is settled."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1", reporting=OPEN)
        stage.provider.answer([Answer(503, times=2), Answer(fault="reset_lost", times=1), Answer(429, times=2)])
        stage.tell_shipped("1")
        await asyncio.sleep(600.0)
        assert statuses(stage) == ["owed", "settled"]
        owed, settled = told(stage)
        assert "503" in owed["data"]["reason"]
        assert (owed["data"]["acked"], settled["data"]["reason"]) == (0, "")
        await worker.stop()

    play(story)


def test_owed_is_told_when_it_lasts() -> None:
    """Five seconds after it was looked at first, though nobody could send it; not before."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1", reporting=QUIET)
        worker.suspend_sending(True)
        stage.tell_shipped("1")
        await asyncio.sleep(4.0)
        assert statuses(stage) == []
        write(stage, "1", "refunded", {"refund_id": "f", "amount_minor": 5})  # does not begin it anew
        await asyncio.sleep(1.5)
        assert statuses(stage) == ["owed"]
        write(stage, "1", "refunded", {"refund_id": "g", "amount_minor": 5})
        await asyncio.sleep(60.0)
        assert statuses(stage) == ["owed"]
        worker.suspend_sending(False)
        await asyncio.sleep(10.0)
        assert statuses(stage) == ["owed", "settled"]
        await worker.stop()

    play(story)


def test_parked_released_and_sent_anew() -> None:
    """What operators do is told with it."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1", reporting=OPEN)
        stage.provider.answer([Answer(422, body=b"no such thing", times=1)])
        stage.tell_shipped("1")
        await asyncio.sleep(1.0)
        assert statuses(stage) == ["parked"]
        assert told(stage)[0]["data"]["reason"].startswith("422")
        await worker.operate(COMMANDS["release"], "acme/1")
        await asyncio.sleep(1.0)
        await worker.operate(COMMANDS["resend"], "acme/1")
        await asyncio.sleep(1.0)
        assert statuses(stage) == ["parked", "owed", "settled", "owed", "settled"]
        assert len({each["id"] for each in told(stage)}) == 5
        await worker.stop()

    play(story)


def test_order_that_waits() -> None:
    """For its confirmation, for its payment, for what resolves a contradiction; which is parked after a while."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1", reporting=OPEN)
        write(stage, "1", "payment_state_changed", {"payment_state": "on_hold"})
        await asyncio.sleep(1.0)
        write(stage, "1", "confirmed", CONFIRMED)
        await asyncio.sleep(1.0)
        write(stage, "1", "items_shipped", {"shipment_id": "s", "lines": [{"line_id": "a", "quantity": 1}]})
        await asyncio.sleep(1.0)
        assert statuses(stage) == ["unconfirmed", "on_hold"]
        assert [each["data"]["shipped_minor"] for each in told(stage)] == [None, 0]
        write(stage, "1", "payment_state_changed", {"payment_state": "approved"}, time="2026-01-01T00:00:01Z", id="x")
        await asyncio.sleep(1.0)
        write(stage, "1", "items_shipped", {"shipment_id": "t", "lines": [{"line_id": "a", "quantity": 1}]}, id="t")
        await asyncio.sleep(1.0)
        assert statuses(stage)[2:] == ["settled", "inconsistent"]
        await asyncio.sleep(1000.0)
        assert statuses(stage)[4:] == ["parked"]
        assert "2 shipped of 1 ordered" in told(stage)[-1]["data"]["reason"]
        write(stage, "1", "retracted", {"shipment_id": "t"}, time="2026-01-01T00:00:02Z")
        await asyncio.sleep(1.0)
        assert statuses(stage)[5:] == ["settled"]
        await worker.stop()

    play(story)


def test_overdue_order_is_logged_once() -> None:
    """Though it is looked at again when that was told."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1", reporting=QUIET)
        stage.tell_shipped("1", units=2)
        with logged() as lines:
            await asyncio.sleep(2000.0)
        assert [line["status"] for line in lines if line["event"] == "order_unresolved"] == ["inconsistent"]
        assert statuses(stage) == ["inconsistent", "parked"]
        await worker.stop()

    play(story)


def test_change_that_was_made_at_the_provider() -> None:
    """Nobody looks at the order after such an event: what it says is told with it."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1", reporting=QUIET)
        write(stage, "1", "confirmed", CONFIRMED)
        await asyncio.sleep(1.0)
        write(stage, "1", "cancelled", {"by": "provider"})
        await asyncio.sleep(1.0)
        assert statuses(stage) == ["settled", "settled"]
        assert told(stage)[1]["data"]["unshipped_minor"] == 0
        await worker.stop()

    play(story)


def test_what_a_provider_says() -> None:
    """Each fact, and then how the order stands with it; of an order that was only paid for, or observed, the facts."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1", reporting=QUIET, trust=TRUST)
        write(stage, "1", "confirmed", CONFIRMED)
        await asyncio.sleep(1.0)
        say(stage, "1", "risk", {"level": "low"})
        say(stage, "1", "risk", {"level": "low"})
        write(stage, "1", "observed", {"completed_at": "2026-01-01T00:00:00Z", "currency": "EUR"})
        say(stage, "2", "disbursed", {"disbursement": "d", "amount_minor": 5, "issued_on": "2026-01-02"})
        write(stage, "3", "observed", {"completed_at": "2026-01-01T00:00:00Z", "currency": "EUR"})
        await asyncio.sleep(20.0)
        assert statuses(stage) == ["settled", "provider.risk", "settled", "provider.disbursed"]
        assert told(stage)[1]["data"] == {"level": "low"}
        assert told(stage)[2]["data"]["provider"]["risk"]["level"] == "low"
        stage.tell_shipped("1")
        await asyncio.sleep(20.0)
        assert statuses(stage)[4:] == ["settled"]
        assert "provider" in told(stage)[-1]["data"]
        await worker.stop()

    play(story)


def test_parked_order_of_which_its_provider_speaks() -> None:
    """It is not looked at, and told of all the same."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1", reporting=QUIET, trust=TRUST)
        stage.provider.answer([Answer(422, times=1)])
        stage.tell_shipped("1")
        await asyncio.sleep(1.0)
        say(stage, "1", "risk", {"level": "high"})
        await asyncio.sleep(1.0)
        assert statuses(stage) == ["parked", "provider.risk", "parked"]
        await worker.stop()

    play(story)


@pytest.mark.parametrize(
    ("reporting", "settings"), [(None, {}), (QUIET, {"sending": False})], ids=["no topic", "shadow mode"]
)
def test_nobody_is_told(reporting: Reporting | None, settings: dict[str, Any]) -> None:
    """And nothing is kept of what would have been."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1", settings=settings, reporting=reporting, trust=TRUST)
        stage.tell_shipped("1")
        say(stage, "1", "risk", {"level": "low"})
        await asyncio.sleep(20.0)
        assert statuses(stage) == []
        assert record_of(stage, "1").told is None
        assert record_of(stage, "1").facts != Facts()
        await worker.stop()

    play(story)


def test_next_owner_goes_on() -> None:
    """What was told last is restored with the order: nothing is told twice, and the count goes on."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1", reporting=QUIET)
        stage.tell_shipped("1")
        await asyncio.sleep(1.0)
        await worker.kill()
        stage.log.crash("w1")
        stage.log.expel("w1")
        heir = await stage.serving("w2", reporting=QUIET)
        await asyncio.sleep(100.0)
        write(stage, "1", "refunded", {"refund_id": "f", "amount_minor": 5})
        await asyncio.sleep(10.0)
        assert statuses(stage) == ["settled", "settled"]
        assert [each["sequence"] for each in told(stage)] == ["1", "2"]
        await heir.stop()

    play(story)


@pytest.mark.parametrize(("limit", "expected"), [(2_200, ["owed", "parked", "owed", "settled"]), (100, [])])
def test_result_that_kafka_refuses(limit: int, expected: Sequence[str]) -> None:
    """It loses its reason, visibly, once Kafka has refused it; one that is still too large is left out. Orders go on."""
    words = "😀".encode() * 500

    async def story(stage: Stage) -> None:
        stage.log.settings.result_max_bytes = 1_000_000 if expected else limit
        worker = await stage.serving("w1", reporting=OPEN)
        stage.log.limit_results(limit)
        stage.provider.answer([Answer(422, body=words, times=2 if expected else 1)])
        stage.tell_shipped("1")
        with logged() as lines:
            await asyncio.sleep(100.0)  # what was under way when the partition was lost is held, and sent again
            await worker.operate(COMMANDS["release"], "acme/1")
            await asyncio.sleep(60.0)
        assert statuses(stage) == expected
        names = [line["event"] for line in lines]
        assert ("partition_lost" in names) == bool(expected)
        assert ("result_dropped" in names) != bool(expected)
        assert record_of(stage, "1").revision == record_of(stage, "1").acked
        if expected:
            assert told(stage)[1]["data"]["reason"] == "…"
        await worker.stop()

    play(story)
