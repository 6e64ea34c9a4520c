"""What is said of orders that wait, in virtual time: figures, log lines and `order show` agree with each other."""

import asyncio
import json
from typing import Any

import msgspec
import pytest

from schemas import state
from tests.simulation.stage import ACCOUNTS, Stage, play
from worker import logs
from worker.app import Ports, Worker
from worker.config import worker_settings_from
from worker.metrics import Metrics
from worker.model.account import Account
from worker.sim.loop import START_WALL_MS, VirtualClock
from worker.sim.scripted import Answer

LINE = {"reference": "a", "name": "A", "quantity": 1, "unit_price_minor": 100, "total_minor": 100}
CONFIRMED = ("order.confirmed", {"currency": "EUR", "lines": [LINE]})
SHIPPED = ("order.items_shipped", {"shipment_id": "s1", "lines": [{"line_id": "a", "quantity": 1}]})
TOO_MANY = ("order.items_shipped", {"shipment_id": "s1", "lines": [{"line_id": "a", "quantity": 9}]})
ON_HOLD = ("order.payment_state_changed", {"payment_state": "on_hold"})


def tell(stage: Stage, subject: str, *tellings: tuple[str, dict[str, Any]]) -> None:
    """These events of an order, in partition 0; their ids are `<reference>.<number>`."""
    for number, (kind, data) in enumerate(tellings, start=1):
        event = {
            "specversion": "1.0",
            "id": f"{subject.partition('/')[2]}.{number}",
            "source": "/shop",
            "type": kind,
            "time": f"2026-01-01T00:00:0{number}Z",
            "subject": subject,
            "data": data,
        }
        stage.log.append(b"k", msgspec.json.encode(event), partition=0)


def one_of_each(stage: Stage) -> None:
    """An order for each thing that it may wait for, and one that waits for nothing."""
    tell(stage, "acme/settled", CONFIRMED, SHIPPED)
    tell(stage, "acme/unconfirmed", SHIPPED)
    tell(stage, "acme/inconsistent", CONFIRMED, TOO_MANY)
    tell(stage, "acme/on-hold", CONFIRMED, ON_HOLD, SHIPPED)
    tell(stage, "nobody/owed", CONFIRMED, SHIPPED)
    tell(stage, "nobody/confirmed", CONFIRMED)
    tell(stage, "who/unconfirmed", SHIPPED)


def said(lines: list[str], name: str) -> list[dict[str, Any]]:
    """The lines of this event."""
    return [line for text in lines if (line := json.loads(text))["event"] == name]


def shown(worker: Worker, *names: str) -> list[float | None]:
    """These gauges of account acme."""
    worker.metrics_page()
    return [worker.metrics.value(f"cartsync_{name}", account="acme") for name in names]


def test_what_waits_is_counted_by_account() -> None:
    """Unconfirmed and inconsistent ones apart, overdue ones as such; what nobody is configured for has no age."""

    async def story(stage: Stage) -> None:
        worker = stage.worker("w1", {"inconsistent_after": "15m", "unconfirmed_after": "1h"})
        await worker.start()
        await worker.serving()
        one_of_each(stage)
        names = ("parked_orders", "unconfirmed_orders", "inconsistent_orders", "overdue_orders", "backlog_age_seconds")
        await asyncio.sleep(10.0)
        assert shown(worker, *names) == [0, 1, 1, 0, 0]
        await asyncio.sleep(20 * 60.0)
        assert shown(worker, *names) == [1, 1, 1, 1, 0]
        await asyncio.sleep(3_600.0)
        assert shown(worker, *names) == [1, 1, 1, 2, 0]
        status = worker.status()
        assert (status.unconfigured, status.unconfigured_waiting.owed) == (3, 1)
        assert (status.unconfigured_waiting.unconfirmed, status.unconfigured_waiting.oldest_owed_s) == (1, 0.0)
        assert [view.oldest_owed_s for view in status.partitions] == [0.0, 0.0]
        assert [view.owed for view in status.partitions] == [1, 0]
        await worker.stop()

    play(story)


def test_partition_serving_counts_what_the_status_counts() -> None:
    """What waits for an event is not owed: neither in the line nor in the status, from the first moment on."""

    async def story(stage: Stage) -> None:
        first = await stage.serving("w1")
        one_of_each(stage)
        stage.provider.answer_for("acme/owed", [Answer(503, times=None)])
        tell(stage, "acme/owed", CONFIRMED, SHIPPED)
        await asyncio.sleep(3_600.0)
        before = [view.owed for view in first.status().partitions]
        await first.stop()
        lines: list[str] = []
        with logs.capture(lines, "info"):
            second = await stage.serving("w2")
            at_once = [view.owed for view in second.status().partitions]
        serving = {line["partition"]: line["owed"] for line in said(lines, "partition_serving")}
        assert [serving[0], serving[1]] == at_once
        await asyncio.sleep(1.0)
        now = second.status()
        assert [view.owed for view in now.partitions] == before == [2, 0]
        assert now.unconfigured == 3
        named = {line["account"] for line in said(lines, "account_not_configured")}
        assert named == {"nobody", "who"}
        await second.stop()

    play(story)


def test_orders_of_nobody_say_so() -> None:
    """Each of them names its account, also when nothing of it is owed; each account is named once in the log."""

    async def story(stage: Stage) -> None:
        lines: list[str] = []
        with logs.capture(lines, "warning"):
            worker = await stage.serving("w1")
            one_of_each(stage)
            await asyncio.sleep(10.0)
        for subject, status in (
            ("nobody/owed", "owed"),
            ("nobody/confirmed", "settled"),
            ("who/unconfirmed", "unconfirmed"),
        ):
            view = worker.show(subject)
            assert view is not None
            assert view.status == status
            assert view.reason.startswith(f"account {subject.partition('/')[0]} is not configured")
        view = worker.show("acme/settled")
        assert view is not None
        assert view.reason == ""
        assert [line["account"] for line in said(lines, "account_not_configured")] == ["nobody", "who"]
        await worker.stop()

    play(story)


def test_inconsistent_for_too_long_says_what_helps() -> None:
    """It is shown as parked, and no operator is sent the wrong way."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        lines: list[str] = []
        with logs.capture(lines, "info"):
            tell(stage, "acme/1", CONFIRMED, TOO_MANY)
            await asyncio.sleep(3_600.0)
        view = worker.show("acme/1")
        assert view is not None
        assert view.status == "parked"
        assert "only an event can resolve it" in view.reason
        for name in ("order_waiting", "order_unresolved"):
            [line] = said(lines, name)
            assert (line["order"], line["event_id"], line["status"]) == ("acme/1", "1.2", "inconsistent")
            assert line["level"] == "warning"
        await worker.stop()

    play(story)


def test_event_is_found_again_in_the_line_of_its_request() -> None:
    """Whatever becomes of an attempt: revision, status and the newest event that was in it; over a restart, too."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        lines: list[str] = []
        with logs.capture(lines, "info"):
            stage.provider.answer_for("acme/1", [Answer(503, times=2)])
            tell(stage, "acme/1", CONFIRMED, SHIPPED)
            await asyncio.sleep(0.05)
            await worker.stop()
            worker = await stage.serving("w2")
            stage.provider.answer_for("acme/2", [Answer(422, times=None)])
            tell(stage, "acme/2", CONFIRMED, SHIPPED)
            stage.provider.answer_for("acme/3", [Answer(fault="timeout_lost")])
            tell(stage, "acme/3", CONFIRMED, SHIPPED)
            await asyncio.sleep(600.0)
        [settled] = [line for line in said(lines, "order_settled") if line["order"] == "acme/1" and "status" in line]
        assert (settled["event_id"], settled["revision"], settled["status"]) == ("1.2", 2, 204)
        assert {line["event_id"] for line in said(lines, "order_retry")} >= {"1.2"}
        [parked], [held] = said(lines, "order_parked"), said(lines, "order_held")
        assert (parked["event_id"], parked["status"], parked["outcome"]) == ("2.2", 422, "permanent")
        assert (held["event_id"], held["outcome"]) == ("3.2", "unknown")
        assert shown(worker, "parked_total") == [1.0]
        await worker.stop()

    play(story)


@pytest.mark.parametrize("sending", [True, False])
def test_shadow_mode_is_told(sending: bool) -> None:
    """In a line at the start, a gauge and the status; nothing is sent."""

    async def story(stage: Stage) -> None:
        lines: list[str] = []
        with logs.capture(lines, "info"):
            worker = stage.worker("w1", {"sending": sending})
            await worker.start()
            await worker.serving()
        tell(stage, "acme/1", CONFIRMED, SHIPPED)
        await asyncio.sleep(10.0)
        assert [line["level"] for line in said(lines, "sending_off")] == ["warning"] * (not sending)
        worker.metrics_page()
        assert worker.metrics.value("cartsync_shadow_mode") == float(not sending)
        assert worker.status().sending == sending
        assert len(stage.provider.exchanges) == sending
        await worker.stop()

    play(story)


# --- clocks ---


class ShiftedClock(VirtualClock):
    """A machine whose wall clock is wrong until somebody sets it right; what is waited for goes by another clock."""

    ahead_s = 0.0

    def wall_ms(self) -> int:
        """UTC milliseconds, as the machine believes."""
        return super().wall_ms() + int(self.ahead_s * 1000)


def shifted(stage: Stage, name: str, clock: VirtualClock) -> Worker:
    """A worker on a machine with this clock."""
    ports = Ports(clock, stage.log.events(name), stage.log.states(name), stage.provider)
    accounts: dict[str, Account] = dict(ACCOUNTS)
    deployment = state.Deployment(event_topic="orders.events", group="cartsync", prefix="cartsync")
    return Worker(worker_settings_from({}), accounts, ports, owner_id=name, metrics=Metrics(), deployment=deployment)


DELAYED = {
    "rejected": (Answer(503), 302.0),
    "unknown": (Answer(fault="timeout_lost"), 340.0),
    "asked": (Answer(503, {"Retry-After": "60"}), 70.0),
    "not_found": (Answer(404), 40.0),
    "conflict": (Answer(409), 302.0),
}
"""What is answered first, and after how many seconds the next attempt must have been made."""


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("kind", DELAYED)
@pytest.mark.parametrize("ahead_s", [58 * 60.0, 2 * 3_600.0, -2 * 3_600.0])
def test_wrong_clock_delays_nothing_by_hours(ahead_s: float, kind: str, restarts: bool) -> None:
    """A delay that was stored by it is not longer than one of its kind can be, on another worker or the same one."""
    answer, most_s = DELAYED[kind]

    async def story(stage: Stage) -> None:
        clock = ShiftedClock(asyncio.get_running_loop(), START_WALL_MS)
        clock.ahead_s = ahead_s
        worker = shifted(stage, "w1", clock)
        await worker.start()
        await worker.serving()
        stage.provider.answer_for("acme/1", [answer])
        tell(stage, "acme/1", CONFIRMED, SHIPPED)
        await asyncio.sleep(9.0)
        assert len(stage.provider.exchanges) >= 1
        if restarts:
            await worker.stop()
            worker = await stage.serving("w2")
        clock.ahead_s = 0.0
        tell(stage, "acme/2", CONFIRMED, SHIPPED)
        await asyncio.sleep(most_s)
        for subject in ("acme/1", "acme/2"):
            view = worker.show(subject)
            assert view is not None
            assert view.status == "settled"
        await worker.stop()

    play(story)


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("ahead_s", [58 * 60.0, 2 * 3_600.0])
def test_wrong_clock_postpones_no_announcement(ahead_s: float, restarts: bool) -> None:
    """What is inconsistent or unconfirmed since a moment that is still to come is overdue all the same."""

    async def story(stage: Stage) -> None:
        clock = ShiftedClock(asyncio.get_running_loop(), START_WALL_MS)
        clock.ahead_s = ahead_s
        worker = shifted(stage, "w1", clock)
        await worker.start()
        await worker.serving()
        tell(stage, "acme/unconfirmed", SHIPPED)
        tell(stage, "acme/inconsistent", CONFIRMED, TOO_MANY)
        await asyncio.sleep(9.0)
        if restarts:
            await worker.stop()
            worker = await stage.serving("w2")
        clock.ahead_s = 0.0
        await asyncio.sleep(14 * 60.0)
        assert shown(worker, "overdue_orders") == [0]
        await asyncio.sleep(120.0)
        assert shown(worker, "overdue_orders", "parked_orders") == [1, 1]
        view = worker.show("acme/inconsistent")
        assert view is not None
        assert view.status == "parked"
        await asyncio.sleep(3_600.0)
        assert shown(worker, "overdue_orders") == [2]
        await worker.stop()

    play(story)
