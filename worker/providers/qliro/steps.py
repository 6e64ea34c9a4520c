"""The adapter for Qliro: reads an order, sends one command at a time, and waits for its result. Pure."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from msgspec.structs import replace

from worker.model.exchange import AwaitResult, Exchange, HttpRequest, HttpResponse, Settled, Step, Unsendable
from worker.model.order import Order
from worker.model.provider import Answered, GuaranteeLevel, Question, Update
from worker.providers.qliro import wanted as w
from worker.providers.qliro import wire
from worker.providers.qliro.command import Command
from worker.providers.qliro.memory import CHANGES_MAX, ERRORS_MAX, Memory, after_read, agreed, recall
from worker.providers.qliro.options import QliroAccount
from worker.providers.qliro.order import QliroOrder, worth
from worker.providers.qliro.plan import plan
from worker.providers.qliro.responses import read_command, read_order, why_pending

HOURLY_S = 3_600.0
_AGAIN = "Duplicate Transaction"
"""In the text of a failed transaction: Qliro lost contact with the payment provider, and retrying is right."""
_FAILED = "failed at Qliro"
_OTHER = "another order at Qliro"
_REPEATED = frozenset({"MarkItemsAsShipped", "UpdateItems"})
"""Commands that could move units back and forth without end; returns cannot, as each needs a capture."""


class Qliro:
    """The adapter. Level B: Qliro can be read, and denies a repeated request id for seven days."""

    name = "qliro"
    guarantee: GuaranteeLevel = "B"
    can_read = True

    def render(self, order: Order, account: QliroAccount) -> Update:  # noqa: ARG002 - it depends on facts alone
        wanted = w.want(order)
        return Update(w.digest(wanted), _problem(wanted), w.encode(wanted))

    def digest(self, order: Order) -> bytes:
        return w.digest(w.want(order))

    def next_step(self, asked: Question) -> Step:
        wanted, memory = w.decode(asked.update.body), recall(asked.remote)
        if asked.seen is None:
            return _read(asked, wanted, memory)
        there: QliroOrder = asked.seen
        if why := not_believed(wanted, memory, there, asked.reference):
            return Unsendable(why, asked.remote, kind=_OTHER)
        return _after_read(asked, wanted, memory, there)

    def read_response(self, asked: Question, sent: Exchange, response: HttpResponse) -> Answered:
        if sent.is_read:
            return read_order(response, asked.now_ms)
        poll_s = _poll_s(asked.account, 0)
        return Answered(read_command(recall(sent.remote), response, asked.now_ms, poll_s))

    def describe(self, remote: bytes) -> dict[str, Any]:
        memory = recall(remote)
        shown: dict[str, Any] = {}
        if memory.order_id:
            shown["order_id"] = str(memory.order_id)
        if memory.pending:
            shown["pending"] = memory.pending
        if memory.errors:
            shown["errors"] = memory.errors
        if memory.shipped_differs_minor or memory.unshipped_differs_minor:
            differs = {"shipped": memory.shipped_differs_minor, "unshipped": memory.unshipped_differs_minor}
            shown["differs_minor"] = differs
        return shown


def _problem(wanted: w.Wanted) -> str | None:
    for goods in wanted.goods:
        if (goods.kept or goods.pending) and not wire.is_item_reference(goods.reference):
            return f"reference {goods.reference!r}: Qliro accepts only letters, digits and (.)'-_&,/+:, at most 200"
    return None


# --- the read ----------------------------------------------------------------------------------------------------


def _read(asked: Question, wanted: w.Wanted, memory: Memory) -> Step:
    """`GET {base}/v2/orders/{OrderId or reference}`."""
    which = wanted.order_id or (str(memory.order_id) if memory.order_id else "")
    if not which and wire.CHECKOUT_REFERENCE.fullmatch(asked.reference):
        which = wanted.hint  # any other reference is not Qliro's, so the response would not show whose order it is
    if not which:
        if not wire.ORDER_REFERENCE.fullmatch(asked.reference):
            why = "references.provider is missing: Qliro has no orders under such a reference"
            return AwaitResult(None, why, asked.remote)
        which = asked.reference
    return Exchange(order_request(asked.account, which, asked.trace_headers), is_read=True)


_NO_HEADERS: Mapping[str, str] = {}


def order_request(account: QliroAccount, which: str, trace_headers: Mapping[str, str] = _NO_HEADERS) -> HttpRequest:
    """GetOrder, by Qliro's number or by a reference."""
    return _request(account, trace_headers, "GET", f"orders/{quote(which, safe='')}", b"")


def _request(
    account: QliroAccount, trace_headers: Mapping[str, str], method: str, path: str, body: bytes
) -> HttpRequest:
    headers = {"Accept": "application/json", "Authorization": wire.signature(body, account.api_secret)}
    if body:
        headers["Content-Type"] = "application/json"
    url = f"{account.base_url.rstrip('/')}/v2/{path}"
    return HttpRequest(method, url, headers | dict(trace_headers), body, account.name)


def not_believed(wanted: w.Wanted, memory: Memory, there: QliroOrder, reference: str) -> str:
    """Why the response is about a different order; empty: it is about this one."""
    if wanted.order_id and there.order_id != int(wanted.order_id):
        return f"Qliro's response is for order {there.order_id}, the request was for {wanted.order_id}"
    is_other_order = bool(wanted.order_id) and memory.order_id not in (0, int(wanted.order_id))
    first = memory.merchant_reference if memory.merchant_reference and not is_other_order else ""
    if not wanted.order_id and not memory.order_id and wire.CHECKOUT_REFERENCE.fullmatch(reference):
        first = reference  # it was read by this reference, or a callback named the order
    if first and first != there.merchant_reference:
        return f"Qliro's order {there.order_id} is called {there.merchant_reference!r}, expected {first!r}"
    if there.currency != wanted.currency:
        return f"Qliro's order {there.order_id} is in {there.currency}, the order in {wanted.currency}"
    return ""


def _poll_s(account: QliroAccount, polls: int) -> float:
    return account.poll_after_s[polls] if polls < len(account.poll_after_s) else HOURLY_S


# --- after the read ------------------------------------------------------------------------------------------------


def _after_read(asked: Question, wanted: w.Wanted, memory: Memory, there: QliroOrder) -> Step:
    account: QliroAccount = asked.account
    if memory.order_id not in (0, there.order_id):
        memory = Memory()  # the shop reports a different order
    wait_s, is_late = _poll_s(account, 0), asked.may_land_late
    memory = after_read(memory, there, asked.now_ms, wait_s, may_be_ours=is_late, ordered=wanted.ordered)
    if memory.is_cancelled:
        there = replace(there, reservations=[])
    memory = replace(
        memory,
        shipped_differs_minor=sum(one.left_minor for one in there.captures) - wanted.shipped_minor,
        unshipped_differs_minor=worth(there.left) - wanted.unshipped_minor,
    )
    if under_way := [*memory.pending, *(one for one in there.not_final if one not in memory.pending)]:
        return _wait(account, memory, under_way, asked.now_ms)
    marker = asked.update.digest + asked.generation.to_bytes(4, "big")
    owes = memory.settled != marker and not (wanted.is_bare and not memory.ours)
    if not owes:  # somebody else made any remaining difference
        return Settled(replace(memory, settled=marker).encode())
    found = plan(wanted, there, memory, account.indivisible)
    if found.command is not None:
        return _send(asked, memory, there, found.command)
    if found.cannot:
        return Unsendable("; ".join(found.cannot), memory.encode())
    return Settled(replace(agreed(memory, there), settled=marker).encode())


def _wait(account: QliroAccount, memory: Memory, under_way: list[int], now_ms: int) -> AwaitResult:
    """Waits for a push or the next poll; `poll_after` counts from the last poll."""
    since_ms = memory.since_ms or now_ms
    polls = memory.polls + (now_ms >= memory.poll_at_ms > 0)
    poll_s = _poll_s(account, polls)
    memory = replace(memory, since_ms=since_ms, polls=polls, poll_at_ms=now_ms + int(poll_s * 1000))
    is_overdue = now_ms - since_ms >= account.overdue_after_s * 1000
    return AwaitResult(poll_s, why_pending(under_way), memory.encode(), is_overdue)


def _send(asked: Question, memory: Memory, there: QliroOrder, command: Command) -> Step:
    account: QliroAccount = asked.account
    if memory.errors >= ERRORS_MAX and _AGAIN not in memory.error:
        why = f"{memory.errors} attempts at {command.name} in a row ended in an error: {memory.error}"
        return Unsendable(why, replace(memory, errors=0, error="", retry_at_ms=0).encode(), kind=_FAILED)
    if memory.retry_at_ms > asked.now_ms:
        why = f"the last attempt ended in an error: {memory.error}"
        return AwaitResult((memory.retry_at_ms - asked.now_ms) / 1000, why, memory.encode())
    request_id = command.request_id(account.name, there, memory)
    if request_id.bytes == memory.denied:  # and the read has shown that it had no effect
        memory = replace(memory, generation=memory.generation + 1, denied=b"", sent=[])
        request_id = command.request_id(account.name, there, memory)
    if command.name in _REPEATED and request_id.bytes not in memory.sent:
        memory = memory.changing(asked.update.digest)
        if memory.changes > CHANGES_MAX:
            why = f"after {CHANGES_MAX} captures and updates the order is still not as it should be"
            return Unsendable(why, replace(memory, changes=0).encode(), kind=_FAILED)
    body = command.body(account, there, request_id)
    sending = memory.sending(command.intent(request_id))
    return Exchange(_request(asked.account, asked.trace_headers, "POST", command.name, body), remote=sending.encode())
