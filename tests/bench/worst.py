"""The largest and most entangled orders that the contract lets through, and what each step of the core takes for them.

An event is at most 1 MiB with 2,000 lines or units, an order's record at most what the state topic takes (2 MiB unless
said otherwise). Within these bounds no step may hold the event loop for longer than `STEP_MAX_MS`. To decode and encode
the record itself is the library's work, linear too, and left out.
"""

import json
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from schemas import state
from schemas.events import LINES_MAX, OrderEvent
from schemas.facts import Facts
from tests.bench.measuring import Figure, Row, Tell
from tests.bench.processes import Line, Process, calm
from worker.core.intake import decode
from worker.core.order import assess, baseline
from worker.core.policy import DeliveryPolicy
from worker.core.record import apply_event, record_for
from worker.core.reducer import reduce_sealed
from worker.core.view import view_order
from worker.providers.sequra import Sequra
from worker.providers.sequra.options import SequraAccount

ROUNDS = 3
TRIES = 3
"""Of each look at the finished order, the quickest of which counts: what others do on the machine is not ours."""
STEP_MAX_MS = 50.0
RECORD_MAX_BYTES = 2 << 20
TIMESTAMP_MS = 1_800_000_000_000
SUBJECT, REFERENCE = "acme/A1", "A1"

WORST = Row(
    "worst",
    "the slowest step of the core on the worst order of the contract",
    "ms",
    "what a step may hold the loop for",
    1.0,
    is_cost=True,
    decimals=1,
)

Data = dict[str, Any]
Story = Iterator[tuple[str, Data]]
"""Types and data of the events of one order, without `order.`."""


def _goods(number: int, minor: int = 900) -> Data:
    return {"reference": f"g{number:x}", "name": "n", "quantity": 9, "unit_price_minor": 100, "total_minor": minor}


def _other(kind: str, number: int, minor: int, applies_to: list[str] | None = None) -> Data:
    line: Data = {"type": kind, "reference": f"o{number:x}", "name": "n", "total_minor": minor}
    return line if applies_to is None else line | {"applies_to": applies_to}


def _ids(first: int, count: int, of: int) -> list[str]:
    return [f"g{(first + number) % of:x}" for number in range(count)]


def _units(ids: list[str], quantity: int = 1) -> list[Data]:
    return [{"line_id": one, "quantity": quantity} for one in ids]


def _confirmed(lines: list[Data]) -> tuple[str, Data]:
    return "confirmed", {"currency": "EUR", "lines": lines}


def reductions_of_lines() -> Story:
    """Hundreds of discounts, each of hundreds of lines; half of the goods are sent, some are lost."""
    goods = [_goods(number) for number in range(LINES_MAX - 500)]
    yield _confirmed(goods + [_other("discount", n, -7, _ids(17 * n, 160, len(goods))) for n in range(500)])
    yield "items_shipped", {"shipment_id": "s", "lines": _units(_ids(0, len(goods) // 2, len(goods)), 5)}
    yield "items_cancelled", {"cancellation_id": "c", "lines": _units(_ids(0, len(goods), len(goods)), 2)}


def reductions_of_all() -> Story:
    """As many discounts as goods, none with `applies_to`."""
    half = LINES_MAX // 2
    yield _confirmed([_goods(n) for n in range(half)] + [_other("discount", n, -7) for n in range(half)])


def charges_and_registrations() -> Story:
    """Hundreds of deliveries and registrations, of some lines and of all."""
    goods = [_goods(number) for number in range(600)]
    lines = [_other("handling", n, 70, _ids(n, 100, 600)) for n in range(350)]
    lines += [_other("handling", n, 70) for n in range(350, 700)]
    lines += [_other("registration", n, 70, _ids(n, 100, 600)) for n in range(700, 1050)]
    lines += [_other("registration", n, 70) for n in range(1050, 1400)]
    yield _confirmed(goods + lines)
    yield "items_shipped", {"shipment_id": "s", "lines": _units(_ids(0, 300, 600))}


def refunds_of_lines() -> Story:
    """Hundreds of refunds, each of a hundred lines, and returns with amounts of their own between them."""
    count = 1_500
    yield _confirmed([_goods(number) for number in range(count)] + [_other("discount", 1, -7_000)])
    yield "items_shipped", {"shipment_id": "s", "lines": _units(_ids(0, count, count), 9)}
    for number in range(500):
        applies_to = _ids(29 * number, 100, count)
        yield "refunded", {"refund_id": f"f{number}", "amount_minor": 997, "applies_to": applies_to}
        if number % 5 == 0:
            back: Data = {"return_id": f"r{number}", "lines": _units(_ids(7 * number, 100, count))}
            yield "items_returned", back | {"refunded_minor": 8_000}


def units_of_many_shipments() -> Story:
    """As many units as a record takes, in shipments and returns of as many as an event takes."""
    count = LINES_MAX
    yield _confirmed([_goods(number) | {"quantity": 1_000} for number in range(count)])
    for number in range(100):
        yield "items_shipped", {"shipment_id": f"s{number}", "lines": _units(_ids(0, count, count))}
        if number % 2:
            yield "items_returned", {"return_id": f"r{number}", "lines": _units(_ids(0, count, count)), "from": "any"}


def units_of_unknown_lines() -> Story:
    """Shipments of lines that the order does not have."""
    yield _confirmed([_goods(0)])
    for number in range(100):
        lines = _units([f"{number:x}{one:x}" for one in range(LINES_MAX)])
        yield "items_shipped", {"shipment_id": f"s{number}", "lines": lines}


def kept_of_a_cancelled_order() -> Story:
    """Thousands of lines with long ids, all sent, and the order cancelled."""
    ids = [f"{number:04d}{'x' * 150}" for number in range(LINES_MAX)]
    line = {"name": "n", "quantity": 1, "unit_price_minor": 1, "total_minor": 1}
    yield _confirmed([{"reference": one} | line for one in ids])
    yield "items_shipped", {"shipment_id": "s", "lines": _units(ids)}
    yield "cancelled", {}


def changing_contents() -> Story:
    """One content after the other, none with a line of those before it."""
    for number in range(20):
        lines = [_goods(LINES_MAX * number + one) for one in range(LINES_MAX)]
        yield ("confirmed" if not number else "cart_updated"), {"currency": "EUR", "lines": lines}


def statements() -> Story:
    """Statements of ever lower versions: each would count after some retraction."""
    yield _confirmed([_goods(0)])
    for number in range(1_500):
        yield "carts_stated", {"currency": "EUR", "shipped": [], "unshipped": [_goods(0)], "cart_version": -number}


def small_facts() -> Story:
    """Thousands of shipments, returns, refunds and fees of next to nothing."""
    yield _confirmed([_goods(number) | {"quantity": 1_000_000} for number in range(100)])
    for number in range(1_000):
        one = f"g{number % 100:x}"
        yield "items_shipped", {"shipment_id": f"s{number}", "lines": _units([one], 2)}
        yield "items_returned", {"return_id": f"r{number}", "lines": _units([one]), "fee_minor": 1}
        yield "refunded", {"refund_id": f"f{number}", "amount_minor": 1, "applies_to": [one]}
        yield "fee_charged", {"fee_id": f"k{number}", "amount_minor": 1}


STORIES: tuple[Callable[[], Story], ...] = (
    reductions_of_lines,
    reductions_of_all,
    charges_and_registrations,
    refunds_of_lines,
    units_of_many_shipments,
    units_of_unknown_lines,
    kept_of_a_cancelled_order,
    changing_contents,
    statements,
    small_facts,
)


def events_of(story: Callable[[], Story]) -> Iterator[bytes]:
    """The values of the records of this order, as many as there are."""
    for number, (kind, data) in enumerate(story()):
        body = {
            "specversion": "1.0",
            "id": f"e{number}",
            "source": "/s",
            "type": f"order.{kind}",
            "time": f"2026-03-02T{number // 3600:02d}:{number // 60 % 60:02d}:{number % 60:02d}Z",
            "subject": SUBJECT,
            "data": data,
        }
        yield json.dumps(body, separators=(",", ":")).encode()


class Steps:
    """The longest that each step of the core took, in CPU time of this process."""

    def __init__(self) -> None:
        self.longest_s: dict[str, float] = {}

    def timed(self, name: str, step: Callable[..., Any], *arguments: Any, tries: int = 1) -> Any:
        """What the step makes of these."""
        made: Any = None
        took_s: list[float] = []
        for _ in range(tries):
            began = time.process_time()
            made = step(*arguments)
            took_s.append(time.process_time() - began)
        self.longest_s[name] = max(self.longest_s.get(name, 0.0), min(took_s))
        return made


def walk(
    story: Callable[[], Story], record_max_bytes: int = RECORD_MAX_BYTES, events_max: int = 100_000
) -> tuple[Steps, bytes]:
    """Takes the events of the story until the record is full; what each step took, and the record."""
    steps = Steps()
    value = state.encode(state.OrderRecord())
    for position, raw in enumerate(islice(events_of(story), events_max)):
        event: OrderEvent = steps.timed("decode an event", decode, b"k", raw, {}, TIMESTAMP_MS)
        record, _ = record_for(event, value)
        steps.timed("reduce", reduce_sealed, record.sealed, event, position)
        after = apply_event(record, event, position=position, revision=position + 1, now_ms=1, destination=None)
        following = state.encode(after)
        if len(following) > record_max_bytes:
            break  # the event would be refused
        value = following
    _judge(steps, state.decode_order(value))
    return steps, value


def _judge(steps: Steps, record: state.OrderRecord) -> None:
    facts = record.facts
    account = SequraAccount("acme", "sequra", "http://127.0.0.1", "acme", "user", "secret")
    adapter = Sequra()
    assessment = steps.timed("assess", assess, facts, REFERENCE, tries=TRIES)
    steps.timed("baseline", baseline, facts, REFERENCE, tries=TRIES)
    if assessment.order is not None:
        steps.timed("render", adapter.render, assessment.order, account, tries=TRIES)
        steps.timed("digest", adapter.digest, assessment.order, tries=TRIES)

    class Opened(state.OrderRecord):
        """The order's record, its facts opened already."""

        @property
        def facts(self) -> Facts:
            return facts

    members = {name: getattr(record, name) for name in record.__struct_fields__}
    opened = Opened(**members)

    def view() -> Any:
        return view_order(SUBJECT, opened, partition=0, rules=DeliveryPolicy(), now_ms=1, idle="")

    steps.timed("view", view, tries=TRIES)


async def measure(_brokers: object, tell: Tell) -> list[Figure]:
    """Every step on every one of these orders; the worst of each round."""
    figure = Figure(WORST)
    async with Process("worst:rounds", {"rounds": ROUNDS}) as process:
        for number in range(ROUNDS):
            story, step, took_s = await process.hear()
            tell(f"round {number + 1} of {ROUNDS}: {step} on {story}")
            figure.add(took_s * 1000, STEP_MAX_MS)
    return [figure]


async def rounds(line: Line, rounds: int) -> None:
    """Says the slowest step of each round."""
    calm()
    for _ in range(rounds):
        found = [
            (took_s, name, story.__name__) for story in STORIES for name, took_s in walk(story)[0].longest_s.items()
        ]
        took_s, name, story_name = max(found)
        line.say([story_name, name, took_s])
