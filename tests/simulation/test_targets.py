"""An account that tells another provider than before: nothing starts without a word, and both words do what they say."""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from msgspec.structs import replace

from schemas import state
from tests.simulation.stage import ACCOUNTS, Stage, play
from worker import logs
from worker.app import Worker
from worker.core.targets import TargetChange, TargetChoice
from worker.errors import LogError, TopicError
from worker.model.account import Account
from worker.orders import takeover

SANDBOX = ACCOUNTS["acme"]
LIVE = replace(SANDBOX, base_url="https://live.example")
OTHER = replace(SANDBOX, name="other", merchant_id="other")
BEFORE: Mapping[str, Account] = {"acme": SANDBOX, "other": OTHER}
AFTER: Mapping[str, Account] = {"acme": LIVE, "other": OTHER}
ORDERS = 7
"""Of each account: four in partition 0, three in partition 1."""


def _write(stage: Stage, account: str, number: int) -> None:
    line = {"reference": "hat", "name": "Hat", "quantity": 2, "unit_price_minor": 100, "total_minor": 200}
    tellings: list[tuple[str, dict[str, Any]]] = [
        ("order.confirmed", {"currency": "EUR", "lines": [line]}),
        ("order.items_shipped", {"shipment_id": "s1", "lines": [{"line_id": "hat", "quantity": 1}]}),
    ]
    for kind, data in tellings:
        event: dict[str, Any] = {
            "specversion": "1.0",
            "id": kind,
            "source": f"/{number}",
            "type": kind,
            "time": "2026-01-01T00:00:01Z",
        }
        event |= {"subject": f"{account}/{account}{number}", "data": data}
        stage.log.append(b"k", json.dumps(event).encode(), partition=number % 2)


async def _serving(
    stage: Stage, name: str, accounts: Mapping[str, Account], choices: Mapping[str, TargetChoice] = {}, **settings: Any
) -> Worker:
    worker = stage.worker(name, settings, accounts=accounts, accepted_targets=choices)
    await worker.start()
    await worker.serving()
    return worker


async def _sandboxed(stage: Stage) -> None:
    """Orders of two accounts are told to the sandbox, and the worker leaves."""
    worker = await _serving(stage, "first", BEFORE)
    for number in range(ORDERS):
        _write(stage, "acme", number)
        _write(stage, "other", number)
    await asyncio.sleep(60.0)
    assert len(stage.provider.exchanges) == 2 * ORDERS
    await worker.stop()
    stage.provider.exchanges.clear()


async def _refused(stage: Stage, name: str, choices: Mapping[str, TargetChoice] = {}) -> TargetChange:
    """Why a worker with the live address does not start."""
    worker = stage.worker(name, accounts=AFTER, accepted_targets=choices)
    await worker.start()
    with pytest.raises(TargetChange) as raised:
        await worker.serving()
    await worker.stop()
    return raised.value


def _told(stage: Stage) -> list[str]:
    """The addresses that were told something since the last question."""
    found = sorted(exchange.url for exchange in stage.provider.exchanges)
    stage.provider.exchanges.clear()
    return found


def _live(base_url: str = LIVE.base_url) -> list[str]:
    return [f"{base_url}/merchants/acme/orders/acme{number}" for number in range(ORDERS)]


def _targets(stage: Stage) -> list[str]:
    """By partition, whom account acme tells."""
    found = [{entry.key: entry.value for entry in stage.log.entries(number)} for number in range(2)]
    values = [each[state.TARGETS_KEY] for each in found]
    return [state.decode_targets(value).targets["acme"].base_url for value in values if value is not None]


def test_no_start_without_a_word() -> None:
    """It ends with 64 and says what has changed; the old configuration goes on as if nothing had been."""

    async def story(stage: Stage) -> None:
        await _sandboxed(stage)
        error = await _refused(stage, "second")
        assert error.exit_code == 64
        assert "orders of partition" in str(error)
        await _refused(stage, "third", {"other": "send"})
        worker = await _serving(stage, "fourth", BEFORE)
        await asyncio.sleep(300.0)
        assert _told(stage) == []
        assert _targets(stage) == [SANDBOX.base_url] * 2
        await worker.stop()

    play(story)


def test_send_tells_everything_anew() -> None:
    """All orders of that account are told to the new address, none of another account, and only once."""

    async def story(stage: Stage) -> None:
        await _sandboxed(stage)
        lines: list[str] = []
        with logs.capture(lines, "warning"):
            worker = await _serving(stage, "second", AFTER, {"acme": "send"})
        said = [json.loads(line) for line in lines]
        assert [(each["event"], each["choice"], each["orders"]) for each in said] == [
            ("account_target_changed", "send", 4),
            ("account_target_changed", "send", 3),
        ]
        await asyncio.sleep(300.0)
        assert _told(stage) == _live()
        assert _targets(stage) == [LIVE.base_url] * 2
        await worker.stop()
        again = await _serving(stage, "third", AFTER, {"acme": "send"})
        await asyncio.sleep(300.0)
        assert _told(stage) == []
        await again.stop()

    play(story)


def test_keep_takes_it_for_told() -> None:
    """Nothing is told anew; what changes from now on goes to the new address, which is remembered."""

    async def story(stage: Stage) -> None:
        await _sandboxed(stage)
        worker = await _serving(stage, "second", AFTER, {"acme": "keep"})
        await asyncio.sleep(300.0)
        assert _told(stage) == []
        await worker.stop()
        again = await _serving(stage, "third", AFTER)
        _write(stage, "acme", ORDERS)
        await asyncio.sleep(300.0)
        assert _told(stage) == [f"{LIVE.base_url}/merchants/acme/orders/acme{ORDERS}"]
        assert _targets(stage) == [LIVE.base_url] * 2
        await again.stop()

    play(story)


@pytest.mark.parametrize("survived", [2, 3, 4, 5, 6])
def test_crash_in_the_middle(monkeypatch: pytest.MonkeyPatch, survived: int) -> None:
    """Orders are made owed in several transactions; after a crash between any two of them the word is asked for again,
    and then nothing is missing.
    """
    monkeypatch.setattr(takeover, "AT_ONCE_MAX", 2)

    async def story(stage: Stage) -> None:
        await _sandboxed(stage)
        writes = 0

        async def gate(op: str, process: str, _partition: int) -> None:
            nonlocal writes
            if op == "write" and process == "second":
                writes += 1
                if writes > survived:
                    raise LogError("the process is dying")

        stage.log.gate = gate
        dying = stage.worker("second", accounts=AFTER, accepted_targets={"acme": "send"})
        await dying.start()
        await asyncio.sleep(0.0)
        await asyncio.sleep(0.2)
        stage.log.crash("second")
        await dying.kill()
        stage.log.expel("second")
        stage.log.gate = None
        await _refused(stage, "third")
        worker = await _serving(stage, "fourth", AFTER, {"acme": "send"})
        await asyncio.sleep(600.0)
        assert sorted(set(_told(stage))) == _live()
        assert _targets(stage) == [LIVE.base_url] * 2
        await worker.stop()

    play(story)


def test_slices_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """However large the records are, a transaction takes few of them."""
    monkeypatch.setattr(takeover, "AT_ONCE_MAX_BYTES", 1)

    async def story(stage: Stage) -> None:
        await _sandboxed(stage)
        counts: list[int] = []
        stage.log.watch(lambda _number, entries, *_: counts.append(len(entries)))
        worker = await _serving(stage, "second", AFTER, {"acme": "send"})
        assert max(counts) == 2
        await asyncio.sleep(300.0)
        assert _told(stage) == _live()
        await worker.stop()

    play(story)


def test_order_that_cannot_be_told_anew() -> None:
    """The state topic does not take one of them any more: the worker says so and ends, instead of trying for ever."""

    async def story(stage: Stage) -> None:
        await _sandboxed(stage)
        stage.log.settings.value_max_bytes = 8_000
        worker = stage.worker("second", accounts=AFTER, accepted_targets={"acme": "send"})
        await worker.start()
        with pytest.raises(TopicError, match=r"partition 0: all orders of account acme .* 4 of them .* max\.message"):
            await asyncio.wait_for(worker.serving(), 600.0)
        await worker.stop()
        assert _targets(stage) == [SANDBOX.base_url] * 2

    play(story)


def test_nobody_was_told() -> None:
    """Without orders of the account, and in shadow mode, there is nothing to ask: nobody has told anybody anything."""

    async def story(stage: Stage) -> None:
        empty = await _serving(stage, "empty", BEFORE)
        await empty.stop()
        fresh = await _serving(stage, "fresh", AFTER)
        assert _targets(stage) == [LIVE.base_url] * 2
        await fresh.stop()
        back = await _serving(stage, "back", BEFORE)
        await back.stop()
        await _sandboxed(stage)
        shadow = await _serving(stage, "shadow", AFTER, sending=False)
        assert _targets(stage) == [SANDBOX.base_url] * 2
        await shadow.stop()

    play(story)


def test_partition_that_comes_back() -> None:
    """A worker that gives partitions away and gets them back remembers whom it told, without reading it again."""

    async def story(stage: Stage) -> None:
        await _sandboxed(stage)
        first = await _serving(stage, "second", AFTER, {"acme": "keep"})
        other = await _serving(stage, "third", AFTER)
        await other.stop()
        await asyncio.sleep(60.0)
        await first.serving()
        assert set(stage.roles(first).values()) == {"serving"}
        assert _targets(stage) == [LIVE.base_url] * 2
        await first.stop()

    play(story)


@pytest.mark.parametrize("lost", [1, 2, 3, 4])
def test_commit_that_fails_in_a_takeover(lost: int) -> None:
    """Whichever commit it is, the same process takes the partition over once more, and then it is written down whom the
    account tells: who goes back to the old address later is asked.
    """

    async def story(stage: Stage) -> None:
        await _sandboxed(stage)
        writes: Counter[int] = Counter()

        async def gate(op: str, process: str, partition: int) -> None:
            if op == "write" and process == "second":
                writes[partition] += 1
                if writes[partition] == lost:
                    raise LogError("a broker does not answer")

        stage.log.gate = gate
        worker = await _serving(stage, "second", AFTER, {"acme": "send"})
        await asyncio.sleep(600.0)
        assert min(writes.values()) > lost
        assert sorted(set(_told(stage))) == _live()
        assert _targets(stage) == [LIVE.base_url] * 2
        await worker.stop()

    play(story)
