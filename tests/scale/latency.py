"""How long a provider takes to answer."""

from msgspec.structs import replace

from tests.bench.processes import Line
from tests.bench.sending import EVENTS, account_at, records_of
from tests.scale.measuring import Axis, Bench, Point
from tests.scale.settling import point, settle, settled
from tests.shops.load import subject_of
from worker.model.account import Account

AT_ONCE = (32, 256)
"""Slots of the account: the default, and what one may turn."""
ORDERS_MAX = 10_000
SECONDS = 5.0
"""For so long there is something to do, but for two rounds of all slots at least."""


async def measure(_bench: Bench, x: float) -> list[Point]:
    """A point for each number of slots."""
    after_s = x / 1000
    points = []
    for at_once in AT_ONCE:
        orders = min(ORDERS_MAX, max(2 * at_once, int(SECONDS * at_once / after_s)))
        arguments = {"orders": orders, "concurrency": at_once}
        reading = await settled("tests.scale.latency:ours", arguments, after_s)
        points.append(point(x, orders, reading, series=f"{at_once} slots"))
    return points


async def ours(line: Line, base_url: str, orders: int, concurrency: int) -> None:
    """Orders of one account."""
    account: Account = replace(account_at(base_url), concurrency=concurrency)
    owed = ((number, subject_of(number), record) for number, record in records_of(orders, EVENTS, account))
    line.say(await settle({account.name: account}, owed))


AXIS = Axis(
    name="latency",
    title="Latency of the provider",
    unit="ms of latency",
    item="update",
    what=f"owed orders of one account on an embedded log, whose provider answers after so long; {ORDERS_MAX:,} orders, or "
    f"as many as {SECONDS:g} s are enough for",
    points=(1, 10, 100, 1_000, 5_000),
    quick=(1, 100),
    measure=measure,
    bends="what bends first is the account's number of slots, for no worker waits for an answer with anything else: an "
    "account sends at most `concurrency` / latency; raise `concurrency`, as far as the provider permits",
    rounds=1,
)
