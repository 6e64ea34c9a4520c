"""Qliro's Admin API over its orders: requests in, answers and pushes out. Pure: time and chance are arguments."""

import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from urllib.parse import unquote
from uuid import UUID

import msgspec

from worker.sandbox.qliro.orders import FINAL, Item, Json, Key, Make, Order, Refusal, Result, Transaction

MEMORY_S = 7 * 86_400.0
"""How long a RequestId is kept (OpenAPI, June 2025)."""
LINES_MAX = 200
RELEASED = "Transaction Declined (referencing transaction does not match)"
"""What a cancellation's error says when the bank had let go of the money before."""
DENIED = ("INVALID_REQUEST", "Duplicate RequestId")
"""Unverified: Qliro publishes no code for a RequestId that comes again."""

_PATH = re.compile(r".*/v2/([A-Za-z]+)(?:/([^/?]+))?\Z")
_ENTRIES = {
    "MarkItemsAsShipped": "Shipments",
    "ReturnItems": "Returns",
    "UpdateItems": "Updates",
    "AddItemsToInvoice": "Additions",
    "cancelOrder": "",
}
_encoder = msgspec.json.Encoder(decimal_format="number")
_decoder = msgspec.json.Decoder(float_hook=Decimal)


class QliroApi:
    """Every order of a merchant. `fate` says how a command's transaction will end."""

    def __init__(self, api_key: str, api_secret: str, fate: Callable[[str], Result]) -> None:
        self.api_key, self.secret, self.fate = api_key, api_secret, fate
        self.orders: dict[int, Order] = {}
        self.requests: dict[str, float] = {}
        """By RequestId, when it came."""
        self._by_reference: dict[str, Order] = {}
        self.breaches: list[str] = []
        """What a client that looks before it acts never does."""
        self.pushes: list[Json] = []
        self.looked: set[int] = set()
        """Orders that nobody but the client has changed since its last look."""
        self._ids = 400_000
        self._under_way: dict[int, Order] = {}
        """Orders with transactions that may not be final."""

    def checkout(
        self, order_id: int, reference: str, currency: str, method: str, items: list[Item], now: float
    ) -> Order:
        """An order as the checkout leaves it: one reservation."""
        order = self.orders[order_id] = Order(order_id, reference, currency, method)
        self._by_reference.setdefault(reference, order)
        self.reserve(order, items, now)
        return order

    def named(self, reference: str) -> Order | None:
        """The order that the shop calls so; of several, the first one."""
        return self._by_reference.get(reference)

    def called(self, text: str) -> Order | None:
        """The order of a path. A number is an OrderId, whatever the shop calls its orders."""
        return self.orders.get(int(text)) if text.isdigit() else self.named(text)

    def reserve(self, order: Order, items: list[Item], now: float, replaces: int | None = None) -> Transaction:
        """One more reservation, as the checkout and the shopper's upsells make them; or one instead of `replaces`."""
        self.looked.discard(order.id)
        make = self.make(order, now, Result())
        held = {} if replaces is None else order.reserved.pop(replaces)
        reserved = {key: item.of(item.quantity) for key, item in held.items() if item.quantity}
        for item in items:
            before = reserved[item.key].quantity if item.key in reserved else 0
            reserved[item.key] = item.of(before + item.quantity)
        made = make("Preauthorization", _worth(reserved), replaces)
        made.status = "Success"
        if replaces is not None:
            make("Reversal", _worth(held), replaces).status = "Success"
        order.reserved[made.id] = reserved
        order.known |= {item.key: item for item in items}
        order.actions += [("Reserve", made.id, item.of(item.quantity)) for item in reserved.values()]
        return made

    def advance(self, now: float) -> None:
        """Ends the transactions whose time has come."""
        for order in list(self._under_way.values()):
            for made in sorted(order.pending, key=lambda one: (one.at + one.result.after_s, one.id)):
                if made.at + made.result.after_s <= now:
                    self._finish(order, made)
            if not order.pending:
                del self._under_way[order.id]

    def _finish(self, order: Order, made: Transaction) -> None:
        made.status = made.result.status
        if made.status == "Success":
            made.apply()
        elif made.result.words == RELEASED:
            order.release()
        self.pushes.append({"OrderId": order.id} | _view(order, made))

    def make(self, order: Order, now: float, result: Result) -> Make:
        """Makes transactions that will end so."""

        def make(kind: str, amount: int, original: int | None) -> Transaction:
            self._ids += 1
            at = max([now] + [one.at + 0.001 for one in order.transactions.values()])
            made = Transaction(self._ids, kind, amount, at, result, lambda: None, original)
            order.transactions[made.id] = made
            self._under_way[order.id] = order
            return made

        return make

    # --- requests ---

    def answer(self, method: str, path: str, authorization: str, body: bytes, now: float) -> tuple[int, bytes]:
        """(status, body) of a request."""
        self.advance(now)
        try:
            return 200, _encoder.encode(self._answer(method, path, authorization, body, now))
        except Refusal as refusal:
            said = {
                "ErrorCode": refusal.code,
                "ErrorMessage": str(refusal),
                "ErrorReference": f"ref-{len(self.requests)}",
            }
            return refusal.status, _encoder.encode(said)

    def _answer(self, method: str, path: str, authorization: str, body: bytes, now: float) -> Json:
        token = b64encode(sha256(body + self.secret.encode()).digest()).decode()
        if authorization != f"Qliro {token}":
            raise Refusal("UNAUTHORIZED", "Unauthorized", 401)
        match = _PATH.match(path)
        if match is None or (method == "POST") != (match[1] in _ENTRIES):
            raise Refusal("NOT_FOUND", "no such operation", 404)
        if method == "POST":
            return self._command(match[1], _decoder.decode(body), now)
        order = self._find(unquote(match[2] or ""))
        self.looked.add(order.id)
        return shown(order)

    def _find(self, text: str) -> Order:
        found = self.called(text)
        if found is None:
            raise Refusal("ORDER_NOT_FOUND", f"Evaluation, order {text} was not found", 404)
        return found

    def _command(self, name: str, body: Json, now: float) -> Json:
        if body["MerchantApiKey"] != self.api_key:
            raise Refusal("UNAUTHORIZED", "Unauthorized", 401)
        order, request_id = self._find(str(body["OrderId"])), str(UUID(body["RequestId"]))
        if now - self.requests.get(request_id, -MEMORY_S) < MEMORY_S:
            raise Refusal(*DENIED)
        self.requests[request_id] = now
        before = set(order.transactions)
        try:
            self._perform(order, name, body, now)
        except Refusal as refusal:
            if order.id in self.looked:
                self.breaches.append(f"{name} of {order.id}: {refusal.code}, {refusal}")
            raise
        made = [one for one in order.transactions.values() if one.id not in before]
        return {"PaymentTransactions": [{"PaymentTransactionId": one.id, "Status": one.status} for one in made]}

    def _perform(self, order: Order, name: str, body: Json, now: float) -> None:
        if name != "cancelOrder" and body["Currency"] != order.currency:
            raise Refusal("INVALID_INPUT", "Property: Currency, Message: not the order's")
        if order.pending:
            raise Refusal("OPERATION_NOT_SUPPORTED", "Evaluation, Another transaction is already in process")
        if order.is_cancelled and name in ("MarkItemsAsShipped", "UpdateItems", "cancelOrder"):
            raise Refusal("ORDER_HAS_BEEN_CANCELLED", "Evaluation, the order has been cancelled")
        make = self.make(order, now, self.fate(name))
        if name == "cancelOrder":
            order.cancel(make)
            return
        (entry,) = body[_ENTRIES[name]]
        which, lines = entry.get("PaymentTransactionId"), [item_of(one) for one in entry["OrderItems"]]
        if len(lines) > LINES_MAX:
            raise Refusal("INVALID_INPUT", f"Property: OrderItems, Message: at most {LINES_MAX}")
        if name == "ReturnItems":
            fees = sum(_minor(one["PricePerItemIncVat"]) for one in entry.get("Fees", ()))
            less = -sum(_minor(one["PricePerItemIncVat"]) for one in entry.get("Discounts", ()))
            order.give_back(which, lines, fees, less, make)
        else:
            do = {"MarkItemsAsShipped": order.ship, "UpdateItems": order.update, "AddItemsToInvoice": order.add}[name]
            do(which, lines, make)


# --- JSON --------------------------------------------------------------------------------------------------------


def _minor(amount: int | Decimal) -> int:
    cents = Decimal(amount) * 100
    if cents != int(cents):
        raise Refusal("SYSTEM_ERROR", "Input must have no more than two decimal places")
    return int(cents)


def item_of(line: Json) -> Item:
    """A line as requests have it. Raises `Refusal` or `LookupError`."""
    inc, ex = _minor(line["PricePerItemIncVat"]), _minor(line.get("PricePerItemExVat", 0))
    if line["Quantity"] < 1:
        raise Refusal("INVALID_INPUT", "Property: Quantity, Message: at least 1")
    return Item(line["MerchantReference"], line["Type"], inc, ex, line["Quantity"], line.get("Description", ""))


def _worth(items: Mapping[Key, Item]) -> int:
    return sum(item.inc * item.quantity for item in items.values())


def _money(minor: int) -> Decimal:
    return Decimal(minor).scaleb(-2)


def shown(order: Order) -> Json:
    """What GetOrder says, somebody's personal data included: no client needs them."""
    return {
        "OrderId": order.id,
        "MerchantReference": order.reference,
        "Currency": order.currency,
        "Country": "SE",
        "Customer": {"Email": "somebody@example.com", "PersonalNumber": "790625-5307"},
        "OrderItemActions": [
            {
                "Id": number,
                "ActionType": action,
                "PaymentTransactionId": made,
                "MerchantReference": item.reference,
                "Type": item.type,
                "Quantity": item.quantity,
                "PricePerItemIncVat": _money(item.inc),
                "PricePerItemExVat": _money(item.ex),
                "Description": item.description,
            }
            for number, (action, made, item) in enumerate(order.actions, start=1)
        ],
        "PaymentTransactions": [_view(order, made) for made in order.transactions.values()],
    }


def _view(order: Order, made: Transaction) -> Json:
    view = {
        "PaymentTransactionId": made.id,
        "OriginalPaymentTransactionId": made.original,
        "Type": made.type,
        "Amount": _money(made.amount),
        "Currency": order.currency,
        "Status": made.status,
        "Timestamp": datetime.fromtimestamp(made.at, UTC).isoformat(timespec="microseconds").replace("+00:00", "0Z"),
        "PaymentMethodName": order.method,
    }
    if made.status in FINAL - {"Success"}:
        view |= {"ErrorCode": made.result.code, "ProviderResultDescription": made.result.words}
    return view


def pushed(order: Order, view: Json) -> Json:
    """An order management push: the transaction in the names that pushes have, which are not those of GetOrder."""
    said = {"OrderId": order.id, "MerchantReference": order.reference}
    said |= {name: value for name, value in view.items() if name not in ("Type", "PaymentMethodName")}
    said["PaymentType"] = view["Type"]
    if view["OriginalPaymentTransactionId"] is not None:
        said["OriginalPaymentTransactionId"] = str(view["OriginalPaymentTransactionId"])
    return said
