"""What comes of jobs step by step: a page is written before it is sent, comes again as it was, and is told once."""

from asyncio import sleep
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from schemas.state import decode_job
from tests.shops.events import cart_updated, confirmed, goods, shipped
from tests.simulation.reporting import DEADLINE_S, PEOPLE, SETTLE_S, World, play
from worker.core.policy import DeliveryPolicy
from worker.errors import UsageError
from worker.providers.sequra import memory
from worker.providers.sequra.jobs import SequraReports

REPORT_KEY, REPORTS = b"j:acme:report", SequraReports()
BEGIN = datetime(2026, 6, 1, 12, tzinfo=UTC)
"""An afternoon in Madrid: the next report is due half a day later."""


def told(story: Callable[[World], Any], **members: Any) -> World:
    """The story, with one worker and an order of two articles that left."""

    async def whole(world: World) -> None:
        world.start(0)
        await sleep(5.0)
        world.tell("A1", 0, confirmed(goods("A", 2, 200), **PEOPLE))
        world.tell("A1", 1, shipped("s1", A=2))
        await sleep(5.0)
        await story(world)

    return play(1, BEGIN, whole, **members)


def pages(world: World) -> list[tuple[float, bytes]]:
    """When deliveries were sent, and in which bytes."""
    return [(at, request.body) for at, request in world.provider.requests if b'"orders":[{"merchant_' in request.body]


async def report(world: World, slot: int = 0) -> None:
    """Its jobs are due now."""
    assert await world.lives[slot].worker.report("acme") > 0


def status_of(world: World) -> Any:
    """What the worker shows of the report."""
    (account,) = world.lives[0].worker.status().accounts
    return next(job for job in account.jobs if job.job == "report")


def page_id(world: World) -> str:
    """Of the page that is kept, as operators name it."""
    records = [entry.value for number in range(3) for entry in world.log.entries(number) if entry.key == REPORT_KEY]
    (page,) = [page for value in records if value for page in REPORTS.read_kept(decode_job(value).remote).pages][-1:]
    return page.id


def check_told_once(world: World, deliveries: int = 1) -> None:
    """What left, and nothing of it twice."""
    assert world.failures == []
    there = world.provider.reports.order("A1")
    assert (len(there.deliveries), there.contradictions) == (deliveries, 0)
    record = world.records()["acme/A1"]
    assert record.acked == record.revision
    found = memory.read(record.remote)
    assert found is not None
    assert found.under_way is None
    assert found.is_reported


def test_report_by_command() -> None:
    """It need not wait for the night; the views show when it was, and when the next one is."""
    seen = []

    async def story(world: World) -> None:
        order = world.lives[0].worker.show("acme/A1")
        assert order is not None
        assert (order.status, order.reason) == ("owed", "waits for its report")
        assert world.lives[0].worker.status().accounts[0].waiting.oldest_owed_s == 0.0
        await report(world)
        await sleep(10.0)
        seen.append(status_of(world))

    world = told(story)
    check_told_once(world)
    (job,) = seen
    assert job.last.startswith("2026-06-01T12:00:1")
    assert (job.next, job.pages, job.overdue_s) == ("2026-06-02T01:30:00Z", 0, 0.0)


@pytest.mark.parametrize("fault", ["lost", "applied", "late"])
def test_same_page_after_an_unknown_outcome(fault: str) -> None:
    """Not before its request can have landed, and in the same bytes, whatever came of the order meanwhile."""

    async def story(world: World) -> None:
        world.provider.script.append(fault)
        await report(world)
        await sleep(2.0)
        world.tell("A1", 2, shipped("s2", A=1))  # contradicts, and changes nothing about the page
        await sleep(120.0)

    world = told(story)
    (first_at, first), (second_at, second) = pages(world)
    assert first == second
    assert second_at - first_at >= DEADLINE_S + SETTLE_S
    there = world.provider.reports.order("A1")
    assert (len(there.deliveries), there.contradictions) == (1, 0)


@pytest.mark.parametrize("after_s", [0.0, 0.1, 0.5])
def test_worker_that_dies_with_a_page_under_way(after_s: float) -> None:
    """Before it is sent, while it is, or before the answer is written: the next owner holds, and sends the same page."""

    async def story(world: World) -> None:
        world.provider.script.append("applied")
        await report(world)
        await sleep(after_s)
        await world.kill(0)
        killed_at.append(world.clock.now())
        world.start(1)
        await sleep(300.0)

    killed_at: list[float] = []
    world = told(story)
    check_told_once(world)
    sent = pages(world)
    assert len({body for _, body in sent}) == 1
    after = min(at for at, _ in sent if at > killed_at[0])
    assert after - killed_at[0] >= DeliveryPolicy(settle_s=SETTLE_S).takeover_hold_s


def test_worker_that_leaves_with_a_page_under_way() -> None:
    """Its answer is written before it goes, and nothing is sent again."""

    async def story(world: World) -> None:
        world.provider.script.append("slow")
        await report(world)
        await sleep(1.0)  # it is sent, and not answered
        await world.leave(0)
        world.start(1)
        await sleep(300.0)

    world = told(story)
    check_told_once(world)
    assert len(pages(world)) == 1


def test_worker_that_leaves_while_its_page_may_still_land() -> None:
    """The next one waits until it must have landed, as this one would have, and not as after a kill."""

    async def story(world: World) -> None:
        world.provider.script.append("lost")
        await report(world)
        await sleep(DEADLINE_S + 2.0)  # it was given up
        await world.leave(0)
        left_at.append(world.clock.now())
        world.start(1)
        await sleep(300.0)

    left_at: list[float] = []
    world = told(story)
    check_told_once(world)
    (first_at, first), (second_at, second) = pages(world)
    assert first == second
    assert second_at - first_at >= DEADLINE_S + SETTLE_S
    assert left_at[0] < first_at + DEADLINE_S + SETTLE_S
    assert second_at - left_at[0] < DeliveryPolicy(settle_s=SETTLE_S).takeover_hold_s


def test_page_of_a_worker_that_died_may_have_been_taken() -> None:
    """So a refusal of it is not believed: it comes again as it was with the next report, and is not taken apart."""

    async def story(world: World) -> None:
        world.provider.script += ["applied", "refused"]
        await report(world)
        await sleep(0.5)
        await world.kill(0)
        world.start(0)
        await sleep(200.0)
        assert (status_of(world).pages, status_of(world).in_doubt) == (1, 1)
        await report(world)
        await sleep(60.0)

    world = told(story)
    check_told_once(world)
    assert len({body for _, body in pages(world)}) == 1
    assert len(pages(world)) == 3


@pytest.mark.parametrize("middle", ["shadow", "not configured"])
def test_page_outlives_an_owner_without_its_job(middle: str) -> None:
    """One that does not send, or has no such account, leaves in order: still the page may have been taken before."""

    async def story(world: World) -> None:
        world.provider.script += ["applied", "refused"]
        await report(world)
        await sleep(0.5)
        await world.kill(0)
        killed_at.append(world.clock.now())
        if middle == "shadow":
            world.settings = {"sending": False}
        else:
            world.configured = {"other": replace(world.account, name="other")}
        world.start(1)
        await sleep(5.0)
        await world.leave(1)
        world.settings, world.configured = {}, None
        world.start(0)
        await sleep(200.0)
        assert (status_of(world).pages, status_of(world).in_doubt) == (1, 1)
        await report(world)
        await sleep(60.0)

    killed_at: list[float] = []
    world = told(story)
    check_told_once(world)
    sent = pages(world)
    assert len(sent) == 3
    assert len({body for _, body in sent}) == 1
    after = min(at for at, _ in sent if at > killed_at[0])
    assert after - killed_at[0] >= DeliveryPolicy(settle_s=SETTLE_S).takeover_hold_s


def test_page_that_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    """In doubt, then refused with four reports: it is announced, and an operator says that it was not taken."""
    shown = []

    async def story(world: World) -> None:
        world.provider.script += ["lost", "refused"]
        await report(world)
        await sleep(200.0)
        for _ in range(3):
            assert not await world.lives[0].worker.decide_page("acme", page_id(world), is_taken=False)
            world.provider.script.append("refused")
            await report(world)
            await sleep(200.0)
        shown.append(status_of(world))
        assert shown[0].stuck_pages == [page_id(world)]
        assert not await world.lives[0].worker.decide_page("acme", "another", is_taken=True)
        assert await world.lives[0].worker.decide_page("acme", page_id(world), is_taken=False)
        await report(world)
        await sleep(60.0)

    world = told(story)
    check_told_once(world)
    assert (shown[0].pages, shown[0].in_doubt, shown[0].stuck) == (1, 1, 1)
    (stuck,) = [line for line in world.logged if line["event"] == "report_stuck"]
    (name,) = shown[0].stuck_pages
    assert (stuck["page"], stuck["order"]) == (name, "acme/A1")
    assert stuck["do"].endswith(f"cartsync account report acme --page-taken {name} or --page-not-taken {name}")


def test_page_that_was_taken_by_word() -> None:
    """Its orders count as told, and are sent no more."""

    async def story(world: World) -> None:
        world.provider.script.append("applied")
        for number in range(4):
            await report(world)
            world.provider.script += ["refused"] if number else []
            await sleep(DEADLINE_S + 1.0 if not number else 200.0)
            if not number:
                world.provider.script.append("refused")
                await sleep(100.0)
        assert await world.lives[0].worker.decide_page("acme", page_id(world), is_taken=True)
        sent = len(pages(world))
        await report(world)
        await sleep(60.0)
        assert len(pages(world)) == sent

    check_told_once(told(story))


def test_refusal_of_us_is_slowed_down() -> None:
    """A 403 for the report alone pauses nothing; it is tried again, further and further apart."""

    async def story(world: World) -> None:
        world.provider.script += ["forbidden"] * 40
        await report(world)
        await sleep(60.0)
        assert len(pages(world)) < 20
        world.provider.script.clear()
        await sleep(400.0)

    check_told_once(told(story))


def test_report_that_finds_nobody() -> None:
    """A 404 ends it: its orders are in the next one."""

    async def story(world: World) -> None:
        world.tell("A10", 0, confirmed(goods("A", 2, 200), **PEOPLE))  # in the same partition
        world.tell("A10", 1, shipped("s1", A=2))
        await sleep(1.0)
        world.provider.script.append("not_found")
        await report(world)
        await sleep(60.0)
        assert len(pages(world)) == 1
        await report(world)
        await sleep(60.0)

    check_told_once(told(story, report_orders_max=1))


def test_order_that_is_refused_alone() -> None:
    """It is named as broken, keeps the reason, and is tried again with the next report."""

    async def story(world: World) -> None:
        world.provider.script.append("refused")
        await report(world)
        await sleep(60.0)
        order = world.lives[0].worker.show("acme/A1")
        assert order is not None
        assert order.reason.startswith("its report was rejected: 409")
        assert world.provider.reports.order("A1").broken == 1
        await report(world)
        await sleep(60.0)

    check_told_once(told(story))


def test_account_that_is_reported_by_update_from_now_on() -> None:
    """What waited for its report is sent at once."""

    async def story(world: World) -> None:
        worker = world.lives[0].worker
        worker.reconfigure({"acme": replace(world.account, delivery="update")})
        await sleep(10.0)

    world = told(story)
    assert world.failures == []
    assert list(world.provider.updates) == ["A1"]
    assert pages(world) == []


def test_mode_that_changes_with_a_page_under_way() -> None:
    """The page is finished whatever the mode is now; only then the order is told by update."""

    async def story(world: World) -> None:
        world.provider.script.append("lost")
        await report(world)
        await sleep(2.0)
        world.tell("A1", 2, cart_updated(goods("A", 2, 210)))
        world.lives[0].worker.reconfigure({"acme": replace(world.account, delivery="update")})
        await sleep(20.0)
        assert world.provider.updates == {}
        await sleep(700.0)

    world = told(story)
    assert world.failures == []
    assert world.provider.wrong == []
    assert len(world.provider.reports.order("A1").deliveries) == 1
    assert list(world.provider.updates) == ["A1"]


def test_report_that_was_missed_waits_for_the_input() -> None:
    """After an outage over its time, what was written meanwhile is read first: it left before the report, so it is in it,
    and so are its statistics.
    """
    orders = [f"B{number}" for number in range(60)]

    async def story(world: World) -> None:
        await world.leave(0)  # in order, so that nothing has to be held afterwards
        for name in orders:
            world.tell(name, 0, confirmed(goods("A", 1, 100), **PEOPLE))
            world.tell(name, 1, shipped("s1", A=1))
        await sleep(14 * 3600.0)
        world.settings = {"max_batch_records": 2}
        world.start(0)
        await sleep(600.0)

    world = told(story, statistics=True)
    assert world.failures == []
    reported = [names for _, names, _ in world.provider.taken]
    assert {name for names in reported for name in names} == {"A1", *orders}
    counted = [
        each["merchant_reference"]["order_ref_1"]
        for _, request in world.provider.requests
        for each in msgspec.json.decode(request.body)["delivery_report"].get("statistics", {}).get("orders", [])
    ]
    assert sorted(counted) == ["A1", *sorted(orders)]


@pytest.mark.parametrize("kills", [1, 2])
def test_another_target_knows_of_no_report(kills: int) -> None:
    """With `send` all is reported to the other one; a page for the former is gone, and stays so."""

    async def story(world: World) -> None:
        world.provider.script.append("lost")
        await report(world)
        await sleep(2.0)
        world.account = replace(world.account, base_url="https://other.example")
        world.accepted = {"acme": "send"}
        for _ in range(kills):
            await world.kill(0)
            world.start(0)
            await sleep(20.0)
            assert status_of(world).pages == 0
        await sleep(120.0)
        await report(world)
        await sleep(120.0)

    world = told(story)
    check_told_once(world)
    assert [request.url.split("/")[2] for _, request in world.provider.requests if b"A1" in request.body] == [
        "x.example",
        "other.example",
    ]


def test_account_without_jobs() -> None:
    """There is nothing to be due."""

    async def story(world: World) -> None:
        with pytest.raises(UsageError, match="has no job"):
            await world.lives[0].worker.report("acme")
        assert world.lives[0].worker.status().accounts[0].jobs == []

    world = told(story, delivery="update")
    assert world.failures == []


# --- disbursements -----------------------------------------------------------------------------------------------------


def paid(world: World, name: str = "A1") -> int | None:
    """What an order was paid, as the state has it."""
    facts = world.records()[f"acme/{name}"].facts.provider
    return None if facts is None else facts.paid_minor


LINES = [{"order_ref_1": "A1", "amount_with_tax": 150}, {"order_ref_1": "A1", "amount_with_tax": -30}]


def test_disbursement_becomes_events_once() -> None:
    """Each is fetched once, and its lines are events of the order."""

    async def story(world: World) -> None:
        world.provider.paid["/merchants/m1/disbursements/1"] = LINES
        await sleep(60.0)
        world.provider.paid["/merchants/m1/disbursements/2"] = [{"order_ref_1": "A1", "amount_with_tax": 80}]
        await sleep(60.0)

    world = told(story, delivery="update", disbursements=True, disbursements_every_s=20.0)
    assert world.failures == []
    fetched = [request.url for _, request in world.provider.requests if "/disbursements/" in request.url]
    assert fetched == [f"https://x.example/merchants/m1/disbursements/{number}" for number in (1, 2)]
    assert paid(world) == 200


def test_brokers_that_do_not_take_events() -> None:
    """It counts as read once they have them, not before; a repeat changes nothing."""

    async def story(world: World) -> None:
        world.producer.is_failing = True
        world.provider.paid["/merchants/m1/disbursements/1"] = LINES
        await sleep(60.0)
        assert paid(world) is None
        world.producer.is_failing = False
        await sleep(400.0)

    world = told(story, delivery="update", disbursements=True, disbursements_every_s=20.0)
    assert world.failures == []
    assert paid(world) == 120


def test_provider_is_spared_while_brokers_take_no_events() -> None:
    """What it lists is asked for again less and less often, however often it answers."""

    async def story(world: World) -> None:
        world.provider.paid["/merchants/m1/disbursements/1"] = LINES
        world.producer.is_failing = True
        await sleep(1800.0)

    world = told(story, delivery="update", disbursements=True, disbursements_every_s=20.0)
    assert world.failures == []
    assert 4 < sum("/disbursements/" in request.url for _, request in world.provider.requests) < 25


def test_worker_that_dies_while_it_writes_events() -> None:
    """The next one reads the disbursement again, and writes the same events."""

    async def story(world: World) -> None:
        world.producer.is_hanging = True
        world.provider.paid["/merchants/m1/disbursements/1"] = LINES
        await sleep(60.0)
        assert world.producer.hanging
        await world.kill(0)
        world.producer.recover()
        world.start(1)
        await sleep(300.0)

    world = told(story, delivery="update", disbursements=True, disbursements_every_s=20.0)
    assert world.failures == []
    assert paid(world) == 120


def test_list_that_breaks_off() -> None:
    """Nothing of it counts, and it is read again."""

    async def story(world: World) -> None:
        world.provider.paid["/merchants/m1/disbursements/1"] = LINES
        world.provider.script += ["error", "lost", "busy"]
        await sleep(400.0)

    world = told(story, delivery="update", disbursements=True, disbursements_every_s=20.0)
    assert world.failures == []
    assert paid(world) == 120


def test_record_of_a_job() -> None:
    """A new account's first report is its next one; what was seen first is noted."""

    async def story(world: World) -> None:
        return

    world = told(story)
    entries = {entry.key: entry.value for number in range(3) for entry in world.log.entries(number)}
    value = entries[b"j:acme:report"]
    assert value is not None
    assert decode_job(value).done_ms // 60_000 == int(BEGIN.timestamp()) // 60
    assert world.provider.requests == []
    assert msgspec.msgpack.decode(value)[2] == b""
