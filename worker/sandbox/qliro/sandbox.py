"""Qliro's sandbox: commands that are worked on after they were answered, and pushes once they are done.

    GET  {any path}/v2/orders/{id or reference}, POST {any path}/v2/{operation}     Qliro's Admin API
    POST /checkout      an order is placed: members of Qliro's own CreateOrder, with `OrderId` and `PaymentMethodName`
    POST /acts {"OrderId", "Status"}    a checkout status push: Completed, OnHold, Refused, InProcess
    POST /acts {"OrderId", "Upsell": {"OrderItems", "ReplacesOriginalPaymentTransaction"?, "Status"?}}
                        the shopper adds something; `Status` `Error`: and it comes to nothing
    POST /questions {"OrderId", "Question": "validation" | "shipping_methods" | "shipping_addresses", …}
                        asks the shop, with other members of the question as they are given here; says its answer

Pushes: developers.qliro.com, "Callbacks" (read 2026-11); when they come again: quoted by a third party, of which the
first eight are used.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from random import Random
from typing import Any, Literal
from urllib.parse import unquote

import msgspec

from worker.errors import UsageError
from worker.sandbox.attempts import JSON, Answer, Asked, Attempt, Call
from worker.sandbox.faults import FaultPlan
from worker.sandbox.pushes import Push
from worker.sandbox.qliro import asking
from worker.sandbox.qliro.api import QliroApi, item_of, pushed, shown
from worker.sandbox.qliro.orders import FINAL, Item, Order, Refusal, Result
from worker.sandbox.server import Key, Sandbox

RECEIVED = {"CallbackResponse": "received"}
METHOD = "QLIRO_INVOICE"
BROKEN = ("PSP_ERROR", "Duplicate Transaction")
"""How a command comes to nothing: the exchange with the bank broke, and it may be tried again."""
WORKS_S = 0.5
"""How long a command is worked on at most, when nothing goes wrong. Ours."""
_DIGITS_7 = "0Z"
_TICK_S = 0.002

_encoder = msgspec.json.Encoder(decimal_format="number")


class Checkout(msgspec.Struct, forbid_unknown_fields=True, rename="pascal"):
    """An order as it was placed."""

    order_id: int
    merchant_reference: str
    currency: str
    order_items: list[msgspec.Raw]
    payment_method_name: str = METHOD
    merchant_checkout_status_push_url: str = ""
    merchant_order_management_status_push_url: str = ""
    merchant_order_validation_url: str = ""
    merchant_order_available_shipping_methods_url: str = ""
    merchant_order_available_shipping_addresses_url: str = ""


class Upsell(msgspec.Struct, forbid_unknown_fields=True, rename="pascal"):
    """What a shopper adds to an order that is paid."""

    order_items: list[msgspec.Raw]
    replaces_original_payment_transaction: bool = False
    status: Literal["Completed", "Error"] = "Completed"


class Happening(msgspec.Struct, forbid_unknown_fields=True, rename="pascal"):
    """What becomes of an order's payment, or is added to the order: one of the two."""

    order_id: int
    status: Literal["Completed", "OnHold", "Refused", "InProcess"] | None = None
    upsell: Upsell | None = None


class Questioned(msgspec.Struct, forbid_unknown_fields=True, rename="pascal"):
    """A question to the shop."""

    order_id: int
    question: asking.Name
    customer: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    shipping_address: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    identity_verification: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class Addresses(msgspec.Struct, frozen=True):
    """Where an order's pushes go, and what is asked of its shop; empty: nowhere."""

    checkout_status: str = ""
    order_status: str = ""
    validation: str = ""
    shipping_methods: str = ""
    shipping_addresses: str = ""


class QliroSandbox(Sandbox):
    """`works_s`: how long a command is worked on at most."""

    name = "Qliro"
    order_heads = ("order", "reference", "currency", "reserved", "captured", "transactions", "cancelled")
    denied = Answer(401, msgspec.json.encode({"ErrorCode": "UNAUTHORIZED", "ErrorMessage": "Unauthorized"}))
    retries_s = (0.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 1800.0)

    def __init__(
        self,
        api_key: str,
        api_secret: str,
        faults: FaultPlan | None = None,
        seed: int = 0,
        *,
        works_s: float = WORKS_S,
        **options: Any,
    ) -> None:
        super().__init__(faults, seed, **options)
        self._api = QliroApi(api_key, api_secret, lambda _name: Result())
        self._random = Random(seed)
        self._works_s = works_s
        self._addresses: dict[int, Addresses] = {}
        self.orders, self.requests = self._api.orders, self._api.requests
        """By Qliro's id."""
        self.breaches = self._api.breaches

    def is_asked(self, method: str, path: str) -> bool:
        return method in ("GET", "POST") and "/v2/" in path

    def about(self, call: Call) -> Key | None:
        if call.method == "GET":
            text = unquote(call.raw_path.partition("?")[0].rpartition("/")[2])
        else:
            text = _order_id(call.body)
        order = self.orders.get(int(text)) if text.isdecimal() else None
        return (self._api.api_key, text if order is None else order.reference) if text else None

    def take(self, attempt: Attempt, key: Key | None, call: Call) -> Answer:
        self._api.fate = partial(self._fate, key)
        path = call.raw_path.partition("?")[0]
        try:
            status, body = self._api.answer(
                call.method, path, call.headers.get("Authorization", ""), call.body, self.wall_s
            )
        except (msgspec.DecodeError, LookupError, TypeError, ValueError):
            return self.refusal(400, "Property: body, Message: not understood")
        if call.method == "POST" and status < 300:
            attempt.applied_at = self._wall()
            self._work_later(int(_order_id(call.body)))
        self.post_pushes()
        return Answer(status, body)

    def _fate(self, key: Key | None, _name: str) -> Result:
        after_s = self._random.uniform(0.0, self._works_s)
        fault = None if key is None else self.faults.draw_later("result", *key)
        if fault is None:
            return Result(after_s)
        self.fault_counts[fault.kind] += 1
        if fault.kind == "result_error":
            return Result(after_s, "Error", *BROKEN)
        return Result(after_s + (fault.time_s or 0.0))

    def _work_later(self, order_id: int) -> None:
        """Once the order's transactions, which are all new, are due."""
        due = [one.at + one.result.after_s for one in self.orders[order_id].pending]
        if due:
            self.call_later(max(0.0, max(due) - self.wall_s) + _TICK_S, self._work)

    def _work(self) -> None:
        self._api.advance(self.wall_s)
        self.post_pushes()

    def post_pushes(self) -> None:
        """Pushes what has ended since."""
        pushes, self._api.pushes = self._api.pushes, []
        for each in pushes:
            self._push(each["OrderId"], "order_status", pushed(self.orders[each["OrderId"]], each))

    def refusal(self, status: int, text: str) -> Answer:
        return Answer(status, msgspec.json.encode({"ErrorCode": "INVALID_INPUT", "ErrorMessage": text}))

    def is_taken(self, status: int, body: bytes) -> bool:
        try:
            return status == 200 and msgspec.json.decode(body) == RECEIVED
        except msgspec.DecodeError:
            return False

    # --- what is held ---

    def keys(self) -> Iterable[Key]:
        return ((self._api.api_key, order.reference) for order in reversed(self.orders.values()))

    def _of(self, key: Key) -> Order | None:
        return self._api.named(key[1]) if key[0] == self._api.api_key else None

    def row(self, key: Key) -> Sequence[object]:
        of = self._of(key)
        assert of is not None, "it is one of `keys`"
        count = sum(one.status in FINAL for one in of.transactions.values())
        transactions = f"{count} of {len(of.transactions)}"
        return of.id, of.reference, of.currency, of.left_minor, of.captured_minor, transactions, of.is_cancelled

    def shown(self, key: Key) -> dict[str, Any] | None:
        order = self._of(key)
        return None if order is None else msgspec.json.decode(_encoder.encode(shown(order)))

    # --- what happens there ---

    def checkout(self, body: bytes) -> None:
        told = msgspec.json.decode(body, type=Checkout)
        if told.order_id in self.orders:
            raise UsageError(f"order {told.order_id} was placed before")
        items = _items(told.order_items)
        order = self._api.checkout(
            told.order_id, told.merchant_reference, told.currency, told.payment_method_name, items, self.wall_s
        )
        self._addresses[order.id] = Addresses(
            told.merchant_checkout_status_push_url,
            told.merchant_order_management_status_push_url,
            told.merchant_order_validation_url,
            told.merchant_order_available_shipping_methods_url,
            told.merchant_order_available_shipping_addresses_url,
        )

    def act(self, body: bytes) -> None:
        told = msgspec.json.decode(body, type=Happening)
        order = self._placed(told.order_id)
        if (told.status is None) == (told.upsell is None):
            raise UsageError("an act is a Status, or an Upsell")
        if told.upsell is not None:
            said = self._add(order, told.upsell)
        else:
            kind = "CustomerCheckoutStatus"
            said = {
                "Status": told.status,
                "NotificationType": kind,
                "PaymentTransactionId": next(iter(order.transactions)),
            }
        at = datetime.fromtimestamp(self.wall_s, UTC).isoformat(timespec="microseconds")
        named = {"OrderId": order.id, "MerchantReference": order.reference}
        self._push(order.id, "checkout_status", named | said | {"Timestamp": at.removesuffix("+00:00") + _DIGITS_7})

    def _placed(self, order_id: int) -> Order:
        """Raises `UsageError`."""
        order = self.orders.get(order_id)
        if order is None:
            raise UsageError(f"no order {order_id} was placed here")
        return order

    def _add(self, order: Order, upsell: Upsell) -> dict[str, Any]:
        """What a push says of an upsell; raises `UsageError`."""
        said: dict[str, Any] = {"Status": upsell.status, "NotificationType": "UpsellStatus", "PaymentTransactionId": 0}
        if upsell.status == "Error":
            return said
        if order.is_cancelled:
            raise UsageError(f"order {order.id} is cancelled: nothing can be added to it")
        replaced = max(order.reserved) if upsell.replaces_original_payment_transaction else None
        made = self._api.reserve(order, _items(upsell.order_items), self.wall_s, replaced)
        said["PaymentTransactionId"] = made.id
        if replaced is not None:
            said |= {"OriginalPaymentTransactionId": replaced, "ReplacesOriginalPaymentTransaction": True}
        return said

    async def ask(self, body: bytes) -> Asked:
        told = msgspec.json.decode(body, type=Questioned)
        order = self._placed(told.order_id)
        url = getattr(self._addresses.get(order.id, Addresses()), told.question)
        if not url:
            raise UsageError(f"no checkout has said where order {order.id} is asked for {told.question}")
        overriding = {
            "Customer": told.customer,
            "ShippingAddress": told.shipping_address,
            "IdentityVerification": told.identity_verification,
        }
        said = {name: value for name, value in overriding.items() if value is not msgspec.UNSET}
        push = self._to_shop(order, told.question, url, asking.question(told.question, order, said))
        answered, seconds = await self.pushes.ask(push)
        if answered is None or seconds > asking.DEADLINE_S:
            return Asked(None, b"", seconds, f"no answer within {asking.DEADLINE_S:g} s")
        return Asked(*answered, seconds, asking.problem(told.question, *answered))

    def _push(self, order_id: int, to: Literal["checkout_status", "order_status"], said: dict[str, Any]) -> None:
        what = f"{said.get('PaymentType') or said.get('NotificationType')} {said['Status']}"
        url = getattr(self._addresses.get(order_id, Addresses()), to)
        self.pushes.post(self._to_shop(self.orders[order_id], what, url, said))

    def _to_shop(self, order: Order, what: str, url: str, said: dict[str, Any]) -> Push:
        return Push(
            merchant=self._api.api_key,
            order_ref=order.reference,
            what=what,
            url=url,
            content_type=JSON,
            body=_encoder.encode(said),
        )


def _items(lines: Sequence[msgspec.Raw]) -> list[Item]:
    """Raises `UsageError`."""
    decoder = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal)
    try:
        return [item_of(decoder.decode(line)) for line in lines]
    except (Refusal, LookupError, TypeError) as error:
        raise UsageError(f"OrderItems: {error}") from None


class _Body(msgspec.Struct):
    order_id: int | str = msgspec.field(default="", name="OrderId")


def _order_id(body: bytes) -> str:
    try:
        return str(msgspec.json.decode(body, type=_Body).order_id)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
