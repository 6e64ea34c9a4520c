"""Drills of what goes to providers: their outages, credentials, refusals, and the reports to them."""

import asyncio
from urllib.parse import urlsplit

from tests.drills.drill import drill
from tests.drills.scene import Scene
from tests.integration.harness import PASSWORD
from tests.integration.process import WorkerProcess, until
from tests.shops.by_hand import ACCOUNT, MERCHANTS, line
from tests.unit.core.samples import DETAILS
from worker.sandbox.faults import FaultPlan

_REPORTED = f"accounts.{ACCOUNT}"


@drill(
    "CartsyncBacklogOld",
    "120 orders at once for a provider that takes half a second each, `concurrency = 1`",
    mended="the section did not say that a new limit takes a restart",
)
async def backlog_old(scene: Scene) -> None:
    """The account's limit is too low for what is owed."""
    scene.configure(**{_REPORTED: scene.account(ACCOUNT, concurrency=1)})
    scene.sandbox.faults.plan = FaultPlan.parse("slow=1:500ms")
    worker = await scene.started()
    scene.broken()
    subjects = [await scene.shipped(f"{number}") for number in range(120)]
    await scene.fires()
    scene.named("oldest_owed_s")
    account = next(view for view in (await worker.status()).accounts if view.name == ACCOUNT)
    assert (account.waiting.oldest_owed_s or 0) > 10
    scene.named("cartsync_account_queued")
    assert await scene.value(f'cartsync_account_queued{{account="{ACCOUNT}"}}') > 50
    scene.named("concurrency")
    scene.configure(**{_REPORTED: scene.account(ACCOUNT, concurrency=32)})
    await scene.restarted(worker)
    await scene.resolves()
    await scene.agrees(*subjects)


@drill("CartsyncAccountPaused", "a wrong password, so seQura answers 401")
async def account_paused(scene: Scene) -> None:
    """The password is put right, and the account resumed by an event."""
    scene.set_password(ACCOUNT, "wrong")
    worker = await scene.started()
    scene.broken()
    subject = await scene.shipped("1")
    await scene.says("account_paused", worker, account=ACCOUNT, cause="credentials", status=401)
    await scene.fires()
    scene.set_password(ACCOUNT, PASSWORD)
    await scene.ran("account resume", ACCOUNT, "--why", "the password was wrong")
    await scene.resolves()
    await scene.agrees(subject)


@drill(
    "CartsyncProviderFailing",
    "the provider's port is closed; orders go on coming",
    mended="`cartsync doctor` instead of a list of what to look at",
)
async def provider_failing(scene: Scene) -> None:
    """Nothing is done on our side; the orders are told when the provider is back."""
    worker = await scene.started()
    await scene.sandbox.stop()
    scene.broken()
    subjects = [await scene.shipped(f"{number}") for number in range(5)]
    await scene.fires()
    scene.named("not_sent")
    assert await scene.value('sum(cartsync_delivery_attempts_total{class="not_sent"})') > 0
    await scene.ran("doctor", code=1, says="fail")
    await scene.sandbox.start(port=urlsplit(scene.base_url).port or 0)
    await scene.resolves()
    await scene.agrees(*subjects)
    assert worker.is_running()


@drill(
    "CartsyncOrdersParked",
    "seQura answers 422 to the update of one order",
    mended="the manual named `order release` without `cartsync`; what helps when it cannot be expressed was missing",
)
async def orders_parked(scene: Scene) -> None:
    """The order is found, shown, and released once the provider would take it."""
    worker = await scene.started()
    scene.broken()
    scene.script([f"{ACCOUNT}/1"], "422", times=1)
    subject = await scene.shipped("1")
    await scene.fires()
    await scene.says("order_parked", worker, order=subject)
    await scene.ran("orders list --status parked", says=subject)
    await scene.ran("order show", subject, says="422")
    await scene.ran("order release", subject, "--why", "the provider has mended it")
    await scene.agrees(subject)
    await scene.resolves()


@drill(
    "CartsyncOutcomesUnknown",
    "a third of the provider's answers take longer than `attempt_deadline`",
    factor=90,
)
async def outcomes_unknown(scene: Scene) -> None:
    """The limit of an attempt is raised above what the provider takes."""
    scene.sandbox.faults.plan = FaultPlan.parse("slow=0.34:1400ms")
    worker = await scene.started()
    scene.broken()
    shop = asyncio.create_task(_orders(scene))
    try:
        await scene.fires()
        scene.named("unknown")
        assert await scene.value('sum(cartsync_delivery_attempts_total{class="unknown"})') > 0
        scene.named("attempt_deadline")
        scene.configure(worker={"attempt_deadline": "2s", "lease": "6s"})
        await scene.restarted(worker)
        await scene.resolves()
    finally:
        shop.cancel()


async def _orders(scene: Scene) -> None:
    number = 0
    while True:
        number += 1
        await scene.shipped(f"stream/{number}")
        await asyncio.sleep(0.15)


async def _reported(scene: Scene) -> tuple[WorkerProcess, str]:
    """A worker of an account that is told by reports, and an order that waits for one."""
    scene.configure(**{_REPORTED: scene.account(ACCOUNT, delivery="report")})
    worker = await scene.started()
    order = scene.order(f"{ACCOUNT}/1")
    people = {name: DETAILS[name] for name in ("customer", "delivery_method")}
    await order.tell("confirmed", currency="EUR", lines=[line("mug", 1000)], **people)
    await order.ship("s1", mug=1)
    await worker.shown(order.subject, "owed")
    return worker, order.subject


async def _report(scene: Scene, worker: WorkerProcess) -> None:
    """The time of a report has come."""
    ran = await scene.command("account", "report", ACCOUNT, "--url", worker.url)
    assert ran.code == 0, ran


@drill(
    "CartsyncReportOverdue",
    "a report is due while the account is paused: wrong password",
    factor=600,
    mended="`account_paused` was not among what to look for; where a pause is ended",
)
async def report_overdue(scene: Scene) -> None:
    """The pause ends, and so does the report."""
    scene.set_password(ACCOUNT, "wrong")
    worker, subject = await _reported(scene)
    scene.broken()
    await _report(scene, worker)
    await scene.says("account_paused", worker, account=ACCOUNT)
    await scene.fires()
    scene.named("end the pause")
    scene.set_password(ACCOUNT, PASSWORD)
    await scene.ran("account resume", ACCOUNT, "--why", "the password was wrong")
    await scene.resolves()
    await worker.shown(subject, "settled", within_s=30)


@drill("CartsyncReportStuck", "a page of a report without an answer, refused with each of four reports that follow")
async def report_stuck(scene: Scene) -> None:
    """An operator has looked into the provider's back office, where the page is."""
    worker, subject = await _reported(scene)
    page = (MERCHANTS[ACCOUNT], "delivery report")
    scene.sandbox.faults.script(*page, "timeout_applied", *["409"] * 20)
    scene.broken()
    for _ in range(5):
        count = scene.sandbox.attempt_count
        await _report(scene, worker)
        await until(lambda count=count: scene.sandbox.attempt_count > count, 20, scene.tails)  # type: ignore[misc]
        await asyncio.sleep(2.5)
    await scene.fires()
    stuck = await scene.says("report_stuck", worker, account=ACCOUNT)
    page_taken = (ACCOUNT, "--page-taken", stuck["page"], "--url", worker.url)
    await scene.ran("account report", *page_taken, named="account report ACCOUNT --page-taken ID")
    await scene.resolves()
    await worker.shown(subject, "settled")


@drill("CartsyncShadowMode", "`sending = false`", factor=600)
async def shadow_mode(scene: Scene) -> None:
    """Sending is switched on again."""
    scene.broken()
    worker = await scene.started(CARTSYNC_WORKER__SENDING="false")
    subject = await scene.shipped("1")
    await scene.says("sending_off", worker)
    await scene.fires()
    assert scene.sandbox.attempt_count == 0
    scene.named("sending = true")
    await scene.restarted(worker)
    await scene.resolves()
    await scene.agrees(subject)


@drill(
    "CartsyncOrdersOverdue",
    "a shipment without an `order.confirmed`, `unconfirmed_after = 2s`",
)
async def orders_overdue(scene: Scene) -> None:
    """The shop writes what is missing."""
    scene.configure(worker={"unconfirmed_after": "2s"})
    worker = await scene.started()
    order = scene.order(f"{ACCOUNT}/1")
    scene.broken()
    await order.ship("s1", mug=1)
    await scene.says("order_unresolved", worker, order=order.subject)
    await scene.fires()
    scene.named("order.confirmed")
    await order.confirm(line("mug", 1000))
    await scene.resolves()
    await scene.agrees(order.subject)


@drill(
    "CartsyncAccountUnknown",
    "orders of an account that is not in the configuration",
    factor=90,
    mended="the section said SIGHUP, by which no new account comes: a restart",
)
async def account_unknown(scene: Scene) -> None:
    """The account is added."""
    scene.forget_account(ACCOUNT)
    worker = await scene.started()
    scene.broken()
    subject = await scene.shipped("1")
    await scene.says("account_not_configured", worker, account=ACCOUNT)
    await scene.fires()
    scene.named("[accounts.NAME]")
    scene.configure()
    await scene.restarted(worker)
    await scene.resolves()
    await scene.agrees(subject)
