"""Qliro's responses as outcomes, with its whole table of errors. Pure.

Source of the codes and their handling: Qliro's OpenAPI (June 2025), and public integrations; read 2026-10.
"""

from msgspec import DecodeError
from msgspec.structs import replace

from worker.model.exchange import REASON_MAX, HttpResponse, Outcome, OutcomeKind
from worker.model.provider import Answered
from worker.providers.qliro import wire
from worker.providers.qliro.memory import Memory
from worker.providers.qliro.order import order_from
from worker.providers.responses import outcome_by_status, retry_after_s

_CANCELLED = "ORDER_HAS_BEEN_CANCELLED"
_NOTHING_LEFT = "NO_ITEMS_LEFT_IN_RESERVATION"
_READ_AGAIN = frozenset({_NOTHING_LEFT, "EXCEEDING_QUANTITY", "INVALID_PAYMENT_TYPE", "PAYMENT_REFERENCE_IS_INCORRECT"})
"""Errors that a new read may resolve; each is retried once."""
_ON_HOLD = "PAYMENT_ONHOLD"
_BUSY = "already in process"
"""In the text of `OPERATION_NOT_SUPPORTED`, which has several meanings: a transaction is not final yet."""


def read_order(response: HttpResponse, now_ms: int) -> Answered:
    """Reads the response to GetOrder."""
    if not 200 <= response.status < 300:
        return Answered(_by_status(response, now_ms))
    try:
        seen = order_from(wire.decode_order(response.body))
    except (ValueError, RecursionError):  # msgspec's message may quote the body, so it is left out
        return Answered(Outcome(OutcomeKind.REJECTED, _UNREADABLE, response.status))
    return Answered(Outcome(OutcomeKind.APPLIED, "", response.status), seen)


_UNREADABLE = (
    "GetOrder cannot be read: was it longer than [http] response_max_bytes, or an amount of more than two decimals?"
)


def read_command(memory: Memory, response: HttpResponse, now_ms: int, poll_s: float) -> Outcome:
    """The outcome of a command; `memory` applies if the outcome is unknown."""
    if 200 <= response.status < 300:
        return _accepted(memory, response, now_ms, poll_s)
    outcome = replace(_by_status(response, now_ms), remote=memory.encode())
    if response.status >= 500:
        return replace(outcome, kind=OutcomeKind.UNKNOWN)
    return _refused(memory, response, outcome, poll_s) if response.status == 400 else outcome


def _accepted(memory: Memory, response: HttpResponse, now_ms: int, poll_s: float) -> Outcome:
    """200 means received: the result follows later."""
    try:
        made = wire.decode_accepted(response.body)
    except (DecodeError, RecursionError):
        made = []
    if not made:
        why = "the response names no transaction; a read has to show whether the command was accepted"
        return Outcome(OutcomeKind.UNKNOWN, why, response.status, remote=memory.encode())
    after = memory.accepted(made, now_ms, poll_s)
    return Outcome(OutcomeKind.PENDING, why_pending(made), response.status, poll_s, remote=after.encode())


def why_pending(transactions: list[int]) -> str:
    """The reason while the result is outstanding."""
    shown = ", ".join(map(str, transactions[:3]))
    return f"Qliro works on transaction {shown}" + (" and more" if len(transactions) > 3 else "")


def _by_status(response: HttpResponse, now_ms: int) -> Outcome:
    wait_s = retry_after_s(response.headers.get("retry-after"), now_ms)
    return outcome_by_status(response.status, _said(response), wait_s)


def _said(response: HttpResponse) -> str:
    """`400: INVALID_ITEM, Evaluation, … (reference …)`: Qliro's support asks for the reference."""
    refusal = wire.decode_refusal(response.body)
    words = ", ".join(each for each in (refusal.error_code, refusal.error_message) if each)
    reference = f" (reference {refusal.error_reference[:40]})" if refusal.error_reference else ""
    said = f"{response.status}: {words}" if words else f"{response.status}"
    return said[: REASON_MAX - len(reference)] + reference


def _refused(sending: Memory, response: HttpResponse, outcome: Outcome, poll_s: float) -> Outcome:
    refusal, intent = wire.decode_refusal(response.body), sending.intent
    assert intent is not None  # every command is sent with one
    code, message = refusal.error_code or "", refusal.error_message or ""
    memory = replace(sending, intent=None)
    if code == _CANCELLED or (code == _NOTHING_LEFT and intent.command == "cancelOrder"):
        after = replace(_certain(memory), is_cancelled=True)
        return replace(outcome, kind=OutcomeKind.PENDING, retry_after_s=0.0, remote=after.encode())
    if intent.is_again:
        # The first request may have been accepted, and this one denied only for its id: read after the hold.
        denied = replace(sending, denied=intent.request_id)
        return replace(outcome, kind=OutcomeKind.UNKNOWN, remote=denied.encode())
    after = _certain(memory)
    if code in _READ_AGAIN and (replan := f"{intent.command} {code}") not in memory.replans:
        after = replace(after, replans=[*memory.replans, replan])
        return replace(outcome, kind=OutcomeKind.PENDING, retry_after_s=0.0, remote=after.encode())
    if code == _ON_HOLD:
        return replace(outcome, kind=OutcomeKind.PENDING, retry_after_s=poll_s, remote=after.encode())
    if _BUSY in message:
        return replace(outcome, kind=OutcomeKind.REJECTED, remote=after.encode())
    return replace(outcome, kind=OutcomeKind.PERMANENT, remote=replace(after, replans=[]).encode())


def _certain(memory: Memory) -> Memory:
    """After the rejection of a request that was sent once: the next one is a different request."""
    return replace(memory, generation=memory.generation + 1, sent=[], denied=b"")
