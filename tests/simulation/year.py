"""A year of daily reports in virtual time: `python -m tests.simulation.year --seeds 0-3` (`make year`).

Real workers on a log in memory, three merchants of seQura's, both changes of the clock in Madrid. In calm weeks nothing
goes wrong and every report is made in time; in the others workers die, freeze, are thrown out of their group and share
its partitions anew, all of them are away when a report is due, the brokers refuse, the network loses what it likes, and
seQura is away for hours or for a day. Every transaction and every request is checked at once; at the end all is told
once, and paid, to the cent.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from zlib import crc32

from tests.conftest import parse_seeds
from tests.simulation.reporting import DAY_S, Life, World
from tests.simulation.year_auditor import KEEP_DAYS, Auditor, needs_hand
from tests.simulation.year_shop import Shop
from tests.simulation.year_side import SequraSide
from worker import logs
from worker.core.order import assess
from worker.errors import LogError, UsageError
from worker.providers.sequra import memory
from worker.providers.sequra.options import SequraAccount
from worker.sim.loop import VirtualClock, run

BEGIN = datetime(2026, 1, 5, 12, tzinfo=UTC)
DAYS, ORDERS, PARTITIONS = 365, 2_000, 4
ORDERS_END_DAYS, CALM_END_DAYS, STORIES_END_DAYS = 45, 12, 8
"""The last orders are placed so long before the end, the last days are calm, and all stories end in them."""
SLOTS = 4
CATCH_UP_S = 4 * 3600.0
"""Once nothing goes wrong any more, what was missed is made up for within so long."""
_TOLD = {"provider": "sequra", "base_url": "https://x.example", "username": "u", "password": "p"}
ACCOUNTS = {
    "acme": SequraAccount(
        name="acme",
        merchant_id="m1",
        delivery="report",
        report_at=(150,),
        report_orders_max=4,
        statistics=True,
        disbursements=True,
        **_TOLD,  # type: ignore[arg-type]
    ),
    "hats": SequraAccount(
        name="hats",
        merchant_id="m2",
        delivery="report_then_update",
        report_at=(125, 780),
        disbursements=True,
        **_TOLD,  # type: ignore[arg-type]
    ),
    "toys": SequraAccount(
        name="toys",
        merchant_id="m3",
        statistics=True,
        disbursements=True,
        report_at=(1435,),
        **_TOLD,  # type: ignore[arg-type]
    ),
}
"""At half past two and five past: what clocks skip is due right after it, what comes twice is due once."""
CHANGES = (datetime(2026, 3, 29, tzinfo=UTC), datetime(2026, 10, 25, tzinfo=UTC))
"""Of the clock, in Madrid."""


class YearError(AssertionError):
    """What a year must not show; says its seed."""


@dataclass(frozen=True)
class Weather:
    """What a week is like."""

    name: str
    faults: float = 0.0
    deaths: float = 0.0
    gap_h: float = 0.0
    """Between two misfortunes, on average; 0: there are none."""


CALM = Weather("calm")
WEATHERS = (CALM, Weather("rough", 0.05, 0.02, 12.0), Weather("stormy", 0.3, 0.1, 4.0))
MISFORTUNES = ("end", "freeze", "expel", "outage", "dead_day", "all_away", "brokers", "events", "resize", "compact")
WEIGHTS = (5, 4, 3, 3, 0.4, 1, 2, 1, 3, 1)


@dataclass
class Played:
    """What a year was like."""

    seed: int
    counts: dict[str, int] = field(default_factory=dict)
    sums: dict[str, int] = field(default_factory=dict)


class Year(World):
    """Brokers, seQura, the shop and workers for a year."""

    provider: SequraSide

    def __init__(self, seed: int, begin: datetime, days: int, orders: int) -> None:
        self.drift = Random(seed)
        self.days, self.orders = days, orders
        super().__init__(seed, begin, partitions=PARTITIONS)
        self.shop = Shop(self.chance, self.clock, self.log, self.trust, (days - STORIES_END_DAYS) * DAY_S)
        end = begin + timedelta(days=days + 2)
        self.auditor = Auditor(self.provider, self.clock, self.shop.books, PARTITIONS, begin, end)
        self.log.watch(self.auditor.committed)
        self.log.gate = self._gate
        self.settings = {"keep_settled": f"{KEEP_DAYS}d"}
        self.is_calm = False
        self.refusing_until = 0.0
        """The brokers refuse some of what they are asked until then."""
        self.slots = 2
        self.misfortunes: dict[str, int] = dict.fromkeys(MISFORTUNES, 0)
        self.decided = 0

    def make_provider(self) -> SequraSide:
        return SequraSide(self.chance, self.clock, ACCOUNTS)

    def accounts(self) -> dict[str, SequraAccount]:
        return ACCOUNTS

    def clock_of(self, name: str) -> VirtualClock:
        skew_ms = self.drift.randint(-2_000, 2_000)
        return VirtualClock(self.loop, self.begin_ms + skew_ms, crc32(name.encode()))

    def _touched(self) -> None:
        """While seQura is away there are many requests, which come further and further apart only where nobody dies."""
        if self.clock.now() >= self.provider.down_until or self.chance.random() < 0.01:
            super()._touched()

    async def _gate(self, op: str, process: str, partition: int) -> None:
        """What each operation of the log goes through."""
        if self.clock.now() < self.refusing_until and self.chance.random() < 0.1 and op in _REFUSABLE:
            raise LogError(f"{op} of partition {partition}: as simulated for {process}")
        await asyncio.sleep(0.003 if op == "write:open" else 0)

    # --- the shop ---

    async def place(self) -> None:
        """Orders come all year long."""
        end_s = max(self.days - ORDERS_END_DAYS, self.days / 2) * DAY_S
        moments = sorted(self.chance.random() * end_s for _ in range(self.orders))
        accounts = self.shop.shuffled(len(moments))
        for number, (account, at_s) in enumerate(zip(accounts, moments, strict=True)):
            await asyncio.sleep(max(0.0, at_s - self.clock.now()))
            self.soon(self.shop.order(account, f"{number}"))

    async def pay(self) -> None:
        """seQura pays once a week; in between people do in its back office what reports cannot tell."""
        while True:
            await asyncio.sleep(7 * DAY_S)
            self.by_hand()
            self.provider.pay_out()
            self.provider.requests.clear()
            for partition in range(PARTITIONS):
                self.log.compact(partition)

    def by_hand(self) -> None:
        """Sets orders in seQura's back office to what the shop says."""
        side = self.provider
        side.by_hand.clear()
        for book in needs_hand(self.shop.books.values(), side.records):
            order = assess(side.records[book.subject].facts, book.name).order
            if order is not None:
                side.by_hand[book.subject] = order.shipped.total_minor

    async def operate(self) -> None:
        """Somebody looks every day whether a report is stuck, and says what became of it."""
        while True:
            await asyncio.sleep(DAY_S)
            for life in list(self.lives.values()):
                if not life.is_frozen:
                    await self._decide(life)

    async def _decide(self, life: Life) -> None:
        """seQura's back office shows whether it has a page: by one of its orders."""
        for account in ACCOUNTS:
            for page in self.auditor.stuck(account):
                name = page.lists[0][0]
                told = memory.read(self.provider.records[f"{account}/{name}"].remote)
                assert told is not None
                assert told.under_way is not None  # as long as nobody has decided
                there = self.provider.reports_of[account].order(name).deliveries
                is_taken = set(told.under_way.shipments.values()) <= there.keys()
                with suppress(UsageError):  # the partition may change hands meanwhile
                    self.decided += await life.worker.decide_page(account, page.id, is_taken=is_taken)

    # --- the weather ---

    def weather_of(self, week: int, seed: int) -> Weather:
        """Each week has its own; where clocks change it is calm in every other year."""
        begin = datetime.fromtimestamp(self.begin_ms / 1000, UTC) + timedelta(days=7 * week)
        if any(begin <= each + timedelta(hours=2) < begin + timedelta(days=7) for each in CHANGES):
            return CALM if seed % 2 == 0 else WEATHERS[2]
        return self.chance.choices(WEATHERS, (2, 4, 3))[0]

    async def live(self, seed: int, say: Callable[[str], object]) -> None:
        """All of it."""
        self.soon(self.place())
        self.soon(self.pay())
        self.soon(self.operate())
        for slot in range(self.slots):
            self.start(slot)
        stormy_days = self.days - CALM_END_DAYS
        for week in range(-(-stormy_days // 7)):
            weather = self.weather_of(week, seed)
            await self._week(weather, min(7.0, stormy_days - 7.0 * week))
            if week % 4 == 3:
                say(self._line(weather))
        await self._week(CALM, CALM_END_DAYS - 3.0)
        self.by_hand()
        self.provider.pay_out()
        await self._week(CALM, 3.0)

    async def _week(self, weather: Weather, days: float) -> None:
        end = self.clock.now() + days * DAY_S
        side = self.provider
        side.faults, self.deaths, self.is_calm = weather.faults, weather.deaths, weather is CALM
        if weather is CALM:
            await self._mend()
            await asyncio.sleep(CATCH_UP_S)
            self.auditor.check_calm()
        while self.clock.now() < end and not side.wrong:
            if not weather.gap_h:
                await asyncio.sleep(min(DAY_S, end - self.clock.now()))
                self.auditor.check_calm()
                continue
            await asyncio.sleep(min(self.chance.expovariate(1 / (weather.gap_h * 3600)), end - self.clock.now()))
            if self.clock.now() < end:
                await self._strike()
        if side.wrong or self.failures:
            raise YearError("; ".join([*side.wrong[:5], *self.failures[:5]]))

    async def _mend(self) -> None:
        """Nothing is wrong any more."""
        self.refusing_until = self.provider.down_until = 0.0
        self.producer.recover()
        for life in list(self.lives.values()):
            await self._thaw(life)
        await asyncio.sleep(600.0)  # those on their way come
        for slot in range(self.slots):
            self.start(slot)

    async def _strike(self) -> None:
        chance = self.chance
        what = chance.choices(MISFORTUNES, WEIGHTS)[0]
        self.misfortunes[what] += 1
        now = self.clock.now()
        match what:
            case "outage":
                self._away(chance.choice((60.0, 1800.0, 7200.0, 21_600.0)) * (0.5 + chance.random()))
            case "dead_day":
                self._away(DAY_S * chance.uniform(1.0, 1.3))
            case "all_away":
                self.soon(self._all_away(chance.choice((1800.0, 4 * 3600.0, 2.1 * DAY_S))))
            case "brokers":
                self.refusing_until = now + chance.uniform(10.0, 900.0)
            case "events":
                self.soon(self._no_events(chance.uniform(60.0, 4 * 3600.0)))
            case "resize":
                self.slots = chance.randint(1, SLOTS)
                for slot in range(SLOTS):
                    if slot < self.slots:
                        self.start(slot)
                    else:
                        self.soon(self.end(slot))
            case "compact":
                for partition in range(PARTITIONS):
                    self.log.compact(partition)
            case _ if self.lives:
                life = chance.choice(list(self.lives.values()))
                self.soon(self._hit(what, life))

    async def _hit(self, what: str, life: Life) -> None:
        chance = self.chance
        slot = next((slot for slot, each in self.lives.items() if each is life), None)
        if slot is None:
            return
        if what == "end":
            await self._end(slot, 0.0)
        elif what == "expel":
            self.log.expel(life.name)
            await asyncio.sleep(chance.uniform(0.0, 10.0))
            self.log.notice(life.name)
        elif not life.is_frozen:
            await self._freeze(life, chance.choice((3.0, 25.0, 200.0)) * chance.random())

    async def _freeze(self, life: Life, for_s: float) -> None:
        life.is_frozen = True
        self.loop.freeze(life.name)
        self.log.freeze(life.name)
        await asyncio.sleep(min(for_s, 30.0))
        if for_s > 30.0 and life.is_frozen:
            self.log.expel(life.name)
            await asyncio.sleep(for_s - 30.0)
        await self._thaw(life)

    async def _thaw(self, life: Life) -> None:
        if life.is_frozen:
            life.is_frozen = False
            self.log.thaw(life.name)
            self.loop.thaw(life.name)
            self.log.notice(life.name)

    def _away(self, for_s: float) -> None:
        self.provider.down_until = self.clock.now() + for_s
        self.provider.down_as = self.chance.choice(("lost", "busy", "error", "applied"))

    async def _all_away(self, for_s: float) -> None:
        """Nobody runs, some nights until long after a report was due."""
        for slot in list(self.lives):
            await self.end(slot)
        await asyncio.sleep(for_s * self.chance.uniform(0.3, 1.0))
        for slot in range(self.slots):
            self.start(slot)

    async def _no_events(self, for_s: float) -> None:
        self.producer.is_failing = True
        await asyncio.sleep(for_s)
        self.producer.recover()

    # --- what it was like ---

    def counts(self) -> dict[str, int]:
        """Of what there was."""
        side = self.provider
        return {
            "orders": len(self.shop.books),
            "closed": self.auditor.closed,
            "runs": self.auditor.runs,
            "reports": side.taken_count,
            "decided": self.decided,
            "ended": self.kills,
            **{name: count for name, count in self.misfortunes.items() if name != "end"},
        }

    def _line(self, weather: Weather) -> str:
        at = datetime.fromtimestamp(self.clock.wall_ms() / 1000, UTC)
        numbers = ", ".join(f"{count} {name}" for name, count in self.counts().items() if count)
        return f"{at:%Y-%m-%d} {weather.name}: {numbers}"


_REFUSABLE = frozenset(("fence", "fence:done", "write", "write:open", "write:done", "read"))


def play_year(
    seed: int,
    *,
    begin: datetime = BEGIN,
    days: int = DAYS,
    orders: int = ORDERS,
    say: Callable[[str], object] = lambda _: None,
) -> Played:
    """One year, or so many days of it. Raises `YearError`."""
    lines: list[str] = []
    played = Played(seed)

    async def main() -> None:
        year = Year(seed, begin, days, orders)
        try:
            await year.live(seed, say)
        finally:
            for life in list(year.lives.values()):
                assert life.main is not None
                life.main.cancel()
                await year._thaw(life)
                await life.worker.kill()
        played.sums = year.auditor.check_end()
        played.counts = year.counts()
        refused = [letter.headers for letter in year.log.dead_letters]
        if year.provider.wrong or year.failures or refused:
            raise YearError("; ".join([*year.provider.wrong[:5], *year.failures[:5], *map(repr, refused[:3])]))

    with logs.capture(lines, "critical"):
        try:
            run(main(), seed=seed)
        except Exception as error:
            raise YearError(f"seed {seed}: {error!r}") from error
    return played


def main(arguments: Sequence[str]) -> int:
    """1 when a year showed what it must not."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.year", description=__doc__)
    parser.add_argument("--seeds", default="0-1", help="a count, a range (40-49) or a list (7,12)")
    parser.add_argument("--days", type=int, default=DAYS)
    parser.add_argument("--orders", type=int, default=ORDERS)
    chosen = parser.parse_args(arguments)
    failed = 0
    for seed in parse_seeds(chosen.seeds):
        began = time.process_time()

        def say(line: str, seed: int = seed, began: float = began) -> None:
            sys.stdout.write(f"year {seed}: {line} ({time.process_time() - began:.0f} s of CPU)\n")
            sys.stdout.flush()

        try:
            played = play_year(seed, days=chosen.days, orders=chosen.orders, say=say)
        except YearError as error:
            failed += 1
            say(f"FAILED {error}")
        else:
            say(f"sound: {json.dumps(played.counts)}; in cents: {json.dumps(played.sums)}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
