"""Merchant accounts in one worker, all at one provider and one address."""

from collections.abc import Iterator

from msgspec.structs import replace

from schemas.state import OrderRecord
from tests.bench.owed import record_of
from tests.bench.processes import Line
from tests.bench.sending import EVENTS, account_at
from tests.scale.measuring import Axis, Bench, Point
from tests.scale.settling import point, settle, settled
from tests.shops.load import history, reference_of
from worker.model.provider import Destination
from worker.providers.registry import PROVIDERS

ORDERS = 10_000


async def measure(_bench: Bench, x: float) -> list[Point]:
    """The same orders, of more accounts."""
    reading = await settled("tests.scale.accounts:ours", {"accounts": int(x)})
    return [point(x, ORDERS, reading, own=reading["files"])]


async def ours(line: Line, base_url: str, accounts: int) -> None:
    """Orders by turns of each account."""
    model = account_at(base_url)
    named = {f"shop{number}": replace(model, name=f"shop{number}") for number in range(accounts)}
    destination = Destination(model, PROVIDERS[model.provider])

    def owed() -> Iterator[tuple[int, str, OrderRecord]]:
        for number in range(ORDERS):
            # The shop's events name another account; their facts do not.
            record = record_of(history(3, number, EVENTS), destination)
            yield number, f"shop{number % accounts}/{reference_of(number)}", record

    line.say(await settle(named, owed()))


AXIS = Axis(
    name="accounts",
    title="Merchant accounts of one worker",
    unit="accounts",
    item="update",
    what=f"{ORDERS:,} owed orders on an embedded log, spread over accounts with 32 slots each, all at one address",
    points=(1, 10, 50, 200, 500),
    quick=(1, 20),
    measure=measure,
    bends="what bends first are connections: `[worker] provider_concurrency` bounds the attempts, and so the sockets, over "
    "all accounts of a provider; raise it if they wait for each other while the provider has room",
    own="files and sockets open at once",
)
