"""One order, or one bad hour, must not cost an account more than it must. Each story is played in virtual time, and
again with a break in the code that it is about: then it must not come out.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec
import pytest

from tests.simulation.breaks import Break, broken
from tests.simulation.stage import Stage, play
from worker.app import Worker
from worker.core.account import AccountQueue
from worker.core.commands import COMMANDS
from worker.model.account import Account
from worker.model.exchange import OutcomeKind
from worker.orders import batch
from worker.providers.sequra.options import SequraAccount
from worker.sim.loop import START_WALL_MS, VirtualClock
from worker.sim.scripted import Answer


def _account(concurrency: int) -> dict[str, Account]:
    return {
        "acme": SequraAccount("acme", "sequra", "https://provider.example", "acme", "u", "p", concurrency=concurrency)
    }


class Shop:
    """A worker at work for one account, and what it is told."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.worker: Worker

    async def open(self, concurrency: int = 4, **settings: Any) -> None:
        """The worker serves."""
        self.worker = self.stage.worker("w1", settings, accounts=_account(concurrency))
        await self.worker.start()
        await self.worker.serving()

    def tell(self, references: Iterable[str]) -> None:
        """Orders are confirmed and shipped."""
        for reference in references:
            self.stage.tell_shipped(reference)

    def always(self, references: Iterable[str], answer: Answer) -> None:
        """What becomes of these orders, until further notice."""
        for reference in references:
            self.stage.provider.answer_for(reference, [answer])

    def well(self, references: Iterable[str]) -> None:
        """The provider takes them from now on."""
        for reference in references:
            self.stage.provider.answer_for(reference, [])

    def told(self, references: Iterable[str]) -> int:
        """How many of these the provider holds."""
        return sum(self.stage.provider.held(reference) is not None for reference in references)

    def tried(self, reference: str) -> int:
        """Attempts for one order."""
        return sum(each.url.endswith(f"/{reference}") for each in self.stage.provider.exchanges)

    @property
    def parked(self) -> int:
        """Orders."""
        return sum(view.parked for view in self.worker.status().partitions)

    @property
    def paused(self) -> str | None:
        """Why the account is."""
        return self.worker.status().accounts[0].paused


def _named(name: str, count: int) -> list[str]:
    return [f"{name}{number}" for number in range(count)]


SILENCE = Answer(fault="timeout_lost", times=None)


async def hopeless_orders_leave_room(shop: Shop) -> None:
    """Sixty orders never get an answer, four attempts at a time; fifty others are told within seconds."""
    await shop.open(retry_max="1s", settle="1s")
    hopeless, good = _named("hopeless", 60), _named("good", 50)
    shop.always(hopeless, SILENCE)
    shop.tell(hopeless)
    await asyncio.sleep(400.0)
    shop.tell(good)
    await asyncio.sleep(12.0)
    assert shop.told(good) == 50
    await asyncio.sleep(400.0)
    assert min(shop.tried(each) for each in hopeless) > 3


async def hopeless_order_backs_off(shop: Shop) -> None:
    """Once its delay has grown, an order that is never answered costs a few attempts an hour, not a hundred."""
    await shop.open()
    shop.always(["hopeless"], SILENCE)
    shop.tell(["hopeless"])
    await asyncio.sleep(3_600.0)
    assert 10 < shop.tried("hopeless") < 45


async def forbidden_order_is_alone(shop: Shop) -> None:
    """A firewall dislikes a word in one order: the others are told, and it is tried again and again."""
    await shop.open(1)
    shop.always(["bad"], Answer(403, times=None))
    shop.tell(["bad"])
    await asyncio.sleep(1.0)
    shop.tell(_named("good", 100))
    await asyncio.sleep(10.0)
    assert shop.told(_named("good", 100)) == 100
    assert shop.paused is None
    await asyncio.sleep(600.0)
    shop.well(["bad"])
    await asyncio.sleep(310.0)
    assert shop.told(["bad"]) == 1


async def pause_ends_by_itself(shop: Shop) -> None:
    """Wrong credentials for hours: everything is told within a quarter of an hour, and nobody has done anything."""
    await shop.open()
    orders = _named("o", 40)
    shop.stage.provider.answer([Answer(401, times=None)])
    shop.tell(orders)
    await asyncio.sleep(2 * 3_600.0)
    assert len(shop.stage.provider.exchanges) < 20
    shop.stage.provider.answer([])
    await asyncio.sleep(905.0)
    assert shop.told(orders) == 40


async def wave_of_refusals_parks_few(shop: Shop) -> None:
    """A gateway redirects everything to a page for ten minutes: fifty are parked, and an operator releases them."""
    await shop.open()
    orders = _named("o", 1_000)
    shop.stage.provider.answer([Answer(302, times=None)])
    shop.tell(orders)
    await asyncio.sleep(600.0)
    shop.stage.provider.answer([])
    await asyncio.sleep(1_000.0)
    assert shop.parked == 50
    assert shop.told(orders) == 950
    assert await shop.worker.operate_parked(COMMANDS["release"], "acme", "no such reason") == 0
    assert await shop.worker.operate_parked(COMMANDS["release"], "acme", "302") == 50
    await asyncio.sleep(5.0)
    assert shop.told(orders) == 1_000
    keys = [each.headers["Idempotency-Key"].split(":") for each in shop.stage.provider.exchanges]
    assert sum(len(key) == 3 and key[2] == "1" for key in keys) == 50


async def recovered_account_is_not_idle(shop: Shop) -> None:
    """After an hour of errors delays are minutes long; once one order is taken, all are within seconds."""
    await shop.open()
    orders = _named("o", 30)
    shop.stage.provider.answer([Answer(500, times=None)])
    shop.tell(orders)
    await asyncio.sleep(3_600.0)
    shop.stage.provider.answer([])
    before = len(shop.stage.provider.exchanges)
    for _ in range(300):
        if len(shop.stage.provider.exchanges) > before:
            break
        await asyncio.sleep(1.0)
    await asyncio.sleep(10.0)
    assert shop.told(orders) == 30
    assert len(shop.stage.provider.exchanges) == before + 30


async def overloaded_provider_is_spared(shop: Shop) -> None:
    """503 without `Retry-After` for minutes, 300 orders: an attempt every few seconds, and soon after it all."""
    await shop.open(32)
    orders = _named("o", 300)
    shop.stage.provider.answer([Answer(503, times=None)])
    shop.tell(orders)
    await asyncio.sleep(150.0)
    assert len(shop.stage.provider.exchanges) < 90
    shop.stage.provider.answer([])
    await asyncio.sleep(40.0)
    assert shop.told(orders) == 300


def _always(value: Any) -> Callable[[Any], Any]:
    return lambda _real: lambda *_args, **_named: value


def _no_backoff_when_unknown(real: Any) -> Any:
    def settle(record: Any, revision: int, digest: bytes, outcome: Any, **named: Any) -> Any:
        after, hold_s = real(record, revision, digest, outcome, **named)
        if outcome.kind is OutcomeKind.UNKNOWN:
            after.not_before_ms = 0
        return after, hold_s

    return settle


def _forbidden_is_credentials(real: Any) -> Any:
    def judge(self: Any, subject: str, outcome: Any, now: float) -> Any:
        return real(self, subject, msgspec.structs.replace(outcome, kind=OutcomeKind.CREDENTIALS), now)

    return lambda self, subject, outcome, now: (
        judge(self, subject, outcome, now)
        if outcome.kind is OutcomeKind.FORBIDDEN
        else real(self, subject, outcome, now)
    )


def _refusals_do_not_count(_real: Any) -> Any:
    return lambda _self, _subject, outcome, _now: outcome


def _probes_find_out_nothing(real: Any) -> Any:
    return lambda self, pause, subject, outcome, _answer, now: real(
        self, pause, subject, outcome, OutcomeKind.UNKNOWN, now
    )


STORIES: list[tuple[Callable[[Shop], Awaitable[None]], Break]] = [
    (hopeless_orders_leave_room, Break(AccountQueue, "_failed_goes_first", _always(True))),
    (hopeless_order_backs_off, Break(batch, "settle", _no_backoff_when_unknown)),
    (forbidden_order_is_alone, Break(AccountQueue, "_judge", _forbidden_is_credentials)),
    (pause_ends_by_itself, Break(AccountQueue, "_follow_probe", _probes_find_out_nothing)),
    (wave_of_refusals_parks_few, Break(AccountQueue, "_judge_refusal", _refusals_do_not_count)),
    (recovered_account_is_not_idle, Break(AccountQueue, "_may_go_early", _always(False))),
    (overloaded_provider_is_spared, Break(AccountQueue, "_slow_down", _always(None))),
]


def _played(story: Callable[[Shop], Awaitable[None]]) -> None:
    async def on(stage: Stage) -> None:
        shop = Shop(stage)
        await story(shop)
        await shop.worker.stop(0.0)

    play(on)


@pytest.mark.parametrize(("story", "fault"), STORIES, ids=[story.__name__ for story, _ in STORIES])
def test_story(story: Callable[[Shop], Awaitable[None]], fault: Break) -> None:
    """It comes out, and with its break in the code it does not."""
    _played(story)
    with broken([fault]), pytest.raises(AssertionError):
        _played(story)


def test_many_orders_are_released_in_transactions_of_bounded_size() -> None:
    """Three thousand: five hundred at a time, each once, and nothing but those."""

    async def on(stage: Stage) -> None:
        shop = Shop(stage)
        await shop.open(32, park_limit=10_000)
        orders = _named("o", 3_000)
        stage.provider.answer([Answer(422, times=None)])
        shop.tell(orders)
        await asyncio.sleep(60.0)
        assert shop.parked == 3_000
        stage.provider.answer([Answer(401, times=None)])
        sizes: list[int] = []
        stage.log.watch(lambda _partition, entries, *_: sizes.append(len(entries)))
        assert await shop.worker.operate_parked(COMMANDS["release"], "acme") == 3_000
        assert max(sizes) < 600
        assert await shop.worker.operate_parked(COMMANDS["release"], "acme") == 0
        assert shop.parked == 0
        await shop.worker.stop(0.0)

    play(on)


def test_backoff_stored_by_a_wrong_clock_is_bounded() -> None:
    """An hour ahead while an order backed off: the next worker, whose clock is right, waits for `retry_max` at most."""

    async def on(stage: Stage) -> None:
        shop = Shop(stage)
        ahead = VirtualClock(asyncio.get_running_loop(), START_WALL_MS + 3_500_000)
        right, stage.clock = stage.clock, ahead
        await shop.open(retry_max="30s")
        shop.always(["o"], Answer(503, times=None))
        shop.tell(["o"])
        await asyncio.sleep(20.0)
        await shop.worker.stop()
        stage.clock = right
        shop.well(["o"])
        await shop.open(retry_max="30s")
        await asyncio.sleep(31.0)
        assert shop.told(["o"]) == 1
        await shop.worker.stop()

    play(on)
