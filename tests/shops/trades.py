"""How orders are told where they are paid: what a shop does with those of each provider, and what it says of them."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.shops import actions
from tests.shops.actions import Step
from tests.shops.counts import ShopOrder

Deed = Callable[[Random, ShopOrder], Step]


@dataclass(frozen=True)
class Trade:
    """Orders of one provider."""

    prefix: str
    """Of their references: Qliro takes one of digits alone for its own number, AtaraPay no other."""
    deeds: dict[Deed, int]
    """With their weights."""
    begin: Callable[[Random, ShopOrder], None]
    """What is different about an order from the beginning."""

    @property
    def steps(self) -> tuple[Deed, ...]:
        return tuple(self.deeds)

    @property
    def weights(self) -> tuple[int, ...]:
        return tuple(self.deeds.values())


def details_of(order: ShopOrder) -> dict[str, Any]:
    """What the confirmation says beside content and address."""
    return _named(order) if order.provider_order and not order.is_named_late else {}


def _named(order: ShopOrder) -> dict[str, Any]:
    return {"references": {"provider": order.provider_order}}


def name_at_provider(order: ShopOrder) -> Step:
    """What the provider calls it, when the shop has not said so at once."""
    return ("order.details_changed", _named(order)) if order.provider_order and order.is_named_late else None


def _bring_back_for_a_fee(random: Random, order: ShopOrder) -> Step:
    step = actions.bring_back(random, order)
    if step is None:
        return None
    fee_minor = random.randint(1, 90)
    order.fees.append(fee_minor)
    return step[0], step[1] | {"fee_minor": fee_minor}


def _deliver(random: Random, order: ShopOrder) -> Step:
    """A parcel arrives."""
    under_way = [
        name for name, units in order.shipments.items() if units and "" not in units and name not in order.delivered
    ]
    if not under_way:
        return None
    name = random.choice(under_way)
    order.delivered.add(name)
    return "order.items_delivered", {"shipment_id": name, "delivered_at": "2026-01-05T10:00:00Z"}


def _deliver_again(random: Random, order: ShopOrder) -> Step:
    """A parcel that was rejected is brought once more."""
    if not order.delivered:
        return None
    order.delivered_anew += 1
    name = random.choice(sorted(order.delivered))
    return "order.items_delivered", {"shipment_id": name, "delivered_at": "2026-01-06T10:00:00Z"}


def _void(random: Random, order: ShopOrder) -> Step:
    """A label that was void, though its parcel may have been told to have arrived."""
    step = actions.void(random, order)
    order.delivered_anew += step is not None
    return step


def _ship_all(_random: Random, order: ShopOrder) -> Step:
    return actions.ship_units(
        order, {} if order.is_cancelled else {name: line.pending for name, line in order.lines.items() if line.pending}
    )


def _at_sequra(_random: Random, _order: ShopOrder) -> None:
    """Everything is said in the cart."""


def _at_qliro(random: Random, order: ShopOrder) -> None:
    number = int(order.subject.rpartition("/q")[2])
    order.provider_order = random.choice((str(100_000 + number), str(100_000 + number), ""))
    order.vat_rate_bp = random.choice((2_500, None))


def _at_atarapay(random: Random, order: ShopOrder) -> None:
    number = int(order.subject.rpartition("/")[2])
    order.provider_order = str(7_000_000 + number)
    order.is_named_late = random.random() < 0.3
    order.phone, order.currency = "+2348012345678", "NGN"
    order.may_shopper_cancel = True


TRADES = {
    "sequra": Trade("", dict(zip(actions.STEPS, actions.WEIGHTS, strict=True)), _at_sequra),
    "qliro": Trade(
        "q",
        {
            actions.ship: 30,
            actions.bring_back: 10,
            _bring_back_for_a_fee: 6,
            actions.void: 6,
            actions.cancel_some: 6,
            actions.cancel: 4,
            actions.refund: 8,
            actions.move: 4,
            actions.reduce: 6,
            actions.hold: 6,
            actions.oversell_or_put_right: 4,
        },
        _at_qliro,
    ),
    "atarapay": Trade(
        "",
        {
            _ship_all: 12,
            actions.ship: 12,
            _deliver: 40,
            _deliver_again: 12,
            _void: 2,
            actions.bring_back: 1,
            actions.refund: 1,
            actions.cancel_some: 2,
            actions.cancel: 8,
            actions.move: 6,
            actions.hold: 4,
        },
        _at_atarapay,
    ),
}
