"""What operators ask of a running worker: probes, status, metrics, and the commands that use its private port."""

import asyncio
import re

import msgspec

from schemas.views import OrderView, StatusView
from tests.integration.conftest import OpenStage
from tests.integration.harness import Stage
from tests.integration.process import Ran, WorkerProcess, until
from tests.shops.by_hand import ACCOUNT, MERCHANTS, OTHER_ACCOUNT, key_of, line
from worker import __version__


async def asked(stage: Stage, worker: WorkerProcess, *words: str) -> Ran:
    """A command of an operator of this worker."""
    return await stage.command(*words, CARTSYNC_HTTP__PORT=worker.url.rpartition(":")[2])


def metric(page: str, sample: str) -> float:
    """The value of a sample of the metrics page."""
    found = re.search(rf"^{re.escape(sample)} (\S+)$", page, re.MULTILINE)
    assert found, f"no {sample} in\n{page}"
    return float(found[1])


async def test_the_private_port_tells_how_it_stands(open_stage: OpenStage) -> None:
    """Probes, status and metrics of a worker that has told one order and refused one event."""
    stage = await open_stage(partitions=2)
    worker = await stage.started()
    order = stage.order(f"{ACCOUNT}/A14/1")
    await order.confirm(line("mug", 1000))
    await stage.write(order.subject.encode(), b"not json")
    await order.ship("s1", mug=1)
    await stage.agreed({order.subject: (1000, 0)})
    await worker.shown(order.subject, "settled")
    for probe in ("livez", "readyz", "startupz"):
        assert (await worker.get(f"/{probe}"))[0] == 200
    _, body = await worker.get("/status")
    status = msgspec.json.decode(body, type=StatusView)
    assert (status.version, status.ready) == (__version__, True)
    assert sum(view.next_offset for view in status.partitions) == 3
    assert sum(view.orders for view in status.partitions) == 1
    assert {(view.name, view.provider, view.guarantee, view.paused) for view in status.accounts} == {
        (account, "sequra", "D", None) for account in MERCHANTS
    }
    page = (await worker.get("/metrics"))[1].decode()
    assert metric(page, 'cartsync_events_total{result="changed"}') == 2
    assert metric(page, 'cartsync_dlq_total{reason="not_json"}') == 1
    assert metric(page, f'cartsync_delivery_attempts_total{{account="{ACCOUNT}",class="applied"}}') == 1
    assert metric(page, "cartsync_ready") == 1


async def test_a_parked_order_is_shown_released_and_sent_again(open_stage: OpenStage) -> None:
    """`order show|release|resend` with their exit codes; each returns when it is committed."""
    stage = await open_stage(partitions=2)
    worker = await stage.started()
    order = stage.order(f"{ACCOUNT}/A14/12345")
    stage.script([order.subject], "422", times=1)
    await order.confirm(line("mug", 1000))
    await order.ship("s1", mug=1)
    await worker.shown(order.subject, "parked")

    for reference in (order.subject, "A14/12345"):
        shown = await asked(stage, worker, "order", "show", reference, "--json")
        assert (shown.code, shown.err) == (0, "")
        view = msgspec.json.decode(shown.out, type=OrderView)
        assert (view.subject, view.status, view.shipped_minor) == (order.subject, "parked", 1000)
        assert "422" in view.reason
    assert "422" in (await asked(stage, worker, "order", "show", order.subject)).out
    assert (await asked(stage, worker, "order", "release", order.subject)).code == 0
    await stage.agreed({order.subject: (1000, 0)}, within_s=5)
    settled = await worker.shown(order.subject, "settled")

    resent = await asked(stage, worker, "order", "resend", order.subject, "--json")
    assert resent.code == 0
    assert msgspec.json.decode(resent.out)["done"] is True
    await until(lambda: len(stage.attempts(order.subject)) == 3, 5, stage.tails)
    assert {key_of(attempt) for attempt in stage.attempts(order.subject)} == {(order.subject, settled.revision)}
    await worker.shown(order.subject, "settled")


async def test_commands_say_why_they_cannot(open_stage: OpenStage) -> None:
    """An unknown order or account is 2, a worker that does not answer 75."""
    stage = await open_stage()
    worker = await stage.started()
    for words, said in (
        (("order", "show", f"{ACCOUNT}/nowhere"), "nowhere"),
        (("order", "release", f"{ACCOUNT}/nowhere"), "nowhere"),
        (("account", "resume", "nobody"), "nobody"),
    ):
        ran = await asked(stage, worker, *words)
        assert (ran.code, ran.out) == (2, "")
        assert said in ran.err
    worker.terminate()
    assert await worker.ended() == 0
    ran = await asked(stage, worker, "order", "release", f"{ACCOUNT}/nowhere")
    assert ran.code == 75
    assert worker.url in ran.err


async def test_an_order_is_shown_from_the_state_topic(open_stage: OpenStage) -> None:
    """When another worker serves the order, and when no worker runs at all: what is committed, and where it was read."""
    stage = await open_stage(partitions=2)
    first = await stage.started()
    told, owed = stage.order(f"{ACCOUNT}/told/1"), stage.order(f"{ACCOUNT}/owed/2")
    for order in (told, owed):
        await order.confirm(line("mug", 1000))
    await told.ship("s1", mug=1)
    await stage.agreed({told.subject: (1000, 0)})
    stage.script([owed.subject], "503:60s")
    await owed.ship("s1", mug=1)
    await until(lambda: bool(stage.attempts(owed.subject)), 10, stage.tails)
    second = stage.start()
    await second.serving(1)
    await first.serving(1)
    for worker in (first, second):
        shown = await asked(stage, worker, "order", "show", "told/1", "--json")
        assert shown.code == 0
        assert msgspec.json.decode(shown.out, type=OrderView).shipped_minor == 1000
    first.terminate()
    second.terminate()
    assert (await first.ended(), await second.ended()) == (0, 0)

    shown = await asked(stage, first, "order", "show", told.subject, "--json")
    assert (shown.code, "no worker responds" in shown.err, "the state topic" in shown.err) == (0, True, True)
    assert msgspec.json.decode(shown.out, type=OrderView).status == "settled"
    shown = await asked(stage, first, "order", "show", owed.subject, "--json")
    view = msgspec.json.decode(shown.out, type=OrderView)
    assert (view.status, view.shipped_minor, view.partition in (0, 1)) == ("owed", 1000, True)
    assert "503" in view.reason
    nowhere = await asked(stage, first, "order", "show", f"{ACCOUNT}/nowhere")
    assert (nowhere.code, nowhere.out) == (2, "")
    assert "no order" in nowhere.err
    assert '"event"' not in shown.err + nowhere.err, "a person reads it"


async def test_refused_credentials_pause_one_account(open_stage: OpenStage) -> None:
    """A 401 stops this account without further probing; the other goes on, and `account resume` ends the pause."""
    stage = await open_stage()
    worker = await stage.started()
    stage.sandbox.faults.denied = {MERCHANTS[ACCOUNT]}
    paused = [stage.order(f"{ACCOUNT}/{number}") for number in range(3)]
    other = stage.order(f"{OTHER_ACCOUNT}/1")
    for order in (paused[0], other):
        await order.confirm(line("mug", 1000))
        await order.ship("s1", mug=1)
    await stage.agreed({other.subject: (1000, 0)})
    await until(lambda: stage.attempts(paused[0].subject)[-1].ended_at is not None, 5, stage.tails)
    for order in paused[1:]:
        await order.confirm(line("mug", 1000))
        await order.ship("s1", mug=1)
    await other.take_back("r1", mug=1)
    await stage.agreed({other.subject: (0, 0)})
    await asyncio.sleep(1.5)
    assert [len(stage.attempts(order.subject)) for order in paused] == [1, 0, 0]
    accounts = {view.name: view for view in (await worker.status()).accounts}
    assert "401" in (accounts[ACCOUNT].paused or "")
    assert accounts[OTHER_ACCOUNT].paused is None
    view = await worker.shown(paused[2].subject, "owed")
    assert "paused" in view.reason
    assert (await worker.get("/readyz"))[0] == 200

    stage.sandbox.faults.denied.clear()
    assert (await asked(stage, worker, "account", "resume", ACCOUNT)).code == 0
    await stage.agreed({order.subject: (1000, 0) for order in paused}, within_s=5)
