"""Orders of an AtaraPay account, and what it is asked and answers."""

from typing import Any
from urllib.parse import parse_qsl

import msgspec
from msgspec.structs import replace

from schemas.facts import Moment, ProviderFacts, pack
from tests.shops.events import EventSpec, LineDict, confirmed, delivered, goods, order, shipped
from worker.model.exchange import Exchange, HttpResponse, Step
from worker.model.order import Order
from worker.model.provider import Question
from worker.providers.atarapay import AtaraPay, meaning
from worker.providers.atarapay import known as memory
from worker.providers.atarapay.known import Known
from worker.providers.atarapay.meaning import Wanted
from worker.providers.atarapay.options import AtaraPayAccount
from worker.providers.atarapay.wire import Seen, State

PUBLIC, PRIVATE = "b8kP7A1e67s0jc3h98T8pH71dq66J0s3", "PKp6z3jTcLeQNc1h3u9e0ffX77NY91adE12"
"""The keys of AtaraPay's documentation."""
ACCOUNT = AtaraPayAccount(
    name="escrow",
    provider="atarapay",
    base_url="https://api.atarapay.example/api/api",
    public_key=PUBLIC,
    private_key=PRIVATE,
)
ATARAPAY = AtaraPay()
NUMBER, PHONE = "3021", "+2348012345678"
HAT, SHOE = goods("hat", 2, 2000), goods("shoe", 1, 5000)
NOW_MS = 1_772_323_200_000


def confirmation(*lines: LineDict, number: str | None = NUMBER, phone: str = PHONE, **members: Any) -> EventSpec:
    """`order.confirmed` with what AtaraPay needs to know; by default of two hats and a shoe."""
    told: dict[str, Any] = {"delivery_address": {"mobile_phone": phone}} if phone else {}
    told |= {"references": {"provider": number}} if number else {}
    return confirmed(*(lines or (HAT, SHOE)), currency="NGN", **told | members)


ALL_SHIPPED = shipped("s1", hat=2, shoe=1)
ALL_DELIVERED = (confirmation(), ALL_SHIPPED, delivered("s1"))


def heard(found: Order, number: str = "", **said: Moment) -> Order:
    """The order once notifications have said these things, each at its moment."""
    told = {kind: (moment, pack(None)) for kind, moment in said.items()}
    provider = ProviderFacts(order=((0, 0), number) if number else None, said=told)
    return replace(found, facts=replace(found.facts, provider=provider))


def wanted(*specs: EventSpec) -> Wanted:
    """What these specs mean to AtaraPay."""
    return meaning.wanted(order(*specs))


def asked(found: Order, known: Known | bytes = b"", **members: Any) -> Question:
    """A question about the order."""
    remote = memory.encode(known) if isinstance(known, Known) else known
    update = ATARAPAY.render(found, ACCOUNT)
    return Question(found.reference, ACCOUNT, update, remote, now_ms=NOW_MS, **members)


def step_of(*specs: EventSpec, known: Known | bytes = b"", **members: Any) -> Step:
    """The next step for an order that was told so."""
    return ATARAPAY.next_step(asked(order(*specs), known, **members))


def call_of(step: Step) -> dict[str, str]:
    """The form of a call, without its token."""
    assert isinstance(step, Exchange)
    form = dict(parse_qsl(step.request.body.decode(), keep_blank_values=True, strict_parsing=True))
    form.pop("authtoken")
    return form


def seen(state: State | None, title: str = "", product_id: str = "") -> Seen:
    """What Order Status has said."""
    return Seen(state, title or str(state), product_id)


def answer(body: Any, status: int = 200, **headers: str) -> HttpResponse:
    """An answer in JSON, or as it is."""
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return HttpResponse(status, {name.replace("_", "-"): value for name, value in headers.items()}, content)
