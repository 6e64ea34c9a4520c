"""Accounts that change while a worker runs: what holds at once, and what waits for a restart."""

import asyncio
from base64 import b64encode
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from tests.simulation.stage import ACCOUNTS, Stage, order_event, play
from worker.app import Worker
from worker.core.commands import COMMANDS
from worker.core.trust import HEADER, Trust
from worker.errors import UsageError
from worker.model.account import Account
from worker.model.exchange import Fault, HttpRequest, HttpResponse

ACME = ACCOUNTS["acme"]
NEW = replace(ACME, password="new")
AUTHORIZATION = f"Basic {b64encode(f'{NEW.username}:{NEW.password}'.encode()).decode()}"


async def _with_an_order(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> tuple[Worker, list[bool]]:
    """A worker that owes an order to a provider which wants the new password; the list has how each request fared."""
    fared: list[bool] = []

    async def send(request: HttpRequest, _deadline_s: float, _may_send: Callable[[], bool]) -> HttpResponse | Fault:
        fared.append(AUTHORIZATION in request.headers.values())
        return HttpResponse(204 if fared[-1] else 401, {}, b"")

    monkeypatch.setattr(stage.provider, "send", send)
    worker = await stage.serving("w1")
    stage.tell_shipped("1")
    await asyncio.sleep(5.0)
    assert fared == [False]
    assert worker.status().accounts[0].paused is not None
    return worker, fared


def test_new_credentials_end_the_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was refused with the old password is told with the new one, without a restart; the same again ends none."""

    async def story(stage: Stage) -> None:
        worker, fared = await _with_an_order(stage, monkeypatch)
        assert worker.reconfigure({"acme": ACME}) == ([], [])
        await asyncio.sleep(5.0)
        assert fared == [False]
        assert worker.reconfigure({"acme": NEW}) == (["acme"], [])
        await asyncio.sleep(5.0)
        assert fared == [False, True]
        assert worker.status().accounts[0].paused is None
        assert worker.is_idle()
        await worker.stop()

    play(story)


def test_secrets_of_records_hold_at_once() -> None:
    """What a provider says is believed under the new secrets, and no more under the old ones, from the next record on."""
    value = order_event("1", "confirmed", {}).replace(b"order.confirmed", b"provider.cancel_asked")
    old, new = Trust(["a secret of the receiver, the old one"]), Trust(["a secret of the receiver, the new one"])

    def tell(stage: Stage, trust: Trust, number: int) -> None:
        numbered = value.replace(b'"id":"', b'"id":"%d' % number)
        stage.log.append(b"k", numbered, [(HEADER, trust.sign(b"k", numbered))], partition=0)

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        tell(stage, new, 1)
        await asyncio.sleep(1.0)
        assert len(stage.log.dead_letters) == 1
        worker.believe(new)
        for number, trust in enumerate((old, new), start=2):
            tell(stage, trust, number)
        await asyncio.sleep(1.0)
        assert len(stage.log.dead_letters) == 2
        view = worker.show("acme/1")
        assert view is not None
        assert view.provider is not None
        await worker.stop()

    play(story)


def test_resume_reads_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who ends a pause by hand has the secrets read first; that an account is unknown is said all the same."""

    async def story(stage: Stage) -> None:
        worker, fared = await _with_an_order(stage, monkeypatch)

        async def reread() -> None:
            worker.reconfigure({"acme": NEW})

        worker.reread = reread
        await worker.operate(COMMANDS["resume"], "acme")
        with pytest.raises(UsageError, match="account nobody is not configured"):
            await worker.operate(COMMANDS["resume"], "nobody")
        await asyncio.sleep(5.0)
        assert fared == [False, True]
        await worker.stop()

    play(story)


def test_what_waits_is_rendered_anew() -> None:
    """An update that was made before its account changed is made again: it would never be told as it is to be."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        worker.suspend_sending(True)
        stage.tell_shipped("1")
        await asyncio.sleep(1.0)
        platform = dict.fromkeys(("name", "version", "uname", "db_name", "db_version"), "new")
        assert worker.reconfigure({"acme": replace(ACME, platform=platform)}) == (["acme"], [])
        worker.suspend_sending(False)
        await asyncio.sleep(1.0)
        [exchange] = stage.provider.exchanges
        assert exchange.body["order"]["platform"]["name"] == "new"
        await worker.stop()

    play(story)


@pytest.mark.parametrize("status", [401, 403])
def test_an_answer_to_the_old_password_pauses_nothing(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt was under way when the credentials changed: what it is answered says nothing of the new ones."""

    async def story(stage: Stage) -> None:
        began, answered = asyncio.Event(), asyncio.Event()
        told: list[bool] = []

        async def send(request: HttpRequest, _deadline_s: float, _may_send: Callable[[], bool]) -> HttpResponse | Fault:
            told.append(AUTHORIZATION in request.headers.values())
            if told[-1]:
                return HttpResponse(204, {}, b"")
            began.set()
            await answered.wait()
            return HttpResponse(status, {}, b"")

        monkeypatch.setattr(stage.provider, "send", send)
        worker = stage.worker("w1", {"forbidden_orders": 1})
        await worker.start()
        await worker.serving()
        stage.tell_shipped("1")
        await began.wait()
        worker.reconfigure({"acme": NEW})
        answered.set()
        await asyncio.sleep(1.0)
        assert worker.status().accounts[0].paused is None
        assert told == [False, True]
        assert worker.is_idle()
        await worker.stop()

    play(story)


@pytest.mark.parametrize(
    ("accounts", "later"),
    [
        ({}, ["[accounts.acme]"]),
        ({"acme": NEW, "other": ACME}, ["[accounts.other]"]),
        ({"acme": replace(NEW, base_url="https://elsewhere.example")}, ["[accounts.acme]"]),
        ({"acme": replace(NEW, merchant_id="other")}, ["[accounts.acme]"]),
        ({"acme": replace(NEW, concurrency=1)}, ["[accounts.acme]"]),
    ],
)
def test_what_waits_for_a_restart(accounts: dict[str, Account], later: list[str]) -> None:
    """Accounts that come, go, or are to be told elsewhere."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        assert worker.reconfigure(accounts) == (["acme"] if "other" in accounts else [], later)
        await worker.stop()

    play(story)


def test_an_account_that_goes_while_its_orders_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has offered stays offered: an account leaves with a restart, so that none is looked up in vain."""

    async def story(stage: Stage) -> None:
        worker, fared = await _with_an_order(stage, monkeypatch)
        assert worker.reconfigure({}) == ([], ["[accounts.acme]"])
        stage.tell_shipped("2")
        await asyncio.sleep(120.0)  # the pause is probed meanwhile
        assert len(fared) > 1
        assert not worker.failed.done()
        assert (worker.status().accounts[0].queued, stage.roles(worker)) == (2, {0: "serving", 1: "serving"})
        assert worker.reconfigure({"acme": NEW}) == (["acme"], [])
        await asyncio.sleep(60.0)
        assert worker.is_idle()
        await worker.stop()

    play(story)
