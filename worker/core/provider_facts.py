"""What an order keeps of what its provider says, and which of it makes us look again. Pure.

Each kind is a last-writer-wins register by (time, position): what a provider says has no `sequence`, so it competes
with the shop's own events by time alone, the newest of the one with the newest of the other (`Facts.payment_now`,
`cancellation_now`). Pairwise in one heap, with sequences between the shop's, it would go round in circles, and the
order of arrival would count.
"""

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import UNSET, Struct, msgpack
from msgspec.structs import replace

from schemas import provider_events as p
from schemas.envelope import Data
from schemas.events import PROVIDER_TYPES, OrderEvent, data_of
from schemas.facts import (
    APPROVED_UNLESS_REFUSED,
    Disbursement,
    Facts,
    Moment,
    Packed,
    ProviderFacts,
    pack,
    unpack_details,
)

DISBURSED_MAX = 100
"""Lines of disbursements that are kept of an order one by one."""

Members = dict[str, Any]
"""Members of `ProviderFacts` that change."""


class _Kind(Struct, frozen=True):
    """What becomes of the events of one type."""

    keep: Callable[[ProviderFacts, OrderEvent, Moment], Members]
    is_hint: bool = False
    """Something may have moved at the provider: who can read there reads before it believes."""


def _newest(known: Mapping[str, tuple[Moment, Packed]], name: str, moment: Moment, data: Data) -> Members:
    old = known.get(name)
    return {} if old is not None and old[0] > moment else {"said": {**known, name: (moment, pack(data))}}


def _shown(name: str) -> Callable[[ProviderFacts, OrderEvent, Moment], Members]:
    return lambda facts, event, moment: _newest(facts.said, name, moment, event.data)


def _payment(facts: ProviderFacts, event: OrderEvent, moment: Moment) -> Members:
    data = event.data
    assert isinstance(data, p.PaymentStateSaidData)
    if data.state == "under_evaluation":
        return _newest(facts.said, "evaluation", moment, data)
    state = APPROVED_UNLESS_REFUSED if data.state == "approved" and event.is_final else data.state
    old = facts.payments.get(state)
    return {} if old is not None and old > moment else {"payments": {**facts.payments, state: moment}}


def _delivery(facts: ProviderFacts, event: OrderEvent, moment: Moment) -> Members:
    data = event.data
    assert isinstance(data, p.DeliverySaidData)
    said = facts.said | _newest(facts.said, "delivery", moment, data).get("said", {})
    if data.state == "second_attempt":
        said |= _newest(said, "second_attempt", moment, data).get("said", {})
    return {"said": said}


def _cancelled(facts: ProviderFacts, event: OrderEvent, moment: Moment) -> Members:
    changed = _newest(facts.said, "cancelled", moment, event.data)
    if event.is_final and (facts.cancelled is None or moment > facts.cancelled):
        changed["cancelled"] = moment
    return changed


def _shipping(facts: ProviderFacts, event: OrderEvent, moment: Moment) -> Members:
    data = event.data
    assert isinstance(data, p.ShippingData)
    return _newest(facts.said, "shipping", moment, replace(data, payload=UNSET))


def _disbursed(facts: ProviderFacts, event: OrderEvent, _moment: Moment) -> Members:
    data = event.data
    assert isinstance(data, p.DisbursedData)
    if event.uid in facts.disbursed:
        return {}  # seen so long ago that its id alone is not remembered any more
    maximum_minor = None if data.maximum_minor is UNSET else data.maximum_minor
    line = Disbursement(data.issued_on.isoformat(), data.amount_minor, maximum_minor)
    kept = {**facts.disbursed, event.uid: line}
    before_minor = facts.disbursed_before_minor
    if len(kept) > DISBURSED_MAX:
        oldest = min(kept, key=lambda uid: (kept[uid].issued_on, uid))
        before_minor += kept.pop(oldest).amount_minor
    return {"disbursed": kept, "disbursed_before_minor": before_minor}


KINDS: Mapping[type[Data], _Kind] = {
    p.PaymentStateSaidData: _Kind(_payment),
    p.TransactionData: _Kind(_shown("transaction"), is_hint=True),
    p.UpsellData: _Kind(_shown("upsell"), is_hint=True),
    p.DeliverySaidData: _Kind(_delivery, is_hint=True),
    p.CancelledThereData: _Kind(_cancelled, is_hint=True),
    p.CancelAskedData: _Kind(_shown("cancel_asked")),
    p.RiskData: _Kind(_shown("risk")),
    p.DisbursedData: _Kind(_disbursed),
    p.ShippingData: _Kind(_shipping),
    p.CardSavedData: _Kind(_shown("card_saved")),
    p.UnmappedData: _Kind(_shown("unmapped")),
}
"""By the type of their `data`. The one place that says which are hints."""

assert KINDS.keys() == {data_of(event) for event in PROVIDER_TYPES}


def take(facts: ProviderFacts | None, event: OrderEvent, position: int) -> ProviderFacts:
    """What is kept once this was said, at `position` (the record's offset) in its partition."""
    data = event.data
    assert isinstance(data, p.ProviderData)
    facts = ProviderFacts() if facts is None else facts
    moment = (event.time_us, position)
    changed = KINDS[type(data)].keep(facts, event, moment)
    if data.provider_order is not UNSET and (facts.order is None or moment > facts.order[0]):
        changed["order"] = (moment, data.provider_order)
    return replace(facts, **changed) if changed else facts


def found_cancelled(facts: ProviderFacts | None, at_us: int) -> ProviderFacts:
    """What is kept once reading there has shown that the order was cancelled. It counts from then on."""
    return replace(ProviderFacts() if facts is None else facts, cancelled=(at_us, 0))


def names_order_anew(facts: Facts, event: OrderEvent) -> bool:
    """Whether an event names the order as nobody has named it yet: what is there under that name is not known."""
    data = event.data
    if not isinstance(data, p.ProviderData) or data.provider_order is UNSET:
        return False
    known = facts.provider
    if known is not None and known.order is not None:
        moment, name = known.order
        return name != data.provider_order and moment[0] <= event.time_us
    references = None
    if "references" in facts.details:
        references = unpack_details({"references": facts.details["references"][1]}).references
    return references is None or references.provider != data.provider_order


def without_words(facts: ProviderFacts) -> ProviderFacts:
    """The same without what a provider says of errors: it may repeat what is being removed from the order."""
    said = {name: one for name, one in facts.said.items() if name != "card_saved"}
    for name, kind in _WITH_WORDS.items():
        if name in said:
            moment, packed = said[name]
            said[name] = (moment, pack(replace(msgpack.decode(packed, type=kind), error=UNSET)))
    if "unmapped" in said:
        moment, packed = said["unmapped"]
        said["unmapped"] = (moment, pack(replace(msgpack.decode(packed, type=p.UnmappedData), word="")))
    return replace(facts, said=said)


_WITH_WORDS = {"transaction": p.TransactionData, "shipping": p.ShippingData}
