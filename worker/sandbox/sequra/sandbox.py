"""seQura's sandbox: it takes order updates and delivery reports, and tells of an order by webhook.

    PUT  /merchants/{merchant}/orders/{order_ref}   an update; segments percent-encoded (`A14%2F12345`)
    POST /orders/delivery_reports                   a delivery report
    POST /checkout {"merchant", "order_ref", "total_minor"?, "webhook"?, "notify_url"?}
                                                    what the checkout tells of an order
    GET  /merchants/{merchant}/disbursements        what was paid out, and below it the lines of each disbursement
    POST /acts {"merchant", "order_ref", "event", "risk_level"?}            a webhook, with this event
    POST /acts {"merchant", "order_ref", "sq_state"}                        an IPN, with this state
    POST /questions {"merchant", "order_ref"}       whether the order can be cancelled; says the shop's answer
    POST /acts {"merchant", "event": "disburse", "on"?, "off_minor"?}       pays out what orders come to, up to a day;
                                                                            some are paid wrong, by so much

Pushes: docs.sequra.com, Webhooks (read 2026-11): a form; 2xx is taken, 501 is "not supported" and not sent again, else
up to ten times more, with growing pauses. Ours: how they grow.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any, Literal
from urllib.parse import urlencode
from uuid import NAMESPACE_URL, uuid5

import msgspec

from worker.errors import UsageError
from worker.sandbox.attempts import Answer, Asked, Attempt, Call
from worker.sandbox.faults import FaultPlan
from worker.sandbox.pushes import Push
from worker.sandbox.sequra.disbursements import Disbursements, Owed
from worker.sandbox.sequra.orders import DENIED, NO_ACCESS, NOT_FOUND, Orders, errors, shown
from worker.sandbox.sequra.reports import Reports
from worker.sandbox.server import Key, Sandbox, decode_segment

NOT_SUPPORTED = 501
REPORT_PATH = "/orders/delivery_reports"
DEADLINE_S = 5.0
"""What seQura waits for an answer."""
_FORM = "application/x-www-form-urlencoded"


class Checkout(msgspec.Struct, forbid_unknown_fields=True):
    """What the checkout tells of an order."""

    merchant: str
    order_ref: str
    total_minor: int | None = None
    webhook: str = ""
    """Where its events go; empty: nowhere."""
    notify_url: str = ""
    """Where its IPN goes."""


class Questioned(msgspec.Struct, forbid_unknown_fields=True):
    """Whether an order can be cancelled."""

    merchant: str
    order_ref: str


class _Cancelling(msgspec.Struct):
    result: Literal["cancelled", "toolate"]
    since: int = 0


class Act(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What seQura tells of an order, by webhook or by IPN, or does for a merchant."""

    merchant: str
    order_ref: str = ""
    event: Literal["approved", "needs_review", "cancel", "cancelled", "risk_assessment", "disburse"] | None = None
    risk_level: str = ""
    sq_state: Literal["approved", "needs_review"] | None = None
    on: date | None = None
    """Of a disbursement; `None`: today."""
    off_minor: dict[str, int] = {}
    """Of a disbursement, by order reference: how much more it pays than it should."""


def parse_order_url(raw_path: str) -> Key | None:
    """Merchant and order reference of a raw path, percent-decoded; None when it is not the path of an order.

    A slash inside a reference has to be encoded, as in `/merchants/camisasonline/orders/A14%2F12345`
    (docs.sequra.com, Order Update API, read 2026). `+` is itself.
    """
    match raw_path.partition("?")[0].split("/"):
        case ["", "merchants", merchant, "orders", order_ref] if merchant and order_ref:
            try:
                return decode_segment(merchant), decode_segment(order_ref)
            except ValueError:
                return None
    return None


class SequraSandbox(Sandbox):
    """`accounts`, `known` and `validate` are those of `Orders`; `validate=False` is for benchmarks of a sender."""

    name = "seQura"
    order_heads = ("merchant", "order", "currency", "unshipped", "shipped", "updates", "last update")
    denied = DENIED
    retries_s = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)

    def __init__(
        self,
        accounts: Mapping[str, tuple[str, str]],
        faults: FaultPlan | None = None,
        seed: int = 0,
        *,
        known: set[Key] | None = None,
        validate: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(faults, seed, **options)
        self._orders = Orders(accounts, known, validate=validate)
        self._webhooks: dict[Key, str] = {}
        self.held = self._orders.held
        self.reports: dict[str, Reports] = {}
        """By merchant."""
        self._notify_urls: dict[Key, str] = {}
        self.disbursements: dict[str, Disbursements] = {}
        """By merchant."""

    def register(self, merchant: str, order_ref: str, total_minor: int) -> None:
        """Makes an order known, with the total that was approved at checkout: see `Orders.register`."""
        self._orders.register((merchant, order_ref), total_minor)

    def is_asked(self, method: str, path: str) -> bool:
        if method == "GET":
            return _disbursed(path) is not None
        return method == "PUT" or (method == "POST" and path == REPORT_PATH)

    def about(self, call: Call) -> Key | None:
        if call.method == "GET":
            return _disbursed(call.raw_path.partition("?")[0])
        return parse_order_url(call.raw_path) if call.method == "PUT" else _reporter(call)

    def take(self, attempt: Attempt, key: Key | None, call: Call) -> Answer:
        if key is None:
            return NOT_FOUND
        authorization = call.headers.get("Authorization", "")
        if call.method == "PUT":
            return self._orders.take(attempt, key, authorization, call.body, self._wall())
        refused = self._orders.refused(key[0], authorization)
        if refused is not None:
            return refused
        if call.method == "GET":
            found = self._disbursements(key[0]).answer(call.raw_path.partition("?")[0])
            return NOT_FOUND if found is None else Answer(200, found)
        answer = self.reports.setdefault(key[0], Reports(key[0])).take(call.body)
        if answer.status < 300:
            attempt.applied_at = self._wall()
        return answer

    def refusal(self, status: int, text: str) -> Answer:
        return {403: NO_ACCESS, 404: NOT_FOUND}.get(status) or errors(status, text)

    def keys(self) -> Iterable[Key]:
        return reversed(self.held)

    def row(self, key: Key) -> Sequence[object]:
        of = self.held[key]
        return (*key, of.currency, of.unshipped_minor, of.shipped_minor, of.count, of.applied_at)

    def shown(self, key: Key) -> dict[str, Any] | None:
        held = self.held.get(key)
        return None if held is None else shown(key, held) | {"body": msgspec.Raw(held.body)}

    def is_taken(self, status: int, body: bytes) -> bool:
        return status == NOT_SUPPORTED or super().is_taken(status, body)

    def checkout(self, body: bytes) -> None:
        told = msgspec.json.decode(body, type=Checkout)
        key = (told.merchant, told.order_ref)
        if told.total_minor is not None:
            self.register(*key, told.total_minor)
        self._webhooks[key] = told.webhook
        self._notify_urls[key] = told.notify_url

    def act(self, body: bytes) -> None:
        act = msgspec.json.decode(body, type=Act)
        if act.event == "disburse":
            self.disburse(act.merchant, act.on, act.off_minor)
            return
        if (act.event is None) == (act.sq_state is None):
            raise UsageError("an act is an event, or an sq_state")
        key = (act.merchant, act.order_ref)
        if act.event is not None:
            more = {"risk_level": act.risk_level} if act.risk_level else {}
            self.pushes.post(self._webhook(key, act.event, more))
        elif act.sq_state is not None:
            more = {"product_code": "pp3", "sq_state": act.sq_state, f"{act.sq_state}_since": "0"}
            self.pushes.post(self._push(key, self._notify_urls, f"ipn {act.sq_state}", more))

    async def ask(self, body: bytes) -> Asked:
        told = msgspec.json.decode(body, type=Questioned)
        answered, seconds = await self.pushes.ask(self._webhook((told.merchant, told.order_ref), "cancel", {}))
        if answered is None or seconds > DEADLINE_S:
            return Asked(None, b"", seconds, f"no answer within {DEADLINE_S:g} s")
        return Asked(*answered, seconds, _problem(*answered))

    def _webhook(self, key: Key, event: str, more: Mapping[str, str]) -> Push:
        """Raises `UsageError`."""
        return self._push(key, self._webhooks, event, {"event": event, **more})

    def _push(self, key: Key, urls: Mapping[Key, str], what: str, more: Mapping[str, str]) -> Push:
        """Raises `UsageError`."""
        if key not in urls:
            raise UsageError(f"no checkout has said where events of {key[1]} go")
        form = {"order_ref": str(uuid5(NAMESPACE_URL, "/".join(key))), "order_ref_1": key[1], **more}
        return Push(
            merchant=key[0],
            order_ref=key[1],
            what=what,
            url=urls[key],
            content_type=_FORM,
            body=urlencode(form).encode(),
        )

    def disburse(self, merchant: str, on: date | None = None, off_minor: Mapping[str, int] | None = None) -> str:
        """Pays out what all orders of a merchant come to; the path of the disbursement."""
        held = {reference: each for (of, reference), each in self.held.items() if of == merchant}
        reports = self.reports.get(merchant)
        reported = {} if reports is None else reports.orders
        owed = {name: Owed(minor, minor) for name, each in reported.items() if (minor := each.shipped_minor)}
        owed |= {
            name: Owed(each.shipped_minor, each.shipped_minor + each.unshipped_minor) for name, each in held.items()
        }
        currency = next((each.currency for each in held.values()), "EUR")
        return self._disbursements(merchant).issue(owed, currency, on or self._wall().date(), off_minor or {})

    def _disbursements(self, merchant: str) -> Disbursements:
        return self.disbursements.setdefault(merchant, Disbursements(merchant))


def _problem(status: int, body: bytes) -> str:
    """Why an answer to `cancel` is none; empty: it is one."""
    if status == NOT_SUPPORTED:
        return ""
    try:
        found = msgspec.json.decode(body, type=_Cancelling)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return 'expected {"result": "cancelled"} or {"result": "toolate", "since": minutes}, or 501'
    return "" if status == 200 and (found.result == "cancelled" or found.since >= 0) else f"answered {status}"


def _disbursed(path: str) -> Key | None:
    """The merchant whose disbursements are asked for, or one of them."""
    match path.split("/"):
        case ["", "merchants", merchant, "disbursements"] | ["", "merchants", merchant, "disbursements", _] if merchant:
            try:
                return decode_segment(merchant), "disbursements"
            except ValueError:
                return None
    return None


class _Merchant(msgspec.Struct):
    id: str


class _Report(msgspec.Struct):
    merchant: _Merchant


class _Reported(msgspec.Struct):
    delivery_report: _Report


def _reporter(call: Call) -> Key | None:
    try:
        told = msgspec.json.decode(call.body, type=_Reported)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return told.delivery_report.merchant.id, "delivery report"
