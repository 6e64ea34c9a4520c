"""What may become of a call on its way to AtaraPay and back."""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from worker.model.exchange import Fault, HttpResponse
from worker.sandbox.atarapay.escrow import Sandbox

PAGE = b"<!DOCTYPE html><html><head><title>Bad gateway</title></head><body><h1>Something went wrong</h1></body></html>"


class Trouble(StrEnum):
    """What goes wrong."""

    NO_CONNECTION = "no_connection"
    """Nothing was sent."""
    LOST = "lost"
    """It never arrived, which nobody can know."""
    UNANSWERED = "unanswered"
    """It was taken, and the answer was lost."""
    LATE = "late"
    """It arrives after the client has given up, within the hold."""
    BUSY = "busy"
    TOO_MANY = "too_many"
    BROKEN = "broken"
    """An error of AtaraPay's own, before it did anything."""
    GATEWAY_TAKEN = "gateway_taken"
    """A gateway's page, though the call was taken, …"""
    GATEWAY_LOST = "gateway_lost"
    """… or was not."""
    CUT = "cut"
    """Half of the answer."""
    REDIRECT = "redirect"


class Met(NamedTuple):
    """What the client sees."""

    answer: HttpResponse | Fault
    is_late: bool = False
    """The same call is still to be made, `Sandbox.call`, before the client's hold ends."""


_TOOK_NOTHING: Mapping[Trouble, HttpResponse | Fault] = {
    Trouble.NO_CONNECTION: Fault(sent=False, detail="no connection"),
    Trouble.LOST: Fault(sent=True, detail="timeout"),
    Trouble.LATE: Fault(sent=True, detail="timeout"),
    Trouble.BUSY: HttpResponse(503, {"retry-after": "2"}, b"try again"),
    Trouble.TOO_MANY: HttpResponse(429, {}, b'{"message":"Too Many Attempts."}'),
    Trouble.BROKEN: HttpResponse(500, {}, b'{"message":"Server Error"}'),
    Trouble.GATEWAY_LOST: HttpResponse(502, {}, PAGE),
    Trouble.REDIRECT: HttpResponse(307, {"location": "https://elsewhere.example/callback/order"}, b""),
}


def meet(sandbox: Sandbox, form: bytes, trouble: Trouble | None) -> Met:
    """One call that meets this trouble, or none."""
    if trouble is not None and trouble in _TOOK_NOTHING:
        return Met(_TOOK_NOTHING[trouble], trouble is Trouble.LATE)
    answer = sandbox.call(form)
    match trouble:
        case Trouble.UNANSWERED:
            return Met(Fault(sent=True, detail="connection reset"))
        case Trouble.GATEWAY_TAKEN:
            return Met(HttpResponse(504, {}, PAGE))
        case Trouble.CUT:
            return Met(HttpResponse(answer.status, answer.headers, answer.body[: len(answer.body) // 2]))
        case _:
            return Met(answer)
