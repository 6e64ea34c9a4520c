"""The three shops of the demo: what each sells, its provider's sandbox, and what must be held there in the end.

What must be held is the shop's own count beside its events (`tools.shop`), never what the worker thinks.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from random import Random
from typing import Any, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from schemas.views import OrderView
from worker.core.tokens import Address, Tokens
from worker.model.account import Account
from worker.model.callbacks import Caller
from worker.providers.atarapay.options import AtaraPayAccount
from worker.providers.atarapay.wire import State
from worker.providers.qliro.options import QliroAccount
from worker.providers.sequra.options import SequraAccount
from worker.sandbox.atarapay.escrow import Act, Escrow
from worker.sandbox.atarapay.sandbox import SELLER, AtaraPaySandbox
from worker.sandbox.faults import FaultPlan
from worker.sandbox.pushes import Send
from worker.sandbox.qliro.orders import without_tax
from worker.sandbox.qliro.sandbox import QliroSandbox
from worker.sandbox.sequra.sandbox import SequraSandbox
from worker.sandbox.server import Sandbox
from worker.tools.shop import (
    NIGERIA,
    REDELIVER,
    SPAIN,
    SWEDEN,
    History,
    ShopEvent,
    ShopLine,
    ShopOrder,
    make_history,
    redelivered,
)

HASTE = 20.0
"""By how much pushes come again sooner than documented."""
PUSHES = "push_late=0.15:2s,push_doubled=0.15,push_lost=0.05"
CALLBACK_SECRET = "a-secret-of-the-demo-and-of-nothing-else"  # noqa: S105 - signs addresses on this machine's loopback
HATS = QliroAccount(
    name="hats",
    provider="qliro",
    base_url="",
    api_key="HATS",
    api_secret="demo-secret",  # noqa: S106 - of a sandbox
    poll_after_s=(1.0, 2.0, 4.0),
    concurrency=16,
)
ESCROW = AtaraPayAccount(
    name="escrow",
    provider="atarapay",
    base_url="",
    public_key="demo-public",
    private_key="demo-private",
    concurrency=16,
)
_REVIEWED = 0.15
"""Share of the orders whose payment is looked at first."""
_REVIEW_S = 1.0
_UNHURT = 5
"""Requests that meet no fault, about an order whose story is told step by step."""

_encoder = msgspec.json.Encoder(decimal_format="number")

Verdict = Literal["agrees", "unsupported", "differs"]


class Plot(Struct, frozen=True):
    """What a shop's day is made of."""

    orders: int
    seconds: float
    seed: int
    began_at: datetime


class Merchant(ABC):
    """One shop with its provider."""

    faults: str
    legend: str
    """Of `wanted` and `held`."""

    def __init__(self, account: Account, history: History, sandbox: Sandbox, seed: int) -> None:
        self.account = account
        self.history = history
        self.sandbox = sandbox
        self._random = Random(seed)
        self._tokens = Tokens([CALLBACK_SECRET])
        self._callbacks = ""

    @property
    def name(self) -> str:
        """Of the account."""
        return self.account.name

    def caller(self) -> Caller:
        """The account as the receiver of callbacks knows it."""
        return Caller(name=self.name, provider=self.account.provider, callback_secrets=(CALLBACK_SECRET,))

    async def open(self, callbacks: str) -> None:
        """Its provider begins to serve. `callbacks`: the base URL of the receiver."""
        self._callbacks = callbacks
        self.account = replace(self.account, base_url=await self.sandbox.start())

    def _address(self, purpose: str, reference: str = "") -> str:
        token = self._tokens.token(self.name, purpose, reference)
        return self._callbacks + Address(self.name, purpose, token, reference).path()

    @abstractmethod
    def place(self, order: ShopOrder) -> None:
        """The shopper pays: the provider hears of the order."""

    def _pay(self, review: bytes, approve: bytes) -> None:
        """The payment is good: at once, or after a while in which somebody looks at it. Both as `acts` has them."""
        is_reviewed = self._random.random() < _REVIEWED
        if is_reviewed:
            self.sandbox.act(review)
        self.sandbox.call_later(_REVIEW_S if is_reviewed else 0.0, lambda: self.sandbox.act(approve))

    def happen(self, at_s: float) -> Iterable[ShopEvent]:  # noqa: ARG002 - at most providers nothing does
        """What can happen at the provider now does, and the shop's answer to it."""
        return ()

    @property
    def is_over(self) -> bool:
        """Nothing happens at the provider any more, and nobody has to hear of anything."""
        return not self.sandbox.late_count and not self.sandbox.pushes.pending

    @abstractmethod
    def wanted(self, order: ShopOrder) -> str:
        """What must be held, in the end."""

    @abstractmethod
    def held(self, order: ShopOrder) -> str:
        """What is held."""

    def verdict(self, order: ShopOrder, view: OrderView | None) -> Verdict:
        """Whether the provider holds of an order what became of it, as far as it can be told that."""
        if order.is_unsupported:
            is_parked = view is not None and view.status == "parked" and view.reason.startswith("unsupported")
            return "unsupported" if is_parked else "differs"
        return "agrees" if self._agrees(order) else "differs"

    def _agrees(self, order: ShopOrder) -> bool:
        return self.wanted(order) == self.held(order)


class AtSequra(Merchant):
    """Carts, shipped and to ship, told whole each time."""

    sandbox: SequraSandbox
    legend = "cents shipped | to ship"
    faults = (
        "500=0.04,503=0.02:1s,429=0.01:1s,409=0.03,reset_applied=0.02,reset_lost=0.02,timeout_applied=0.02,"
        "slow=0.1:0.3s"
    )

    def __init__(self, plot: Plot, send: Send) -> None:
        account = SequraAccount(
            name="acme",
            provider="sequra",
            base_url="",
            merchant_id="acme",
            username="demo",
            password="demo-secret",  # noqa: S106 - of a sandbox
            concurrency=16,
        )
        history = make_history(plot.seed, plot.orders, plot.seconds, account="acme", began_at=plot.began_at)
        plan = FaultPlan.parse(f"{self.faults},{PUSHES}")
        merchants = {account.merchant_id: (account.username, account.password)}
        sandbox = SequraSandbox(merchants, plan, plot.seed, send=send, haste=HASTE)
        super().__init__(account, _with_grown_order(history, plot), sandbox, plot.seed)
        told = [order for order in history.orders.values() if order.told]
        for order in self._random.sample(told, min(3, len(told))):
            self.sandbox.faults.script(account.merchant_id, order.reference, "422")

    def place(self, order: ShopOrder) -> None:
        named = {"merchant": "acme", "order_ref": order.reference}
        webhook = self._address("webhook", order.reference)
        self.sandbox.checkout(_json(named | {"webhook": webhook}))
        self._pay(_json(named | {"event": "needs_review"}), _json(named | {"event": "approved"}))

    def wanted(self, order: ShopOrder) -> str:
        return _carts(order.carts_minor())

    def held(self, order: ShopOrder) -> str:
        held = self.sandbox.held.get(("acme", order.reference))
        return _carts(None if held is None else (held.shipped_minor, held.unshipped_minor))


class AtQliro(Merchant):
    """Units, reserved and captured, each command done once its transaction is."""

    sandbox: QliroSandbox
    sandbox_type = QliroSandbox
    market = SWEDEN
    legend = "units kept: cents captured | units to ship: cents reserved"
    faults = (
        "500=0.03,503=0.02:1s,reset_applied=0.02,reset_lost=0.02,timeout_applied=0.02,slow=0.1:0.3s,"
        "result_late=0.1:2s,result_error=0.03"
    )

    def __init__(self, plot: Plot, send: Send) -> None:
        account = HATS
        plan = FaultPlan.parse(f"{self.faults},{PUSHES}")
        sandbox = self.sandbox_type(account.api_key, account.api_secret, plan, plot.seed, send=send, haste=HASTE)
        history = make_history(
            plot.seed, plot.orders, plot.seconds, account=account.name, began_at=plot.began_at, market=self.market
        )
        super().__init__(account, history, sandbox, plot.seed)

    def place(self, order: ShopOrder) -> None:
        items = [_item(line.reference, "Product", line.unit_minor, line.ordered) for line in order.lines]
        if order.handling_minor:
            items.append(_item("ship-std", "Shipping", order.handling_minor, 1))
        placed = {
            "OrderId": int(order.number),
            "MerchantReference": order.reference,
            "Currency": SWEDEN.currency,
            "OrderItems": items,
            "MerchantCheckoutStatusPushUrl": self._address("checkout-status", order.reference),
            "MerchantOrderManagementStatusPushUrl": self._address("order-status", order.reference),
        }
        self.sandbox.checkout(_json(placed))
        named = {"OrderId": int(order.number)}
        self._pay(_json(named | {"Status": "OnHold"}), _json(named | {"Status": "Completed"}))

    def wanted(self, order: ShopOrder) -> str:
        kept = {line.reference: line.kept for line in order.lines}
        pending = {line.reference: line.ordered - line.cancelled - line.shipped for line in order.lines}
        if order.cancelled:
            pending = dict.fromkeys(pending, 0)
        prices = {line.reference: line.unit_minor for line in order.lines}
        # Charges go whole: with the first capture, and while there is none they are reserved as long as goods are. What
        # went and came back before anybody told it is never captured, and no charge is without goods.
        found = self.sandbox.orders.get(int(order.number))
        is_captured = any(kept.values()) or bool(found and found.captures)
        is_reserved = any(pending.values())
        captured = _worth(kept, prices) + (order.handling_minor if is_captured else 0) - order.refunded_minor
        reserved = _worth(pending, prices) + (order.handling_minor if is_reserved and not is_captured else 0)
        return _units(kept, captured, pending, reserved)

    def held(self, order: ShopOrder) -> str:
        found = self.sandbox.orders.get(int(order.number))
        if found is None:
            return "nothing"
        goods = [line.reference for line in order.lines]
        kept, reserved = dict.fromkeys(goods, 0), dict.fromkeys(goods, 0)
        for capture in found.captures.values():
            for key, item in capture.items.items():
                if item.type == "Product":
                    kept[item.reference] += capture.remaining(key)
        for items in found.reserved.values():
            for item in items.values():
                if item.type == "Product":
                    reserved[item.reference] += item.quantity
        return _units(kept, found.captured_minor, reserved, found.left_minor)


class AtAtaraPay(Merchant):
    """One amount in escrow: delivered, or given back, or not to be told."""

    sandbox: AtaraPaySandbox
    sandbox_type = AtaraPaySandbox
    market = NIGERIA
    legend = "accepted statuses"
    faults = "500=0.03,502=0.02,503=0.02:1s,reset_applied=0.03,reset_lost=0.02,timeout_applied=0.03,slow=0.1:0.3s"

    def __init__(self, plot: Plot, send: Send) -> None:
        account = ESCROW
        # Nothing says that AtaraPay's notifications come again, so one that is lost is lost: not here.
        plan = FaultPlan.parse(f"{self.faults},{PUSHES.rpartition(',')[0]}")
        sandbox = self.sandbox_type(account.public_key, account.private_key, plan, plot.seed, send=send, haste=HASTE)
        self._began_at = plot.began_at
        self._ahead: list[ShopOrder] = []
        history = make_history(
            plot.seed, plot.orders, plot.seconds, account=account.name, began_at=plot.began_at, market=self.market
        )
        super().__init__(account, history, sandbox, plot.seed)
        self._keys = (account.public_key, account.private_key)
        for order in history.orders.values():
            if order.is_unsupported:  # it is told as delivered before a part of it comes back, as the README tells it
                sandbox.faults.script(SELLER, order.number, *["ok"] * _UNHURT)

    def caller(self) -> Caller:
        public_key, private_key = self._keys
        return replace(super().caller(), public_key=public_key, private_key=private_key)

    async def open(self, callbacks: str) -> None:
        await super().open(callbacks)
        self.sandbox.callback_url = self._address("notification")

    def place(self, order: ShopOrder) -> None:
        self.sandbox.open(order.number, order.reference, order.total_minor)
        if order.acts:
            self._ahead.append(order)

    def happen(self, at_s: float) -> Iterable[ShopEvent]:
        for order in self._ahead:
            act = order.acts[0]
            if act == REDELIVER:
                yield redelivered(order, at_s, self._began_at)
            elif not self.sandbox.do(order.number, Act(act)):
                continue
            del order.acts[0]
        self._ahead = [order for order in self._ahead if order.acts]

    @property
    def is_over(self) -> bool:
        return not self._ahead and super().is_over

    def wanted(self, order: ShopOrder) -> str:
        if order.is_unsupported:
            return "cannot be sent"
        return ", ".join(order.words) or ("cancelled there" if order.cancelled else "nothing sent")

    def held(self, order: ShopOrder) -> str:
        found = self.sandbox.escrows.get(order.number)
        if found is None:
            return "nothing"
        return ", ".join(found.words) or _untold(found)

    def verdict(self, order: ShopOrder, view: OrderView | None) -> Verdict:
        if order.cancelled and (view is None or view.shipped or view.unshipped):
            return "differs"  # what was cancelled there has to be known here
        return super().verdict(order, view)


def _untold(found: Escrow) -> str:
    return "cancelled there" if found.state is State.CANCELLED else "nothing sent"


def _item(reference: str, kind: str, minor: int, quantity: int) -> dict[str, Any]:
    ex_vat = without_tax(minor, SWEDEN.vat_rate_bp or 0)
    prices = {"PricePerItemIncVat": Decimal(minor).scaleb(-2), "PricePerItemExVat": Decimal(ex_vat).scaleb(-2)}
    return {"MerchantReference": reference, "Type": kind, "Quantity": quantity, **prices}


def _json(value: dict[str, Any]) -> bytes:
    return _encoder.encode(value)


def _worth(units: dict[str, int], prices: dict[str, int]) -> int:
    return sum(count * prices[reference] for reference, count in units.items())


def _units(kept: dict[str, int], captured_minor: int, reserved: dict[str, int], reserved_minor: int) -> str:
    both = (kept, captured_minor), (reserved, reserved_minor)
    return " | ".join(f"{'+'.join(str(units[each]) for each in sorted(units))}: {minor}" for units, minor in both)


def _carts(carts: tuple[int, int] | None) -> str:
    return "nothing sent" if carts is None else f"{carts[0]} | {carts[1]}"


def _with_grown_order(history: History, plot: Plot) -> History:
    """One order that grows by a fifth: seQura would refuse it, so it is parked until the shop corrects it."""
    subject = "acme/grown"
    sizes = (
        (0.5, "order.confirmed", 10),
        (1.5, "order.cart_updated", 12),
        (plot.seconds * 0.7, "order.cart_updated", 11),
    )
    events: list[ShopEvent] = []
    for number, (at_s, kind, count) in enumerate(sizes):
        line = {"reference": "mug", "name": "Mug", "quantity": count, "unit_price_minor": 1000}
        event = {
            "specversion": "1.0",
            "id": f"grown-{number}",
            "source": "/shops/demo",
            "type": kind,
            "time": plot.began_at.replace(microsecond=number).isoformat(timespec="microseconds"),
            "subject": subject,
            "data": {"currency": SPAIN.currency, "lines": [line | {"total_minor": 1000 * count}]},
        }
        events.append(ShopEvent(at_s, subject, _json(event)))
    order = ShopOrder(subject, [ShopLine("mug", "Mug", 1000, 11)], 0, told=True)
    merged = sorted([*history.events, *events], key=lambda event: event.at_s)
    return History(merged, history.orders | {subject: order}, history.poisoned)
